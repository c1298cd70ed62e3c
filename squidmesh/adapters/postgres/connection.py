"""Connections, and the ways to run the functions of this adapter on one.

Nothing here, nor in any statement, relies on what a session remembers: every transaction may run
on another server connection, as behind a pooler it does. Connections commit by themselves, so a
statement is a transaction unless one was begun.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final, TypeVar

import attrs
import psycopg
from psycopg import postgres
from psycopg.adapt import AdaptersMap
from psycopg.conninfo import make_conninfo
from psycopg.raw_cursor import AsyncRawCursor, RawCursor
from psycopg.rows import tuple_row
from psycopg.types.array import register_all_arrays

from squidmesh.adapters.postgres.accidents import RACES, accidents, named
from squidmesh.adapters.postgres.limits import Limit
from squidmesh.adapters.postgres.options import Options, quoted_name, read_url
from squidmesh.adapters.postgres.pool import Connection, OwnConnection, Pool
from squidmesh.adapters.postgres.schema import VERSION, version_of
from squidmesh.adapters.postgres.statements import Query, Rows, Steps
from squidmesh.errors import SchemaNotMigratedError, StoreUnavailableError
from squidmesh.logs import logger
from squidmesh.ports.clock import Clock
from squidmesh.records import instant

_Answer = TypeVar("_Answer")

MOST_RACES: Final = 20
_MOST_TEXTS: Final = 1000
_ENCODING: Final = "UTF8"

# What a prepared statement is planned like must not depend on how few rows there were when it was:
# every walk of ours has its index, and every join goes from few rows to theirs. Without prepared
# statements the session may be anybody's, but then each is planned for what it is about.
_SETTINGS: Final = (
    " -c jit=off -c plan_cache_mode=force_generic_plan"
    " -c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off"
)
_REFUSED_BY_POOLERS: Final = "unsupported startup parameter"

# A host may have its values read and written its own way, for all of psycopg or on a connection
# that it lends: ours are as the driver has them.
_ADAPTERS: Final = AdaptersMap(types=postgres.types)
postgres.register_default_adapters(_ADAPTERS)
register_all_arrays(_ADAPTERS)

log = logger("store")


class _OurAsyncCursor(AsyncRawCursor[Any]):
    @property
    def adapters(self) -> AdaptersMap:
        return _ADAPTERS


class _OurCursor(RawCursor[Any]):
    @property
    def adapters(self) -> AdaptersMap:
        return _ADAPTERS


@attrs.define(eq=False, kw_only=True)
class Database:
    """A server's database with a pool of connections, opened when the first one is asked for."""

    options: Options
    clock: Clock
    _parameters: dict[str, Any] = attrs.field(repr=False)
    _pool: Pool = attrs.field(init=False, repr=False)
    _texts: dict[str, bytes] = attrs.field(factory=dict[str, bytes], repr=False)
    _is_pooled: bool = False
    _is_ready: bool = False
    _is_closed: bool = False

    def __attrs_post_init__(self) -> None:
        self._pool = Pool(
            connect=self._connect_for_pool,
            least=self.options.min_connections,
            most=self.options.max_connections,
            deadline=self.options.deadline,
        )

    @classmethod
    def at(cls, url: str, options: Options, *, clock: Clock) -> "Database":
        """Name the database; nothing is connected yet."""
        return cls(options=options, clock=clock, parameters=read_url(url))

    @property
    def password(self) -> str | None:
        """What must not show in any error."""
        found = self._parameters.get("password")
        return str(found) if found else None

    @property
    def conninfo(self) -> str:
        """What libpq needs to connect, the password included."""
        if not self.has_settings:
            return make_conninfo(**self._parameters)
        given = self._parameters.get("options") or ""
        return make_conninfo(**{**self._parameters, "options": f"{given}{_SETTINGS}"})

    @property
    def plain_conninfo(self) -> str:
        """The same for statements that are the host's: with the settings that the server has."""
        return make_conninfo(**self._parameters)

    @property
    def has_settings(self) -> bool:
        """Whether the sessions are ours, and have our settings."""
        return self.prepare_threshold is not None

    @property
    def prepare_threshold(self) -> int | None:
        """When statements are prepared: never, once a pooler has shown itself."""
        return None if self._is_pooled else self.options.prepare_threshold

    @property
    def schema(self) -> str:
        """The schema's name as it stands in SQL."""
        return quoted_name(self.options.schema)

    @property
    def test_time(self) -> datetime | None:
        """The store's time if a test owns it; otherwise the server's clock is asked."""
        return self.clock.now() if self.clock.is_virtual else None

    @property
    def now(self) -> str | None:
        """`test_time` as a statement takes it."""
        at = self.test_time
        return None if at is None else instant(at)

    async def run(
        self, steps: Callable[[], Steps[_Answer]], *, transaction: bool = False
    ) -> _Answer:
        """Run what *steps* makes: each statement by itself, or all in one transaction.

        A race that the server resolves by an error is run again, from the beginning.
        """
        if not self._is_ready:
            await self.check_schema()
        for _ in range(MOST_RACES):
            try:
                return await self._run_once(steps(), transaction=transaction)
            except RACES:
                continue
        with accidents(self.password):
            return await self._run_once(steps(), transaction=transaction)

    async def run_unchecked(self, steps: Callable[[], Steps[_Answer]]) -> _Answer:
        """Run what *steps* makes in one transaction, whatever tables there are."""
        return await self._run_once(steps(), transaction=True)

    async def _run_once(self, steps: Steps[_Answer], *, transaction: bool) -> _Answer:
        limit = Limit.after(self.options.deadline)
        pool = self._pool
        try:
            kept = await pool.take(limit)
            if kept.cursor is None:
                kept.cursor = _OurAsyncCursor(kept.connection, row_factory=tuple_row)
            try:
                if not transaction:
                    return await self._drive(kept.cursor, steps)
                async with kept.connection.transaction():
                    return await self._drive(kept.cursor, steps)
            except psycopg.Error as problem:
                await pool.accident(kept, limit, problem)
                raise
            finally:
                await pool.give_back(kept, limit)
        except RACES:
            raise
        except (psycopg.Error, TimeoutError) as problem:
            raise named(problem, self.password) from None

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection of the pool, for as long as a call may take."""
        async with self._pool.lent(Limit.after(self.options.deadline)) as connection:
            yield connection

    def check_is_open(self) -> None:
        """Refuse to go on with a closed store."""
        if self._is_closed:
            raise StoreUnavailableError("it is closed")

    async def connect(self) -> Connection:
        """Open a connection that is not the pool's."""
        return await self._connected(prepares=False)

    async def _connect_for_pool(self) -> Connection:
        return await self._connected(prepares=True)

    async def _connected(self, *, prepares: bool) -> Connection:
        while True:
            threshold = self.prepare_threshold if prepares else None
            sent_settings = self.has_settings
            try:
                connection = await OwnConnection.connect(
                    self.conninfo, autocommit=True, prepare_threshold=threshold
                )
            except psycopg.OperationalError as problem:
                self._yield_to_a_pooler(problem, sent_settings=sent_settings)
                continue
            try:
                _check_encoding(connection)
            except StoreUnavailableError:
                await connection.close()
                raise
            return connection

    def connect_here(self) -> "psycopg.Connection[Any]":
        """Open a connection for the calling thread."""
        while True:
            sent_settings = self.has_settings
            try:
                return psycopg.connect(
                    self.conninfo, autocommit=True, prepare_threshold=self.prepare_threshold
                )
            except psycopg.OperationalError as problem:
                self._yield_to_a_pooler(problem, sent_settings=sent_settings)

    def _yield_to_a_pooler(self, problem: psycopg.OperationalError, *, sent_settings: bool) -> None:
        """Go on without settings and prepared statements if *problem* is that a pooler is there.

        A pooler that lends connections by the transaction refuses what would stay with a session.
        Of several that connect at once all are refused what they had sent before it was known.
        """
        if not sent_settings or _REFUSED_BY_POOLERS not in str(problem):
            raise problem
        if self._is_pooled:
            return
        self._is_pooled = True
        log.info("store.pooler", hint="nothing is prepared, as with prepare_threshold=None")

    async def drive(self, connection: Connection, steps: Steps[_Answer]) -> _Answer:
        """Run *steps* on *connection*, ours or the host's."""
        return await self._drive(_OurAsyncCursor(connection, row_factory=tuple_row), steps)

    async def _drive(self, cursor: AsyncRawCursor[Any], steps: Steps[_Answer]) -> _Answer:
        try:
            query = next(steps)
            while True:
                await cursor.execute(self._text(query), query.values, binary=True)
                rows: Rows = await cursor.fetchall() if cursor.description else []
                query = steps.send(rows)
        except StopIteration as done:
            answer: _Answer = done.value
            return answer

    def drive_here(self, connection: "psycopg.Connection[Any]", steps: Steps[_Answer]) -> _Answer:
        """Run *steps* on *connection* in the calling thread."""
        cursor = _OurCursor(connection, row_factory=tuple_row)
        try:
            query = next(steps)
            while True:
                cursor.execute(self._text(query), query.values, binary=True)
                rows: Rows = cursor.fetchall() if cursor.description else []
                query = steps.send(rows)
        except StopIteration as done:
            answer: _Answer = done.value
            return answer

    def _text(self, query: Query) -> bytes:
        text = self._texts.get(query.text)
        if text is None:
            if len(self._texts) >= _MOST_TEXTS:
                self._texts.clear()
            text = query.text.replace("{schema}", self.schema).encode()
            self._texts[query.text] = text
        return text

    async def check_schema(self) -> None:
        """Refuse to work on tables that are not there, or are newer than this release."""
        if self._is_ready:
            return
        found = await self._run_once(version_of(self.schema), transaction=False)
        if found != VERSION:
            raise SchemaNotMigratedError(found, VERSION)
        self._is_ready = True

    async def close(self) -> None:
        """Finish what was asked for before, then give back the connections."""
        self._is_closed = True
        await self._pool.close(self.options.deadline)


def _check_encoding(connection: Connection) -> None:
    """Refuse a database that cannot hold every text."""
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != _ENCODING:
        raise StoreUnavailableError(
            f"the database's encoding is {encoding}, and has to be {_ENCODING}"
        )
