"""Wrong addresses, missing privileges, full pools, servers that stop, die or fall silent.

Each ends in its named error, soon, without the password and with nothing half-written; a worker
says so once and goes on by itself.
"""

import asyncio
import gc
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

import psycopg
import pytest

from squidmesh import (
    InvalidOptionError,
    SchemaNotMigratedError,
    SquidMesh,
    SquidMeshError,
    StoreUnavailableError,
    Worker,
    Workflow,
    manual,
    path,
    step,
)
from squidmesh.adapters.postgres import PostgresStore, options_from
from squidmesh.adapters.postgres.statements import Query, Steps
from squidmesh.system import SystemClock
from squidmesh.testing.postgres import TemporaryServer, embedded_binaries
from tests.postgres.pooler import Pooler
from tests.postgres.silence import line_to
from tests.postgres.support import SHORT, Greeting, count, ears, name_of, shown
from tests.postgres.template import fresh_database, migrated

pytestmark = pytest.mark.anyio

CANARY: Final = "canary-4711"
SOON: Final = 8.0
GRACE: Final = 4.0


@pytest.fixture
def free_port() -> Iterator[int]:
    """A port on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture(scope="module")
def frail_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TemporaryServer]:
    """A server of these tests' own, to be stopped and killed, which keeps what it has confirmed."""
    binaries = embedded_binaries()
    assert binaries is not None
    settings = {"synchronous_commit": "on", "full_page_writes": "on"}
    folder = tmp_path_factory.mktemp("frail")
    with TemporaryServer.start(folder, binaries=binaries, settings=settings) as server:
        yield server


@pytest.fixture
def frail_database(frail_server: TemporaryServer) -> Iterator[str]:
    with fresh_database(frail_server) as url:
        migrated(url)
        yield url


async def refused(url: str) -> SquidMeshError:
    """What somebody hears who wants to know about the runs at *url*."""
    with ears() as heard:
        mesh = SquidMesh.open(url)
        try:
            async with asyncio.timeout(SOON):
                with pytest.raises(SquidMeshError) as caught:
                    await mesh.list_runs()
        finally:
            await mesh.aclose()
    assert CANARY not in heard.text
    assert CANARY not in shown(caught.value)
    return caught.value


@pytest.fixture
def role(postgres_server: TemporaryServer, postgres_database: str) -> Iterator[str]:
    """The URL of the test's database for somebody who may do nothing in it."""
    name = f"stranger_{name_of(postgres_database)}"
    postgres_server.execute(f"create role {name} login password '{CANARY}'")
    yield postgres_server.url(name_of(postgres_database), user=name, password=CANARY)
    postgres_server.execute(f"drop owned by {name}", name_of(postgres_database))
    postgres_server.execute(f"drop role {name}")


# Addresses


async def test_where_nobody_listens_it_is_said_at_once(free_port: int) -> None:
    problem = await refused(f"postgresql://ida:{CANARY}@127.0.0.1:{free_port}/shop")

    assert isinstance(problem, StoreUnavailableError)
    assert "Connection refused" in str(problem)


async def test_a_wrong_password_is_said_at_once(postgres_server: TemporaryServer) -> None:
    problem = await refused(postgres_server.url(password=CANARY))

    assert isinstance(problem, StoreUnavailableError)
    assert "password authentication failed" in str(problem)


async def test_an_unknown_database_is_named(postgres_server: TemporaryServer, role: str) -> None:
    problem = await refused(f"{role}_of_nobody")

    assert isinstance(problem, StoreUnavailableError)
    assert "_of_nobody" in str(problem)
    assert "does not exist" in str(problem)


