"""The transitions of a class body, with paths taken apart into the routes that they stand for."""

from collections.abc import Iterator

from squidmesh.codec import plain
from squidmesh.domain.definition import (
    Condition,
    On,
    Operator,
    Problem,
    RecoveryMarker,
    Transition,
)
from squidmesh.errors import SquidMeshError
from squidmesh.workflow.declarations import Complete, Path, Route, StepDeclaration, When
from squidmesh.workflow.options import Options
from squidmesh.workflow.steps import Names, name_of


def draft_transitions(
    declared: object, names: Names, problems: list[Problem]
) -> tuple[Transition, ...]:
    """The transitions that *declared* (a path, a route or several) comes to, in order.

    Two paths may share their last steps: what both of them say is said once.
    """
    drafted: list[Transition] = []
    from_paths: set[tuple[str, str | None]] = set()
    for place, item in enumerate(flat(declared)):
        path = ("transitions", len(drafted))
        if isinstance(item, Route):
            drafted.append(_route(item, names, Options({}, path, problems)))
        elif isinstance(item, Path):
            for source, target in _links(item, names, Options({}, path, problems)):
                if (source, target) not in from_paths:
                    drafted.append(Transition(source=source, on=On.OK, target=target))
                from_paths.add((source, target))
        else:
            problems.append(Problem(("transitions", place), "unknown_step", _no_route(item)))
    return tuple(drafted)


def _no_route(item: object) -> str:
    if isinstance(item, StepDeclaration):
        return "is a step by itself: write path(first, second, ...)"
    return f"is neither a path nor a route but a {type(item).__name__}"


def flat(declared: object) -> Iterator[object]:
    """One level of several: a path, or tuples and lists of them."""
    if isinstance(declared, tuple | list):
        yield from declared
    else:
        yield declared


def _links(path: Path, names: Names, options: Options) -> Iterator[tuple[str, str | None]]:
    """The pairs of names that follow one another; None is the end."""
    steps = [one for one in path.steps if one is not Complete.COMPLETE]
    if path.steps[: len(steps)] != tuple(steps):
        options.note("", "unknown_step", "nothing follows Workflow.complete on a path")
    if not steps:
        options.note("", "unknown_step", "a path names at least one step")
        return
    found = [name_of(one, names) for one in steps]
    yield from zip(found, [*found[1:], None], strict=True)


def _route(route: Route, names: Names, options: Options) -> Transition:
    given = Options({"recovery": route.recovery}, options.path, options.problems)
    ends = route.target is Complete.COMPLETE
    return Transition(
        source=name_of(route.source, names),
        on=route.on,
        target=None if ends else name_of(route.target, names),
        condition=_condition(route.when, options),
        recovery=given.choice("recovery", RecoveryMarker, "invalid_recovery"),
    )


def _condition(declared: object, options: Options) -> Condition | None:
    code = "invalid_condition"
    if declared is None:
        return None
    if not isinstance(declared, When):
        options.note("when", code, f"must be made with when(), not a {type(declared).__name__}")
        return None
    operators = [Operator(name) for name in declared.comparisons]
    if len(operators) != 1:
        options.note("when", code, "must compare in one way: equals, greater_than or less_than")
    operator = operators[0] if operators else Operator.EQUALS
    try:
        operand = plain(declared.comparisons.get(operator.value))
    except SquidMeshError as error:
        options.note("when", code, str(error))
        operand = None
    inner = Options({}, (*options.path, "when"), options.problems)
    return Condition(inner.way("path", declared.path, code), operator, operand)
