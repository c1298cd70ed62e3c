"""What comes next: routes and their conditions, joins, and the inputs of a step.

Two kinds of graph are planned here. Where the author wrote transitions, exactly one step follows
another: the first route whose condition holds, else the unconditional one. Where steps name what
they come after, a step is ready as soon as all of it is applied; there are no phases, so an
unrelated slow branch holds nobody up.

A step sees the outputs of the steps before it and beneath them the payload. With transitions that
is the run's context. Between parallel branches it is not, or else a value would depend on who
was faster: there, only outputs of the step's own ancestors count.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Final

import attrs
from returns.pipeline import is_successful
from returns.result import Failure, Result, Success

from squidmesh.domain.definition import (
    SCHEDULE_KEY,
    Action,
    Approval,
    Condition,
    Log,
    On,
    Operator,
    Parameter,
    Pause,
    StepSpec,
    Transition,
    Wait,
    WorkflowDefinition,
)
from squidmesh.domain.entries import ErrorRecord
from squidmesh.domain.state import RunState, StepState, compensated_step
from squidmesh.domain.values import Json, MissingPath, dig

AT_ONCE: Final = timedelta(0)


@attrs.frozen
class Route:
    """The transition taken, by its number in the definition and as declared."""

    number: int
    transition: Transition


@attrs.frozen
class NoRoute:
    """*declared* says whether routes for this outcome exist, though none of them fits."""

    declared: bool


def route_from(
    definition: WorkflowDefinition,
    state: RunState,
    step: str,
    on: On,
    outputs: Mapping[str, Json],
) -> Route | NoRoute:
    """The route out of *step*: first fitting condition as declared, else the fallback.

    *outputs* is the context that conditions look into, the step's own output included.
    """
    routes = definition.routes.get((step, on), ())
    fallback: Route | None = None
    for number, transition in routes:
        if transition.condition is None:
            fallback = fallback or Route(number, transition)
        elif holds(transition.condition, outputs, state):
            return Route(number, transition)
    return fallback or NoRoute(bool(routes))


def holds(condition: Condition, outputs: Mapping[str, Json], state: RunState) -> bool:
    """Whether *condition* is true of the run; a missing path or another type is just false."""
    found = look_up(outputs, state, condition.path)
    if not is_successful(found):
        return False
    value = found.unwrap()
    match condition.operator:
        case Operator.EQUALS:
            return _equal(value, condition.operand)
        case Operator.GREATER_THAN:
            return _both_numbers(value, condition.operand) and value > condition.operand  # type: ignore[operator]  # just checked
        case Operator.LESS_THAN:
            return _both_numbers(value, condition.operand) and value < condition.operand  # type: ignore[operator]  # just checked


def _equal(left: Json, right: Json) -> bool:
    # In Python True == 1, also deep inside a list; in JSON they are two different values.
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_equal, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_equal(left[key], right[key]) for key in left)
    return left == right


def _both_numbers(*values: Json) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def ready_after(definition: WorkflowDefinition, state: RunState, step: str) -> tuple[str, ...]:
    """The joins that only waited for *step*, which has just been applied."""
    return tuple(
        [
            name
            for name in definition.dependents[step]
            if name not in state.steps and _is_ready(state, definition.prerequisites[name])
        ]
    )


def _is_ready(state: RunState, needed: Collection[str]) -> bool:
    """Whether all that a join comes after is applied; a wide one mostly knows by counting."""
    return state.applied >= len(needed) and all(is_applied(state, step) for step in needed)


def is_applied(state: RunState, step: str) -> bool:
    """Whether the step's result is part of the run."""
    known = state.steps.get(step)
    return known is not None and known.applied is not None


def all_applied(definition: WorkflowDefinition, state: RunState) -> bool:
    """Whether nothing is left to do where steps follow dependencies."""
    return state.applied == len(definition.steps)


def queue_of(definition: WorkflowDefinition, state: RunState, step: str) -> str:
    """Where the step's attempts are claimed: a step's own queue wins over the run's.

    A compensation goes where the step went that it undoes: that is where its body is.
    """
    spec = definition.by_name.get(compensated_step(step))
    return (spec.queue if spec is not None else None) or state.facts.queue


