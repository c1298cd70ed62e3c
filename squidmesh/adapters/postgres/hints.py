"""Hints over NOTIFY and LISTEN, on connections of their own.

Transactions that notify are committed one after the other, whatever they are about, so none of
ours that does work notifies: a hint is a small transaction behind them, which does not even wait
for the disk. Behind a pooler that lends connections by the transaction nobody can listen, and a
subscription would stay behind on somebody else's connection; hints are sent there all the same.
"""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from hashlib import sha256
from typing import Final

import attrs
import psycopg
from psycopg.pq import TransactionStatus

from squidmesh.adapters.postgres.accidents import accidents, reason_of
from squidmesh.adapters.postgres.connection import Database
from squidmesh.adapters.postgres.options import quoted_name
from squidmesh.adapters.postgres.pool import Connection
from squidmesh.adapters.postgres.statements import Query, Steps
from squidmesh.codec import DecodeProblem, decode, encode
from squidmesh.errors import StoreUnavailableError
from squidmesh.logs import logger
from squidmesh.ports.store import Heard

_LONGEST_CHANNEL: Final = 63
_LONGEST_PAYLOAD: Final = 7_999
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 30.0

# A hint that a crash of the server loses would have reached nobody anyway.
_NOTIFY_ONLY: Final = (
    "select set_config('synchronous_commit', 'off', true), pg_notify($1::text, $2::text)"
)
_NOTIFY: Final = "select pg_notify($1::text, $2::text)"

log = logger("hints")


def channel_of(schema: str) -> str:
    """The name of the channel on which all that use *schema* meet."""
    name = f"squidmesh:{schema}"
    if len(name.encode()) <= _LONGEST_CHANNEL:
        return name
    return f"squidmesh:{sha256(schema.encode()).hexdigest()[:40]}"


def payload_of(queues: Collection[str], source: str) -> str:
    """What a hint says: who sends it, and the queues if they all find room."""
    said = encode([source, *sorted(queues)])
    return said if len(said.encode()) <= _LONGEST_PAYLOAD else encode([source])


def read_payload(payload: str) -> tuple[str, tuple[str, ...]]:
    """The source and the queues; what is not ours to read may be about any queue."""
    try:
        said = decode(payload)
    except DecodeProblem:
        return "", ()
    texts = [one for one in said if isinstance(one, str)] if isinstance(said, list) else []
    return (texts[0], tuple(texts[1:])) if texts else ("", ())


def notify(schema: str, queues: Collection[str], source: str) -> Steps[None]:
    """Send a hint with the transaction at hand, when that is committed."""
    yield Query(_NOTIFY, (channel_of(schema), payload_of(queues, source)))


def _notify_only(schema: str, queues: Collection[str], source: str) -> Steps[None]:
    yield Query(_NOTIFY_ONLY, (channel_of(schema), payload_of(queues, source)))


@attrs.define(eq=False)
class Notices:
    """The connections that hints go out and come in by; each is opened when it is needed."""

    _database: Database
    _sending: Connection | None = None
    _turn: asyncio.Lock = attrs.field(factory=asyncio.Lock)

    @property
    def are_on(self) -> bool:
        """Whether the host wants hints."""
        return self._database.options.listen

    async def send(self, queues: Collection[str], source: str) -> None:
        """Send a hint; one whose connection was lost in the meantime goes over a new one."""
        if not self.are_on:
            return
        with accidents(self._database.password):
            async with asyncio.timeout(self._database.options.deadline), self._turn:
                was_open = self._sending is not None
                try:
                    await self._send(queues, source)
                except psycopg.OperationalError:
                    if not was_open:
                        raise
                    await self._send(queues, source)

    async def _send(self, queues: Collection[str], source: str) -> None:
        self._database.check_is_open()
        connection = self._sending
        if connection is None:
            connection = self._sending = await self._database.connect()
        schema = self._database.options.schema
        try:
            await self._database.drive(connection, _notify_only(schema, queues, source))
        finally:
            if connection.info.transaction_status is not TransactionStatus.IDLE:
                self._sending = None
                await connection.close()

    async def listen(self, heard: Heard, source: str) -> None:
        """Tell *heard* what others send, for as long as there is a server, and then again."""
        clock, pause, is_known = self._database.clock, _FIRST_PAUSE, False
        while self.are_on:
            began = clock.monotonic()
            try:
                async with self._subscribed() as connection:
                    if connection is None:
                        return
                    is_known = False
                    # What was sent before is not heard any more, but can be looked for.
                    heard(())
                    await _follow(connection, heard, source)
            except (psycopg.Error, TimeoutError, StoreUnavailableError) as problem:
                if not is_known:
                    log.warning("hints.lost", reason=self._reason(problem))
                is_known = True
            await clock.sleep(pause)
            has_lasted = clock.monotonic() - began > 2 * pause
            pause = _FIRST_PAUSE if has_lasted else min(pause * 2, _LONGEST_PAUSE)

    @asynccontextmanager
    async def _subscribed(self) -> AsyncIterator[Connection | None]:
        """A connection that hears what is sent, or None if there can be none."""
        channel = channel_of(self._database.options.schema)
        async with AsyncExitStack() as opened:
            async with asyncio.timeout(self._database.options.deadline):
                connection = await self._database.connect()
                opened.push_async_callback(connection.close)
                is_session = await _is_session(connection)
                if is_session:
                    await connection.execute(b"listen " + quoted_name(channel).encode())
                else:
                    log.info("hints.unheard", reason="a pooler stands before the server")
            yield connection if is_session else None

    def _reason(self, problem: "psycopg.Error | TimeoutError | StoreUnavailableError") -> str:
        if isinstance(problem, TimeoutError):
            return "it took too long to answer"
        if isinstance(problem, StoreUnavailableError):
            return str(problem.details["reason"])
        return reason_of(problem, self._database.password)

    async def close(self) -> None:
        """Give back the connection that hints are sent over."""
        connection, self._sending = self._sending, None
        if connection is not None:
            await connection.close()


async def _follow(connection: Connection, heard: Heard, source: str) -> None:
    async for notice in connection.notifies():
        sender, queues = read_payload(notice.payload)
        if sender != source:
            heard(queues)


async def _is_session(connection: Connection) -> bool:
    """Whether the server itself let us in: a pooler knows us by a number of its own."""
    cursor = await connection.execute(b"select pg_backend_pid()")
    row = await cursor.fetchone()
    return row is not None and row[0] == connection.info.backend_pid
