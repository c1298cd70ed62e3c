"""The host's own connection: the same functions, inside the transaction that is open on it."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import aiosqlite
import attrs

from squidmesh.adapters.sqlite.connection import Database, accidents, look
from squidmesh.errors import InvalidOptionError
from squidmesh.ports.clock import Clock
from squidmesh.unwrapping import driver_connection, name_of
from squidmesh.waiting import to_the_end

_Answer = TypeVar("_Answer")

AnyConnection = aiosqlite.Connection | sqlite3.Connection


@attrs.frozen(eq=False)
class HostTransaction:
    """The transaction on a connection that belongs to the host, who commits it or does not.

    A function runs to its end in the connection's own thread, or in the calling one if it has
    none, so whoever is cancelled leaves nothing half done. A step's transaction *is_steps*: it is
    there already.
    """

    _database: Database
    _connection: AnyConnection
    is_steps: bool = False

    @property
    def clock(self) -> Clock:
        """The store's time."""
        return self._database.clock

    async def write(self, body: Callable[[sqlite3.Connection, datetime], _Answer]) -> _Answer:
        """Run *body* behind what the host has done so far, or take all of it back."""
        self._database.check_is_there()
        with accidents():
            return await self._run(lambda connection: self._write(connection, body))

    def _write(
        self,
        connection: sqlite3.Connection,
        body: Callable[[sqlite3.Connection, datetime], _Answer],
    ) -> _Answer:
        if not connection.in_transaction:
            if self.is_steps:
                raise InvalidOptionError("connection", "The step's transaction has been ended.")
            connection.execute("begin immediate")
        with _our_ways(connection):
            connection.execute("savepoint squidmesh")
            try:
                answer = body(connection, self.clock.now())
            except BaseException:
                # Some errors have taken back the whole transaction already.
                if connection.in_transaction:
                    connection.execute("rollback to squidmesh")
                    connection.execute("release squidmesh")
                raise
            connection.execute("release squidmesh")
        return answer

    async def read(self, body: Callable[[sqlite3.Connection], _Answer]) -> _Answer:
        """Run *body* on what the host sees; where it has begun nothing, nothing is left begun.

        A transaction that only reads would keep the host from writing later.
        """
        self._database.check_is_there()
        with accidents():
            return await self._run(lambda connection: _read(connection, body))

    async def _run(self, body: Callable[[sqlite3.Connection], _Answer]) -> _Answer:
        connection = self._connection
        if self.is_steps and isinstance(connection, sqlite3.Connection):
            return await to_the_end(asyncio.to_thread(body, connection))
        return await run_on(connection, body)


def _read(connection: sqlite3.Connection, body: Callable[[sqlite3.Connection], _Answer]) -> _Answer:
    with _our_ways(connection):
        return body(connection) if connection.in_transaction else look(connection, body)


@contextmanager
def _our_ways(connection: sqlite3.Connection) -> Iterator[None]:
    """Set aside how the host wants to have its rows and texts."""
    rows, texts = connection.row_factory, connection.text_factory
    connection.row_factory, connection.text_factory = None, str
    try:
        yield
    finally:
        connection.row_factory, connection.text_factory = rows, texts


async def run_on(
    connection: AnyConnection, body: Callable[[sqlite3.Connection], _Answer]
) -> _Answer:
    """Run *body* on a connection of either kind."""
    if isinstance(connection, sqlite3.Connection):
        return body(connection)
    execute: Callable[..., Awaitable[_Answer]] = connection._execute  # noqa: SLF001  the only way
    return await execute(lambda: body(connection._conn))  # noqa: SLF001


async def connection_in(given: object, database: Database) -> AnyConnection:
    """Return the connection of SQLite in what a host has lent.

    Raises:
        InvalidOptionError: There is none, it is closed, or it is to another file.
    """
    found = await driver_connection(given)
    if not isinstance(found, aiosqlite.Connection | sqlite3.Connection):
        raise InvalidOptionError(
            "connection",
            "A SQLite store joins a connection of aiosqlite or sqlite3,"
            f" and not a {name_of(given, found)}.",
        )
    try:
        path = await run_on(found, _path_of)
    except (sqlite3.ProgrammingError, ValueError) as problem:
        # It is closed, or another thread's.
        raise InvalidOptionError("connection", f"The connection is of no use: {problem}") from None
    if not path or not _is_same(path, database.path):
        raise InvalidOptionError("connection", "The connection is to another file than the store.")
    return found


def _path_of(connection: sqlite3.Connection) -> str:
    with _our_ways(connection):
        found = connection.execute("pragma database_list").fetchall()
    return next((path for _, name, path in found if name == "main"), "")


def _is_same(path: str, other: Path) -> bool:
    try:
        return Path(path).samefile(other)
    except OSError:
        return False
