"""How one entry changes what is known of a run.

`evolve` folds one entry, `rebuild` folds all of them, and `assemble` puts the same state together
from stored rows. All three are total and blind to anything but their arguments: no clock, no
definition. That is why a journal can be read by code that does not know the workflow any more.

The module is long because there is a short function for each entry of the vocabulary, and a reader
looks for them here.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

import attrs

from squidmesh.domain.entries import (
    AfterFailure,
    AttemptCancelled,
    AttemptClaimed,
    AttemptCompleted,
    AttemptDeferred,
    AttemptFailed,
    AttemptHeartbeat,
    AttemptLost,
    AttemptScheduled,
    CancelRequested,
    CompensationPlanned,
    Entry,
    ErrorRecord,
    FinalStatus,
    Issuer,
    LiveWakeupEmitted,
    ManualStepPaused,
    ManualStepResolved,
    RunIndexed,
    RunnableApplied,
    RunnablesPlanned,
    RunReplayed,
    RunStarted,
    RunTerminal,
    StepRouted,
)
from squidmesh.domain.growing import put
from squidmesh.domain.replacing import amend, replace
from squidmesh.domain.state import (
    NOTHING_OPEN,
    OPEN,
    AttemptState,
    AttemptStatus,
    RunState,
    RunStatus,
    StepState,
    StepStatus,
    Undoing,
    compensated_step,
    compensation_of,
    is_compensation,
)
from squidmesh.domain.values import Json


def rebuild(run_id: str, entries: Iterable[Entry]) -> RunState:
    """Fold *entries*, from the first on, into the state they lead to."""
    state = RunState(run_id=run_id)
    for entry in entries:
        state = evolve(state, entry)
    return state


def evolve(state: RunState, entry: Entry) -> RunState:  # noqa: C901, PLR0912
    """Fold one entry; total over the vocabulary, and blind to anything but its arguments.

    What every step brings stands first: cases are tried in order.
    """
    changed = state
    match entry:
        case AttemptCompleted():
            changed = _completed(state, entry)
        case RunnableApplied():
            changed = _applied(state, entry)
        case AttemptClaimed():
            changed = _claimed(state, entry)
        case AttemptScheduled():
            changed = _scheduled(state, entry)
        case RunnablesPlanned():
            # Steps of one plan are due at one time, and then it is their names that order claims.
            planned = entry.steps if len(entry.steps) == 1 else sorted(entry.steps)
            changed = replace(state, unclaimed=(*state.unclaimed, *planned))
        case RunIndexed() | AttemptHeartbeat() | LiveWakeupEmitted():
            pass
        case RunStarted():
            changed = _started(state, entry)
        case AttemptDeferred():
            changed = _deferred(state, entry)
        case AttemptFailed():
            changed = _failed(state, entry)
        case AttemptLost():
            changed = _lost(state, entry)
        case AttemptCancelled():
            changed = _attempt_cancelled(state, entry)
        case StepRouted():
            changed = _routed(state, entry)
        case ManualStepPaused():
            changed = _paused(state, entry)
        case ManualStepResolved():
            changed = _resolved(state, entry)
        case CancelRequested():
            changed = replace(_with_receipt(state, entry.issuer, "cancel"), cancelling=True)
        case CompensationPlanned():
            changed = replace(state, undoing=Undoing(remaining=entry.steps), error=entry.error)
        case RunReplayed():
            replayed = _with_receipt(state, entry.issuer, "replay")
            return replace(replayed, revision=state.revision + 1)
        case RunTerminal():
            changed = _terminal(state, entry)
    if changed is state:
        return replace(state, revision=state.revision + 1, updated_at=entry.at)
    return amend(
        changed,
        revision=state.revision + 1,
        status=_status_of(changed),
        updated_at=entry.at,
    )


def _status_of(state: RunState) -> RunStatus:
    """The status that a run's parts add up to."""
    if state.ended_at is not None:
        return state.status
    if state.undoing is not None:
        return RunStatus.COMPENSATING
    if state.cancelling:
        return RunStatus.CANCELLING
    counts = state.open
    if _PAUSED in counts:
        return RunStatus.PAUSED
    if _RETRYING in counts and _SCHEDULED not in counts and _RUNNING not in counts:
        return RunStatus.RETRYING
    return RunStatus.RUNNING if state.begun else RunStatus.PENDING


