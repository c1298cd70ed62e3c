"""The definition as its author has it: the core's value, with the functions that it names."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import chain
from typing import Self

import attrs

from squidmesh.codec import plain
from squidmesh.domain import definition as domain
from squidmesh.domain.definition import Problem
from squidmesh.domain.payload import Factories
from squidmesh.domain.reading import MALFORMED
from squidmesh.domain.serial import definition_to_dict, fingerprint
from squidmesh.domain.serial_reading import read_definition
from squidmesh.domain.validation import validate
from squidmesh.domain.values import JsonObject
from squidmesh.errors import DefinitionError, UnserializableValueError
from squidmesh.workflow.binding import bind
from squidmesh.workflow.clocks import clock_problems
from squidmesh.workflow.declarations import Function
from squidmesh.workflow.draft import Draft


@attrs.frozen(kw_only=True, eq=False)
class WorkflowDefinition(domain.WorkflowDefinition):
    """A workflow as data, and the functions behind it.

    *bodies* are the functions by the visit that runs them: the name of a step, or
    ``compensate:<step>``. *payload_classes* are by trigger, *factories* make dynamic defaults.
    Two definitions are equal if their data is, whatever functions stand behind it.
    """

    bodies: Mapping[str, Function] = attrs.field(factory=dict[str, Function], repr=False)
    payload_classes: Mapping[str, object] = attrs.field(factory=dict[str, object], repr=False)
    factories: Factories = attrs.field(factory=dict, repr=False)

    def __eq__(self, other: object) -> bool:
        """Compare the data alone, also with a definition of the core."""
        if not isinstance(other, domain.WorkflowDefinition):
            return NotImplemented
        return _data_of(self) == _data_of(other)

    __hash__ = None  # type: ignore[assignment]  # inputs are mappings, as in the core

    @cached_property
    def fingerprint(self) -> str:
        """A digest of what decides where a run goes."""
        return fingerprint(self)

    def to_dict(self) -> JsonObject:
        """The definition as plain JSON, without its functions: `from_dict` goes back."""
        return definition_to_dict(self)

    @classmethod
    def from_dict(cls, data: object, actions: Mapping[str, Function] | None = None) -> Self:
        """The definition that *data* describes, validated like a class.

        *actions* are the functions by the keys that the data knows them by; each key must be
        among them. Without *actions* the definition can be looked at, but not be worked on.

        Raises:
            DefinitionError: something is wrong with the data or with what it describes.

        """
        try:
            flat = plain(data)
        except UnserializableValueError as error:
            malformed = Problem((), MALFORMED, str(error))
            raise DefinitionError("read from data", [malformed]) from error
        definition, problems = read_definition(flat)
        draft = Draft(definition=definition) if actions is None else bind(definition, actions)
        return cls.of(attrs.evolve(draft, problems=(*problems, *draft.problems)))

    @classmethod
    def of(cls, draft: Draft) -> Self:
        """The definition in *draft*, if neither its author's words nor the rules object.

        Raises:
            DefinitionError: they do; it lists everything.

        """
        definition = draft.definition
        problems = (*draft.problems, *_judge(draft))
        if problems:
            raise DefinitionError(definition.name, problems)
        data = {field.name: getattr(definition, field.name) for field in _DATA}
        return cls(
            **data,
            bodies=draft.bodies,
            payload_classes=draft.payload_classes,
            factories=draft.factories,
        )


_DATA = attrs.fields(domain.WorkflowDefinition)


def _judge(draft: Draft) -> Iterator[Problem]:
    """What the rules object to, as far as that is not the echo of a problem met before."""
    told = {(problem.path, problem.code) for problem in draft.problems}
    # Who does not know the payload cannot say which parameters it lacks.
    silent = {"unknown_parameter"} if "invalid_payload_type" in {code for _, code in told} else ()
    for problem in chain(validate(draft.definition), clock_problems(draft.definition)):
        if (problem.path, problem.code) not in told and problem.code not in silent:
            yield problem


def _data_of(definition: domain.WorkflowDefinition) -> tuple[object, ...]:
    return tuple(getattr(definition, field.name) for field in _DATA)
