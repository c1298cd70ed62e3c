"""Connections, and the one way to use them: a transaction is one function on their thread.

Nothing is awaited between ``begin`` and ``commit``. A task that is cancelled while it waits stops
waiting, and its transaction ends in its thread as if nobody had: none is ever left open.
"""

import asyncio
import os
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import aiosqlite
import attrs

from squidmesh.errors import InvalidOptionError, StoreConflictError, StoreUnavailableError
from squidmesh.ports.clock import Clock

OLDEST: Final = (3, 37)
BUSY_SECONDS: Final = 5.0
_CACHED_STATEMENTS: Final = 256
_PRIMARY: Final = 0xFF
_OTHERS: Final = 1000

_Answer = TypeVar("_Answer")

_REASONS: Final = {
    sqlite3.SQLITE_BUSY: f"another connection has held the lock for over {BUSY_SECONDS:g} seconds",
    sqlite3.SQLITE_LOCKED: "a table is locked by another connection",
    sqlite3.SQLITE_FULL: "the disk, or the space that the database may use, is full",
    sqlite3.SQLITE_IOERR: "reading or writing the file failed",
    sqlite3.SQLITE_READONLY: "the file, or its folder, may not be written",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened; its folder has to exist",
    sqlite3.SQLITE_NOTADB: "the file is not an SQLite database",
    sqlite3.SQLITE_CORRUPT: "the file is damaged",
    sqlite3.SQLITE_PERM: "the file may not be opened",
    sqlite3.SQLITE_AUTH: "the file may not be opened",
    sqlite3.SQLITE_NOMEM: "there is no memory left",
    sqlite3.SQLITE_INTERRUPT: "the statement was interrupted",
    sqlite3.SQLITE_PROTOCOL: "the locks of the file do not work; is it on a network drive?",
    sqlite3.SQLITE_NOLFS: "the file is larger than this machine can handle",
}


@contextmanager
def accidents() -> Iterator[None]:
    """Turn what can happen to any database into StoreUnavailableError; mistakes stay as they are.

    Raises:
        StoreUnavailableError: locked for too long, full, unreadable, read-only, damaged.
        StoreConflictError: a transaction that began as a reader cannot become a writer.

    """
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code == sqlite3.SQLITE_BUSY_SNAPSHOT:
            raise StoreConflictError("the snapshot that was read is stale") from error
        reason = _REASONS.get(code & _PRIMARY) if code is not None else None
        if reason is None:
            raise
        raise StoreUnavailableError(reason) from error


def connect(path: Path, *, read_only: bool = False, any_thread: bool = False) -> sqlite3.Connection:
    """Open a connection that commits durably and waits for others, for a while."""
    connection = sqlite3.connect(
        path,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        cached_statements=_CACHED_STATEMENTS,
        check_same_thread=not any_thread,
    )
    try:
        _keep_log(connection)
        connection.execute("pragma synchronous = full")
        connection.execute("pragma foreign_keys = off")
        if read_only:
            connection.execute("pragma query_only = on")
    except BaseException:
        connection.close()
        raise
    return connection


def _keep_log(connection: sqlite3.Connection) -> None:
    """Have a write-ahead log kept, unless the file has one.

    Of several processes that open a fresh file at once, one may find it locked, and this statement
    does not wait. An exclusive transaction does, until nobody is in the way.
    """
    for _ in range(_OTHERS):
        try:
            (mode,) = connection.execute("pragma journal_mode = wal").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & _PRIMARY != sqlite3.SQLITE_BUSY:
                raise
            connection.execute("begin exclusive")
            connection.execute("rollback")
        else:
            if mode != "wal":
                raise StoreUnavailableError("a write-ahead log cannot be kept beside the file")
            return
    raise StoreUnavailableError(_REASONS[sqlite3.SQLITE_BUSY])


