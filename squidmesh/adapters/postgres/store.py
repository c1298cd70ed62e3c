"""The store: each promise of the ports is one function, and mostly one statement."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Final

import attrs
from returns.result import Result

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
from squidmesh.adapters.postgres.connection import Database, Options, quoted_name
from squidmesh.adapters.postgres.facts import find_keys
from squidmesh.adapters.postgres.heartbeats import PostgresHeartbeats
from squidmesh.adapters.postgres.rows import in_utc
from squidmesh.adapters.postgres.statements import Query, Steps, quoted
from squidmesh.domain.entries import AttemptId
from squidmesh.domain.state import AttemptState, RunState
from squidmesh.ports.clock import Clock
from squidmesh.ports.journal import Journal
from squidmesh.ports.store import (
    AttemptStore,
    Change,
    ClaimRequest,
    Claims,
    CommitFailure,
    Committed,
    Heartbeats,
    JournalRow,
    KeyRecord,
    Loaded,
    Presence,
    RevisionConflict,
    RunQuery,
    RunStore,
    RunSummary,
    Schema,
    Store,
    StoredDefinition,
)
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
class PostgresStore(Store, RunStore, AttemptStore, Presence, Schema, Journal):
    """All that a mesh keeps, in one schema of a PostgreSQL database.

    Leases and due times are judged by the server's clock, unless the *clock* is a virtual one,
    which a test owns.
    """

    _database: Database

    @classmethod
    async def open(
        cls, url: str, *, clock: Clock, options: Options | None = None
    ) -> "PostgresStore":
        """Name the database at *url*; it is connected to when it is first needed.

        Raises:
            InvalidOptionError: The URL or an option makes no sense.

        """
        return cls(Database.at(url, (options or Options()).checked(), clock=clock))

    async def commit(self, changes: Sequence[Change]) -> Committed:
        """Commit *changes*: those that need no transaction first, then the others in one."""
        database = self._database
        plain = commits.plain_ones(changes)
        if changes and len(plain) == len(changes):
            return await database.run(lambda: commits.commit_plain(changes, database.test_time))
        judged = [change for change in changes if change not in plain]
        return await self._commit_both(changes, plain, judged)

    async def _commit_both(
        self, changes: Sequence[Change], plain: Sequence[Change], judged: Sequence[Change]
    ) -> Committed:
        database = self._database
        results: dict[int, Result[None, CommitFailure]] = {}
        last = await database.run(
            lambda: commits.commit_judged(judged, database.test_time, wait=False),
            transaction=True,
        )
        results.update(zip(map(id, judged), last.results, strict=True))
        if plain:
            last = await database.run(lambda: commits.commit_plain(plain, database.test_time))
            results.update(zip(map(id, plain), last.results, strict=True))
        return Committed(at=last.at, results=tuple(results[id(change)] for change in changes))

    async def claim(self, request: ClaimRequest) -> Claims:
        return await self._database.run(lambda: claiming.claim(request, self._database.now))

    async def load(self, run_ids: Collection[str]) -> Loaded:
        at, states = await self._database.run(lambda: reading.load(run_ids, self._database.now))
        return Loaded(at=in_utc(at[0]), states=states)

    def heartbeats(self) -> Heartbeats:
        return PostgresHeartbeats.open(self._database)

    async def close(self) -> None:
        await self._database.close()

    async def list_runs(self, query: RunQuery) -> tuple[RunSummary, ...]:
        return await self._database.run(lambda: listing.list_runs(query))

    async def find_key(self, scope: str, key: str) -> KeyRecord | None:
        found = await self._database.run(
            lambda: find_keys([(scope, key)], self._database.test_time)
        )
        return found[0] if found else None

    async def definitions(self, workflows: Collection[str] | None = None) -> tuple[str, ...]:
        return await self._database.run(lambda: _fingerprints(workflows))

    async def definition(self, fingerprint: str) -> StoredDefinition | None:
        return await self._database.run(lambda: _definition(fingerprint))

    async def owed_wakeups(
        self, *, due_before: datetime | None, limit: int
    ) -> tuple[tuple[str, AttemptState], ...]:
        return await self._database.run(
            lambda: waking.owed_wakeups(due_before, self._database.now, limit)
        )

    async def woken(self, wakeups: Sequence[tuple[str, AttemptId, datetime]]) -> None:
        await self._database.run(lambda: waking.woken(wakeups))

    async def take_lease(self, name: str, owner: str, length: timedelta) -> bool:
        return await self._database.run(
            lambda: presence.take_lease(name, owner, length, self._database.now)
        )

    async def worker_seen(
        self, owner: str, queues: Sequence[str], definitions: Sequence[str]
    ) -> None:
        await self._database.run(
            lambda: presence.worker_seen(owner, queues, definitions, self._database.now)
        )

    async def workers_for(self, fingerprint: str, *, within: timedelta) -> tuple[str, ...]:
        return await self._database.run(
            lambda: presence.workers_for(fingerprint, within, self._database.now)
        )

    async def migrate(self) -> int:
        return await self._database.run_unchecked(lambda: schema.migrate(self._database.schema))

    def migration_sql(self) -> str:
        return schema.sql(self._database.schema)

    async def append(
        self, run_id: str, expected: int, row: JournalRow
    ) -> Result[None, RevisionConflict]:
        return await self._database.run(
            lambda: journaling.append(run_id, expected, row, self._database.now)
        )

    async def read(self, run_id: str, *, after: int = 0) -> tuple[JournalRow, ...]:
        return await self._database.run(lambda: reading.read_journal(run_id, after=after))

    async def save_checkpoint(self, state: RunState) -> None:
        await self._database.run(lambda: journaling.save_checkpoint(state))

    async def checkpoint(self, run_id: str) -> RunState | None:
        return await self._database.run(lambda: journaling.checkpoint(run_id))


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
