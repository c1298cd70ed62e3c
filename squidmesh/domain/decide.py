"""What follows from a command, or why nothing does.

`decide` is the whole of the rules in one question: given the definition that a run carries, its
state, a command and the store's time, it answers with entries or with a refusal. It knows no
clock, writes nothing and never raises for anything that a caller can do. The entries *are* the
decision: rows, wake-ups and events are derived from them by others.

    StartRun ......... run_started, run_indexed, the first steps (squidmesh.domain.starting)
    ClaimAttempt ..... attempt_claimed
    ReportOutcome .... how the attempt ended, and what that leads to (squidmesh.domain.outcomes)
    LoseAttempt ...... attempt_lost, and the next attempt or the step's end
    CancelRun ........ cancel_requested, and the end as soon as nothing is claimed
    Resume, Approve, Reject ... manual_step_resolved, and the stored route
    ReplayRun ........ run_replayed, on the source
"""

from datetime import datetime

from returns.pipeline import is_successful
from returns.result import Failure, Result, Success

from squidmesh.domain.commands import (
    ApproveRun,
    CancelRun,
    ClaimAttempt,
    Command,
    KeyAlreadyUsed,
    LoseAttempt,
    MoveIsIllegal,
    NotPaused,
    Refusal,
    RejectRun,
    ReplayRun,
    ReportOutcome,
    ResumeRun,
    StartRun,
)
from squidmesh.domain.definition import On, WorkflowDefinition
from squidmesh.domain.dispatch import refusal_to_claim
from squidmesh.domain.entries import (
    CancelRequested,
    Issuer,
    ManualAction,
    ManualKind,
    ManualStepPaused,
    ManualStepResolved,
    RunReplayed,
    StepRouted,
)
from squidmesh.domain.outcomes import lose, no_matching_transition, report
from squidmesh.domain.recovery import refusal_to_replay
from squidmesh.domain.starting import start
from squidmesh.domain.state import RunState, RunStatus
from squidmesh.domain.unfolding import Decision, Unfolding
from squidmesh.domain.values import Json

Answer = Result[Decision, Refusal]


def decide(
    definition: WorkflowDefinition, state: RunState, command: Command, now: datetime
) -> Answer:
    """The entries that *command* leads to, or the reason why it changes nothing.

    *state* of a run that does not exist yet is ``RunState(run_id=...)``; *definition* is the one
    that the run carries.
    """
    match command:
        case StartRun():
            return start(Unfolding(definition, state, now), command)
        case ClaimAttempt():
            return _claim(Unfolding(definition, state, now), command)
        case ReportOutcome():
            return report(Unfolding(definition, state, now, command.offers), command)
        case LoseAttempt():
            return lose(Unfolding(definition, state, now), command)
        case CancelRun():
            return _once(state, command.issuer, "cancel") or _cancel(
                Unfolding(definition, state, now), command
            )
        case ResumeRun():
            return _resolve(Unfolding(definition, state, now), ManualAction.RESUMED, command.issuer)
        case ApproveRun():
            return _resolve(
                Unfolding(definition, state, now), ManualAction.APPROVED, command.issuer
            )
        case RejectRun():
            return _resolve(
                Unfolding(definition, state, now), ManualAction.REJECTED, command.issuer
            )
        case ReplayRun():
            return _once(state, command.issuer, "replay") or _replay(
                Unfolding(definition, state, now), command
            )


def _once(state: RunState, issuer: Issuer, command: str) -> Answer | None:
    """The answer to a command whose idempotency key was used before: nothing, or a refusal."""
    key = issuer.idempotency_key
    if key is None or key not in state.receipts:
        return None
    if state.receipts[key] != command:
        return Failure(KeyAlreadyUsed(key=key))
    return Success(Decision((), state))


def _claim(run: Unfolding, command: ClaimAttempt) -> Answer:
    refusal = refusal_to_claim(run.state, command.attempt)
    if refusal is not None:
        return Failure(refusal)
    run.claim(command.attempt.step, command.attempt.number, command.offer)
    return Success(run.decision())


def _cancel(run: Unfolding, command: CancelRun) -> Answer:
    status = run.state.status
    if status.is_final or status in (RunStatus.CANCELLING, RunStatus.COMPENSATING):
        return Failure(MoveIsIllegal(source=status, target=RunStatus.CANCELLING))
    run.add(CancelRequested(at=run.now, issuer=command.issuer))
    run.cancel_unclaimed()
    run.settle()
    return Success(run.decision())


def _resolve(run: Unfolding, action: ManualAction, issuer: Issuer) -> Answer:
    answered = _once(run.state, issuer, action.value)
    if answered is not None:
        return answered
    expected = ManualKind.PAUSE if action is ManualAction.RESUMED else ManualKind.APPROVAL
    paused = run.state.paused_step
    manual = paused.manual if paused is not None else None
    if manual is None or manual.kind is not expected:
        found = manual.kind if manual is not None else None
        return Failure(NotPaused(status=run.state.status, expected=expected, found=found))
    number = manual.on_error if action is ManualAction.REJECTED else manual.on_ok
    run.add(
        ManualStepResolved(
            at=run.now,
            step=manual.step,
            action=action,
            transition=number,
            output=_decision_record(run.now, action, issuer),
            issuer=issuer,
        )
    )
    _follow_stored_route(run, manual, action, number)
    return Success(run.decision())


def _follow_stored_route(
    run: Unfolding, manual: ManualStepPaused, action: ManualAction, number: int | None
) -> None:
    """Go where the step pointed to when it was opened."""
    if number is None:
        on = On.ERROR if action is ManualAction.REJECTED else On.OK
        run.fail(no_matching_transition(manual.step, on))
        return
    transition = run.definition.transitions[number]
    if transition.recovery is not None:
        run.add(
            StepRouted(
                at=run.now,
                step=manual.step,
                transition=number,
                target=transition.target,
                recovery=transition.recovery,
            )
        )
    run.go_to(transition.target)


def _decision_record(now: datetime, action: ManualAction, issuer: Issuer) -> Json:
    record: dict[str, Json] = {
        "decision": action.value,
        "actor": issuer.actor,
        "decided_at": now.isoformat(),
        "comment": issuer.comment,
        "metadata": dict(issuer.metadata),
    }
    return record


def _replay(run: Unfolding, command: ReplayRun) -> Answer:
    allowed = refusal_to_replay(run.definition, run.state, command)
    if not is_successful(allowed):
        return Failure(allowed.failure())
    run.add(
        RunReplayed(
            at=run.now,
            new_run_id=command.new_run_id,
            issuer=command.issuer,
            from_step=command.from_step,
        )
    )
    return Success(run.decision())
