"""What is told behind a commit: events for sinks, and one log line for each change of a run.

Events are derived from entries, so nothing is told that is not durable. A sink is a plain call; one
that raises changes nothing and is reported, one that is slow is reported once.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Protocol

import attrs

from squidmesh.domain.commands import SkipReason
from squidmesh.domain.dispatch import Anomaly, AnomalyKind
from squidmesh.domain.entries import (
    AfterFailure,
    AttemptClaimed,
    AttemptCompleted,
    AttemptFailed,
    AttemptLost,
    AttemptScheduled,
    Entry,
    FinalStatus,
    ManualAction,
    ManualStepResolved,
    RunStarted,
    RunTerminal,
)
from squidmesh.domain.inspection import current_step
from squidmesh.domain.state import RunState, RunStatus, StepState
from squidmesh.logs import logger
from squidmesh.ports.store import ClaimedAttempt
from squidmesh.runtime.asks import Settled

SLOW_SINK: Final = 0.05

_TOO_LATE: Final = frozenset({AnomalyKind.STALE_CLAIM, AnomalyKind.EXPIRED_CLAIM})

log = logger("run")
# What it says is stored as well: where nobody has configured logging it need not be on stderr.
_host = logging.getLogger("squidmesh.run")
_host.addHandler(logging.NullHandler())
trouble = logger("telemetry")


@attrs.frozen
class Event:
    """Something that happened: a name, who and where, and numbers in seconds."""

    name: str
    metadata: Mapping[str, object]
    measurements: Mapping[str, float]


class Sink(Protocol):
    """Whoever wants to hear of events."""

    def emit(self, event: Event) -> None:
        """Take one event, quickly; called on the event loop behind the commit."""


@attrs.define(eq=False)
class Telemetry:
    """Tells sinks and the log what commits have changed."""

    sinks: tuple[Sink, ...] = ()
    _slow: set[int] = attrs.field(factory=set[int])

    def settled(self, commits: Sequence[Settled]) -> None:
        """Tell what a group of commits changed."""
        warns, informs = _host.isEnabledFor(logging.WARNING), _host.isEnabledFor(logging.INFO)
        if not self.sinks and not warns:
            return
        for commit in commits:
            if self.sinks:
                for event in _events(commit):
                    self._tell(event)
            if warns:
                _warn(commit)
            if informs:
                _inform(commit)

    def claimed(self, state: RunState, claimed: ClaimedAttempt) -> None:
        """Tell that a worker began an attempt which it had claimed from the store."""
        if not self.sinks and not _host.isEnabledFor(logging.INFO):
            return
        if self.sinks:
            self._tell(_step_event("squidmesh.step.started", state, claimed.entry))
        before, after = claimed.found, claimed.found.once_claimed
        if before is not after:
            if self.sinks:
                self._tell(_transition_event(before, after, state))
            _log_transition(before, after, state)

    def skipped(
        self,
        state: RunState | None,
        run_id: str,
        step: str | None,
        attempt: int | None,
        reason: SkipReason,
    ) -> None:
        """Tell that a delivery was not performed; *state* is the run's, if there is one."""
        if self.sinks:
            known = _run_fields(state) if state is not None else {"run_id": run_id}
            metadata = {**known, "step": step, "attempt": attempt, "reason": reason.value}
            self._tell(Event("squidmesh.step.skipped", metadata, {}))

    def anomaly(self, anomaly: Anomaly) -> None:
        """Tell that a claim or a report contradicted the dispatch protocol and changed nothing."""
        fields = {
            "kind": anomaly.kind.value,
            "run_id": anomaly.run_id,
            "step": anomaly.attempt.step,
            "attempt": anomaly.attempt.number,
        }
        # A delivery that finds its attempt taken is daily business; a report that comes too late
        # means that a body ran beyond its lease.
        said = log.warning if anomaly.kind in _TOO_LATE else log.debug
        said("dispatch.anomaly", **fields)
        if self.sinks:
            self._tell(Event("squidmesh.dispatch.anomaly", fields, {}))

    def dispatched(
        self, state: RunState | None, run_id: str, metadata: Mapping[str, object]
    ) -> None:
        """Tell that the executor took a wake-up; the run's own fields win over the engine's."""
        if self.sinks:
            known = _run_fields(state) if state is not None else {"run_id": run_id}
            self._tell(Event("squidmesh.run.dispatched", {**metadata, **known}, {}))

    def _tell(self, event: Event) -> None:
        for sink in self.sinks:
            began = time.perf_counter()
            try:
                sink.emit(event)
            except Exception as problem:  # noqa: BLE001  observers are harmless
                trouble.warning("sink.failed", sink=_name(sink), error=type(problem).__name__)
            if time.perf_counter() - began > SLOW_SINK and id(sink) not in self._slow:
                self._slow.add(id(sink))
                trouble.warning("sink.slow", sink=_name(sink), limit=SLOW_SINK)


def _name(sink: Sink) -> str:
    return type(sink).__qualname__


def _run_fields(state: RunState) -> dict[str, object]:
    return {
        "run_id": state.run_id,
        "workflow": state.facts.workflow,
        "trigger": state.facts.trigger,
        "status": state.status.value,
        "current_step": current_step(state),
    }


