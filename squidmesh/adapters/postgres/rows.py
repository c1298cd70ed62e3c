"""Parts of a state as rows of values, and back.

What is written stands in the order of the columns in `tables`; what is read comes as JSON arrays,
in the order of the columns in `reading`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, TypeAlias

from squidmesh.adapters.postgres.statements import Row
from squidmesh.codec import DecodeProblem, decode, encode
from squidmesh.domain.entries import ErrorRecord, ManualStepPaused, RunStarted
from squidmesh.domain.state import (
    AttemptState,
    AttemptStatus,
    RunState,
    RunStatus,
    StepState,
    StepStatus,
    Undoing,
)
from squidmesh.domain.values import Json
from squidmesh.errors import JournalCorruptError
from squidmesh.ports.store import JournalRow, KeyRecord, RunChange
from squidmesh.records import (
    FORMAT,
    RecordProblem,
    duration,
    instant,
    microseconds,
    record_to_text,
    rows_to_text,
    text_to_entries,
    text_to_record,
)

JSON_TEXT: Final = 0
"""The one encoding of documents that there is so far."""

_NO_ATTEMPT: Final = (None,) * 17

_Columns: TypeAlias = tuple[tuple[str, Callable[[Any], Any] | None], ...]
"""For each column the field that it fills, and what makes a value of it that is not null."""


@contextmanager
def trusting(run_id: str) -> Iterator[None]:
    """Turn what cannot be read about a run into JournalCorruptError."""
    try:
        yield
    except RecordProblem as problem:
        raise JournalCorruptError(run_id, str(problem)) from problem


def moved_row(change: RunChange) -> Row:
    """What changes about a run with every commit, behind the revision that it expects."""
    state = change.state
    return (
        change.run_id,
        change.expected,
        state.revision,
        change.current_step,
        state.begun,
        state.cancelling,
        _document(state.error),
        _document(state.undoing),
        _instant(state.updated_at),
        state.status.value,
        _instant(state.ended_at),
    )


def started_row(change: RunChange) -> Row:
    """The row of a run that begins."""
    facts = change.state.facts
    return (
        *moved_row(change),
        facts.workflow,
        facts.version,
        facts.fingerprint,
        facts.trigger,
        facts.queue,
        facts.priority,
        facts.concurrency_key,
        encode(dict(facts.tags)) if facts.tags else None,
        facts.replayed_from,
        instant(facts.at),
    )


def step_row(run_id: str, step: StepState) -> Row:
    """What changes about a visit of a step."""
    return (
        run_id,
        step.step,
        step.visit,
        step.status.value,
        step.transition,
        step.ended,
        step.applied,
        step.failures or None,
        step.lost or None,
        step.deferrals or None,
        step.carried or None,
        None if step.output is None else encode(step.output),
        step.under,
        _document(step.error),
        _document(step.manual),
    )


def ended_run_row(change: RunChange) -> Row:
    """What a run ended as, and when."""
    state = change.state
    started_at, ended_at = instant(state.facts.at), _instant(state.ended_at)
    return (change.run_id, state.status.value, started_at, ended_at)


def latest_row(facts: RunStarted, step: StepState, attempt: AttemptState | None) -> Row:
    """A visit's latest attempt; what claims look for is repeated from its run while it waits."""
    if attempt is None:
        return _NO_ATTEMPT
    waits = attempt.status is AttemptStatus.SCHEDULED
    return (
        attempt.number,
        attempt.status.value,
        _instant(attempt.ended_at),
        _unless_same(attempt.scheduled_at, step),
        instant(attempt.visible_at) if waits else _unless_same(attempt.visible_at, step),
        _never(attempt) or _unless_same(attempt.claimed_at, step),
        _instant(attempt.wake_at),
        None if attempt.lease is None else microseconds(attempt.lease),
        attempt.fence,
        facts.priority if waits else None,
        attempt.claim_id,
        attempt.token_hash,
        attempt.owner,
        attempt.queue if waits or attempt.queue != facts.queue else None,
        facts.fingerprint if waits else None,
        facts.concurrency_key if waits else None,
        _document(attempt.error),
    )


def _unless_same(at: datetime | None, step: StepState) -> str | None:
    """An instant, but for that at which the visit began, which its row has already."""
    return None if at is None or at == step.since else instant(at)


def _never(attempt: AttemptState) -> str | None:
    """What stands for no instant at all where null would say something else."""
    return "-infinity" if attempt.claimed_at is None and attempt.claim_id is not None else None


def ended_row(attempt: AttemptState | None) -> Row:
    """What the end of an attempt changes about it; nulls leave it as it is."""
    if attempt is None:
        return (None, None, None)
    return (attempt.status.value, _instant(attempt.ended_at), _document(attempt.error))


