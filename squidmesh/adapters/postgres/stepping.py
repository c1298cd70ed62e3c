"""Transactions for steps whose own writes are committed together with their completion."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Final, TypeVar

import attrs
import psycopg
from psycopg.pq import ConnStatus, TransactionStatus
from psycopg.rows import tuple_row

from squidmesh.adapters.postgres.accidents import accidents
from squidmesh.adapters.postgres.connection import Database
from squidmesh.adapters.postgres.pool import Connection, OwnConnection, has_ended
from squidmesh.errors import StoreUnavailableError
from squidmesh.waiting import to_the_end

_Answer = TypeVar("_Answer")

ThreadConnection = psycopg.Connection[Any]

_MOMENT: Final = 0.1
_ASKING_SECONDS: Final = 1.5


class _OwnThreadConnection(psycopg.Connection[Any]):
    """A connection that may be forgotten."""

    def __del__(self, *_: object) -> None:
        """Say nothing, as the pool's do."""


class _BodysOwn(Exception):  # noqa: N818  it never leaves this module
    """What the block raised, carried past the accidents of the database."""

    def __init__(self, problem: psycopg.Error) -> None:
        super().__init__()
        self.problem = problem


@attrs.define(eq=False)
class StepConnections:
    """As many connections as the pool may have, and none of them the pool's.

    Steps that hold theirs for long must not keep the commits of others waiting. They have the
    server's own settings, not those that suit the statements of this adapter: what runs on them is
    mostly the host's. Where a transaction is taken back the connection goes with it, because a body
    that was given up may still be using it.
    """

    _database: Database
    _slots: asyncio.Semaphore = attrs.field(init=False)
    _idle: list[Connection] = attrs.field(factory=list[Connection], init=False)
    _idle_in_threads: list[ThreadConnection] = attrs.field(
        factory=list[ThreadConnection], init=False
    )

    def __attrs_post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self._database.options.max_connections)

    @asynccontextmanager
    async def for_coroutines(self) -> AsyncIterator[Connection]:
        """A transaction around the block."""
        async with self._slot():
            connection = await self._connected()
            try:
                with self._accidents_of_ours():
                    async with connection.transaction():
                        try:
                            with _bodys_own():
                                yield connection
                        except BaseException:
                            await _stop(connection)
                            raise
            except BaseException:
                await connection.close()
                raise
            self._idle.append(connection)

    @asynccontextmanager
    async def for_threads(self) -> AsyncIterator[ThreadConnection]:
        """A transaction around the block, on a connection for plain functions."""
        async with self._slot():
            connection = await self._connected_for_threads()
            transaction = connection.transaction()
            try:
                with self._accidents_of_ours():
                    await _in_thread(transaction.__enter__)
                    with _bodys_own():
                        yield connection
                    await _in_thread(lambda: transaction.__exit__(None, None, None))
            except BaseException:
                await _in_thread(lambda: _revoke(connection))
                raise
            self._idle_in_threads.append(connection)

    async def close(self) -> None:
        """Give back what was opened."""
        while self._idle:
            await self._idle.pop().close()
        while self._idle_in_threads:
            self._idle_in_threads.pop().close()

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        """Wait until there may be one connection more."""
        self._database.check_is_open()
        try:
            async with asyncio.timeout(self._database.options.deadline):
                await self._slots.acquire()
        except TimeoutError:
            most = self._database.options.max_connections
            reason = f"all {most} transactions of steps are in use (max_connections)"
            raise StoreUnavailableError(reason) from None
        try:
            yield
        finally:
            self._slots.release()

    @contextmanager
    def _accidents_of_ours(self) -> Iterator[None]:
        """Name what beginning and committing may meet; what the block raises is its own."""
        try:
            with accidents(self._database.password):
                yield
        except _BodysOwn as carried:
            raise carried.problem from None

    async def _connected(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if _is_fresh(connection):
                connection.row_factory = tuple_row
                connection.cursor_factory = psycopg.AsyncCursor
                return connection
            await connection.close()
        with accidents(self._database.password):
            return await OwnConnection.connect(
                self._database.plain_conninfo,
                autocommit=True,
                prepare_threshold=self._database.prepare_threshold,
            )

    async def _connected_for_threads(self) -> ThreadConnection:
        while self._idle_in_threads:
            connection = self._idle_in_threads.pop()
            if _is_fresh(connection):
                connection.row_factory = tuple_row
                connection.cursor_factory = psycopg.Cursor
                return connection
            connection.close()
        with accidents(self._database.password):
            return await _in_thread(self._connect_here, undo=lambda late: late.close())

    def _connect_here(self) -> ThreadConnection:
        return _OwnThreadConnection.connect(
            self._database.plain_conninfo,
            autocommit=True,
            prepare_threshold=self._database.prepare_threshold,
        )


async def _in_thread(
    call: Callable[[], _Answer], *, undo: Callable[[_Answer], object] | None = None
) -> _Answer:
    """Run *call* in a thread, to its end even if nobody waits any more."""
    return await to_the_end(asyncio.to_thread(call), undo=undo)


def _is_fresh(connection: "psycopg.BaseConnection[Any]") -> bool:
    """Whether a connection that lay there is as its last step found it."""
    return (
        not has_ended(connection)
        and connection.info.transaction_status is TransactionStatus.IDLE
        and connection.autocommit
    )


async def _stop(connection: Connection) -> None:
    """Have the server stop what a body that was given up is still doing there."""
    if connection.lock.locked():
        with suppress(psycopg.Error, OSError):
            await connection.cancel_safe(timeout=_ASKING_SECONDS)


def _revoke(connection: ThreadConnection) -> None:
    """Take the transaction back, and the connection from a body that may still be running."""
    while not connection.lock.acquire(timeout=_MOMENT):
        with suppress(psycopg.Error, OSError):
            connection.cancel_safe(timeout=_ASKING_SECONDS)
    try:
        if not connection.closed and connection.pgconn.status == ConnStatus.OK:
            connection.pgconn.exec_(b"rollback")
    except psycopg.Error:
        # The server takes back what nobody has committed.
        pass
    finally:
        connection.close()
        connection.lock.release()


@contextmanager
def _bodys_own() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as problem:
        raise _BodysOwn(problem) from problem
