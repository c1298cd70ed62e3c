"""What is stored of an entry or of a state comes back equal, and nothing else is understood."""

import enum
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from types import NoneType, UnionType
from typing import Any, Final, get_args, get_origin

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from squidmesh.domain.entries import (
    AfterFailure,
    AttemptClaimed,
    AttemptCompleted,
    AttemptFailed,
    AttemptScheduled,
    Entry,
    ErrorRecord,
    Issuer,
    ManualAction,
    ManualKind,
    ManualStepPaused,
    ManualStepResolved,
    RunIndexed,
    RunnableApplied,
    RunnablesPlanned,
    RunStarted,
    StepRouted,
    Thread,
)
from squidmesh.domain.evolution import rebuild
from squidmesh.domain.state import RunState, Undoing
from squidmesh.domain.values import Json
from squidmesh.records import (
    RecordProblem,
    duration,
    full_data,
    instant,
    microseconds,
    moment,
    name_of,
    record_to_text,
    rows_to_text,
    text_to_entries,
    text_to_record,
    thread_of,
)

AT: Final = datetime(2026, 11, 23, 14, 52, 36, 123456, tzinfo=UTC)
KINDS: Final[tuple[type[Entry], ...]] = get_args(Entry)

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
integers = st.integers(-(2**63), 2**63 - 1)
moments = st.datetimes(timezones=st.just(UTC))
json_values = st.recursive(
    st.none() | st.booleans() | integers | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


def values_of(annotation: Any) -> st.SearchStrategy[Any]:
    """Any value that an annotation of the vocabulary allows."""
    if annotation == Json:
        return json_values
    arguments = get_args(annotation)
    origin: Any = get_origin(annotation)
    if origin is UnionType:
        return st.one_of([values_of(part) for part in arguments])
    if origin is tuple:
        return st.lists(values_of(arguments[0]), max_size=3).map(tuple)
    if origin is Mapping:
        return st.dictionaries(values_of(arguments[0]), values_of(arguments[1]), max_size=3)
    if attrs.has(annotation):
        return records(annotation)
    if issubclass(annotation, enum.Enum):
        return st.sampled_from(annotation)
    plain: dict[Any, st.SearchStrategy[Any]] = {
        str: texts,
        int: integers,
        bool: st.booleans(),
        datetime: moments,
        timedelta: st.timedeltas(timedelta(days=-(10**8)), timedelta(days=10**8)),
        NoneType: st.none(),
    }
    return plain[annotation]


def records(kind: type[Any]) -> st.SearchStrategy[Any]:
    """Any instance of an attrs class; fields with a default have it half of the time."""
    fields = {field.name: values_of(field.type) for field in attrs.fields(kind)}
    needed = {field.name for field in attrs.fields(kind) if field.default is attrs.NOTHING}
    return st.fixed_dictionaries(
        {name: fields[name] for name in needed},
        optional={name: fields[name] for name in fields.keys() - needed},
    ).map(lambda values: kind(**values))


entries = st.one_of([records(kind) for kind in KINDS])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_every_entry_comes_back_equal_from_its_text(kind: type[Entry], data: st.DataObject) -> None:
    entry = data.draw(records(kind))

    (read,) = text_to_entries(rows_to_text([entry], entry.at), entry.at)

    assert read == entry


@given(several=st.lists(entries, max_size=4), at=moments)
def test_a_row_gives_back_its_entries_in_order_whatever_their_times(
    several: list[Entry], at: datetime
) -> None:
    text = rows_to_text(several, at)

    assert text_to_entries(text, at) == tuple(several)


@given(state=records(RunState))
def test_a_whole_state_comes_back_from_its_text_with_leases_and_wake_ups(state: RunState) -> None:
    read = text_to_record(RunState, record_to_text(state))

    assert read == state
    assert attrs.astuple(read) == attrs.astuple(state)


@pytest.mark.parametrize("kind", [ErrorRecord, Undoing, ManualStepPaused])
@given(data=st.data())
def test_the_documents_of_the_rows_come_back_equal(kind: type[Any], data: st.DataObject) -> None:
    record = data.draw(records(kind))

    assert text_to_record(kind, record_to_text(record)) == record


def test_the_stored_text_leaves_out_defaults_and_the_time_of_its_row() -> None:
    lease = timedelta(seconds=60)
    entries_ = (
        AttemptCompleted(at=AT, step="load", number=1, output=None),
        RunnableApplied(at=AT, step="load", under="invoice"),
        AttemptClaimed(
            at=AT, step="ask", number=1, claim_id="c", token_hash="h", owner="w", lease=lease
        ),
    )

    text = rows_to_text(entries_, AT)

    assert text == (
        '[["attempt_completed","load",1],'
        '["runnable_applied","load",null,"invoice"],'
        '["attempt_claimed","ask",1,"c","h","w",60000000]]'
    )


def test_an_instant_that_is_its_rows_time_is_left_out_too() -> None:
    now = AttemptScheduled(at=AT, step="ask", number=1, visible_at=AT)
    later = AttemptScheduled(at=AT, step="ask", number=1, visible_at=AT + timedelta(seconds=1))

    text = rows_to_text((now, later), AT)

    assert text == (
        '[["attempt_scheduled","ask",1],'
        '["attempt_scheduled","ask",1,"2026-11-23T14:52:37.123456+00:00"]]'
    )


def test_an_entry_of_another_time_than_its_row_keeps_it() -> None:
    later = AT + timedelta(microseconds=1)

    text = rows_to_text([RunnablesPlanned(at=later, steps=("ask",))], AT)

    assert json.loads(text) == [
        ["runnables_planned@2026-11-23T14:52:36.123457+00:00", ["ask"]],
    ]


def test_the_shown_form_has_every_field_by_its_name_in_the_protocol() -> None:
    visible = AT + timedelta(seconds=5)
    entry = AttemptScheduled(at=AT, step="ask", number=2, visible_at=visible, queue="default")

    shown = full_data(entry, "r1")

    assert shown == {
        "run_id": "r1",
        "runnable_key": "r1:ask:2",
        "idempotency_key": "r1:ask",
        "at": "2026-11-23T14:52:36.123456+00:00",
        "step": "ask",
        "attempt_number": 2,
        "visible_at": "2026-11-23T14:52:41.123456+00:00",
        "queue": "default",
        "visit": 1,
    }


def test_the_shown_form_spells_out_what_is_inside_an_entry() -> None:
    error = ErrorRecord(code="declined", message="card declined")
    entry = AttemptFailed(at=AT, step="ask", number=1, error=error, then=AfterFailure.ROUTE)

    shown = full_data(entry, "r1")

    assert shown["then"] == "route"
    assert shown["error"] == {
        "code": "declined",
        "message": "card declined",
        "type": None,
        "details": {},
        "retryable": False,
        "step": None,
    }


def test_the_shown_form_gives_durations_in_seconds_and_lists_as_lists() -> None:
    claimed = AttemptClaimed(
        at=AT,
        step="ask",
        number=1,
        claim_id="c",
        token_hash="h",
        owner="w",
        lease=timedelta(milliseconds=1500),
    )
    planned = RunnablesPlanned(at=AT, steps=("ask", "tell"))

    shown = full_data(claimed, "r1")
    assert (shown["lease"], shown["owner_id"], shown["claim_token_hash"]) == (1.5, "w", "h")
    assert full_data(planned, "r1") == {
        "run_id": "r1",
        "at": instant(AT),
        "steps": ["ask", "tell"],
    }


def test_what_came_of_a_step_is_its_result_and_the_key_for_it_its_output() -> None:
    completed = AttemptCompleted(at=AT, step="ask", number=1, output="yes")
    paused = ManualStepPaused(at=AT, step="review", kind=ManualKind.APPROVAL, output="verdict")
    resolved = ManualStepResolved(
        at=AT,
        step="review",
        action=ManualAction.APPROVED,
        transition=None,
        output={"decision": "approved"},
        issuer=Issuer(),
    )

    shown = [full_data(entry, "r1") for entry in (completed, paused, resolved)]

    assert shown[0]["result"] == "yes"
    assert shown[1]["output"] == "verdict"
    assert shown[2]["result"] == {"decision": "approved"}
    assert ["output" in data for data in shown] == [False, True, False]


SAID: Final = frozenset({"actor", "comment", "metadata"})


@given(entry=entries)
def test_the_shown_form_is_plain_json_and_leaves_no_field_out(entry: Entry) -> None:
    shown = full_data(entry, "r1")

    assert json.loads(json.dumps(shown)) == shown
    keys = {"run_id", "runnable_key", "idempotency_key"}
    fields = {field.name for field in attrs.fields(type(entry))}
    told = len(fields) if "issuer" not in fields else len(fields - {"issuer"}) + len(SAID)
    assert len(shown.keys() - keys) == told
    assert "issuer" not in fields or shown.keys() > {*SAID, "idempotency_key"}


def test_type_names_are_those_of_the_journal() -> None:
    names = {kind.__name__: name_of(kind.__new__(kind)) for kind in KINDS}

    assert names["RunStarted"] == "run_started"
    assert names["AttemptClaimed"] == "attempt_claimed"
    assert names["LiveWakeupEmitted"] == "live_wakeup_emitted"
    assert len(set(names.values())) == len(KINDS)


def test_every_entry_belongs_to_one_thread() -> None:
    routed = StepRouted(at=AT, step="ask", transition=1, target=None)
    scheduled = AttemptScheduled(at=AT, step="ask", number=1, visible_at=AT, queue="default")
    indexed = RunIndexed(at=AT, workflow="w", queue="default")

    assert thread_of(routed) is Thread.RUN
    assert thread_of(scheduled) is Thread.DISPATCH
    assert thread_of(indexed) is Thread.INDEX


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "{}",
        "[1]",
        "[[]]",
        "[[1]]",
        '[["run_exploded"]]',
        '[{"type":"runnables_planned"}]',
        '[["runnables_planned"]]',
        '[["runnables_planned",null]]',
        '[["runnables_planned","ask"]]',
        '[["runnables_planned",[1]]]',
        '[["runnables_planned@yesterday",[]]]',
        '[["runnables_planned@17",[]]]',
        '[["runnables_planned@2026-11-23T14:52:36.123456",[]]]',
        '[["runnables_planned@2026-11-23T14:52:36.123456+01:00",[]]]',
        '[["runnables_planned",[],"red"]]',
        '[["attempt_cancelled","ask",true]]',
        '[["attempt_cancelled","ask",null]]',
        '[["attempt_cancelled","ask",1.0]]',
        '[["run_terminal","lost"]]',
        '[["run_terminal","failed",7]]',
        '[["run_terminal","failed",{"code":"x"}]]',
        '[["attempt_heartbeat","a",1,"c","1m"]]',
        '[["run_started","w","t","f",[]]]',
    ],
)
def test_what_no_release_wrote_is_not_understood(text: str) -> None:
    with pytest.raises(RecordProblem):
        text_to_entries(text, AT)


