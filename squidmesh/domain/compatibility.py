"""Whether the functions of today can carry on what began under a stored definition.

A run keeps the definition that it started under, while its bodies are those of whoever works on
it. So a function may be gone, or may ask for what nobody provided then. Both are found here before
anything is claimed: what would fail the attempts of all runs is left to somebody who can run it.

Workers judge a definition as a whole, once, since they claim by definition and step. They leave a
step alone only if, for all they know, no run has what it takes; a single run may still have less in
hand than others, and then its attempt is claimed and fails. `would_wait` and `would_fail` tell of
one run at a time which it is, before a release is out.
"""

from collections.abc import Iterable, Mapping
from typing import Literal, TypeAlias

import attrs
from returns.pipeline import is_successful

from squidmesh.domain.definition import Parameter, WorkflowDefinition
from squidmesh.domain.inspection import may_still_come, may_still_end, open_steps
from squidmesh.domain.planning import inputs_of, look_up
from squidmesh.domain.state import RunState, StepStatus, compensation_of, is_compensation
from squidmesh.domain.validation_binding import COMPENSATION_INPUTS, bodies_of, unprovided

Signatures: TypeAlias = Mapping[str, tuple[Parameter, ...]]
"""What the bodies that there are take, by visit: a step's name, or ``compensate:<step>``."""

MisfitCode: TypeAlias = Literal["missing_body", "missing_input"]


@attrs.frozen(kw_only=True)
class Misfit:
    """Why a *visit* (a step, or ``compensate:<step>``) cannot be run by the bodies that there are.

    *body* is the key of the function that the definition names; *parameter* is one that today's
    function asks for and that no step before and no payload in question provides.
    """

    visit: str
    code: MisfitCode
    body: str
    parameter: str | None = None


def fields_of(*definitions: WorkflowDefinition) -> frozenset[str]:
    """The names of all that a run of these definitions may bring along, whatever starts it."""
    triggers = (trigger for definition in definitions for trigger in definition.triggers)
    return frozenset(name for trigger in triggers for name in trigger.payload.by_name)


def misfits(
    definition: WorkflowDefinition,
    signatures: Signatures,
    payloads: Mapping[str, frozenset[str]] | None = None,
) -> tuple[Misfit, ...]:
    """Everything of *definition* that the bodies of these *signatures* cannot run.

    A parameter has to be provided under each of the *payloads*, sets of names that runs bring
    along. By default there is one, of all that a run of any trigger may bring.
    """
    if payloads is None:
        payloads = {"": fields_of(definition)}
    needed = bodies_of(definition)
    missing = [
        Misfit(visit=visit, code="missing_body", body=body.key)
        for visit, body in needed.items()
        if visit not in signatures
    ]
    present = {visit: signatures[visit] for visit in needed if visit in signatures}
    unfed = [
        Misfit(
            visit=found.visit,
            code="missing_input",
            body=needed[found.visit].key,
            parameter=found.parameter,
        )
        for found in unprovided(definition, present, payloads)
    ]
    return (*missing, *unfed)


def visits_ahead(definition: WorkflowDefinition, state: RunState) -> frozenset[str]:
    """The visits that the run may still come by, those that are under way among them.

    Undoing counts for every step that is done or may be done yet: whether the run fails is not
    known before it does. One that is being cancelled, or undone, begins nothing else.
    """
    if state.status.is_final or state.cancelling:
        return frozenset()
    if state.undoing is not None:
        return frozenset(map(compensation_of, state.undoing.remaining))
    ahead = {step.step for step in open_steps(state)}
    ahead |= {
        name
        for name in definition.by_name
        if name not in state.steps and may_still_come(definition, state, name)
    }
    done = {
        step.step
        for step in state.steps.values()
        if step.ended is not None and step.status is StepStatus.COMPLETED
    }
    undone = {
        name
        for name in (ahead | done) & definition.by_name.keys()
        if definition.by_name[name].compensation is not None
    }
    return frozenset(ahead | {compensation_of(name) for name in undone})


