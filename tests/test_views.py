from collections.abc import Callable
from datetime import date, timedelta

import attrs
import pytest

from squidmesh.codec import plain
from squidmesh.domain.commands import Failed, PutOff
from squidmesh.domain.entries import AttemptId, Carried, ErrorRecord
from squidmesh.domain.entries import Entry as Fact
from squidmesh.domain.evolution import rebuild
from squidmesh.domain.inspection import current_step
from squidmesh.domain.state import RunState
from squidmesh.domain.values import Json, JsonMapping
from squidmesh.errors import InvalidPayloadError
from squidmesh.ports.store import JournalRow, RunSummary
from squidmesh.records import instant
from squidmesh.testing.every_entry import every_entry
from squidmesh.views import Entry, Run, Step, entry_views, run_view, summary_view
from tests.domain.builders import BUSY, T0, a_path, a_workflow, an_action
from tests.domain.script import Claim, Script
from tests.domain.stories import (
    ADA,
    BREAK,
    FEAST,
    PAYMENT,
    a_run,
    at_ask,
    at_review,
    at_tell,
    exhausted,
    feasted,
    finish,
    not_undone,
    rows_of,
    undoing,
)


@attrs.frozen(kw_only=True)
class Chase:
    invoice_id: str
    opened_on: date


def seen(script: Script) -> Run:
    return run_view(script.definition, script.state, rows=rows_of(script))


def steps(script: Script) -> dict[str, Step]:
    run = seen(script)
    assert run.steps is not None
    return {step.name: step for step in run.steps}


def test_a_run_shows_what_it_was_started_with_and_where_it_stands() -> None:
    script = at_review()

    run = run_view(PAYMENT, script.state, rows=None)

    assert run == Run(
        id="run-1",
        workflow="orders",
        trigger="by_hand",
        status="paused",
        payload={"invoice_id": "i7", "account": "a1"},
        context={"invoice": {"id": "i7", "lines": [1, 2]}, "verdict": "yes"},
        current_step="review",
        error=None,
        version=None,
        fingerprint="f1",
        revision=script.state.revision,
        queue="default",
        replayed_from=None,
        parent=None,
        tags={},
        priority=0,
        started_at=script.entries[0].at,
        updated_at=script.now,
        ended_at=None,
    )


def test_history_is_none_when_it_was_not_asked_for() -> None:
    run = run_view(PAYMENT, a_run(PAYMENT).state, rows=None)

    assert (run.steps, run.attempts, run.audit_events, run.entries) == (None, None, None, None)


def test_the_context_of_a_scheduled_run_holds_its_schedule() -> None:
    schedule: dict[str, Json] = {"signal_id": "s1"}
    script = Script(PAYMENT).start({"invoice_id": "i7", "account": "a1"}, schedule=schedule)

    assert seen(script).context == {"schedule": {"signal_id": "s1"}}


def test_a_failed_run_shows_its_error_with_the_step() -> None:
    script = exhausted()

    run = seen(script)

    assert run.error == {
        "code": "lost_way",
        "message": "north?",
        "type": None,
        "details": {},
        "retryable": True,
        "step": "march",
    }
    assert (run.current_step, run.ended_at) == ("march", script.state.ended_at)


def test_a_payload_comes_back_as_the_class_it_was_made_of() -> None:
    payload = plain(Chase(invoice_id="i7", opened_on=date(2030, 1, 2)))
    assert isinstance(payload, dict)
    run = run_view(FEAST, Script(FEAST).start(payload).state, rows=None)

    assert run.payload_as(Chase) == Chase(invoice_id="i7", opened_on=date(2030, 1, 2))


def test_a_payload_that_does_not_fit_a_class_says_where() -> None:
    run = run_view(FEAST, Script(FEAST).start({"invoice_id": 7}).state, rows=None)

    with pytest.raises(InvalidPayloadError) as caught:
        run.payload_as(Chase)

    assert list(caught.value.invalid) != []


