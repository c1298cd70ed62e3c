"""What a replay would do a second time, told before it is done.

Two definitions have their say. The one that the source carries knows what its steps did to the
outside; the one of today, under which the new run starts, knows which of them come again.
"""

from collections.abc import Iterable

import attrs

from squidmesh.domain.commands import StartRun
from squidmesh.domain.definition import StepSpec, WorkflowDefinition
from squidmesh.domain.recovery import undone_before
from squidmesh.domain.state import RunState, StepState, StepStatus


@attrs.frozen(kw_only=True)
class Repetition:
    """What runs *again*, and the *effects* of it on the outside that would be repeated.

    *undone* are the steps whose outputs are brought along although they were undone.
    """

    again: tuple[str, ...] = ()
    effects: tuple[str, ...] = ()
    undone: tuple[str, ...] = ()


def repetition(
    carried: WorkflowDefinition, today: WorkflowDefinition, source: RunState, start: StartRun
) -> Repetition:
    """What *start* repeats of *source*, whose definition is *carried*; in the order of *today*."""
    again = tuple(
        step
        for step in _steps_of(today, start)
        if step in source.steps and _has_run(source.steps[step])
    )
    effects = tuple(
        step
        for step in again
        if source.steps[step].status is StepStatus.COMPLETED
        and step in carried.by_name
        and _reaches_outside(carried.by_name[step])
    )
    undone = () if start.from_step is None else undone_before(carried, source, start.from_step)
    return Repetition(again=again, effects=effects, undone=undone)


def _steps_of(today: WorkflowDefinition, start: StartRun) -> Iterable[str]:
    """The steps that the new run may come by: all but what it brings along or leaves behind."""
    first = start.from_step
    if first is None:
        return today.by_name
    if today.follows_transitions:
        return [name for name in today.by_name if name == first or today.precedes(first, name)]
    brought = {item.step for item in start.carried}
    return [name for name in today.by_name if name not in brought]


def _has_run(step: StepState) -> bool:
    """Whether somebody began or decided the step, in this run or in the one that it came from."""
    is_decided = step.manual is not None and step.status is StepStatus.COMPLETED
    # An attempt that was put off forgets its claim, and is not a fresh one all the same.
    was_begun = any(attempt.claimed_at is not None for attempt in step.attempts)
    return step.carried or is_decided or was_begun or step.deferrals > 0


def _reaches_outside(spec: StepSpec) -> bool:
    """Whether the step did something that its declaration treats as not its run's own affair."""
    return spec.blocks_replay or spec.compensation is not None