async def test_an_unknown_host_is_named() -> None:
    problem = await refused(f"postgresql://ida:{CANARY}@nowhere.invalid/shop")

    assert isinstance(problem, StoreUnavailableError)
    assert "nowhere.invalid" in str(problem)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://ida:{CANARY}@host/shop?colour=blue",
        f"postgresql://ida:{CANARY}@host:port/shop",
        f"postgresql://ida:begin@{CANARY}@host/shop",
        f"postgresql://ida:begin/{CANARY}@host/shop",
        f"postgresql://ida:{CANARY}/more@host/shop",
        f"postgresql://ida:{CANARY}@[host/shop",
        f"postgresql://ida:{CANARY}%zz@host/shop",
    ],
)
async def test_a_url_that_makes_no_sense_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(InvalidOptionError) as caught:
        SquidMesh.open(url)

    assert caught.value.option == "url"
    assert "%40" in str(caught.value)
    assert CANARY not in f"{caught.value!r} {caught.value} {caught.value.details}"


async def test_the_url_may_say_what_libpq_understands(postgres_database: str) -> None:
    more = "application_name=shop&connect_timeout=3&options=-c%20work_mem%3D8MB"
    scheme, rest = "postgresql+psycopg", postgres_database.partition("://")[2]
    store = await PostgresStore.open(f"{scheme}://{rest}?{more}", clock=SystemClock())

    async with store._database.connection() as connection:
        cursor = await connection.execute(
            "select current_setting('application_name'), current_setting('work_mem'),"
            " current_setting('jit')"
        )
        told = await cursor.fetchone()

    await store.close()
    assert told == ("shop", "8MB", "off")


async def test_a_database_that_cannot_hold_every_text_is_refused(
    postgres_server: TemporaryServer,
) -> None:
    postgres_server.execute(
        "create database narrow encoding 'LATIN1' lc_collate 'C' lc_ctype 'C' template template0"
    )

    problem = await refused(postgres_server.url("narrow"))

    postgres_server.drop_database("narrow")
    assert isinstance(problem, StoreUnavailableError)
    assert "LATIN1" in str(problem)


# Tables and privileges


async def test_a_database_without_tables_asks_to_be_migrated(postgres_empty_database: str) -> None:
    problem = await refused(postgres_empty_database)

    assert isinstance(problem, SchemaNotMigratedError)
    assert problem.details["found"] is None


@pytest.mark.parametrize("version", [0, 999])
async def test_tables_of_another_release_are_left_alone(
    postgres_database: str, version: int
) -> None:
    with psycopg.connect(postgres_database) as connection:
        connection.execute("update squidmesh.schema_version set version = %s", (version,))

    problem = await refused(postgres_database)

    assert isinstance(problem, SchemaNotMigratedError)
    assert problem.details["found"] == version


async def test_tables_that_are_gone_while_we_work_are_missed(postgres_database: str) -> None:
    async with SquidMesh.open(postgres_database) as mesh:
        await mesh.list_runs()
        with psycopg.connect(postgres_database) as connection:
            connection.execute("drop schema squidmesh cascade")

        with pytest.raises(SchemaNotMigratedError):
            await mesh.list_runs()


async def test_who_may_do_nothing_is_told_so(role: str) -> None:
    problem = await refused(role)

    assert isinstance(problem, StoreUnavailableError)
    assert "permission denied" in str(problem)


async def test_who_may_read_alone_starts_nothing(
    postgres_server: TemporaryServer, postgres_database: str, role: str
) -> None:
    name = f"stranger_{name_of(postgres_database)}"
    postgres_server.execute(
        f"grant usage on schema squidmesh to {name};"
        f"grant select on all tables in schema squidmesh to {name}",
        name_of(postgres_database),
    )
    async with SquidMesh.open(role, workflows=[Greeting]) as mesh:
        page = await mesh.list_runs()

        with pytest.raises(StoreUnavailableError, match="permission denied for table"):
            await mesh.start_run(Greeting)

    assert page.runs == ()
    assert count(postgres_database, "runs") == 0


