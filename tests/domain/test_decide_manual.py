"""Steps that wait for a person."""

import pytest

from squidmesh.domain.commands import (
    ApproveRun,
    ClaimAttempt,
    NotClaimable,
    NotPaused,
    RejectRun,
    ResumeRun,
    SkipReason,
)
from squidmesh.domain.definition import RecoveryMarker
from squidmesh.domain.entries import (
    AttemptId,
    Issuer,
    ManualAction,
    ManualKind,
    ManualStepPaused,
    ManualStepResolved,
    StepRouted,
)
from squidmesh.domain.state import RunStatus, StepStatus
from squidmesh.domain.values import Json
from tests.domain.builders import (
    ANNA,
    T0,
    a_chain,
    a_path,
    a_pause,
    a_workflow,
    an_action,
    an_approval,
    an_undoable,
    on_error,
    on_ok,
    seconds,
    unchecked,
)
from tests.domain.script import Script, offer_of, types

BEN = Issuer(actor={"name": "ben"}, comment="looks fine", metadata={"ticket": 7})


def a_review(*, recovery: RecoveryMarker | None = None, output: str | None = "review") -> Script:
    """A run that waits for a yes or a no."""
    workflow = a_workflow(
        an_action("load"),
        an_approval("review", output=output),
        an_action("pay"),
        an_action("page"),
        transitions=(
            *a_path("load", "review", "pay"),
            on_error("review", "page", recovery=recovery),
            *a_path("page"),
        ),
    )
    run = Script(workflow).start()
    run.ok("load")
    return run


def a_halt(*, output: str | None = None) -> Script:
    """A run that waits to be resumed."""
    run = Script(a_chain(an_action("load"), a_pause("hold", output=output), an_action("tell")))
    run.start().ok("load")
    return run


def test_a_manual_step_is_opened_with_the_routes_and_the_output_key_of_that_moment() -> None:
    run = a_review()

    opened = ManualStepPaused(
        at=T0, step="review", kind=ManualKind.APPROVAL, on_ok=1, on_error=3, output="review"
    )
    assert run.said(ManualStepPaused) == [opened]
    assert run.status is RunStatus.PAUSED
    assert run.statuses["review"] is StepStatus.PAUSED
    assert run.state.paused_step is not None
    assert run.state.paused_step.manual == opened


def test_a_manual_step_has_no_attempt_to_claim() -> None:
    run = a_review()
    claim = run.a_claim("review", number=1)

    refusal = run.refused(ClaimAttempt(attempt=claim.attempt, offer=offer_of(claim)))

    assert run.step("review").current is None
    assert refusal == NotClaimable(attempt=AttemptId("review", 1), reason=SkipReason.NOT_SCHEDULED)


def test_resuming_a_pause_goes_on_to_the_next_step() -> None:
    run = a_halt()

    said = run.resume()

    assert types(said) == ["ManualStepResolved", "RunnablesPlanned", "AttemptScheduled"]
    assert run.statuses == {
        "load": StepStatus.COMPLETED,
        "hold": StepStatus.COMPLETED,
        "tell": StepStatus.SCHEDULED,
    }
    assert run.status is RunStatus.RUNNING


def test_a_pause_without_output_key_adds_nothing_to_the_context() -> None:
    run = a_halt()

    run.resume(Issuer(actor="anna", metadata={"decision": "merge me not"}))

    assert run.state.context == {}
    assert run.step("hold").applied is not None


def test_a_pause_with_output_key_leaves_who_resumed_it() -> None:
    run = a_halt(output="hold")

    run.resume(BEN)

    hold = run.state.context["hold"]
    assert isinstance(hold, dict)
    assert (hold["decision"], hold["actor"]) == ("resumed", {"name": "ben"})


def test_an_approval_records_the_decision_under_its_output_and_takes_the_ok_route() -> None:
    run = a_review()
    run.pass_time(seconds(90))

    run.approve(BEN)

    record: Json = {
        "decision": "approved",
        "actor": {"name": "ben"},
        "decided_at": "2026-11-02T09:01:30+00:00",
        "comment": "looks fine",
        "metadata": {"ticket": 7},
    }
    assert run.state.context == {"review": record}
    assert run.step("review").output == record
    assert run.said(ManualStepResolved) == [
        ManualStepResolved(
            at=T0 + seconds(90),
            step="review",
            action=ManualAction.APPROVED,
            transition=1,
            output=record,
            issuer=BEN,
        )
    ]
    assert run.statuses["pay"] is StepStatus.SCHEDULED


