"""Repeating a run, and the steps that stand in the way."""

import pytest

from squidmesh.domain.commands import (
    CannotStartThere,
    Failed,
    LeadsElsewhere,
    ReplayIsUnsafe,
    ReplayRun,
    StartRun,
    Succeeded,
)
from squidmesh.domain.definition import WorkflowDefinition
from squidmesh.domain.entries import Carried, Issuer, RunnablesPlanned, RunReplayed, RunStarted
from squidmesh.domain.recovery import carried_over, undone_before
from squidmesh.domain.state import RunStatus, StepStatus
from tests.domain.builders import (
    ANNA,
    BROKEN,
    RUN,
    T0,
    a_chain,
    a_path,
    a_pause,
    a_workflow,
    an_action,
    an_undoable,
    on_error,
    seconds,
)
from tests.domain.script import Script, report_of

REPLAY = ReplayRun(new_run_id="run-2")


def a_shipment() -> WorkflowDefinition:
    """Three steps, of which the second can only be done once and the third not be undone."""
    return a_chain(
        an_action("load", output="order"),
        an_action("ship", irreversible=True),
        an_action("bill", compensatable=False),
        an_action("tell"),
    )


def shipped_up_to(*steps: str) -> Script:
    """A shipment of which these steps are done."""
    run = Script(a_shipment()).start()
    for step in steps:
        run.ok(step)
    return run


def test_a_replay_is_noted_on_the_source_and_changes_nothing_else_there() -> None:
    run = Script(a_chain(an_action("load"))).start()
    run.ok("load")
    before = run.state
    run.pass_time(seconds(60))

    said = run.replay(issuer=Issuer(actor="anna", comment="again"))

    assert said == (
        RunReplayed(
            at=T0 + seconds(60), new_run_id="run-2", issuer=Issuer(actor="anna", comment="again")
        ),
    )
    assert run.status is RunStatus.COMPLETED
    assert run.state.revision == before.revision + 1
    assert run.state.updated_at == before.updated_at
    assert run.state.steps == before.steps


def test_a_run_may_be_replayed_more_than_once() -> None:
    run = Script(a_chain(an_action("load"))).start()
    run.ok("load")

    run.replay("run-2", Issuer(idempotency_key="k1"))
    run.replay("run-3", Issuer(idempotency_key="k2"))

    assert [entry.new_run_id for entry in run.said(RunReplayed)] == ["run-2", "run-3"]


def test_a_run_that_is_still_under_way_may_be_replayed_too() -> None:
    run = shipped_up_to("load")

    run.replay()

    assert run.status is RunStatus.RUNNING


def test_completed_steps_that_cannot_be_repeated_stand_in_the_way() -> None:
    run = shipped_up_to("load", "ship", "bill")

    refusal = run.refused(REPLAY)

    assert refusal == ReplayIsUnsafe(steps=("ship", "bill"))


def test_only_completed_steps_stand_in_the_way() -> None:
    run = shipped_up_to("load")
    run.fail("ship")

    run.replay()

    assert run.said(RunReplayed) != []


def test_a_step_completed_in_a_doomed_run_stands_in_the_way_though_it_led_nowhere() -> None:
    workflow = a_workflow(an_action("ship", irreversible=True), an_action("pay"))
    run = Script(workflow).start()
    held = run.claim("ship")
    run.fail("pay")
    run.do(report_of(held, Succeeded()))

    refusal = run.refused(REPLAY)

    assert refusal == ReplayIsUnsafe(steps=("ship",))


def test_the_override_has_to_be_exactly_true() -> None:
    run = shipped_up_to("load", "ship")
    almost = ReplayRun(new_run_id="run-2", allow_irreversible=1)  # type: ignore[arg-type]  # on purpose

    refusal = run.refused(almost)
    run.do(ReplayRun(new_run_id="run-2", allow_irreversible=True))

    assert refusal == ReplayIsUnsafe(steps=("ship",))
    assert run.said(RunReplayed)[0].new_run_id == "run-2"


