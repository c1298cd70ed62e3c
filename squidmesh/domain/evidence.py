"""The facts behind an explanation, as plain JSON that shares nothing with the run's state."""

from datetime import datetime

from squidmesh.domain.definition import Wait, WorkflowDefinition
from squidmesh.domain.entries import ErrorRecord, ManualKind, ManualStepPaused
from squidmesh.domain.inspection import (
    fresh,
    is_ending,
    may_still_end,
    open_steps,
    step_status,
)
from squidmesh.domain.planning import is_applied
from squidmesh.domain.reasons import Question, Reason, is_stranded
from squidmesh.domain.recovery import error_data
from squidmesh.domain.serial_reading import END
from squidmesh.domain.state import (
    AttemptState,
    AttemptStatus,
    RunState,
    StepState,
    StepStatus,
)
from squidmesh.domain.validation_binding import bodies_of
from squidmesh.domain.values import Json, JsonObject


def text_of(moment: datetime | None) -> Json:
    """A moment as ISO text."""
    return None if moment is None else moment.isoformat()


def details_of_error(error: ErrorRecord | None) -> JsonObject:
    """The record of what went wrong, under its key."""
    return {"error": fresh(error_data(error))}


def details_of_open(question: Question, step: StepState) -> JsonObject:
    """Whom an open step waits for, or until when."""
    attempt = step.current
    if attempt is None:
        return _of_manual(question.definition, step, step.manual)
    details = times_of(attempt)
    if step.status is StepStatus.RETRYING:
        details |= details_of_error(step.error)
    if attempt.status is AttemptStatus.SCHEDULED and attempt.visible_at > question.now:
        details |= _of_delay(question.definition, step)
    if question.runnable and is_stranded(question, step):
        details["function"] = _function_of(question.definition, step.step)
    return details


def _function_of(definition: WorkflowDefinition | None, visit: str) -> Json:
    """The key of the function that a visit runs."""
    body = bodies_of(definition).get(visit) if definition is not None else None
    return body.key if body is not None else None


def times_of(attempt: AttemptState) -> JsonObject:
    """The attempt's number, and the times that matter for it while it is open."""
    if attempt.status is not AttemptStatus.CLAIMED:
        return {
            "attempt": attempt.number,
            "queue": attempt.queue,
            "visible_at": text_of(attempt.visible_at),
        }
    return {
        "attempt": attempt.number,
        "queue": attempt.queue,
        "owner": attempt.owner,
        "claimed_at": text_of(attempt.claimed_at),
        "lease_until": text_of(attempt.lease_until),
    }


def _of_delay(definition: WorkflowDefinition | None, step: StepState) -> JsonObject:
    """What put the attempt off: a retry's backoff, the body's wish, or the step being a timer."""
    if step.status is StepStatus.RETRYING:
        return {"cause": "retry"}
    spec = definition.by_name.get(step.step) if definition is not None else None
    is_timer = spec is not None and isinstance(spec.kind, Wait)
    if is_timer or not step.deferrals:
        return {"cause": "wait"}
    return {"cause": "deferral", "reason": step.deferred}


def _of_manual(
    definition: WorkflowDefinition | None, step: StepState, manual: ManualStepPaused | None
) -> JsonObject:
    details: JsonObject = {"paused_at": text_of(step.since)}
    if manual is None or definition is None:
        return details
    if manual.kind is ManualKind.APPROVAL:
        details["approval_targets"] = {
            "ok": _target(definition, manual.on_ok),
            "error": _target(definition, manual.on_error),
        }
    else:
        details["resume_target"] = _target(definition, manual.on_ok)
    return details


def _target(definition: WorkflowDefinition, number: int | None) -> str:
    """Where a stored route leads; a manual step without one was the last."""
    target = None if number is None else definition.transitions[number].target
    return END if target is None else target


def details_of_rest(question: Question) -> JsonObject:
    """What else is true of a run that goes on: the other open steps, the joins, the doom."""
    state = question.state
    details: JsonObject = {}
    open_ = open_steps(state)
    if len(open_) > 1:
        details["open"] = [_open(step) for step in open_]
    if state.undoing is not None:
        failures: list[Json] = [fresh(error_data(failure)) for failure in state.undoing.failures]
        details["remaining"] = [*state.undoing.remaining]
        details["compensation_failures"] = failures
    if state.error is not None:
        details["failure"] = fresh(error_data(state.error))
    definition = question.definition
    if definition is not None and not definition.follows_transitions and not is_ending(state):
        details["waiting"] = [
            details_of_waiting(definition, state, spec.name)
            for spec in definition.steps
            if spec.name not in state.steps
        ]
    return details


def _open(step: StepState) -> Json:
    attempt = step.current
    times = times_of(attempt) if attempt is not None else {}
    return {"step": step.step, "status": step.status.value, **times}


def details_of_waiting(definition: WorkflowDefinition, state: RunState, step: str) -> JsonObject:
    """What a step that was not reached yet waits for, and where each of that stands.

    A join waits for all of it; with transitions any one step may lead on, and those that have
    ended without doing so are not waited for any more.
    """
    any_leads_on = definition.follows_transitions
    needed = sorted(definition.prerequisites[step], key=definition.position.__getitem__)
    waiting_on: list[Json] = [
        name
        for name in needed
        if (may_still_end(definition, state, name) if any_leads_on else not is_applied(state, name))
    ]
    statuses: dict[str, Json] = {name: step_status(state, name).value for name in needed}
    return {
        "step": step,
        "needs": "any" if any_leads_on else "all",
        "waiting_on": waiting_on,
        "dependency_statuses": statuses,
    }


def details_of_failure(
    question: Question, reason: Reason, step: StepState | None, error: ErrorRecord | None
) -> JsonObject:
    """What something failed by, and how often it was tried."""
    details = details_of_error(error)
    if step is not None:
        details |= {"failures": step.failures, "deliveries": step.lost}
        definition = question.definition
        spec = definition.by_name.get(step.step) if definition is not None else None
        if spec is not None:
            details["max_attempts"] = spec.retry.max_attempts
    if reason is Reason.COMPENSATION_FAILED and error is not None:
        details["compensation_failures"] = fresh(error.details.get("compensation_failures"))
    return details


def evidence_of(state: RunState, step: StepState | None) -> JsonObject:
    """The stored facts about the run, the step that it is about, and that step's latest attempt."""
    facts = state.facts
    evidence: JsonObject = {
        "run": {
            "id": state.run_id,
            "status": state.status.value,
            "workflow": facts.workflow,
            "revision": state.revision,
            "started_at": text_of(facts.at),
            "updated_at": text_of(state.updated_at),
        }
    }
    if step is not None:
        evidence["step"] = {
            "name": step.step,
            "status": step.status.value,
            "failures": step.failures,
            "deliveries": step.lost,
            "deferrals": step.deferrals,
            "deferred": step.deferred,
        }
        if step.current is not None:
            evidence["attempt"] = _attempt(step.current)
    return evidence


def _attempt(attempt: AttemptState) -> JsonObject:
    return {
        "number": attempt.number,
        "status": attempt.status.value,
        "owner": attempt.owner,
        "lease_until": text_of(attempt.lease_until),
        "visible_at": text_of(attempt.visible_at),
        "error": attempt.error.code if attempt.error is not None else None,
    }
