"""Parts of a state as rows of values, and back: what is the same in every SQL database.

An adapter adds what is its own: the order of the columns where its tables differ, and how its
database gives instants, of which it makes a `RowReader`. What is written is of types that every
database takes; instants are `instant` texts.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Any, Final, TypeAlias

from squidmesh.codec import DecodeProblem, decode, encode
from squidmesh.domain.entries import (
    AttemptId,
    Entry,
    ErrorRecord,
    ManualStepPaused,
    RunStarted,
)
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
from squidmesh.ports.store import JournalRow, KeyRecord, RunChange, StoredDefinition
from squidmesh.records import (
    FORMAT,
    RecordProblem,
    duration,
    instant,
    record_to_text,
    rows_to_text,
    text_to_entries,
    text_to_record,
)

Row: TypeAlias = tuple[Any, ...]
"""The values of a row, or of some neighbouring columns in it."""

_Moment: TypeAlias = Callable[[Any], datetime]
"""Makes an instant in UTC of what a database gives."""

_Columns: TypeAlias = tuple[tuple[str, Callable[[Any], Any] | None], ...]
"""For each column the field that it fills, and what makes a value of it that is not null."""

_JSON_TEXT: Final = 0
"""The one encoding of documents that there is so far."""


def instant_or_null(at: datetime | None) -> str | None:
    """Write an instant that need not be there."""
    return None if at is None else instant(at)


def document_or_null(record: object) -> str | None:
    """Write a part of a state that need not be there."""
    return None if record is None else record_to_text(record)


def moved_values(change: RunChange) -> Row:
    """What changes about a run with every commit."""
    state = change.state
    return (
        state.revision,
        change.current_step,
        state.begun,
        state.cancelling,
        document_or_null(state.error),
        document_or_null(state.undoing),
        instant_or_null(state.updated_at),
    )


def turned_values(state: RunState) -> Row:
    """What changes about a run only with its status."""
    return (state.status.value, instant_or_null(state.ended_at))


def started_values(facts: RunStarted) -> Row:
    """What never changes about a run."""
    return (
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


def receipt_rows(state: RunState, entries: Iterable[Entry]) -> list[Row]:
    """The rows of those receipts of *state* that *entries* have left there."""
    keys = {entry.issuer.idempotency_key for entry in entries if hasattr(entry, "issuer")}
    return [(state.run_id, key, command) for key, command in state.receipts.items() if key in keys]


def key_row(key: KeyRecord) -> Row:
    """The row of an idempotency key, but for its time."""
    return (key.scope, key.key, key.run_id, key.command, key.digest)


def key_record(row: Row) -> KeyRecord:
    """Read an idempotency key's row."""
    scope, key, run_id, command, digest = row
    return KeyRecord(scope=scope, key=key, run_id=run_id, command=command, digest=digest)


def definition_row(found: StoredDefinition) -> Row:
    """The row of a definition."""
    return (found.fingerprint, found.workflow, found.version, FORMAT, found.document)


def wakeup_rows(wakeups: Iterable[tuple[str, AttemptId, datetime]]) -> list[Row]:
    """When a wake-up is owed for each attempt; the last of several for one counts."""
    rows = {
        (run_id, attempt): (
            run_id,
            attempt.step,
            attempt.visit,
            attempt.number,
            instant(wake_at),
        )
        for run_id, attempt, wake_at in wakeups
    }
    return list(rows.values())


def checkpoint_row(state: RunState) -> Row:
    """The row of a state that is kept to shorten rebuilding."""
    return (state.run_id, state.revision, FORMAT, record_to_text(state))


def usable_checkpoint(row: Row, run_id: str) -> RunState | None:
    """Read a checkpoint beside the revision of its run, or return None if it is of no use."""
    format_, data, encoding, revision = row
    if format_ != FORMAT or encoding != _JSON_TEXT:
        return None
    try:
        state = text_to_record(RunState, data)
    except RecordProblem:
        return None
    return state if state.run_id == run_id and state.revision <= revision else None


@contextmanager
def trusting(run_id: str) -> Iterator[None]:
    """Turn what cannot be read about a run into JournalCorruptError."""
    try:
        yield
    except RecordProblem as problem:
        raise JournalCorruptError(run_id, str(problem)) from problem


