import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final

import attrs
from hypothesis import given
from hypothesis import strategies as st
from returns.pipeline import is_successful

from squidmesh.domain.commands import (
    ApproveRun,
    CancelRun,
    ClaimAttempt,
    Command,
    Failed,
    LoseAttempt,
    Outcome,
    PutOff,
    RejectRun,
    ReplayRun,
    ReportOutcome,
    ResumeRun,
    Succeeded,
)
from squidmesh.domain.decide import decide
from squidmesh.domain.definition import Condition, Operator, WorkflowDefinition
from squidmesh.domain.entries import AttemptId, ErrorRecord, FinalStatus, RunStarted, RunTerminal
from squidmesh.domain.evolution import evolve, rebuild
from squidmesh.domain.explanation import Explanation, explain, explain_step
from squidmesh.domain.inspection import open_steps, shown_steps
from squidmesh.domain.reasons import Reason
from squidmesh.domain.state import OPEN, StepState, StepStatus
from squidmesh.domain.validation_binding import bodies_of
from squidmesh.domain.values import Json
from tests.domain.builders import (
    ANNA,
    BROKEN,
    BUSY,
    T0,
    a_body,
    a_chain,
    a_path,
    a_workflow,
    an_action,
    on_error,
    on_ok,
)
from tests.domain.script import Script, offer_of
from tests.domain.stories import (
    BREAK,
    FEAST,
    PAYMENT,
    RETRIES,
    a_run,
    at_ask,
    at_review,
    at_tell,
    doomed,
    exhausted,
    feasted,
    not_undone,
    poisoned,
    undoing,
)

MINUTES: Final = timedelta(minutes=1)
STILL_TO_END: Final = {status.value for status in (*OPEN, StepStatus.WAITING)}


def asked(script: Script, *, runnable: bool = True) -> Explanation:
    return explain(script.definition, script.state, now=script.now, runnable=runnable)


def asked_of(script: Script, step: str, *, runnable: bool = True) -> Explanation:
    found = explain_step(script.definition, script.state, step, now=script.now, runnable=runnable)
    assert found is not None
    return found


def names(found: Explanation) -> list[str]:
    return [action.name for action in found.next_actions]


def calls(found: Explanation) -> dict[str, str]:
    return {action.name: action.call for action in found.next_actions}


def calls_of(found: Explanation) -> list[str]:
    return [action.call for action in found.next_actions]


def test_a_completed_run_may_be_replayed() -> None:
    found = asked(feasted())

    assert (found.status, found.reason, found.step) == ("completed", "completed", None)
    assert found.details["replay"] == {"allowed": True, "blocked_by": []}
    assert calls(found) == {"replay_run": 'await mesh.replay_run("run-1")'}
    assert found.summary == "The run completed at 2026-11-02T09:05:00+00:00."


def test_a_run_with_an_irreversible_step_behind_it_says_what_stands_in_the_way_of_a_replay() -> (
    None
):
    script = at_tell()
    script.ok("tell")

    found = asked(script)

    assert found.details["replay"] == {
        "allowed": False,
        "blocked_by": ["tell"],
        "required_override": "allow_irreversible",
    }
    assert names(found) == []


def test_without_its_definition_a_replay_cannot_be_judged() -> None:
    script = feasted()

    found = explain(None, script.state, now=script.now, runnable=False)

    assert found.details["replay"] == {
        "allowed": False,
        "blocked_by": [],
        "workflow_definition": "unavailable",
    }
    assert names(found) == []


def test_a_cancelled_run_is_cancelled() -> None:
    script = a_run(PAYMENT)
    script.cancel()

    found = asked(script)

    assert (found.status, found.reason, found.step) == ("cancelled", "cancelled", None)
    assert names(found) == ["replay_run"]


def test_a_terminal_error_is_a_failed_step() -> None:
    script = a_run(FEAST)
    script.fail("sneak", ErrorRecord(code="caught", message="secret-42", details={"by": ["x"]}))

    found = asked(script)

    assert (found.status, found.reason, found.step) == ("failed", "step_failed", "sneak")
    assert found.summary == "The run failed at step 'sneak' with 'caught'."
    error = found.details["error"]
    assert isinstance(error, dict)
    assert (error["code"], error["details"]) == ("caught", {"by": ["x"]})
    assert (found.details["failures"], found.details["max_attempts"]) == (1, 1)