def attempt_row(run_id: str, attempt: AttemptState) -> Row:
    """An attempt that is no longer the latest of its visit."""
    return (
        run_id,
        attempt.step,
        attempt.visit,
        attempt.number,
        attempt.status.value,
        _instant(attempt.ended_at),
        instant(attempt.scheduled_at),
        instant(attempt.visible_at),
        _instant(attempt.claimed_at),
        None if attempt.lease is None else microseconds(attempt.lease),
        attempt.fence,
        attempt.claim_id,
        attempt.token_hash,
        attempt.owner,
        attempt.queue,
        _document(attempt.error),
    )


def entries_row(run_id: str, row: JournalRow) -> Row:
    """The row of one commit in a run's journal."""
    return (
        run_id,
        row.revision,
        instant(row.at),
        FORMAT,
        row.cause,
        None if row.actor is None else encode(row.actor),
        rows_to_text(row.entries, row.at),
    )


def journal_row(row: Row) -> JournalRow:
    """Read a row of the journal, or raise RecordProblem."""
    revision, at, format_, cause, actor, data, encoding = row
    if format_ > FORMAT:
        raise RecordProblem(f"it is written in format {format_}, and this release reads {FORMAT}")
    _check(encoding)
    read_at = _moment(at)
    return JournalRow(
        revision=revision,
        at=read_at,
        cause=cause,
        actor=None if actor is None else _json(actor),
        entries=text_to_entries(data, read_at),
    )


def run_state(row: Row, first: Row | None) -> RunState:
    """Read a run's row, and its start from its first journal row: a state without steps."""
    started = journal_row(first).entries[:1] if first is not None else ()
    if not (started and isinstance(started[0], RunStarted)):
        raise RecordProblem("its journal does not begin with its start")
    return RunState(**_values(_RUN, row), started=started[0])


def step_state(row: Row, attempts: Iterable[AttemptState]) -> StepState:
    """Read a step's row."""
    return StepState(**_values(_STEP, row), attempts=tuple(attempts))


def attempt_state(row: Row) -> AttemptState:
    """Read an attempt's row."""
    return AttemptState(**_values(_ATTEMPT, row))


def key_record(row: Row) -> KeyRecord:
    """Read an idempotency key's row."""
    scope, key, run_id, command, digest = row
    return KeyRecord(scope=scope, key=key, run_id=run_id, command=command, digest=digest)


def in_utc(at: datetime) -> datetime:
    """An instant as the server gave it, in whatever time zone the session has."""
    return at.astimezone(UTC)


def _values(given: _Columns, row: Row) -> Mapping[str, Any]:
    """The fields that *row* fills; behind its columns stands how its documents are encoded."""
    _check(row[-1])
    try:
        return {
            name: value if convert is None or value is None else convert(value)
            for (name, convert), value in zip(given, row[:-1], strict=True)
        }
    except ValueError as error:
        raise RecordProblem(str(error)) from error


def _check(encoding: int) -> None:
    if encoding != JSON_TEXT:
        raise RecordProblem("a document is encoded in a way that this store was not opened for")


def _moment(at: datetime | str) -> datetime:
    return in_utc(datetime.fromisoformat(at) if isinstance(at, str) else at)


def _instant(at: datetime | None) -> str | None:
    return None if at is None else instant(at)


def _document(record: object) -> str | None:
    return None if record is None else record_to_text(record)


def _json(text: str) -> Json:
    try:
        return decode(text)
    except DecodeProblem:
        raise RecordProblem("a document is not JSON") from None


_RUN: Final[_Columns] = (
    ("run_id", None),
    ("revision", None),
    ("begun", None),
    ("cancelling", None),
    ("error", partial(text_to_record, ErrorRecord)),
    ("undoing", partial(text_to_record, Undoing)),
    ("updated_at", _moment),
    ("status", RunStatus),
    ("ended_at", _moment),
)

_STEP: Final[_Columns] = (
    ("step", None),
    ("visit", None),
    ("status", StepStatus),
    ("output", _json),
    ("under", None),
    ("error", partial(text_to_record, ErrorRecord)),
    ("transition", None),
    ("ended", None),
    ("applied", None),
    ("failures", None),
    ("lost", None),
    ("deferrals", None),
    ("carried", None),
    ("manual", partial(text_to_record, ManualStepPaused)),
    ("since", _moment),
)

_ATTEMPT: Final[_Columns] = (
    ("step", None),
    ("visit", None),
    ("number", None),
    ("queue", None),
    ("status", AttemptStatus),
    ("scheduled_at", _moment),
    ("visible_at", _moment),
    ("wake_at", _moment),
    ("claimed_at", _moment),
    ("ended_at", _moment),
    ("claim_id", None),
    ("token_hash", None),
    ("owner", None),
    ("lease", duration),
    ("lease_until", _moment),
    ("fence", None),
    ("error", partial(text_to_record, ErrorRecord)),
)
