"""When a failed attempt is tried again."""

import pytest

from squidmesh.domain.commands import ClaimOffer, Failed, Offers
from squidmesh.domain.definition import RetryPolicy, StepSpec
from squidmesh.domain.dispatch import LATEST
from squidmesh.domain.entries import (
    AfterFailure,
    AttemptFailed,
    AttemptScheduled,
    ErrorRecord,
    FinalStatus,
    RunTerminal,
)
from squidmesh.domain.state import AttemptStatus, RunStatus, StepStatus
from tests.domain.builders import (
    BROKEN,
    BUSY,
    LEASE,
    T0,
    a_chain,
    a_path,
    a_workflow,
    an_action,
    on_error,
    seconds,
)
from tests.domain.script import Script, types

DOUBLING = RetryPolicy(max_attempts=5, backoff_min=seconds(1), backoff_max=seconds(5))


def an_asker(policy: RetryPolicy = DOUBLING) -> Script:
    """A run whose first step asks with *policy*."""
    return Script(a_chain(an_action("ask", retry=policy), an_action("tell"))).start()


def test_a_retryable_failure_schedules_the_next_attempt_after_the_delay() -> None:
    run = an_asker()

    said = run.fail("ask", BUSY)

    assert said == (
        AttemptFailed(at=T0, step="ask", number=1, error=BUSY, then=AfterFailure.RETRY),
        AttemptScheduled(at=T0, step="ask", number=2, visible_at=T0 + seconds(1), queue="default"),
    )
    assert run.status is RunStatus.RETRYING
    assert run.step("ask").status is StepStatus.RETRYING
    assert run.step("ask").error == BUSY
    assert run.state.error is None


def test_the_delay_doubles_up_to_the_maximum() -> None:
    run = an_asker()

    for _ in range(4):
        run.fail("ask", BUSY)

    waits = [entry.visible_at - entry.at for entry in run.said(AttemptScheduled)[1:]]
    assert waits == [seconds(1), seconds(2), seconds(4), seconds(5)]


def test_the_claim_ends_the_retrying_of_a_run() -> None:
    run = an_asker()
    run.fail("ask", BUSY)
    run.pass_time(seconds(1))

    run.claim("ask")

    assert run.status is RunStatus.RUNNING


def test_a_retry_that_is_due_is_still_a_retry() -> None:
    run = an_asker(RetryPolicy(max_attempts=2))

    run.fail("ask", BUSY)

    assert run.step("ask").attempts[1].visible_at == T0
    assert run.status is RunStatus.RETRYING


def test_max_attempts_counts_every_attempt_the_first_included() -> None:
    run = an_asker(RetryPolicy(max_attempts=2))
    run.fail("ask", BUSY)

    said = run.fail("ask", BUSY)

    assert types(said) == ["AttemptFailed", "RunTerminal"]
    assert run.said(AttemptFailed)[1].then is AfterFailure.FAIL
    assert [one.number for one in run.step("ask").attempts] == [1, 2]
    assert run.said(RunTerminal)[0].status is FinalStatus.FAILED


def test_a_step_is_tried_once_unless_its_author_says_more() -> None:
    run = Script(a_chain(an_action("ask"))).start()

    run.fail("ask", BUSY)

    assert run.status is RunStatus.FAILED


def test_a_terminal_error_is_not_tried_again_whatever_the_policy() -> None:
    run = an_asker()

    run.fail("ask", BROKEN)

    assert run.status is RunStatus.FAILED
    assert len(run.step("ask").attempts) == 1


def test_an_exhausted_step_takes_its_error_route() -> None:
    workflow = a_workflow(
        an_action("ask", retry=RetryPolicy(max_attempts=2)),
        an_action("page"),
        transitions=(*a_path("ask"), on_error("ask", "page"), *a_path("page")),
    )
    run = Script(workflow).start()
    run.fail("ask", BUSY)

    run.fail("ask", BUSY)

    assert run.statuses == {"ask": StepStatus.FAILED, "page": StepStatus.SCHEDULED}
    assert run.state.error is None


def test_a_success_after_a_failure_forgets_the_error_of_the_step() -> None:
    run = an_asker()
    run.fail("ask", BUSY)

    run.ok("ask")

    assert run.step("ask").error is None
    assert [one.status for one in run.step("ask").attempts] == [
        AttemptStatus.FAILED,
        AttemptStatus.COMPLETED,
    ]
    assert run.step("ask").attempts[0].error == BUSY


@pytest.mark.parametrize("wish", [0, 3600])
def test_the_steps_own_wish_overrides_the_policys_delay(wish: float) -> None:
    run = an_asker()

    run.fail("ask", BUSY, retry_after=seconds(wish))

    assert run.step("ask").attempts[1].visible_at == T0 + seconds(wish)


def test_the_steps_own_wish_gives_no_attempt_beyond_the_policys() -> None:
    run = an_asker(RetryPolicy(max_attempts=1))

    run.fail("ask", BUSY, retry_after=seconds(1))

    assert run.status is RunStatus.FAILED


def test_a_wish_without_end_ends_where_the_calendar_does() -> None:
    run = an_asker()

    run.fail("ask", BUSY, retry_after=LATEST - T0 + seconds(1))

    assert run.step("ask").attempts[1].visible_at == LATEST


def test_jitter_moves_the_delay_by_the_drawn_share_of_its_fraction() -> None:
    policy = RetryPolicy(max_attempts=3, backoff_min=seconds(10), jitter=0.5)
    early, late = an_asker(policy), an_asker(policy)

    early.report(early.claim("ask"), Failed(error=BUSY), draw=-1.0)
    late.report(late.claim("ask"), Failed(error=BUSY), draw=0.5)

    assert early.step("ask").attempts[1].visible_at == T0 + seconds(5)
    assert late.step("ask").attempts[1].visible_at == T0 + seconds(12.5)


def test_failures_count_per_step_and_not_per_run() -> None:
    policy = RetryPolicy(max_attempts=2)
    steps: tuple[StepSpec, ...] = (an_action("a", retry=policy), an_action("b", retry=policy))
    run = Script(a_chain(*steps)).start()
    run.fail("a", BUSY)
    run.ok("a")

    run.fail("b", BUSY)

    assert run.status is RunStatus.RETRYING
    assert run.step("b").failures == 1


def test_the_error_of_an_exhausted_step_is_the_last_one() -> None:
    run = an_asker(RetryPolicy(max_attempts=2))
    run.fail("ask", ErrorRecord(code="first", message="1", retryable=True))

    run.fail("ask", ErrorRecord(code="second", message="2", retryable=True))

    assert run.state.error is not None
    assert run.state.error.code == "second"


def test_a_retry_without_delay_goes_to_a_worker_that_offers() -> None:
    run = an_asker(RetryPolicy(max_attempts=2))
    offer = ClaimOffer(claim_id="next", token_hash="next-hash", owner="worker-1", lease=LEASE)
    offers = Offers(claims=(offer,), queues=frozenset({"default"}))

    run.report(run.claim("ask"), Failed(error=BUSY), offers=offers)

    assert run.status is RunStatus.RUNNING
    assert run.step("ask").attempts[1].claim_id == "next"


def test_a_retry_that_has_to_wait_is_not_given_away() -> None:
    run = an_asker()
    offer = ClaimOffer(claim_id="next", token_hash="next-hash", owner="worker-1", lease=LEASE)
    offers = Offers(claims=(offer,), queues=frozenset({"default"}))

    run.report(run.claim("ask"), Failed(error=BUSY), offers=offers)

    assert run.status is RunStatus.RETRYING