async def test_a_read_only_server_is_told_of_and_tried_again(
    postgres_server: TemporaryServer, postgres_database: str
) -> None:
    name = name_of(postgres_database)
    postgres_server.execute(f"alter database {name} set default_transaction_read_only = on")
    async with SquidMesh.open(postgres_database, workflows=[Greeting]) as mesh:
        with pytest.raises(StoreUnavailableError, match="read-only transaction"):
            await mesh.start_run(Greeting, idempotency_key="once")
        tables = ("runs", "step_runs", "entries", "definitions", "idempotency_keys")
        written = {table: count(postgres_database, table) for table in tables}
        postgres_server.execute(f"alter database {name} reset default_transaction_read_only")

        run = await mesh.start_run(Greeting, idempotency_key="once")

    assert set(written.values()) == {0}
    assert run.status == "pending"


# Time


@asynccontextmanager
async def locked(url: str, table: str) -> AsyncIterator[None]:
    """Let nobody near one of our tables."""
    connection = await psycopg.AsyncConnection.connect(url)
    async with connection:
        await connection.execute(f"lock table squidmesh.{table}".encode())
        yield
        await connection.rollback()


def slowly() -> Steps[None]:
    yield Query("select pg_sleep(60)")


@pytest.mark.parametrize("transaction", [False, True])
async def test_a_call_that_takes_too_long_ends_and_so_does_its_statement(
    postgres_server: TemporaryServer, postgres_database: str, *, transaction: bool
) -> None:
    options = options_from({"deadline": 0.3, "min_connections": 1})
    store = await PostgresStore.open(postgres_database, clock=SystemClock(), options=options)
    await store.definitions()
    began = time.monotonic()

    with pytest.raises(StoreUnavailableError, match="took too long"):
        await store._database.run(slowly, transaction=transaction)

    took = time.monotonic() - began
    assert took < GRACE
    assert await _sessions(postgres_server, postgres_database) == 0
    assert await store.definitions() == ()
    await store.close()


async def test_who_holds_our_rows_for_long_is_not_waited_for_without_end(
    postgres_database: str,
) -> None:
    async with SquidMesh.open(postgres_database, workflows=[Greeting], deadline=0.5) as mesh:
        await mesh.list_runs()
        async with locked(postgres_database, "runs"):
            with pytest.raises(StoreUnavailableError, match="too long"):
                await mesh.start_run(Greeting)

        assert (await mesh.list_runs()).runs == ()

    assert count(postgres_database, "entries") == 0


async def test_a_full_pool_is_told_of(postgres_database: str) -> None:
    options = options_from({"max_connections": 1, "deadline": 0.5})
    store = await PostgresStore.open(postgres_database, clock=SystemClock(), options=options)
    async with store._database.connection():
        with pytest.raises(StoreUnavailableError) as caught:
            await store.definitions()

    after = await store.definitions()

    await store.close()
    assert "all 1 connections are in use (max_connections)" in str(caught.value)
    assert after == ()


async def test_a_server_that_falls_silent_is_given_up_and_its_connection_too(
    postgres_database: str,
) -> None:
    async with line_to(postgres_database) as line, SquidMesh.open(line.url, deadline=0.5) as mesh:
        await mesh.list_runs()
        line.silent = True
        began = time.monotonic()
        with pytest.raises(StoreUnavailableError, match="too long"):
            await mesh.list_runs()
        took = time.monotonic() - began
        line.silent, before = False, line.connections

        page = await mesh.list_runs()

    assert took < GRACE
    assert line.connections == before + 1
    assert page.runs == ()


async def test_a_silent_server_does_not_keep_a_host_that_has_waited_enough(
    postgres_database: str,
) -> None:
    with ears() as heard:
        async with line_to(postgres_database) as line, SquidMesh.open(line.url) as mesh:
            await mesh.list_runs()
            line.silent = True
            calling = asyncio.create_task(mesh.list_runs())
            await line.swallowed.wait()
            began = time.monotonic()
            calling.cancel()
            await asyncio.wait([calling])
            took = time.monotonic() - began

    assert calling.cancelled()
    assert took < GRACE
    assert "cancellation failed" not in heard.text