def _events(commit: Settled) -> Iterator[Event]:  # noqa: C901  a table of entries
    state = commit.state
    for entry in commit.entries:
        match entry:
            case RunStarted(replayed_from=None):
                yield Event("squidmesh.run.created", _run_fields(state), {})
            case RunStarted():
                fields = {**_run_fields(state), "replayed_from": entry.replayed_from}
                yield Event("squidmesh.run.replayed", fields, {})
            case AttemptClaimed():
                yield _step_event("squidmesh.step.started", state, entry)
            case AttemptCompleted():
                yield _step_event("squidmesh.step.completed", state, entry, _took(state, entry))
            case AttemptFailed():
                yield _failed_event(state, entry)
            case AttemptLost():
                yield _step_event("squidmesh.step.lost", state, entry)
            case ManualStepResolved():
                yield _decision_event(state, entry)
            case RunTerminal(status=FinalStatus.CANCELLED) if commit.before.paused_step is not None:
                yield _unanswered_event(commit.before.paused_step, state, entry)
            case _:
                continue
    yield from _retries(commit)
    if commit.before.started is not None and commit.before.status is not state.status:
        yield _transition_event(commit.before.status, state.status, state)


def _transition_event(before: RunStatus, after: RunStatus, state: RunState) -> Event:
    moved = {"from_status": before.value, "to_status": after.value}
    return Event("squidmesh.run.transition", {**_run_fields(state), **moved}, {})


def _decision_event(state: RunState, entry: ManualStepResolved) -> Event:
    """A manual step has no attempts; it lasts from its opening to the decision."""
    step = state.steps[entry.step]
    fields = {**_run_fields(state), "step": entry.step, "attempt": None}
    took = {"duration": (entry.at - step.since).total_seconds()}
    if entry.action is not ManualAction.REJECTED:
        return Event("squidmesh.step.completed", fields, took)
    rejected = {"error": {"code": "rejected", "type": None}}
    return Event("squidmesh.step.failed", {**fields, **rejected}, took)


def _unanswered_event(step: StepState, state: RunState, entry: RunTerminal) -> Event:
    fields = {**_run_fields(state), "step": step.step, "attempt": None}
    cancelled = {"error": {"code": "cancelled", "type": None}}
    took = {"duration": (entry.at - step.since).total_seconds()}
    return Event("squidmesh.step.failed", {**fields, **cancelled}, took)


def _step_event(
    name: str,
    state: RunState,
    entry: AttemptClaimed | AttemptCompleted | AttemptFailed | AttemptLost,
    measurements: Mapping[str, float] | None = None,
) -> Event:
    fields = {**_run_fields(state), "step": entry.step, "attempt": entry.number}
    return Event(name, fields, measurements or {})


def _failed_event(state: RunState, entry: AttemptFailed) -> Event:
    event = _step_event("squidmesh.step.failed", state, entry, _took(state, entry))
    error = {"error": {"code": entry.error.code, "type": entry.error.type}}
    return attrs.evolve(event, metadata={**event.metadata, **error})


def _took(state: RunState, entry: AttemptCompleted | AttemptFailed) -> Mapping[str, float]:
    attempt = state.steps[entry.step].attempts[entry.number - 1]
    if attempt.claimed_at is None:
        return {}
    return {"duration": (entry.at - attempt.claimed_at).total_seconds()}


def _retries(commit: Settled) -> Iterator[Event]:
    failed = {
        entry.step: entry
        for entry in commit.entries
        if isinstance(entry, AttemptFailed) and entry.then is AfterFailure.RETRY
    }
    for entry in commit.entries:
        if isinstance(entry, AttemptScheduled) and entry.step in failed:
            delay = (entry.visible_at - entry.at).total_seconds()
            yield _step_event(
                "squidmesh.step.retry_scheduled",
                commit.state,
                failed[entry.step],
                {"delay": delay},
            )


def _warn(commit: Settled) -> None:
    """One line per failed or lost attempt."""
    state = commit.state
    for entry in _worth_a_line(commit.entries):
        error = entry.error.code if entry.error is not None else None
        kind = {"type": entry.error.type} if entry.error is not None and entry.error.type else {}
        log.warning(
            "attempt.failed" if isinstance(entry, AttemptFailed) else "attempt.lost",
            run_id=state.run_id,
            workflow=state.facts.workflow,
            step=entry.step,
            attempt=entry.number,
            error=error,
            **kind,
            then=entry.then.value,
        )


def _inform(commit: Settled) -> None:
    """One line per change of a run's status."""
    before, state = commit.before, commit.state
    if before.started is None:
        log.info("run.started", run_id=state.run_id, workflow=state.facts.workflow)
    elif before.status is not state.status:
        _log_transition(before.status, state.status, state)


def _log_transition(before: RunStatus, after: RunStatus, state: RunState) -> None:
    log.info(
        "run.transition",
        run_id=state.run_id,
        workflow=state.facts.workflow,
        from_status=before.value,
        to_status=after.value,
    )


def _worth_a_line(entries: Iterable[Entry]) -> Iterator[AttemptFailed | AttemptLost]:
    for entry in entries:
        if isinstance(entry, (AttemptFailed, AttemptLost)):
            yield entry