def test_steps_are_shown_as_declared_reached_or_not() -> None:
    run = seen(at_review())

    assert run.steps is not None
    assert [(step.name, step.kind, step.status) for step in run.steps] == [
        ("load", "action", "completed"),
        ("settle", "wait", "completed"),
        ("ask", "action", "completed"),
        ("review", "approval", "paused"),
        ("credit", "action", "waiting"),
        ("tell", "action", "waiting"),
        ("page", "action", "waiting"),
    ]


def test_a_step_shows_what_it_was_given_and_what_it_returned() -> None:
    found = steps(at_tell())

    assert found["ask"].input == {"invoice": {"id": "i7", "lines": [1, 2]}, "account": "a1"}
    assert found["ask"].output == "yes"
    assert found["tell"].input == {"credit": {"number": 1}}
    assert (found["review"].input, found["settle"].input) == ({}, {})
    assert (found["page"].input, found["page"].output) == (None, None)


def test_a_step_depends_on_what_it_comes_after() -> None:
    found = steps(a_run(FEAST))

    assert found["feast"].depends_on == ("march", "sneak")
    assert found["march"].depends_on == ()


def test_a_step_shows_its_error_its_attempts_and_its_lost_deliveries() -> None:
    script = at_ask()
    script.lose(script.claim("ask"))
    script.fail("ask", BUSY)

    ask = steps(script)["ask"]

    assert (ask.status, ask.deliveries) == ("retrying", 1)
    assert ask.error is not None
    assert ask.error["code"] == "step_error"
    assert [(attempt.number, attempt.status) for attempt in ask.attempts] == [
        (1, "lost"),
        (2, "failed"),
        (3, "scheduled"),
    ]


def test_an_attempt_shows_who_held_it_and_when() -> None:
    script = a_run(PAYMENT)
    script.claim("load", owner="worker-7")

    run = seen(script)

    assert run.attempts is not None
    (attempt,) = run.attempts
    assert (attempt.step, attempt.number, attempt.status) == ("load", 1, "claimed")
    assert (attempt.runnable_key, attempt.owner) == ("run-1:load:1", "worker-7")
    assert (attempt.scheduled_at, attempt.visible_at) == (script.now, script.now)
    assert (attempt.claimed_at, attempt.ended_at) == (script.now, None)
    assert attempt.lease_until == script.now + timedelta(seconds=60)
    assert attempt.error is None


def test_all_attempts_of_a_run_are_in_the_order_in_which_they_were_scheduled() -> None:
    script = exhausted()

    run = seen(script)

    assert run.attempts is not None
    assert [(attempt.step, attempt.number) for attempt in run.attempts] == [
        ("march", 1),
        ("sneak", 1),
        ("rest", 1),
        ("march", 2),
        ("march", 3),
    ]


def test_a_step_says_what_may_be_undone_and_repeated() -> None:
    found = steps(at_tell())

    assert found["load"].recovery == {
        "irreversible": False,
        "compensatable": True,
        "replay": "allowed",
        "compensation": None,
    }
    assert found["tell"].recovery == {
        "irreversible": True,
        "compensatable": False,
        "replay": "manual_review_required",
        "compensation": None,
    }
    assert found["credit"].recovery is not None
    assert found["credit"].recovery["compensation"] == {"status": "available"}


def test_a_step_says_what_became_of_its_undoing() -> None:
    waiting, undone = undoing(), undoing()
    finish(undone, undone.claim("compensate:credit"))

    def compensation(script: Script) -> dict[str, Json]:
        recovery = steps(script)["credit"].recovery
        assert recovery is not None
        found = recovery["compensation"]
        assert isinstance(found, dict)
        return found

    assert (compensation(waiting)["status"], compensation(waiting)["ended_at"]) == ("running", None)
    assert compensation(undone)["status"] == "completed"
    assert compensation(undone)["ended_at"] == undone.now.isoformat()
    failed = compensation(not_undone())
    assert (failed["status"], failed["step"], failed["attempts"]) == (
        "failed",
        "compensate:credit",
        2,
    )
    error = failed["error"]
    assert isinstance(error, dict)
    assert error["code"] == "no"


