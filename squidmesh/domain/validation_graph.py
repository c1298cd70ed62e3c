"""What is wrong with the shape of a workflow: prerequisites, routes, circles and dead ends.

No function here recurses over the graph, so that an author's ten thousand steps are as welcome
as ten.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from squidmesh.domain.definition import (
    Approval,
    Condition,
    On,
    Operator,
    Problem,
    StepSpec,
    Transition,
    WorkflowDefinition,
)

_SHOWN: Final = 8


def graph_problems(definition: WorkflowDefinition) -> Iterator[Problem]:
    """Everything that is wrong with how the steps hang together."""
    yield from _dependency_problems(definition)
    if not definition.follows_transitions:
        return
    for number, transition in enumerate(definition.transitions):
        yield from _transition_problems(definition, number, transition)
    yield from _duplicates(definition)
    yield from _manual_routes(definition)
    yield from _reachability(definition)
    yield from _route_circles(definition)


def _dependency_problems(definition: WorkflowDefinition) -> Iterator[Problem]:
    for step in definition.steps:
        path = ("steps", step.name)
        if step.after is not None:
            yield from _after_problems(definition, step, step.after)
        if step.is_manual and not definition.follows_transitions:
            yield Problem(
                path,
                "manual_step_in_dependency_mode",
                "a person's decision leads somewhere, so it needs transitions",
            )
    # A step that names itself is told so already.
    followers = {
        name: [other for other in others if other != name]
        for name, others in definition.dependents.items()
    }
    for circle in circles(followers):
        yield Problem(
            ("steps", circle[0], "after"),
            "dependency_cycle",
            f"{listed(circle)} wait for one another, so none of them can begin",
        )


def _after_problems(
    definition: WorkflowDefinition, step: StepSpec, after: tuple[str, ...]
) -> Iterator[Problem]:
    path = ("steps", step.name, "after")
    if definition.follows_transitions:
        yield Problem(path, "mixed_modes", "a workflow has transitions or after=, never both")
    if not after:
        yield Problem(path, "empty_dependencies", "after= names a step, or is left out")
    for needed in after:
        if needed == step.name:
            yield Problem(path, "self_dependency", "a step cannot wait for itself")
        elif needed not in definition.by_name:
            yield Problem(path, "unknown_dependency", f"{needed} is no step of this workflow")


def _transition_problems(
    definition: WorkflowDefinition, number: int, transition: Transition
) -> Iterator[Problem]:
    path = ("transitions", number)
    source = definition.by_name.get(transition.source)
    if source is None:
        yield Problem(
            (*path, "from"), "unknown_step", f"{transition.source} is no step of this workflow"
        )
    if transition.target is not None and transition.target not in definition.by_name:
        yield Problem(
            (*path, "to"), "unknown_step", f"{transition.target} is no step of this workflow"
        )
    if transition.recovery is not None and transition.on is On.OK:
        yield Problem(
            (*path, "recovery"), "invalid_recovery", "only a route that an error takes recovers"
        )
    if transition.condition is None:
        return
    here = (*path, "when")
    if source is not None and source.is_manual:
        yield Problem(
            here, "invalid_condition", f"at {source.name} a person decides, and no condition"
        )
    yield from _condition_problems(transition.condition, here)


def _condition_problems(condition: Condition, path: tuple[str | int, ...]) -> Iterator[Problem]:
    if not condition.path or not all(condition.path):
        yield Problem(
            (*path, "path"), "invalid_condition", "the path to a value is keys with dots between"
        )
    if condition.operator is not Operator.EQUALS and not _is_number(condition.operand):
        yield Problem(
            path, "invalid_condition", f"{condition.operator.value} compares with a number"
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _duplicates(definition: WorkflowDefinition) -> Iterator[Problem]:
    seen: dict[tuple[str, On, str], int] = {}
    for number, transition in enumerate(definition.transitions):
        key = (transition.source, transition.on, _identity(transition.condition))
        first = seen.setdefault(key, number)
        if first != number:
            same = "the same condition" if transition.condition else "no condition"
            yield Problem(
                ("transitions", number),
                "duplicate_transition",
                f"{transition.source} has a route on {transition.on.value} with {same} already "
                f"(number {first})",
            )


def _identity(condition: Condition | None) -> str:
    """Text that two conditions share exactly if they are the same question."""
    if condition is None:
        return ""
    operand = condition.operand
    # 1 and 1.0 are equal as JSON; 1 and true are not, though Python says so.
    if isinstance(operand, float) and operand.is_integer():
        operand = int(operand)
    return json.dumps([condition.path, condition.operator.value, operand], sort_keys=True)


def _manual_routes(definition: WorkflowDefinition) -> Iterator[Problem]:
    for step in definition.steps:
        if not step.is_manual:
            continue
        needed = (On.OK, On.ERROR) if isinstance(step.kind, Approval) else (On.OK,)
        missing = [on.value for on in needed if (step.name, on) not in definition.routes]
        if missing:
            yield Problem(
                ("steps", step.name),
                "missing_approval_transitions",
                f"no route leads on from here on {' and '.join(missing)}",
            )


def _reachability(definition: WorkflowDefinition) -> Iterator[Problem]:
    entries = list(dict.fromkeys(definition.entry_steps))  # a name given twice is told already
    if len(entries) != 1:
        found = listed(entries) if entries else "none"
        yield Problem(
            ("transitions",),
            "entry_step_count",
            f"a run begins at the one step that no route leads to; here: {found}",
        )
    sources = {transition.source for transition in definition.transitions}
    roots = [name for name in entries if name in sources]
    reached: set[str] = set()
    followers = _followers(definition)
    for root in roots:
        _spread(root, followers, reached)
    for step in definition.steps:
        if roots and step.name not in reached:
            yield Problem(("steps", step.name), "unreachable_step", "no route leads here")


def _followers(definition: WorkflowDefinition) -> Mapping[str, list[str]]:
    followers: dict[str, list[str]] = {step.name: [] for step in definition.steps}
    for transition in definition.transitions:
        if transition.source in followers and transition.target in followers:
            followers[transition.source].append(transition.target)
    return followers


def _route_circles(definition: WorkflowDefinition) -> Iterator[Problem]:
    for circle in circles(_followers(definition)):
        yield Problem(
            ("steps", circle[0]),
            "transition_cycle",
            f"the routes of {listed(circle)} lead back to where they came from",
        )


def circles(followers: Mapping[str, Iterable[str]]) -> Iterator[list[str]]:
    """The groups of names that lead back to themselves, each in the order of the mapping.

    Strongly connected components the way of Kosaraju: a second search, against the arrows and in
    the reverse order of finishing the first, cannot leave the group that it begins in.
    """
    place = {name: index for index, name in enumerate(followers)}
    sources: dict[str, list[str]] = {name: [] for name in followers}
    for name, targets in followers.items():
        for target in targets:
            sources[target].append(name)
    seen: set[str] = set()
    for name in reversed(_finished(followers)):
        if name in seen:
            continue
        group = _spread(name, sources, seen)
        if len(group) > 1 or name in followers[name]:
            yield sorted(group, key=place.__getitem__)


def _finished(followers: Mapping[str, Iterable[str]]) -> list[str]:
    """Every name, in the order in which a search in depth leaves it for good."""
    finished: list[str] = []
    seen: set[str] = set()
    for root in followers:
        way = [] if root in seen else [(root, iter(followers[root]))]
        seen.add(root)
        while way:
            name, ahead = way[-1]
            for follower in ahead:
                if follower not in seen:
                    seen.add(follower)
                    way.append((follower, iter(followers[follower])))
                    break
            else:
                finished.append(name)
                way.pop()
    return finished


def _spread(start: str, followers: Mapping[str, Iterable[str]], seen: set[str]) -> list[str]:
    """What can be reached from *start* and was not *seen* before; all of it is seen now."""
    found = [start]
    seen.add(start)
    for name in found:
        for follower in followers[name]:
            if follower not in seen:
                seen.add(follower)
                found.append(follower)
    return found


def listed(names: Iterable[str]) -> str:
    """A few names in one line; of many, the first ones and how many there are."""
    every = list(names)
    rest = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(every[:_SHOWN]) + rest