def test_a_retryable_error_after_the_last_attempt_is_an_exhausted_retry() -> None:
    found = asked(exhausted())

    assert (found.reason, found.step) == ("retry_exhausted", "march")
    assert (found.details["failures"], found.details["max_attempts"]) == (3, 3)
    assert found.summary == (
        "The run failed because step 'march' used up its attempts, the last one with 'lost_way'."
    )


def test_a_terminal_error_at_the_last_attempt_is_still_just_a_failed_step() -> None:
    script = a_run(FEAST)
    for _ in range(2):
        script.fail("march", BUSY)
        script.pass_time(MINUTES)
    script.fail("march")

    assert asked(script).reason == "step_failed"


def test_a_step_that_was_never_to_be_retried_has_not_exhausted_anything() -> None:
    script = a_run(FEAST)
    script.fail("sneak", BUSY)

    assert asked(script).reason == "step_failed"


def test_a_step_that_kept_losing_its_worker_is_poisoned() -> None:
    found = asked(poisoned())

    assert (found.reason, found.step) == ("poisoned", "march")
    assert (found.details["failures"], found.details["deliveries"]) == (0, 2)


def test_a_body_that_calls_itself_poisoned_is_a_failed_step() -> None:
    script = a_run(FEAST)
    script.fail("sneak", ErrorRecord(code="poisoned", message="so I say"))

    assert asked(script).reason == "step_failed"


def test_a_run_that_could_not_be_undone_says_what_was_left() -> None:
    found = asked(not_undone())

    assert (found.reason, found.step) == ("compensation_failed", "tell")
    assert found.details["compensation_failures"] == [
        {"step": "credit", "code": "no", "message": "no"}
    ]
    assert found.summary == (
        "The run failed at step 'tell' with 'unreachable', and not everything could be undone."
    )


def test_a_body_whose_details_speak_of_compensation_is_a_failed_step() -> None:
    script = a_run(FEAST)
    details: dict[str, Json] = {"compensation_failures": []}
    script.fail("sneak", ErrorRecord(code="x", message="x", details=details))

    assert asked(script).reason == "step_failed"


def test_a_run_without_a_fitting_route_has_failed_at_the_step_that_had_none() -> None:
    only_if = Condition(("done",), Operator.EQUALS, operand=True)
    definition = a_workflow(
        an_action("a", output="done"),
        an_action("b"),
        transitions=(on_ok("a", "b", only_if), on_ok("b", None)),
    )
    script = a_run(definition)
    script.ok("a", output=False)

    found = asked(script)

    assert (found.reason, found.step) == ("step_failed", "a")
    assert "no_matching_transition" in found.summary


def test_a_run_that_failed_without_an_error_is_explained_as_far_as_it_can_be() -> None:
    script = a_run(PAYMENT)
    state = evolve(script.state, RunTerminal(at=T0, status=FinalStatus.FAILED))

    found = explain(PAYMENT, state, now=T0, runnable=True)

    assert (found.reason, found.step) == ("step_failed", None)


def test_a_summary_holds_nothing_but_names_numbers_codes_and_times() -> None:
    assert "secret-42" not in asked(undoing()).summary
    assert "secret-42" not in asked(not_undone()).summary


def test_a_fresh_run_waits_for_the_first_one_to_take_it() -> None:
    found = asked(a_run(PAYMENT))

    assert (found.status, found.reason, found.step) == ("pending", "pending_dispatch", "load")
    assert names(found) == ["wait_for_step", "cancel_run"]
    assert calls(found)["cancel_run"] == 'await mesh.cancel_run("run-1")'
    assert found.summary == (
        "Step 'load' is due since 2026-11-02T09:00:00+00:00, and nobody has worked on the run yet."
    )


