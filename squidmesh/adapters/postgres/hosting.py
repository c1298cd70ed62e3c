"""The host's own connection: the same statements, inside the transaction that is open on it."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, TypeVar

import attrs
import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus

from squidmesh.adapters.postgres.accidents import accidents
from squidmesh.adapters.postgres.connection import Database
from squidmesh.adapters.postgres.pool import Connection
from squidmesh.adapters.postgres.statements import Query, Steps
from squidmesh.errors import InvalidOptionError
from squidmesh.unwrapping import driver_connection, name_of
from squidmesh.waiting import to_the_end

_Answer = TypeVar("_Answer")

AnyConnection = Connection | psycopg.Connection[Any]

_ENCODING: Final = "utf-8"
_FAILED: Final = "Its transaction has failed already: roll it back, and begin again."
_PIPELINE: Final = "It is in pipeline mode, in which no answer can be waited for."


# Taken back with the savepoint, if that is rolled back to.
_PATIENCE: Final = """
select current_setting('lock_timeout'), set_config('lock_timeout', $1::text, true)
"""


@attrs.frozen(eq=False)
class HostTransaction:
    """The transaction on a connection that belongs to the host, who commits it or does not.

    A step's own transaction *is_steps*: it is there already, and taken back as a whole.
    """

    _database: Database
    _connection: AnyConnection
    _turn: asyncio.Lock
    is_steps: bool = False

    @property
    def schema(self) -> str:
        """The schema's name as it stands in SQL."""
        return self._database.schema

    @property
    def test_time(self) -> datetime | None:
        """The store's time if a test owns it."""
        return self._database.test_time

    @property
    def now(self) -> str | None:
        """`test_time` as a statement takes it."""
        return self._database.now

    async def run(self, steps: Callable[[], Steps[_Answer]]) -> _Answer:
        """Run what *steps* makes behind what the host has done so far, or take all of it back.

        Nothing of it is run again: a race that the server resolves by an error is the host's. Of
        several calls on one connection each has its turn, or their savepoints would be mixed up.
        """
        async with self._turn:
            self._check()
            with accidents(self._database.password):
                if self.is_steps:
                    await self._drive(_patience(self._database.options.deadline))
                    return await self._drive(steps())
                await self._drive(_begin(self._connection))
                await self._drive(_query("savepoint squidmesh_host"))
                try:
                    before = await self._drive(_patience(self._database.options.deadline))
                    answer = await self._drive(steps())
                    await self._drive(_patience_again(before))
                except BaseException:
                    if not self._connection.closed:
                        await self._drive(_query("rollback to savepoint squidmesh_host"))
                        await self._drive(_query("release savepoint squidmesh_host"))
                    raise
                await self._drive(_query("release savepoint squidmesh_host"))
                return answer

    def _check(self) -> None:
        status = self._connection.info.transaction_status
        if status is TransactionStatus.INERROR:
            raise InvalidOptionError("connection", _FAILED)
        if self._connection.pgconn.pipeline_status != PipelineStatus.OFF:
            raise InvalidOptionError("connection", _PIPELINE)
        if self.is_steps and status is TransactionStatus.IDLE:
            raise InvalidOptionError(
                "connection", "Its transaction has been ended, which is for the step's worker."
            )

    async def _drive(self, steps: Steps[_Answer]) -> _Answer:
        connection = self._connection
        if isinstance(connection, psycopg.AsyncConnection):
            return await self._database.drive(connection, steps)
        # What goes on in a thread does so whoever is cancelled, and what follows must wait for it.
        return await to_the_end(asyncio.to_thread(self._database.drive_here, connection, steps))


def _begin(connection: AnyConnection) -> Steps[None]:
    """Begin a transaction where the driver would not do it with the first statement."""
    if connection.autocommit and connection.info.transaction_status is TransactionStatus.IDLE:
        yield Query("begin")


def _patience(seconds: float) -> Steps[str]:
    """Wait for rows that others hold no longer than that; return how long it was before."""
    ((before, _),) = yield Query(_PATIENCE, (f"{max(int(seconds * 1000), 1)}ms",))
    return str(before)


def _patience_again(before: str) -> Steps[None]:
    """Give the host back what its own statements wait."""
    yield Query(_PATIENCE, (before,))


def _query(text: str) -> Steps[None]:
    yield Query(text)


async def connection_in(given: object) -> AnyConnection:
    """Return the psycopg connection in what a host has lent.

    Raises:
        InvalidOptionError: There is none, it is closed, or it cannot hold every text.
    """
    found = await driver_connection(given)
    if not isinstance(found, psycopg.AsyncConnection | psycopg.Connection):
        raise InvalidOptionError(
            "connection",
            f"A Postgres store joins a connection of psycopg, and not a {name_of(given, found)}.",
        )
    if found.closed:
        raise InvalidOptionError("connection", "The connection is closed.")
    if found.info.encoding != _ENCODING:
        raise InvalidOptionError("connection", "The connection's client_encoding has to be UTF8.")
    return found
