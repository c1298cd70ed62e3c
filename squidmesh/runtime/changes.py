"""From a decision to the rows that differ."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Final

from squidmesh.domain.commands import (
    ApproveRun,
    CancelRun,
    ClaimAttempt,
    Command,
    LoseAttempt,
    RejectRun,
    ReplayRun,
    ReportOutcome,
    ResumeRun,
    StartRun,
)
from squidmesh.domain.entries import Entry
from squidmesh.domain.inspection import current_step
from squidmesh.domain.replacing import replace
from squidmesh.domain.state import AttemptState, AttemptStatus, RunState, StepState
from squidmesh.domain.unfolding import Decision
from squidmesh.domain.values import Json
from squidmesh.ports.store import (
    Guard,
    JournalRow,
    KeyRecord,
    LeaseOver,
    RunChange,
    StillDue,
    StillHeld,
)

CAUSES: Final[dict[type, str]] = {
    StartRun: "start",
    ClaimAttempt: "claim",
    ReportOutcome: "report",
    LoseAttempt: "lose",
    CancelRun: "cancel",
    ResumeRun: "resume",
    ApproveRun: "approve",
    RejectRun: "reject",
    ReplayRun: "replay",
}

Decided = tuple[Command, tuple[Entry, ...], KeyRecord | None]
WakeAt = Callable[[AttemptState, datetime], datetime | None]


def run_change(
    before: RunState, after: RunState, decided: Sequence[Decided], now: datetime
) -> RunChange:
    """Describe what takes a run from *before* to *after*: changed rows, entries, guards, keys."""
    guards: list[Guard] = []
    touched: dict[str, None] = {}
    told = [item for item in decided if item[1]]
    for command, entries, _ in told:
        guard = _guard(command)
        if guard is not None:
            guards.append(guard)
        for entry in entries:
            step = getattr(entry, "step", None)
            if step is not None:
                touched[step] = None
    steps = _changed_steps(before, after, touched)
    return RunChange(
        run_id=after.run_id,
        expected=before.revision,
        state=after,
        current_step=current_step(after),
        steps=steps,
        attempts=_changed_attempts(before, steps),
        journal=_journal(before.revision, told, now),
        guards=tuple(guards),
        keys=tuple([key for _, _, key in told if key is not None]),
    )


def change_alike(model: RunChange, decision: Decision, key: KeyRecord | None) -> RunChange:
    """Describe a start whose *decision* is alike to the one that the *model* describes."""
    (row,) = model.journal
    state = decision.state
    entries = decision.entries
    return RunChange(
        run_id=state.run_id,
        expected=model.expected,
        state=state,
        current_step=model.current_step,
        steps=model.steps,
        attempts=model.attempts,
        journal=(JournalRow(revision=row.revision, at=row.at, cause=row.cause, entries=entries),),
        keys=() if key is None else (key,),
    )


def _journal(revision: int, told: Sequence[Decided], now: datetime) -> tuple[JournalRow, ...]:
    """The rows behind *revision*: one for each command, but one for reports in succession.

    A wide run has many of those in each commit, and what each says stands in its entries.
    """
    rows: list[JournalRow] = []
    reported: list[Entry] = []
    for place, (command, entries, _) in enumerate(told, start=1):
        revision += len(entries)
        if isinstance(command, ReportOutcome):
            reported += entries
            if place < len(told) and isinstance(told[place][0], ReportOutcome):
                continue
        rows.append(_row(command, tuple(reported) or entries, revision, now))
        reported.clear()
    return tuple(rows)


def _row(command: Command, entries: tuple[Entry, ...], revision: int, now: datetime) -> JournalRow:
    actor: Json = None
    issuer = getattr(command, "issuer", None)
    if issuer is not None:
        actor = issuer.actor
    return JournalRow(
        revision=revision, at=now, cause=CAUSES[type(command)], entries=entries, actor=actor
    )


def _changed_steps(
    before: RunState, after: RunState, touched: Iterable[str]
) -> tuple[StepState, ...]:
    """The steps that differ; those that no entry names were put there with the run's start."""
    if before.started is None:
        return tuple(after.steps.values())
    if after.ended_at is not None and before.ended_at is None:
        touched = after.steps if before.paused_step is not None else touched
    known = before.steps
    found = [(after.steps.get(name), known.get(name)) for name in touched]
    return tuple([step for step, old in found if step is not None and step is not old])


def _changed_attempts(before: RunState, steps: Iterable[StepState]) -> tuple[AttemptState, ...]:
    changed: list[AttemptState] = []
    for step in steps:
        known = before.steps.get(step.step)
        if known is None:
            changed += step.attempts
            continue
        old = known.attempts
        for index, attempt in enumerate(step.attempts):
            if index >= len(old) or old[index] is not attempt:
                changed.append(attempt)
    return tuple(changed)


def owing_wakeups(
    attempts: tuple[AttemptState, ...], now: datetime, wake_at: WakeAt
) -> tuple[AttemptState, ...]:
    """The attempts, with the time at which somebody must be told of each that is unclaimed."""
    return tuple(
        replace(attempt, wake_at=wake_at(attempt, now))
        if attempt.status is AttemptStatus.SCHEDULED
        else attempt
        for attempt in attempts
    )


def _guard(command: Command) -> Guard | None:
    match command:
        case ReportOutcome(attempt=attempt, token_hash=token_hash):
            return StillHeld(attempt=attempt, token_hash=token_hash)
        case ClaimAttempt(attempt=attempt):
            return StillDue(attempt=attempt)
        case LoseAttempt(attempt=attempt, claim_id=claim_id):
            return LeaseOver(attempt=attempt, claim_id=claim_id)
        case StartRun() | CancelRun() | ResumeRun() | ApproveRun() | RejectRun() | ReplayRun():
            return None