def test_an_approval_without_output_key_adds_nothing_to_the_context() -> None:
    run = a_review(output=None)

    run.approve()

    assert run.state.context == {}


def test_a_rejection_takes_the_error_route_and_fails_nothing() -> None:
    run = a_review()

    said = run.reject()

    assert types(said) == ["ManualStepResolved", "RunnablesPlanned", "AttemptScheduled"]
    assert run.statuses["review"] is StepStatus.COMPLETED
    assert run.statuses["page"] is StepStatus.SCHEDULED
    assert "pay" not in run.statuses
    assert run.state.error is None
    assert run.step("review").transition == 3


def test_a_rejection_along_a_marked_route_notes_the_mark() -> None:
    run = a_review(recovery=RecoveryMarker.UNDO)

    said = run.reject()

    assert types(said)[:2] == ["ManualStepResolved", "StepRouted"]
    assert run.said(StepRouted) == [
        StepRouted(at=T0, step="review", transition=3, target="page", recovery=RecoveryMarker.UNDO)
    ]


def test_a_decision_may_end_the_run() -> None:
    workflow = a_workflow(
        an_approval("review"), transitions=(on_ok("review", None), on_error("review", None))
    )
    approved, rejected = Script(workflow).start(), Script(workflow).start()

    approved.approve()
    rejected.reject()

    assert approved.status is RunStatus.COMPLETED
    assert rejected.status is RunStatus.COMPLETED


def test_one_manual_step_may_follow_another() -> None:
    run = Script(a_chain(a_pause("first"), a_pause("second"), an_action("tell"))).start()

    run.resume()
    between = run.state.paused_step
    run.resume()

    assert between is not None
    assert between.step == "second"
    assert run.statuses["tell"] is StepStatus.SCHEDULED


@pytest.mark.parametrize(
    "command", [ApproveRun(issuer=ANNA), RejectRun(issuer=ANNA)], ids=["approve", "reject"]
)
def test_a_pause_is_not_approved_or_rejected(command: ApproveRun | RejectRun) -> None:
    run = a_halt()

    refusal = run.refused(command)

    assert refusal == NotPaused(
        status=RunStatus.PAUSED, expected=ManualKind.APPROVAL, found=ManualKind.PAUSE
    )


def test_an_approval_is_not_resumed() -> None:
    run = a_review()

    refusal = run.refused(ResumeRun(issuer=ANNA))

    assert refusal == NotPaused(
        status=RunStatus.PAUSED, expected=ManualKind.PAUSE, found=ManualKind.APPROVAL
    )


def test_a_run_that_is_not_paused_says_where_it_stands_instead() -> None:
    run = a_halt()
    run.resume()

    refusal = run.refused(ResumeRun(issuer=ANNA))

    assert refusal == NotPaused(status=RunStatus.RUNNING, expected=ManualKind.PAUSE, found=None)


def test_a_run_that_is_over_is_not_resumed() -> None:
    run = a_halt()
    run.cancel()

    refusal = run.refused(ResumeRun(issuer=ANNA))

    assert refusal == NotPaused(status=RunStatus.CANCELLED, expected=ManualKind.PAUSE, found=None)


@pytest.mark.parametrize("says_yes", [True, False])
def test_a_decision_that_leads_nowhere_fails_the_run_and_undoes_it(*, says_yes: bool) -> None:
    """Validation refuses such a workflow; should one get through, nobody calls it a success."""
    workflow = unchecked(
        an_undoable("charge"), an_approval("review"), transitions=(on_ok("charge", "review"),)
    )
    run = Script(workflow).start()
    run.ok("charge")

    if says_yes:
        run.approve()
    else:
        run.reject()

    error = run.state.error
    assert error is not None
    assert (error.code, error.step) == ("no_matching_transition", "review")
    assert error.details["outcome"] == ("ok" if says_yes else "error")
    assert run.status is RunStatus.COMPENSATING
    assert run.statuses["review"] is StepStatus.COMPLETED
