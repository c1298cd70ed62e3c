"""Who provides which value: parameters that nobody does, and keys that two steps write.

A step may take what the payload brings and what the steps before it put into the context. Which
steps those are is kept as one bit mask per step over declaration order: sets of names would be
quadratic, a mask for each of ten thousand steps is a dozen megabytes.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Final, Literal

import attrs

from squidmesh.domain.definition import (
    Action,
    Body,
    On,
    Parameter,
    Problem,
    StepSpec,
    WorkflowDefinition,
)
from squidmesh.domain.state import compensated_step, compensation_of
from squidmesh.domain.validation_graph import listed
from squidmesh.domain.validation_steps import written_by

COMPENSATION_INPUTS: Final = frozenset({"output", "failure"})
"""What a compensation is given besides payload and context."""


def binding_problems(definition: WorkflowDefinition) -> Iterator[Problem]:
    """Everything that is wrong with what steps take and what they write."""
    yield from _payload_collisions(definition)
    if not definition.follows_transitions:
        yield from _parallel_collisions(definition)
    payloads = {trigger.name: frozenset(trigger.payload.by_name) for trigger in definition.triggers}
    signatures = {visit: body.parameters for visit, body in bodies_of(definition).items()}
    for found in unprovided(definition, signatures, payloads):
        yield Problem(
            ("steps", found.step, found.where, found.parameter),
            "unknown_parameter",
            f"neither a step before this one nor the payload of {listed(found.payloads)} provides"
            f" {found.key!r}",
        )


def bodies_of(definition: WorkflowDefinition) -> Mapping[str, Body]:
    """The bodies that the definition needs, by the visit that runs each, in a possible order."""
    found: dict[str, Body] = {}
    for name in definition.in_order:
        step = definition.by_name[name]
        if isinstance(step.kind, Action):
            found[name] = step.kind.body
        if step.compensation is not None:
            found[compensation_of(name)] = step.compensation.body
    return found


@attrs.frozen(kw_only=True)
class Unprovided:
    """A parameter that nobody provides under some of the payloads; *where* it was asked for.

    *step* is the one whose body, or whose undoing, asks for it.
    """

    visit: str
    step: str
    where: Literal["parameters", "inputs", "compensate"]
    parameter: str
    key: str
    payloads: tuple[str, ...]


def unprovided(
    definition: WorkflowDefinition,
    signatures: Mapping[str, Iterable[Parameter]],
    payloads: Mapping[str, frozenset[str]],
) -> Iterator[Unprovided]:
    """What the bodies of these *signatures*, by visit, ask for and nothing provides.

    *payloads* are the names that runs may bring along, by whatever tells those runs apart.
    """
    providers = _Providers.of(definition, payloads)
    before = _before(definition)
    for visit, parameters in signatures.items():
        # A definition that is only being checked may have a step of any name.
        step = definition.by_name.get(visit)
        if step is None:
            yield from _unprovided_undoing(visit, parameters, providers)
        else:
            yield from _unprovided(step, parameters, providers, before[visit])


@attrs.frozen(kw_only=True)
class _Providers:
    """The steps that write a key, those that may write any, and what each payload brings."""

    writers: Mapping[str, int]
    untyped: int
    payloads: Mapping[str, frozenset[str]]

    @classmethod
    def of(
        cls, definition: WorkflowDefinition, payloads: Mapping[str, frozenset[str]]
    ) -> "_Providers":
        writers: dict[str, int] = {}
        untyped = 0
        for step in definition.steps:
            bit = 1 << definition.position[step.name]
            for key in written_by(step):
                writers[key] = writers.get(key, 0) | bit
            if isinstance(step.kind, Action) and step.output is None and step.kind.merges is None:
                untyped |= bit
        return cls(writers=writers, untyped=untyped, payloads=payloads)

    def without(self, key: str, steps: int) -> tuple[str, ...]:
        """The payloads under which neither they nor one of *steps* provides *key*."""
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
) -> Iterator[Unprovided]:
    for parameter in parameters:
        if parameter.is_context:
            continue
        source = step.inputs.get(parameter.name)
        if source is None and not parameter.required:
            continue
        key = parameter.name if source is None else next(iter(source), "")
        lacking = providers.without(key, before) if key else ()
        if lacking:
            yield Unprovided(
                visit=step.name,
                step=step.name,
                where="parameters" if source is None else "inputs",
                parameter=parameter.name,
                key=key,
                payloads=lacking,
            )


def _unprovided_undoing(
    visit: str, parameters: Iterable[Parameter], providers: _Providers
) -> Iterator[Unprovided]:
    for parameter in parameters:
        if parameter.is_context or not parameter.required or parameter.name in COMPENSATION_INPUTS:
            continue
        # By the time that a step is undone, any other may have been completed: all bits are set.
        lacking = providers.without(parameter.name, -1)
        if lacking:
            yield Unprovided(
                visit=visit,
                step=compensated_step(visit),
                where="compensate",
                parameter=parameter.name,
                key=parameter.name,
                payloads=lacking,
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