def test_evidence_holds_the_stored_facts_about_run_step_and_attempt() -> None:
    script = a_run(PAYMENT)
    script.claim("load", owner="worker-7")

    assert asked(script).evidence == {
        "run": {
            "id": "run-1",
            "status": "running",
            "workflow": "orders",
            "revision": 5,
            "started_at": "2026-11-02T09:00:00+00:00",
            "updated_at": "2026-11-02T09:00:00+00:00",
        },
        "step": {
            "name": "load",
            "status": "running",
            "failures": 0,
            "deliveries": 0,
            "deferrals": 0,
            "deferred": None,
        },
        "attempt": {
            "number": 1,
            "status": "claimed",
            "owner": "worker-7",
            "lease_until": "2026-11-02T09:01:00+00:00",
            "visible_at": "2026-11-02T09:00:00+00:00",
            "error": None,
        },
    }


def test_a_run_whose_wake_up_may_be_lost_can_be_woken_again() -> None:
    script = a_run(PAYMENT)
    script.pass_time(timedelta(seconds=30))

    found = asked(script)

    assert calls(found)["recover"] == "await mesh.recover()"
    assert names(found) == ["wait_for_step", "recover", "cancel_run"]


def test_a_step_behind_the_first_claim_is_just_scheduled() -> None:
    script = at_ask()

    found = asked(script)

    assert (found.reason, found.step) == ("step_scheduled", "ask")
    assert names(found) == ["wait_for_step", "cancel_run"]


def test_a_due_step_that_nobody_can_run_waits_for_a_worker_of_its_queue() -> None:
    found = asked_of(a_run(FEAST), "sneak", runnable=False)

    assert (found.reason, found.step) == ("no_worker_for_workflow", "sneak")
    assert names(found) == ["deploy_workflow", "cancel_run"]
    assert calls(found)["deploy_workflow"].startswith("await Worker(mesh, queues=('night',)).run()")
    assert found.summary.endswith("and no worker of its workflow was seen lately.")
    assert "function" not in found.details


def test_a_due_step_that_is_lacking_a_function_names_it() -> None:
    script = a_run(FEAST)
    found = explain_step(
        FEAST, script.state, "sneak", now=script.now, runnable=True, lacking={"sneak"}
    )
    unread = explain_step(
        None, script.state, "sneak", now=script.now, runnable=True, lacking={"sneak"}
    )

    assert found is not None
    assert unread is not None
    assert (found.reason, unread.reason) == ("no_worker_for_workflow",) * 2
    function = bodies_of(FEAST)["sneak"].key
    assert found.details["function"] == function
    assert found.summary.endswith(f"no worker seen lately has a fitting {function}.")
    assert unread.details["function"] is None


def test_an_undoing_that_nobody_can_run_says_so() -> None:
    script = Script(a_chain(an_action("a", undone_by=a_body("undo_a")), an_action("b"))).start()
    script.ok("a")
    script.report(script.claim("b"), Failed(error=BROKEN))

    lacking, unknown = (
        explain(
            script.definition,
            script.state,
            now=script.now,
            runnable=runnable,
            lacking={"compensate:a"},
        )
        for runnable in (True, False)
    )

    assert (lacking.reason, unknown.reason) == ("compensating", "compensating")
    assert lacking.summary.endswith("at its turn, and no worker seen lately has a fitting undo_a.")
    assert unknown.summary.endswith("at its turn, and no worker of its workflow was seen lately.")


def test_a_running_step_says_who_holds_it_until_when() -> None:
    script = a_run(PAYMENT)
    script.claim("load")

    found = asked(script)

    assert (found.reason, found.step) == ("step_running", "load")
    assert found.details["owner"] == "worker-1"
    assert found.details["lease_until"] == "2026-11-02T09:01:00+00:00"
    assert names(found) == ["wait_for_step", "cancel_run"]


def test_a_lease_that_ran_out_can_be_taken_back() -> None:
    script = a_run(PAYMENT)
    script.claim("load")
    script.pass_time(MINUTES)

    found = asked(script, runnable=False)

    assert (found.reason, found.step) == ("lease_expired", "load")
    assert names(found) == ["recover", "cancel_run"]
    assert found.summary == (
        "Attempt 1 of step 'load' was claimed by worker-1, whose lease ran out at"
        " 2026-11-02T09:01:00+00:00."
    )


