"""Why a run, or one of its steps, stands where it stands: a single reason, the first that fits.

Every open step has a reason of its own. That of a run which still goes on is the foremost among
those of its open steps, in the order in which `Reason` lists them; a run that is ending, or over,
has one for itself. What a failure was caused by is read off what was stored about it.
"""

import enum
from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Final

import attrs

from squidmesh.domain.definition import WorkflowDefinition
from squidmesh.domain.dispatch import is_due, is_lost
from squidmesh.domain.entries import ErrorRecord, ManualKind
from squidmesh.domain.inspection import open_steps
from squidmesh.domain.state import (
    AttemptStatus,
    RunState,
    RunStatus,
    StepState,
    StepStatus,
    is_compensation,
)


class Reason(enum.Enum):
    """Why something stands where it stands; of several that fit, the first one counts."""

    COMPLETED = "completed"
    CANCELLED = "cancelled"
    COMPENSATION_FAILED = "compensation_failed"
    POISONED = "poisoned"
    RETRY_EXHAUSTED = "retry_exhausted"
    STEP_FAILED = "step_failed"
    CANCELLING = "cancelling"
    COMPENSATING = "compensating"
    PAUSED_FOR_APPROVAL = "paused_for_approval"
    PAUSED_FOR_MANUAL_ACTION = "paused_for_manual_action"
    LEASE_EXPIRED = "lease_expired"
    STEP_RUNNING = "step_running"
    WAITING_FOR_RETRY = "waiting_for_retry"
    WAITING_UNTIL = "waiting_until"
    NO_WORKER_FOR_WORKFLOW = "no_worker_for_workflow"
    PENDING_DISPATCH = "pending_dispatch"
    STEP_SCHEDULED = "step_scheduled"
    WAITING_FOR_DEPENDENCIES = "waiting_for_dependencies"


_RANKS: Final = {reason: rank for rank, reason in enumerate(Reason)}


@attrs.frozen(kw_only=True)
class Question:
    """A run as it is asked about: with the definition that it carries, at a moment.

    *runnable* says whether anybody is there who knows its workflow; *lacking* are the steps that
    nobody has a body for all the same, and *today* the definition under which runs start now.
    """

    definition: WorkflowDefinition | None
    state: RunState
    now: datetime
    runnable: bool
    lacking: Collection[str] = ()
    today: WorkflowDefinition | None = None

    def can_run(self, step: str) -> bool:
        """Whether anybody is there who could run *step*."""
        return self.runnable and step not in self.lacking


def reason_of_run(question: Question) -> tuple[Reason, StepState | None]:
    """The run's reason, and the step that it is about."""
    state = question.state
    match state.status:
        case RunStatus.COMPLETED:
            return Reason.COMPLETED, None
        case RunStatus.CANCELLED:
            return Reason.CANCELLED, None
        case RunStatus.FAILED:
            return reason_of_failure(state)
        case RunStatus.CANCELLING:
            return Reason.CANCELLING, foremost(question, open_steps(state))[1]
        case RunStatus.COMPENSATING:
            return Reason.COMPENSATING, foremost(question, open_steps(state))[1]
        case RunStatus.PENDING | RunStatus.RUNNING | RunStatus.RETRYING | RunStatus.PAUSED:
            return foremost(question, open_steps(state))


def foremost(question: Question, steps: Iterable[StepState]) -> tuple[Reason, StepState | None]:
    """The foremost reason among those of open *steps*; of equals, that of the earliest step."""
    found = [(reason_of_open(question, step), step) for step in steps]
    if not found:
        return _without_attempt(question.state), None
    return min(found, key=_rank)


def _rank(found: tuple[Reason, StepState]) -> tuple[int, datetime]:
    reason, step = found
    attempt = step.current
    return _RANKS[reason], attempt.visible_at if attempt is not None else step.since


def reason_of_open(question: Question, step: StepState) -> Reason:
    """Why an open step has not come to its end yet."""
    attempt = step.current
    if step.manual is not None or attempt is None:
        is_approval = step.manual is not None and step.manual.kind is ManualKind.APPROVAL
        return Reason.PAUSED_FOR_APPROVAL if is_approval else Reason.PAUSED_FOR_MANUAL_ACTION
    if attempt.status is AttemptStatus.CLAIMED:
        return Reason.LEASE_EXPIRED if is_lost(attempt, question.now) else Reason.STEP_RUNNING
    is_later = attempt.visible_at > question.now
    can_run = question.can_run(step.step)
    if step.status is StepStatus.RETRYING and (is_later or can_run):
        return Reason.WAITING_FOR_RETRY
    if is_later:
        return Reason.WAITING_UNTIL
    # A retry that is due waits for nothing but somebody who can run it.
    return _without_attempt(question.state) if can_run else Reason.NO_WORKER_FOR_WORKFLOW


def is_stranded(question: Question, step: StepState) -> bool:
    """Whether an open step is due and nobody is there who could run it."""
    attempt = step.current
    return attempt is not None and is_due(attempt, question.now) and not question.can_run(step.step)


def _without_attempt(state: RunState) -> Reason:
    """Whether the first claim of the run is still to come, or just another one."""
    claimed = any(
        step.deferrals or any(attempt.claimed_at is not None for attempt in step.attempts)
        for step in state.steps.values()
    )
    return Reason.STEP_SCHEDULED if claimed else Reason.PENDING_DISPATCH


def reason_of_failure(state: RunState) -> tuple[Reason, StepState | None]:
    """What a run failed by, and the step at which it did; asked of one that is doomed, too."""
    error = state.error
    step = state.steps.get(error.step) if error is not None and error.step is not None else None
    not_undone = any(
        is_compensation(name) and visit.status is StepStatus.FAILED
        for name, visit in state.steps.items()
    )
    if not_undone:
        return Reason.COMPENSATION_FAILED, step
    return reason_of_failed_step(step, error), step


def reason_of_failed_step(step: StepState | None, error: ErrorRecord | None) -> Reason:
    """What a step failed for good by.

    A body may report any code, so the code alone says nothing about how the step came to its end.
    Attempts are only used up where there was more than one to use.
    """
    if step is None or error is None:
        return Reason.STEP_FAILED
    attempt = step.current
    is_lost_for_good = attempt is not None and attempt.status is AttemptStatus.LOST
    if is_lost_for_good and error.code == "poisoned":
        return Reason.POISONED
    if error.retryable and step.failures > 1:
        return Reason.RETRY_EXHAUSTED
    return Reason.STEP_FAILED
