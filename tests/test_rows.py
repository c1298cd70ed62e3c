"""What every SQL database has in common comes back from its rows, or is called a problem."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from squidmesh.domain.entries import AttemptId, CancelRequested, Issuer
from squidmesh.domain.state import AttemptState, AttemptStatus, RunState, StepStatus
from squidmesh.errors import JournalCorruptError
from squidmesh.records import FORMAT, RecordProblem, moment
from squidmesh.rows import (
    Row,
    RowReader,
    checkpoint_row,
    definition_row,
    entries_row,
    key_record,
    key_row,
    receipt_rows,
    usable_checkpoint,
    wakeup_rows,
)
from squidmesh.testing.builders import (
    FIRST,
    SECOND,
    complete,
    definition,
    following,
    key,
    start,
    take,
)

AT: Final = datetime(2026, 11, 23, 14, 52, 36, 123456, tzinfo=UTC)
SECONDS: Final = 1_795_000_000
JSON_TEXT: Final = 0


def from_seconds(seconds: int) -> datetime:
    """How a database might give instants that is neither of ours."""
    return datetime.fromtimestamp(seconds, tz=UTC)


def attempt_row(**others: Any) -> Row:
    """An attempt that waits, as such a database gives it."""
    waiting = {
        "step": "load",
        "visit": 1,
        "number": 2,
        "queue": "mail",
        "status": "scheduled",
        "scheduled_at": SECONDS,
        "visible_at": SECONDS + 5,
        "wake_at": None,
        "claimed_at": None,
        "ended_at": None,
        "claim_id": None,
        "token_hash": None,
        "owner": None,
        "lease": None,
        "lease_until": None,
        "fence": None,
        "error": None,
        "encoding": JSON_TEXT,
    }
    return tuple((waiting | others).values())


def step_row(**others: Any) -> Row:
    """A step that is done, as such a database gives it."""
    done = {
        "step": "load",
        "visit": 1,
        "status": "completed",
        "output": '{"paid":true}',
        "under": "invoice",
        "error": None,
        "transition": 0,
        "ended": 7,
        "applied": 8,
        "failures": 0,
        "lost": 0,
        "deferrals": 0,
        "deferred": None,
        "carried": 0,
        "manual": None,
        "since": SECONDS,
        "encoding": JSON_TEXT,
    }
    return tuple((done | others).values())


def journal() -> list[Row]:
    """The journal of a run whose first step was claimed and completed, as a database gives it."""
    started = start(at=AT)
    taken = take(started.state, "load", at=AT)
    done = complete(taken.state, "load", at=AT)
    rows = [row for change in (started, taken, done) for row in change.journal]
    return [(*entries_row(FIRST, row)[1:], JSON_TEXT) for row in rows]


def test_an_attempt_has_the_instants_that_its_reader_makes() -> None:
    attempt = RowReader(from_seconds).attempt_state(attempt_row(lease=60_000_000))

    assert attempt == AttemptState(
        step="load",
        visit=1,
        number=2,
        status=AttemptStatus.SCHEDULED,
        queue="mail",
        scheduled_at=from_seconds(SECONDS),
        visible_at=from_seconds(SECONDS + 5),
        lease=timedelta(minutes=1),
    )


def test_a_step_has_the_attempts_that_it_is_given_and_flags_that_are_flags() -> None:
    reader = RowReader(from_seconds)
    attempt = reader.attempt_state(attempt_row())

    step = reader.step_state(step_row(carried=1), [attempt])

    assert (step.status, step.output, step.carried) == (StepStatus.COMPLETED, {"paid": True}, True)
    assert step.attempts == (attempt,)
    assert step.since == from_seconds(SECONDS)


@pytest.mark.parametrize(
    "spoiled",
    [
        {"status": "sleeping"},
        {"lease": "a minute"},
        {"error": "{"},
        {"error": '{"code":1}'},
        {"scheduled_at": 10**12},
        {"encoding": 1},
        {"more": 1},
    ],
)
def test_an_attempt_that_makes_no_sense_is_a_problem(spoiled: dict[str, Any]) -> None:
    reader = RowReader(from_seconds)
    row = attempt_row(**spoiled)

    with pytest.raises(RecordProblem):
        reader.attempt_state(row)
    with pytest.raises(JournalCorruptError) as caught:
        reader.attempts_of_runs([(FIRST, *attempt_row()), (SECOND, *row)])

    assert caught.value.details["run_id"] == SECOND


@pytest.mark.parametrize(
    "spoiled", [{"status": "sleeping"}, {"output": "{"}, {"manual": "[]"}, {"encoding": 3}]
)
def test_a_step_that_makes_no_sense_is_a_problem(spoiled: dict[str, Any]) -> None:
    with pytest.raises(RecordProblem):
        RowReader(from_seconds).step_state(step_row(**spoiled), [])


def test_attempts_come_beside_the_runs_that_they_belong_to() -> None:
    rows = [(SECOND, *attempt_row()), (FIRST, *attempt_row(number=3))]

    found = RowReader(from_seconds).attempts_of_runs(rows)

    assert [(run_id, attempt.number) for run_id, attempt in found] == [(SECOND, 2), (FIRST, 3)]


def test_a_journal_may_be_read_from_within_a_row_but_not_across_a_gap() -> None:
    reader = RowReader(moment)
    first, second, third = journal()

    assert len(reader.journal(FIRST, [first, second, third], after=0)) == 3
    assert len(reader.journal(FIRST, [first, second], after=first[0] - 1)) == 2
    assert reader.journal(FIRST, [], after=9) == ()
    with pytest.raises(JournalCorruptError, match="gap"):
        reader.journal(FIRST, [first, third], after=0)
    with pytest.raises(JournalCorruptError, match="gap"):
        reader.journal(FIRST, [second, third], after=0)
    with pytest.raises(JournalCorruptError, match="gap"):
        reader.journal(FIRST, [first, first], after=0)


def test_a_journal_of_a_newer_format_or_another_encoding_is_not_guessed_at() -> None:
    reader = RowReader(moment)
    first, *_ = journal()

    with pytest.raises(JournalCorruptError, match=f"format {FORMAT + 1}"):
        reader.journal(FIRST, [(*first[:2], FORMAT + 1, *first[3:])], after=0)
    with pytest.raises(JournalCorruptError, match="encoded"):
        reader.journal(FIRST, [(*first[:-1], 1)], after=0)


def test_a_run_begins_with_its_start_or_is_a_problem() -> None:
    reader = RowReader(moment)
    first, second, _ = journal()
    row = (FIRST, 4, 1, 0, None, None, first[1], "running", None, JSON_TEXT)

    state = reader.run_state(row, first)

    assert (state.run_id, state.revision, state.begun, state.cancelling) == (FIRST, 4, True, False)
    assert state.facts == start(at=AT).state.facts
    for beginning in (None, second):
        with pytest.raises(RecordProblem, match="start"):
            reader.run_state(row, beginning)


def test_a_key_comes_back_from_its_row() -> None:
    used = key("once")

    assert key_record(key_row(used)) == used


def test_a_definition_says_in_which_format_it_is_written() -> None:
    row = definition_row(definition("fingerprint", document="[]"))

    assert row == ("fingerprint", "orders", "1", FORMAT, "[]")


def test_only_the_receipts_that_entries_have_left_are_written() -> None:
    before = start(at=AT).state
    asked = CancelRequested(at=AT, issuer=Issuer(idempotency_key="once"))
    after = following(before, asked).state
    later = CancelRequested(at=AT, issuer=Issuer(actor="ada"))

    assert receipt_rows(after, [asked, later]) == [(FIRST, "once", after.receipts["once"])]
    assert receipt_rows(after, [later]) == []


def test_the_last_of_several_wake_ups_for_one_attempt_counts() -> None:
    attempt, other = AttemptId("load", 1), AttemptId("load", 2)
    later = AT + timedelta(seconds=30)

    rows = wakeup_rows([(FIRST, attempt, AT), (FIRST, other, AT), (FIRST, attempt, later)])

    assert [(row[3], moment(row[-1])) for row in rows] == [(1, later), (2, AT)]


def test_a_checkpoint_is_of_use_for_its_run_up_to_where_that_stands() -> None:
    state: RunState = start(at=AT).state
    run_id, revision, format_, text = checkpoint_row(state)

    assert usable_checkpoint((format_, text, JSON_TEXT, revision), run_id) == state
    assert usable_checkpoint((format_, text, JSON_TEXT, revision + 3), run_id) == state
    assert usable_checkpoint((format_, text, JSON_TEXT, revision - 1), run_id) is None
    assert usable_checkpoint((format_, text, JSON_TEXT, revision), SECOND) is None
    assert usable_checkpoint((format_ + 1, text, JSON_TEXT, revision), run_id) is None
    assert usable_checkpoint((format_, text, 1, revision), run_id) is None
    assert usable_checkpoint((format_, "{", JSON_TEXT, revision), run_id) is None
