"""What the changes of a batch are judged by: revisions, claims and idempotency keys.

A store with rows reads these facts for a whole batch in a few statements. A change that passes
becomes part of them, so that the changes of a batch see those before them.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TypeAlias

import attrs

from squidmesh.domain.dispatch import holder_of
from squidmesh.domain.entries import AttemptId, Entry
from squidmesh.domain.state import AttemptState, AttemptStatus
from squidmesh.ports.store import (
    Change,
    Guard,
    JournalRow,
    KeyRecord,
    KeyTaken,
    LeaseOver,
    RunChange,
    RunTaken,
    StillDue,
    StillHeld,
)
from squidmesh.records import instant

AttemptKey: TypeAlias = tuple[str, str, int, int]
"""Run, step, visit and number."""


@attrs.frozen
class Behind:
    """The change expects a revision at which the run does not stand."""

    run_id: str
    expected: int


@attrs.frozen
class Unguarded:
    """A guard does not hold."""

    run_id: str
    guard: Guard


Objection: TypeAlias = KeyTaken | RunTaken | Unguarded | Behind


@attrs.frozen
class Claim:
    """What guards look at in an attempt; instants are `instant` texts, which sort as time does."""

    status: str
    token_hash: str | None
    claim_id: str | None
    visible_at: str
    lease_until: str | None

    def is_over(self, now: str) -> bool:
        """Whether the lease has run out; at its very end it has."""
        return self.lease_until is not None and self.lease_until <= now

    def passes(self, guard: Guard, now: str) -> bool:
        """Say whether *guard* holds for the attempt."""
        match guard:
            case StillHeld(token_hash=token_hash):
                is_it = self.status == "claimed" and self.token_hash == token_hash
                return is_it and not self.is_over(now)
            case StillDue():
                return self.status == "scheduled" and self.visible_at <= now
            case LeaseOver(claim_id=claim_id):
                is_it = self.status == "claimed" and self.claim_id == claim_id
                return is_it and self.is_over(now)


@attrs.define(kw_only=True)
class Facts:
    """The store as a batch sees it at the store's time *now*.

    *statuses* are those in the rows of runs, and stay so. Only the claims that guards of the batch
    ask about are known, None for an attempt that does not exist.
    They are kept up for *repeated* runs, those that several changes of the batch are about.
    """

    at: datetime
    now: str
    revisions: dict[str, int]
    statuses: dict[str, str]
    keys: dict[tuple[str, str], KeyRecord]
    claims: dict[AttemptKey, Claim | None]
    repeated: frozenset[str]

    def draft(self) -> "Facts":
        """Return a copy to go on with, and to throw away if nothing comes of it."""
        return attrs.evolve(
            self, revisions=dict(self.revisions), keys=dict(self.keys), claims=dict(self.claims)
        )

    def objection_to(self, change: RunChange) -> Objection | None:
        """Say what stands in the way of *change*, keys first, then guards, then the revision."""
        for key in change.keys:
            if used := self.keys.get((key.scope, key.key)):
                return KeyTaken(record=used)
        stands_at = self.revisions.get(change.run_id, 0)
        if stands_at and not change.expected:
            return RunTaken(run_id=change.run_id)
        for guard in change.guards:
            claim = self.claims.get(attempt_key(change.run_id, guard.attempt))
            if claim is None or not claim.passes(guard, self.now):
                return Unguarded(change.run_id, guard)
        return None if stands_at == change.expected else Behind(change.run_id, change.expected)

    def include(self, change: RunChange) -> None:
        """Go on as if *change* had been written."""
        self.revisions[change.run_id] = change.state.revision
        for key in change.keys:
            self.keys[key.scope, key.key] = key
        if change.run_id not in self.repeated:
            return
        for attempt in change.attempts:
            name = attempt_key(change.run_id, attempt.id)
            if name in self.claims:
                self.claims[name] = self._claim_of(attempt)

    def _claim_of(self, attempt: AttemptState) -> Claim:
        until = lease_until(attempt, self.at)
        return Claim(
            attempt.status.value,
            attempt.token_hash,
            attempt.claim_id,
            instant(attempt.visible_at),
            None if until is None else instant(until),
        )


@attrs.frozen
class Refused:
    """A change that does not pass; *before* are changes of that run in the batch that do."""

    objection: Objection
    before: tuple[RunChange, ...]


def judge(facts: Facts, changes: Sequence[Change]) -> tuple[list[RunChange], list[Refused | None]]:
    """Say what passes, and for each of *changes*, in order, what stands in its way."""
    passed: list[RunChange] = []
    verdicts: list[Refused | None] = []
    for change in changes:
        # What is included cannot be taken out again: with several runs it takes a draft.
        draft = facts if len(change.runs) == 1 else facts.draft()
        objection = _include(draft, change)
        if objection is None:
            facts = draft
            passed += change.runs
            verdicts.append(None)
        else:
            verdicts.append(Refused(objection, _about(objection, passed)))
    return passed, verdicts


def _include(facts: Facts, change: Change) -> Objection | None:
    """Include the runs of *change* in *facts*, up to the first to which there is an objection."""
    for run in change.runs:
        objection = facts.objection_to(run)
        if objection is not None:
            return objection
        facts.include(run)
    return None


def _about(objection: Objection, passed: Sequence[RunChange]) -> tuple[RunChange, ...]:
    match objection:
        case Unguarded(run_id=run_id) | Behind(run_id=run_id):
            return tuple(change for change in passed if change.run_id == run_id)
        case KeyTaken() | RunTaken():
            return ()


def holder_before(before: Sequence[RunChange], step: str) -> tuple[bool, str | None]:
    """Whether changes *before* say who holds the step's latest attempt, and who that is."""
    if before and step in before[-1].state.steps:
        return True, holder_of(before[-1].state, step)
    return False, None


def unseen_entries(rows: Iterable[JournalRow], expected: int) -> tuple[Entry, ...]:
    """The entries of *rows* behind revision *expected*."""
    return tuple(
        entry
        for row in rows
        for revision, entry in enumerate(row.entries, row.revision - len(row.entries) + 1)
        if revision > expected
    )


def wanted_claims(changes: Iterable[RunChange]) -> dict[AttemptKey, Claim | None]:
    """The attempts that guards of *changes* ask about, none of them known yet."""
    return {
        attempt_key(change.run_id, guard.attempt): None
        for change in changes
        for guard in change.guards
    }


def repeated_runs(changes: Iterable[RunChange]) -> frozenset[str]:
    """The runs that several of *changes* are about."""
    counts = Counter(change.run_id for change in changes)
    return frozenset(run_id for run_id, count in counts.items() if count > 1)


def lease_until(attempt: AttemptState, at: datetime) -> datetime | None:
    """The end of the lease of an attempt that is being claimed at the store's time *at*."""
    if attempt.lease is None or attempt.status is not AttemptStatus.CLAIMED:
        return None
    return at + attempt.lease


def attempt_key(run_id: str, attempt: AttemptId) -> AttemptKey:
    """Name an attempt of a run."""
    return (run_id, attempt.step, attempt.visit, attempt.number)