# Names of their own: every entry asks for these, and asking an enum for a member takes a while.
_PAUSED: Final = StepStatus.PAUSED
_RETRYING: Final = StepStatus.RETRYING
_SCHEDULED: Final = StepStatus.SCHEDULED
_RUNNING: Final = StepStatus.RUNNING

_ONLY: Final[Mapping[StepStatus | None, Mapping[StepStatus, int]]] = {
    status: {status: 1} if status in OPEN else NOTHING_OPEN for status in (*StepStatus, None)
}
"""The counts where one step at most is open: most runs have never known others."""


def _put(state: RunState, step: StepState) -> RunState:
    """A fresh state with one step replaced, and the counts of open steps right."""
    before = state.steps.get(step.step)
    old = before.status if before is not None else None
    counts = state.open
    if old is not step.status:
        counts = _recount(counts, old, step.status)
    return replace(state, steps=put(state.steps, step.step, step), open=counts)


def _recount(
    counts: Mapping[StepStatus, int], old: StepStatus | None, new: StepStatus
) -> Mapping[StepStatus, int]:
    if not counts if old not in OPEN else counts == _ONLY[old]:
        return _ONLY[new]
    changed = dict(counts)
    if old in OPEN:
        changed[old] -= 1
        if not changed[old]:
            del changed[old]
    if new in OPEN:
        changed[new] = changed.get(new, 0) + 1
    return changed


def _with_latest(step: StepState, attempt: AttemptState) -> tuple[AttemptState, ...]:
    return (*step.attempts[:-1], attempt)


def _with_receipt(state: RunState, issuer: Issuer, command: str) -> RunState:
    if issuer.idempotency_key is None:
        return state
    return replace(state, receipts={**state.receipts, issuer.idempotency_key: command})


def merged(context: Mapping[str, Json], output: Json, under: str | None) -> Mapping[str, Json]:
    """The context after one more output: under its key, or a mapping's keys one by one."""
    if under is not None:
        return put(context, under, output)
    if isinstance(output, dict) and output:
        return {**context, **output}
    return context


def _started(state: RunState, entry: RunStarted) -> RunState:
    changed = replace(state, started=entry)
    for index, carried in enumerate(entry.carried):
        step = StepState(
            step=carried.step,
            status=StepStatus.COMPLETED,
            output=carried.output,
            under=carried.under,
            applied=index - len(entry.carried),
            carried=True,
            since=entry.at,
        )
        context = merged(changed.context, carried.output, carried.under)
        changed = amend(_put(changed, step), applied=changed.applied + 1, context=context)
    return changed


def _scheduled(state: RunState, entry: AttemptScheduled) -> RunState:
    attempt = AttemptState(
        step=entry.step,
        visit=entry.visit,
        number=entry.number,
        status=AttemptStatus.SCHEDULED,
        queue=entry.queue,
        scheduled_at=entry.at,
        visible_at=entry.visible_at,
    )
    before = state.steps.get(entry.step)
    if before is not None:
        lost = before.attempts[-1].status is AttemptStatus.LOST
        status = StepStatus.SCHEDULED if lost else StepStatus.RETRYING
        attempts = (*before.attempts, attempt)
        return _put(state, replace(before, status=status, attempts=attempts))
    step = StepState(
        step=entry.step,
        visit=entry.visit,
        status=StepStatus.SCHEDULED,
        attempts=(attempt,),
        since=entry.at,
    )
    changed = _put(state, step)
    # A timer needs no worker to begin the run: it is under way as soon as the clock runs.
    is_timer = entry.visible_at > entry.at
    return amend(changed, begun=True) if is_timer else changed


