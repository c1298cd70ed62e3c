"""A second opinion on a run: the laws of its journal, told without `evolve` and `decide`.

The ledger reads entries one by one, believes nothing, and stops at the first that may not stand
where it stands. What it knows afterwards is compared with what the core says.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

import attrs

from squidmesh.domain.definition import COMPENSATION_PREFIX, On, RetryPolicy, WorkflowDefinition
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
    DispatchEntry,
    Entry,
    FinalStatus,
    LiveWakeupEmitted,
    ManualAction,
    ManualStepPaused,
    ManualStepResolved,
    RunEntry,
    RunIndexed,
    RunnableApplied,
    RunnablesPlanned,
    RunReplayed,
    RunStarted,
    RunTerminal,
    StepRouted,
)
from squidmesh.domain.state import RunStatus

FINAL: Final = {
    FinalStatus.COMPLETED: RunStatus.COMPLETED,
    FinalStatus.FAILED: RunStatus.FAILED,
    FinalStatus.CANCELLED: RunStatus.CANCELLED,
}

_UNSUCCESSFUL: Final = frozenset({RunStatus.CANCELLED, RunStatus.COMPENSATING, RunStatus.FAILED})

LEGAL: Final[Mapping[RunStatus, frozenset[RunStatus]]] = {
    RunStatus.PENDING: frozenset({RunStatus.RUNNING, RunStatus.FAILED, RunStatus.CANCELLED}),
    RunStatus.RUNNING: _UNSUCCESSFUL
    | {RunStatus.RETRYING, RunStatus.PAUSED, RunStatus.CANCELLING, RunStatus.COMPLETED},
    RunStatus.RETRYING: _UNSUCCESSFUL | {RunStatus.RUNNING, RunStatus.CANCELLING},
    RunStatus.PAUSED: _UNSUCCESSFUL | {RunStatus.RUNNING, RunStatus.COMPLETED},
    RunStatus.CANCELLING: frozenset({RunStatus.CANCELLED}),
    RunStatus.COMPENSATING: frozenset({RunStatus.FAILED}),
    RunStatus.FAILED: frozenset(),
    RunStatus.COMPLETED: frozenset(),
    RunStatus.CANCELLED: frozenset(),
}
"""The moves between two commands."""


@attrs.define
class Try:
    """What the ledger knows of one attempt."""

    visible_at: datetime
    holder: str | None = None
    fence: int = 0
    is_open: bool = True
    is_retry: bool = False


@attrs.define
class Ledger:
    """The laws, and what they need to remember; *wishes* are delays that bodies asked for."""

    definition: WorkflowDefinition
    max_deliveries: int
    wishes: dict[tuple[str, int], timedelta] = attrs.field(factory=dict[tuple[str, int], timedelta])
    count: int = 0
    tries: dict[str, list[Try]] = attrs.field(factory=dict[str, list[Try]])
    completed: list[str] = attrs.field(factory=list[str])
    applied: list[str] = attrs.field(factory=list[str])
    failures: dict[str, int] = attrs.field(factory=dict[str, int])
    losses: dict[str, int] = attrs.field(factory=dict[str, int])
    to_undo: list[str] | None = None
    manual: str | None = None
    route: int | None = None
    decided: list[str] = attrs.field(factory=list[str])
    replays: int = 0
    began: bool = False
    doomed: bool = False
    cancelling: bool = False
    end: FinalStatus | None = None

    def note(self, entry: Entry) -> None:
        """Take one more entry, if it may stand here."""
        assert self.end is None or isinstance(entry, RunReplayed)
        assert isinstance(entry, RunStarted) == (self.count == 0)
        assert isinstance(entry, RunIndexed) == (self.count == 1)
        self.count += 1
        if isinstance(entry, RunEntry):
            self._of_the_run(entry)
        elif isinstance(entry, DispatchEntry):
            self._of_an_attempt(entry)

    def _of_the_run(self, entry: RunEntry) -> None:  # noqa: C901  # a case for each
        match entry:
            case RunStarted():
                self.applied.extend(item.step for item in entry.carried)
            case RunnablesPlanned():
                self._planned(entry)
            case RunnableApplied():
                self._applied(entry)
            case ManualStepPaused():
                assert not self.open_tries
                assert entry.step not in (*self.decided, self.manual)
                self.manual, self.began = entry.step, True
            case ManualStepResolved():
                self._resolved(entry)
            case CancelRequested():
                assert not any((self.cancelling, self.to_undo is not None))
                self.cancelling = True
            case CompensationPlanned():
                self._undoing(entry)
            case RunTerminal():
                self._over(entry)
            case StepRouted():
                self.route = entry.transition
                assert self.definition.transitions[self.route].target == entry.target
            case RunReplayed():
                self.replays += 1

    def _of_an_attempt(self, entry: DispatchEntry) -> None:
        match entry:
            case AttemptScheduled():
                self._scheduled(entry)
            case AttemptClaimed():
                self._claimed(entry)
            case AttemptDeferred():
                assert not self.is_ending
                latest = self._held(entry.step, entry.number)
                latest.holder, latest.is_retry = None, False
                latest.visible_at = entry.visible_at
            case AttemptCompleted():
                self._close(self._held(entry.step, entry.number))
                assert entry.step not in self.completed
                self.completed.append(entry.step)
            case AttemptFailed():
                self._close(self._held(entry.step, entry.number))
                self._exhausting(entry)
                self._failed(entry.then)
            case AttemptLost():
                self._close(self._held(entry.step, entry.number))
                self._poisoning(entry)
                self._failed(entry.then)
            case AttemptCancelled():
                assert self.is_ending
                self._close(self._latest(entry.step, entry.number))
            case AttemptHeartbeat() | LiveWakeupEmitted():
                raise AssertionError(entry)

    def _applied(self, entry: RunnableApplied) -> None:
        assert not any((self.doomed, self.cancelling))
        assert entry.step in self.completed
        assert entry.step not in self.applied
        self.applied.append(entry.step)
        self.route = entry.transition

    def _resolved(self, entry: ManualStepResolved) -> None:
        on = On.ERROR if entry.action is ManualAction.REJECTED else On.OK
        ((self.route, _),) = self.definition.routes[(entry.step, on)]
        assert entry.transition == self.route
        assert entry.step == self.manual
        self.decided.append(entry.step)
        self.manual = None

    def _planned(self, entry: RunnablesPlanned) -> None:
        """Along routes, the next step is the one that the route just taken leads to."""
        assert entry.steps
        assert not any((self.doomed, self.cancelling))
        if self.route is not None:
            assert entry.steps == (self.definition.transitions[self.route].target,)

    def _scheduled(self, entry: AttemptScheduled) -> None:
        tries = self.tries.setdefault(entry.step, [])
        assert entry.number == len(tries) + 1
        assert not any(one.is_open for one in tries)
        assert not self.cancelling
        assert entry.visible_at >= entry.at
        is_retry = bool(tries) and self._retry_is_due(entry)
        tries.append(Try(visible_at=entry.visible_at, is_retry=is_retry))
        self.began |= entry.visible_at > entry.at
        if entry.step.startswith(COMPENSATION_PREFIX):
            self._undo_begins(entry)
            return
        assert not self.doomed
        spec = self.definition.by_name[entry.step]
        assert set(spec.after or ()) <= set(self.applied)
        assert entry.number > 1 or entry.step not in (*self.completed, *self.applied)
        assert not self.definition.follows_transitions or len(self.open_tries) == 1

    def _undo_begins(self, entry: AttemptScheduled) -> None:
        assert self.to_undo is not None
        assert len(self.open_tries) == 1
        if entry.number == 1:
            following = self.to_undo.pop(0)
            assert following == self._undone(entry.step)

    def _retry_is_due(self, entry: AttemptScheduled) -> bool:
        """Whether this follows a failure rather than a loss, and then: in its time."""
        delay = entry.visible_at - entry.at
        wish = self.wishes.get((entry.step, entry.number - 1))
        if wish is None:
            assert delay == timedelta(0)
            return False
        policy = self._policy(entry.step)
        if wish == NO_WISH:
            assert policy.backoff_min <= delay
            assert policy.backoff_max is None or delay <= policy.backoff_max
        else:
            assert delay == wish
        return True

    def _policy(self, step: str) -> RetryPolicy:
        if not step.startswith(COMPENSATION_PREFIX):
            return self.definition.by_name[step].retry
        compensation = self.definition.by_name[self._undone(step)].compensation
        assert compensation is not None
        return compensation.retry

    @staticmethod
    def _undone(step: str) -> str:
        return step.removeprefix(COMPENSATION_PREFIX)

    def _claimed(self, entry: AttemptClaimed) -> None:
        latest = self._latest(entry.step, entry.number)
        assert latest.holder is None
        assert latest.visible_at <= entry.at
        assert not self.cancelling
        latest.holder, latest.fence = entry.claim_id, self.count
        latest.is_retry = False
        self.began = True

    def _latest(self, step: str, number: int) -> Try:
        tries = self.tries[step]
        assert number == len(tries)
        assert tries[-1].is_open
        return tries[-1]

    def _held(self, step: str, number: int) -> Try:
        latest = self._latest(step, number)
        assert latest.holder is not None
        return latest

    @staticmethod
    def _close(latest: Try) -> None:
        latest.is_open, latest.holder, latest.is_retry = False, None, False

    def _exhausting(self, entry: AttemptFailed) -> None:
        """A step fails for good at a terminal error or at its last attempt, and not before."""
        failures = self.failures.get(entry.step, 0) + 1
        self.failures[entry.step] = failures
        maximum = self._policy(entry.step).max_attempts
        is_last = not entry.error.retryable or failures == maximum
        assert failures <= maximum
        if not self.is_ending:
            assert is_last == (entry.then is not AfterFailure.RETRY)

    def _poisoning(self, entry: AttemptLost) -> None:
        """A step is poisoned by the loss that reaches the bound, and not before."""
        losses = self.losses.get(entry.step, 0) + 1
        self.losses[entry.step] = losses
        is_last = losses == self.max_deliveries
        assert losses <= self.max_deliveries
        if not self.is_ending:
            assert is_last == (entry.then is not AfterFailure.RETRY)
            assert is_last == (entry.error is not None)

    def _failed(self, then: AfterFailure) -> None:
        assert (then is AfterFailure.RECORD) == self.is_ending
        if then is AfterFailure.FAIL:
            self.doomed = True

    def _undoing(self, entry: CompensationPlanned) -> None:
        assert self.to_undo is None
        assert not self.cancelling
        assert not self.open_tries
        undoable = [
            name
            for name in reversed(self.completed)
            if self.definition.by_name[name].compensation is not None
        ]
        assert list(entry.steps) == undoable
        self.to_undo, self.doomed = undoable, True

    def _over(self, entry: RunTerminal) -> None:
        assert not self.open_tries
        assert not self.to_undo
        assert self.manual is None or entry.status is FinalStatus.CANCELLED
        assert (entry.status is FinalStatus.CANCELLED) == self.cancelling
        assert (entry.error is not None) == (entry.status is FinalStatus.FAILED or self.doomed)
        assert not (self.doomed and entry.status is FinalStatus.COMPLETED)
        if entry.status is FinalStatus.COMPLETED and not self.definition.follows_transitions:
            assert set(self.applied) == set(self.definition.by_name)
        self.end, self.manual = entry.status, None

    @property
    def is_ending(self) -> bool:
        """Whether the run only waits for what is in flight."""
        return self.cancelling or (self.doomed and self.to_undo is None)

    @property
    def open_tries(self) -> list[tuple[str, Try]]:
        """The attempts that are scheduled or held, by step."""
        return [(step, tries[-1]) for step, tries in self.tries.items() if tries[-1].is_open]

    @property
    def holders(self) -> dict[str, str]:
        """The claims that count, by step."""
        return {step: one.holder for step, one in self.open_tries if one.holder is not None}

    @property
    def fences(self) -> dict[str, int]:
        """The run's length at each claim that counts, by step."""
        return {step: one.fence for step, one in self.open_tries if one.holder is not None}

    @property
    def status(self) -> RunStatus:
        """Where the run has to stand between two commands."""
        if self.end is not None:
            return FINAL[self.end]
        if self.to_undo is not None:
            return RunStatus.COMPENSATING
        if self.cancelling:
            return RunStatus.CANCELLING
        if self.manual is not None:
            return RunStatus.PAUSED
        if self.open_tries and all(one.is_retry for _, one in self.open_tries):
            return RunStatus.RETRYING
        return RunStatus.RUNNING if self.began else RunStatus.PENDING


NO_WISH: Final = timedelta(days=-1)
"""Stands for a retry whose delay is the policy's."""
