"""Who may take an attempt, and whose word counts."""

import pytest

from squidmesh.domain.commands import (
    ClaimAttempt,
    ClaimIsStale,
    ClaimOffer,
    Failed,
    NotClaimable,
    Offers,
    Outcome,
    PutOff,
    SkipReason,
    Succeeded,
)
from squidmesh.domain.definition import StepSpec
from squidmesh.domain.entries import AttemptClaimed, AttemptId
from squidmesh.domain.state import AttemptStatus, RunStatus, StepStatus
from tests.domain.builders import BROKEN, LEASE, T0, a_chain, a_wait, a_workflow, an_action, seconds
from tests.domain.script import Claim, Script, offer_of, report_of, types


def a_job() -> Script:
    """A run of two steps."""
    return Script(a_chain(an_action("work"), an_action("tell"))).start()


def a_fan_out(*, queues: tuple[str | None, ...]) -> Script:
    """A root and one leaf for each queue."""
    leaves = (an_action(f"leaf{n}", after=("root",), queue=queue) for n, queue in enumerate(queues))
    return Script(a_workflow(an_action("root"), *leaves)).start()


def side_by_side(*steps: StepSpec) -> Script:
    """A run of steps that wait for nothing, and one that waits for all of them."""
    names = tuple(step.name for step in steps)
    return Script(a_workflow(*steps, an_action("join", after=names))).start()


def offers(*names: str, queues: tuple[str, ...] = ("default",), further: bool = False) -> Offers:
    """A worker's claims in hand."""
    claims = tuple(
        ClaimOffer(claim_id=name, token_hash=f"hash-{name}", owner="worker-1", lease=LEASE)
        for name in names
    )
    return Offers(claims=claims, queues=frozenset(queues), further=further)


def test_a_claim_notes_who_holds_the_attempt_and_for_how_long() -> None:
    run = a_job()
    run.pass_time(seconds(3))

    claim = run.claim("work", owner="worker-7")

    at = T0 + seconds(3)
    assert run.said(AttemptClaimed) == [
        AttemptClaimed(
            at=at,
            step="work",
            number=1,
            claim_id=claim.claim_id,
            token_hash=claim.token_hash,
            owner="worker-7",
            lease=LEASE,
        )
    ]
    (attempt,) = run.step("work").attempts
    assert attempt.status is AttemptStatus.CLAIMED
    assert (attempt.owner, attempt.claimed_at, attempt.lease) == ("worker-7", at, LEASE)
    assert attempt.lease_until == at + LEASE
    assert run.statuses == {"work": StepStatus.RUNNING}


def test_the_fence_is_the_runs_revision_at_the_claim_and_rises_from_holder_to_holder() -> None:
    run = a_job()
    run.lose(run.claim("work"))
    run.claim("work")

    first, second = (one.fence for one in run.step("work").attempts)

    assert (first, second) == (5, 8)
    assert run.state.revision == 8


@pytest.mark.parametrize(
    ("step", "number", "reason"),
    [
        ("work", 2, SkipReason.NOT_SCHEDULED),
        ("work", 0, SkipReason.NOT_SCHEDULED),
        ("work", -1, SkipReason.NOT_SCHEDULED),
        ("tell", 1, SkipReason.NOT_SCHEDULED),
        ("nowhere", 1, SkipReason.NOT_SCHEDULED),
        ("work", 1, SkipReason.ALREADY_CLAIMED),
    ],
)
def test_what_is_not_scheduled_cannot_be_claimed(
    step: str, number: int, reason: SkipReason
) -> None:
    run = a_job()
    run.claim("work")
    claim = run.a_claim(step, number=number)

    refusal = run.refused(ClaimAttempt(attempt=claim.attempt, offer=offer_of(claim)))

    assert refusal == NotClaimable(attempt=AttemptId(step, number), reason=reason)


def test_another_visit_of_a_step_is_another_attempt() -> None:
    run = a_job()
    claim = run.a_claim("work")
    other = AttemptId("work", 1, visit=2)

    refusal = run.refused(ClaimAttempt(attempt=other, offer=offer_of(claim)))

    assert refusal == NotClaimable(attempt=other, reason=SkipReason.NOT_SCHEDULED)


def test_an_attempt_that_has_ended_is_stale() -> None:
    run = a_job()
    run.ok("work")
    claim = run.a_claim("work")

    refusal = run.refused(ClaimAttempt(attempt=claim.attempt, offer=offer_of(claim)))

    assert refusal == NotClaimable(attempt=AttemptId("work", 1), reason=SkipReason.STALE_ATTEMPT)


def test_an_attempt_that_was_lost_is_stale() -> None:
    run = a_job()
    run.lose(run.claim("work"))
    claim = run.a_claim("work", number=1)

    refusal = run.refused(ClaimAttempt(attempt=claim.attempt, offer=offer_of(claim)))

    assert refusal == NotClaimable(attempt=AttemptId("work", 1), reason=SkipReason.STALE_ATTEMPT)