def delay_of(spec: StepSpec) -> timedelta:
    """How long a step stays invisible when it is planned: a timer's duration, else nothing."""
    match spec.kind:
        case Action() | Log() | Pause() | Approval():
            return AT_ONCE
        case Wait(duration=duration):
            return duration


def inputs_of(
    definition: WorkflowDefinition,
    state: RunState,
    step: str,
    parameters: Sequence[Parameter] | None = None,
) -> Result[dict[str, Json], ErrorRecord]:
    """The values for the parameters of an action's body, by name; optional ones may be absent.

    *parameters* are those of the body that will run, if it is not the one that the definition
    was written for. The values are the run's own: whoever hands them on has to copy them first.
    """
    spec = definition.by_name[step]
    if not isinstance(spec.kind, Action):
        return Success({})
    wanted = spec.kind.body.parameters if parameters is None else parameters
    if definition.follows_transitions:
        return bind(wanted, spec.inputs, state.context, state)
    keys = {spec.inputs.get(one.name, (one.name,))[0] for one in wanted}
    return bind(wanted, spec.inputs, _outputs_seen(definition, state, step, keys), state)


def bind(
    parameters: Sequence[Parameter],
    inputs: Mapping[str, tuple[str, ...]],
    outputs: Mapping[str, Json],
    state: RunState,
) -> Result[dict[str, Json], ErrorRecord]:
    """Find each parameter's value in *outputs*, else in the payload."""
    values: dict[str, Json] = {}
    for parameter in parameters:
        if parameter.is_context:
            continue
        name = parameter.name
        found = look_up(outputs, state, inputs.get(name, (name,)))
        if is_successful(found):
            values[name] = found.unwrap()
        elif parameter.required:
            return Failure(_missing(name, found.failure()))
    return Success(values)


def look_up(
    outputs: Mapping[str, Json], state: RunState, path: Sequence[str]
) -> Result[Json, MissingPath]:
    """Follow *path* from the outputs, else from the payload; ``schedule`` is always the run's."""
    first = path[0]
    if first == SCHEDULE_KEY and state.facts.schedule is not None:
        root: Json = dict(state.facts.schedule)
    elif first in outputs:
        root = outputs[first]
    elif first in state.facts.payload:
        root = state.facts.payload[first]
    else:
        return Failure(MissingPath(tuple(path), first))
    if len(path) == 1:
        return Success(root)
    return dig(root, path[1:]).alt(lambda missing: MissingPath(tuple(path), missing.missing_at))


def _missing(parameter: str, missing: MissingPath) -> ErrorRecord:
    path = ".".join(missing.path)
    return ErrorRecord(
        code="missing_input",
        message=f"Nothing provided {path!r} for the parameter {parameter!r}.",
        details={"parameter": parameter, "path": path, "missing_at": missing.missing_at},
    )


def _outputs_seen(
    definition: WorkflowDefinition, state: RunState, step: str, keys: Iterable[str]
) -> Mapping[str, Json]:
    """The outputs that *step* sees between parallel branches: its ancestors', by *keys*."""
    seen: dict[str, Json] = {}
    for key in keys:
        providers = _providers(definition, state, step, key)
        latest = max(providers, key=_application, default=None)
        if latest is not None:
            seen[key] = _provided(latest, key)
    return seen


def _providers(
    definition: WorkflowDefinition, state: RunState, step: str, key: str
) -> Iterator[StepState]:
    for name in definition.providers_of(key):
        known = state.steps.get(name)
        if (
            known is not None
            and known.applied is not None
            and (known.under == key or _merges(known, key))
            and definition.precedes(name, step)
        ):
            yield known


def _application(step: StepState) -> int:
    return step.applied if step.applied is not None else 0


def _merges(step: StepState, key: str) -> bool:
    return step.under is None and isinstance(step.output, dict) and key in step.output


def _provided(step: StepState, key: str) -> Json:
    if step.under is None and isinstance(step.output, dict):
        return step.output[key]
    return step.output
