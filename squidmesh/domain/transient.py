"""Step maps that may be changed in place while nobody but their maker has seen them.

A run's steps are a map that every entry replaces, and a copy for each entry would make a step of a
long run dearer than one of a short run. So whoever folds several entries in a row, an unfolding or
a rebuild, *melts* the map once, folds all of them into that copy, and *freezes* it before anybody
else gets to see it. A frozen map is never changed again: the next fold copies it.
"""

from collections.abc import Mapping

from squidmesh.domain.replacing import replace
from squidmesh.domain.state import RunState, StepState


class TransientSteps(dict[str, StepState]):
    """A step map that its maker may still change, until it is frozen."""

    __slots__ = ("frozen",)

    def __init__(self, steps: Mapping[str, StepState]) -> None:
        super().__init__(steps)
        self.frozen = False


def melt(state: RunState) -> RunState:
    """The same state over a copy of its steps that may be changed in place."""
    return replace(state, steps=TransientSteps(state.steps))


def freeze(state: RunState) -> RunState:
    """The state, whose steps nobody changes any more."""
    if isinstance(state.steps, TransientSteps):
        state.steps.frozen = True
    return state


def with_step(steps: Mapping[str, StepState], step: StepState) -> Mapping[str, StepState]:
    """The steps with *step* in its place: themselves if they are melted, else a copy."""
    if type(steps) is TransientSteps and not steps.frozen:
        steps[step.step] = step
        return steps
    return {**steps, step.step: step}
