"""Routes, joins, and the values that a body is given."""

import pytest
from returns.result import Failure, Success

from squidmesh.domain.commands import Succeeded
from squidmesh.domain.definition import Condition, On, Operator, Parameter
from squidmesh.domain.entries import Carried, ErrorRecord
from squidmesh.domain.planning import (
    NoRoute,
    Route,
    all_applied,
    bind,
    delay_of,
    inputs_of,
    is_applied,
    look_up,
    queue_of,
    ready_after,
    route_from,
)
from squidmesh.domain.values import Json, MissingPath
from tests.domain.builders import (
    a_chain,
    a_log,
    a_pause,
    a_wait,
    a_workflow,
    an_action,
    an_approval,
    on_error,
    on_ok,
    seconds,
)
from tests.domain.script import Script


def a_run(payload: dict[str, Json] | None = None) -> Script:
    """A run of one step that has begun."""
    return Script(a_chain(an_action("load"))).start(payload)


def test_outputs_stand_before_the_payload() -> None:
    state = a_run({"x": "payload", "y": "payload"}).state

    assert look_up({"x": "output"}, state, ("x",)) == Success("output")
    assert look_up({"x": "output"}, state, ("y",)) == Success("payload")


def test_a_path_digs_into_what_its_first_key_finds() -> None:
    state = a_run({"order": {"lines": [{"sku": "a"}]}}).state

    assert look_up({}, state, ("order", "lines", "0", "sku")) == Success("a")


def test_a_path_that_leads_nowhere_is_told_whole() -> None:
    state = a_run({"order": {"id": 1}}).state

    assert look_up({}, state, ("ghost", "id")) == Failure(MissingPath(("ghost", "id"), "ghost"))
    assert look_up({}, state, ("order", "net", "cents")) == Failure(
        MissingPath(("order", "net", "cents"), "net")
    )


def test_the_schedule_of_a_run_is_its_own_whatever_others_are_called() -> None:
    schedule: dict[str, Json] = {"signal_id": "s1"}
    scheduled = Script(a_chain(an_action("load"))).start({}, schedule=schedule)
    unscheduled = a_run({"schedule": "payload"})

    fake: dict[str, Json] = {"schedule": "output"}
    assert look_up(fake, scheduled.state, ("schedule", "signal_id")) == Success("s1")
    assert look_up({}, unscheduled.state, ("schedule",)) == Success("payload")


def test_parameters_are_bound_by_name_or_by_the_path_that_is_given_for_them() -> None:
    state = a_run({"account": "a1", "order": {"id": 7}}).state
    parameters = (Parameter("account"), Parameter("order_id"))

    bound = bind(parameters, {"order_id": ("order", "id")}, {}, state)

    assert bound == Success({"account": "a1", "order_id": 7})


def test_what_is_optional_may_be_absent_and_the_context_is_nobodys_to_give() -> None:
    state = a_run().state
    parameters = (Parameter("extra", required=False), Parameter("context", is_context=True))

    assert bind(parameters, {}, {"context": "not this one"}, state) == Success({})


def test_a_parameter_that_nothing_provides_is_a_terminal_error_that_names_it() -> None:
    state = a_run({"order": {}}).state

    error = bind((Parameter("order_id"),), {"order_id": ("order", "id")}, {}, state).failure()

    assert error == ErrorRecord(
        code="missing_input",
        message="Nothing provided 'order.id' for the parameter 'order_id'.",
        details={"parameter": "order_id", "path": "order.id", "missing_at": "id"},
    )


def test_along_routes_a_step_sees_the_whole_context() -> None:
    workflow = a_workflow(
        an_action("load", output="order"),
        an_action("tell", "order", "account"),
        transitions=(on_ok("load", "tell"), on_ok("tell", None)),
        takes=("account",),
    )
    run = Script(workflow).start({"account": "a1"})
    run.ok("load", 7)

    assert inputs_of(workflow, run.state, "tell") == Success({"order": 7, "account": "a1"})


def test_the_parameters_of_another_body_may_be_asked_for() -> None:
    workflow = a_chain(an_action("load", output="order"), an_action("tell"))
    run = Script(workflow).start({"account": "a1"})
    run.ok("load", 7)

    inputs = inputs_of(workflow, run.state, "tell", (Parameter("order"), Parameter("account")))

    assert inputs == Success({"order": 7, "account": "a1"})


@pytest.mark.parametrize("step", ["settle", "done"])
def test_steps_that_run_no_body_need_no_inputs(step: str) -> None:
    workflow = a_chain(a_wait("settle", seconds(5)), a_log("done"))
    run = Script(workflow).start()

    assert inputs_of(workflow, run.state, step) == Success({})


def between_branches() -> Script:
    """Two branches that merge the same key, and a join behind one of them."""
    workflow = a_workflow(
        an_action("left"),
        an_action("right"),
        an_action("behind", "found", after=("left",)),
        an_action("both", "found", after=("left", "right")),
        takes=("found",),
    )
    return Script(workflow).start({"found": "payload"})


