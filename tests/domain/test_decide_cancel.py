"""Stopping a run."""

from collections.abc import Callable

import attrs
import pytest

from squidmesh.domain.commands import (
    CancelRun,
    ClaimAttempt,
    ClaimIsStale,
    Failed,
    MoveIsIllegal,
    NotClaimable,
    PutOff,
    SkipReason,
    Succeeded,
)
from squidmesh.domain.definition import RetryPolicy
from squidmesh.domain.entries import (
    NOBODY,
    AfterFailure,
    AttemptFailed,
    AttemptId,
    CancelRequested,
    FinalStatus,
    Issuer,
    RunTerminal,
)
from squidmesh.domain.evolution import rebuild
from squidmesh.domain.state import AttemptStatus, RunStatus, StepStatus
from tests.domain.builders import (
    BROKEN,
    BUSY,
    T0,
    a_chain,
    a_pause,
    a_workflow,
    an_action,
    an_undoable,
    seconds,
)
from tests.domain.script import Script, offer_of, report_of, types

PATIENT = RetryPolicy(max_attempts=5, backoff_min=seconds(10))


def a_job() -> Script:
    """A run with an undoable first step and one that may be retried."""
    return Script(a_chain(an_undoable("charge"), an_action("work", retry=PATIENT))).start()


def two_siblings() -> Script:
    """A run whose two steps are both claimed."""
    return Script(a_workflow(an_undoable("a"), an_undoable("b"))).start()


def test_a_pending_run_is_cancelled_at_once() -> None:
    run = a_job()

    said = run.cancel(Issuer(actor="anna", comment="not needed"))

    assert types(said) == ["CancelRequested", "AttemptCancelled", "RunTerminal"]
    assert run.said(CancelRequested)[0].issuer.comment == "not needed"
    assert run.said(RunTerminal) == [RunTerminal(at=T0, status=FinalStatus.CANCELLED)]
    assert run.status is RunStatus.CANCELLED
    assert run.statuses == {"charge": StepStatus.CANCELLED}
    assert run.state.ended_at == T0


def test_a_running_run_of_which_nothing_is_claimed_is_cancelled_at_once() -> None:
    run = a_job()
    run.ok("charge")

    run.cancel()

    assert run.status is RunStatus.CANCELLED


def test_a_retrying_run_is_cancelled_at_once() -> None:
    run = a_job()
    run.ok("charge")
    run.fail("work", BUSY)

    run.cancel()

    assert run.status is RunStatus.CANCELLED
    assert run.statuses["work"] is StepStatus.CANCELLED
    assert run.step("work").attempts[1].status is AttemptStatus.CANCELLED


def test_a_paused_run_is_cancelled_at_once_and_its_manual_step_with_it() -> None:
    run = Script(a_chain(a_pause("hold"), an_action("tell"))).start()

    said = run.cancel()

    assert types(said) == ["CancelRequested", "RunTerminal"]
    assert run.status is RunStatus.CANCELLED
    assert run.statuses == {"hold": StepStatus.CANCELLED}
    assert run.state.paused_step is None


def test_a_run_with_a_claim_is_cancelling_until_the_claim_has_ended() -> None:
    run = a_job()
    claim = run.claim("charge")

    said = run.cancel()
    between = run.status
    run.report(claim, Succeeded())

    assert types(said) == ["CancelRequested"]
    assert between is RunStatus.CANCELLING
    assert run.status is RunStatus.CANCELLED


def test_cancelling_waits_for_the_last_of_several_claims() -> None:
    run = two_siblings()
    first, second = run.claim("a"), run.claim("b")
    run.cancel()

    run.report(first, Succeeded())
    between = run.status
    run.report(second, Succeeded())

    assert between is RunStatus.CANCELLING
    assert run.status is RunStatus.CANCELLED


def test_a_success_that_arrives_while_cancelling_is_recorded_and_changes_nothing_else() -> None:
    run = a_job()
    claim = run.claim("charge")
    run.cancel()

    said = run.report(claim, Succeeded({"charged": 5}))

    assert types(said) == ["AttemptCompleted", "RunTerminal"]
    assert run.step("charge").attempts[0].status is AttemptStatus.COMPLETED
    assert run.step("charge").output == {"charged": 5}
    assert run.state.context == {}
    assert "work" not in run.statuses


def test_a_failure_that_arrives_while_cancelling_is_recorded_and_not_tried_again() -> None:
    run = a_job()
    run.ok("charge")
    claim = run.claim("work")
    run.cancel()

    said = run.report(claim, Failed(error=BUSY))

    assert types(said) == ["AttemptFailed", "RunTerminal"]
    assert run.said(AttemptFailed)[0].then is AfterFailure.RECORD
    assert run.status is RunStatus.CANCELLED
    assert run.state.error is None


