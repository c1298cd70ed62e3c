"""Undoing what was done when a run has failed for good."""

import pytest

from squidmesh.domain.commands import ClaimOffer, Failed, Offers, PutOff, Succeeded
from squidmesh.domain.definition import COMPENSATION_RETRY, CompensationSpec, RetryPolicy
from squidmesh.domain.dispatch import idempotency_key
from squidmesh.domain.entries import (
    AttemptId,
    AttemptScheduled,
    Carried,
    CompensationPlanned,
    ErrorRecord,
    FinalStatus,
    RunTerminal,
)
from squidmesh.domain.state import RunStatus, StepStatus, compensation_of
from tests.domain.builders import (
    BROKEN,
    BUSY,
    LEASE,
    RUN,
    T0,
    a_body,
    a_chain,
    a_workflow,
    an_action,
    an_undoable,
    seconds,
)
from tests.domain.script import Script, types


def a_failed_trip(*, retry: RetryPolicy = COMPENSATION_RETRY) -> Script:
    """Three bookings of which two can be undone, and a failure behind them."""
    workflow = a_chain(
        an_action("flight", undone_by=CompensationSpec(body=a_body("unbook"), retry=retry)),
        an_action("mail"),
        an_action("hotel", undone_by=CompensationSpec(body=a_body("unbook"), retry=retry)),
        an_undoable("pay"),
    )
    run = Script(workflow).start()
    for step in ("flight", "mail", "hotel"):
        run.ok(step)
    run.fail("pay")
    return run


def test_a_final_failure_plans_to_undo_the_newest_completion_first() -> None:
    run = a_failed_trip()

    error = ErrorRecord(code="step_error", message="it broke", step="pay")
    assert run.said(CompensationPlanned) == [
        CompensationPlanned(at=T0, steps=("hotel", "flight"), error=error)
    ]
    assert run.status is RunStatus.COMPENSATING
    assert run.state.error == error
    assert run.undo("hotel").status is StepStatus.SCHEDULED


def test_the_failed_step_itself_is_not_undone() -> None:
    run = a_failed_trip()

    assert "compensate:pay" not in run.statuses
    assert run.state.undoing is not None
    assert "pay" not in run.state.undoing.remaining


def test_one_step_is_undone_after_the_other_and_then_the_run_has_failed() -> None:
    run = a_failed_trip()

    first = run.ok("compensate:hotel")
    between = run.status
    second = run.ok("compensate:flight")

    assert types(first) == ["AttemptCompleted", "AttemptScheduled"]
    assert between is RunStatus.COMPENSATING
    assert types(second) == ["AttemptCompleted", "RunTerminal"]
    assert run.status is RunStatus.FAILED
    assert run.state.undoing is None
    assert run.said(RunTerminal)[0].error == run.state.error
    assert run.state.error is not None
    assert "compensation_failures" not in run.state.error.details


def test_without_anything_to_undo_the_run_has_failed_at_once() -> None:
    run = Script(a_chain(an_action("mail"), an_undoable("pay"))).start()
    run.ok("mail")

    run.fail("pay")

    assert run.status is RunStatus.FAILED
    assert run.said(CompensationPlanned) == []


def test_a_run_with_attempts_left_undoes_nothing_yet() -> None:
    patient = RetryPolicy(max_attempts=2)
    run = Script(a_chain(an_undoable("charge"), an_undoable("pay", retry=patient))).start()
    run.ok("charge")

    run.fail("pay", BUSY)

    assert run.status is RunStatus.RETRYING


def test_the_order_is_that_of_completion_and_not_of_declaration() -> None:
    workflow = a_workflow(
        an_undoable("a"), an_undoable("b"), an_undoable("c"), an_action("end", after=("a", "b"))
    )
    run = Script(workflow).start()
    for step in ("c", "a", "b"):
        run.ok(step)

    run.fail("end")

    assert run.said(CompensationPlanned)[0].steps == ("b", "a", "c")


def test_what_a_compensation_returns_stays_out_of_the_context() -> None:
    run = a_failed_trip()

    run.ok("compensate:hotel", {"refund": 5})

    assert run.state.context == {}
    assert run.undo("hotel").output == {"refund": 5}
    assert run.undo("hotel").applied is None


def test_a_compensation_is_a_step_visit_of_its_own_with_its_own_keys() -> None:
    run = a_failed_trip()

    claim = run.claim("compensate:hotel")

    assert claim.attempt == AttemptId("compensate:hotel", 1)
    assert idempotency_key(RUN, "compensate:hotel", 1) == "run-1:compensate:hotel"
    assert run.statuses["hotel"] is StepStatus.COMPLETED


