"""What the store knows, as dictionaries, and what a change does to them.

Nothing here waits, locks or reads a clock: `MemoryStore` brings the time, and lets one in at once.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from datetime import datetime

import attrs
from returns.result import Failure, Result, Success

from squidmesh.adapters.memory.agenda import Agenda, Slot
from squidmesh.adapters.memory.writing import Written, read_entries, write
from squidmesh.domain.dispatch import holder_of, is_due, is_held, is_lost
from squidmesh.domain.entries import AttemptClaimed, AttemptId, Entry
from squidmesh.domain.evolution import evolve
from squidmesh.domain.replacing import replace
from squidmesh.domain.state import (
    NOTHING_OPEN,
    AttemptState,
    AttemptStatus,
    RunState,
    RunStatus,
)
from squidmesh.ports.store import (
    BeatReport,
    Change,
    ClaimedAttempt,
    ClaimRequest,
    ClaimTicket,
    CommitFailure,
    Guard,
    GuardFailed,
    HeldClaim,
    JournalRow,
    KeyRecord,
    KeyTaken,
    LeaseOver,
    RevisionConflict,
    RunChange,
    RunQuery,
    RunSummary,
    RunTaken,
    StillDue,
    StillHeld,
    StoredDefinition,
)


@attrs.define(eq=False)
class RunRecord:
    """A run's rows: its state, its journal as text, and its open attempts as they stand now.

    *state* may be behind *slots* in what heartbeats and wake-ups have moved since.
    """

    state: RunState
    current_step: str | None = None
    journal: list[Written] = attrs.field(factory=list[Written])
    slots: dict[AttemptId, Slot] = attrs.field(factory=dict[AttemptId, Slot])


class Tables:
    """Runs, keys and definitions, and the agenda of open attempts."""

    def __init__(self) -> None:
        self.runs: dict[str, RunRecord] = {}
        self.keys: dict[tuple[str, str], KeyRecord] = {}
        self.definitions: dict[str, StoredDefinition] = {}
        self.agenda = Agenda()
        self._by_start: list[tuple[datetime, str]] = []

    def commit(
        self, change: Change, journals: Iterable[list[Written]], now: datetime
    ) -> Result[None, CommitFailure]:
        """Write all of *change*, or nothing of it."""
        fresh: dict[tuple[str, str], KeyRecord] = {}
        for run in change.runs:
            failure = self._objection(run, fresh, now)
            if failure is not None:
                return Failure(failure)
        for run, journal in zip(change.runs, journals, strict=True):
            self._write(run, journal, now)
        return Success(None)

    def _objection(
        self, change: RunChange, fresh: dict[tuple[str, str], KeyRecord], now: datetime
    ) -> CommitFailure | None:
        """Why *change* cannot be written; *fresh* are keys that the same commit brings along."""
        for wanted in change.keys:
            taken = self.keys.get((wanted.scope, wanted.key))
            taken = taken or fresh.setdefault((wanted.scope, wanted.key), wanted)
            if taken is not wanted:
                return KeyTaken(record=taken)
        record = self.runs.get(change.run_id)
        if record is not None and change.expected == 0:
            return RunTaken(run_id=change.run_id)
        for guard in change.guards:
            if record is None or not _holds(guard, record.slots.get(guard.attempt), now):
                holder = holder_of(record.state, guard.attempt.step) if record else None
                return GuardFailed(run_id=change.run_id, guard=guard, holder=holder)
        return self.conflict(change.run_id, change.expected)

    def conflict(self, run_id: str, expected: int) -> RevisionConflict | None:
        """What was missed by somebody who expects the run at this revision, unless it is there."""
        record = self.runs.get(run_id)
        stands_at = record.state.revision if record is not None else 0
        if stands_at == expected:
            return None
        return RevisionConflict(run_id=run_id, unseen=tuple(self._behind(record, expected)))

    def _behind(self, record: RunRecord | None, revision: int) -> Iterator[Entry]:
        if record is None:
            return
        for row in journal_behind(record.journal, revision):
            entries = read_entries(record.state.run_id, row)
            yield from entries[max(0, len(entries) - (row.revision - revision)) :]

    def _write(self, change: RunChange, journal: list[Written], now: datetime) -> None:
        record = self.runs.get(change.run_id)
        if record is None:
            record = self.runs[change.run_id] = RunRecord(change.state)
            insort(self._by_start, (change.state.facts.at, change.run_id))
        record.state = change.state
        record.current_step = change.current_step
        record.journal.extend(journal)
        for attempt in change.attempts:
            self._put(record, attempt, now)
        for key in change.keys:
            self.keys[key.scope, key.key] = key
        if change.definition is not None:
            self.definitions.setdefault(change.definition.fingerprint, change.definition)

    def _put(self, record: RunRecord, attempt: AttemptState, now: datetime) -> None:
        """Write an attempt's row; one that is at an end needs none beyond the state."""
        name = attempt.id
        before = record.slots.pop(name, None)
        if before is not None:
            before.closed = True
        if attempt.status is AttemptStatus.CLAIMED:
            attempt = _leased(attempt, before, now)
        elif attempt.status is not AttemptStatus.SCHEDULED:
            return
        facts = record.state.facts
        slot = Slot(record.state.run_id, facts.fingerprint, facts.priority, attempt)
        record.slots[name] = slot
        self.agenda.put(slot, now)

    def claim(
        self, slot: Slot, ticket: ClaimTicket, request: ClaimRequest, now: datetime
    ) -> ClaimedAttempt:
        """Give the attempt in *slot*, which the agenda has let go, to the one who asks."""
        record = self.runs[slot.run_id]
        entry = AttemptClaimed(
            at=now,
            step=slot.attempt.step,
            number=slot.attempt.number,
            visit=slot.attempt.visit,
            claim_id=ticket.claim_id,
            token_hash=ticket.token_hash,
            owner=request.owner,
            lease=request.lease,
        )
        found = record.state.status
        record.state = state = evolve(record.state, entry)
        row = JournalRow(revision=state.revision, at=now, cause="claim", entries=(entry,))
        record.journal.append(write(row))
        self._put(record, state.steps[entry.step].attempts[-1], now)
        return ClaimedAttempt(
            run_id=slot.run_id,
            fingerprint=slot.fingerprint,
            entry=entry,
            revision=state.revision,
            found=found,
        )

    def append(self, run_id: str, row: JournalRow, written: Written) -> None:
        """Write entries that concern the run as a whole."""
        record = self.runs[run_id]
        for entry in row.entries:
            record.state = evolve(record.state, entry)
        record.journal.append(written)

    def state(self, run_id: str) -> RunState | None:
        """The run as it stands, with the leases that heartbeats have left."""
        record = self.runs.get(run_id)
        if record is None:
            return None
        for slot in record.slots.values():
            record.state = _with_row(record.state, slot.attempt)
        return record.state

    def beat(self, claims: Iterable[HeldClaim], now: datetime) -> BeatReport:
        """Prolong the claims that are held, and tell which are not."""
        lost: set[str] = set()
        cancelling: set[str] = set()
        for claim in claims:
            record = self.runs.get(claim.run_id)
            slot = record.slots.get(claim.attempt) if record is not None else None
            if slot is not None and _is_held_by(claim, slot.attempt, now):
                self._prolong(slot, now + claim.lease)
            else:
                lost.add(claim.claim_id)
            if record is not None and record.state.status is RunStatus.CANCELLING:
                cancelling.add(claim.run_id)
        return BeatReport(at=now, lost=frozenset(lost), cancelling=frozenset(cancelling))

    def _prolong(self, slot: Slot, until: datetime) -> None:
        if slot.attempt.lease_until is None or slot.attempt.lease_until < until:
            slot.attempt = replace(slot.attempt, lease_until=until)
            self.agenda.prolonged(slot)

    def woken(self, run_id: str, attempt: AttemptId, wake_at: datetime) -> None:
        """Note when a scheduled attempt's next wake-up is owed."""
        record = self.runs.get(run_id)
        slot = record.slots.get(attempt) if record is not None else None
        if slot is not None and slot.attempt.status is AttemptStatus.SCHEDULED:
            slot.attempt = replace(slot.attempt, wake_at=wake_at)
            self.agenda.put_off_wakeup(slot)

    def summaries(self, query: RunQuery) -> Iterator[RunSummary]:
        """The runs that *query* asks for, newest first, as many as there are."""
        end = len(self._by_start)
        if query.behind is not None:
            end = bisect_left(self._by_start, query.behind)
        for index in range(end - 1, -1, -1):
            started_at, run_id = self._by_start[index]
            if query.started_after is not None and started_at < query.started_after:
                return
            record = self.runs[run_id]
            if _is_asked_for(record.state, query):
                yield RunSummary(state=_bare(record.state), current_step=record.current_step)