class RowReader:
    """Reads the rows of a database, of whose instants *moment* makes ours.

    A row that makes no sense is a RecordProblem, unless the method says otherwise.
    """

    def __init__(self, moment: _Moment) -> None:
        self._moment = moment
        self._run = _run_columns(moment)
        self._step = _step_columns(moment)
        self._attempt = _attempt_columns(moment)

    def run_state(self, row: Row, first: Row | None) -> RunState:
        """Read a run's row, and its start from its first journal row: a state without steps."""
        started = self._journal_row(first).entries[:1] if first is not None else ()
        if not (started and isinstance(started[0], RunStarted)):
            raise RecordProblem("its journal does not begin with its start")
        return RunState(**_values(self._run, row), started=started[0])

    def step_state(self, row: Row, attempts: Iterable[AttemptState]) -> StepState:
        """Read a step's row."""
        return StepState(**_values(self._step, row), attempts=tuple(attempts))

    def attempt_state(self, row: Row) -> AttemptState:
        """Read an attempt's row."""
        return AttemptState(**_values(self._attempt, row))

    def attempts_of_runs(self, rows: Iterable[Row]) -> tuple[tuple[str, AttemptState], ...]:
        """Read the rows of attempts, each behind the id of its run.

        Raises:
            JournalCorruptError: One of them cannot be read.

        """
        found: list[tuple[str, AttemptState]] = []
        for row in rows:
            with trusting(row[0]):
                found.append((row[0], self.attempt_state(row[1:])))
        return tuple(found)

    def journal(self, run_id: str, rows: Iterable[Row], *, after: int) -> tuple[JournalRow, ...]:
        """Read the rows of a journal that hold entries behind revision *after*.

        Raises:
            JournalCorruptError: One cannot be read, or an entry is missing or stands there twice.

        """
        found: list[JournalRow] = []
        with trusting(run_id):
            for row in rows:
                read = self._journal_row(row)
                before = read.revision - len(read.entries)
                if before != (found[-1].revision if found else min(before, after)):
                    raise RecordProblem(f"between revisions {before} and {read.revision} is a gap")
                found.append(read)
        return tuple(found)

    def _journal_row(self, row: Row) -> JournalRow:
        revision, at, format_, cause, actor, data, encoding = row
        if format_ > FORMAT:
            raise RecordProblem(
                f"it is written in format {format_}, and this release reads {FORMAT}"
            )
        if encoding != _JSON_TEXT:
            raise _unknown_encoding()
        read_at = self._moment(at)
        return JournalRow(
            revision=revision,
            at=read_at,
            cause=cause,
            actor=None if actor is None else _json(actor),
            entries=text_to_entries(data, read_at),
        )


def _values(columns: _Columns, row: Row) -> Mapping[str, Any]:
    """The fields that *row* fills; behind its columns stands how its documents are encoded."""
    if row[-1] != _JSON_TEXT:
        raise _unknown_encoding()
    try:
        return {
            name: value if convert is None or value is None else convert(value)
            for (name, convert), value in zip(columns, row[:-1], strict=True)
        }
    except ValueError as error:
        raise RecordProblem(str(error)) from error


def _unknown_encoding() -> RecordProblem:
    return RecordProblem("a document is encoded in a way that this store was not opened for")


def _json(text: str) -> Json:
    try:
        return decode(text)
    except DecodeProblem:
        raise RecordProblem("a document is not JSON") from None


_error: Final = partial(text_to_record, ErrorRecord)


def _run_columns(moment: _Moment) -> _Columns:
    return (
        ("run_id", None),
        ("revision", None),
        ("begun", bool),
        ("cancelling", bool),
        ("error", _error),
        ("undoing", partial(text_to_record, Undoing)),
        ("updated_at", moment),
        ("status", RunStatus),
        ("ended_at", moment),
    )


def _step_columns(moment: _Moment) -> _Columns:
    return (
        ("step", None),
        ("visit", None),
        ("status", StepStatus),
        ("output", _json),
        ("under", None),
        ("error", _error),
        ("transition", None),
        ("ended", None),
        ("applied", None),
        ("failures", None),
        ("lost", None),
        ("deferrals", None),
        ("deferred", None),
        ("carried", bool),
        ("manual", partial(text_to_record, ManualStepPaused)),
        ("since", moment),
    )


def _attempt_columns(moment: _Moment) -> _Columns:
    return (
        ("step", None),
        ("visit", None),
        ("number", None),
        ("queue", None),
        ("status", AttemptStatus),
        ("scheduled_at", moment),
        ("visible_at", moment),
        ("wake_at", moment),
        ("claimed_at", moment),
        ("ended_at", moment),
        ("claim_id", None),
        ("token_hash", None),
        ("owner", None),
        ("lease", duration),
        ("lease_until", moment),
        ("fence", None),
        ("error", _error),
    )