def _claimed(state: RunState, entry: AttemptClaimed) -> RunState:
    step = state.steps[entry.step]
    attempt = replace(
        step.attempts[-1],
        status=AttemptStatus.CLAIMED,
        claim_id=entry.claim_id,
        token_hash=entry.token_hash,
        owner=entry.owner,
        lease=entry.lease,
        fence=state.revision + 1,
        claimed_at=entry.at,
        lease_until=entry.at + entry.lease,
        wake_at=None,
    )
    attempts = _with_latest(step, attempt)
    step = replace(step, status=StepStatus.RUNNING, attempts=attempts, deferred=None)
    changed = _put(state, step)
    return amend(changed, begun=True, unclaimed=_still_unclaimed(changed))


def _still_unclaimed(state: RunState) -> tuple[str, ...]:
    """What waits for its first claim, without those in front for which that is over."""
    names = state.unclaimed
    over = 0
    for name in names:
        step = state.steps.get(name)
        if step is None or step.is_untried:
            break
        over += 1
    return names[over:]


def _deferred(state: RunState, entry: AttemptDeferred) -> RunState:
    step = state.steps[entry.step]
    attempt = replace(
        step.attempts[-1],
        status=AttemptStatus.SCHEDULED,
        visible_at=entry.visible_at,
        claim_id=None,
        token_hash=None,
        owner=None,
        lease=None,
        fence=None,
        claimed_at=None,
        lease_until=None,
    )
    return _put(
        state,
        replace(
            step,
            status=StepStatus.SCHEDULED,
            attempts=_with_latest(step, attempt),
            deferrals=step.deferrals + 1,
            deferred=entry.reason,
        ),
    )


def _ended(
    step: StepState, at: datetime, status: AttemptStatus, error: ErrorRecord | None = None
) -> tuple[AttemptState, ...]:
    """The step's attempts, the latest of them at its end: there is nothing left to prove."""
    attempt = replace(
        step.attempts[-1],
        status=status,
        ended_at=at,
        error=error,
        token_hash=None,
        lease_until=None,
    )
    return _with_latest(step, attempt)


def _completed(state: RunState, entry: AttemptCompleted) -> RunState:
    step = state.steps[entry.step]
    changed = _put(
        state,
        replace(
            step,
            status=StepStatus.COMPLETED,
            attempts=_ended(step, entry.at, AttemptStatus.COMPLETED),
            output=entry.output,
            error=None,
            ended=state.revision + 1,
        ),
    )
    return changed if changed.undoing is None else _undone(changed, changed.undoing, entry.step)


def _undone(state: RunState, undoing: Undoing, step: str, *failures: ErrorRecord) -> RunState:
    """Strike a compensation off the list, with the failure it ended in if it did."""
    remaining = tuple(name for name in undoing.remaining if compensation_of(name) != step)
    changed = Undoing(remaining=remaining, failures=(*undoing.failures, *failures))
    return replace(state, undoing=changed)


def _applied(state: RunState, entry: RunnableApplied) -> RunState:
    step = replace(
        state.steps[entry.step],
        applied=state.revision + 1,
        under=entry.under,
        transition=entry.transition,
    )
    context = merged(state.context, step.output, entry.under)
    return amend(_put(state, step), applied=state.applied + 1, context=context)


def _failed(state: RunState, entry: AttemptFailed) -> RunState:
    step = state.steps[entry.step]
    retried = entry.then is AfterFailure.RETRY
    changed = _put(
        state,
        replace(
            step,
            status=StepStatus.RETRYING if retried else StepStatus.FAILED,
            attempts=_ended(step, entry.at, AttemptStatus.FAILED, entry.error),
            failures=step.failures + 1,
            error=entry.error,
        ),
    )
    return _failed_for_good(changed, entry.step, entry.error, entry.then)


_STATUS_AFTER_LOSS: Final = {
    AfterFailure.RETRY: StepStatus.SCHEDULED,
    AfterFailure.RECORD: StepStatus.CANCELLED,
    AfterFailure.ROUTE: StepStatus.FAILED,
    AfterFailure.FAIL: StepStatus.FAILED,
}