def test_only_the_steps_from_there_on_count_where_a_replay_starts_half_way() -> None:
    run = shipped_up_to("load", "ship", "bill")

    before = run.refused(ReplayRun(new_run_id="run-2", from_step="ship"))
    behind = run.refused(ReplayRun(new_run_id="run-2", from_step="bill"))
    run.do(ReplayRun(new_run_id="run-2", from_step="tell"))

    assert before == ReplayIsUnsafe(steps=("ship", "bill"))
    assert behind == ReplayIsUnsafe(steps=("bill",))
    assert run.said(RunReplayed)[0].from_step == "tell"


@pytest.mark.parametrize("step", ["nowhere", "tell", "compensate:load"])
def test_a_replay_cannot_start_where_the_source_never_was(step: str) -> None:
    run = shipped_up_to("load")

    refusal = run.refused(ReplayRun(new_run_id="run-2", from_step=step, allow_irreversible=True))

    assert refusal == CannotStartThere(step=step)


def test_in_a_graph_of_joins_everything_but_the_ancestors_runs_again() -> None:
    workflow = a_workflow(
        an_action("root", irreversible=True),
        an_action("left", after=("root",)),
        an_action("right", after=("root",), irreversible=True),
        an_action("end", after=("left", "right")),
    )
    run = Script(workflow).start()
    for step in ("root", "left", "right", "end"):
        run.ok(step)

    refusal = run.refused(ReplayRun(new_run_id="run-2", from_step="left"))

    assert refusal == ReplayIsUnsafe(steps=("right",))


def test_a_replay_from_a_step_starts_there_with_what_came_before_it() -> None:
    source = shipped_up_to("load", "ship")
    carried = carried_over(source.definition, source.state, "ship")

    copy = Script(source.definition).start(from_step="ship", carried=carried)

    assert copy.statuses == {"load": StepStatus.COMPLETED, "ship": StepStatus.SCHEDULED}
    assert copy.step("load").carried
    assert copy.step("load").attempts == ()
    assert copy.said(RunStarted)[0].carried == carried


def test_carried_outputs_are_seen_by_the_steps_behind_them() -> None:
    workflow = a_chain(an_action("load", output="order"), an_action("price"), an_action("tell"))

    run = Script(workflow).start(
        from_step="tell",
        carried=(
            Carried(step="load", output={"id": 7}, under="order"),
            Carried(step="price", output={"amount": 5}),
        ),
    )

    assert run.state.context == {"order": {"id": 7}, "amount": 5}


def test_a_replay_half_way_runs_to_the_end() -> None:
    source = shipped_up_to("load", "ship", "bill", "tell")
    carried = carried_over(source.definition, source.state, "bill")
    copy = Script(source.definition).start(from_step="bill", carried=carried)

    copy.ok("bill")
    copy.ok("tell")

    assert copy.status is RunStatus.COMPLETED
    assert copy.claimed == ["bill", "tell"]


def test_a_replay_half_way_through_joins_begins_every_step_whose_ancestors_were_carried() -> None:
    workflow = a_workflow(
        an_action("root"),
        an_action("other"),
        an_action("left", after=("root",)),
        an_action("right", after=("root",)),
        an_action("end", after=("left", "right", "other")),
    )
    source = Script(workflow).start()
    for step in ("root", "left", "right"):
        source.ok(step)
    carried = carried_over(workflow, source.state, "left")

    copy = Script(workflow).start(from_step="left", carried=carried)
    first = copy.said(RunnablesPlanned)[0].steps
    for step in (*first, "end"):
        copy.ok(step)

    assert first == ("other", "left", "right")
    assert copy.status is RunStatus.COMPLETED


def test_a_replay_may_begin_with_a_manual_step() -> None:
    workflow = a_chain(an_action("load"), a_pause("hold"), an_action("tell"))
    source = Script(workflow).start()
    source.ok("load")

    copy = Script(workflow).start(
        from_step="hold", carried=carried_over(workflow, source.state, "hold")
    )

    assert copy.status is RunStatus.PAUSED


def test_a_failed_step_on_the_way_carries_nothing() -> None:
    workflow = a_workflow(
        an_action("load", output="order"),
        an_action("charge", output="receipt"),
        an_action("page"),
        transitions=(
            *a_path("load", "charge"),
            on_error("charge", "page"),
            *a_path("page"),
        ),
    )
    source = Script(workflow).start()
    source.ok("load", 7)
    source.fail("charge")

    carried = carried_over(workflow, source.state, "page")

    assert carried == (Carried(step="load", output=7, under="order"),)


