"""A PostgreSQL server of one's own, for as long as a test session or a benchmark lasts."""

import atexit
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import attrs

from squidmesh.testing.postgres_binaries import (
    TemporaryServerError,
    as_somebody,
    embedded_binaries,
    give_away,
    open_folder,
    run_as_somebody,
    runnable,
    system_binaries,
    version_of,
)

__all__ = [
    "QUICK",
    "SUPERUSER",
    "TemporaryServer",
    "TemporaryServerError",
    "embedded_binaries",
    "system_binaries",
    "version_of",
]

SUPERUSER: Final = "postgres"

# Nothing here outlives the session, so nothing need reach the disk.
QUICK: Final[Mapping[str, str]] = MappingProxyType(
    {
        "fsync": "off",
        "full_page_writes": "off",
        "max_connections": "100",
        "shared_buffers": "32MB",
        "synchronous_commit": "off",
    }
)
_LOCAL: Final = MappingProxyType({"listen_addresses": "127.0.0.1", "unix_socket_directories": ""})
_SIGNALS: Final = MappingProxyType({"smart": "TERM", "fast": "INT", "immediate": "QUIT"})
_ANSWERS_WITHIN: Final = 60.0
_LOOKS_EVERY: Final = 0.02
_PORTS_TRIED: Final = 5
_TAIL: Final = 4_000

# The server's parent is a shell that holds one end of a pipe. It passes on the signals that it
# reads there, and the end of the pipe, however we come to die, is the end of the server. It alone
# signals, and only a child that it has not waited for yet: no process of anybody else is hit.
_SUPERVISED: Final = """
exec 3<&0 </dev/null
"$@" 3<&- &
server=$!
(
    while read -r signal <&3; do kill -s "$signal" "$server"; done
    kill -s QUIT "$server"
) >/dev/null 2>&1 &
guard=$!
exec 3<&-
wait "$server"
status=$?
kill "$guard" 2>/dev/null
exit "$status"
"""


