"""`MemoryStore`: every port of a storage over dictionaries, one at a time behind one lock."""

import threading
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime, timedelta
from itertools import islice
from typing import Final, Self

import attrs
from returns.result import Failure, Result, Success

from squidmesh.adapters.memory.tables import Tables, journal_behind
from squidmesh.adapters.memory.writing import read, write
from squidmesh.domain.entries import AttemptId
from squidmesh.domain.state import AttemptState, RunState
from squidmesh.errors import InvalidOptionError, StoreUnavailableError
from squidmesh.ports.clock import Clock
from squidmesh.ports.journal import Journal
from squidmesh.ports.store import (
    AttemptStore,
    BeatReport,
    Change,
    ClaimRequest,
    Claims,
    Committed,
    ExpiredClaim,
    Heard,
    Heartbeats,
    HeldClaim,
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
from squidmesh.records import RecordProblem, record_to_text, text_to_record

SCHEMA_VERSION: Final = 1


@attrs.frozen
class _Lease:
    owner: str
    until: datetime


@attrs.frozen
class _Seen:
    at: datetime
    queues: tuple[str, ...]
    definitions: Mapping[str, frozenset[str]]


class MemoryStore(Store, RunStore, AttemptStore, Presence, Hints, Schema, Journal, Transactions):
    """The reference of what a storage does, and the one to test workflows with.

    It lasts as long as the object. Nothing it does waits, so a call is over before another task
    runs; the lock is for heartbeats, which come from threads of their own.
    """

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._tables = Tables()
        self._checkpoints: dict[str, str] = {}
        self._leases: dict[str, _Lease] = {}
        self._workers: dict[str, _Seen] = {}
        self._is_closed = False

    @contextmanager
    def _turn(self) -> Iterator[datetime]:
        """One at a time, at one instant, unless the store is closed."""
        with self._lock:
            if self._is_closed:
                raise StoreUnavailableError("it is closed")
            yield self._clock.now()

    async def commit(self, changes: Sequence[Change]) -> Committed:
        # What cannot be written as text fails here, before anything is written.
        journals = [[[write(row) for row in run.journal] for run in each.runs] for each in changes]
        with self._turn() as now:
            results = tuple(
                self._tables.commit(change, journal, now)
                for change, journal in zip(changes, journals, strict=True)
            )
        return Committed(at=now, results=results)

    async def claim(self, request: ClaimRequest) -> Claims:
        with self._turn() as now:
            agenda = self._tables.agenda
            claimed = tuple(
                self._tables.claim(slot, ticket, request, now)
                for ticket, slot in zip(
                    request.tickets, agenda.take_due(request, now), strict=False
                )
            )
            expired = tuple(
                ExpiredClaim(
                    run_id=slot.run_id,
                    fingerprint=slot.fingerprint,
                    attempt=slot.attempt.id,
                    claim_id=slot.attempt.claim_id or "",
                )
                for slot in agenda.lost(now)
            )
            next_visible_at = agenda.next_visible_at(request)
        return Claims(at=now, claimed=claimed, expired=expired, next_visible_at=next_visible_at)

    async def load(self, run_ids: Collection[str]) -> Loaded:
        with self._turn() as now:
            found = ((run_id, self._tables.state(run_id)) for run_id in run_ids)
            states = {run_id: state for run_id, state in found if state is not None}
        return Loaded(at=now, states=states)

    def heartbeats(self) -> Heartbeats:
        return MemoryHeartbeats(self)

    def beat(self, claims: Sequence[HeldClaim]) -> BeatReport:
        """Prolong leases, from whatever thread; this is what `heartbeats` calls."""
        with self._turn() as now:
            return self._tables.beat(claims, now)

    async def close(self) -> None:
        with self._lock:
            self._is_closed = True

    @property
    def is_transactional(self) -> bool:
        return False

    @property
    def excludes_others(self) -> bool:
        return False

    async def joined(self, connection: object) -> Self:  # noqa: ARG002  there is none to join
        raise InvalidOptionError("connection", "A store in memory has no transactions to join.")

    @asynccontextmanager
    async def transaction(self, *, in_thread: bool) -> AsyncIterator[Opened[Self]]:  # noqa: ARG002
        raise InvalidOptionError("transaction", "A store in memory has no transactions to join.")
        yield

    async def list_runs(self, query: RunQuery) -> tuple[RunSummary, ...]:
        with self._turn():
            return tuple(islice(self._tables.summaries(query), query.limit))

    async def find_key(self, scope: str, key: str) -> KeyRecord | None:
        with self._turn():
            return self._tables.keys.get((scope, key))

    async def definitions(self, workflows: Collection[str] | None = None) -> tuple[str, ...]:
        with self._turn():
            return tuple(
                stored.fingerprint
                for stored in self._tables.definitions.values()
                if workflows is None or stored.workflow in workflows
            )

    async def definition(self, fingerprint: str) -> StoredDefinition | None:
        with self._turn():
            return self._tables.definitions.get(fingerprint)

    async def owed_wakeups(
        self, *, due_before: datetime | None, limit: int
    ) -> tuple[tuple[str, AttemptState], ...]:
        with self._turn() as now:
            agenda = self._tables.agenda
            if due_before is None:
                slots = agenda.owed(now, limit)
            else:
                slots = agenda.visible(due_before, limit)
            return tuple((slot.run_id, slot.attempt) for slot in slots)

    async def woken(self, wakeups: Sequence[tuple[str, AttemptId, datetime]]) -> None:
        with self._turn():
            for run_id, attempt, wake_at in wakeups:
                self._tables.woken(run_id, attempt, wake_at)

    async def take_lease(self, name: str, owner: str, length: timedelta) -> bool:
        with self._turn() as now:
            lease = self._leases.get(name)
            if lease is not None and lease.owner != owner and now < lease.until:
                return False
            self._leases[name] = _Lease(owner, now + length)
            return True

    async def worker_seen(
        self, owner: str, queues: Sequence[str], definitions: Mapping[str, Collection[str]]
    ) -> None:
        lacking = {mark: frozenset(steps) for mark, steps in definitions.items()}
        with self._turn() as now:
            self._workers[owner] = _Seen(now, tuple(queues), lacking)

    async def workers_for(
        self, fingerprint: str, *, within: timedelta
    ) -> Mapping[str, frozenset[str]]:
        with self._turn() as now:
            return {
                owner: seen.definitions[fingerprint]
                for owner, seen in self._workers.items()
                if fingerprint in seen.definitions and now - seen.at <= within
            }

    @property
    def hears(self) -> bool:
        """It is one process's own, and there is nobody else to hear from."""
        return False

    async def hint(self, queues: Collection[str], *, source: str) -> None:
        """Nobody else is there to be told."""

    async def listen(self, heard: Heard, *, source: str) -> None:
        """Nobody else is there to be heard."""

    async def migrate(self) -> int:
        """There are no tables to make: what this object is, it is from the beginning."""
        with self._turn():
            return SCHEMA_VERSION

    def migration_sql(self) -> str:
        """No statements: there is no database."""
        return ""

    async def append(
        self, run_id: str, expected: int, row: JournalRow
    ) -> Result[None, RevisionConflict]:
        written = write(row)
        with self._turn():
            conflict = self._tables.conflict(run_id, expected)
            if conflict is not None:
                return Failure(conflict)
            self._tables.append(run_id, row, written)
            return Success(None)

    async def read(self, run_id: str, *, after: int = 0) -> tuple[JournalRow, ...]:
        with self._turn():
            record = self._tables.runs.get(run_id)
            rows = journal_behind(record.journal, after) if record is not None else []
        return tuple(read(run_id, row) for row in rows)

    async def save_checkpoint(self, state: RunState) -> None:
        text = record_to_text(state)
        with self._turn():
            self._checkpoints[state.run_id] = text

    async def checkpoint(self, run_id: str) -> RunState | None:
        with self._turn():
            text = self._checkpoints.get(run_id)
            record = self._tables.runs.get(run_id)
        if text is None or record is None:
            return None
        try:
            state = text_to_record(RunState, text)
        except RecordProblem:
            return None
        return state if state.revision <= record.state.revision else None


class MemoryHeartbeats(Heartbeats):
    """Heartbeats that need no connection of their own."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def beat(self, claims: Sequence[HeldClaim]) -> BeatReport:
        return self._store.beat(claims)

    def close(self) -> None:
        """Nothing was opened."""
