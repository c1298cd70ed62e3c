"""Whether a definition can work: every rule about it, and everything that breaks one, at once.

The rules are pure; what needs a parser or a table of time zones (cron expressions) is checked
where definitions come from, and merged into the same list. A definition may hold any value of
the right type: how values of a wrong type are reported is the business of those who read them.

Names, triggers and payloads are looked at here, a step's own options in `validation_steps`, the
shape of the graph in `validation_graph`, and who provides which value in `validation_binding`.
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final

from squidmesh.domain.definition import RESERVED_STEP_NAMES, Problem, WorkflowDefinition
from squidmesh.domain.payload import dotted, misfits
from squidmesh.domain.typespec import (
    AnyOf,
    Anything,
    ListOf,
    MappingOf,
    OneOf,
    PayloadField,
    Primitive,
    Record,
    StaticDefault,
    TypeSpec,
    describe,
    may_agree,
)
from squidmesh.domain.validation_binding import binding_problems
from squidmesh.domain.validation_graph import graph_problems
from squidmesh.domain.validation_steps import is_label, step_problems

LONGEST_NAME: Final = 500
"""Of a workflow: room for a module and a qualified name, and well below what an index holds."""


def validate(definition: WorkflowDefinition) -> tuple[Problem, ...]:
    """Everything that is wrong with *definition*; nothing, if it can be run."""
    return (
        *_own_problems(definition),
        *_trigger_problems(definition),
        *_name_problems("steps", [step.name for step in definition.steps]),
        *chain.from_iterable(step_problems(step) for step in definition.steps),
        *graph_problems(definition),
        *binding_problems(definition),
    )


def _own_problems(definition: WorkflowDefinition) -> Iterator[Problem]:
    if not is_label(definition.name, LONGEST_NAME):
        yield Problem(
            ("name",),
            "invalid_name",
            f"a workflow's name is printable text of at most {LONGEST_NAME} characters",
        )
    if definition.version is not None and not is_label(definition.version):
        yield Problem(("version",), "invalid_name", "a version label is short printable text")
    if not definition.triggers:
        yield Problem(
            ("triggers",), "missing_trigger", "declare how a run may begin: manual() or cron(...)"
        )
    if not definition.steps:
        yield Problem(("steps",), "missing_steps", "declare at least one step")


def _name_problems(where: str, names: Iterable[str]) -> Iterator[Problem]:
    first_of: dict[str, str] = {}
    for name in names:
        if name in RESERVED_STEP_NAMES:
            yield Problem((where, name), "reserved_name", f"{name!r} means something else here")
        elif not is_label(name) or ":" in name:
            yield Problem(
                (where, name), "invalid_name", "a name is short printable text without a colon"
            )
        # Names that differ only in case are one name to many a tool that will show them.
        alike = name.casefold()
        if alike in first_of:
            yield Problem((where, name), "duplicate_name", f"is {first_of[alike]!r} a second time")
        first_of.setdefault(alike, name)


def _trigger_problems(definition: WorkflowDefinition) -> Iterator[Problem]:
    yield from _name_problems("triggers", [trigger.name for trigger in definition.triggers])
    first_of: dict[str, tuple[str, TypeSpec]] = {}
    for trigger in definition.triggers:
        path = ("triggers", trigger.name, "payload")
        yield from _payload_problems(trigger.payload.fields, path)
        for field in trigger.payload.fields:
            other, expected = first_of.setdefault(field.name, (trigger.name, field.type))
            if not may_agree(expected, field.type):
                yield Problem(
                    (*path, field.name),
                    "invalid_payload_type",
                    f"is {describe(field.type)} here and {describe(expected)} under the trigger "
                    f"{other!r}: no step could take both",
                )


def _payload_problems(
    fields: Iterable[PayloadField], path: tuple[str | int, ...]
) -> Iterator[Problem]:
    seen: set[str] = set()
    for field in fields:
        here = (*path, field.name)
        if not is_label(field.name):
            yield Problem(here, "invalid_name", "a field's name is short printable text")
        if field.name in seen:
            yield Problem(here, "duplicate_name", "is declared a second time")
        seen.add(field.name)
        if isinstance(field.default, StaticDefault):
            for misfit in misfits(field.type, field.default.value):
                yield Problem(
                    here,
                    "invalid_payload_default",
                    f"the default does not fit: {dotted((field.name, *misfit.path))} "
                    f"{misfit.message}",
                )
        for record in _records_in(field.type):
            yield from _payload_problems(record.fields, here)


def _records_in(expected: TypeSpec) -> Iterator[Record]:
    """The records that stand in a type; those inside them are theirs to report."""
    match expected:
        case Primitive() | Anything() | OneOf():
            return
        case ListOf(item=inner) | MappingOf(value=inner):
            yield from _records_in(inner)
        case AnyOf(options=options):
            yield from chain.from_iterable(_records_in(option) for option in options)
        case Record():
            yield expected
