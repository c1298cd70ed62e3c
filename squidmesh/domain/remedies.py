"""What may be done about a run: the actions that its state allows, and whether replay is one."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Final

import attrs
from returns.pipeline import is_successful

from squidmesh.domain.commands import ReplayIsUnsafe, ReplayRun
from squidmesh.domain.definition import WorkflowDefinition
from squidmesh.domain.dispatch import WAKEUP_GRACE, is_due, is_lost
from squidmesh.domain.reasons import Question, Reason
from squidmesh.domain.recovery import (
    carried_over,
    refusal_to_replay,
    refusal_to_start_at,
    undone_before,
)
from squidmesh.domain.state import AttemptState, RunStatus, StepState
from squidmesh.domain.validation_binding import bodies_of
from squidmesh.domain.values import Json, JsonObject

CANCELLABLE: Final = frozenset(
    {RunStatus.PENDING, RunStatus.RUNNING, RunStatus.RETRYING, RunStatus.PAUSED}
)

_ACTIONS: Final[Mapping[Reason, tuple[str, ...]]] = {
    Reason.CANCELLING: ("wait_for_cancellation",),
    Reason.COMPENSATING: ("wait_for_compensation",),
    Reason.PAUSED_FOR_APPROVAL: ("approve_run", "reject_run"),
    Reason.PAUSED_FOR_MANUAL_ACTION: ("resume_run",),
    Reason.STEP_RUNNING: ("wait_for_step",),
    Reason.WAITING_FOR_RETRY: ("wait_for_retry",),
    Reason.WAITING_UNTIL: ("wait_until",),
    Reason.PENDING_DISPATCH: ("wait_for_step",),
    Reason.STEP_SCHEDULED: ("wait_for_step",),
    Reason.STEP_FAILED: ("wait_for_step",),
    Reason.RETRY_EXHAUSTED: ("wait_for_step",),
    Reason.POISONED: ("wait_for_step",),
    Reason.WAITING_FOR_DEPENDENCIES: ("wait_for_dependencies",),
}
"""What suits each reason of a run that is not over; a failure is one that others finish under."""

_DECISIONS: Final = frozenset({Reason.PAUSED_FOR_APPROVAL, Reason.PAUSED_FOR_MANUAL_ACTION})


@attrs.frozen
class NextAction:
    """Something that may be done: its *name*, and the *call* that does it, or looks again."""

    name: str
    call: str


def next_actions(
    question: Question, reason: Reason, steps: Iterable[StepState]
) -> tuple[NextAction, ...]:
    """What may be done about a run that is not over, *steps* being those that it is about."""
    attempts = [step.current for step in steps]
    current = [attempt for attempt in attempts if attempt is not None]
    names = [*_suited(question, reason), *_unsticking(question, current)]
    if question.state.status in CANCELLABLE:
        names.append("cancel_run")
    return tuple(NextAction(name, _call(name, question, current)) for name in names)


def _suited(question: Question, reason: Reason) -> tuple[str, ...]:
    if reason in _DECISIONS and question.definition is None:
        # Where a decision leads stands in the definition.
        return ("deploy_workflow",)
    return _ACTIONS.get(reason, ())


def _unsticking(question: Question, attempts: Iterable[AttemptState]) -> tuple[str, ...]:
    """What helps if nobody comes: a lease to take back, a wake-up to repeat, a worker to add."""
    found: dict[str, None] = {}
    # A run that is being undone cannot be cancelled, so waking somebody is all that is left.
    patience = WAKEUP_GRACE if question.state.undoing is None else timedelta(0)
    for attempt in attempts:
        if is_lost(attempt, question.now):
            found["recover"] = None
        elif is_due(attempt, question.now):
            if not question.can_run(attempt.step):
                found["deploy_workflow"] = None
            elif question.now - attempt.visible_at >= patience:
                found["recover"] = None
    return tuple(found)


def _call(name: str, question: Question, attempts: Iterable[AttemptState]) -> str:
    run = f'"{question.state.run_id}"'
    match name:
        case "approve_run" | "reject_run":
            return f"await mesh.{name}({run}, actor=...)"
        case "resume_run" | "cancel_run":
            return f"await mesh.{name}({run})"
        case "recover":
            return "await mesh.recover()"
        case "deploy_workflow":
            return _deploying(question, attempts)
        case _:  # waiting: all there is to do is to look again
            return f"await mesh.explain_run({run})"


def _deploying(question: Question, attempts: Iterable[AttemptState]) -> str:
    """How to start a worker that can run what nobody can, and what it has to know for that."""
    missing = [attempt for attempt in attempts if not question.can_run(attempt.step)]
    queues = tuple(sorted({attempt.queue for attempt in missing})) or (question.state.facts.queue,)
    workflow = question.state.facts.workflow
    needed = f"{workflow!r} among its workflows"
    if question.runnable:
        bodies = bodies_of(question.definition) if question.definition is not None else {}
        steps = [attempt.step for attempt in missing if attempt.step in bodies]
        named = ", ".join(f"{step!r} ({bodies[step].key})" for step in steps)
        needed = f"a {workflow!r} that has a fitting function for {named}"
    return f"await Worker(mesh, queues={queues!r}).run()  # on a mesh opened with {needed}"


def replay_of(
    question: Question, from_step: str | None = None
) -> tuple[JsonObject, tuple[NextAction, ...]]:
    """Whether the run may be replayed, as details; and the action if it may and does no harm.

    Where that would build upon steps that were undone, they are named, and nothing is offered.
    """
    if question.definition is None:
        unknown: JsonObject = {
            "allowed": False,
            "blocked_by": [],
            "workflow_definition": "unavailable",
        }
        return unknown, ()
    definition, state = question.definition, question.state
    allowed = refusal_to_replay(definition, state, ReplayRun(new_run_id="", from_step=from_step))
    if is_successful(allowed):
        if from_step is not None:
            if not _leads_on_today(definition, question, from_step):
                return {"allowed": False, "blocked_by": [], "workflow_definition": "changed"}, ()
            undone = undone_before(definition, state, from_step)
            if undone:
                return {"allowed": True, "blocked_by": [], "undone": [*undone]}, ()
        start = "" if from_step is None else f", from_step={from_step!r}"
        call = f'await mesh.replay_run("{question.state.run_id}"{start})'
        return {"allowed": True, "blocked_by": []}, (NextAction("replay_run", call),)
    refusal = allowed.failure()
    if not isinstance(refusal, ReplayIsUnsafe):
        return {"allowed": False, "blocked_by": []}, ()
    blocking: list[Json] = [*refusal.steps]
    return {
        "allowed": False,
        "blocked_by": blocking,
        "required_override": "allow_irreversible",
    }, ()


def _leads_on_today(definition: WorkflowDefinition, question: Question, step: str) -> bool:
    """Whether a replay may begin at *step* under the definition that it would have, if known."""
    today = question.today
    if today is None:
        return True
    carried = carried_over(definition, question.state, step, today)
    return refusal_to_start_at(today, step, carried) is None


def resumption_of(question: Question) -> tuple[NextAction, ...]:
    """The action that takes a failed run up again: where it failed, or where undoing has ended.

    What was undone has to be done anew, so nothing behind the earliest such step will do.
    """
    state = question.state
    step = state.error.step if state.error is not None else None
    if question.definition is None or state.status is not RunStatus.FAILED or step is None:
        return ()
    undone = undone_before(question.definition, state, step)
    return replay_of(question, undone[0] if undone else step)[1]
