"""What follows from the end of an attempt: the next step, another try, a route, or the end.

Only the holder of the current claim is heard. While a run is ending (it is being cancelled, or it
has failed and waits for siblings in flight) an outcome is recorded and nothing new begins.
"""

from datetime import timedelta

import attrs
from returns.result import Failure, Result, Success

from squidmesh.domain.commands import (
    MAX_DEFERRALS,
    ClaimIsStale,
    Failed,
    LoseAttempt,
    PutOff,
    Refusal,
    ReportOutcome,
    Succeeded,
)
from squidmesh.domain.definition import ONCE, On, RetryPolicy
from squidmesh.domain.dispatch import find_attempt, holder_of, refusal_to_report, visible_from
from squidmesh.domain.entries import (
    AfterFailure,
    AttemptCancelled,
    AttemptCompleted,
    AttemptDeferred,
    AttemptFailed,
    AttemptId,
    AttemptLost,
    ErrorRecord,
    RunnableApplied,
    StepRouted,
)
from squidmesh.domain.evolution import merged
from squidmesh.domain.planning import NoRoute, Route, all_applied, ready_after, route_from
from squidmesh.domain.retry import retry_delay
from squidmesh.domain.state import AttemptStatus, compensated_step, is_compensation
from squidmesh.domain.unfolding import Decision, Unfolding


def report(run: Unfolding, command: ReportOutcome) -> Result[Decision, Refusal]:
    """The decision about a reported outcome."""
    refusal = refusal_to_report(run.state, command.attempt, command.token_hash)
    if refusal is not None:
        return Failure(refusal)
    match command.outcome:
        case Succeeded():
            _succeeded(run, command.attempt, command.outcome)
        case Failed():
            _failed(run, command.attempt, command.outcome, command.draw)
        case PutOff():
            _put_off(run, command.attempt, command.outcome)
    run.claim_further()
    return Success(run.decision())


def _succeeded(run: Unfolding, attempt: AttemptId, outcome: Succeeded) -> None:
    run.add(
        AttemptCompleted(
            at=run.now, step=attempt.step, number=attempt.number, output=outcome.output
        )
    )
    if is_compensation(attempt.step) or run.is_ending:
        run.settle()
    elif run.definition.follows_transitions:
        _advance_by_route(run, attempt.step)
    else:
        _advance_by_joins(run, attempt.step)


def _advance_by_route(run: Unfolding, step: str) -> None:
    under = run.definition.by_name[step].output
    # A condition may ask for the step's own output, so it looks into the context behind it.
    context = merged(run.state.context, run.state.steps[step].output, under)
    route = route_from(run.definition, run.state, step, On.OK, context)
    number = route.number if isinstance(route, Route) else None
    run.add(RunnableApplied(at=run.now, step=step, under=under, transition=number))
    match route:
        case NoRoute():
            run.fail(no_matching_transition(step, On.OK))
        case Route(transition=transition):
            run.go_to(transition.target)


def _advance_by_joins(run: Unfolding, step: str) -> None:
    under = run.definition.by_name[step].output
    run.add(RunnableApplied(at=run.now, step=step, under=under))
    if all_applied(run.definition, run.state):
        run.complete()
    else:
        run.plan(ready_after(run.definition, run.state, step))


def no_matching_transition(step: str, on: On, cause: ErrorRecord | None = None) -> ErrorRecord:
    """The error of a run that has nowhere to go from *step*, which itself stays as it ended."""
    return ErrorRecord(
        code="no_matching_transition",
        message=f"No transition of step {step!r} fits its outcome {on.value!r}.",
        details={"step": step, "outcome": on.value, "cause": cause.code if cause else None},
        step=step,
    )


def _failed(run: Unfolding, attempt: AttemptId, outcome: Failed, draw: float) -> None:
    if run.is_ending:
        _record_failure(run, attempt, outcome.error, AfterFailure.RECORD)
        run.settle()
        return
    failures = run.state.steps[attempt.step].failures + 1
    delay = retry_delay(_policy(run, attempt.step), failures, outcome, draw)
    if delay is not None:
        _record_failure(run, attempt, outcome.error, AfterFailure.RETRY)
        _next_attempt(run, attempt, delay)
        return
    _end_step(run, attempt.step, outcome.error, _Reporting(run, attempt))


def _policy(run: Unfolding, step: str) -> RetryPolicy:
    if not is_compensation(step):
        return run.definition.by_name[step].retry
    compensation = run.definition.by_name[compensated_step(step)].compensation
    return compensation.retry if compensation is not None else ONCE


