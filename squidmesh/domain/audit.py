"""Who did what to a run, and what was undone: the audit events, derived from its entries.

There is no second record of them. What is in the journal has happened, and an event is how an
auditor reads it; that is why they are there even if nobody knows the workflow any more.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final, Literal, TypeAlias

import attrs

from squidmesh.domain.definition import RecoveryMarker
from squidmesh.domain.entries import (
    NO_METADATA,
    NOBODY,
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
    CompensationPlanned,
    Entry,
    Issuer,
    LiveWakeupEmitted,
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
from squidmesh.domain.inspection import fresh
from squidmesh.domain.serial_reading import END
from squidmesh.domain.state import compensated_step, is_compensation
from squidmesh.domain.values import Json

AuditType: TypeAlias = Literal[
    "paused",
    "resumed",
    "approved",
    "rejected",
    "cancel_requested",
    "replayed",
    "compensation_routed",
    "undo_routed",
    "compensation_started",
    "compensation_completed",
    "compensation_failed",
]

_ROUTED: Final[Mapping[RecoveryMarker, AuditType]] = {
    RecoveryMarker.COMPENSATION: "compensation_routed",
    RecoveryMarker.UNDO: "undo_routed",
}


@attrs.frozen(kw_only=True)
class AuditEvent:
    """Something that a person answers for, or that was done to make up for a failure.

    *actor* is whoever gave the command, None where the run itself went on. A compensation's
    *step* is the step that it undoes.
    """

    type: AuditType
    step: str | None
    actor: Json
    comment: str | None
    metadata: Mapping[str, Json]
    at: datetime


def audit_events(entries: Iterable[Entry]) -> tuple[AuditEvent, ...]:
    """The audit events that *entries*, from the first on, tell of, in their order."""
    found: list[AuditEvent] = []
    decided = _Decided()
    for entry in entries:
        event = _event(entry, decided)
        if event is not None:
            found.append(event)
    return tuple(found)


@attrs.define
class _Decided:
    """The decision read last: a route is taken right behind it, and by the same person."""

    step: str | None = None
    issuer: Issuer = NOBODY

    def actor_of(self, step: str) -> Json:
        return self.issuer.actor if step == self.step else None


def _event(entry: Entry, decided: _Decided) -> AuditEvent | None:
    match entry:
        case ManualStepPaused():
            return _told("paused", entry.at, entry.step)
        case ManualStepResolved():
            decided.step, decided.issuer = entry.step, entry.issuer
            return _ordered(entry.action.value, entry.at, entry.issuer, step=entry.step)
        case CancelRequested():
            return _ordered("cancel_requested", entry.at, entry.issuer)
        case RunReplayed():
            return _ordered("replayed", entry.at, entry.issuer, **_replay_of(entry))
        case StepRouted():
            return _routed(entry, decided.actor_of(entry.step))
        case CompensationPlanned():
            undone: list[Json] = [*entry.steps]
            return _told("compensation_started", entry.at, entry.error.step, {"steps": undone})
        case AttemptCompleted() | AttemptFailed() | AttemptLost():
            return _undoing(entry) if is_compensation(entry.step) else None
        case (
            RunStarted()
            | RunnablesPlanned()
            | RunnableApplied()
            | RunTerminal()
            | AttemptScheduled()
            | AttemptClaimed()
            | AttemptHeartbeat()
            | AttemptDeferred()
            | AttemptCancelled()
            | LiveWakeupEmitted()
            | RunIndexed()
        ):
            return None


def _told(
    kind: AuditType,
    at: datetime,
    step: str | None,
    metadata: Mapping[str, Json] = NO_METADATA,
    actor: Json = None,
) -> AuditEvent:
    return AuditEvent(
        type=kind, step=step, actor=fresh(actor), comment=None, metadata=dict(metadata), at=at
    )


def _ordered(
    kind: AuditType, at: datetime, issuer: Issuer, *, step: str | None = None, **more: Json
) -> AuditEvent:
    """What came of a command, with all that its issuer said."""
    metadata = {key: fresh(value) for key, value in issuer.metadata.items()}
    return AuditEvent(
        type=kind,
        step=step,
        actor=fresh(issuer.actor),
        comment=issuer.comment,
        metadata={**metadata, **more},
        at=at,
    )


def _replay_of(entry: RunReplayed) -> dict[str, str]:
    found = {"new_run_id": entry.new_run_id}
    return found if entry.from_step is None else {**found, "from_step": entry.from_step}


def _routed(entry: StepRouted, actor: Json) -> AuditEvent | None:
    """A marked route is an event; any other is just how the run went on."""
    if entry.recovery is None:
        return None
    target = entry.target if entry.target is not None else END
    return _told(_ROUTED[entry.recovery], entry.at, entry.step, {"target": target}, actor)


def _undoing(entry: AttemptCompleted | AttemptFailed | AttemptLost) -> AuditEvent | None:
    """How the undoing of a step ended; an attempt that is followed by another has not ended it."""
    step = compensated_step(entry.step)
    if isinstance(entry, AttemptCompleted):
        return _told("compensation_completed", entry.at, step)
    if entry.then is not AfterFailure.FAIL:
        return None
    code = entry.error.code if entry.error is not None else None
    return _told("compensation_failed", entry.at, step, {"code": code})