def test_a_compensation_is_a_step_behind_the_declared_ones() -> None:
    undone = steps(undoing())["compensate:credit"]

    assert (undone.kind, undone.status, undone.recovery) == ("compensation", "scheduled", None)
    assert undone.input is not None
    assert undone.input["output"] == {"number": 1}


def test_a_step_that_a_replay_brought_along_has_an_output_and_no_attempts() -> None:
    carried = (Carried(step="load", output={"id": "i8"}, under="invoice"),)
    script = Script(PAYMENT).start({"account": "a2"}, from_step="ask", carried=carried)

    load = steps(script)["load"]

    assert (load.status, load.output, load.attempts) == ("completed", {"id": "i8"}, ())
    assert load.input is None


def test_audit_events_are_part_of_the_history() -> None:
    script = at_review()
    script.reject(ADA)

    events = seen(script).audit_events

    assert events is not None
    assert [event.type for event in events] == ["paused", "rejected", "undo_routed"]


def test_entries_are_numbered_by_revision_and_stand_in_their_threads() -> None:
    script = a_run(PAYMENT)
    facts = tuple(script.entries)
    rows = [JournalRow(revision=len(facts), at=script.now, cause="StartRun", entries=facts)]

    entries = run_view(PAYMENT, script.state, rows=rows).entries

    assert entries is not None
    assert [(entry.seq, entry.thread, entry.type) for entry in entries] == [
        (1, "run", "run_started"),
        (2, "index", "run_indexed"),
        (3, "run", "runnables_planned"),
        (4, "dispatch", "attempt_scheduled"),
    ]
    assert entries[3].at == script.now


REQUIRED = {
    "run_started": {"workflow", "trigger", "payload", "version", "fingerprint", "replayed_from"},
    "runnables_planned": {"runnables", "steps"},
    "runnable_applied": {"runnable_key", "result", "applied_at", "transition"},
    "step_routed": {"step", "transition", "target"},
    "manual_step_paused": {"step", "kind"},
    "manual_step_resolved": {"step", "action", "result"},
    "cancel_requested": {"actor", "comment", "metadata", "idempotency_key"},
    "compensation_planned": {"steps", "error"},
    "run_replayed": {"new_run_id", "actor", "comment", "metadata", "idempotency_key"},
    "run_terminal": {"status", "error"},
    "run_indexed": {"workflow", "queue"},
    "attempt_scheduled": {"visible_at", "input"},
    "attempt_claimed": {"claim_id", "claim_token_hash", "owner_id", "lease", "lease_until"},
    "attempt_heartbeat": {"claim_id", "claim_token_hash", "lease", "lease_until"},
    "attempt_deferred": {"claim_id", "claim_token_hash", "visible_at", "reason"},
    "attempt_completed": {"claim_id", "claim_token_hash", "result"},
    "attempt_failed": {"claim_id", "claim_token_hash", "error", "then", "retry_runnable_key"},
    "attempt_lost": {"claim_id", "claim_token_hash", "error", "then", "retry_visible_at"},
    "attempt_cancelled": {"claim_id", "claim_token_hash"},
    "live_wakeup_emitted": set[str](),
}
"""What the protocol asks of each type, besides what it asks of all of a thread."""

OF_ATTEMPTS = {
    "runnable_key",
    "idempotency_key",
    "step",
    "attempt_number",
    "visit",
    "queue",
}


def test_every_type_of_entry_is_shown_with_what_the_protocol_asks_of_it() -> None:
    facts = every_entry(T0)
    rows = [JournalRow(revision=len(facts), at=T0, cause="test", entries=facts)]

    entries = run_view(None, rebuild("run-1", facts), rows=rows).entries

    assert entries is not None
    assert {entry.type for entry in entries} == set(REQUIRED)
    for entry in entries:
        of_all = OF_ATTEMPTS if entry.thread == "dispatch" else set()
        lacking = ({"run_id", "at"} | of_all | REQUIRED[entry.type]) - set(entry.data)
        assert (entry.type, lacking) == (entry.type, set())


