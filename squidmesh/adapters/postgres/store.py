"""The store: each promise of the ports is one function, and mostly one statement."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Final
from weakref import WeakKeyDictionary

import attrs
from psycopg.errors import UniqueViolation
from returns.result import Failure, Result, Success

from squidmesh.adapters.postgres import (
    claiming,
    commits,
    journaling,
    listing,
    presence,
    reading,
    schema,
    waking,
)
from squidmesh.adapters.postgres.accidents import HeldError
from squidmesh.adapters.postgres.beginning import begin, beginning_of
from squidmesh.adapters.postgres.connection import Database
from squidmesh.adapters.postgres.definitions import definitions_in, keep, without_definitions
from squidmesh.adapters.postgres.facts import find_keys
from squidmesh.adapters.postgres.heartbeats import PostgresHeartbeats
from squidmesh.adapters.postgres.hints import Notices, notify
from squidmesh.adapters.postgres.hosting import AnyConnection, HostTransaction, connection_in
from squidmesh.adapters.postgres.options import Options, quoted_name
from squidmesh.adapters.postgres.rows import in_utc
from squidmesh.adapters.postgres.statements import Query, Steps, quoted
from squidmesh.adapters.postgres.stepping import StepConnections
from squidmesh.adapters.postgres.writing import Manner, Written, write
from squidmesh.domain.entries import AttemptId
from squidmesh.domain.state import AttemptState, RunState
from squidmesh.errors import StoreConflictError, StoreUnavailableError
from squidmesh.ports.clock import Clock
from squidmesh.ports.journal import Journal
from squidmesh.ports.store import (
    AttemptStore,
    Change,
    ClaimRequest,
    Claims,
    Committed,
    Heard,
    Heartbeats,
    Hints,
    JournalRow,
    KeyRecord,
    Loaded,
    Presence,
    RevisionConflict,
    RunChange,
    RunHeld,
    RunQuery,
    RunStore,
    RunSummary,
    Schema,
    Store,
    StoredDefinition,
)
from squidmesh.ports.transactions import Opened, Transactions
from squidmesh.records import FORMAT

_DEFINITIONS: Final = """
select fingerprint
from {schema}.definitions
where $1::text[] is null or workflow = any($1::text[])
order by fingerprint
"""

_DEFINITION: Final = """
select fingerprint, workflow, version, document
from {schema}.definitions
where fingerprint = $1::text and format <= $2::smallint
"""


@attrs.frozen(eq=False)
class PostgresStore(Store, RunStore, AttemptStore, Presence, Hints, Schema, Journal, Transactions):
    """All that a mesh keeps, in one schema of a PostgreSQL database.

    Leases and due times are judged by the server's clock, unless the *clock* is a virtual one,
    which a test owns.
    """

    _database: Database
    _steps: StepConnections
    _host: HostTransaction | None = None
    _turns: "WeakKeyDictionary[AnyConnection, asyncio.Lock]" = attrs.field(
        factory=WeakKeyDictionary, repr=False
    )
    _kept: set[str] = attrs.field(factory=set[str], repr=False)
    _notices: Notices = attrs.field(
        default=attrs.Factory(lambda self: Notices(self._database), takes_self=True)
    )

    @classmethod
    async def open(
        cls, url: str, *, clock: Clock, options: Options | None = None
    ) -> "PostgresStore":
        """Name the database at *url*; it is connected to when it is first needed.

        Raises:
            InvalidOptionError: The URL or an option makes no sense.

        """
        database = Database.at(url, (options or Options()).checked(), clock=clock)
        return cls(database, StepConnections(database))

    @property
    def _within(self) -> Database | HostTransaction:
        """What statements run in: the database, or the host's transaction in it."""
        return self._host or self._database

    @property
    def is_transactional(self) -> bool:
        return True

    @property
    def excludes_others(self) -> bool:
        return False

    async def joined(self, connection: object) -> "PostgresStore":
        found = await connection_in(connection)
        await self._database.check_schema()
        turn = self._turns.setdefault(found, asyncio.Lock())
        return attrs.evolve(self, host=HostTransaction(self._database, found, turn))

    def _of_step(self, connection: AnyConnection) -> "PostgresStore":
        turn = self._turns.setdefault(connection, asyncio.Lock())
        return attrs.evolve(
            self, host=HostTransaction(self._database, connection, turn, is_steps=True)
        )

    @asynccontextmanager
    async def transaction(self, *, in_thread: bool) -> AsyncIterator[Opened["PostgresStore"]]:
        await self._database.check_schema()
        if in_thread:
            async with self._steps.for_threads() as plain:
                yield Opened(plain, self._of_step(plain))
        else:
            async with self._steps.for_coroutines() as connection:
                yield Opened(connection, self._of_step(connection))

    async def commit(self, changes: Sequence[Change]) -> Committed:
        """Commit *changes*: those that need no transaction in one statement, the others in one."""
        now = self._within.test_time
        if self._host is not None:
            return await self._commit_for_host(self._host, changes, now)
        beginning = beginning_of(changes)
        if beginning is not None:
            with suppress(HeldError, UniqueViolation):
                at = await self._database.run(lambda: begin(beginning, now))
                return Committed(at=at, results=(Success(None),))
        plain = commits.plain_ones(changes)
        if changes and len(plain) == len(changes):
            return await self._commit_plain(changes, now)
        return await self._commit_both(changes, plain, now)

    async def _commit_for_host(
        self, host: HostTransaction, changes: Sequence[Change], now: datetime | None
    ) -> Committed:
        """Commit *changes* with the host's transaction, and tell of them with it.

        Definitions go ahead of it: everybody else who starts such a run would have to wait for
        whether the host commits. A step's completion is nothing to tell: its worker goes on.
        """
        definitions = definitions_in(changes)
        unknown = [found for mark, found in definitions.items() if mark not in self._kept]
        if unknown:
            await self._database.run(lambda: keep(unknown))
            self._kept.update(definitions)
        changes = without_definitions(changes) if definitions else changes
        tells = self.hears and not host.is_steps
        schema = self._database.options.schema if tells else None
        return await host.run(lambda: commits.commit_with_host(changes, now, schema))

    async def _commit_both(
        self, changes: Sequence[Change], plain: Sequence[Change], now: datetime | None
    ) -> Committed:
        apart = {id(change) for change in plain}
        judged = [change for change in changes if id(change) not in apart]
        last = await self._commit_judged(judged, now)
        results = dict(zip(map(id, judged), last.results, strict=True))
        if plain:
            last = await self._commit_plain(plain, now)
            results.update(zip(map(id, plain), last.results, strict=True))
        return Committed(at=last.at, results=tuple(results[id(change)] for change in changes))

    async def _commit_plain(self, changes: Sequence[Change], now: datetime | None) -> Committed:
        """Write *changes* in one statement, and say what stood in the way of those that are not.

        Whatever happens behind the statement, what it has written is written.
        """
        runs = [change.runs[0] for change in changes]
        written = await self._written(runs, now)
        left = [run for run in runs if run.run_id not in written.run_ids]
        if not left:
            return commits.committed(runs, written.at, {})
        try:
            failures = await self._database.run(lambda: commits.why_not(left, now))
        except (StoreUnavailableError, StoreConflictError):
            # It is not known why, so they are to be asked for again.
            failures = {run.run_id: RunHeld(run_id=run.run_id) for run in left}
        return commits.committed(runs, written.at, failures)

    async def _written(self, runs: Sequence[RunChange], now: datetime | None) -> Written:
        """Write *runs* hastily; carefully, if that meets what is held or taken; or else apart."""
        database = self._database
        for manner in (Manner.HASTY, Manner.CAREFUL):
            with suppress(HeldError, UniqueViolation):
                return await database.run(partial(write, runs, now, manner))
        if len(runs) == 1:
            return Written((await self.load(())).at, frozenset())
        apart = [await self._written([run], now) for run in runs]
        return Written(apart[-1].at, frozenset().union(*(each.run_ids for each in apart)))

    async def _commit_judged(self, changes: Sequence[Change], now: datetime | None) -> Committed:
        """Commit *changes* together, or, where somebody holds what one of them needs, apart."""
        try:
            return await self._database.run(
                lambda: commits.commit_judged(changes, now, wait=False), transaction=True
            )
        except HeldError:
            if len(changes) == 1:
                held = RunHeld(run_id=changes[0].runs[0].run_id)
                return Committed(at=(await self.load(())).at, results=(Failure(held),))
        parts = [await self._commit_judged([change], now) for change in changes]
        return Committed(at=parts[-1].at, results=tuple(part.results[0] for part in parts))

    async def claim(self, request: ClaimRequest) -> Claims:
        return await self._within.run(lambda: claiming.claim(request, self._within.now))

    async def load(self, run_ids: Collection[str]) -> Loaded:
        at, states = await self._within.run(lambda: reading.load(run_ids, self._within.now))
        return Loaded(at=in_utc(at[0]), states=states)

    def heartbeats(self) -> Heartbeats:
        return PostgresHeartbeats.open(self._database)

    async def close(self) -> None:
        if self._host is None:
            await self._steps.close()
            await self._notices.close()
            await self._database.close()

    async def list_runs(self, query: RunQuery) -> tuple[RunSummary, ...]:
        return await self._within.run(lambda: listing.list_runs(query))

    async def find_key(self, scope: str, key: str) -> KeyRecord | None:
        found = await self._within.run(lambda: find_keys([(scope, key)], self._database.test_time))
        return found[0] if found else None

    async def definitions(self, workflows: Collection[str] | None = None) -> tuple[str, ...]:
        return await self._within.run(lambda: _fingerprints(workflows))

    async def definition(self, fingerprint: str) -> StoredDefinition | None:
        return await self._within.run(lambda: _definition(fingerprint))

    async def owed_wakeups(
        self, *, due_before: datetime | None, limit: int
    ) -> tuple[tuple[str, AttemptState], ...]:
        return await self._within.run(
            lambda: waking.owed_wakeups(due_before, self._within.now, limit)
        )

    async def woken(self, wakeups: Sequence[tuple[str, AttemptId, datetime]]) -> None:
        await self._within.run(lambda: waking.woken(wakeups))

    async def take_lease(self, name: str, owner: str, length: timedelta) -> bool:
        return await self._within.run(
            lambda: presence.take_lease(name, owner, length, self._within.now)
        )

    async def worker_seen(
        self, owner: str, queues: Sequence[str], definitions: Mapping[str, Collection[str]]
    ) -> None:
        await self._within.run(
            lambda: presence.worker_seen(owner, queues, definitions, self._within.now)
        )

    async def workers_for(
        self, fingerprint: str, *, within: timedelta
    ) -> Mapping[str, frozenset[str]]:
        return await self._within.run(
            lambda: presence.workers_for(fingerprint, within, self._within.now)
        )

    @property
    def hears(self) -> bool:
        return self._notices.are_on

    async def hint(self, queues: Collection[str], *, source: str) -> None:
        """Send a notification: at once, or inside the host's transaction with its commit."""
        if self._host is None:
            await self._notices.send(queues, source)
        elif self.hears:
            schema = self._database.options.schema
            await self._host.run(lambda: notify(schema, queues, source))

    async def listen(self, heard: Heard, *, source: str) -> None:
        await self._notices.listen(heard, source)

    async def migrate(self) -> int:
        return await self._database.run_unchecked(lambda: schema.migrate(self._database.schema))

    def migration_sql(self) -> str:
        return schema.sql(self._database.schema)

    async def append(
        self, run_id: str, expected: int, row: JournalRow
    ) -> Result[None, RevisionConflict]:
        return await self._within.run(
            lambda: journaling.append(run_id, expected, row, self._within.now)
        )

    async def read(self, run_id: str, *, after: int = 0) -> tuple[JournalRow, ...]:
        return await self._within.run(lambda: reading.read_journal(run_id, after=after))

    async def save_checkpoint(self, state: RunState) -> None:
        await self._within.run(lambda: journaling.save_checkpoint(state))

    async def checkpoint(self, run_id: str) -> RunState | None:
        return await self._within.run(lambda: journaling.checkpoint(run_id))


def migration_sql(options: Options) -> str:
    """Return the statements that make the tables in a database that has none."""
    return schema.sql(quoted_name(options.checked().schema))


def _fingerprints(workflows: Collection[str] | None) -> Steps[tuple[str, ...]]:
    wanted = None if workflows is None else quoted(list(workflows))
    rows = yield Query(_DEFINITIONS, (wanted,))
    return tuple(found for (found,) in rows)


def _definition(fingerprint: str) -> Steps[StoredDefinition | None]:
    """Read a definition; one in a newer format is nobody's here, and its runs wait."""
    rows = yield Query(_DEFINITION, (fingerprint, FORMAT))
    if not rows:
        return None
    found, workflow, version, document = rows[0]
    return StoredDefinition(
        fingerprint=found, workflow=workflow, version=version, document=document
    )
