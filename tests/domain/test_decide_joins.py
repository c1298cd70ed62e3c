"""Steps that come after several others, and what a failure does to their siblings."""

from squidmesh.domain.commands import (
    ClaimAttempt,
    Failed,
    NotClaimable,
    PutOff,
    SkipReason,
    Succeeded,
)
from squidmesh.domain.definition import RetryPolicy
from squidmesh.domain.entries import (
    AfterFailure,
    AttemptCancelled,
    AttemptFailed,
    AttemptId,
    AttemptLost,
    ErrorRecord,
    RunnablesPlanned,
)
from squidmesh.domain.state import AttemptStatus, RunStatus, StepStatus
from tests.domain.builders import (
    BROKEN,
    BUSY,
    a_wait,
    a_workflow,
    an_action,
    an_undoable,
    seconds,
    unchecked,
)
from tests.domain.script import Script, offer_of, types

PATIENT = RetryPolicy(max_attempts=5, backoff_min=seconds(10))


def a_feast() -> Script:
    """Two roots and a join."""
    workflow = a_workflow(
        an_action("march"), an_action("sneak"), an_action("feast", after=("march", "sneak"))
    )
    return Script(workflow).start()


def four_siblings() -> Script:
    """Four roots, one of which may be retried, and a join that waits for all."""
    names = ("a", "b", "c", "d")
    workflow = a_workflow(
        an_undoable("a"),
        an_undoable("b"),
        an_action("c", retry=PATIENT),
        an_action("d"),
        an_action("end", after=names),
    )
    return Script(workflow).start()


def test_a_join_begins_when_the_last_of_its_prerequisites_is_completed() -> None:
    run = a_feast()

    run.ok("sneak")
    early = dict(run.statuses)
    said = run.ok("march")

    assert "feast" not in early
    assert types(said) == [
        "AttemptCompleted",
        "RunnableApplied",
        "RunnablesPlanned",
        "AttemptScheduled",
    ]
    assert run.statuses["feast"] is StepStatus.SCHEDULED


def test_the_run_is_completed_when_every_step_is() -> None:
    run = a_feast()
    run.ok("march")
    run.ok("sneak")

    said = run.ok("feast")

    assert types(said)[-1] == "RunTerminal"
    assert run.status is RunStatus.COMPLETED


def test_a_branch_that_is_done_does_not_end_the_run_while_another_is_under_way() -> None:
    run = Script(a_workflow(an_action("march"), an_action("sneak"))).start()

    run.ok("march")

    assert run.status is RunStatus.RUNNING
    assert run.statuses["sneak"] is StepStatus.SCHEDULED


def test_there_are_no_phases_so_a_quick_branch_does_not_wait_for_a_slow_one() -> None:
    workflow = a_workflow(
        an_action("quick"), an_action("slow"), an_action("next", after=("quick",))
    )
    run = Script(workflow).start()
    run.claim("slow")

    run.ok("quick")

    assert run.statuses["next"] is StepStatus.SCHEDULED


def test_one_completion_may_begin_several_steps_in_the_order_of_their_declaration() -> None:
    workflow = a_workflow(
        an_action("root"), *(an_action(f"leaf{n}", after=("root",)) for n in range(10))
    )
    run = Script(workflow).start()

    run.ok("root")

    assert run.said(RunnablesPlanned)[-1].steps == tuple(f"leaf{n}" for n in range(10))


def test_a_prerequisite_named_twice_is_followed_once() -> None:
    workflow = unchecked(an_action("root"), an_action("leaf", after=("root", "root")))
    run = Script(workflow).start()

    run.ok("root")

    assert run.said(RunnablesPlanned)[-1].steps == ("leaf",)
    assert len(run.step("leaf").attempts) == 1


def test_a_waiting_branch_holds_its_own_join_until_its_own_time() -> None:
    workflow = a_workflow(
        an_action("march"),
        a_wait("settle", seconds(30), after=("march",)),
        an_action("sneak"),
        an_action("feast", after=("settle", "sneak")),
    )
    run = Script(workflow).start()
    run.ok("march")
    run.ok("sneak")

    waiting = dict(run.statuses)
    run.pass_time(seconds(30))
    run.ok("settle")

    assert "feast" not in waiting
    assert run.statuses["feast"] is StepStatus.SCHEDULED


def test_a_retry_shows_in_the_run_only_while_nothing_else_is_under_way() -> None:
    workflow = a_workflow(an_action("a", retry=PATIENT), an_action("b"), an_action("c"))
    run = Script(workflow).start()

    run.fail("a", BUSY)
    beside_scheduled = run.status
    run.ok("b")
    held = run.claim("c")
    beside_running = run.status
    run.report(held, Succeeded())

    assert beside_scheduled is RunStatus.RUNNING
    assert beside_running is RunStatus.RUNNING
    assert run.status is RunStatus.RETRYING


