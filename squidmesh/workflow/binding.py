"""Functions for a definition that came as data: a registry from keys to them, applied."""

from collections.abc import Callable, Mapping
from functools import cache

import attrs
from returns.pipeline import is_successful

from squidmesh.codec import plain
from squidmesh.domain.definition import (
    COMPENSATION_PREFIX,
    Action,
    Problem,
    StepSpec,
    WorkflowDefinition,
)
from squidmesh.domain.payload import factory_keys
from squidmesh.domain.values import Json
from squidmesh.workflow.declarations import Function
from squidmesh.workflow.draft import Draft
from squidmesh.workflow.functions import FunctionReading, read_function
from squidmesh.workflow.steps import Bodies


def bind(definition: WorkflowDefinition, actions: Mapping[str, Function]) -> Draft:
    """Give every body in *definition* the function that *actions* has under its key.

    What a function says about its parameters replaces what the data says. A default factory that
    is not among the actions is no problem: its field must then be given.
    """
    binder = _Binder(actions)
    steps = tuple(binder.step(step) for step in definition.steps)
    keys = {key for trigger in definition.triggers for key in factory_keys(trigger.payload)}
    factories = {key: _maker(actions[key]) for key in sorted(keys & actions.keys())}
    return Draft(
        definition=attrs.evolve(definition, steps=steps),
        bodies=binder.bodies,
        factories=factories,
        problems=tuple(binder.problems),
    )


def _maker(function: Function) -> Callable[[], Json]:
    return lambda: plain(function())


class _Binder:
    """Looks functions up, and keeps those that it finds by the visit that runs them."""

    def __init__(self, actions: Mapping[str, Function]) -> None:
        self.actions = actions
        self.bodies: Bodies = {}
        self.problems: list[Problem] = []
        self._read = cache(lambda key: read_function(actions[key], key))

    def step(self, step: StepSpec) -> StepSpec:
        path = ("steps", step.name)
        if isinstance(step.kind, Action):
            code = "invalid_action"
            reading = self._look_up(step.name, step.kind.body.key, (*path, "action"), code)
            if reading is not None:
                step = attrs.evolve(step, kind=Action(body=reading.body, merges=reading.merges))
        if step.compensation is not None:
            visit, code = COMPENSATION_PREFIX + step.name, "invalid_compensation"
            reading = self._look_up(visit, step.compensation.body.key, (*path, "compensate"), code)
            if reading is not None:
                undo = attrs.evolve(step.compensation, body=reading.body)
                step = attrs.evolve(step, compensation=undo)
        return step

    def _look_up(
        self, visit: str, key: str, path: tuple[str, ...], code: str
    ) -> FunctionReading | None:
        if key not in self.actions:
            self.problems.append(Problem(path, code, f"no action is registered as {key!r}"))
            return None
        reading = self._read(key)
        if not is_successful(reading):
            self.problems.append(Problem(path, code, f"the action {key!r} {reading.failure()}"))
            return None
        self.bodies[visit] = self.actions[key]
        return reading.unwrap()
