"""A definition before it was judged: what a class body or a dictionary comes to."""

from collections.abc import Mapping

import attrs

from squidmesh.domain.definition import Problem, WorkflowDefinition
from squidmesh.domain.payload import Factories
from squidmesh.workflow.declarations import Function


@attrs.frozen(kw_only=True)
class Draft:
    """A definition with its functions, and the problems that were met on the way to it.

    *bodies* are by the visit that runs them: the name of a step, or ``compensate:<step>``.
    """

    definition: WorkflowDefinition
    bodies: Mapping[str, Function] = attrs.field(factory=dict[str, Function])
    payload_classes: Mapping[str, object] = attrs.field(factory=dict[str, object])
    factories: Factories = attrs.field(factory=dict)
    problems: tuple[Problem, ...] = ()
