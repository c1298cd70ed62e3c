"""Servers that come up fast, keep to themselves, and leave nothing behind."""

import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Final
from urllib.parse import urlsplit

import psycopg
import pytest

import squidmesh
from squidmesh.testing.postgres import (
    QUICK,
    TemporaryServer,
    TemporaryServerError,
    embedded_binaries,
    version_of,
)
from tests.postgres.template import fresh_database

# Serves, tells where, and then is killed without a chance to clear up.
KILLED: Final = """
import os, signal, sys
from pathlib import Path
from squidmesh.testing.postgres import TemporaryServer

server = TemporaryServer.start(Path(sys.argv[1]), binaries=Path(sys.argv[2]))
print(server.port, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def embedded() -> Path:
    binaries = embedded_binaries()
    assert binaries is not None
    return binaries


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder in which any user may stand, unlike pytest's own."""
    folder = Path(mkdtemp(prefix="squidmesh-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_a_server_answers_and_is_of_the_version_of_its_binaries(
    postgres_server: TemporaryServer,
) -> None:
    [(told,)] = postgres_server.execute("show server_version_num")

    assert int(told) // 10_000 == postgres_server.version
    assert postgres_server.version == version_of(postgres_server.binaries)


def test_the_wheel_brings_postgresql_18(embedded: Path) -> None:
    version = version_of(embedded)

    assert version == 18


def test_a_server_listens_on_the_loopback_only(postgres_server: TemporaryServer) -> None:
    [(addresses, sockets)] = postgres_server.execute(
        "select current_setting('listen_addresses'), current_setting('unix_socket_directories')"
    )

    assert (addresses, sockets) == ("127.0.0.1", "")


def test_a_server_is_quick_rather_than_durable(postgres_server: TemporaryServer) -> None:
    told = {name: postgres_server.execute(f"show {name}") for name in QUICK}

    assert told == {name: [(value,)] for name, value in QUICK.items()}


def test_the_wrong_password_is_refused(postgres_server: TemporaryServer) -> None:
    url = postgres_server.url(password="guessed")

    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(url)


def test_a_url_names_another_user_and_quotes_what_needs_it(
    postgres_server: TemporaryServer,
) -> None:
    postgres_server.execute("create role \"a/b\" login password 'p@:/?'")

    with psycopg.connect(postgres_server.url(user="a/b", password="p@:/?")) as connection:
        found = connection.execute("select current_user").fetchone()

    assert found == ("a/b",)
    postgres_server.execute('drop role "a/b"')


def test_the_password_shows_neither_in_the_server_nor_in_its_log(
    postgres_server: TemporaryServer,
) -> None:
    shown = f"{postgres_server!r} {postgres_server.log}"

    assert postgres_server.password not in shown


def test_a_test_gets_an_empty_database_of_its_own(postgres_empty_database: str) -> None:
    with psycopg.connect(postgres_empty_database) as connection:
        tables = connection.execute(
            "select count(*) from pg_tables where schemaname = 'public'"
        ).fetchone()

    assert tables == (0,)


def test_a_test_gets_a_migrated_database_of_its_own(postgres_database: str) -> None:
    with psycopg.connect(postgres_database) as connection:
        tables = connection.execute(
            "select count(*) > 0 from pg_tables"
            " where schemaname not in ('pg_catalog', 'information_schema')"
        ).fetchone()

    assert tables == (True,)


def test_a_database_made_from_a_template_holds_what_the_template_holds(
    postgres_server: TemporaryServer,
) -> None:
    with fresh_database(postgres_server) as template:
        name = urlsplit(template).path[1:]
        postgres_server.execute("create table fish as select 'squid' as name", name)

        with fresh_database(postgres_server, template=name) as copied, psycopg.connect(copied) as c:
            fish = c.execute("select name from fish").fetchall()

    assert fish == [("squid",)]


def test_a_database_goes_away_under_whoever_is_connected(
    postgres_server: TemporaryServer,
) -> None:
    with fresh_database(postgres_server) as url:
        connection = psycopg.connect(url)

    with pytest.raises(psycopg.OperationalError):
        connection.execute("select 1")

    connection.close()
    names = postgres_server.execute("select datname from pg_database")
    assert (urlsplit(url).path[1:],) not in names


def test_a_server_keeps_its_data_and_its_port_over_restarts_of_each_kind(
    tmp_path: Path, embedded: Path
) -> None:
    with TemporaryServer.start(tmp_path / "server", binaries=embedded) as server:
        server.execute("create table fish as select 'squid' as name")
        url = server.url()

        server.restart()
        server.restart("smart")
        server.stop("immediate")
        was_running = server.is_running
        server.restart()

        assert not was_running
        assert server.url() == url
        assert server.execute("select name from fish") == [("squid",)]


def test_settings_are_taken_in_place_of_the_quick_ones(tmp_path: Path, embedded: Path) -> None:
    settings = {"fsync": "on", "cluster_name": "it's ours"}

    with TemporaryServer.start(tmp_path, binaries=embedded, settings=settings) as server:
        told = server.execute(
            "select current_setting('fsync'), current_setting('synchronous_commit'),"
            " current_setting('cluster_name')"
        )

    assert told == [("on", "off", "it's ours")]


def test_a_server_that_does_not_come_up_says_why_and_leaves_nothing(
    open_folder: Path, embedded: Path
) -> None:
    settings = {"shared_preload_libraries": "no_such_library"}

    with pytest.raises(TemporaryServerError, match="no_such_library") as caught:
        TemporaryServer.start(open_folder / "server", binaries=embedded, settings=settings)

    assert "ended with status 1" in str(caught.value)
    assert not (open_folder / "server" / "data" / "postmaster.pid").exists()


def test_a_folder_that_is_in_use_is_refused(open_folder: Path, embedded: Path) -> None:
    with TemporaryServer.start(open_folder, binaries=embedded) as server:
        with pytest.raises(FileExistsError):
            TemporaryServer.start(open_folder, binaries=embedded)

        assert server.execute("select 1") == [(1,)]


def test_a_server_dies_with_the_process_that_started_it(open_folder: Path, embedded: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", KILLED, open_folder / "server", embedded],
        capture_output=True,
        check=False,
        cwd=Path(squidmesh.__file__).parents[1],
        text=True,
    )

    _wait_until_nobody_listens(int(finished.stdout))

    assert finished.returncode == -signal.SIGKILL
    assert "received immediate shutdown request" in (open_folder / "server/server.log").read_text()


def _wait_until_nobody_listens(port: int) -> None:
    """A server that we say nothing to says nothing either, until it hangs up."""
    with suppress(ConnectionRefusedError):
        while True:
            # It may hang up as soon as it is called: who is still in its queue then is reset.
            with (
                suppress(ConnectionResetError),
                socket.create_connection(("127.0.0.1", port), timeout=30) as caller,
            ):
                caller.recv(1)


def test_a_server_starts_in_and_from_folders_that_only_we_may_enter(
    tmp_path: Path, embedded: Path
) -> None:
    package = embedded.parents[1]
    shutil.copytree(embedded.parent, tmp_path / package.name / embedded.parent.name)
    shutil.copytree(package.with_name(f"{package.name}.libs"), tmp_path / f"{package.name}.libs")
    closed = tmp_path / package.name / embedded.parent.name / embedded.name
    tmp_path.chmod(0o700)

    with TemporaryServer.start(tmp_path / "server", binaries=closed) as server:
        rows = server.execute("select 1")
        owner = (server.folder / "data").stat().st_uid

    assert rows == [(1,)]
    assert owner != 0
    assert server.folder.exists() == (server.folder == tmp_path / "server")
