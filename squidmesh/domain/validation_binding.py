"""Who provides which value: parameters that nobody does, and keys that two steps write.

A step may take what the payload brings and what the steps before it put into the context. Which
steps those are is kept as one bit mask per step over declaration order: sets of names would be
quadratic, a mask for each of ten thousand steps is a dozen megabytes.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Final

import attrs

from squidmesh.domain.definition import (
    Action,
    On,
    Parameter,
    Problem,
    StepSpec,
    WorkflowDefinition,
)
from squidmesh.domain.validation_graph import listed
from squidmesh.domain.validation_steps import written_by

COMPENSATION_INPUTS: Final = frozenset({"output", "failure"})
"""What a compensation is given besides payload and context."""


def binding_problems(definition: WorkflowDefinition) -> Iterator[Problem]:
    """Everything that is wrong with what steps take and what they write."""
    yield from _payload_collisions(definition)
    if not definition.follows_transitions:
        yield from _parallel_collisions(definition)
    providers = _Providers.of(definition)
    before = _before(definition)
    for name in definition.in_order:
        step = definition.by_name[name]
        if isinstance(step.kind, Action):
            yield from _unprovided(step, step.kind.body.parameters, providers, before[name])
        if step.compensation is not None:
            yield from _unprovided_undoing(step, step.compensation.body.parameters, providers)


@attrs.frozen(kw_only=True)
class _Providers:
    """The steps that write a key, those that may write any, and what each trigger brings."""

    writers: Mapping[str, int]
    untyped: int
    payloads: Mapping[str, frozenset[str]]

    @classmethod
    def of(cls, definition: WorkflowDefinition) -> "_Providers":
        writers: dict[str, int] = {}
        untyped = 0
        for step in definition.steps:
            bit = 1 << definition.position[step.name]
            for key in written_by(step):
                writers[key] = writers.get(key, 0) | bit
            if isinstance(step.kind, Action) and step.output is None and step.kind.merges is None:
                untyped |= bit
        return cls(
            writers=writers,
            untyped=untyped,
            payloads={
                trigger.name: frozenset(trigger.payload.by_name) for trigger in definition.triggers
            },
        )

    def lacking(self, key: str, steps: int) -> tuple[str, ...]:
        """The triggers under which neither the payload nor one of *steps* provides *key*."""
        if steps & (self.writers.get(key, 0) | self.untyped):
            return ()
        return tuple(name for name, fields in self.payloads.items() if key not in fields)


def _before(definition: WorkflowDefinition) -> Mapping[str, int]:
    """For each step, those that may have written something by the time that it begins.

    A function whose error led here has written nothing, but all that led to it still counts; a
    rejected approval leaves its decision.
    """
    position = definition.position
    ways: dict[str, list[tuple[str, bool]]] = {name: [] for name in definition.by_name}
    for step in definition.steps:
        ways[step.name] += [(needed, True) for needed in step.after or () if needed in position]
    for transition in definition.transitions:
        source = definition.by_name.get(transition.source)
        if source is not None and transition.target in ways:
            wrote = transition.on is On.OK or source.is_manual
            ways[transition.target].append((source.name, wrote))
    before: dict[str, int] = {}
    for name in definition.in_order:
        before[name] = 0
        for source_name, wrote in ways[name]:
            before[name] |= before[source_name] | (wrote << position[source_name])
    return before


def _unprovided(
    step: StepSpec, parameters: Iterable[Parameter], providers: _Providers, before: int
) -> Iterator[Problem]:
    for parameter in parameters:
        if parameter.is_context:
            continue
        source = step.inputs.get(parameter.name)
        if source is None and not parameter.required:
            continue
        key = parameter.name if source is None else next(iter(source), "")
        lacking = providers.lacking(key, before) if key else ()
        if lacking:
            where = "parameters" if source is None else "inputs"
            yield _unknown(("steps", step.name, where, parameter.name), key, lacking)


def _unprovided_undoing(
    step: StepSpec, parameters: Iterable[Parameter], providers: _Providers
) -> Iterator[Problem]:
    for parameter in parameters:
        if parameter.is_context or not parameter.required or parameter.name in COMPENSATION_INPUTS:
            continue
        # By the time that a step is undone, any other may have been completed: all bits are set.
        lacking = providers.lacking(parameter.name, -1)
        if lacking:
            path = ("steps", step.name, "compensate", parameter.name)
            yield _unknown(path, parameter.name, lacking)


def _unknown(path: tuple[str, ...], key: str, triggers: Iterable[str]) -> Problem:
    return Problem(
        path,
        "unknown_parameter",
        f"neither a step before this one nor the payload of {listed(triggers)} provides {key!r}",
    )


def _payload_collisions(definition: WorkflowDefinition) -> Iterator[Problem]:
    trigger_of = {
        field: trigger.name for trigger in definition.triggers for field in trigger.payload.by_name
    }
    for step in definition.steps:
        for key in written_by(step):
            if key in trigger_of:
                yield Problem(
                    ("steps", step.name, "output"),
                    "output_collision",
                    f"{key!r} is a field of the payload of {trigger_of[key]}",
                )


def _parallel_collisions(definition: WorkflowDefinition) -> Iterator[Problem]:
    writers: dict[str, list[str]] = {}
    for name in definition.in_order:
        for key in written_by(definition.by_name[name]):
            writers.setdefault(key, []).append(name)
    for key, names in writers.items():
        # Steps that all come one after the other do so pairwise along any order that respects
        # their prerequisites: looking at neighbours finds each key that has a conflict.
        for earlier, later in pairwise(names):
            if not definition.precedes(earlier, later):
                yield Problem(
                    ("steps", later, "output"),
                    "output_collision",
                    f"{earlier} may run at the same time and writes {key!r} too",
                )
