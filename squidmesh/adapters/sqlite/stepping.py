"""Transactions for steps whose own writes are committed together with their completion.

A file has one writer at a time. So one step of this process has its turn after the other, and as
long as one holds its transaction nobody else commits anything.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from threading import get_ident
from typing import Final, TypeVar

import aiosqlite
import attrs

from squidmesh.adapters.sqlite.connection import BUSY_SECONDS, Database, Worker, accidents, connect
from squidmesh.errors import StoreUnavailableError
from squidmesh.waiting import to_the_end

_Answer = TypeVar("_Answer")

_TURN: Final = f"steps before this one have held the file for over {BUSY_SECONDS:g} seconds"


@attrs.define(eq=False)
class _Transaction:
    """A transaction on a connection of its own, which only its owner ends, from some thread.

    Its body may do anything else there, even when it was given up: it is kept from writing before
    the transaction is taken back, and finds the connection closed behind it.
    """

    connection: sqlite3.Connection
    is_over: bool = False
    _ending_thread: int | None = None

    @classmethod
    def begin(cls, database: Database) -> "_Transaction":
        connection = connect(database.path, any_thread=True)
        try:
            connection.execute("begin immediate")
        except BaseException:
            connection.close()
            raise
        begun = cls(connection)
        connection.set_authorizer(begun._authorize)
        return begun

    def _authorize(self, action: int, *_: object) -> int:
        if action == sqlite3.SQLITE_TRANSACTION and get_ident() != self._ending_thread:
            return sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_OK

    def commit(self) -> None:
        self._ending_thread = get_ident()
        self.connection.execute("commit")
        self.is_over = True
        self.connection.close()

    def take_back(self) -> None:
        self._ending_thread = get_ident()
        try:
            self.connection.execute("pragma query_only = on")
            if self.connection.in_transaction:
                self.connection.execute("rollback")
        finally:
            self.is_over = True
            self.connection.close()


@attrs.define(eq=False)
class StepConnections:
    """A connection for each transaction, in its turn."""

    _database: Database
    _turn: asyncio.Lock = attrs.field(factory=asyncio.Lock)

    @asynccontextmanager
    async def for_coroutines(self) -> AsyncIterator[aiosqlite.Connection]:
        """A transaction around the block."""
        started: list[Worker] = []
        try:
            async with self.for_threads() as connection:
                worker = Worker(lambda: connection)
                await worker.start()
                started.append(worker)
                yield worker
        finally:
            # Only now: its thread closes the connection when it ends.
            for worker in started:
                await to_the_end(_stopped(worker))

    @asynccontextmanager
    async def for_threads(self) -> AsyncIterator[sqlite3.Connection]:
        """A transaction around the block, on a connection for plain functions."""
        async with self._in_turn():
            with accidents():
                begun = await _in_thread(
                    lambda: _Transaction.begin(self._database), undo=_Transaction.take_back
                )
            try:
                yield begun.connection
                with accidents():
                    await _in_thread(begun.commit)
            except BaseException:
                if not begun.is_over:
                    begun.connection.interrupt()
                    await _in_thread(begun.take_back)
                raise

    @asynccontextmanager
    async def _in_turn(self) -> AsyncIterator[None]:
        self._database.check_is_there()
        try:
            async with asyncio.timeout(BUSY_SECONDS):
                await self._turn.acquire()
        except TimeoutError:
            raise StoreUnavailableError(_TURN) from None
        try:
            yield
        finally:
            self._turn.release()


async def _stopped(worker: Worker) -> None:
    ending = worker.stop()
    if ending is not None:
        await ending


async def _in_thread(
    call: Callable[[], _Answer], *, undo: Callable[[_Answer], object] | None = None
) -> _Answer:
    """Run *call* in a thread, to its end even if nobody waits any more."""
    return await to_the_end(asyncio.to_thread(call), undo=undo)
