"""Where the databases of a bench come from: a server of its own, or one that it is told of."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import attrs
import psycopg
from psycopg.sql import SQL, Identifier

from squidmesh.testing.postgres import TemporaryServer, embedded_binaries, system_binaries

# As a server comes, with room for connections, and with its statements counted. These are the
# defaults of PostgreSQL; a temporary server for tests would trade some of them for speed.
_AS_IT_COMES: Final = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "shared_buffers": "128MB",
    "max_connections": "200",
    "shared_preload_libraries": "pg_stat_statements",
}


@attrs.define(eq=False)
class Cluster:
    """A server on which databases are made, one after the other."""

    _url: str
    version: str
    _numbers: "count[int]" = attrs.field(factory=count)

    @classmethod
    def behind(cls, url: str) -> "Cluster":
        """The server behind a URL, prepared to count statements if it can."""
        with closing(psycopg.connect(url, autocommit=True)) as connection:
            try:
                connection.execute("create extension if not exists pg_stat_statements")
            except psycopg.Error:
                print("Statements are not counted: no pg_stat_statements.", file=sys.stderr)
            found = connection.execute("show server_version").fetchone()
        return cls(url, found[0] if found is not None else "")

    @contextmanager
    def database(self) -> Iterator[str]:
        """A new database, for as long as it is needed: its URL."""
        name = f"benchmarks_{os.getpid()}_{next(self._numbers)}"
        with closing(psycopg.connect(self._url, autocommit=True)) as connection:
            connection.execute(SQL("create database {}").format(Identifier(name)))
            try:
                yield urlsplit(self._url)._replace(path=f"/{name}").geturl()
            finally:
                connection.execute(SQL("drop database {} with (force)").format(Identifier(name)))
                # What was done to one is not to be written out, or counted, with the next.
                for statement in ("select pg_stat_statements_reset()", "checkpoint"):
                    with suppress(
                        psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedFunction
                    ):
                        connection.execute(statement)


@contextmanager
def cluster(url: str | None, folder: str | None) -> Iterator[Cluster]:
    """The server at *url*, or one of our own in *folder*, which has to be on a real disk."""
    if url is not None:
        yield Cluster.behind(url)
        return
    binaries = system_binaries() or embedded_binaries()
    if binaries is None:
        raise SystemExit("There is no PostgreSQL server on this machine; name one: --postgres-url.")
    with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=folder) as place:
        Path(place).chmod(0o755)  # the server may run as another user
        home = Path(place) / "postgres"
        with TemporaryServer.start(home, binaries=binaries, settings=_AS_IT_COMES) as server:
            yield Cluster.behind(server.url())