def test_a_retry_says_what_went_wrong_and_when_it_is_due() -> None:
    script = at_ask()
    script.fail("ask", BUSY)

    found = asked(script)

    assert (found.status, found.reason, found.step) == ("retrying", "waiting_for_retry", "ask")
    assert found.details["visible_at"] == "2026-11-02T09:05:10+00:00"
    assert (found.details["attempt"], found.details["cause"]) == (2, "retry")
    error = found.details["error"]
    assert isinstance(error, dict)
    assert error["code"] == "step_error"
    assert names(found) == ["wait_for_retry", "cancel_run"]


def test_a_retry_that_is_due_is_still_one_unless_nobody_is_there_to_run_it() -> None:
    script = at_ask()
    script.fail("ask", BUSY)
    script.pass_time(timedelta(seconds=10))

    assert asked(script).reason == "waiting_for_retry"
    assert asked(script, runnable=False).reason == "no_worker_for_workflow"


def test_a_timer_says_until_when_it_waits() -> None:
    script = a_run(PAYMENT)
    script.ok("load")

    found = asked(script, runnable=False)

    assert (found.reason, found.step) == ("waiting_until", "settle")
    assert (found.details["visible_at"], found.details["cause"]) == (
        "2026-11-02T09:05:00+00:00",
        "wait",
    )
    assert names(found) == ["wait_until", "cancel_run"]


def test_a_deferral_says_until_when_it_waits() -> None:
    script = a_run(PAYMENT)
    script.defer("load", MINUTES, reason="the carrier is closed")

    found = asked(script)

    assert (found.reason, found.details["cause"]) == ("waiting_until", "deferral")
    assert found.details["reason"] == "the carrier is closed"
    assert "carrier" not in found.summary
    script.pass_time(MINUTES)
    assert asked(script).reason == "step_scheduled"


def test_without_its_definition_a_deferral_is_still_known_from_a_timer() -> None:
    deferred, timer = a_run(PAYMENT), a_run(PAYMENT)
    deferred.defer("load", MINUTES)
    timer.ok("load")

    causes = [
        explain(None, script.state, now=script.now, runnable=True).details["cause"]
        for script in (deferred, timer)
    ]

    assert causes == ["deferral", "wait"]


def test_an_approval_names_where_either_decision_leads() -> None:
    found = asked(at_review())

    assert (found.status, found.reason, found.step) == ("paused", "paused_for_approval", "review")
    assert found.details["approval_targets"] == {"ok": "credit", "error": "page"}
    assert names(found) == ["approve_run", "reject_run", "cancel_run"]
    assert calls(found)["approve_run"] == 'await mesh.approve_run("run-1", actor=...)'


def test_a_pause_names_where_it_leads() -> None:
    found = asked(a_run(BREAK))

    assert (found.reason, found.step) == ("paused_for_manual_action", "hold")
    assert found.details["resume_target"] == "work"
    assert calls(found)["resume_run"] == 'await mesh.resume_run("run-1")'


def test_a_pause_at_the_end_leads_to_the_end() -> None:
    found = asked(a_run(a_chain(attrs.evolve(BREAK.by_name["hold"], name="last"))))

    assert found.details["resume_target"] == "complete"


def test_without_its_definition_a_paused_run_needs_a_deploy_before_a_decision() -> None:
    script = at_review()

    found = explain(None, script.state, now=script.now, runnable=False)

    assert found.reason == "paused_for_approval"
    assert names(found) == ["deploy_workflow", "cancel_run"]
    assert "queues=('default',)" in calls(found)["deploy_workflow"]


def test_of_several_open_steps_the_foremost_reason_counts_and_all_are_listed() -> None:
    script = a_run(FEAST)
    assert (asked(script).reason, asked(script).step) == ("waiting_until", "rest")
    script.fail("march", BUSY)
    assert (asked(script).reason, asked(script).step) == ("waiting_for_retry", "march")
    script.claim("sneak")

    found = asked(script)

    assert (found.reason, found.step) == ("step_running", "sneak")
    listed = found.details["open"]
    assert isinstance(listed, list)
    assert [step["step"] for step in listed if isinstance(step, dict)] == [
        "march",
        "sneak",
        "rest",
    ]


