"""Claims whose leases ran out, and steps that keep killing their workers."""

import pytest

from squidmesh.domain.commands import ClaimIsStale, PutOff, Succeeded
from squidmesh.domain.definition import RetryPolicy
from squidmesh.domain.entries import (
    AfterFailure,
    AttemptId,
    AttemptLost,
    AttemptScheduled,
    StepRouted,
)
from squidmesh.domain.state import AttemptStatus, RunStatus, StepStatus
from tests.domain.builders import (
    BUSY,
    LEASE,
    T0,
    a_chain,
    a_path,
    a_workflow,
    an_action,
    an_undoable,
    on_error,
    seconds,
)
from tests.domain.script import Script, loss_of, report_of

DOUBLING = RetryPolicy(max_attempts=3, backoff_min=seconds(1))


def a_job(*, retry: RetryPolicy | None = None) -> Script:
    """A run with one step to lose."""
    return Script(a_chain(an_action("work", retry=retry), an_action("tell"))).start()


def test_a_lost_attempt_is_followed_by_the_next_one_at_once() -> None:
    run = a_job()
    claim = run.claim("work")
    run.pass_time(LEASE)

    said = run.lose(claim)

    at = T0 + LEASE
    assert said == (
        AttemptLost(at=at, step="work", number=1, then=AfterFailure.RETRY),
        AttemptScheduled(at=at, step="work", number=2, visible_at=at, queue="default"),
    )
    assert run.step("work").status is StepStatus.SCHEDULED
    assert run.status is RunStatus.RUNNING


def test_a_loss_counts_as_a_delivery_and_not_as_a_failure() -> None:
    run = a_job(retry=DOUBLING)
    run.lose(run.claim("work"))
    run.lose(run.claim("work"))

    run.fail("work", BUSY)

    step = run.step("work")
    assert (step.lost, step.failures) == (2, 1)
    assert [one.number for one in step.attempts] == [1, 2, 3, 4]
    assert step.attempts[3].visible_at == T0 + seconds(1)


def test_losses_leave_the_attempts_of_the_policy_untouched() -> None:
    run = a_job(retry=DOUBLING)
    run.fail("work", BUSY)
    run.lose(run.claim("work"))
    run.fail("work", BUSY)

    run.fail("work", BUSY)

    assert run.status is RunStatus.FAILED
    assert run.step("work").failures == 3
    assert run.step("work").lost == 1


def test_a_retry_that_is_lost_is_scheduled_and_not_retrying() -> None:
    run = a_job(retry=DOUBLING)
    run.fail("work", BUSY)

    run.lose(run.claim("work"))

    assert run.step("work").status is StepStatus.SCHEDULED
    assert run.step("work").error == BUSY
    assert run.status is RunStatus.RUNNING


@pytest.mark.parametrize("bound", [1, 2, 5])
def test_the_loss_that_reaches_the_bound_poisons_the_step(bound: int) -> None:
    run = a_job()
    for _ in range(bound - 1):
        run.lose(run.claim("work"), max_deliveries=bound)
    before = run.status

    run.lose(run.claim("work"), max_deliveries=bound)

    assert before in {RunStatus.PENDING, RunStatus.RUNNING}
    assert run.status is RunStatus.FAILED
    assert run.step("work").status is StepStatus.FAILED
    assert run.step("work").lost == bound
    assert len(run.step("work").attempts) == bound
    assert run.step("work").attempts[-1].status is AttemptStatus.LOST
    error = run.state.error
    assert error is not None
    assert (error.code, error.step, error.details) == ("poisoned", "work", {"deliveries": bound})


def test_five_losses_are_the_usual_bound() -> None:
    run = a_job()
    for _ in range(4):
        run.lose(run.claim("work"))
    before = run.status

    run.lose(run.claim("work"))

    assert before is RunStatus.RUNNING
    assert run.status is RunStatus.FAILED


def test_a_poisoned_step_takes_its_error_route() -> None:
    workflow = a_workflow(
        an_action("work"),
        an_action("page"),
        transitions=(*a_path("work"), on_error("work", "page"), *a_path("page")),
    )
    run = Script(workflow).start()

    run.lose(run.claim("work"), max_deliveries=1)

    assert run.said(AttemptLost)[0].then is AfterFailure.ROUTE
    assert run.said(StepRouted)[0].target == "page"
    assert run.statuses == {"work": StepStatus.FAILED, "page": StepStatus.SCHEDULED}
    assert run.state.error is None


def test_a_poisoned_step_makes_the_run_undo_what_was_done() -> None:
    run = Script(a_chain(an_undoable("charge"), an_action("work"))).start()
    run.ok("charge")

    run.lose(run.claim("work"), max_deliveries=1)

    assert run.status is RunStatus.COMPENSATING


def test_a_late_report_is_refused_and_names_the_new_holder() -> None:
    run = a_job()
    late = run.claim("work", owner="worker-1")
    run.lose(late)
    run.claim("work", owner="worker-2")

    refusal = run.refused(report_of(late, Succeeded("late")))

    assert refusal == ClaimIsStale(attempt=AttemptId("work", 1), holder="worker-2")


def test_a_late_report_before_anybody_else_has_the_attempt_names_nobody() -> None:
    run = a_job()
    late = run.claim("work")
    run.lose(late)

    refusal = run.refused(report_of(late, Succeeded("late")))

    assert refusal == ClaimIsStale(attempt=AttemptId("work", 1), holder=None)


def test_a_claim_is_lost_once() -> None:
    run = a_job()
    claim = run.claim("work")
    run.lose(claim)

    refusal = run.refused(loss_of(claim))

    assert refusal == ClaimIsStale(attempt=AttemptId("work", 1), holder=None)


def test_a_claim_that_was_superseded_cannot_be_lost() -> None:
    run = a_job()
    first = run.claim("work")
    run.report(first, PutOff(delay=seconds(0)))
    run.claim("work", owner="worker-2")

    refusal = run.refused(loss_of(first))

    assert refusal == ClaimIsStale(attempt=AttemptId("work", 1), holder="worker-2")


def test_what_was_never_scheduled_cannot_be_lost() -> None:
    run = a_job()

    refusal = run.refused(loss_of(run.a_claim("tell")))

    assert refusal == ClaimIsStale(attempt=AttemptId("tell", 1), holder=None)