def test_between_branches_a_step_sees_only_what_its_own_ancestors_left() -> None:
    run = between_branches()
    run.ok("left", {"found": "left"})
    run.ok("right", {"found": "right"})

    assert run.state.context == {"found": "right"}
    assert inputs_of(run.definition, run.state, "behind") == Success({"found": "left"})


def test_of_several_ancestors_the_one_applied_last_counts() -> None:
    left_last, right_last = between_branches(), between_branches()
    for step in ("right", "left"):
        left_last.ok(step, {"found": step})
    for step in ("left", "right"):
        right_last.ok(step, {"found": step})

    assert inputs_of(left_last.definition, left_last.state, "both") == Success({"found": "left"})
    assert inputs_of(right_last.definition, right_last.state, "both") == Success({"found": "right"})


def test_an_ancestor_that_left_no_such_key_leaves_the_payload_to_be_seen() -> None:
    run = between_branches()
    run.ok("left", {"other": 1})

    assert inputs_of(run.definition, run.state, "behind") == Success({"found": "payload"})


def test_named_outputs_are_seen_between_branches_too() -> None:
    workflow = a_workflow(
        an_action("load", output="order"),
        an_action("other", output="noise"),
        an_action("tell", "order", after=("load",)),
    )
    run = Script(workflow).start()
    run.ok("other", 1)
    run.ok("load", {"id": 7})

    assert inputs_of(workflow, run.state, "tell") == Success({"order": {"id": 7}})


def test_carried_outputs_are_older_than_all_that_the_run_did_itself() -> None:
    workflow = a_workflow(
        an_action("first"),
        an_action("second", after=("first",)),
        an_action("third", "found", after=("second",)),
    )
    old = (Carried(step="first", output={"found": "carried"}),)
    run = Script(workflow).start(from_step="second", carried=old)
    carried_only = look_up(run.state.context, run.state, ("found",))
    run.ok("second", {"found": "new"})

    assert carried_only == Success("carried")
    assert inputs_of(workflow, run.state, "third") == Success({"found": "new"})


def test_of_two_carried_outputs_the_later_one_counts() -> None:
    workflow = a_workflow(
        an_action("first"),
        an_action("second"),
        an_action("third", "found", after=("first", "second")),
    )
    old = (
        Carried(step="second", output={"found": "second"}),
        Carried(step="first", output={"found": "first"}),
    )
    run = Script(workflow).start(from_step="third", carried=old)

    assert inputs_of(workflow, run.state, "third") == Success({"found": "first"})


def test_ready_is_what_only_waited_for_this_step() -> None:
    workflow = a_workflow(
        an_action("a"),
        an_action("b"),
        an_action("ab", after=("a", "b")),
        an_action("aa", after=("a",)),
    )
    run = Script(workflow).start()
    run.ok("b")
    before = ready_after(workflow, run.state, "b")
    run.ok("a")

    assert before == ()
    assert set(run.statuses) == {"a", "b", "ab", "aa"}
    assert ready_after(workflow, run.state, "a") == ()


def test_a_step_is_applied_when_its_result_is_part_of_the_run() -> None:
    workflow = a_workflow(an_action("a"), an_action("b"), an_action("c"))
    run = Script(workflow).start()
    held = run.claim("b")
    run.ok("a")
    run.fail("c")
    run.report(held, Succeeded())

    assert is_applied(run.state, "a")
    assert not is_applied(run.state, "b")
    assert not is_applied(run.state, "nowhere")
    assert not all_applied(workflow, run.state)


def test_routes_are_found_by_outcome() -> None:
    workflow = a_workflow(
        an_action("load"),
        an_action("page"),
        transitions=(
            on_ok("load", None),
            on_error("load", "page", Condition(("x",), Operator.EQUALS, 1)),
            on_ok("page", None),
        ),
    )
    run = Script(workflow).start()

    assert route_from(workflow, run.state, "load", On.OK, {}) == Route(0, workflow.transitions[0])
    assert route_from(workflow, run.state, "load", On.ERROR, {"x": 1}) == Route(
        1, workflow.transitions[1]
    )
    assert route_from(workflow, run.state, "load", On.ERROR, {}) == NoRoute(declared=True)
    assert route_from(workflow, run.state, "page", On.ERROR, {}) == NoRoute(declared=False)


def test_a_steps_own_queue_wins_over_the_runs_and_its_compensation_goes_there_too() -> None:
    workflow = a_chain(an_action("load", queue="gpu"), an_action("tell"))
    run = Script(workflow).start(queue="slow")

    assert queue_of(workflow, run.state, "load") == "gpu"
    assert queue_of(workflow, run.state, "tell") == "slow"
    assert queue_of(workflow, run.state, "compensate:load") == "gpu"
    assert queue_of(workflow, run.state, "compensate:tell") == "slow"


def test_only_a_timer_is_invisible_at_first() -> None:
    steps = (an_action("a"), a_log("b"), a_pause("c"), an_approval("d"))

    assert delay_of(a_wait("settle", seconds(5))) == seconds(5)
    assert {delay_of(step) for step in steps} == {seconds(0)}