def test_a_problem_says_where_it_is_and_repeats_no_value() -> None:
    text = '[["run_terminal","failed",{"code":["secret"],"message":"m"}]]'

    with pytest.raises(RecordProblem) as caught:
        text_to_entries(text, AT)

    assert str(caught.value) == "RunTerminal.error: ErrorRecord.code: not a str"


def test_instants_have_one_width_and_are_utc() -> None:
    east = datetime(2026, 11, 23, 16, 52, 36, tzinfo=timezone(timedelta(hours=2)))

    assert instant(east) == "2026-11-23T14:52:36.000000+00:00"
    assert moment(instant(east)) == east


def test_an_instant_without_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        instant(AT.replace(tzinfo=None))


@given(first=moments, second=moments)
def test_instants_sort_as_text_as_they_do_as_time(first: datetime, second: datetime) -> None:
    assert (instant(first) < instant(second)) == (first < second)


def test_a_duration_is_exact_to_the_microsecond_however_long() -> None:
    three_hundred_years = timedelta(days=300 * 365, microseconds=1)

    assert duration(microseconds(three_hundred_years)) == three_hundred_years


def test_a_state_that_was_rebuilt_comes_back_from_its_checkpoint() -> None:
    state = rebuild(
        "r1",
        [
            RunStarted(at=AT, workflow="w", trigger="t", fingerprint="f", payload={"a": 1}),
            ManualStepPaused(at=AT, step="review", kind=ManualKind.APPROVAL, output="review"),
            ManualStepResolved(
                at=AT,
                step="review",
                action=ManualAction.APPROVED,
                transition=None,
                output={"decision": "approved"},
                issuer=Issuer(actor="ann", idempotency_key="k1"),
            ),
        ],
    )

    assert text_to_record(RunState, record_to_text(state)) == state


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_null_is_never_a_value_of_a_field_that_has_another_default(kind: type[Entry]) -> None:
    """Null stands for the default in the stored form, so None cannot be meant by it."""
    for field in attrs.fields(kind):
        has_another = field.default is not attrs.NOTHING and field.default is not None
        assert not (has_another and type(None) in get_args(field.type)), field.name