def _next_attempt(run: Unfolding, attempt: AttemptId, delay: timedelta) -> None:
    run.schedule(attempt.step, number=attempt.number + 1, visible_at=visible_from(run.now, delay))


def _record_failure(
    run: Unfolding, attempt: AttemptId, error: ErrorRecord, then: AfterFailure
) -> None:
    run.add(
        AttemptFailed(at=run.now, step=attempt.step, number=attempt.number, error=error, then=then)
    )


@attrs.frozen
class _Reporting:
    """Records the end of a step's last attempt as a failure that somebody reported."""

    run: Unfolding
    attempt: AttemptId

    def __call__(self, error: ErrorRecord, then: AfterFailure) -> None:
        _record_failure(self.run, self.attempt, error, then)


@attrs.frozen
class _Losing:
    """Records the end of a step's last attempt as the loss that poisoned it."""

    run: Unfolding
    attempt: AttemptId

    def __call__(self, error: ErrorRecord, then: AfterFailure) -> None:
        run = self.run
        run.add(
            AttemptLost(
                at=run.now,
                step=self.attempt.step,
                number=self.attempt.number,
                then=then,
                error=error,
            )
        )


def _end_step(run: Unfolding, step: str, error: ErrorRecord, record: _Reporting | _Losing) -> None:
    """A step has failed for good: take its error route, or fail the run."""
    route = (
        NoRoute(declared=False)
        if is_compensation(step)
        else route_from(run.definition, run.state, step, On.ERROR, run.state.context)
    )
    match route:
        case Route(number=number, transition=transition):
            record(error, AfterFailure.ROUTE)
            run.add(
                StepRouted(
                    at=run.now,
                    step=step,
                    transition=number,
                    target=transition.target,
                    recovery=transition.recovery,
                )
            )
            run.go_to(transition.target)
        case NoRoute(declared=True):
            record(error, AfterFailure.ROUTE)
            run.fail(no_matching_transition(step, On.ERROR, error))
        case NoRoute():
            record(error, AfterFailure.FAIL)
            if not is_compensation(step):
                run.cancel_unclaimed()
            run.settle()


def _put_off(run: Unfolding, attempt: AttemptId, outcome: PutOff) -> None:
    if run.is_ending:
        run.add(AttemptCancelled(at=run.now, step=attempt.step, number=attempt.number))
        run.settle()
        return
    if run.state.steps[attempt.step].deferrals >= MAX_DEFERRALS:
        error = ErrorRecord(
            code="deferred_too_often",
            message=f"Step {attempt.step!r} was deferred more than {MAX_DEFERRALS} times.",
            details={"deferrals": MAX_DEFERRALS},
        )
        _end_step(run, attempt.step, error, _Reporting(run, attempt))
        return
    run.add(
        AttemptDeferred(
            at=run.now,
            step=attempt.step,
            number=attempt.number,
            visible_at=visible_from(run.now, max(outcome.delay, timedelta(0))),
            reason=outcome.reason,
        )
    )


def lose(run: Unfolding, command: LoseAttempt) -> Result[Decision, Refusal]:
    """The decision about a claim whose lease ran out: another attempt, unless it kills workers."""
    attempt = find_attempt(run.state, command.attempt)
    if (
        attempt is None
        or attempt.status is not AttemptStatus.CLAIMED
        or attempt.claim_id != command.claim_id
    ):
        holder = holder_of(run.state, command.attempt.step)
        return Failure(ClaimIsStale(attempt=command.attempt, holder=holder))
    losses = run.state.steps[command.attempt.step].lost + 1
    if run.is_ending:
        _lost(run, command.attempt, AfterFailure.RECORD)
        run.settle()
    elif losses >= command.max_deliveries:
        error = _poisoned(command.attempt.step, losses)
        _end_step(run, command.attempt.step, error, _Losing(run, command.attempt))
    else:
        _lost(run, command.attempt, AfterFailure.RETRY)
        _next_attempt(run, command.attempt, timedelta(0))
    return Success(run.decision())


def _lost(run: Unfolding, attempt: AttemptId, then: AfterFailure) -> None:
    run.add(AttemptLost(at=run.now, step=attempt.step, number=attempt.number, then=then))


def _poisoned(step: str, losses: int) -> ErrorRecord:
    return ErrorRecord(
        code="poisoned",
        message=f"Step {step!r} lost its worker {losses} times, so it is not tried again.",
        details={"deliveries": losses},
    )
