"""What readers ask of a run: which step it is at, where each stands, and what each was given.

Nothing here decides anything. Explanations, pictures and the public read models share these
answers, so that they cannot tell different stories about one run.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final, cast

import attrs
from returns.pipeline import is_successful
from returns.result import Result

from squidmesh.domain.definition import Action, Approval, Log, Pause, Wait, WorkflowDefinition
from squidmesh.domain.entries import (
    AttemptScheduled,
    CompensationPlanned,
    Entry,
    ErrorRecord,
    ManualStepPaused,
)
from squidmesh.domain.evolution import merged
from squidmesh.domain.planning import bind, inputs_of
from squidmesh.domain.recovery import undo_inputs
from squidmesh.domain.state import (
    OPEN,
    RunState,
    RunStatus,
    StepState,
    StepStatus,
    is_compensation,
)
from squidmesh.domain.values import Json

COMPENSATION_KIND: Final = "compensation"
UNKNOWN_KIND: Final = "unknown"

_ENDING: Final = frozenset({RunStatus.CANCELLING, RunStatus.COMPENSATING})


def current_step(state: RunState) -> str | None:
    """The step that the run is at: the open one, or the one that the run failed with.

    With several open at once it is at none of them in particular. The open step is nearly always
    the one reached last, so it is looked for from the end: every commit asks this.
    """
    if state.status is RunStatus.FAILED:
        return state.error.step if state.error is not None else None
    if len(state.open) != 1 or 1 not in state.open.values():
        return None
    steps = cast("dict[str, StepState]", state.steps)  # a plain Mapping knows no end to begin at
    return next(name for name in reversed(steps) if steps[name].status in OPEN)


def step_status(state: RunState, step: str) -> StepStatus:
    """Where *step* stands; one not reached is waiting until the run is over, and then skipped."""
    known = state.steps.get(step)
    if known is not None:
        return known.status
    return StepStatus.SKIPPED if state.status.is_final else StepStatus.WAITING


def open_steps(state: RunState) -> tuple[StepState, ...]:
    """The steps that are not at an end."""
    return tuple(step for step in state.steps.values() if step.status in OPEN)


def is_doomed(state: RunState) -> bool:
    """Whether the run has failed for good and only waits for what is still in flight.

    One that is cancelled meanwhile ends for that reason instead.
    """
    has_failed = state.error is not None and state.undoing is None
    return has_failed and not state.cancelling and not state.status.is_final


def is_ending(state: RunState) -> bool:
    """Whether the run is over, or on its way there and begins no declared step any more."""
    return state.status.is_final or state.status in _ENDING or is_doomed(state)


def may_still_come(definition: WorkflowDefinition, state: RunState, step: str) -> bool:
    """Whether a run may come by a step that it has not reached yet."""
    if is_ending(state):
        return False
    return not definition.follows_transitions or any(
        known.step in definition.position and definition.precedes(known.step, step)
        for known in open_steps(state)
    )


def may_still_end(definition: WorkflowDefinition, state: RunState, step: str) -> bool:
    """Whether a step has its end, and what follows from it, still before it."""
    if step in state.steps:
        return state.steps[step].status in OPEN
    return may_still_come(definition, state, step)


def shown_steps(definition: WorkflowDefinition | None, state: RunState) -> tuple[str, ...]:
    """The declared steps as declared, then what else was reached: compensations, mostly."""
    declared = definition.by_name if definition is not None else {}
    return (*declared, *(name for name in state.steps if name not in declared))


def kind_of(definition: WorkflowDefinition | None, state: RunState, step: str) -> str:
    """The kind of *step* in a word; without its declaration only what the state tells of it."""
    spec = definition.by_name.get(step) if definition is not None else None
    if spec is None:
        known = state.steps.get(step)
        manual = known.manual if known is not None else None
        if manual is not None:
            return manual.kind.value
        return COMPENSATION_KIND if is_compensation(step) else UNKNOWN_KIND
    match spec.kind:
        case Action():
            return "action"
        case Wait():
            return "wait"
        case Log():
            return "log"
        case Pause():
            return "pause"
        case Approval():
            return "approval"


def fresh(value: Json) -> Json:
    """A copy of *value* that shares nothing with it."""
    if isinstance(value, dict):
        return {key: fresh(item) for key, item in value.items()}
    if isinstance(value, list):
        return [fresh(item) for item in value]
    return value


def inputs_given(
    definition: WorkflowDefinition, state: RunState, entries: Iterable[Entry], *, first: int = 1
) -> dict[str, dict[str, Json]]:
    """The values that each step was given when it was first scheduled, by the step's name.

    *entries* are those that lead to *state*, from the revision *first* on; they are read once, and
    the context is merged as they go. A step whose input was incomplete has none. The values are
    the run's own.
    """
    given: dict[str, dict[str, Json]] = {}
    before = _Before(definition, state)
    for revision, entry in enumerate(entries, start=first):
        if isinstance(entry, CompensationPlanned):
            # What the run failed with then; later its record lists what could not be undone.
            before.state = attrs.evolve(state, error=entry.error)
        elif isinstance(entry, ManualStepPaused):
            given[entry.step] = {}
        elif isinstance(entry, AttemptScheduled) and entry.step not in given:
            found = before.inputs(entry.step, revision)
            if is_successful(found):
                given[entry.step] = found.unwrap()
    return given


class _Before:
    """The outputs applied before a revision that only ever rises."""

    def __init__(self, definition: WorkflowDefinition, state: RunState) -> None:
        self.definition = definition
        self.state = state
        self._outputs: Mapping[str, Json] = {}
        applied = [step for step in state.steps.values() if step.applied is not None]
        self._later = deque(sorted(applied, key=_application))

    def inputs(self, step: str, revision: int) -> Result[dict[str, Json], ErrorRecord]:
        """What *step* was given when it was scheduled at *revision*."""
        if is_compensation(step):
            return undo_inputs(self.definition, self.state, step)
        spec = self.definition.by_name[step]
        if not (self.definition.follows_transitions and isinstance(spec.kind, Action)):
            # Between branches only ancestors count, and all of those were applied before.
            return inputs_of(self.definition, self.state, step)
        while self._later and _application(self._later[0]) < revision:
            done = self._later.popleft()
            if done.manual is None or done.under is not None:
                self._outputs = merged(self._outputs, done.output, done.under)
        return bind(spec.kind.body.parameters, spec.inputs, self._outputs, self.state)


def _application(step: StepState) -> int:
    return step.applied if step.applied is not None else 0