def told(script: Script, kind: str) -> list[JsonMapping]:
    """The data of all entries of one type."""
    entries = seen(script).entries
    assert entries is not None
    return [entry.data for entry in entries if entry.type == kind]


def an_attempt(step: str, number: int, queue: str = "default") -> dict[str, Json]:
    """What every entry about an attempt says, if it is of this moment."""
    return {
        "run_id": "run-1",
        "runnable_key": f"run-1:{step}:{number}",
        "idempotency_key": f"run-1:{step}",
        "at": instant(T0),
        "step": step,
        "attempt_number": number,
        "visit": 1,
        "queue": queue,
    }


def held(serial: int) -> dict[str, Json]:
    """What proves the claim that a script made as its *serial*-th."""
    return {"claim_id": f"claim-{serial}", "claim_token_hash": f"hash-{serial}"}


def test_the_entries_of_an_attempt_name_its_keys_its_queue_and_the_claim_that_it_was_under() -> (
    None
):
    script = a_run(FEAST)

    script.ok("sneak", "behind")

    sneak = an_attempt("sneak", 1, queue="night")
    assert told(script, "attempt_scheduled")[1] == {
        **sneak,
        "visible_at": instant(T0),
        "input": {},
    }
    assert told(script, "attempt_claimed") == [
        {
            **sneak,
            **held(1),
            "owner_id": "worker-1",
            "lease": 60.0,
            "lease_until": instant(T0 + timedelta(seconds=60)),
        }
    ]
    assert told(script, "attempt_completed") == [{**sneak, **held(1), "result": "behind"}]


def test_what_a_body_is_given_stands_in_each_of_its_attempts_and_in_the_plan() -> None:
    script = at_ask()
    script.lose(script.claim("ask"))

    attempts = [data for data in told(script, "attempt_scheduled") if data["step"] == "ask"]
    runnable = runnables(script)[-1]

    given = {"invoice": {"id": "i7", "lines": [1, 2]}, "account": "a1"}
    assert [data["input"] for data in attempts] == [given, given]
    assert (runnable["step"], runnable["input"]) == ("ask", given)


def test_a_body_whose_input_is_incomplete_is_given_nothing_that_could_be_shown() -> None:
    definition = a_workflow(
        an_action("load"), an_action("use", "what_load_merges"), transitions=a_path("load", "use")
    )
    script = Script(definition).start()
    script.ok("load", {})

    assert [data["input"] for data in told(script, "attempt_scheduled")] == [{}, None]


def test_a_failure_that_is_retried_names_the_attempt_that_follows() -> None:
    script = a_run(FEAST)
    script.fail("march", BUSY)
    script.pass_time(timedelta(minutes=1))
    script.lose(script.claim("march"))
    script.pass_time(timedelta(minutes=1))
    script.fail("march", ErrorRecord(code="lost_way", message="north?"))

    retried, last = told(script, "attempt_failed")
    (lost,) = told(script, "attempt_lost")

    assert (retried["then"], retried["retry_runnable_key"]) == ("retry", "run-1:march:2")
    assert retried["retry_visible_at"] == instant(T0 + timedelta(seconds=10))
    assert (lost["then"], lost["retry_runnable_key"]) == ("retry", "run-1:march:3")
    assert lost["retry_visible_at"] == lost["at"] == instant(T0 + timedelta(minutes=1))
    assert (last["then"], last["retry_runnable_key"], last["retry_visible_at"]) == (
        "fail",
        None,
        None,
    )
    assert [data["claim_id"] for data in (retried, lost, last)] == ["claim-1", "claim-2", "claim-3"]