async def test_a_heart_that_gets_no_answer_gives_up_in_time(postgres_database: str) -> None:
    async with line_to(postgres_database) as line:
        options = options_from({"deadline": 0.5})
        store = await PostgresStore.open(line.url, clock=SystemClock(), options=options)
        beats = await asyncio.to_thread(store.heartbeats)
        await asyncio.to_thread(beats.beat, [])
        line.silent = True
        began = time.monotonic()

        with pytest.raises(StoreUnavailableError, match="too long"):
            await asyncio.to_thread(beats.beat, [])

        took = time.monotonic() - began
        beats.close()
        await store.close()
    assert took < GRACE


# Settings


@pytest.mark.parametrize(
    "setting",
    [
        "default_transaction_isolation = 'serializable'",
        "default_transaction_isolation = 'repeatable read'",
        "timezone = 'Asia/Kathmandu'",
        "datestyle = 'German'",
        "intervalstyle = 'iso_8601'",
        "bytea_output = 'escape'",
        "search_path = ''",
        "standard_conforming_strings = off",
    ],
)
async def test_what_a_database_is_set_to_changes_nothing(
    postgres_server: TemporaryServer, postgres_database: str, setting: str
) -> None:
    postgres_server.execute(f"alter database {name_of(postgres_database)} set {setting}")

    async with SquidMesh.open(postgres_database, workflows=[Greeting]) as mesh:
        ids = await mesh.start_runs(Greeting, [None] * 20)
        await asyncio.gather(mesh.run_until_idle(), mesh.run_until_idle())
        runs = [await mesh.inspect_run(run_id) for run_id in ids]

    assert {run.status for run in runs} == {"completed"}
    took = [run.updated_at - run.started_at for run in runs]
    assert all(timedelta(0) <= one < timedelta(minutes=1) for one in took)


# Servers that stop, and die


async def test_a_worker_says_once_that_the_server_is_away_and_goes_on_by_itself(
    frail_server: TemporaryServer, frail_database: str
) -> None:
    with ears() as heard:
        async with SquidMesh.open(frail_database, workflows=[Greeting]) as mesh:
            worker = Worker(mesh)
            working = asyncio.create_task(worker.run())
            first = await mesh.start_run(Greeting)
            await ended(mesh, first.id)

            await asyncio.to_thread(frail_server.stop)
            await heard.hear("claim.failed")
            with pytest.raises(StoreUnavailableError):
                await mesh.start_run(Greeting)
            await asyncio.to_thread(frail_server.restart)
            second = await mesh.start_run(Greeting)
            async with asyncio.timeout(SOON):
                await ended(mesh, second.id)
            worker.stop()
            await working

    assert sorted(set(heard.warnings)) == sorted(heard.warnings)
    assert {line for line in heard.warnings if ": " in line} == set()
    assert frail_server.password not in heard.text


async def test_a_server_that_is_killed_in_the_middle_of_work_loses_nothing(
    frail_server: TemporaryServer, frail_database: str
) -> None:
    begun, done = asyncio.Event(), []

    async def first() -> str:
        begun.set()
        return "one"

    async def last(one: str) -> None:
        done.append(one)

    class Chain(Workflow[None]):
        name = "chain"
        by_hand = manual()
        one = step(first, output="one")
        two = step(lambda one: one, output="two")
        three = step(last)
        transitions = path(one, two, three)

    async with SquidMesh.open(frail_database, workflows=[Chain]) as mesh:
        ids = await mesh.start_runs(Chain, [None] * 100)
        worker = Worker(mesh, concurrency=16)
        working = asyncio.create_task(worker.run())
        await begun.wait()

        await asyncio.to_thread(frail_server.stop, "immediate")
        await asyncio.to_thread(frail_server.restart)

        async with asyncio.timeout(4 * SHORT):
            for run_id in ids:
                await ended(mesh, run_id)
        worker.stop()
        await working
        runs = [await mesh.inspect_run(run_id, include_history=True) for run_id in ids]

    assert {run.status for run in runs} == {"completed"}
    outcomes = [
        [attempt.status for attempt in run.attempts or ()].count("completed") for run in runs
    ]
    assert set(outcomes) == {3}
    assert len(done) >= 100