def test_a_siblings_success_is_merged_while_another_step_waits_for_its_retry() -> None:
    run = four_siblings()
    run.fail("c", BUSY)

    run.ok("d", {"seen": True})

    assert run.state.context == {"seen": True}
    assert run.statuses["c"] is StepStatus.RETRYING
    assert "end" not in run.statuses


def test_a_terminal_failure_takes_back_what_nobody_has_begun() -> None:
    run = four_siblings()
    run.claim("a")
    run.fail("c", BUSY)

    said = run.fail("d")

    assert types(said) == ["AttemptFailed", "AttemptCancelled", "AttemptCancelled"]
    cancelled = [(one.step, one.number) for one in said if isinstance(one, AttemptCancelled)]
    assert cancelled == [("b", 1), ("c", 2)]
    assert run.statuses == {
        "a": StepStatus.RUNNING,
        "b": StepStatus.CANCELLED,
        "c": StepStatus.CANCELLED,
        "d": StepStatus.FAILED,
    }


def test_while_siblings_are_in_flight_a_doomed_run_is_still_running() -> None:
    run = four_siblings()
    run.claim("a")

    run.fail("d")

    assert run.status is RunStatus.RUNNING
    assert run.state.error is not None
    assert run.state.error.step == "d"


def test_a_sibling_in_flight_finishes_is_recorded_and_leads_nowhere() -> None:
    run = four_siblings()
    held = run.claim("c")
    run.fail("d")

    said = run.report(held, Succeeded({"late": True}))

    assert types(said) == ["AttemptCompleted", "RunTerminal"]
    assert run.step("c").status is StepStatus.COMPLETED
    assert run.step("c").output == {"late": True}
    assert run.state.context == {}
    assert run.status is RunStatus.FAILED


def test_the_runs_error_is_that_of_the_first_failure() -> None:
    run = four_siblings()
    held = run.claim("a")
    run.fail("d", ErrorRecord(code="first", message="1"))

    run.report(held, Failed(error=ErrorRecord(code="second", message="2")))

    assert run.said(AttemptFailed)[1].then is AfterFailure.RECORD
    assert run.step("a").status is StepStatus.FAILED
    assert run.state.error is not None
    assert (run.state.error.code, run.state.error.step) == ("first", "d")


def test_nothing_is_tried_again_in_a_doomed_run() -> None:
    run = four_siblings()
    held = run.claim("c")
    run.fail("d")

    said = run.report(held, Failed(error=BUSY))

    assert types(said) == ["AttemptFailed", "RunTerminal"]
    assert run.step("c").status is StepStatus.FAILED


def test_a_deferral_in_a_doomed_run_ends_the_attempt() -> None:
    run = four_siblings()
    held = run.claim("c")
    run.fail("d")

    said = run.report(held, PutOff(delay=seconds(5)))

    assert types(said) == ["AttemptCancelled", "RunTerminal"]
    assert run.step("c").status is StepStatus.CANCELLED
    assert run.step("c").attempts[0].status is AttemptStatus.CANCELLED


def test_a_loss_in_a_doomed_run_is_recorded_and_not_repeated() -> None:
    run = four_siblings()
    held = run.claim("c")
    run.fail("d")

    run.lose(held)

    assert run.said(AttemptLost)[0].then is AfterFailure.RECORD
    assert run.step("c").status is StepStatus.CANCELLED
    assert run.step("c").attempts[0].status is AttemptStatus.LOST
    assert run.status is RunStatus.FAILED


def test_compensation_starts_when_the_last_sibling_has_settled_and_covers_it_too() -> None:
    run = four_siblings()
    run.ok("a")
    held_b, held_c = run.claim("b"), run.claim("c")
    run.fail("d")

    run.report(held_b, Succeeded())
    before = run.status
    run.report(held_c, Succeeded())

    assert before is RunStatus.RUNNING
    assert run.status is RunStatus.COMPENSATING
    assert run.state.undoing is not None
    assert run.state.undoing.remaining == ("b", "a")


def test_a_failure_with_nothing_in_flight_starts_compensation_at_once() -> None:
    run = four_siblings()
    run.ok("a")

    said = run.fail("d")

    assert types(said) == [
        "AttemptFailed",
        "AttemptCancelled",
        "AttemptCancelled",
        "CompensationPlanned",
        "AttemptScheduled",
    ]
    assert run.status is RunStatus.COMPENSATING


def test_a_cancelled_sibling_cannot_be_claimed_any_more() -> None:
    run = four_siblings()
    run.claim("a")
    run.fail("d")
    claim = run.a_claim("b")

    refusal = run.refused(ClaimAttempt(attempt=claim.attempt, offer=offer_of(claim)))

    assert refusal == NotClaimable(attempt=AttemptId("b", 1), reason=SkipReason.STALE_ATTEMPT)


def test_a_failed_step_in_a_graph_of_joins_fails_the_run() -> None:
    run = a_feast()
    run.ok("sneak")

    run.fail("march")

    assert run.status is RunStatus.FAILED
    assert run.step("march").error == BROKEN
    assert "feast" not in run.statuses