def test_of_equal_reasons_that_of_the_earliest_step_counts() -> None:
    script = a_run(FEAST)
    script.fail("march", BUSY)
    script.pass_time(timedelta(seconds=-5))
    script.defer("sneak", timedelta(hours=1))

    assert asked(script).step == "march"
    assert asked_of(script, "sneak").reason == "waiting_until"
    assert asked_of(script, "rest").details["visible_at"] == "2026-11-02T09:05:00+00:00"


def test_something_due_that_nobody_can_run_is_not_hidden_by_a_timer() -> None:
    found = asked(a_run(FEAST), runnable=False)

    assert found.reason == "waiting_until"
    assert names(found) == ["wait_until", "deploy_workflow", "cancel_run"]
    assert "queues=('default', 'night')" in calls(found)["deploy_workflow"]


def test_joins_that_wait_are_listed_with_what_they_wait_for() -> None:
    script = a_run(FEAST)
    script.ok("march")

    assert asked(script).details["waiting"] == [
        {
            "step": "feast",
            "needs": "all",
            "waiting_on": ["sneak"],
            "dependency_statuses": {"march": "completed", "sneak": "scheduled"},
        },
        {
            "step": "note",
            "needs": "all",
            "waiting_on": ["rest", "feast"],
            "dependency_statuses": {"rest": "scheduled", "feast": "waiting"},
        },
    ]


def test_a_run_that_only_waits_for_a_sibling_says_what_it_failed_with() -> None:
    found = asked(doomed()[0])

    assert (found.status, found.reason, found.step) == ("running", "step_running", "march")
    failure = found.details["failure"]
    assert isinstance(failure, dict)
    assert failure["step"] == "sneak"
    assert "waiting" not in found.details


def test_a_cancelling_run_waits_for_what_is_claimed() -> None:
    script = a_run(FEAST)
    script.claim("march")
    script.cancel()

    found = asked(script)

    assert (found.status, found.reason, found.step) == ("cancelling", "cancelling", "march")
    assert found.details["lease_until"] == "2026-11-02T09:01:00+00:00"
    assert names(found) == ["wait_for_cancellation"]


def test_a_cancelling_run_whose_worker_is_gone_can_be_recovered() -> None:
    script = a_run(FEAST)
    script.claim("march")
    script.cancel()
    script.pass_time(MINUTES)

    assert names(asked(script)) == ["wait_for_cancellation", "recover"]


def test_a_compensating_run_says_what_is_left_to_undo() -> None:
    script = undoing()

    found = asked(script)

    assert (found.status, found.reason) == ("compensating", "compensating")
    assert found.step == "compensate:credit"
    assert (found.details["remaining"], found.details["compensation_failures"]) == (["credit"], [])
    assert names(found) == ["wait_for_compensation", "recover"]
    assert names(asked(script, runnable=False)) == ["wait_for_compensation", "deploy_workflow"]


def test_a_compensating_run_says_when_a_callback_is_tried_again() -> None:
    script = undoing()
    script.fail("compensate:credit", BUSY)

    found = asked(script)

    assert found.details["visible_at"] == "2026-11-02T09:05:10+00:00"
    error, failure = found.details["error"], found.details["failure"]
    assert isinstance(error, dict)
    assert isinstance(failure, dict)
    assert (error["code"], failure["code"]) == ("step_error", "unreachable")
    assert names(found) == ["wait_for_compensation"]


def test_callbacks_that_failed_are_listed_while_others_are_still_to_run() -> None:
    definition = a_workflow(
        an_action("a", undone_by=a_body("undo_a")),
        an_action("b", undone_by=a_body("undo_b")),
        an_action("c"),
        transitions=a_path("a", "b", "c"),
    )
    script = a_run(definition)
    script.ok("a")
    script.ok("b")
    script.fail("c")
    script.fail("compensate:b")

    found = asked(script)

    failures = found.details["compensation_failures"]
    assert isinstance(failures, list)
    assert [failure["step"] for failure in failures if isinstance(failure, dict)] == ["b"]
    assert found.details["remaining"] == ["a"]