async def ended(mesh: SquidMesh, run_id: str) -> None:
    """Return when a run is over, whatever happens to the server in the meantime."""
    clock = SystemClock()
    while (await mesh.inspect_run(run_id)).ended_at is None:
        await clock.sleep(0.02)


async def test_connections_that_a_restart_has_ended_are_not_lent(
    frail_server: TemporaryServer, frail_database: str
) -> None:
    async with SquidMesh.open(frail_database) as mesh:
        await asyncio.gather(*(mesh.list_runs() for _ in range(4)))
        await asyncio.to_thread(frail_server.restart)

        pages = await asyncio.gather(*(mesh.list_runs() for _ in range(4)))

    assert [page.runs for page in pages] == [()] * 4


# Leaving


def test_a_loop_that_ends_without_a_word_leaves_no_warnings(postgres_database: str) -> None:
    program = """
import asyncio, gc, sys
from squidmesh import SquidMesh
from tests.postgres.support import Greeting

async def main():
    mesh = SquidMesh.open(sys.argv[1], workflows=[Greeting])
    await mesh.start_run(Greeting)
    await mesh.run_until_idle()

asyncio.run(main())
gc.collect()
"""
    ended = subprocess.run(
        [sys.executable, "-W", "always", "-c", program, postgres_database],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


async def test_a_store_is_closed_twice_and_says_so_at_once(postgres_database: str) -> None:
    store = await PostgresStore.open(postgres_database, clock=SystemClock())
    await store.definitions()
    await store.close()
    began = time.monotonic()

    await store.close()
    with pytest.raises(StoreUnavailableError, match="closed"):
        await store.definitions()

    assert time.monotonic() - began < 1.0


async def test_who_waits_for_a_connection_hears_that_the_store_is_closed(
    postgres_database: str,
) -> None:
    options = options_from({"max_connections": 1})
    store = await PostgresStore.open(postgres_database, clock=SystemClock(), options=options)
    async with store._database.connection():
        calling = asyncio.create_task(store.definitions())
        await SystemClock().sleep(0)
        closing = asyncio.create_task(store.close())
        await SystemClock().sleep(0)

    with pytest.raises(StoreUnavailableError, match="closed"):
        await calling

    await closing


async def test_a_store_that_nobody_closes_gives_its_connections_back(
    postgres_server: TemporaryServer, postgres_database: str
) -> None:
    store = await PostgresStore.open(postgres_database, clock=SystemClock())
    await store.definitions()

    del store
    gc.collect()

    assert await _sessions(postgres_server, postgres_database) == 0


async def _sessions(server: TemporaryServer, url: str) -> int:
    """How many sessions of ours are left; a server takes a moment to notice that one ended."""
    clock, found = SystemClock(), 0
    for _ in range(100):
        [(found,)] = server.execute(
            "select count(*) from pg_stat_activity where application_name = 'squidmesh'"  # noqa: S608
            f" and datname = '{name_of(url)}'"
        )
        if not found:
            break
        await clock.sleep(0.02)
    return found


# Poolers that were not announced


async def test_a_pooler_that_refuses_settings_is_lived_with(postgres_database: str) -> None:
    with ears() as heard, Pooler.start(postgres_database) as pooler:
        async with SquidMesh.open(pooler.url, workflows=[Greeting]) as mesh:
            run = await mesh.start_run(Greeting)
            await mesh.run_until_idle()
            for _ in range(10):
                run = await mesh.inspect_run(run.id)

    assert run.status == "completed"
    assert pooler.swaps > 0
    assert heard.warnings == []


async def test_a_pooler_that_forgets_what_was_prepared_is_named(postgres_database: str) -> None:
    with Pooler.start(postgres_database, ignored={"options"}) as pooler:
        async with SquidMesh.open(pooler.url, prepare_threshold=0) as mesh:
            with pytest.raises(InvalidOptionError, match="prepare_threshold=None") as caught:
                await mesh.list_runs()

    assert caught.value.option == "prepare_threshold"
