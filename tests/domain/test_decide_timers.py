"""Timers: stored times, never sleep."""

from datetime import timedelta

from squidmesh.domain.commands import ClaimOffer, Offers, Succeeded
from squidmesh.domain.dispatch import LATEST
from squidmesh.domain.state import RunStatus, StepStatus
from tests.domain.builders import (
    LEASE,
    T0,
    a_chain,
    a_log,
    a_path,
    a_wait,
    a_workflow,
    an_action,
    seconds,
    unchecked,
)
from tests.domain.script import Script, types


def test_a_timer_is_an_attempt_that_becomes_visible_when_it_is_over() -> None:
    run = Script(a_chain(an_action("load"), a_wait("settle", seconds(5)), an_action("tell")))
    run.start()
    run.pass_time(seconds(2))

    run.ok("load")

    timer = run.step("settle").attempts[0]
    assert (timer.scheduled_at, timer.visible_at) == (T0 + seconds(2), T0 + seconds(7))
    assert run.status is RunStatus.RUNNING
    assert run.statuses["settle"] is StepStatus.SCHEDULED


def test_whoever_claims_a_timer_completes_it_and_the_run_goes_on() -> None:
    run = Script(a_chain(a_wait("settle", seconds(5)), an_action("tell"))).start()
    run.pass_time(seconds(5))

    said = run.ok("settle")

    assert types(said) == [
        "AttemptCompleted",
        "RunnableApplied",
        "RunnablesPlanned",
        "AttemptScheduled",
    ]
    assert run.state.context == {}
    assert run.step("tell").attempts[0].visible_at == run.now


def test_a_timer_as_the_last_step_holds_the_end_of_the_run() -> None:
    run = Script(a_chain(an_action("load"), a_wait("settle", seconds(5)))).start()

    run.ok("load")
    before = run.status
    run.pass_time(seconds(5))
    run.ok("settle")

    assert before is RunStatus.RUNNING
    assert run.status is RunStatus.COMPLETED


def test_parallel_timers_wait_their_own_times() -> None:
    workflow = a_workflow(
        a_wait("short", seconds(1)),
        a_wait("long", seconds(60)),
        a_log("end", after=("short", "long")),
    )

    run = Script(workflow).start()

    due = {name: step.attempts[0].visible_at - T0 for name, step in run.state.steps.items()}
    assert due == {"short": seconds(1), "long": seconds(60)}


def test_a_timer_is_never_handed_to_a_worker_that_offers_before_it_is_over() -> None:
    run = Script(a_chain(an_action("load"), a_wait("settle", seconds(5)))).start()
    offer = ClaimOffer(claim_id="next", token_hash="next-hash", owner="worker-1", lease=LEASE)

    run.report(
        run.claim("load"),
        Succeeded(),
        offers=Offers(claims=(offer,), queues=frozenset({"default"})),
    )

    assert run.statuses["settle"] is StepStatus.SCHEDULED


def test_a_timer_whose_worker_died_is_due_again_at_once() -> None:
    run = Script(a_chain(a_wait("settle", seconds(5)))).start()
    run.pass_time(seconds(5))
    claim = run.claim("settle")
    run.pass_time(LEASE)

    run.lose(claim)

    assert run.step("settle").attempts[1].visible_at == run.now


def test_cancelling_ends_a_timer_at_once() -> None:
    run = Script(a_chain(a_wait("settle", timedelta(days=30)))).start()

    run.cancel()

    assert run.status is RunStatus.CANCELLED
    assert run.statuses == {"settle": StepStatus.CANCELLED}


def test_a_timer_beyond_the_calendar_ends_with_it() -> None:
    workflow = unchecked(a_wait("settle", timedelta.max), transitions=a_path("settle"))

    run = Script(workflow).start()

    assert run.step("settle").attempts[0].visible_at == LATEST