@pytest.mark.parametrize(
    "outcome",
    [Succeeded(), Failed(error=BROKEN), PutOff(delay=seconds(1))],
    ids=["ok", "error", "deferral"],
)
def test_only_the_holder_of_the_current_claim_is_heard(outcome: Outcome) -> None:
    run = a_job()
    run.claim("work", owner="worker-7")
    forged = Claim(AttemptId("work", 1), "claim-1", "guessed", "worker-8")

    refusal = run.refused(report_of(forged, outcome))

    assert refusal == ClaimIsStale(attempt=AttemptId("work", 1), holder="worker-7")


def test_a_report_of_what_was_never_claimed_is_stale() -> None:
    run = a_job()

    unclaimed = run.refused(report_of(run.a_claim("work"), Succeeded()))
    unknown = run.refused(report_of(run.a_claim("nowhere"), Succeeded()))

    assert unclaimed == ClaimIsStale(attempt=AttemptId("work", 1), holder=None)
    assert unknown == ClaimIsStale(attempt=AttemptId("nowhere", 1), holder=None)


def test_a_report_counts_once() -> None:
    run = a_job()
    claim = run.claim("work")
    run.report(claim, Succeeded())

    refusal = run.refused(report_of(claim, Succeeded()))

    assert refusal == ClaimIsStale(attempt=AttemptId("work", 1), holder=None)


def test_a_worker_that_offers_gets_the_next_step_in_the_same_commit() -> None:
    run = a_job()

    said = run.report(run.claim("work"), Succeeded(), offers=offers("next"))

    assert types(said)[-2:] == ["AttemptScheduled", "AttemptClaimed"]
    assert run.step("tell").attempts[0].claim_id == "next"
    assert run.status is RunStatus.RUNNING


def test_each_offer_is_taken_once() -> None:
    run = a_fan_out(queues=(None, None, None))

    run.report(run.claim("root"), Succeeded(), offers=offers("x", "y"))

    held = {name: step.attempts[0].claim_id for name, step in run.state.steps.items()}
    assert held == {"root": "claim-1", "leaf0": "x", "leaf1": "y", "leaf2": None}


def test_offers_hold_in_the_queues_that_the_worker_serves() -> None:
    run = a_fan_out(queues=("gpu", None))

    run.report(run.claim("root"), Succeeded(), offers=offers("x", queues=("default", "mail")))

    held = {name: step.attempts[0].claim_id for name, step in run.state.steps.items()}
    assert held == {"root": "claim-1", "leaf0": None, "leaf1": "x"}


def test_an_offer_is_left_over_where_the_run_ends() -> None:
    run = a_job()
    run.ok("work")

    said = run.report(run.claim("tell"), Succeeded(), offers=offers("next"))

    assert types(said) == ["AttemptCompleted", "RunnableApplied", "RunTerminal"]


def test_what_no_successor_takes_goes_further_to_the_next_step_that_waits_for_a_claim() -> None:
    run = side_by_side(an_action("a"), an_action("c"), an_action("b"))

    said = run.report(run.claim("a"), Succeeded(), offers=offers("x", further=True))

    assert types(said) == ["AttemptCompleted", "RunnableApplied", "AttemptClaimed"]
    assert run.claimed == ["a", "b"]
    assert run.step("b").attempts[0].claim_id == "x"


def test_successors_have_the_first_choice_among_further_offers() -> None:
    run = Script(
        a_workflow(an_action("a"), an_action("behind", after=("a",)), an_action("beside"))
    ).start()

    run.report(run.claim("a"), Succeeded(), offers=offers("x", "y", further=True))

    held = {name: step.attempts[0].claim_id for name, step in run.state.steps.items()}
    assert held == {"a": "claim-1", "behind": "x", "beside": "y"}


def test_an_offer_that_goes_no_further_is_left_over_beside_steps_that_wait() -> None:
    run = side_by_side(an_action("a"), an_action("b"))

    run.report(run.claim("a"), Succeeded(), offers=offers("x"))

    assert run.claimed == ["a"]


def test_further_offers_pass_over_other_queues_and_timers() -> None:
    run = side_by_side(
        an_action("a"), an_action("b", queue="gpu"), a_wait("c", seconds(5)), an_action("d")
    )

    run.report(run.claim("a"), Succeeded(), offers=offers("x", "y", further=True))

    assert run.claimed == ["a", "d"]


def test_a_step_that_was_claimed_before_is_left_to_claims() -> None:
    run = side_by_side(an_action("a"), an_action("b"), an_action("c"))
    run.lose(run.claim("b"))
    run.report(run.claim("c"), PutOff(delay=seconds(0)))

    run.report(run.claim("a"), Succeeded(), offers=offers("x", "y", further=True))

    assert run.claimed == ["b", "c", "a"]


def test_nothing_further_is_claimed_in_a_run_that_has_failed() -> None:
    run = side_by_side(an_action("a"), an_action("b"), an_action("c"))
    broken, other = run.claim("a"), run.claim("b")
    run.report(broken, Failed(error=BROKEN), offers=offers("x", further=True))

    run.report(other, Succeeded(), offers=offers("y", further=True))

    assert run.claimed == ["a", "b"]
    assert run.status is RunStatus.FAILED
