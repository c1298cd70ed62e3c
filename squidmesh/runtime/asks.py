"""Commands on their way to the store, and what comes back for each."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

import attrs
from returns.result import Failure, Result

from squidmesh.domain.commands import (
    ClaimAttempt,
    ClaimIsStale,
    Command,
    NotClaimable,
    Refusal,
    ReportOutcome,
    SkipReason,
    StartRun,
)
from squidmesh.domain.dispatch import Anomaly, anomaly_of
from squidmesh.domain.entries import Entry
from squidmesh.domain.state import RunState
from squidmesh.ports.store import GuardFailed, KeyRecord, LeaseOver, StillDue, StillHeld


@attrs.frozen
class Settled:
    """A command that is committed: what it led to, and the run before and behind it.

    *entries* is empty for a command that had been given before under the same key; *existing* is
    the run that such a start found.
    """

    entries: tuple[Entry, ...]
    before: RunState
    state: RunState
    at: datetime
    existing: str | None = None


Answer = Result[Settled, Refusal]
Observer = Callable[[Sequence[Settled]], None]


@attrs.define(eq=False)
class Ask:
    """One command about one run, on its way to the store.

    *spawn* makes the command that starts another run in the same transaction, from the state that
    this one was decided on: all of it happens or nothing. *reloads* asks for a decision on the
    store's state and not on the one that is known here. *holds* counts how often the run was held
    by somebody else's transaction, and *held_for* sums up how many seconds were waited for that.
    """

    run_id: str
    command: Command
    key: KeyRecord | None = None
    spawn: Callable[[RunState], StartRun] | None = None
    tries: int = 0
    reloads: bool = False
    holds: int = 0
    held_for: float = 0.0
    answer: "asyncio.Future[Answer]" = attrs.field(
        factory=lambda: asyncio.get_running_loop().create_future()
    )

    def settle(self, answer: Answer) -> None:
        """Give the answer, unless whoever asked is gone."""
        if not self.answer.done():
            self.answer.set_result(answer)

    def fail(self, accident: BaseException) -> None:
        """Give an accident for an answer."""
        if not self.answer.done():
            self.answer.set_exception(accident)
            # Whoever asked may have been cancelled meanwhile: then nobody has to hear of it.
            self.answer.exception()


def refuse(asks: Iterable[Ask], concerns: Callable[[Ask], bool], refusal: Refusal) -> None:
    """Answer those of *asks* that it *concerns* with a refusal."""
    for ask in asks:
        if concerns(ask):
            ask.settle(Failure(refusal))


def starts(ask: Ask) -> bool:
    """Whether the ask begins a run."""
    return isinstance(ask.command, StartRun)


def anomaly_in(ask: Ask, refusal: Refusal, state: RunState) -> Anomaly | None:
    """How a refused claim or report contradicts the protocol; other refusals do not."""
    if isinstance(ask.command, ClaimAttempt | ReportOutcome) and isinstance(
        refusal, ClaimIsStale | NotClaimable
    ):
        return anomaly_of(state, refusal)
    return None


def asks_about(failure: GuardFailed) -> Callable[[Ask], bool]:
    """Tell apart the asks whose guard failed from those that only came along."""

    def concerns(ask: Ask) -> bool:
        return getattr(ask.command, "attempt", None) == failure.guard.attempt

    return concerns


def refusal_of(failure: GuardFailed) -> Refusal:
    """The domain's word for a guard that does not hold."""
    match failure.guard:
        case StillHeld(attempt=attempt) | LeaseOver(attempt=attempt):
            return ClaimIsStale(attempt=attempt, holder=failure.holder)
        case StillDue(attempt=attempt):
            reason = SkipReason.ALREADY_CLAIMED if failure.holder else SkipReason.NOT_YET_VISIBLE
            return NotClaimable(attempt=attempt, reason=reason)