def demands(before: WorkflowDefinition, signatures: Signatures) -> Signatures:
    """What bodies have to be given that runs of the definition *before* may lack, by visit.

    That is what its own bodies did not ask for, and whole fields of its payload: payloads are no
    part of a fingerprint, so a run may have started with those of another release.
    """
    fields = _fields_of_every_trigger(before)
    found: dict[str, tuple[Parameter, ...]] = {}
    for visit, body in bodies_of(before).items():
        asked = {
            one.name
            for one in body.parameters
            if one.required and not _is_one_of(fields, _path_of(before, visit, one))
        }
        if is_compensation(visit):
            asked |= COMPENSATION_INPUTS
        fresh = tuple(
            one
            for one in signatures.get(visit, ())
            if one.required and not one.is_context and one.name not in asked
        )
        if fresh:
            found[visit] = fresh
    return found


def _fields_of_every_trigger(definition: WorkflowDefinition) -> frozenset[str]:
    """The fields that all runs bring along, if they started with the payloads of *definition*."""
    payloads = [frozenset(trigger.payload.by_name) for trigger in definition.triggers]
    return frozenset.intersection(*payloads) if payloads else frozenset()


def _is_one_of(fields: frozenset[str], path: tuple[str, ...]) -> bool:
    return len(path) == 1 and path[0] in fields


def _path_of(definition: WorkflowDefinition, visit: str, parameter: Parameter) -> tuple[str, ...]:
    """Where the value of a parameter is looked for; a longer path digs into what it finds."""
    if is_compensation(visit):
        return (parameter.name,)
    return definition.by_name[visit].inputs.get(parameter.name, (parameter.name,))


def would_wait(
    definition: WorkflowDefinition, state: RunState, found: Iterable[Misfit]
) -> tuple[Misfit, ...]:
    """Those misfits *found* in the definition that the run has ahead: nobody claims them here."""
    ahead = visits_ahead(definition, state)
    return tuple(misfit for misfit in found if misfit.visit in ahead)


def is_in_payload(definition: WorkflowDefinition, state: RunState, wanted: Signatures) -> bool:
    """Whether the run's payload alone has all that is *wanted*, so that `would_fail` finds nothing.

    What `inputs` dig out of a field may be missing though the field is there.
    """
    fields = frozenset(state.facts.payload)
    return all(
        _is_one_of(fields, _path_of(definition, visit, one))
        for visit, parameters in wanted.items()
        for one in parameters
    )


def would_fail(
    definition: WorkflowDefinition, signatures: Signatures, state: RunState, wanted: Signatures
) -> tuple[Misfit, ...]:
    """What is ahead of the run and would fail, once it is claimed, for want of an input.

    *wanted* are the parameters to look at, by visit. What is there counts as provided, and so does
    what a step may write that is yet to end. For a step that is open with transitions, that is
    the context as it stands and the payload, and nothing else.
    """
    ahead = visits_ahead(definition, state) & wanted.keys()
    if not ahead:
        return ()
    payload = {"": frozenset(state.facts.payload)}
    unfed = {(found.visit, found.parameter) for found in misfits(definition, signatures, payload)}
    return tuple(
        Misfit(visit=visit, code="missing_input", body=body.key, parameter=one.name)
        for visit, body in bodies_of(definition).items()
        if visit in ahead
        for one in wanted[visit]
        if not _is_there(definition, state, visit, one)
        and ((visit, one.name) in unfed or not _may_come(definition, state, visit, one))
    )


def _is_there(
    definition: WorkflowDefinition, state: RunState, visit: str, parameter: Parameter
) -> bool:
    """Whether the parameter could be filled now."""
    if not is_compensation(visit):
        return is_successful(inputs_of(definition, state, visit, (parameter,)))
    return is_successful(look_up(state.context, state, (parameter.name,)))


def _may_come(
    definition: WorkflowDefinition, state: RunState, visit: str, parameter: Parameter
) -> bool:
    """Whether a step that is yet to end may provide the parameter before the visit begins."""
    if is_compensation(visit):
        providers = definition.providers_of(parameter.name)
    else:
        (key, *_) = _path_of(definition, visit, parameter)
        providers = tuple(
            name for name in definition.providers_of(key) if definition.precedes(name, visit)
        )
    return any(may_still_end(definition, state, name) for name in providers)