def test_a_run_of_which_nothing_is_open_can_still_be_cancelled() -> None:
    begun = RunStarted(at=T0, workflow="orders", trigger="t", fingerprint="f", payload={})

    found = explain(None, rebuild("run-1", [begun]), now=T0, runnable=True)

    assert (found.reason, found.step) == ("pending_dispatch", None)
    assert found.summary == "Nothing of the run is scheduled, claimed or paused."
    assert names(found) == ["wait_for_step", "cancel_run"]


def test_a_step_that_the_run_does_not_have_is_not_explained() -> None:
    script = a_run(PAYMENT)

    assert explain_step(PAYMENT, script.state, "nope", now=T0, runnable=True) is None
    assert explain_step(None, script.state, "ask", now=T0, runnable=True) is None


def test_a_join_waits_for_its_dependencies() -> None:
    script = a_run(FEAST)
    script.ok("march")

    found = asked_of(script, "feast")

    assert (found.status, found.reason, found.step) == (
        "waiting",
        "waiting_for_dependencies",
        "feast",
    )
    assert found.details["waiting_on"] == ["sneak"]
    assert found.details["dependency_statuses"] == {"march": "completed", "sneak": "scheduled"}
    assert found.summary == "Step 'feast' waits for 'sneak'."
    assert names(found) == ["wait_for_dependencies", "cancel_run"]


def test_a_step_ahead_on_the_path_waits_for_any_of_those_that_lead_to_it() -> None:
    script = a_run(PAYMENT)

    found = asked_of(script, "page")

    assert found.reason == "waiting_for_dependencies"
    assert (found.details["needs"], found.details["waiting_on"]) == ("any", ["ask", "review"])
    assert found.summary == "Step 'page' waits for 'ask' and 'review'."


def test_of_the_ways_to_a_step_those_behind_the_run_are_not_waited_for() -> None:
    assert asked_of(at_review(), "page").details["waiting_on"] == ["review"]


def test_a_step_that_was_passed_by_stands_where_the_run_stands() -> None:
    found = asked_of(at_tell(), "page")

    assert (found.status, found.reason, found.step) == ("waiting", "step_scheduled", "page")
    assert found.summary == (
        "Step 'page' was not reached, and the run does not come by it any more."
    )
    assert "visible_at" in found.details
    assert names(found) == ["wait_for_step", "cancel_run"]


def test_a_step_of_a_run_that_is_over_was_skipped_for_the_runs_reason() -> None:
    found = asked_of(exhausted(), "feast")

    assert (found.status, found.reason) == ("skipped", "retry_exhausted")
    assert names(found) == ["replay_run"]


def test_a_join_of_a_doomed_run_stands_still_for_what_it_failed_with() -> None:
    found = asked_of(doomed()[0], "feast")

    assert (found.status, found.reason) == ("waiting", "step_failed")
    assert names(found) == ["wait_for_step", "cancel_run"]


def test_a_step_ahead_of_a_run_that_ends_stands_still_because_it_ends() -> None:
    script = a_run(FEAST)
    script.claim("march")
    script.cancel()

    found = asked_of(script, "feast")

    assert (found.status, found.reason) == ("waiting", "cancelling")
    assert names(found) == ["wait_for_cancellation"]


def test_a_run_that_failed_and_is_cancelled_meanwhile_ends_because_of_that() -> None:
    script, _ = doomed()
    script.cancel()

    found = asked_of(script, "feast")

    assert (asked(script).reason, found.reason) == ("cancelling", "cancelling")
    assert found.details["lease_until"] == "2026-11-02T09:01:00+00:00"


def test_an_open_step_of_a_run_that_ends_has_the_runs_reason() -> None:
    cancelling = a_run(FEAST)
    cancelling.claim("march")
    cancelling.cancel()

    assert asked_of(cancelling, "march").reason == "cancelling"
    assert asked_of(undoing(), "compensate:credit").reason == "compensating"


