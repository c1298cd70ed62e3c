"""Small workflows as data, and the values that tests of the rules say most often."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from squidmesh.domain.definition import (
    Action,
    Approval,
    Body,
    CompensationSpec,
    Condition,
    Log,
    ManualTrigger,
    On,
    Parameter,
    Pause,
    RecoveryMarker,
    RetryPolicy,
    StepSpec,
    Transition,
    Wait,
    WorkflowDefinition,
)
from squidmesh.domain.entries import ErrorRecord, Issuer
from squidmesh.domain.payload import PayloadContract
from squidmesh.domain.typespec import Anything, PayloadField
from squidmesh.domain.validation import validate

T0: Final = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)
LEASE: Final = timedelta(seconds=60)
RUN: Final = "run-1"

BROKEN: Final = ErrorRecord(code="step_error", message="it broke")
BUSY: Final = ErrorRecord(code="step_error", message="try later", retryable=True)
ANNA: Final = Issuer(actor="anna")


def seconds(amount: float) -> timedelta:
    """So many seconds."""
    return timedelta(seconds=amount)


def a_body(key: str, *parameters: str | Parameter) -> Body:
    """A body whose parameters are all required unless said otherwise."""
    known = tuple(Parameter(one) if isinstance(one, str) else one for one in parameters)
    return Body(key=key, parameters=known)


def an_action(
    name: str,
    *parameters: str | Parameter,
    output: str | None = None,
    merges: tuple[str, ...] | None = None,
    inputs: Mapping[str, tuple[str, ...]] | None = None,
    retry: RetryPolicy | None = None,
    after: tuple[str, ...] | None = None,
    undone_by: Body | CompensationSpec | None = None,
    irreversible: bool = False,
    compensatable: bool | None = None,
    queue: str | None = None,
) -> StepSpec:
    """A step that runs a body of its own name."""
    return StepSpec(
        name=name,
        kind=Action(body=a_body(name, *parameters), merges=merges),
        output=output,
        inputs=inputs or {},
        retry=retry or RetryPolicy(),
        after=after,
        compensation=CompensationSpec(body=undone_by) if isinstance(undone_by, Body) else undone_by,
        irreversible=irreversible,
        compensatable=not irreversible if compensatable is None else compensatable,
        queue=queue,
    )


def an_undoable(
    name: str, *, after: tuple[str, ...] | None = None, retry: RetryPolicy | None = None
) -> StepSpec:
    """A step with a compensation of default policy."""
    return an_action(name, after=after, retry=retry, undone_by=a_body(f"undo_{name}"))


def a_wait(name: str, duration: timedelta, *, after: tuple[str, ...] | None = None) -> StepSpec:
    """A durable timer."""
    return StepSpec(name=name, kind=Wait(duration), after=after)


def a_log(name: str, *, after: tuple[str, ...] | None = None) -> StepSpec:
    """A step that writes one line."""
    return StepSpec(name=name, kind=Log(f"{name} was here"), after=after)


def a_pause(name: str, *, output: str | None = None) -> StepSpec:
    """A step that somebody resumes."""
    return StepSpec(name=name, kind=Pause(), output=output)


def an_approval(name: str, *, output: str | None = None) -> StepSpec:
    """A step that somebody approves or rejects."""
    return StepSpec(name=name, kind=Approval(), output=output)


def on_ok(source: str, target: str | None, when: Condition | None = None) -> Transition:
    """The route out of *source* that success takes."""
    return Transition(source=source, on=On.OK, target=target, condition=when)


def on_error(
    source: str,
    target: str | None,
    when: Condition | None = None,
    recovery: RecoveryMarker | None = None,
) -> Transition:
    """The route out of *source* that a failure takes."""
    return Transition(source=source, on=On.ERROR, target=target, condition=when, recovery=recovery)


def a_path(*names: str) -> tuple[Transition, ...]:
    """On ok, one after the other, then the end."""
    targets = (*names[1:], None)
    return tuple(on_ok(name, target) for name, target in zip(names, targets, strict=True))


def a_chain(*steps: StepSpec) -> WorkflowDefinition:
    """A workflow whose steps follow one another."""
    return a_workflow(*steps, transitions=a_path(*(step.name for step in steps)))


def a_workflow(
    *steps: StepSpec, transitions: tuple[Transition, ...] = (), takes: tuple[str, ...] = ()
) -> WorkflowDefinition:
    """A workflow that validation has nothing against; *takes* are its payload's fields."""
    definition = unchecked(*steps, transitions=transitions, takes=takes)
    assert validate(definition) == ()
    return definition


def unchecked(
    *steps: StepSpec, transitions: tuple[Transition, ...] = (), takes: tuple[str, ...] = ()
) -> WorkflowDefinition:
    """A workflow as somebody might write it, mistakes included."""
    fields = tuple(PayloadField(name=name, type=Anything()) for name in takes)
    trigger = ManualTrigger(name="by_hand", payload=PayloadContract(fields=fields))
    return WorkflowDefinition(
        name="orders", triggers=(trigger,), steps=steps, transitions=transitions
    )