def half_way(from_step: str, *carried: str) -> StartRun:
    """The start of a replay of a run that may have followed another definition."""
    return StartRun(
        run_id=RUN,
        workflow="orders",
        trigger="by_hand",
        fingerprint="f2",
        payload={},
        from_step=from_step,
        carried=tuple(Carried(step=step, output=None) for step in carried),
    )


def test_a_replay_does_not_start_at_a_step_that_today_has_no_name() -> None:
    refusal = Script(a_shipment()).refused(half_way("nowhere", "load"))

    assert refusal == CannotStartThere(step="nowhere")


@pytest.mark.parametrize("ahead", ["nowhere", "tell", "ship"])
def test_a_replay_does_not_start_where_todays_definition_would_lead_it_back(ahead: str) -> None:
    """A deploy between source and replay may have moved, renamed or dropped steps."""
    run = Script(a_shipment())

    refusal = run.refused(half_way("ship", "load", ahead))

    assert refusal == LeadsElsewhere(workflow="orders", step="ship", before=(ahead,))


def test_among_joins_a_carried_step_must_not_come_after_the_first_one_either() -> None:
    workflow = a_workflow(an_action("root"), an_action("leaf", after=("root",)))

    refusal = Script(workflow).refused(half_way("root", "leaf"))

    assert refusal == LeadsElsewhere(workflow="orders", step="root", before=("leaf",))


def test_a_run_keeps_whose_replay_it_is() -> None:
    run = Script(a_chain(an_action("load")))

    run.do(
        StartRun(
            run_id=RUN,
            workflow="orders",
            trigger="by_hand",
            fingerprint="f1",
            payload={},
            replayed_from="run-0",
            issuer=ANNA,
        )
    )

    assert run.state.facts.replayed_from == "run-0"


def a_booking() -> WorkflowDefinition:
    """Two steps that can be undone, with one between them that needs none of that."""
    return a_chain(
        an_action("look"),
        an_undoable("reserve"),
        an_action("print"),
        an_undoable("charge"),
        an_action("send"),
    )


def booked_and_failed() -> Script:
    """A booking that failed at its last step, and is about to be undone."""
    run = Script(a_booking()).start()
    for step in ("look", "reserve", "print", "charge"):
        run.ok(step)
    run.report(run.claim("send"), Failed(error=BROKEN))
    return run


def from_(step: str) -> ReplayRun:
    """A replay that starts half-way, whatever that repeats."""
    return ReplayRun(new_run_id="run-2", from_step=step, allow_irreversible=True)


def test_what_was_undone_is_named_before_it_is_built_upon() -> None:
    run = booked_and_failed()
    run.ok("compensate:charge")
    run.ok("compensate:reserve")

    named = [undone_before(run.definition, run.state, step) for step in ("send", "charge", "print")]
    run.do(from_("send"))

    assert named == [("reserve", "charge"), ("reserve",), ("reserve",)]
    assert undone_before(run.definition, run.state, "reserve") == ()
    assert run.said(RunReplayed)[0].from_step == "send"


def test_what_is_about_to_be_undone_is_named_as_well() -> None:
    run = booked_and_failed()

    assert run.status is RunStatus.COMPENSATING
    assert undone_before(run.definition, run.state, "send") == ("reserve", "charge")


def test_a_step_that_could_not_be_undone_is_still_done() -> None:
    run = booked_and_failed()
    run.ok("compensate:charge")
    run.fail("compensate:reserve")

    assert run.status is RunStatus.FAILED
    assert undone_before(run.definition, run.state, "send") == ("charge",)


def test_among_joins_only_what_came_before_the_step_is_brought_along() -> None:
    workflow = a_workflow(
        an_undoable("aside"), an_action("root"), an_action("leaf", after=("root",))
    )
    run = Script(workflow).start()
    run.ok("aside")
    run.ok("root")
    run.fail("leaf")
    run.ok("compensate:aside")

    run.do(from_("leaf"))

    assert undone_before(workflow, run.state, "leaf") == ()
    assert [item.step for item in carried_over(workflow, run.state, "leaf")] == ["root"]
