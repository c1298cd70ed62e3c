"""Where a run goes on from a step that failed, if anywhere."""

from squidmesh.domain.definition import Condition, Operator, RecoveryMarker
from squidmesh.domain.entries import (
    AfterFailure,
    AttemptFailed,
    ErrorRecord,
    RunTerminal,
    StepRouted,
)
from squidmesh.domain.state import RunStatus, StepStatus
from tests.domain.builders import (
    BROKEN,
    T0,
    a_chain,
    a_path,
    a_workflow,
    an_action,
    an_undoable,
    on_error,
)
from tests.domain.script import Script, types

AUTO = Condition(("routing", "decision"), Operator.EQUALS, "auto")
LARGE = Condition(("amount",), Operator.GREATER_THAN, 100)
SMALL = Condition(("amount",), Operator.LESS_THAN, 10)


def test_a_failure_takes_the_error_route_and_dooms_nothing() -> None:
    workflow = a_workflow(
        an_action("load"),
        an_action("page"),
        transitions=(*a_path("load"), on_error("load", "page"), *a_path("page")),
    )
    run = Script(workflow).start()

    said = run.fail("load")

    assert types(said) == ["AttemptFailed", "StepRouted", "RunnablesPlanned", "AttemptScheduled"]
    assert run.said(AttemptFailed)[0].then is AfterFailure.ROUTE
    assert run.said(StepRouted) == [StepRouted(at=T0, step="load", transition=1, target="page")]
    assert run.statuses == {"load": StepStatus.FAILED, "page": StepStatus.SCHEDULED}
    assert run.state.error is None
    assert run.step("load").error == BROKEN
    assert run.step("load").transition == 1


def test_a_failed_step_adds_nothing_to_the_context() -> None:
    workflow = a_workflow(
        an_action("load", output="invoice"),
        an_action("page"),
        transitions=(*a_path("load"), on_error("load", "page"), *a_path("page")),
    )
    run = Script(workflow).start()

    run.fail("load")

    assert run.state.context == {}
    assert run.state.applied == 0


def test_an_error_route_to_the_end_completes_the_run() -> None:
    workflow = a_workflow(an_action("load"), transitions=(*a_path("load"), on_error("load", None)))
    run = Script(workflow).start()

    run.fail("load")

    assert run.status is RunStatus.COMPLETED
    assert run.said(StepRouted)[0].target is None
    assert run.said(RunTerminal)[0].error is None
    assert run.statuses == {"load": StepStatus.FAILED}


def test_the_marker_of_an_error_route_is_noted_and_runs_nothing_by_itself() -> None:
    workflow = a_workflow(
        an_undoable("load"),
        an_action("charge"),
        an_action("page"),
        transitions=(
            *a_path("load", "charge"),
            on_error("charge", "page", recovery=RecoveryMarker.COMPENSATION),
            *a_path("page"),
        ),
    )
    run = Script(workflow).start()
    run.ok("load")

    run.fail("charge")

    assert run.said(StepRouted)[0].recovery is RecoveryMarker.COMPENSATION
    assert run.statuses["page"] is StepStatus.SCHEDULED
    assert "compensate:load" not in run.state.steps
    assert run.status is RunStatus.RUNNING


def test_error_routes_may_have_conditions_as_well() -> None:
    workflow = a_workflow(
        an_action("charge"),
        an_action("call"),
        an_action("write"),
        transitions=(
            *a_path("charge"),
            on_error("charge", "write"),
            on_error("charge", "call", LARGE),
            *a_path("call"),
            *a_path("write"),
        ),
        takes=("amount",),
    )
    large, small = Script(workflow).start({"amount": 500}), Script(workflow).start({"amount": 5})

    large.fail("charge")
    small.fail("charge")

    assert list(large.state.steps) == ["charge", "call"]
    assert list(small.state.steps) == ["charge", "write"]


def test_a_failure_that_no_error_route_fits_names_what_happened_as_its_cause() -> None:
    workflow = a_workflow(
        an_action("charge"),
        an_action("call"),
        transitions=(*a_path("charge"), on_error("charge", "call", LARGE), *a_path("call")),
        takes=("amount",),
    )
    run = Script(workflow).start({"amount": 5})

    run.fail("charge", ErrorRecord(code="card_declined", message="no"))

    assert run.status is RunStatus.FAILED
    assert run.step("charge").status is StepStatus.FAILED
    error = run.state.error
    assert error is not None
    assert error.code == "no_matching_transition"
    assert error.details == {"step": "charge", "outcome": "error", "cause": "card_declined"}


def test_a_failure_without_error_routes_fails_the_run_with_the_steps_error() -> None:
    run = Script(a_chain(an_action("load"), an_action("tell"))).start()

    said = run.fail("load", ErrorRecord(code="card_declined", message="no", details={"card": 1}))

    assert types(said) == ["AttemptFailed", "RunTerminal"]
    assert run.said(AttemptFailed)[0].then is AfterFailure.FAIL
    assert run.status is RunStatus.FAILED
    assert run.state.error == ErrorRecord(
        code="card_declined", message="no", details={"card": 1}, step="load"
    )
    assert run.step("load").error == ErrorRecord(
        code="card_declined", message="no", details={"card": 1}
    )
