"""Where a run that has failed can be taken up again, as an explanation offers it."""

from squidmesh.domain.commands import Failed
from squidmesh.domain.definition import Condition, Operator
from squidmesh.domain.explanation import explain, explain_step
from tests.domain.builders import (
    BROKEN,
    a_chain,
    a_path,
    a_workflow,
    an_action,
    an_undoable,
    on_error,
    on_ok,
)
from tests.domain.script import Script

PLAIN = 'await mesh.replay_run("run-1")'


def resuming_at(step: str) -> str:
    return f'await mesh.replay_run("run-1", from_step={step!r})'


def offered(run: Script) -> list[str]:
    found = explain(run.definition, run.state, now=run.now, runnable=True)
    return [action.call for action in found.next_actions if action.name == "replay_run"]


def failed_at(run: Script, *steps: str) -> Script:
    """The run, with these steps done but for the last, which has failed for good."""
    *done, last = steps
    for step in done:
        run.ok(step)
    run.report(run.claim(last), Failed(error=BROKEN))
    return run


def test_a_failed_run_may_be_taken_up_at_the_step_that_failed() -> None:
    run = Script(a_chain(an_action("a"), an_action("b"), an_action("c"))).start()
    failed_at(run, "a", "b")

    assert offered(run) == [PLAIN, resuming_at("b")]


def test_what_is_done_and_cannot_be_undone_only_forbids_to_begin_before_it() -> None:
    run = Script(a_chain(an_action("a", irreversible=True), an_action("b"))).start()
    failed_at(run, "a", "b")

    assert offered(run) == [resuming_at("b")]


def test_a_run_that_was_undone_is_taken_up_at_the_earliest_step_that_was() -> None:
    run = Script(
        a_chain(an_action("a"), an_undoable("b"), an_undoable("c"), an_action("d"))
    ).start()
    failed_at(run, "a", "b", "c", "d")
    run.ok("compensate:c")
    run.ok("compensate:b")

    assert offered(run) == [PLAIN, resuming_at("b")]


def test_a_step_that_could_not_be_undone_is_not_done_anew() -> None:
    run = Script(a_chain(an_undoable("a"), an_action("b"))).start()
    failed_at(run, "a", "b")
    run.fail("compensate:a")

    assert offered(run) == [resuming_at("b"), PLAIN]


def test_nothing_is_offered_where_what_was_undone_lies_before_what_cannot_be() -> None:
    run = Script(
        a_chain(an_undoable("a"), an_action("b", irreversible=True), an_action("c"))
    ).start()
    failed_at(run, "a", "b", "c")
    run.ok("compensate:a")

    assert offered(run) == []


def test_a_step_whose_result_led_nowhere_may_be_done_anew() -> None:
    is_large = Condition(("size",), Operator.GREATER_THAN, 5)
    workflow = a_workflow(
        an_action("a"),
        an_action("b"),
        an_action("c"),
        transitions=(on_ok("a", "b"), on_ok("b", "c", is_large), on_ok("c", None)),
    )
    run = Script(workflow).start()
    run.ok("a")
    run.ok("b", {"size": 1})

    assert offered(run) == [PLAIN, resuming_at("b")]


def test_a_run_that_took_an_error_route_is_taken_up_where_that_failed() -> None:
    workflow = a_workflow(
        an_action("a"),
        an_action("b"),
        an_action("page"),
        transitions=(*a_path("a", "b"), on_error("b", "page"), *a_path("page")),
    )
    run = failed_at(Script(workflow).start(), "a", "b")
    failed_at(run, "page")

    assert offered(run) == [PLAIN, resuming_at("page")]


def test_neither_a_completed_nor_a_cancelled_run_has_a_place_to_take_it_up_at() -> None:
    completed = Script(a_chain(an_action("a"))).start()
    completed.ok("a")
    cancelled = Script(a_chain(an_action("a"))).start()
    cancelled.cancel()

    assert offered(completed) == offered(cancelled) == [PLAIN]


def test_a_step_names_what_was_undone_before_it_and_does_not_offer_to_build_on_that() -> None:
    run = Script(a_chain(an_undoable("a"), an_action("b"))).start()
    failed_at(run, "a", "b")
    run.ok("compensate:a")

    found = explain_step(run.definition, run.state, "b", now=run.now, runnable=True)

    assert found is not None
    assert found.details["replay"] == {"allowed": True, "blocked_by": [], "undone": ["a"]}
    assert found.next_actions == ()
