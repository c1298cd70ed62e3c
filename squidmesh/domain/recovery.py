"""What may be undone, in which order, and what may be repeated.

Compensation runs when a run has failed for good: every completed step that declares a callback is
undone, newest completion first, siblings that finished late included. Replay looks the other way:
a completed step that cannot be undone stands in the way of repeating it, by the definition that
the run carries, not by today's code.
"""

from collections.abc import Iterable, Sequence

import attrs
from returns.result import Failure, Result, Success

from squidmesh.domain.commands import (
    CannotStartThere,
    LeadsElsewhere,
    ReplayIsUnsafe,
    ReplayRun,
)
from squidmesh.domain.definition import Parameter, StepSpec, WorkflowDefinition
from squidmesh.domain.entries import Carried, ErrorRecord
from squidmesh.domain.evolution import merged
from squidmesh.domain.planning import bind, is_applied
from squidmesh.domain.state import (
    RunState,
    StepState,
    StepStatus,
    compensated_step,
    compensation_of,
)
from squidmesh.domain.values import Json


def steps_to_undo(definition: WorkflowDefinition, state: RunState) -> tuple[str, ...]:
    """The completed steps that declare a callback, newest completion first.

    Steps that a replay brought along were completed by another run and are not undone by this one.
    """
    done = [
        step
        for step in state.steps.values()
        if step.ended is not None
        and step.status is StepStatus.COMPLETED
        and step.step in definition.by_name
        and definition.by_name[step.step].compensation is not None
    ]
    done.sort(key=_completion, reverse=True)
    return tuple(step.step for step in done)


def _completion(step: StepState) -> int:
    return step.ended if step.ended is not None else 0


def error_after_undoing(error: ErrorRecord, failures: tuple[ErrorRecord, ...]) -> ErrorRecord:
    """The run's error, with the compensations that failed for good listed in its details."""
    if not failures:
        return error
    listed: list[Json] = [
        {"step": failure.step, "code": failure.code, "message": failure.message}
        for failure in failures
    ]
    return attrs.evolve(error, details={**error.details, "compensation_failures": listed})


def undo_inputs(
    definition: WorkflowDefinition,
    state: RunState,
    step: str,
    parameters: Sequence[Parameter] | None = None,
) -> Result[dict[str, Json], ErrorRecord]:
    """The values for a compensation: payload and context, and the step's output and the failure.

    *step* is the compensation's own name; *parameters* are as for `planning.inputs_of`.
    """
    undone = compensated_step(step)
    compensation = definition.by_name[undone].compensation
    if compensation is None:
        return Success({})
    step_state = state.steps[undone]
    context = state.context
    if step_state.applied is None:
        # It was in flight when the run failed: what it left is undone as if it had been applied.
        context = merged(context, step_state.output, definition.by_name[undone].output)
    outputs = {**context, "output": step_state.output, "failure": error_data(state.error)}
    wanted = compensation.body.parameters if parameters is None else parameters
    return bind(wanted, {}, outputs, state)


def error_data(error: ErrorRecord | None) -> Json:
    """An error record as plain JSON, as bodies and readers see it."""
    if error is None:
        return None
    data: dict[str, Json] = {
        "code": error.code,
        "message": error.message,
        "type": error.type,
        "details": dict(error.details),
        "retryable": error.retryable,
    }
    return data if error.step is None else {**data, "step": error.step}


def refusal_to_replay(
    definition: WorkflowDefinition, state: RunState, command: ReplayRun
) -> Result[None, ReplayIsUnsafe | CannotStartThere]:
    """Whether repeating the run, or its part from a step on, is safe or at least wanted."""
    if command.from_step is not None and not _reached(definition, state, command.from_step):
        return Failure(CannotStartThere(step=command.from_step))
    if command.allow_irreversible is True:
        return Success(None)
    blocking = tuple(
        spec.name
        for spec in definition.steps
        if spec.blocks_replay
        and _done_here(state, spec)
        and (command.from_step is None or _repeats(definition, spec.name, command.from_step))
    )
    return Failure(ReplayIsUnsafe(steps=blocking)) if blocking else Success(None)


def _done_here(state: RunState, spec: StepSpec) -> bool:
    known = state.steps.get(spec.name)
    return known is not None and known.status is StepStatus.COMPLETED


def _reached(definition: WorkflowDefinition, state: RunState, step: str) -> bool:
    return step in definition.by_name and step in state.steps


def _repeats(definition: WorkflowDefinition, step: str, from_step: str) -> bool:
    """Whether a replay from *from_step* runs *step* again.

    With dependencies only what came before the step is carried; everything else runs again.
    """
    if definition.follows_transitions:
        return step == from_step or definition.precedes(from_step, step)
    return not definition.precedes(step, from_step)


def carried_over(
    definition: WorkflowDefinition,
    state: RunState,
    from_step: str,
    today: WorkflowDefinition | None = None,
) -> tuple[Carried, ...]:
    """The outputs that a replay from *from_step* brings along, in their order of application.

    A step that *today* does not know any more is left behind if it had nothing to bring.
    """
    known = (definition if today is None else today).by_name
    carried = (_carry(state, step) for step in _applied_before(definition, state, from_step))
    return tuple(item for item in carried if item.step in known or item.output not in (None, {}))


def _applied_before(
    definition: WorkflowDefinition, state: RunState, from_step: str
) -> list[StepState]:
    before = [
        step
        for step in state.steps.values()
        if is_applied(state, step.step)
        and step.step in definition.by_name
        and not _repeats(definition, step.step, from_step)
    ]
    return sorted(before, key=_application)


def undone_before(
    definition: WorkflowDefinition, state: RunState, from_step: str
) -> tuple[str, ...]:
    """The steps before *from_step* that were undone, or are about to be, the earliest first.

    A replay from there brings their outputs along, which tell of what is not there any more.
    """
    before = _applied_before(definition, state, from_step)
    return tuple(step.step for step in before if _is_undone(state, step.step))


def _is_undone(state: RunState, step: str) -> bool:
    """Whether the step was undone, here or in the run that it was brought from, or is about to."""
    if state.undoing is not None and step in state.undoing.remaining:
        return True
    visit = state.steps.get(compensation_of(step))
    if visit is not None:
        return visit.status is StepStatus.COMPLETED
    return any(item.undone for item in state.facts.carried if item.step == step)


def _carry(state: RunState, step: StepState) -> Carried:
    # A decision without an output key was never part of the context, so it must not be merged.
    unmerged = step.manual is not None and step.under is None
    return Carried(
        step=step.step,
        output=None if unmerged else step.output,
        under=step.under,
        undone=_is_undone(state, step.step),
    )


def _application(step: StepState) -> int:
    return step.applied if step.applied is not None else 0


def refusal_to_start_at(
    definition: WorkflowDefinition, step: str, carried: Iterable[Carried]
) -> CannotStartThere | LeadsElsewhere | None:
    """Why a run cannot begin at *step* with what is *carried*, None if it can.

    The source may have followed an older definition. What was carried has to be known in this one,
    and has to lie behind the run: whoever came to it again would find it done already.
    """
    if step not in definition.by_name:
        return CannotStartThere(step=step)
    ahead = tuple(
        item.step
        for item in carried
        if item.step not in definition.by_name
        or item.step == step
        or definition.precedes(step, item.step)
    )
    return LeadsElsewhere(workflow=definition.name, step=step, before=ahead) if ahead else None