def test_a_deferral_that_arrives_while_cancelling_ends_the_attempt() -> None:
    run = a_job()
    claim = run.claim("charge")
    run.cancel()

    said = run.report(claim, PutOff(delay=seconds(5)))

    assert types(said) == ["AttemptCancelled", "RunTerminal"]
    assert run.step("charge").attempts[0].status is AttemptStatus.CANCELLED
    assert run.statuses == {"charge": StepStatus.CANCELLED}


def test_the_loss_of_the_last_claim_cancels_the_run() -> None:
    run = a_job()
    claim = run.claim("charge")
    run.cancel()

    said = run.lose(claim)

    assert types(said) == ["AttemptLost", "RunTerminal"]
    assert run.status is RunStatus.CANCELLED
    assert run.step("charge").attempts[0].status is AttemptStatus.LOST
    assert run.statuses == {"charge": StepStatus.CANCELLED}


def test_cancel_undoes_nothing() -> None:
    run = a_job()
    run.ok("charge")
    claim = run.claim("work")
    run.cancel()

    run.report(claim, Failed(error=BROKEN))

    assert run.status is RunStatus.CANCELLED
    assert "compensate:charge" not in run.statuses


def test_cancelling_takes_back_what_nobody_holds() -> None:
    run = two_siblings()
    run.claim("a")

    run.cancel()

    assert run.statuses == {"a": StepStatus.RUNNING, "b": StepStatus.CANCELLED}


def test_a_doomed_run_may_still_be_cancelled_and_then_undoes_nothing() -> None:
    workflow = a_workflow(an_undoable("a"), an_action("b"), an_action("c"))
    run = Script(workflow).start()
    run.ok("a")
    held = run.claim("b")
    run.fail("c")

    run.cancel()
    between = run.status
    run.report(held, Succeeded())

    assert between is RunStatus.CANCELLING
    assert run.status is RunStatus.CANCELLED
    assert "compensate:a" not in run.statuses


def test_what_a_run_failed_with_is_not_lost_when_it_is_cancelled_meanwhile() -> None:
    run = Script(a_workflow(an_action("b"), an_action("c"))).start()
    held = run.claim("b")
    run.fail("c")
    run.cancel()

    run.report(held, Succeeded())

    failure = attrs.evolve(BROKEN, step="c")
    assert run.said(RunTerminal) == [
        RunTerminal(at=T0, status=FinalStatus.CANCELLED, error=failure)
    ]
    assert run.state.error == failure
    assert rebuild(run.state.run_id, run.entries) == run.state


def test_a_report_after_the_end_is_refused() -> None:
    run = a_job()
    claim = run.claim("charge")
    run.cancel()
    run.report(claim, Succeeded())

    refusal = run.refused(report_of(claim, Succeeded()))

    assert refusal == ClaimIsStale(attempt=AttemptId("charge", 1), holder=None)


def test_nothing_of_a_cancelled_run_can_be_claimed() -> None:
    run = a_job()
    claim = run.a_claim("charge")
    run.cancel()

    refusal = run.refused(ClaimAttempt(attempt=claim.attempt, offer=offer_of(claim)))

    assert refusal == NotClaimable(attempt=AttemptId("charge", 1), reason=SkipReason.RUN_OVER)


def cancelling(run: Script) -> None:
    run.claim("charge")
    run.cancel()


def compensating(run: Script) -> None:
    run.ok("charge")
    run.fail("work")


def failed(run: Script) -> None:
    run.fail("charge")


def completed(run: Script) -> None:
    run.ok("charge")
    run.ok("work")


def cancelled(run: Script) -> None:
    run.cancel()


@pytest.mark.parametrize(
    ("lead_to", "status"),
    [
        (cancelling, RunStatus.CANCELLING),
        (compensating, RunStatus.COMPENSATING),
        (failed, RunStatus.FAILED),
        (completed, RunStatus.COMPLETED),
        (cancelled, RunStatus.CANCELLED),
    ],
)
def test_a_run_that_is_ending_or_over_is_not_cancelled(
    lead_to: Callable[[Script], None], status: RunStatus
) -> None:
    run = a_job()
    lead_to(run)

    refusal = run.refused(CancelRun(issuer=NOBODY))

    assert refusal == MoveIsIllegal(source=status, target=RunStatus.CANCELLING)