def _lost(state: RunState, entry: AttemptLost) -> RunState:
    step = state.steps[entry.step]
    changed = _put(
        state,
        replace(
            step,
            status=_STATUS_AFTER_LOSS[entry.then],
            attempts=_ended(step, entry.at, AttemptStatus.LOST, entry.error),
            lost=step.lost + 1,
            error=entry.error or step.error,
        ),
    )
    return _failed_for_good(changed, entry.step, entry.error, entry.then)


def _failed_for_good(
    state: RunState, step: str, error: ErrorRecord | None, then: AfterFailure
) -> RunState:
    """Remember the failure that dooms the run; the first one is the run's error."""
    if then is not AfterFailure.FAIL or error is None:
        return state
    if state.undoing is not None:
        listed = attrs.evolve(error, step=compensated_step(step))
        return _undone(state, state.undoing, step, listed)
    return (
        state if state.error is not None else replace(state, error=attrs.evolve(error, step=step))
    )


def _attempt_cancelled(state: RunState, entry: AttemptCancelled) -> RunState:
    step = state.steps[entry.step]
    attempts = _ended(step, entry.at, AttemptStatus.CANCELLED)
    ended = replace(step, status=StepStatus.CANCELLED, attempts=attempts, deferred=None)
    return _put(state, ended)


def _routed(state: RunState, entry: StepRouted) -> RunState:
    return _put(state, replace(state.steps[entry.step], transition=entry.transition))


def _paused(state: RunState, entry: ManualStepPaused) -> RunState:
    step = StepState(
        step=entry.step,
        visit=entry.visit,
        status=StepStatus.PAUSED,
        under=entry.output,
        manual=entry,
        since=entry.at,
    )
    return amend(_put(state, step), begun=True)


def _resolved(state: RunState, entry: ManualStepResolved) -> RunState:
    before = state.steps[entry.step]
    step = replace(
        before,
        status=StepStatus.COMPLETED,
        output=entry.output,
        transition=entry.transition,
        ended=state.revision + 1,
        applied=state.revision + 1,
    )
    context = (
        state.context if before.under is None else merged(state.context, entry.output, before.under)
    )
    changed = amend(_put(state, step), applied=state.applied + 1, context=context)
    return _with_receipt(changed, entry.issuer, entry.action.value)


def _terminal(state: RunState, entry: RunTerminal) -> RunState:
    paused = state.paused_step
    if paused is not None:
        state = _put(state, replace(paused, status=StepStatus.CANCELLED))
    return replace(
        state,
        status=_FINAL_STATUS[entry.status],
        error=entry.error,
        ended_at=entry.at,
        undoing=None,
    )


_FINAL_STATUS: Final = {
    FinalStatus.COMPLETED: RunStatus.COMPLETED,
    FinalStatus.FAILED: RunStatus.FAILED,
    FinalStatus.CANCELLED: RunStatus.CANCELLED,
}


def assemble(run: RunState, steps: Iterable[StepState]) -> RunState:
    """Put a run's stored row and its stored steps together again.

    *run* is a state without steps; the context, the counts and the number of applied steps
    follow from *steps*, which may come in any order.
    """
    reached = list(steps)
    context: Mapping[str, Json] = {}
    applied = sorted((step for step in reached if step.applied is not None), key=_application)
    for step in applied:
        if step.manual is None or step.under is not None:
            context = merged(context, step.output, step.under)
    counts: dict[StepStatus, int] = {}
    for step in reached:
        if step.status in OPEN:
            counts[step.status] = counts.get(step.status, 0) + 1
    untried = [
        (step.attempts[0].visible_at, step.step)
        for step in reached
        if step.is_untried and not is_compensation(step.step)
    ]
    return replace(
        run,
        steps={step.step: step for step in reached},
        context=context,
        open=counts,
        unclaimed=tuple([name for _, name in sorted(untried)]),
        applied=len(applied),
    )


def _application(step: StepState) -> int:
    return step.applied if step.applied is not None else 0
