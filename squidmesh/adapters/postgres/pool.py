"""Connections that are kept between calls.

A call that finds none connects by itself, so that it hears at once, and in the server's own words,
why there is none to be had; nothing reconnects behind anybody's back. A connection that broke, was
cut off in the middle of something or is old is not kept. There is no task and no thread here, so a
pool that nobody has closed leaves nothing behind.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Any, Final

import attrs
import psycopg
from psycopg import errors
from psycopg.pq import ConnStatus, TransactionStatus
from psycopg.raw_cursor import AsyncRawCursor

from squidmesh.adapters.postgres.limits import ASKING_SECONDS, Limit, Watch, shut_down
from squidmesh.errors import StoreUnavailableError

Connection = psycopg.AsyncConnection[Any]
LONGEST_LIFE: Final = 3600.0
LONGEST_IDLE: Final = 300.0
_SURELY_ALIVE: Final = 0.05
"""For how many seconds a connection that has just answered is not asked whether it is there."""


class OwnConnection(psycopg.AsyncConnection[Any]):
    """A connection that may be forgotten, and lets go of whoever has been cancelled."""

    def __del__(self, *_: object) -> None:
        """Say nothing: a host may end its loop without closing its mesh, and libpq hangs up."""

    async def cancel_safe(self, *, timeout: float = ASKING_SECONDS) -> None:
        """Ask the server to stop; if it does not even hear that, hang up.

        psycopg asks for it when a task is cancelled, and would then wait for an answer.
        """
        try:
            await super().cancel_safe(timeout=min(timeout, ASKING_SECONDS))
        except (psycopg.Error, OSError):
            shut_down(self)


@attrs.define(eq=False)
class Kept:
    """A connection, when it was made, and when it was used last."""

    connection: Connection
    made_at: float
    used_at: float
    cursor: "AsyncRawCursor[Any] | None" = None


@attrs.define(eq=False, kw_only=True)
class Pool:
    """Connections to lend, at most *most* at once, of which *least* stay however idle they are."""

    connect: Callable[[], Awaitable[Connection]]
    least: int
    most: int
    deadline: float
    _slots: asyncio.Semaphore = attrs.field(init=False)
    _watch: Watch = attrs.field(init=False)
    _idle: deque[Kept] = attrs.field(factory=deque[Kept], init=False)
    _is_closed: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.most)
        self._watch = Watch(min(self.deadline / 4, 1.0))

    @asynccontextmanager
    async def lent(self, limit: Limit) -> AsyncIterator[Connection]:
        """Lend a connection until *limit*.

        Raises:
            TimeoutError: It took longer, in place of what the driver says of that.
        """
        kept = await self.take(limit)
        try:
            yield kept.connection
        except psycopg.Error as problem:
            await self.accident(kept, limit, problem)
            raise
        finally:
            await self.give_back(kept, limit)

    async def take(self, limit: Limit) -> Kept:
        """Take a connection until *limit*, to be given back whatever happens."""
        self._check_is_open()
        if self._slots.locked():
            await self._wait_for_a_slot(limit)
        else:
            await self._slots.acquire()
        try:
            kept = await self._kept(limit)
        except BaseException:
            self._slots.release()
            raise
        self._watch.begin(limit, kept.connection)
        return kept

    async def _kept(self, limit: Limit) -> Kept:
        self._check_is_open()
        now = monotonic()
        while self._idle:
            kept = self._idle.pop()
            if now - kept.used_at < _SURELY_ALIVE or not has_ended(kept.connection):
                return kept
            await kept.connection.close()
        async with asyncio.timeout(limit.left):
            connection = await self.connect()
        return Kept(connection, now, now)

    async def accident(self, kept: Kept, limit: Limit, problem: psycopg.Error) -> None:
        """Draw the consequences of *problem*, which the driver had with a connection.

        Raises:
            TimeoutError: It was that the limit was reached.
        """
        if isinstance(problem, errors.ReadOnlySqlTransaction):
            # Whoever is connected to next may be the one that can be written to.
            await kept.connection.close()
        if limit.is_over:
            raise TimeoutError from None

    async def _wait_for_a_slot(self, limit: Limit) -> None:
        try:
            async with asyncio.timeout(limit.left):
                await self._slots.acquire()
        except TimeoutError:
            reason = f"all {self.most} connections are in use (max_connections)"
            raise StoreUnavailableError(reason) from None

    async def give_back(self, kept: Kept, limit: Limit) -> None:
        """Keep the connection for the next call, if it is idle and was answered in time."""
        self._watch.end(limit)
        connection, now = kept.connection, monotonic()
        try:
            status = connection.pgconn.transaction_status
            is_old = now - kept.made_at > LONGEST_LIFE
            if self._is_closed or limit.is_over or is_old or status != TransactionStatus.IDLE:
                # What it was doing is unknown: no other call may inherit that.
                await connection.close()
                return
            kept.used_at = now
            self._idle.append(kept)
            # The one used last is lent first, so those that nobody needs are at the other end.
            while len(self._idle) > self.least and now - self._idle[0].used_at > LONGEST_IDLE:
                await self._idle.popleft().connection.close()
        finally:
            self._slots.release()

    def _check_is_open(self) -> None:
        if self._is_closed:
            raise StoreUnavailableError("it is closed")

    async def close(self, seconds: float) -> None:
        """Lend nothing more, wait at most *seconds* for what is lent, and hang up."""
        self._is_closed = True
        taken = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while taken < self.most:
                    await self._slots.acquire()
                    taken += 1
        for _ in range(taken):
            # Whoever asks from now on hears that it is closed, and does not wait for that.
            self._slots.release()
        while self._idle:
            await self._idle.pop().connection.close()
        self._watch.stop()


def has_ended(connection: "psycopg.BaseConnection[Any]") -> bool:
    """Whether the other side has hung up meanwhile, as far as has been heard of it here."""
    try:
        # What is read first may be the server's last words, and its hanging up comes behind them.
        connection.pgconn.consume_input()
        connection.pgconn.consume_input()
    except psycopg.Error:
        return True
    return connection.pgconn.status != ConnStatus.OK
