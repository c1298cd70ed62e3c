"""The durable dispatch protocol: who may take an attempt, who holds it, and when that ends.

An attempt is *scheduled*, may be claimed from its ``visible_at`` on, and is then *claimed* by one
holder until it reports or until its lease runs out. A lease is half-open: it is held before
``lease_until`` and over at it; an attempt is visible at ``visible_at``. Time here is the store's,
and nothing else decides either question.

What contradicts the protocol (a second claim, a late report, a repeated completion) changes
nothing. It is answered with an `Anomaly`, which is told to whoever asked and to telemetry, and
never becomes an entry.
"""

import enum
from datetime import UTC, datetime, timedelta
from typing import Final

import attrs

from squidmesh.domain.commands import ClaimIsStale, NotClaimable, Refusal, SkipReason
from squidmesh.domain.entries import AttemptId
from squidmesh.domain.state import AttemptState, AttemptStatus, RunState

WAKEUP_GRACE: Final = timedelta(seconds=30)
"""How long after its due time an attempt may stay unclaimed before it is announced again."""

LONGEST_GRACE: Final = timedelta(hours=1)

LATEST: Final = datetime(9999, 1, 1, tzinfo=UTC)
"""The last moment that an attempt can be put off to; no calendar goes much further."""


class AnomalyKind(enum.Enum):
    """How a request contradicts the protocol."""

    UNKNOWN_RUNNABLE_INTENT = "unknown_runnable_intent"
    CONFLICTING_RUNNABLE_INTENT = "conflicting_runnable_intent"
    TERMINAL_RUN = "terminal_run"
    TERMINAL_ATTEMPT = "terminal_attempt"
    ACTIVE_CLAIM = "active_claim"
    ATTEMPT_NOT_VISIBLE = "attempt_not_visible"
    STALE_CLAIM = "stale_claim"
    EXPIRED_CLAIM = "expired_claim"
    CONFLICTING_COMPLETION = "conflicting_completion"
    RESULT_NOT_COMPLETED = "result_not_completed"


@attrs.frozen(kw_only=True)
class Anomaly:
    """A contradiction, told and not stored."""

    kind: AnomalyKind
    run_id: str
    attempt: AttemptId


def visible_from(now: datetime, delay: timedelta) -> datetime:
    """*now* plus *delay*, or `LATEST` where a body asks for more time than there is."""
    return now + delay if delay < LATEST - now else LATEST


def is_due(attempt: AttemptState, now: datetime) -> bool:
    """Whether the attempt may be claimed at *now*."""
    return attempt.status is AttemptStatus.SCHEDULED and attempt.visible_at <= now


def is_held(attempt: AttemptState, now: datetime) -> bool:
    """Whether somebody's claim on the attempt counts at *now*."""
    return (
        attempt.status is AttemptStatus.CLAIMED
        and attempt.lease_until is not None
        and now < attempt.lease_until
    )


def is_lost(attempt: AttemptState, now: datetime) -> bool:
    """Whether the attempt was claimed and its lease is over at *now*."""
    return attempt.status is AttemptStatus.CLAIMED and not is_held(attempt, now)


def claim_order(
    priority: int, run_id: str, attempt: AttemptState
) -> tuple[int, datetime, str, int, str]:
    """Sort key of due attempts: higher priority, then earlier visible, run id, number, step."""
    return (-priority, attempt.visible_at, run_id, attempt.number, attempt.step)


def runnable_key(run_id: str, attempt: AttemptId) -> str:
    """The name of one attempt across all runs: ``<run>:<step>:<attempt>``."""
    return f"{run_id}:{attempt.step}:{attempt.number}"


def idempotency_key(run_id: str, step: str, visit: int) -> str:
    """What a body hands to others so that they know a repetition: one key per step visit."""
    return f"{run_id}:{step}" if visit == 1 else f"{run_id}:{step}:{visit}"


