"""What may be undone, what a compensation is given, and what a replay brings along."""

from returns.result import Success

from squidmesh.domain.commands import Failed, Succeeded
from squidmesh.domain.definition import Parameter
from squidmesh.domain.entries import Carried, ErrorRecord
from squidmesh.domain.recovery import (
    carried_over,
    error_after_undoing,
    error_data,
    steps_to_undo,
    undo_inputs,
)
from tests.domain.builders import (
    BROKEN,
    a_body,
    a_chain,
    a_pause,
    a_wait,
    a_workflow,
    an_action,
    an_undoable,
    seconds,
)
from tests.domain.script import Script


def test_only_completed_steps_with_a_callback_are_undone_newest_first() -> None:
    workflow = a_workflow(
        an_undoable("a"),
        an_undoable("b"),
        an_action("c"),
        an_undoable("d"),
        an_undoable("e"),
        a_wait("f", seconds(5)),
    )
    run = Script(workflow).start()
    for step in ("b", "c", "a"):
        run.ok(step)
    run.claim("d")

    assert steps_to_undo(workflow, run.state) == ("a", "b")


def test_a_compensation_takes_payload_context_its_own_output_and_the_failure_by_name() -> None:
    undo = a_body(
        "withdraw",
        "account",
        "invoice",
        "output",
        "failure",
        Parameter("where", is_context=True),
        Parameter("extra", required=False),
    )
    workflow = a_workflow(
        an_action("load", output="invoice"),
        an_action("credit", output="credit", after=("load",), undone_by=undo),
        an_action("tell", after=("credit",)),
        takes=("account",),
    )
    run = Script(workflow).start({"account": "a1"})
    run.ok("load", {"id": 7})
    run.ok("credit", 12)

    run.fail("tell", ErrorRecord(code="no_mail", message="bounced", type="SMTPError"))

    assert undo_inputs(workflow, run.state, "compensate:credit") == Success(
        {
            "account": "a1",
            "invoice": {"id": 7},
            "output": 12,
            "failure": {
                "code": "no_mail",
                "message": "bounced",
                "type": "SMTPError",
                "details": {},
                "retryable": False,
                "step": "tell",
            },
        }
    )


def test_the_steps_own_output_hides_a_context_key_of_that_name() -> None:
    workflow = a_workflow(
        an_action("load", output="output"),
        an_action("credit", after=("load",), undone_by=a_body("withdraw", "output")),
        an_action("tell", after=("credit",)),
    )
    run = Script(workflow).start()
    run.ok("load", "of load")
    run.ok("credit", {"of": "credit"})
    run.fail("tell")

    inputs = undo_inputs(workflow, run.state, "compensate:credit")

    assert inputs == Success({"output": {"of": "credit"}})


def test_a_compensation_that_nothing_provides_for_says_what_is_missing() -> None:
    workflow = a_chain(an_action("a", undone_by=a_body("undo", "ghost")), an_action("b"))
    run = Script(workflow).start()
    run.ok("a")
    run.fail("b")

    missing = undo_inputs(workflow, run.state, "compensate:a").failure()

    assert missing.code == "missing_input"
    assert missing.details == {"parameter": "ghost", "path": "ghost", "missing_at": "ghost"}
    assert not missing.retryable


def test_a_step_without_a_callback_needs_no_inputs_to_be_undone() -> None:
    workflow = a_chain(an_action("a"), an_action("b"))
    run = Script(workflow).start()

    assert undo_inputs(workflow, run.state, "compensate:a") == Success({})


def test_an_error_without_failed_compensations_stays_as_it_is() -> None:
    assert error_after_undoing(BROKEN, ()) is BROKEN


def test_an_error_as_data_names_its_step_only_where_it_has_one() -> None:
    plain = error_data(BROKEN)
    named = error_data(ErrorRecord(code="c", message="m", step="load", details={"a": 1}))

    assert plain == {
        "code": "step_error",
        "message": "it broke",
        "type": None,
        "details": {},
        "retryable": False,
    }
    assert isinstance(named, dict)
    assert named["step"] == "load"
    assert error_data(None) is None


def test_outputs_are_carried_in_the_order_in_which_they_were_applied() -> None:
    workflow = a_workflow(
        an_action("a"),
        an_action("b"),
        an_action("c", after=("a", "b")),
    )
    run = Script(workflow).start()
    run.ok("b", {"key": "b"})
    run.ok("a", {"key": "a"})

    carried = carried_over(workflow, run.state, "c")
    copy = Script(workflow).start(from_step="c", carried=carried)

    assert [item.step for item in carried] == ["b", "a"]
    assert copy.state.context == run.state.context == {"key": "a"}


def test_a_decision_that_was_never_part_of_the_context_is_not_carried_into_it() -> None:
    workflow = a_chain(a_pause("hold"), a_pause("keep", output="kept"), an_action("tell"))
    run = Script(workflow).start()
    run.resume()
    run.resume()

    carried = carried_over(workflow, run.state, "tell")

    assert carried[0] == Carried(step="hold", output=None)
    assert carried[1].under == "kept"
    assert Script(workflow).start(from_step="tell", carried=carried).state.context == (
        run.state.context
    )


def test_results_that_led_nowhere_are_not_carried() -> None:
    workflow = a_workflow(an_action("a"), an_action("b"), an_action("c", after=("a",)))
    run = Script(workflow).start()
    held = run.claim("a")
    run.fail("b")
    run.report(held, Succeeded({"late": 1}))

    assert carried_over(workflow, run.state, "c") == ()


def test_compensations_are_not_carried() -> None:
    workflow = a_chain(an_undoable("a"), an_action("b"))
    run = Script(workflow).start()
    run.ok("a", {"x": 1})
    run.report(run.claim("b"), Failed(error=BROKEN))
    run.ok("compensate:a")

    carried = carried_over(workflow, run.state, "b")

    assert carried == (Carried(step="a", output={"x": 1}, undone=True),)


def test_what_was_carried_once_is_carried_again() -> None:
    workflow = a_chain(an_action("a", output="x"), an_action("b"), an_action("c"))
    first = Script(workflow).start(from_step="b", carried=(Carried(step="a", output=1, under="x"),))
    first.ok("b", {"y": 2})

    carried = carried_over(workflow, first.state, "c")

    assert carried == (
        Carried(step="a", output=1, under="x"),
        Carried(step="b", output={"y": 2}),
    )
