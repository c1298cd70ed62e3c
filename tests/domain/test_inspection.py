from datetime import timedelta

import pytest

from squidmesh.domain.definition import StepSpec
from squidmesh.domain.entries import Carried, FinalStatus, RunTerminal
from squidmesh.domain.evolution import evolve
from squidmesh.domain.inspection import (
    current_step,
    fresh,
    inputs_given,
    is_ending,
    kind_of,
    may_still_come,
    may_still_end,
    shown_steps,
    step_status,
)
from squidmesh.domain.state import StepStatus
from squidmesh.domain.values import Json
from tests.domain.builders import T0, a_path, a_workflow, an_action, on_error
from tests.domain.script import Script
from tests.domain.stories import (
    BREAK,
    FEAST,
    PAYMENT,
    a_run,
    at_ask,
    at_review,
    at_tell,
    doomed,
    exhausted,
    feasted,
    not_undone,
    undoing,
)


def test_a_run_is_at_its_only_open_step() -> None:
    assert current_step(a_run(PAYMENT).state) == "load"
    assert current_step(at_review().state) == "review"
    assert current_step(undoing().state) == "compensate:credit"


def test_a_run_with_several_open_steps_is_at_none_of_them() -> None:
    assert current_step(a_run(FEAST).state) is None


def test_an_open_step_that_was_not_reached_last_is_found_too() -> None:
    script = a_run(FEAST)
    script.ok("sneak")
    script.pass_time(timedelta(minutes=5))
    script.ok("rest")

    assert current_step(script.state) == "march"


def test_a_failed_run_is_at_the_step_that_it_failed_with() -> None:
    assert current_step(exhausted().state) == "march"


def test_a_run_that_ended_otherwise_is_at_no_step() -> None:
    cancelled = a_run(PAYMENT)
    cancelled.cancel()

    assert current_step(cancelled.state) is None
    assert current_step(feasted().state) is None


def test_a_run_that_failed_without_an_error_is_at_no_step() -> None:
    state = evolve(a_run(PAYMENT).state, RunTerminal(at=T0, status=FinalStatus.FAILED))

    assert current_step(state) is None


def test_a_step_that_was_not_reached_waits_until_the_run_is_over_and_is_skipped_then() -> None:
    assert step_status(at_review().state, "page") is StepStatus.WAITING
    assert step_status(exhausted().state, "feast") is StepStatus.SKIPPED
    assert step_status(exhausted().state, "march") is StepStatus.FAILED


def test_declared_steps_are_shown_as_declared_and_compensations_behind_them() -> None:
    script = undoing()

    declared = [spec.name for spec in PAYMENT.steps]
    assert list(shown_steps(PAYMENT, script.state)) == [*declared, "compensate:credit"]
    assert shown_steps(None, a_run(PAYMENT).state) == ("load",)


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        ("ask", "action"),
        ("settle", "wait"),
        ("review", "approval"),
        ("compensate:credit", "compensation"),
    ],
)
def test_a_step_has_its_kind_in_a_word(step: str, kind: str) -> None:
    assert kind_of(PAYMENT, undoing().state, step) == kind


def test_pauses_and_logs_have_their_kinds_in_a_word() -> None:
    assert kind_of(BREAK, a_run(BREAK).state, "hold") == "pause"
    assert kind_of(FEAST, a_run(FEAST).state, "note") == "log"


def test_without_a_definition_a_kind_is_told_as_far_as_the_state_knows_it() -> None:
    state = undoing().state

    assert kind_of(None, state, "review") == "approval"
    assert kind_of(None, state, "compensate:credit") == "compensation"
    assert kind_of(None, state, "ask") == "unknown"
    assert kind_of(None, state, "never") == "unknown"


def test_a_fresh_value_shares_nothing_with_the_one_that_it_was_made_of() -> None:
    value: Json = {"lines": [{"n": 1}], "text": "x", "none": None}

    copy = fresh(value)

    assert copy == value
    assert isinstance(copy, dict)
    assert isinstance(value, dict)
    assert copy["lines"] is not value["lines"]


def test_a_run_is_ending_when_it_is_over_cancelled_undone_or_doomed() -> None:
    cancelling = a_run(PAYMENT)
    cancelling.claim("load")
    cancelling.cancel()

    ending = (cancelling, undoing(), doomed()[0], feasted())

    assert [is_ending(script.state) for script in ending] == [True] * 4
    assert not is_ending(a_run(PAYMENT).state)