def find_attempt(state: RunState, attempt: AttemptId) -> AttemptState | None:
    """The attempt as the run knows it, if it ever was."""
    step = state.steps.get(attempt.step)
    if step is None or step.visit != attempt.visit or not 1 <= attempt.number <= len(step.attempts):
        return None
    return step.attempts[attempt.number - 1]


def refusal_to_claim(state: RunState, wanted: AttemptId) -> NotClaimable | None:
    """Why the attempt cannot be claimed, as far as the run's own history tells.

    Whether it is visible yet is left to the store's clock.
    """
    attempt = find_attempt(state, wanted)
    if state.status.is_final:
        return NotClaimable(attempt=wanted, reason=SkipReason.RUN_OVER)
    if attempt is None:
        return NotClaimable(attempt=wanted, reason=SkipReason.NOT_SCHEDULED)
    match attempt.status:
        case AttemptStatus.SCHEDULED:
            return None
        case AttemptStatus.CLAIMED:
            return NotClaimable(attempt=wanted, reason=SkipReason.ALREADY_CLAIMED)
        case (
            AttemptStatus.COMPLETED
            | AttemptStatus.FAILED
            | AttemptStatus.LOST
            | AttemptStatus.CANCELLED
        ):
            return NotClaimable(attempt=wanted, reason=SkipReason.STALE_ATTEMPT)


def refusal_to_report(state: RunState, reported: AttemptId, token_hash: str) -> Refusal | None:
    """Why a report does not count: only the holder of the current claim may give one."""
    attempt = find_attempt(state, reported)
    if (
        attempt is not None
        and attempt.status is AttemptStatus.CLAIMED
        and attempt.token_hash == token_hash
    ):
        return None
    return ClaimIsStale(attempt=reported, holder=holder_of(state, reported.step))


def holder_of(state: RunState, step: str) -> str | None:
    """Who holds the step's latest attempt, if it is claimed."""
    known = state.steps.get(step)
    current = known.current if known is not None else None
    if current is None or current.status is not AttemptStatus.CLAIMED:
        return None
    return current.owner


def anomaly_of(state: RunState, refusal: NotClaimable | ClaimIsStale) -> Anomaly:
    """The protocol's name for a refused claim or report."""
    return Anomaly(kind=_anomaly_kind(state, refusal), run_id=state.run_id, attempt=refusal.attempt)


def _anomaly_kind(state: RunState, refusal: NotClaimable | ClaimIsStale) -> AnomalyKind:
    if state.status.is_final:
        return AnomalyKind.TERMINAL_RUN
    attempt = find_attempt(state, refusal.attempt)
    if attempt is None:
        return AnomalyKind.UNKNOWN_RUNNABLE_INTENT
    claims = isinstance(refusal, NotClaimable)
    match attempt.status:
        case AttemptStatus.SCHEDULED:
            return AnomalyKind.ATTEMPT_NOT_VISIBLE if claims else AnomalyKind.STALE_CLAIM
        case AttemptStatus.CLAIMED:
            return AnomalyKind.ACTIVE_CLAIM if claims else AnomalyKind.STALE_CLAIM
        case AttemptStatus.LOST:
            return AnomalyKind.TERMINAL_ATTEMPT if claims else AnomalyKind.EXPIRED_CLAIM
        case AttemptStatus.COMPLETED | AttemptStatus.FAILED | AttemptStatus.CANCELLED:
            return AnomalyKind.TERMINAL_ATTEMPT


def first_wakeup(visible_at: datetime, now: datetime, max_delay: timedelta | None) -> datetime:
    """When a wake-up is owed for a freshly scheduled attempt.

    An engine that holds the delay has been told already, so only its silence is waited for; one
    that cannot is told when the attempt is due.
    """
    if max_delay is None or visible_at - now <= max_delay:
        return visible_at + WAKEUP_GRACE
    return visible_at


def next_wakeup(attempt: AttemptState, now: datetime) -> datetime:
    """When a wake-up is owed again: thirty seconds later, then doubling up to an hour."""
    waited = max(now - attempt.visible_at, WAKEUP_GRACE)
    return now + min(waited, LONGEST_GRACE)
