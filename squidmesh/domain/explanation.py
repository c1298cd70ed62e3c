"""Why a run, or a step of it, stands where it stands, and what may be done about it.

An explanation is an answer for people and for programs: a stable reason, one sentence without
any value of the payload, the facts behind it as plain JSON, and the actions that are legal now.
Whatever is not over either can be acted upon or says when it changes by itself: times are given
as ISO text in the details, ``visible_at`` for what is due later and ``lease_until`` for a claim.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Final

import attrs

from squidmesh.domain.definition import WorkflowDefinition
from squidmesh.domain.evidence import (
    details_of_failure,
    details_of_open,
    details_of_rest,
    details_of_waiting,
    evidence_of,
    text_of,
)
from squidmesh.domain.inspection import is_doomed, may_still_come, open_steps, step_status
from squidmesh.domain.reasons import (
    Question,
    Reason,
    is_stranded,
    reason_of_failed_step,
    reason_of_failure,
    reason_of_open,
    reason_of_run,
)
from squidmesh.domain.remedies import NextAction, next_actions, replay_of, resumption_of
from squidmesh.domain.state import OPEN, RunState, RunStatus, StepState, StepStatus
from squidmesh.domain.values import Json, JsonObject

__all__ = ["Explanation", "NextAction", "explain", "explain_step"]


@attrs.frozen(kw_only=True)
class Explanation:
    """Where something stands and why.

    *status* is the run's, or the step's if one was asked for; *step* is the one that it is about.
    """

    status: str
    reason: str
    summary: str
    step: str | None
    details: Mapping[str, Json]
    evidence: Mapping[str, Json]
    next_actions: tuple[NextAction, ...]


_SENTENCES: Final[Mapping[Reason, str]] = {
    Reason.COMPLETED: "The run completed at {ended_at}.",
    Reason.CANCELLED: "The run was cancelled, and ended at {ended_at}.",
    Reason.COMPENSATION_FAILED: (
        "The run failed at step {step!r} with {code!r}, and not everything could be undone."
    ),
    Reason.POISONED: "The run failed because step {step!r} lost its worker again and again.",
    Reason.RETRY_EXHAUSTED: (
        "The run failed because step {step!r} used up its attempts, the last one with {code!r}."
    ),
    Reason.STEP_FAILED: "The run failed at step {step!r} with {code!r}.",
    Reason.CANCELLING: "The run is being cancelled and waits for step {step!r} to let go.",
    Reason.COMPENSATING: "The run has failed and undoes what it did; {step!r} is at its turn.",
    Reason.PAUSED_FOR_APPROVAL: (
        "Step {step!r} has waited since {paused_at} for somebody to approve or reject."
    ),
    Reason.PAUSED_FOR_MANUAL_ACTION: (
        "Step {step!r} has waited since {paused_at} for somebody to resume the run."
    ),
    Reason.LEASE_EXPIRED: (
        "Attempt {attempt} of step {step!r} was claimed by {owner}, whose lease ran out at"
        " {lease_until}."
    ),
    Reason.STEP_RUNNING: (
        "Attempt {attempt} of step {step!r} is running, held by {owner} until {lease_until}."
    ),
    Reason.WAITING_FOR_RETRY: "Step {step!r} failed, and attempt {attempt} is due at {visible_at}.",
    Reason.WAITING_UNTIL: "Step {step!r} waits until {visible_at}.",
    Reason.NO_WORKER_FOR_WORKFLOW: "Step {step!r} is due since {visible_at}",
    Reason.PENDING_DISPATCH: (
        "Step {step!r} is due since {visible_at}, and nobody has worked on the run yet."
    ),
    Reason.STEP_SCHEDULED: "Step {step!r} is due since {visible_at} and waits for a worker.",
    Reason.WAITING_FOR_DEPENDENCIES: "Step {step!r} waits for {prerequisites}.",
}
_STEP_SENTENCES: Final[Mapping[Reason, str]] = {
    Reason.COMPLETED: "Step {step!r} is completed.",
    Reason.CANCELLED: "Step {step!r} was cancelled.",
    Reason.POISONED: "Step {step!r} lost its worker again and again, and is not tried any more.",
    Reason.RETRY_EXHAUSTED: "Step {step!r} used up its attempts, the last one with {code!r}.",
    Reason.STEP_FAILED: "Step {step!r} failed with {code!r}.",
}
_NO_WORKER: Final = ", and no worker of its workflow was seen lately."
_NO_FUNCTION: Final = ", and no worker seen lately has a fitting {function}."
_UNDOING_STRANDED: Final = "The run has failed and undoes what it did; {step!r} is at its turn"
_NOTHING_OPEN: Final = "Nothing of the run is scheduled, claimed or paused."
_NEVER_REACHED: Final = "Step {step!r} was not reached, and the run does not come by it any more."


def explain(
    definition: WorkflowDefinition | None,
    state: RunState,
    *,
    now: datetime,
    runnable: bool,
    lacking: Collection[str] = (),
    today: WorkflowDefinition | None = None,
) -> Explanation:
    """Why the run stands where it stands at *now*.

    *definition* is the one that the run carries, None if it cannot be read; *runnable* says
    whether a worker seen lately, or whoever asks, knows the workflow, and *lacking* which steps
    none of them can run. *today* is the definition that a replay would start under, if known.
    """
    question = Question(
        definition=definition,
        state=state,
        now=now,
        runnable=runnable,
        lacking=lacking,
        today=today,
    )
    reason, step = reason_of_run(question)
    if state.status.is_final:
        return _of_final_run(question, reason, step)
    details = details_of_open(question, step) if step is not None else {}
    details |= details_of_rest(question)
    sentence = _sentence(question, reason, step) if step is not None else _NOTHING_OPEN
    return _explanation(
        question,
        reason,
        step,
        status=state.status.value,
        sentence=sentence,
        details=details,
        actions=next_actions(question, reason, open_steps(state)),
    )


def explain_step(
    definition: WorkflowDefinition | None,
    state: RunState,
    step: str,
    *,
    now: datetime,
    runnable: bool,
    lacking: Collection[str] = (),
    today: WorkflowDefinition | None = None,
) -> Explanation | None:
    """Why one step stands where it stands; None if the run has no such step."""
    question = Question(
        definition=definition,
        state=state,
        now=now,
        runnable=runnable,
        lacking=lacking,
        today=today,
    )
    known = state.steps.get(step)
    if known is not None:
        return _of_open_step(question, known) if known.status in OPEN else _of_end(question, known)
    if definition is None or step not in definition.by_name:
        return None
    if not may_still_come(definition, state, step):
        return _of_never_reached(question, step)
    waiting = details_of_waiting(definition, state, step)
    return _explanation(
        question,
        Reason.WAITING_FOR_DEPENDENCIES,
        None,
        name=step,
        status=StepStatus.WAITING.value,
        sentence=_SENTENCES[Reason.WAITING_FOR_DEPENDENCIES],
        details={**waiting, "waiting": [waiting]},
        actions=next_actions(question, Reason.WAITING_FOR_DEPENDENCIES, ()),
    )


def _sentence(question: Question, reason: Reason, step: StepState) -> str:
    """What is said of an open step; where nobody can run it, that is what has to be known."""
    is_undoing = reason is Reason.COMPENSATING
    if not (is_undoing or reason is Reason.NO_WORKER_FOR_WORKFLOW):
        return _SENTENCES[reason]
    if not is_stranded(question, step):
        return _SENTENCES[reason]
    said = _UNDOING_STRANDED if is_undoing else _SENTENCES[reason]
    return said + (_NO_FUNCTION if question.runnable else _NO_WORKER)


def _of_final_run(question: Question, reason: Reason, step: StepState | None) -> Explanation:
    state = question.state
    replay, actions = replay_of(question)
    details: JsonObject = {"replay": replay, "ended_at": text_of(state.ended_at)}
    if state.status is RunStatus.FAILED:
        details |= details_of_failure(question, reason, step, state.error)
        resumption = resumption_of(question)
        # What could not be undone still stands, and a replay from the start would do it again.
        stands = reason is Reason.COMPENSATION_FAILED
        actions = (*resumption, *actions) if stands else (*actions, *resumption)
    return _explanation(
        question,
        reason,
        step,
        status=state.status.value,
        sentence=_SENTENCES[reason],
        details=details,
        actions=actions,
    )


def _of_open_step(question: Question, step: StepState) -> Explanation:
    reason = {
        RunStatus.CANCELLING: Reason.CANCELLING,
        RunStatus.COMPENSATING: Reason.COMPENSATING,
    }.get(question.state.status, reason_of_open(question, step))
    return _explanation(
        question,
        reason,
        step,
        status=step.status.value,
        sentence=_sentence(question, reason, step),
        details=details_of_open(question, step),
        actions=next_actions(question, reason, (step,)),
    )


def _of_end(question: Question, step: StepState) -> Explanation:
    """A step that is over; what may be done is to replay from it, if the run is over as well."""
    ends = {StepStatus.COMPLETED: Reason.COMPLETED, StepStatus.CANCELLED: Reason.CANCELLED}
    reason = ends.get(step.status) or reason_of_failed_step(step, step.error)
    details: JsonObject = {}
    if step.status is StepStatus.FAILED:
        details = details_of_failure(question, reason, step, step.error)
    actions: tuple[NextAction, ...] = ()
    if question.state.status.is_final:
        details["replay"], actions = replay_of(question, step.step)
    return _explanation(
        question,
        reason,
        step,
        status=step.status.value,
        sentence=_STEP_SENTENCES[reason],
        details=details,
        actions=actions,
    )


def _of_never_reached(question: Question, step: str) -> Explanation:
    """A step that the run passed by, or ended before: the reason for that is the run's own."""
    state = question.state
    reason, at = reason_of_failure(state) if is_doomed(state) else reason_of_run(question)
    if state.status.is_final:
        replay, actions = replay_of(question)
        details: JsonObject = {"replay": replay, "ended_at": text_of(state.ended_at)}
    else:
        details = details_of_rest(question)
        if at is not None and at.status in OPEN:
            details |= details_of_open(question, at)
        actions = next_actions(question, reason, open_steps(state))
    return _explanation(
        question,
        reason,
        None,
        name=step,
        status=step_status(state, step).value,
        sentence=_NEVER_REACHED,
        details=details,
        actions=actions,
    )


def _explanation(
    question: Question,
    reason: Reason,
    step: StepState | None,
    *,
    status: str,
    sentence: str,
    details: JsonObject,
    actions: tuple[NextAction, ...],
    name: str | None = None,
) -> Explanation:
    about = step.step if step is not None else name
    return Explanation(
        status=status,
        reason=reason.value,
        summary=sentence.format_map(_Words({**details, "step": about})),
        step=about,
        details=details,
        evidence=evidence_of(question.state, step),
        next_actions=actions,
    )


class _Words(dict[str, Json]):
    """What a sentence is filled with: the details, and of an error only its code."""

    def __missing__(self, key: str) -> Json:
        names = self.get("waiting_on")
        if isinstance(names, list):
            return " and ".join(repr(name) for name in names)
        error = self.get("error")
        return error.get(key) if isinstance(error, dict) else None
