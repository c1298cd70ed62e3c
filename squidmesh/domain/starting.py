"""How a run begins, and how many that are alike begin for the price of one."""

from collections.abc import Mapping

from returns.result import Failure, Result, Success

from squidmesh.domain.commands import AlreadyStarted, Refusal, StartRun
from squidmesh.domain.entries import Issuer, RunIndexed, RunStarted
from squidmesh.domain.recovery import refusal_to_start_at
from squidmesh.domain.replacing import replace
from squidmesh.domain.unfolding import Decision, Unfolding
from squidmesh.domain.values import Json


def start(run: Unfolding, command: StartRun) -> Result[Decision, Refusal]:
    """The decision about a start: the run's facts, and its first steps."""
    if run.state.started is not None:
        return Failure(AlreadyStarted(run_id=command.run_id))
    if command.from_step is not None:
        refusal = refusal_to_start_at(run.definition, command.from_step, command.carried)
        if refusal is not None:
            return Failure(refusal)
    run.add(
        RunStarted(
            at=run.now,
            workflow=command.workflow,
            trigger=command.trigger,
            fingerprint=command.fingerprint,
            payload=command.payload,
            version=command.version,
            queue=command.queue,
            priority=command.priority,
            concurrency_key=command.concurrency_key,
            tags=command.tags,
            schedule=command.schedule,
            replayed_from=command.replayed_from,
            carried=command.carried,
            issuer=command.issuer,
        )
    )
    run.add(RunIndexed(at=run.now, workflow=command.workflow, queue=command.queue))
    run.plan(_first_steps(run, command))
    return Success(run.decision())


def _first_steps(run: Unfolding, command: StartRun) -> tuple[str, ...]:
    if command.from_step is None:
        return run.definition.entry_steps
    if run.definition.follows_transitions:
        return (command.from_step,)
    return tuple(
        spec.name
        for spec in run.definition.steps
        if spec.name not in run.state.steps
        and all(needed in run.state.steps for needed in spec.after or ())
    )


def alike(decided: Decision, run_id: str, payload: Mapping[str, Json], issuer: Issuer) -> Decision:
    """The decision about a start that differs from the *decided* one in nothing but these three.

    No rule looks at any of them when a run begins: conditions and inputs are asked for later. So
    what was decided holds for the other run as well, down to the steps that both then have.
    """
    begun, *rest = decided.entries
    assert isinstance(begun, RunStarted), "a start begins with the run's facts"
    started = replace(begun, payload=payload, issuer=issuer)
    return Decision((started, *rest), replace(decided.state, run_id=run_id, started=started))