def transact(
    connection: sqlite3.Connection,
    clock: Clock,
    body: Callable[[sqlite3.Connection, datetime], _Answer],
) -> _Answer:
    """Run *body* in one transaction; its time is read when the lock is held."""
    connection.execute("begin immediate")
    try:
        answer = body(connection, clock.now())
        connection.execute("commit")
    finally:
        if connection.in_transaction:
            connection.execute("rollback")
    return answer


def look(connection: sqlite3.Connection, body: Callable[[sqlite3.Connection], _Answer]) -> _Answer:
    """Run *body* over one snapshot."""
    connection.execute("begin")
    try:
        return body(connection)
    finally:
        if connection.in_transaction:
            connection.execute("rollback")


class Worker(aiosqlite.Connection):
    """A connection with its thread, which takes whole functions.

    The thread does not keep a process alive that forgot to close its store: what is committed is
    committed, and the rest is what a crash would leave.
    """

    def __init__(self, connector: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(connector, iter_chunk_size=64)
        self._thread.daemon = True

    async def start(self) -> None:
        """Connect; if that fails, no thread is left that would look for a loop that is closed."""
        try:
            await self
        except BaseException:
            await asyncio.shield(asyncio.to_thread(self._thread.join))
            raise

    async def run(self, body: Callable[[sqlite3.Connection], _Answer]) -> _Answer:
        """Run *body* on the connection's thread, to its end even if nobody waits any more."""
        execute: Callable[..., Awaitable[_Answer]] = self._execute
        return await execute(body, self._conn)


@attrs.define(eq=False, kw_only=True)
class Database:
    """A file with two connections, so that reading never waits for a commit."""

    path: Path
    clock: Clock
    _writer: Worker
    _reader: Worker
    _file: tuple[int, int]
    _is_closed: bool = False

    @classmethod
    async def open(cls, path: str | os.PathLike[str], *, clock: Clock) -> "Database":
        """Open the file at *path*, or create it."""
        check_version(sqlite3.sqlite_version_info)
        checked = _checked(path)
        writer = Worker(partial(connect, checked))
        reader = Worker(partial(connect, checked, read_only=True))
        with accidents():
            await writer.start()
            try:
                await reader.start()
            except BaseException:
                await writer.close()
                raise
        return cls(path=checked, clock=clock, writer=writer, reader=reader, file=_identity(checked))

    async def write(self, body: Callable[[sqlite3.Connection, datetime], _Answer]) -> _Answer:
        """Run *body* in a transaction that may write, with the store's time."""
        self.check_is_there()
        with accidents():
            return await self._writer.run(lambda connection: transact(connection, self.clock, body))

    async def read(self, body: Callable[[sqlite3.Connection], _Answer]) -> _Answer:
        """Run *body* over one snapshot, which holds every commit that was answered before."""
        self.check_is_there()
        with accidents():
            return await self._reader.run(lambda connection: look(connection, body))

    def check_is_there(self) -> None:
        """Refuse to go on with a closed store, or with a file that is no longer the one at *path*.

        SQLite would go on writing into a deleted file, and its work would vanish with it.
        """
        if self._is_closed:
            raise StoreUnavailableError("it is closed")
        if _identity(self.path) != self._file:
            raise StoreUnavailableError("the file was moved, deleted or replaced while it was open")

    async def close(self) -> None:
        """Finish what was asked for before, then give back files and threads."""
        if self._is_closed:
            return
        self._is_closed = True
        with accidents():
            try:
                await self._reader.close()
            finally:
                await self._writer.close()


def check_version(found: tuple[int, ...]) -> None:
    """Refuse a library that does not know the SQL of this adapter."""
    if found < OLDEST:
        needed, has = (".".join(map(str, version)) for version in (OLDEST, found))
        raise StoreUnavailableError(f"it needs SQLite {needed}, and this Python has {has}")


def _checked(path: str | os.PathLike[str]) -> Path:
    given = os.fspath(path)
    if not given or given.startswith((":memory:", "file:")):
        raise InvalidOptionError(
            "path",
            "An SQLite store needs the path of a file; for a store in memory open memory://.",
        )
    return Path(given).absolute()


def _identity(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return (found.st_dev, found.st_ino)
