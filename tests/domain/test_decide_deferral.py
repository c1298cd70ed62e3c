"""Bodies that ask to come back later."""

from datetime import timedelta

from squidmesh.domain.commands import MAX_DEFERRALS, ClaimIsStale, PutOff, Succeeded
from squidmesh.domain.definition import RetryPolicy
from squidmesh.domain.dispatch import LATEST, idempotency_key, runnable_key
from squidmesh.domain.entries import AfterFailure, AttemptDeferred, AttemptFailed, AttemptId
from squidmesh.domain.state import AttemptStatus, RunStatus, StepStatus
from tests.domain.builders import (
    BUSY,
    RUN,
    T0,
    a_chain,
    a_path,
    a_workflow,
    an_action,
    on_error,
    seconds,
)
from tests.domain.script import Script, report_of, types


def a_poller(*, retry: RetryPolicy | None = None) -> Script:
    """A run whose first step may ask again and again."""
    return Script(a_chain(an_action("poll", retry=retry), an_action("tell"))).start()


def test_a_deferral_puts_the_same_attempt_back_until_later() -> None:
    run = a_poller()
    claim = run.claim("poll")

    said = run.report(claim, PutOff(delay=seconds(30), reason="not ready"))

    assert said == (
        AttemptDeferred(
            at=T0, step="poll", number=1, visible_at=T0 + seconds(30), reason="not ready"
        ),
    )
    (attempt,) = run.step("poll").attempts
    assert attempt.status is AttemptStatus.SCHEDULED
    assert attempt.visible_at == T0 + seconds(30)
    assert attempt.scheduled_at == T0
    assert (attempt.claim_id, attempt.token_hash, attempt.owner) == (None, None, None)
    assert (attempt.fence, attempt.lease, attempt.claimed_at) == (None, None, None)
    assert run.step("poll").status is StepStatus.SCHEDULED
    assert run.status is RunStatus.RUNNING


def test_a_deferred_attempt_keeps_number_and_keys() -> None:
    run = a_poller()
    run.defer("poll")

    claim = run.claim("poll")

    assert claim.attempt == AttemptId("poll", 1)
    assert runnable_key(RUN, claim.attempt) == "run-1:poll:1"
    assert idempotency_key(RUN, "poll", 1) == "run-1:poll"


def test_deferrals_use_up_no_attempts_and_no_deliveries() -> None:
    run = a_poller(retry=RetryPolicy(max_attempts=2))
    for _ in range(10):
        run.defer("poll")

    run.fail("poll", BUSY)

    step = run.step("poll")
    assert (step.deferrals, step.failures, step.lost) == (10, 1, 0)
    assert run.status is RunStatus.RETRYING


def test_a_retry_that_defers_is_not_retrying_any_more() -> None:
    run = a_poller(retry=RetryPolicy(max_attempts=2))
    run.fail("poll", BUSY)

    run.defer("poll", seconds(5))

    assert run.step("poll").status is StepStatus.SCHEDULED
    assert run.status is RunStatus.RUNNING


def test_a_negative_delay_means_at_once() -> None:
    run = a_poller()

    run.defer("poll", seconds(-5))

    assert run.step("poll").attempts[0].visible_at == T0


def test_a_delay_without_end_ends_where_the_calendar_does() -> None:
    run = a_poller()

    run.defer("poll", timedelta.max)

    assert run.step("poll").attempts[0].visible_at == LATEST


def test_a_report_from_before_the_deferral_does_not_count() -> None:
    run = a_poller()
    claim = run.claim("poll")
    run.report(claim, PutOff(delay=seconds(1)))

    refusal = run.refused(report_of(claim, Succeeded()))

    assert refusal == ClaimIsStale(attempt=AttemptId("poll", 1), holder=None)


def test_a_step_may_be_deferred_a_thousand_times_and_not_once_more() -> None:
    run = a_poller(retry=RetryPolicy(max_attempts=9))
    for _ in range(MAX_DEFERRALS):
        run.defer("poll")
    status_at_the_bound = run.status

    run.defer("poll")

    assert status_at_the_bound is RunStatus.RUNNING
    assert run.said(AttemptFailed)[0].then is AfterFailure.FAIL
    assert run.status is RunStatus.FAILED
    assert run.state.error is not None
    assert run.state.error.code == "deferred_too_often"
    assert run.state.error.step == "poll"


def test_a_step_that_is_deferred_too_often_takes_its_error_route() -> None:
    workflow = a_workflow(
        an_action("poll"),
        an_action("page"),
        transitions=(*a_path("poll"), on_error("poll", "page"), *a_path("page")),
    )
    run = Script(workflow).start()
    for _ in range(MAX_DEFERRALS):
        run.defer("poll")

    said = run.defer("poll")

    assert types(said)[:2] == ["AttemptFailed", "StepRouted"]
    assert run.statuses["page"] is StepStatus.SCHEDULED
