"""The store: each promise of the ports is one function in a transaction of its own."""

import os
import sqlite3
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import attrs
from returns.result import Result

from squidmesh.adapters.sqlite import (
    claiming,
    commits,
    journaling,
    listing,
    presence,
    reading,
    schema,
    waking,
)
from squidmesh.adapters.sqlite.connection import Database
from squidmesh.adapters.sqlite.facts import KEYS
from squidmesh.adapters.sqlite.heartbeats import SQLiteHeartbeats
from squidmesh.adapters.sqlite.hosting import AnyConnection, HostTransaction, connection_in
from squidmesh.adapters.sqlite.stepping import StepConnections
from squidmesh.domain.entries import AttemptId
from squidmesh.domain.state import AttemptState, RunState
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
    RunQuery,
    RunStore,
    RunSummary,
    Schema,
    Store,
    StoredDefinition,
)
from squidmesh.ports.transactions import Opened, Transactions
from squidmesh.records import FORMAT, instant
from squidmesh.rows import key_record

_ALL_DEFINITIONS: Final = """
select fingerprint
from squidmesh_definitions
order by fingerprint
"""

_DEFINITIONS: Final = """
select fingerprint
from squidmesh_definitions
where workflow = ?
order by fingerprint
"""

_DEFINITION: Final = """
select fingerprint, workflow, version, document
from squidmesh_definitions
where fingerprint = ? and format <= ?
"""