def test_a_run_may_come_by_the_steps_behind_its_open_one_and_by_no_others() -> None:
    script = at_review()

    assert may_still_come(PAYMENT, script.state, "tell")
    script.approve()
    assert may_still_come(PAYMENT, script.state, "tell")
    assert not may_still_come(PAYMENT, script.state, "page")


def test_a_run_may_come_by_every_join_until_it_is_doomed() -> None:
    assert may_still_come(FEAST, a_run(FEAST).state, "note")
    assert not may_still_come(FEAST, doomed()[0].state, "note")


def test_a_step_has_its_end_before_it_while_it_is_open_or_may_still_come() -> None:
    state = at_review().state

    assert may_still_end(PAYMENT, state, "review")
    assert may_still_end(PAYMENT, state, "tell")
    assert not may_still_end(PAYMENT, state, "ask")


def test_a_step_was_given_what_the_steps_before_it_left_and_what_the_run_started_with() -> None:
    script = at_tell()

    given = inputs_given(PAYMENT, script.state, script.entries)

    assert given == {
        "load": {"invoice_id": "i7"},
        "settle": {},
        "ask": {"invoice": {"id": "i7", "lines": [1, 2]}, "account": "a1"},
        "review": {},
        "credit": {"verdict": "yes"},
        "tell": {"credit": {"number": 1}},
    }


def test_an_input_is_that_of_its_time_though_a_later_step_has_written_the_key_anew() -> None:
    definition = a_workflow(
        an_action("draft", output="text"),
        an_action("check", "text", merges=()),
        an_action("rewrite", "text", output="text"),
        an_action("send", "text", merges=()),
        transitions=a_path("draft", "check", "rewrite", "send"),
    )
    script = Script(definition).start()
    for step, output in (("draft", "one"), ("check", None), ("rewrite", "two"), ("send", None)):
        script.ok(step, output)

    given = inputs_given(definition, script.state, script.entries)

    assert [given[step]["text"] for step in ("check", "rewrite", "send")] == ["one", "one", "two"]


def test_a_decision_without_an_output_key_is_no_input() -> None:
    definition = a_workflow(
        StepSpec(name="hold", kind=BREAK.by_name["hold"].kind),
        an_action("work", "decision"),
        transitions=a_path("hold", "work"),
        takes=("decision",),
    )
    script = Script(definition).start({"decision": "from the payload"})
    script.resume()

    given = inputs_given(definition, script.state, script.entries)

    assert given["work"] == {"decision": "from the payload"}


def test_a_join_was_given_the_outputs_of_its_branches() -> None:
    script = feasted()

    given = inputs_given(FEAST, script.state, script.entries)

    assert given["feast"] == {"north": "ahead", "south": "behind"}
    assert given["march"] == given["note"] == {}


def test_a_step_whose_input_was_incomplete_has_none() -> None:
    definition = a_workflow(
        an_action("load"),
        an_action("use", "what_load_merges"),
        transitions=(*a_path("load", "use"), on_error("load", "use")),
    )
    script = Script(definition).start()
    script.ok("load", {})

    given = inputs_given(definition, script.state, script.entries)

    assert given == {"load": {}}


def test_a_step_is_given_what_a_replay_brought_along() -> None:
    carried = (Carried(step="load", output={"id": "i8"}, under="invoice"),)
    script = Script(PAYMENT).start({"account": "a2"}, from_step="ask", carried=carried)

    given = inputs_given(PAYMENT, script.state, script.entries)

    assert given == {"ask": {"invoice": {"id": "i8"}, "account": "a2"}}


def test_a_compensation_was_given_the_failure_as_it_was_when_undoing_began() -> None:
    script = not_undone()

    given = inputs_given(PAYMENT, script.state, script.entries)

    undone = given["compensate:credit"]
    failure = undone["failure"]
    assert undone["output"] == {"number": 1}
    assert isinstance(failure, dict)
    assert (failure["code"], failure["step"], failure["details"]) == ("unreachable", "tell", {})


def test_what_a_retry_was_given_is_what_the_first_attempt_was() -> None:
    script = at_ask()
    script.lose(script.claim("ask"))

    given = inputs_given(PAYMENT, script.state, script.entries)

    assert given["ask"] == {"invoice": {"id": "i7", "lines": [1, 2]}, "account": "a1"}