@attrs.define(eq=False, kw_only=True)
class TemporaryServer:
    """A PostgreSQL server on a free port of the loopback interface, with its data in a folder.

    PostgreSQL does not run as root. If we do, it runs as `postgres` or `nobody`; and if that user
    cannot reach the folder or the binaries, it gets a temporary folder or a copy instead, which
    `close` and the end of the process clear away.
    """

    binaries: Path
    folder: Path
    version: int
    port: int = 0
    password: str = attrs.field(factory=lambda: secrets.token_urlsafe(24), repr=False)
    _is_ours: bool
    _process: subprocess.Popen[bytes] | None = attrs.field(default=None, repr=False)

    @classmethod
    def start(
        cls, folder: Path, *, binaries: Path, settings: Mapping[str, str] | None = None
    ) -> Self:
        """Make a cluster in *folder*, serve it, and return as soon as the server answers.

        *settings* go into `postgresql.conf`, on top of `QUICK`, which trades durability for speed.

        Raises:
            TemporaryServerError: the cluster could not be made, or the server did not come up.
        """
        home, is_ours = _home(folder)
        programs = runnable(binaries)
        version = version_of(programs)
        server = cls(binaries=programs, folder=home, version=version, is_ours=is_ours)
        atexit.register(server.close)
        try:
            server._make_cluster({**QUICK, **_LOCAL, **(settings or {})})
            server._launch_on_a_free_port()
        except BaseException:
            server.close()
            raise
        return server

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def is_running(self) -> bool:
        """Whether the server's process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """The last that the server, or the making of its cluster, had to say."""
        path = self._log_path
        return path.read_text("utf-8", "replace")[-_TAIL:] if path.exists() else ""

    def url(
        self, database: str = "postgres", *, user: str = SUPERUSER, password: str | None = None
    ) -> str:
        """Where *database* is found; the password is the superuser's if none is given."""
        secret = quote(self.password if password is None else password, safe="")
        name = quote(database, safe="")
        return f"postgresql://{quote(user, safe='')}:{secret}@127.0.0.1:{self.port}/{name}"

    def execute(self, sql: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run *sql* as the superuser, outside of a transaction, and return the rows if any."""
        import psycopg  # noqa: PLC0415  an extra

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def create_database(self, name: str, *, template: str | None = None) -> None:
        """Make a database, as a copy of *template* if one is named."""
        copied = f" template {_quoted(template)}" if template is not None else ""
        self.execute(f"create database {_quoted(name)}{copied}")

    def drop_database(self, name: str) -> None:
        """Remove a database, whoever is still connected to it; it may be gone already."""
        self.execute(f"drop database if exists {_quoted(name)} with (force)")

    def stop(self, mode: str = "fast") -> None:
        """Stop serving and keep the data; *mode* is one of `pg_ctl`: smart, fast or immediate."""
        signal = _SIGNALS[mode]
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        with suppress(BrokenPipeError):
            process.stdin.write(f"{signal}\n".encode())
            process.stdin.flush()
        try:
            process.wait(_ANSWERS_WITHIN)
        finally:
            with suppress(BrokenPipeError):
                process.stdin.close()
            process.wait()

    def restart(self, mode: str = "fast") -> None:
        """Stop, if that is not done yet, and serve the same data on the same port again."""
        self.stop(mode)
        self._launch()

    def close(self) -> None:
        """Stop at once and for good, and remove the folder if it is a temporary one."""
        atexit.unregister(self.close)
        self.stop("immediate")
        if self._is_ours:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def _log_path(self) -> Path:
        return self.folder / "server.log"

    def _make_cluster(self, settings: Mapping[str, str]) -> None:
        secret = self.folder / "password"
        secret.touch(mode=0o600)
        secret.write_text(self.password)
        self._data.mkdir(mode=0o700)
        give_away(self._data, secret)
        command = [self.binaries / "initdb", "-D", self._data, "-U", SUPERUSER, "-E", "UTF8"]
        options = ["-A", "scram-sha-256", f"--pwfile={secret}", "--no-sync", "--no-locale"]
        try:
            made = run_as_somebody([*map(str, command), *options])
        finally:
            secret.unlink()
        self._log_path.write_bytes(made.stdout)
        if made.returncode != 0:
            raise TemporaryServerError(f"initdb failed:\n{self.log}")
        with (self._data / "postgresql.conf").open("a", encoding="utf-8") as configuration:
            for name, value in settings.items():
                doubled = value.replace("'", "''")
                configuration.write(f"{name} = '{doubled}'\n")

    def _launch_on_a_free_port(self) -> None:
        """Take a port that is free now; who snatches it before the server has it sends us on."""
        for remaining in reversed(range(_PORTS_TRIED)):
            self.port = _free_port()
            try:
                self._launch()
            except TemporaryServerError:
                if not remaining or "Address already in use" not in self.log:
                    raise
                self._log_path.unlink()
            else:
                return

    def _launch(self) -> None:
        command = [self.binaries / "postgres", "-D", self._data, "-p", self.port]
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603
                ["/bin/sh", "-c", _SUPERVISED, "sh", *map(str, command)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # an interrupt at the terminal is not meant for it
                **as_somebody(self._data),
            )
        try:
            self._wait_until_it_answers(self._process)
        except BaseException:
            self.stop("immediate")
            raise

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        import psycopg  # noqa: PLC0415  an extra

        deadline = time.monotonic() + _ANSWERS_WITHIN
        while time.monotonic() < deadline:
            with suppress(psycopg.OperationalError):
                self.execute("select 1")
                return
            with suppress(subprocess.TimeoutExpired):
                status = process.wait(_LOOKS_EVERY)
                raise TemporaryServerError(f"postgres ended with status {status}:\n{self.log}")
        raise TemporaryServerError(f"postgres does not answer on {self.port}:\n{self.log}")


def _home(folder: Path) -> tuple[Path, bool]:
    """*folder*, or a temporary one if the server's user cannot reach it; and which it is."""
    folder = folder.resolve()
    if not folder.exists():
        folder.mkdir(parents=True)
        folder.chmod(0o755)
    entered = run_as_somebody(["/bin/sh", "-c", 'cd "$1"', "sh", str(folder)])
    return (folder, False) if entered.returncode == 0 else (open_folder(), True)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _quoted(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"'