@attrs.frozen(eq=False)
class SQLiteStore(Store, RunStore, AttemptStore, Presence, Hints, Schema, Journal, Transactions):
    """All that a mesh keeps, in one file.

    Several processes on one machine may open the file; a network drive will not do. The clock that
    judges leases and due times is the *clock* that the store was opened with, so processes that
    share a file share a machine's clock.
    """

    _database: Database
    _steps: StepConnections = attrs.field(
        default=attrs.Factory(lambda self: StepConnections(self._database), takes_self=True)
    )
    _host: HostTransaction | None = None

    @classmethod
    async def open(cls, path: str | os.PathLike[str], *, clock: Clock) -> "SQLiteStore":
        """Open the file at *path*, create it if need be, and bring its tables up to date.

        Raises:
            InvalidOptionError: it is no path of a file.
            SchemaNotMigratedError: a newer release has written the file.
            StoreUnavailableError: the file cannot be used.

        """
        store = cls(await Database.open(path, clock=clock))
        try:
            await store.migrate()
        except BaseException:
            await store.close()
            raise
        return store

    @property
    def _within(self) -> Database | HostTransaction:
        """What functions run in: the database, or the host's transaction in it."""
        return self._host or self._database

    async def commit(self, changes: Sequence[Change]) -> Committed:
        return await self._within.write(
            lambda connection, now: commits.commit(connection, changes, now)
        )

    async def claim(self, request: ClaimRequest) -> Claims:
        return await self._within.write(
            lambda connection, now: claiming.claim(connection, request, now)
        )

    async def load(self, run_ids: Collection[str]) -> Loaded:
        states = await self._within.read(lambda connection: reading.load(connection, run_ids))
        return Loaded(at=self._database.clock.now(), states=states)

    def heartbeats(self) -> Heartbeats:
        return SQLiteHeartbeats.open(self._database)

    async def close(self) -> None:
        if self._host is None:
            await self._database.close()

    @property
    def is_transactional(self) -> bool:
        return True

    @property
    def excludes_others(self) -> bool:
        return True

    async def joined(self, connection: object) -> "SQLiteStore":
        found = await connection_in(connection, self._database)
        return attrs.evolve(self, host=HostTransaction(self._database, found))

    @asynccontextmanager
    async def transaction(self, *, in_thread: bool) -> AsyncIterator[Opened["SQLiteStore"]]:
        if in_thread:
            async with self._steps.for_threads() as plain:
                yield Opened(plain, self._of_step(plain))
        else:
            async with self._steps.for_coroutines() as connection:
                yield Opened(connection, self._of_step(connection))

    def _of_step(self, connection: AnyConnection) -> "SQLiteStore":
        return attrs.evolve(self, host=HostTransaction(self._database, connection, is_steps=True))

    async def list_runs(self, query: RunQuery) -> tuple[RunSummary, ...]:
        return await self._within.read(lambda connection: listing.list_runs(connection, query))

    async def find_key(self, scope: str, key: str) -> KeyRecord | None:
        now = instant(self._database.clock.now())
        rows = await self._within.read(lambda connection: KEYS.run(connection, [(scope, key, now)]))
        return key_record(rows[0]) if rows else None

    async def definitions(self, workflows: Collection[str] | None = None) -> tuple[str, ...]:
        return await self._within.read(partial(_fingerprints, workflows=workflows))

    async def definition(self, fingerprint: str) -> StoredDefinition | None:
        return await self._within.read(partial(_definition, fingerprint=fingerprint))

    async def owed_wakeups(
        self, *, due_before: datetime | None, limit: int
    ) -> tuple[tuple[str, AttemptState], ...]:
        now = self._database.clock.now()
        return await self._within.read(
            lambda connection: waking.owed_wakeups(connection, due_before, now, limit)
        )

    async def woken(self, wakeups: Sequence[tuple[str, AttemptId, datetime]]) -> None:
        await self._within.write(lambda connection, _: waking.woken(connection, wakeups))

    async def take_lease(self, name: str, owner: str, length: timedelta) -> bool:
        return await self._within.write(
            lambda connection, now: presence.take_lease(connection, name, owner, length, now)
        )

    async def worker_seen(
        self, owner: str, queues: Sequence[str], definitions: Mapping[str, Collection[str]]
    ) -> None:
        await self._within.write(
            lambda connection, now: presence.worker_seen(
                connection, owner, queues, definitions, now
            )
        )

    async def workers_for(
        self, fingerprint: str, *, within: timedelta
    ) -> Mapping[str, frozenset[str]]:
        since = self._database.clock.now() - within
        return await self._within.read(
            lambda connection: presence.workers_for(connection, fingerprint, since)
        )

    @property
    def hears(self) -> bool:
        """A file tells nobody that it has changed; other processes find out when they poll."""
        return False

    async def hint(self, queues: Collection[str], *, source: str) -> None:
        """There is no way to tell other processes."""

    async def listen(self, heard: Heard, *, source: str) -> None:
        """There is no way to hear from other processes."""

    async def migrate(self) -> int:
        found = await self._within.read(schema.version_of)
        if found == schema.VERSION:
            return found
        return await self._within.write(lambda connection, _: schema.migrate(connection))

    def migration_sql(self) -> str:
        return schema.sql()

    async def append(
        self, run_id: str, expected: int, row: JournalRow
    ) -> Result[None, RevisionConflict]:
        return await self._within.write(
            lambda connection, _: journaling.append(connection, run_id, expected, row)
        )

    async def read(self, run_id: str, *, after: int = 0) -> tuple[JournalRow, ...]:
        return await self._within.read(
            lambda connection: reading.read_journal(connection, run_id, after=after)
        )

    async def save_checkpoint(self, state: RunState) -> None:
        await self._within.write(
            lambda connection, _: journaling.save_checkpoint(connection, state)
        )

    async def checkpoint(self, run_id: str) -> RunState | None:
        return await self._within.read(partial(journaling.checkpoint, run_id=run_id))


def _fingerprints(
    connection: sqlite3.Connection, *, workflows: Collection[str] | None
) -> tuple[str, ...]:
    if workflows is None:
        return tuple(found for (found,) in connection.execute(_ALL_DEFINITIONS))
    return tuple(
        found
        for workflow in dict.fromkeys(workflows)
        for (found,) in connection.execute(_DEFINITIONS, (workflow,))
    )


def _definition(connection: sqlite3.Connection, *, fingerprint: str) -> StoredDefinition | None:
    """Read a definition; one in a newer format is nobody's here, and its runs wait."""
    row = connection.execute(_DEFINITION, (fingerprint, FORMAT)).fetchone()
    if row is None:
        return None
    found, workflow, version, document = row
    return StoredDefinition(
        fingerprint=found, workflow=workflow, version=version, document=document
    )
