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

from squidmesh.adapters.postgres.limits import ASKING_SECONDS, Limit, shut_down
from squidmesh.errors import StoreUnavailableError

Connection = psycopg.AsyncConnection[Any]
LONGEST_LIFE: Final = 3600.0
LONGEST_IDLE: Final = 300.0


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


@attrs.define(eq=False, kw_only=True)
class Pool:
    """Connections to lend, at most *most* at once, of which *least* stay however idle they are."""

    connect: Callable[[], Awaitable[Connection]]
    least: int
    most: int
    _slots: asyncio.Semaphore = attrs.field(init=False)
    _idle: deque[Kept] = attrs.field(factory=deque[Kept], init=False)
    _is_closed: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.most)

    @asynccontextmanager
    async def lent(self, limit: Limit) -> AsyncIterator[Connection]:
        """Lend a connection until *limit*; it is kept only if it is idle behind the block."""
        kept = await self._take(limit)
        try:
            with limit.on(kept.connection):
                yield kept.connection
        except errors.ReadOnlySqlTransaction:
            # Whoever is connected to next may be the one that can be written to.
            await kept.connection.close()
            raise
        finally:
            await self._give_back(kept, is_suspect=limit.is_over)

    async def _take(self, limit: Limit) -> Kept:
        self._check_is_open()
        await self._wait_for_a_slot(limit)
        try:
            self._check_is_open()
            while self._idle:
                kept = self._idle.pop()
                if not has_ended(kept.connection):
                    return kept
                await kept.connection.close()
            async with asyncio.timeout(limit.left):
                connection = await self.connect()
            return Kept(connection, monotonic(), monotonic())
        except BaseException:
            self._slots.release()
            raise

    async def _wait_for_a_slot(self, limit: Limit) -> None:
        try:
            async with asyncio.timeout(limit.left):
                await self._slots.acquire()
        except TimeoutError:
            reason = f"all {self.most} connections are in use (max_connections)"
            raise StoreUnavailableError(reason) from None

    async def _give_back(self, kept: Kept, *, is_suspect: bool) -> None:
        connection, now = kept.connection, monotonic()
        try:
            status = connection.info.transaction_status
            is_old = now - kept.made_at > LONGEST_LIFE
            if self._is_closed or is_suspect or is_old or status is not TransactionStatus.IDLE:
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


def has_ended(connection: "psycopg.BaseConnection[Any]") -> bool:
    """Whether the other side has hung up meanwhile, as far as has been heard of it here."""
    try:
        # What is read first may be the server's last words, and its hanging up comes behind them.
        connection.pgconn.consume_input()
        connection.pgconn.consume_input()
    except psycopg.Error:
        return True
    return connection.pgconn.status != ConnStatus.OK
