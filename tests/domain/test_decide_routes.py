"""Where a run goes on from a step that succeeded, by condition."""

import pytest

from squidmesh.domain.definition import Condition, Operator
from squidmesh.domain.entries import (
    RunnableApplied,
)
from squidmesh.domain.state import RunStatus, StepStatus
from squidmesh.domain.values import Json
from tests.domain.builders import (
    T0,
    a_chain,
    a_log,
    a_path,
    a_workflow,
    an_action,
    an_undoable,
    on_error,
    on_ok,
)
from tests.domain.script import Script, types

AUTO = Condition(("routing", "decision"), Operator.EQUALS, "auto")
LARGE = Condition(("amount",), Operator.GREATER_THAN, 100)
SMALL = Condition(("amount",), Operator.LESS_THAN, 10)


def a_router() -> Script:
    """A step whose successor depends on an amount; anything in between is asked about."""
    workflow = a_workflow(
        an_action("price"),
        an_action("large"),
        an_action("small"),
        an_action("ask"),
        transitions=(
            on_ok("price", "ask"),
            on_ok("price", "large", LARGE),
            on_ok("price", "small", SMALL),
            *a_path("large"),
            *a_path("small"),
            *a_path("ask"),
        ),
        takes=("amount",),
    )
    return Script(workflow)


def test_success_leads_to_the_next_step() -> None:
    run = Script(a_chain(an_action("load"), an_action("tell"))).start()

    said = run.ok("load", {"invoice": 7})

    assert types(said) == [
        "AttemptCompleted",
        "RunnableApplied",
        "RunnablesPlanned",
        "AttemptScheduled",
    ]
    assert run.statuses == {"load": StepStatus.COMPLETED, "tell": StepStatus.SCHEDULED}
    assert run.status is RunStatus.RUNNING


def test_the_last_step_of_a_path_completes_the_run() -> None:
    run = Script(a_chain(an_action("load"), a_log("done"))).start()
    run.ok("load")

    said = run.ok("done")

    assert types(said) == ["AttemptCompleted", "RunnableApplied", "RunTerminal"]
    assert run.status is RunStatus.COMPLETED
    assert run.state.error is None
    assert run.state.ended_at == T0


def test_an_output_key_keeps_the_returned_value_as_it_is() -> None:
    run = Script(a_chain(an_action("load", output="invoice"), an_action("tell"))).start()

    run.ok("load", [1, 2])

    assert run.state.context == {"invoice": [1, 2]}


def test_a_returned_mapping_without_an_output_key_is_merged_and_later_keys_win() -> None:
    run = Script(a_chain(an_action("load"), an_action("price"), an_action("tell"))).start()

    run.ok("load", {"a": 1, "b": 1})
    run.ok("price", {"b": 2, "c": 2})

    assert run.state.context == {"a": 1, "b": 2, "c": 2}


def test_nothing_returned_adds_nothing() -> None:
    run = Script(a_chain(an_action("load"), an_action("tell"))).start()

    run.ok("load", None)

    assert run.state.context == {}


@pytest.mark.parametrize(
    ("amount", "target"),
    [(101, "large"), (100.5, "large"), (9, "small"), (10, "ask"), (100, "ask")],
)
def test_the_first_condition_that_holds_decides_and_the_unconditional_route_is_the_fallback(
    amount: Json, target: str
) -> None:
    run = a_router().start({"amount": amount})

    run.ok("price")

    assert list(run.state.steps) == ["price", target]


@pytest.mark.parametrize("amount", ["101", True, None, [], {}])
def test_what_cannot_be_compared_is_just_not_so(amount: Json) -> None:
    run = a_router().start({"amount": amount})

    run.ok("price")

    assert list(run.state.steps) == ["price", "ask"]


def test_of_two_conditions_that_hold_the_one_declared_first_is_taken() -> None:
    workflow = a_workflow(
        an_action("price"),
        an_action("first"),
        an_action("second"),
        transitions=(
            on_ok("price", "first", LARGE),
            on_ok("price", "second", Condition(("amount",), Operator.GREATER_THAN, 1)),
            *a_path("first"),
            *a_path("second"),
        ),
        takes=("amount",),
    )
    run = Script(workflow).start({"amount": 500})

    run.ok("price")

    assert list(run.state.steps) == ["price", "first"]


def test_a_condition_sees_the_output_of_the_step_that_it_leaves_from() -> None:
    workflow = a_workflow(
        an_action("route", output="routing"),
        an_action("pay"),
        transitions=(on_ok("route", "pay", AUTO), on_ok("route", None), *a_path("pay")),
    )
    run = Script(workflow).start()

    run.ok("route", {"decision": "auto"})

    assert list(run.state.steps) == ["route", "pay"]


def test_a_condition_prefers_an_output_to_the_payload() -> None:
    run = a_router().start({"amount": 500})

    run.ok("price", {"amount": 1})

    assert list(run.state.steps) == ["price", "small"]


def test_the_route_taken_is_noted_by_its_number() -> None:
    run = a_router().start({"amount": 500})

    run.ok("price")

    assert run.said(RunnableApplied)[0].transition == 1
    assert run.step("price").transition == 1


def test_a_success_that_no_route_fits_fails_the_run_and_leaves_the_step_completed() -> None:
    workflow = a_workflow(
        an_action("price"),
        an_action("large"),
        transitions=(on_ok("price", "large", LARGE), *a_path("large")),
        takes=("amount",),
    )
    run = Script(workflow).start({"amount": 5})

    run.ok("price", {"seen": 5})

    assert run.status is RunStatus.FAILED
    assert run.statuses == {"price": StepStatus.COMPLETED}
    assert run.state.context == {"seen": 5}
    error = run.state.error
    assert error is not None
    assert (error.code, error.step) == ("no_matching_transition", "price")
    assert error.details == {"step": "price", "outcome": "ok", "cause": None}


def test_a_success_without_any_ok_route_fails_the_run_too() -> None:
    workflow = a_workflow(
        an_action("load"), an_action("page"), transitions=(on_error("load", "page"),)
    )
    run = Script(workflow).start()

    run.ok("load")

    assert run.status is RunStatus.FAILED
    assert run.state.error is not None
    assert run.state.error.code == "no_matching_transition"


def test_a_run_that_got_stuck_undoes_what_was_done_the_stuck_step_included() -> None:
    workflow = a_workflow(
        an_undoable("load"),
        an_undoable("price"),
        an_action("large"),
        transitions=(
            on_ok("load", "price"),
            on_ok("price", "large", LARGE),
            *a_path("large"),
        ),
        takes=("amount",),
    )
    run = Script(workflow).start({"amount": 5})
    run.ok("load")

    run.ok("price")

    assert run.status is RunStatus.COMPENSATING
    assert run.state.undoing is not None
    assert run.state.undoing.remaining == ("price", "load")


def test_two_branches_may_meet_again() -> None:
    workflow = a_workflow(
        an_action("load"),
        an_action("page"),
        an_action("tell"),
        transitions=(
            on_ok("load", "tell"),
            on_error("load", "page"),
            on_ok("page", "tell"),
            *a_path("tell"),
        ),
    )
    run = Script(workflow).start()
    run.fail("load")
    run.ok("page")

    run.ok("tell")

    assert run.status is RunStatus.COMPLETED
    assert run.claimed == ["load", "page", "tell"]