def test_a_compensation_is_tried_three_times_unless_its_author_says_otherwise() -> None:
    run = a_failed_trip()

    run.fail("compensate:hotel", BUSY)
    run.fail("compensate:hotel", BUSY)
    before = run.undo("hotel").status
    run.fail("compensate:hotel", BUSY)

    delays = [
        entry.visible_at - entry.at
        for entry in run.said(AttemptScheduled)
        if entry.step == compensation_of("hotel")
    ]
    assert delays == [seconds(0), seconds(1), seconds(2)]
    assert before is StepStatus.RETRYING
    assert run.undo("hotel").status is StepStatus.FAILED


def test_a_retry_of_a_compensation_leaves_the_run_compensating() -> None:
    run = a_failed_trip()

    run.fail("compensate:hotel", BUSY)

    assert run.status is RunStatus.COMPENSATING


def test_the_authors_policy_for_a_compensation_holds() -> None:
    run = a_failed_trip(retry=RetryPolicy(max_attempts=1))

    said = run.fail("compensate:hotel", BUSY)

    assert types(said) == ["AttemptFailed", "AttemptScheduled"]
    assert run.undo("flight").status is StepStatus.SCHEDULED


def test_a_compensation_that_fails_for_good_is_listed_and_the_others_still_run() -> None:
    run = a_failed_trip()

    run.fail("compensate:hotel", ErrorRecord(code="no_refund", message="too late"))
    run.ok("compensate:flight")

    assert run.status is RunStatus.FAILED
    error = run.state.error
    assert error is not None
    assert (error.code, error.step) == ("step_error", "pay")
    assert error.details == {
        "compensation_failures": [{"step": "hotel", "code": "no_refund", "message": "too late"}]
    }
    assert run.undo("flight").status is StepStatus.COMPLETED


def test_several_failed_compensations_are_listed_in_the_order_of_undoing() -> None:
    run = a_failed_trip()

    run.fail("compensate:hotel")
    run.fail("compensate:flight")

    error = run.state.error
    assert error is not None
    listed = error.details["compensation_failures"]
    assert isinstance(listed, list)
    assert [one["step"] for one in listed if isinstance(one, dict)] == ["hotel", "flight"]
    assert run.said(RunTerminal)[0].status is FinalStatus.FAILED


def test_the_details_of_the_runs_own_error_stay_beside_the_list() -> None:
    run = Script(a_chain(an_undoable("charge"), an_action("pay"))).start()
    run.ok("charge")
    run.fail("pay", ErrorRecord(code="declined", message="no", details={"card": 7}))

    run.fail("compensate:charge")

    assert run.state.error is not None
    assert run.state.error.details["card"] == 7
    assert "compensation_failures" in run.state.error.details


def test_a_lost_compensation_is_tried_again() -> None:
    run = a_failed_trip()
    claim = run.claim("compensate:hotel")

    said = run.lose(claim)

    assert types(said) == ["AttemptLost", "AttemptScheduled"]
    assert run.undo("hotel").attempts[1].number == 2
    assert run.status is RunStatus.COMPENSATING


def test_a_poisoned_compensation_is_listed_and_the_others_still_run() -> None:
    run = a_failed_trip()

    run.lose(run.claim("compensate:hotel"), max_deliveries=1)
    run.ok("compensate:flight")

    assert run.state.error is not None
    listed = run.state.error.details["compensation_failures"]
    assert isinstance(listed, list)
    assert isinstance(listed[0], dict)
    assert (listed[0]["step"], listed[0]["code"]) == ("hotel", "poisoned")


def test_a_compensation_may_be_put_off() -> None:
    run = a_failed_trip()

    said = run.report(run.claim("compensate:hotel"), PutOff(delay=seconds(9)))

    assert types(said) == ["AttemptDeferred"]
    assert run.status is RunStatus.COMPENSATING


@pytest.mark.parametrize("ends_well", [True, False])
def test_the_next_compensation_goes_to_a_worker_that_offers(*, ends_well: bool) -> None:
    run = a_failed_trip()
    offer = ClaimOffer(claim_id="next", token_hash="next-hash", owner="worker-1", lease=LEASE)
    offers = Offers(claims=(offer,), queues=frozenset({"default"}))
    outcome = Succeeded() if ends_well else Failed(error=BROKEN)

    run.report(run.claim("compensate:hotel"), outcome, offers=offers)

    assert run.undo("flight").status is StepStatus.RUNNING


def test_steps_that_a_replay_brought_along_are_not_undone() -> None:
    run = Script(a_chain(an_undoable("charge"), an_undoable("ship"), an_action("pay")))
    run.start(from_step="ship", carried=(Carried(step="charge", output={"charged": 1}),))
    run.ok("ship")

    run.fail("pay")

    assert run.said(CompensationPlanned)[0].steps == ("ship",)