def test_an_attempt_that_was_put_off_is_under_no_claim_until_the_next_one() -> None:
    script = a_run(FEAST)
    script.defer("march")
    claim = script.claim("march")
    script.cancel()
    script.report(claim, PutOff(delay=timedelta(0)))

    (deferred,) = told(script, "attempt_deferred")
    cancelled = {str(data["step"]): data for data in told(script, "attempt_cancelled")}

    assert deferred == {
        **an_attempt("march", 1),
        **held(1),
        "visible_at": instant(T0),
        "reason": None,
    }
    assert cancelled["march"] == {**an_attempt("march", 1), **held(2)}
    assert cancelled["sneak"] == {
        **an_attempt("sneak", 1, queue="night"),
        "claim_id": None,
        "claim_token_hash": None,
    }


def test_an_attempt_that_is_cancelled_after_it_was_put_off_is_under_no_claim() -> None:
    script = a_run(FEAST)
    script.defer("march")
    script.cancel()

    cancelled = {data["step"]: data["claim_id"] for data in told(script, "attempt_cancelled")}

    assert cancelled == {"march": None, "sneak": None, "rest": None}


def runnables(script: Script) -> list[JsonMapping]:
    """All that was planned, in order."""
    found: list[JsonMapping] = []
    for data in told(script, "runnables_planned"):
        planned = data["runnables"]
        assert isinstance(planned, list)
        found += [one for one in planned if isinstance(one, dict)]
    return found


def test_a_plan_tells_of_each_step_what_its_first_attempt_is_and_what_may_be_undone() -> None:
    script = a_run(FEAST)

    (plan,) = told(script, "runnables_planned")

    policy = {"irreversible": False, "compensatable": True, "replay": "allowed"}
    assert plan["steps"] == ["march", "sneak", "rest"]
    assert runnables(script)[1:] == [
        {
            "run_id": "run-1",
            "runnable_key": f"run-1:{step}:1",
            "idempotency_key": f"run-1:{step}",
            "attempt_number": 1,
            "queue": queue,
            "step": step,
            "input": {},
            "visible_at": instant(visible_at),
            "recovery": {**policy, "compensation": undoing},
        }
        for step, queue, visible_at, undoing in (
            ("sneak", "night", T0, {"status": "available"}),
            ("rest", "default", T0 + timedelta(minutes=5), None),
        )
    ]


def test_a_plan_of_a_manual_step_has_no_attempt_to_tell_of() -> None:
    review = runnables(at_review())[-1]

    assert review == {
        "run_id": "run-1",
        "runnable_key": None,
        "idempotency_key": "run-1:review",
        "attempt_number": None,
        "queue": None,
        "step": "review",
        "input": {},
        "visible_at": None,
        "recovery": steps(at_review())["review"].recovery,
    }


def test_a_result_is_applied_under_the_key_of_the_attempt_that_brought_it() -> None:
    script = at_ask()
    script.lose(script.claim("ask"))
    script.ok("ask", "yes")

    applied = told(script, "runnable_applied")[-1]

    assert applied == {
        "run_id": "run-1",
        "runnable_key": "run-1:ask:2",
        "idempotency_key": "run-1:ask",
        "at": instant(script.now),
        "applied_at": instant(script.now),
        "step": "ask",
        "visit": 1,
        "under": "verdict",
        "transition": 2,
        "result": "yes",
    }


def test_without_its_definition_a_run_has_entries_with_all_but_inputs_and_recovery() -> None:
    script = not_undone()
    known = seen(script).entries

    unknown = run_view(None, script.state, rows=rows_of(script)).entries

    assert known is not None
    assert unknown is not None
    assert [without_definition(entry) for entry in known] == [entry.data for entry in unknown]


def without_definition(entry: Entry) -> JsonMapping:
    data = dict(entry.data)
    if "input" in data:
        data["input"] = None
    planned = data.get("runnables")
    if isinstance(planned, list):
        data["runnables"] = [
            {**one, "input": None, "recovery": None} for one in planned if isinstance(one, dict)
        ]
    return data


def marching() -> Script:
    """A feast whose march is under way."""
    script = a_run(FEAST)
    script.claim("march")
    return script


def stumble(script: Script) -> tuple[Fact, ...]:
    """The march fails, and is tried again later."""
    claim = Claim(AttemptId("march", 1), "claim-1", "hash-1", "worker-1")
    return script.report(claim, Failed(error=BUSY))


