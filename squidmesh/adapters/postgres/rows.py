"""Parts of a state as rows of PostgreSQL's tables; what they share with others is in `rows`.

What is written stands in the order of the columns in `tables`; what is read comes as JSON arrays,
in the order of the columns in `reading`.
"""

from datetime import UTC, datetime
from typing import Final

from squidmesh.codec import encode
from squidmesh.domain.entries import RunStarted
from squidmesh.domain.state import AttemptState, AttemptStatus, StepState
from squidmesh.ports.store import RunChange
from squidmesh.records import instant, microseconds
from squidmesh.rows import (
    Row,
    RowReader,
    document_or_null,
    instant_or_null,
    moved_values,
    started_values,
    turned_values,
)

_NO_ATTEMPT: Final = (None,) * 18


def moved_row(change: RunChange) -> Row:
    """What changes about a run with every commit, behind the revision that it expects."""
    return (
        change.run_id,
        change.expected,
        *moved_values(change),
        *turned_values(change.state),
    )


def started_row(change: RunChange) -> Row:
    """The row of a run that begins."""
    return (*moved_row(change), *started_values(change.state.facts))


def step_row(run_id: str, step: StepState) -> Row:
    """What changes about a visit of a step."""
    return (
        run_id,
        step.step,
        step.visit,
        step.status.value,
        step.transition,
        step.ended,
        step.applied,
        step.failures or None,
        step.lost or None,
        step.deferrals or None,
        step.carried or None,
        None if step.output is None else encode(step.output),
        step.under,
        document_or_null(step.error),
        document_or_null(step.manual),
    )


def ended_run_row(change: RunChange) -> Row:
    """What a run ended as, and when."""
    status, ended_at = turned_values(change.state)
    return (change.run_id, status, instant(change.state.facts.at), ended_at)


def latest_row(facts: RunStarted, step: StepState, attempt: AttemptState | None) -> Row:
    """A visit's latest attempt; what claims look for is repeated from its run while it waits."""
    if attempt is None:
        return _NO_ATTEMPT
    waits = attempt.status is AttemptStatus.SCHEDULED
    return (
        attempt.number,
        attempt.status.value,
        instant_or_null(attempt.ended_at),
        _unless_same(attempt.scheduled_at, step),
        instant(attempt.visible_at) if waits else _unless_same(attempt.visible_at, step),
        _never(attempt) or _unless_same(attempt.claimed_at, step),
        instant_or_null(attempt.wake_at),
        None if attempt.lease is None else microseconds(attempt.lease),
        attempt.fence,
        facts.priority if waits else None,
        attempt.claim_id,
        attempt.token_hash,
        attempt.owner,
        attempt.queue if waits or attempt.queue != facts.queue else None,
        facts.fingerprint if waits else None,
        facts.concurrency_key if waits else None,
        step.deferred,
        document_or_null(attempt.error),
    )


def _unless_same(at: datetime | None, step: StepState) -> str | None:
    """An instant, but for that at which the visit began, which its row has already."""
    return None if at is None or at == step.since else instant(at)


def _never(attempt: AttemptState) -> str | None:
    """What stands for no instant at all where null would say something else."""
    return "-infinity" if attempt.claimed_at is None and attempt.claim_id is not None else None


def ended_row(attempt: AttemptState | None) -> Row:
    """What the end of an attempt changes about it; nulls leave it as it is."""
    if attempt is None:
        return (None, None, None)
    return (
        attempt.status.value,
        instant_or_null(attempt.ended_at),
        document_or_null(attempt.error),
    )


def attempt_row(run_id: str, attempt: AttemptState) -> Row:
    """An attempt that is no longer the latest of its visit."""
    return (
        run_id,
        attempt.step,
        attempt.visit,
        attempt.number,
        attempt.status.value,
        instant_or_null(attempt.ended_at),
        instant(attempt.scheduled_at),
        instant(attempt.visible_at),
        instant_or_null(attempt.claimed_at),
        None if attempt.lease is None else microseconds(attempt.lease),
        attempt.fence,
        attempt.claim_id,
        attempt.owner,
        attempt.queue,
        document_or_null(attempt.error),
    )


def in_utc(at: datetime) -> datetime:
    """An instant as the server gave it, in whatever time zone the session has."""
    return at.astimezone(UTC)


def _moment(at: datetime | str) -> datetime:
    return in_utc(datetime.fromisoformat(at) if isinstance(at, str) else at)


READER: Final = RowReader(_moment)
"""Instants come as they are, or as texts where they stand in JSON."""