def test_a_step_that_is_over_says_how_it_ended() -> None:
    script = at_ask()
    script.fail("ask")
    cancelled = a_run(FEAST)
    cancelled.cancel()

    completed, failed = asked_of(script, "load"), asked_of(script, "ask")

    assert (completed.status, completed.reason) == ("completed", "completed")
    assert completed.summary == "Step 'load' is completed."
    assert (failed.status, failed.reason) == ("failed", "step_failed")
    assert failed.summary == "Step 'ask' failed with 'step_error'."
    assert names(completed) == names(failed) == []
    assert asked_of(cancelled, "march").reason == "cancelled"


def test_a_step_that_failed_by_exhaustion_or_poison_says_so() -> None:
    assert asked_of(exhausted(), "march").reason == "retry_exhausted"
    assert asked_of(poisoned(), "march").reason == "poisoned"


def test_a_step_of_a_run_that_is_over_may_be_replayed_from() -> None:
    found = asked_of(exhausted(), "march")

    assert calls(found) == {"replay_run": "await mesh.replay_run(\"run-1\", from_step='march')"}


def test_a_compensation_cannot_be_replayed_from() -> None:
    found = asked_of(not_undone(), "compensate:credit")

    assert (found.status, found.reason) == ("failed", "retry_exhausted")
    assert found.details["replay"] == {"allowed": False, "blocked_by": []}
    assert "max_attempts" not in found.details
    assert names(found) == []


def test_without_its_definition_a_failed_step_is_explained_from_its_attempts() -> None:
    script = exhausted()

    found = explain_step(None, script.state, "march", now=script.now, runnable=False)

    assert found is not None
    assert (found.reason, found.details["failures"]) == ("retry_exhausted", 3)


def test_what_a_reader_does_to_an_explanation_does_not_reach_the_run() -> None:
    script = a_run(FEAST)
    script.fail("sneak", ErrorRecord(code="x", message="x", details={"by": ["x"]}))
    error = asked(script).details["error"]
    assert isinstance(error, dict)
    details = error["details"]
    assert isinstance(details, dict)

    details.clear()

    assert script.state.error is not None
    assert script.state.error.details == {"by": ["x"]}


FORKED = a_workflow(
    an_action("begin", retry=RETRIES, output="begun", undone_by=a_body("undo_begin", "output")),
    an_action("left", undone_by=a_body("undo_left")),
    an_action("right"),
    transitions=(
        on_ok("begin", "left", Condition(("begun",), Operator.EQUALS, operand=True)),
        on_ok("begin", "right", Condition(("begun",), Operator.EQUALS, operand=False)),
        on_ok("left", "right"),
        on_error("left", None),
        on_ok("right", None),
    ),
)
"""Conditions that may all fail, something to undo, and an error route that ends the run."""

MOVES: Final[Mapping[StepStatus, tuple[str, ...]]] = {
    StepStatus.SCHEDULED: ("claim",),
    StepStatus.RETRYING: ("claim",),
    StepStatus.PAUSED: ("resume", "approve", "reject"),
    StepStatus.RUNNING: (
        "succeed",
        "succeed with true",
        "succeed",
        "fail for now",
        "fail for now",
        "fail",
        "put off",
        "lose",
        "lose for good",
    ),
}
CANCELS: Final = 30
"""So many picks of a thousand cancel the run."""

TO_BE_TAKEN: Final = {
    "approve_run",
    "reject_run",
    "resume_run",
    "cancel_run",
    "recover",
    "deploy_workflow",
}

walks = st.lists(
    st.tuples(st.sampled_from(range(1000)), st.sampled_from((0, 0, 9, 60, 3600))),
    min_size=8,
    max_size=60,
)


