"""`Workflow`: the base class whose subclasses are declarations, judged by the class statement."""

import typing
from collections.abc import Sequence
from typing import ClassVar, Generic, TypeAlias, TypeVar

from squidmesh.workflow.declarations import Complete, Path, Route
from squidmesh.workflow.definition import WorkflowDefinition
from squidmesh.workflow.drafting import draft_of

P = TypeVar("P")

Transitions: TypeAlias = Path | Route | Sequence[Path | Route]


class Workflow(Generic[P]):
    """A durable process, declared by a class body; *P* is the class of what it starts with.

    Triggers, steps and transitions are attributes, and their names are what is stored. The class
    statement checks everything and raises one `DefinitionError` that lists all problems. A base
    for other workflows says ``abstract=True`` and is not checked.
    """

    complete: ClassVar[Complete] = Complete.COMPLETE
    definition: ClassVar[WorkflowDefinition]
    name: ClassVar[str]
    transitions: ClassVar[Transitions] = ()
    version: ClassVar[str | None] = None

    def __init_subclass__(cls, *, abstract: bool = False, **options: object) -> None:
        """Turn the body into a definition.

        Raises:
            DefinitionError: it cannot work.

        """
        super().__init_subclass__(**options)
        if not abstract:
            payload_class = _payload_class_of(cls)
            cls.definition = WorkflowDefinition.of(draft_of(cls, payload_class=payload_class))
            cls.name = cls.definition.name


def _payload_class_of(workflow: type) -> object:
    """What stands in the brackets of `Workflow[...]`, through generic bases; None if nothing."""
    found = _argument_of(workflow)
    return None if isinstance(found, TypeVar) else found


def _argument_of(workflow: type) -> object:
    for base in vars(workflow).get("__orig_bases__", workflow.__bases__):
        origin: object = typing.get_origin(base)
        kind, arguments = base if origin is None else origin, typing.get_args(base)
        if kind is Workflow and arguments:
            return arguments[0]
        if isinstance(kind, type) and issubclass(kind, Workflow) and kind is not Workflow:
            found = _argument_of(kind)
            if isinstance(found, TypeVar) and arguments:
                parameters: tuple[object, ...] = kind.__dict__["__parameters__"]
                found = arguments[parameters.index(found)]
            if found is not None:
                return found
    return None
