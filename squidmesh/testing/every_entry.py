"""One run whose journal holds every kind of entry, with every field at work."""

from datetime import datetime, timedelta

from squidmesh.domain.definition import RecoveryMarker
from squidmesh.domain.entries import (
    AfterFailure,
    AttemptCancelled,
    AttemptClaimed,
    AttemptCompleted,
    AttemptDeferred,
    AttemptFailed,
    AttemptHeartbeat,
    AttemptLost,
    AttemptScheduled,
    CancelRequested,
    Carried,
    CompensationPlanned,
    Entry,
    ErrorRecord,
    FinalStatus,
    Issuer,
    LiveWakeupEmitted,
    ManualAction,
    ManualKind,
    ManualStepPaused,
    ManualStepResolved,
    RunIndexed,
    RunnableApplied,
    RunnablesPlanned,
    RunReplayed,
    RunStarted,
    RunTerminal,
    StepRouted,
)
from squidmesh.testing.builders import LEASE, SECOND

SOMEBODY = Issuer(
    actor={"name": "Ada", "roles": ["ops"]},
    comment="it's fine",
    metadata={"ticket": 7},
    idempotency_key="by-ada",
)
WRONG = ErrorRecord(
    code="card_declined",
    message="no",
    type="Declined",
    details={"attempt": [1, None]},
    retryable=True,
)


def every_entry(at: datetime) -> tuple[Entry, ...]:
    """A history that no workflow has, but that a journal keeps and `evolve` folds."""
    return (
        *_beginning(at),
        *_first_step(at),
        *_second_step(at),
        *_people(at),
        *_end(at),
    )


def _beginning(at: datetime) -> tuple[Entry, ...]:
    return (
        RunStarted(
            at=at,
            workflow="orders",
            trigger="by_hand",
            fingerprint="fingerprint",
            payload={"order": 1, "lines": [{"sku": "a"}]},
            version="2030-01",
            queue="mail",
            priority=-3,
            concurrency_key="customer-1",
            tags={"team": "blue"},
            schedule={"signal_id": "s"},
            replayed_from=SECOND,
            carried=(
                Carried(step="fetch", output={"x": 1}, under="fetched"),
                Carried(step="merge", output={"y": 2}),
            ),
            issuer=SOMEBODY,
        ),
        RunIndexed(at=at, workflow="orders", queue="mail"),
        RunnablesPlanned(at=at, steps=("load", "ship")),
        AttemptScheduled(
            at=at, step="load", number=1, visible_at=at + timedelta(days=400), queue="mail"
        ),
        LiveWakeupEmitted(at=at, step="load", number=1),
    )


def _claim(at: datetime, step: str, number: int) -> AttemptClaimed:
    return AttemptClaimed(
        at=at,
        step=step,
        number=number,
        claim_id=f"claim-{step}-{number}",
        token_hash=f"hash-{step}-{number}",
        owner="alice",
        lease=LEASE + timedelta(microseconds=1),
    )


def _first_step(at: datetime) -> tuple[Entry, ...]:
    later = at + timedelta(microseconds=1)
    return (
        _claim(at, "load", 1),
        AttemptHeartbeat(at=at, step="load", number=1, claim_id="claim-load-1", lease=LEASE),
        AttemptDeferred(at=at, step="load", number=1, visible_at=later, reason="not yet"),
        _claim(later, "load", 1),
        AttemptFailed(at=later, step="load", number=1, error=WRONG, then=AfterFailure.RETRY),
        AttemptScheduled(at=later, step="load", number=2, visible_at=later, queue="mail"),
        _claim(later, "load", 2),
        AttemptLost(at=later, step="load", number=2, then=AfterFailure.RETRY),
        AttemptScheduled(at=later, step="load", number=3, visible_at=later, queue="mail"),
        _claim(later, "load", 3),
        AttemptCompleted(at=later, step="load", number=3, output={"z": [1.5, None, "\u2028"]}),
        RunnableApplied(at=later, step="load", under="loaded", transition=0),
    )


def _second_step(at: datetime) -> tuple[Entry, ...]:
    return (
        AttemptScheduled(at=at, step="ship", number=1, visible_at=at, queue="mail"),
        _claim(at, "ship", 1),
        AttemptLost(at=at, step="ship", number=1, then=AfterFailure.ROUTE, error=WRONG),
        StepRouted(
            at=at, step="ship", transition=3, target="ask", recovery=RecoveryMarker.COMPENSATION
        ),
        AttemptScheduled(at=at, step="bill", number=1, visible_at=at, queue="mail"),
        AttemptCancelled(at=at, step="bill", number=1),
    )


def _people(at: datetime) -> tuple[Entry, ...]:
    return (
        ManualStepPaused(
            at=at, step="ask", kind=ManualKind.APPROVAL, on_ok=1, on_error=2, output="review"
        ),
        ManualStepResolved(
            at=at,
            step="ask",
            action=ManualAction.APPROVED,
            transition=1,
            output={"decision": "approved"},
            issuer=SOMEBODY,
        ),
        CancelRequested(at=at, issuer=Issuer(actor="ada")),
    )


def _end(at: datetime) -> tuple[Entry, ...]:
    failure = ErrorRecord(code="poisoned", message="it is", step="ship")
    return (
        CompensationPlanned(at=at, steps=("load",), error=failure),
        AttemptScheduled(at=at, step="compensate:load", number=1, visible_at=at, queue="mail"),
        _claim(at, "compensate:load", 1),
        AttemptFailed(at=at, step="compensate:load", number=1, error=WRONG, then=AfterFailure.FAIL),
        RunTerminal(at=at, status=FinalStatus.FAILED, error=failure),
        RunReplayed(at=at, new_run_id=SECOND, issuer=SOMEBODY, from_step="ship"),
    )
