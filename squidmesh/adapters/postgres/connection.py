"""Connections, and the ways to run the functions of this adapter on one.

Nothing here, nor in any statement, relies on what a session remembers: every transaction may run
on another server connection, as behind a pooler it does. Connections commit by themselves, so a
statement is a transaction unless one was begun.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final, TypeVar

import attrs
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.raw_cursor import AsyncRawCursor, RawCursor
from psycopg.rows import tuple_row
from psycopg_pool import AsyncConnectionPool

from squidmesh.adapters.postgres.accidents import RACES, accidents
from squidmesh.adapters.postgres.schema import VERSION, version_of
from squidmesh.adapters.postgres.statements import Query, Rows, Steps
from squidmesh.errors import InvalidOptionError, SchemaNotMigratedError, StoreUnavailableError
from squidmesh.ports.clock import Clock
from squidmesh.records import instant

Connection = psycopg.AsyncConnection[Any]

_Answer = TypeVar("_Answer")

_MOST_RACES: Final = 20
_RECONNECT_SECONDS: Final = 1.0
_LONGEST_NAME: Final = 63

# A server that went away without a word is noticed, unless the host's own URL says when.
_PATIENCE: Final[Mapping[str, str | int]] = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
    "application_name": "squidmesh",
}


# What a prepared statement is planned like must not depend on how few rows there were when it was:
# every walk of ours has its index. Without prepared statements the session may be anybody's.
_PLANNING: Final = " -c jit=off -c plan_cache_mode=force_generic_plan -c enable_seqscan=off"


@attrs.frozen(kw_only=True)
class Options:
    """How to use a server.

    *prepare_threshold* is how often a statement runs before the server keeps it prepared; None
    prepares nothing, which poolers without support for it need. *deadline* is how many seconds a
    call may take, waiting for a connection included. *listen* has starts and commands announced,
    and workers hear of them at once rather than with their next poll.
    """

    schema: str = "squidmesh"
    min_connections: int = 1
    max_connections: int = 8
    prepare_threshold: int | None = 5
    deadline: float = 30.0
    listen: bool = True

    def checked(self) -> "Options":
        """Return the options if all of them make sense.

        Raises:
            InvalidOptionError: One does not; it names the first.
        """
        name: object = self.schema
        if (
            not isinstance(name, str)
            or not 0 < len(name.encode("utf-8", "replace")) <= _LONGEST_NAME
            or not name.isprintable()
            or name.startswith("pg_")
        ):
            raise InvalidOptionError(
                "schema", f"A schema's name has 1 to {_LONGEST_NAME} bytes, and not pg_ in front."
            )
        for option, least in (("min_connections", 0), ("max_connections", 1)):
            value = getattr(self, option)
            if type(value) is not int or value < least:
                raise InvalidOptionError(option, f"{option} is an integer from {least} on.")
        if self.min_connections > self.max_connections:
            raise InvalidOptionError("min_connections", "There are fewer connections at most.")
        threshold = self.prepare_threshold
        if threshold is not None and (type(threshold) is not int or threshold < 0):
            raise InvalidOptionError(
                "prepare_threshold", "prepare_threshold is an integer from 0 on, or None for never."
            )
        if isinstance(self.deadline, bool) or not isinstance(self.deadline, int | float):
            raise InvalidOptionError("deadline", "deadline is a number of seconds.")
        if not self.deadline > 0:
            raise InvalidOptionError("deadline", "deadline is a positive number of seconds.")
        if type(self.listen) is not bool:
            raise InvalidOptionError("listen", "listen is True or False.")
        return self


def options_from(given: Mapping[str, object]) -> Options:
    """Return the options that are *given* by name.

    Raises:
        InvalidOptionError: There is no such option, or one makes no sense.
    """
    known = [field.name for field in attrs.fields(Options)]
    for name in given:
        if name not in known:
            listed = ", ".join(known)
            raise InvalidOptionError(name, f"A Postgres store has no option {name} ({listed}).")
    options: Callable[..., Options] = Options
    return options(**given).checked()


def quoted_name(name: str) -> str:
    """An identifier as it stands in SQL, whatever characters it has."""
    return '"' + name.replace('"', '""') + '"'


def read_url(url: str) -> dict[str, Any]:
    """The connection's parameters, completed by ours.

    Raises:
        InvalidOptionError: It is no URL of a server.
    """
    scheme, _, rest = url.partition("://")
    try:
        given = conninfo_to_dict(f"postgresql://{rest}" if scheme else url)
    except (psycopg.Error, UnicodeError, ValueError):
        raise InvalidOptionError(
            "url", "A Postgres URL is postgresql://user:password@host:port/database."
        ) from None
    return {**_PATIENCE, **given}


@attrs.define(eq=False, kw_only=True)
class Database:
    """A server's database with a pool of connections, opened when the first one is asked for."""

    options: Options
    clock: Clock
    _parameters: dict[str, Any] = attrs.field(repr=False)
    _pool: "AsyncConnectionPool[Connection]" = attrs.field(repr=False)
    _texts: dict[str, bytes] = attrs.field(factory=dict[str, bytes], repr=False)
    _is_open: bool = False
    _is_ready: bool = False
    _is_closed: bool = False

    @classmethod
    def at(cls, url: str, options: Options, *, clock: Clock) -> "Database":
        """Name the database; nothing is connected yet."""
        parameters = read_url(url)
        if options.prepare_threshold is not None:
            parameters["options"] = f"{parameters.get('options') or ''}{_PLANNING}"
        pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            make_conninfo(**parameters),
            kwargs={"autocommit": True, "prepare_threshold": options.prepare_threshold},
            min_size=options.min_connections,
            max_size=options.max_connections,
            open=False,
            timeout=options.deadline,
            reconnect_timeout=_RECONNECT_SECONDS,
            name="squidmesh",
        )
        return cls(options=options, clock=clock, parameters=parameters, pool=pool)

    @property
    def password(self) -> str | None:
        """What must not show in any error."""
        found = self._parameters.get("password")
        return str(found) if found else None

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
        await self._check_schema()
        for _ in range(_MOST_RACES):
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
        try:
            async with asyncio.timeout(self.options.deadline), self.connection() as connection:
                if not transaction:
                    return await self.drive(connection, steps)
                async with connection.transaction():
                    return await self.drive(connection, steps)
        except RACES:
            raise
        except (psycopg.Error, TimeoutError):
            with accidents(self.password):
                raise
            raise

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection of the pool."""
        self.check_is_open()
        if not self._is_open:
            self._is_open = True
            await self._pool.open()
        connection = await self._lend()
        try:
            yield connection
        finally:
            if connection.info.transaction_status is not TransactionStatus.IDLE:
                # What it was doing is unknown: no other call may inherit that.
                await connection.close()
            await self._pool.putconn(connection)

    def check_is_open(self) -> None:
        """Refuse to go on with a closed store."""
        if self._is_closed:
            raise StoreUnavailableError("it is closed")

    async def _lend(self) -> Connection:
        try:
            return await self._pool.getconn()
        except psycopg.OperationalError:
            self.check_is_open()
            # The pool only knows that it waited in vain: ask once more, for the reason.
            probe = await self.connect()
            await probe.close()
            raise

    async def connect(self) -> Connection:
        """Open a connection that is not the pool's."""
        return await psycopg.AsyncConnection.connect(
            make_conninfo(**self._parameters), autocommit=True, prepare_threshold=None
        )

    def connect_here(self) -> "psycopg.Connection[Any]":
        """Open a connection for the calling thread."""
        return psycopg.connect(
            make_conninfo(**self._parameters),
            autocommit=True,
            prepare_threshold=self.options.prepare_threshold,
        )

    async def drive(self, connection: Connection, steps: Steps[_Answer]) -> _Answer:
        """Run *steps* on *connection*, ours or the host's."""
        cursor = AsyncRawCursor(connection, row_factory=tuple_row)
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
        cursor = RawCursor(connection, row_factory=tuple_row)
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
            text = query.text.replace("{schema}", self.schema).encode()
            self._texts[query.text] = text
        return text

    async def _check_schema(self) -> None:
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
        if self._is_open:
            await self._pool.close()