def journal_behind(journal: list[Written], revision: int) -> list[Written]:
    """The rows that reach beyond *revision*."""
    return journal[bisect_left(journal, revision + 1, key=_revision) :]


def _revision(row: Written) -> int:
    return row.revision


def _holds(guard: Guard, slot: Slot | None, now: datetime) -> bool:
    if slot is None:
        return False
    attempt = slot.attempt
    match guard:
        case StillHeld(token_hash=token_hash):
            return is_held(attempt, now) and attempt.token_hash == token_hash
        case StillDue():
            return is_due(attempt, now)
        case LeaseOver(claim_id=claim_id):
            return is_lost(attempt, now) and attempt.claim_id == claim_id


def _is_held_by(claim: HeldClaim, attempt: AttemptState, now: datetime) -> bool:
    return (
        is_held(attempt, now)
        and attempt.claim_id == claim.claim_id
        and attempt.token_hash == claim.token_hash
    )


def _leased(attempt: AttemptState, before: Slot | None, now: datetime) -> AttemptState:
    """The claimed attempt with its lease as this store's clock counts it."""
    if before is not None and before.attempt.claim_id == attempt.claim_id:
        return replace(attempt, lease_until=before.attempt.lease_until)
    assert attempt.lease is not None, "a claim has a lease"
    return replace(attempt, lease_until=now + attempt.lease)


def _with_row(state: RunState, attempt: AttemptState) -> RunState:
    """The state with the attempt's row in its place."""
    step = state.steps[attempt.step]
    place = attempt.number - 1
    if step.attempts[place] is attempt:
        return state
    attempts = (*step.attempts[:place], attempt, *step.attempts[place + 1 :])
    changed = replace(step, attempts=attempts)
    return replace(state, steps={**state.steps, attempt.step: changed})


def _is_asked_for(state: RunState, query: RunQuery) -> bool:
    facts = state.facts
    return (
        (query.workflow is None or facts.workflow == query.workflow)
        and (query.statuses is None or state.status in query.statuses)
        and (query.started_before is None or facts.at < query.started_before)
        and all(facts.tags.get(name) == value for name, value in query.tags.items())
    )


def _bare(state: RunState) -> RunState:
    return replace(state, steps={}, context={}, open=NOTHING_OPEN, applied=0)