def walk(script: Script, moves: Iterable[tuple[int, int]]) -> Iterator[Script]:
    """Let somebody do something to the run, again and again; now and then it is cancelled."""
    for pick, passed in moves:
        script.pass_time(timedelta(seconds=passed))
        steps = open_steps(script.state)
        if not steps:
            return
        yield script
        step = steps[pick % len(steps)]
        choices = MOVES[step.status]
        command = command_for(choices[pick // len(steps) % len(choices)], script, step)
        command = CancelRun() if pick < CANCELS else command
        if is_legal(script, command):
            script.do(command)


def command_for(move: str, script: Script, step: StepState) -> Command:
    """What *move* says about an open step; the rules may refuse it."""
    attempt = step.current
    held = attempt.id if attempt is not None else AttemptId(step.step, 1)
    token = (attempt.token_hash if attempt is not None else None) or "none"
    claim_id = (attempt.claim_id if attempt is not None else None) or "none"
    reports: dict[str, Outcome] = {
        "succeed": Succeeded(None),
        "succeed with true": Succeeded(output=True),
        "fail": Failed(error=ErrorRecord(code="x", message="x")),
        "fail for now": Failed(error=BUSY),
        "put off": PutOff(delay=timedelta(seconds=20)),
    }
    commands: dict[str, Command] = {
        "claim": ClaimAttempt(attempt=held, offer=offer_of(script.a_claim(step.step))),
        "lose": LoseAttempt(attempt=held, claim_id=claim_id),
        "lose for good": LoseAttempt(attempt=held, claim_id=claim_id, max_deliveries=1),
        "resume": ResumeRun(),
        "approve": ApproveRun(issuer=ANNA),
        "reject": RejectRun(issuer=ANNA),
    }
    if move in reports:
        return ReportOutcome(attempt=held, token_hash=token, outcome=reports[move])
    return commands[move]


def is_legal(script: Script, command: Command) -> bool:
    return is_successful(decide(script.definition, script.state, command, script.now))


def a_time_ahead(found: Explanation, now: datetime) -> bool:
    times = [found.details.get(key) for key in ("visible_at", "lease_until")]
    return any(isinstance(at, str) and datetime.fromisoformat(at) > now for at in times)


def check_that_it_helps(found: Explanation, script: Script) -> None:
    """Whatever goes on can be acted upon, or says when it changes by itself."""
    assert found.reason in {reason.value for reason in Reason}
    assert "None" not in found.summary
    assert json.dumps([found.details, found.evidence])
    assert TO_BE_TAKEN & {*names(found)} or a_time_ahead(found, script.now), found


@given(st.sampled_from((PAYMENT, FEAST, BREAK, FORKED)), walks, st.booleans(), st.booleans())
def test_whatever_happens_a_run_that_goes_on_has_a_reason_and_a_way_on(
    definition: WorkflowDefinition,
    moves: list[tuple[int, int]],
    runnable: bool,
    known: bool,
) -> None:
    carried = definition if known else None

    for script in walk(a_run(definition), moves):
        found = explain(carried, script.state, now=script.now, runnable=runnable)
        check_that_it_helps(found, script)


@given(st.sampled_from((PAYMENT, FEAST, BREAK, FORKED)), walks)
def test_whatever_happens_every_step_has_a_reason_and_what_is_offered_is_what_is_legal(
    definition: WorkflowDefinition, moves: list[tuple[int, int]]
) -> None:
    script = a_run(definition)
    for _ in walk(script, moves):
        pass

    offered = {*names(asked(script))}

    assert ("cancel_run" in offered) is is_legal(script, CancelRun())
    assert ("resume_run" in offered) is is_legal(script, ResumeRun())
    assert ("approve_run" in offered) is is_legal(script, ApproveRun(issuer=ANNA))
    assert ("reject_run" in offered) is is_legal(script, RejectRun(issuer=ANNA))
    replays = [call for call in calls_of(asked(script)) if "replay_run" in call]
    replay = ReplayRun(new_run_id="run-2")
    plain = f'await mesh.replay_run("{script.state.run_id}")'
    assert (plain in replays) is (script.status.is_final and is_legal(script, replay))
    for place in (call.split("from_step='")[1][:-2] for call in replays if call != plain):
        assert is_legal(script, attrs.evolve(replay, from_step=place))
    for step in shown_steps(definition, script.state):
        found = asked_of(script, step)
        assert json.dumps([found.details, found.evidence])
        if not script.status.is_final and found.status in STILL_TO_END:
            check_that_it_helps(found, script)
