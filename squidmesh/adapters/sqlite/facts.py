"""What the changes of a commit are judged by: revisions, claims and idempotency keys.

They are read for a whole batch in a few statements. A change that passes becomes part of them, so
that the changes of a batch see those before them.
"""

import sqlite3
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, TypeAlias

import attrs

from squidmesh.adapters.sqlite.bulk import Statement
from squidmesh.adapters.sqlite.rows import key_record
from squidmesh.domain.entries import AttemptId
from squidmesh.domain.state import AttemptState, AttemptStatus
from squidmesh.ports.store import (
    Guard,
    KeyRecord,
    KeyTaken,
    LeaseOver,
    RunChange,
    RunTaken,
    StillDue,
    StillHeld,
)
from squidmesh.records import instant

_RUNS: Final = Statement(
    """
    with wanted (run_id) as (values ?)
    select runs.run_id, runs.revision, runs.status
    from wanted
    cross join squidmesh_runs as runs
    where runs.run_id = wanted.run_id
    """,
    width=1,
)

_CLAIMS: Final = Statement(
    """
    with wanted (run_id, step, visit, number) as (values ?)
    select held.run_id, held.step, held.visit, held.number,
        held.status, held.token_hash, held.claim_id, held.visible_at, held.lease_until
    from wanted
    cross join squidmesh_attempts as held
    where held.run_id = wanted.run_id
        and held.step = wanted.step
        and held.visit = wanted.visit
        and held.number = wanted.number
    """,
    width=4,
)

KEYS: Final = Statement(
    """
    with wanted (scope, key, now) as (values ?)
    select used.scope, used.key, used.run_id, used.command, used.digest
    from wanted
    cross join squidmesh_idempotency_keys as used
    where used.scope = wanted.scope
        and used.key = wanted.key
        and (used.expires_at is null or used.expires_at > wanted.now)
    """,
    width=3,
)

_CLAIMED: Final = AttemptStatus.CLAIMED.value
_SCHEDULED: Final = AttemptStatus.SCHEDULED.value

_AttemptKey: TypeAlias = tuple[str, str, int, int]


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
class _Claim:
    """What guards look at in an attempt; instants are texts, which sort as time does."""

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
                is_it = self.status == _CLAIMED and self.token_hash == token_hash
                return is_it and not self.is_over(now)
            case StillDue():
                return self.status == _SCHEDULED and self.visible_at <= now
            case LeaseOver(claim_id=claim_id):
                is_it = self.status == _CLAIMED and self.claim_id == claim_id
                return is_it and self.is_over(now)


@attrs.define(kw_only=True)
class Facts:
    """The store as a batch sees it at the store's time *at*.

    *statuses* are those in the rows of runs, and stay so. Only the claims that guards of the batch
    ask about are known, None for an attempt that does not exist.
    They are kept up for *repeated* runs, those that several changes of the batch are about.
    """

    at: datetime
    now: str
    revisions: dict[str, int]
    statuses: dict[str, str]
    keys: dict[tuple[str, str], KeyRecord]
    claims: dict[_AttemptKey, _Claim | None]
    repeated: frozenset[str]
    _ends: dict[timedelta, str] = attrs.field(factory=dict[timedelta, str])

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
            claim = self.claims.get(_attempt_key(change.run_id, guard.attempt))
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
            name = _attempt_key(change.run_id, attempt.id)
            if name in self.claims:
                self.claims[name] = self._claim_of(attempt)

    def lease_until(self, attempt: AttemptState) -> str | None:
        """Return the end of the lease of an attempt that is being claimed."""
        lease = attempt.lease
        if lease is None or attempt.status is not AttemptStatus.CLAIMED:
            return None
        if lease not in self._ends:
            self._ends[lease] = instant(self.at + lease)
        return self._ends[lease]

    def _claim_of(self, attempt: AttemptState) -> _Claim:
        return _Claim(
            attempt.status.value,
            attempt.token_hash,
            attempt.claim_id,
            instant(attempt.visible_at),
            self.lease_until(attempt),
        )


def read_facts(connection: sqlite3.Connection, changes: Sequence[RunChange], at: datetime) -> Facts:
    """Read what *changes* are judged by, at the store's time *at*."""
    now = instant(at)
    counts = Counter(change.run_id for change in changes)
    runs = _RUNS.run(connection, [(run_id,) for run_id in counts])
    claims: dict[_AttemptKey, _Claim | None] = {
        _attempt_key(change.run_id, guard.attempt): None
        for change in changes
        for guard in change.guards
    }
    for row in _CLAIMS.run(connection, list(claims)):
        claims[row[:4]] = _Claim(*row[4:])
    keys = {(key.scope, key.key, now): None for change in changes for key in change.keys}
    used = [key_record(row) for row in KEYS.run(connection, list(keys))]
    return Facts(
        at=at,
        now=now,
        revisions={run_id: revision for run_id, revision, _ in runs},
        statuses={run_id: status for run_id, _, status in runs},
        keys={(record.scope, record.key): record for record in used},
        claims=claims,
        repeated=frozenset(run_id for run_id, count in counts.items() if count > 1),
    )


def _attempt_key(run_id: str, attempt: AttemptId) -> _AttemptKey:
    return (run_id, attempt.step, attempt.visit, attempt.number)