@pytest.mark.parametrize(
    ("make", "command"),
    [
        (at_review, Script.approve),
        (at_review, Script.reject),
        (at_review, Script.cancel),
        (lambda: a_run(FEAST), Script.cancel),
        (lambda: a_run(BREAK), Script.resume),
        (marching, stumble),
    ],
)
def test_entries_to_come_are_shown_as_they_will_be_in_the_history(
    make: Callable[[], Script], command: Callable[[Script], tuple[Fact, ...]]
) -> None:
    script = make()
    before = script.state
    written = command(script)

    coming = tuple(entry_views(script.definition, before, written))

    entries = seen(script).entries
    assert entries is not None
    assert coming == entries[before.revision :]


def test_what_is_done_to_one_entry_is_not_done_to_another_or_to_a_step() -> None:
    script = at_ask()
    run = seen(script)
    assert run.entries is not None
    assert run.steps is not None
    before = repr((run.steps, [entry for entry in run.entries if entry.seq != 4]))

    scribble(run.entries[3])

    assert run.entries[3].data["scribbled"] is True
    assert repr((run.steps, [entry for entry in run.entries if entry.seq != 4])) == before


def test_rows_that_are_newer_than_the_state_are_left_out() -> None:
    script = at_ask()
    state = script.state
    script.ok("ask")

    run = run_view(PAYMENT, state, rows=rows_of(script))

    assert run.entries is not None
    assert run.entries[-1].seq == run.revision == state.revision


def test_without_its_definition_a_run_shows_what_it_did() -> None:
    script = at_review()

    run = run_view(None, script.state, rows=rows_of(script))

    assert run.steps is not None
    assert [(step.name, step.kind, step.recovery) for step in run.steps] == [
        ("load", "unknown", None),
        ("settle", "unknown", None),
        ("ask", "unknown", None),
        ("review", "approval", None),
    ]
    assert run.entries is not None


def test_in_a_list_a_run_has_neither_context_nor_history() -> None:
    whole = at_review().state
    bare = RunState(
        run_id=whole.run_id,
        started=whole.started,
        revision=whole.revision,
        status=whole.status,
        updated_at=whole.updated_at,
    )

    run = summary_view(RunSummary(state=bare, current_step=current_step(whole)))

    assert (run.status, run.current_step, run.context, run.steps) == (
        "paused",
        "review",
        None,
        None,
    )
    assert run.payload == {"invoice_id": "i7", "account": "a1"}


def test_what_a_reader_does_to_a_view_does_not_reach_the_run() -> None:
    definition = a_workflow(
        an_action("load", "order", output="loaded"),
        an_action("use", "loaded"),
        transitions=a_path("load", "use"),
        takes=("order",),
    )
    script = Script(definition).start({"order": {"lines": [1]}})
    script.ok("load", {"lines": [1]})
    script.fail("use", ErrorRecord(code="x", message="x", details={"lines": [1]}))
    rows = rows_of(script)
    before = repr((script.state, rows))

    scribble(seen(script))

    assert repr((script.state, rows)) == before


def scribble(value: object) -> None:
    """Change everything that can be changed in *value*."""
    kind = type(value)
    if attrs.has(kind):
        for field in attrs.fields(kind):
            scribble(getattr(value, field.name))
    if isinstance(value, tuple):
        for item in value:
            scribble(item)
    if isinstance(value, dict):
        for item in value.values():
            scribble(item)
        value["scribbled"] = True
    if isinstance(value, list):
        for item in value:
            scribble(item)
        value.append("scribbled")


def test_a_deeply_nested_output_can_still_be_shown_in_the_context() -> None:
    deep: Json = "bottom"
    for _ in range(64):
        deep = [deep]
    script = a_run(PAYMENT)
    script.ok("load", deep)

    context = seen(script).context

    assert context is not None
    assert context["invoice"] == deep


def test_a_finished_feast_was_updated_when_it_ended() -> None:
    script = feasted()

    run = seen(script)

    assert run.updated_at == run.ended_at == script.now
