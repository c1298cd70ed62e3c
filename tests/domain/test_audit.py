from squidmesh.domain.audit import AuditEvent, audit_events
from squidmesh.domain.commands import ReplayRun
from squidmesh.domain.definition import RecoveryMarker
from squidmesh.domain.entries import (
    AfterFailure,
    AttemptLost,
    ErrorRecord,
    FinalStatus,
    RunTerminal,
    StepRouted,
)
from tests.domain.builders import T0
from tests.domain.script import Script
from tests.domain.stories import (
    ADA,
    BREAK,
    PAYMENT,
    a_run,
    at_ask,
    at_review,
    feasted,
    finish,
    not_undone,
    undoing,
)


def told(script: Script) -> list[str]:
    return [event.type for event in audit_events(script.entries)]


def last(script: Script) -> AuditEvent:
    return audit_events(script.entries)[-1]


def test_a_run_that_nobody_touched_has_no_audit_events() -> None:
    assert told(feasted()) == []


def test_a_pause_and_who_ended_it_are_events() -> None:
    script = a_run(BREAK)
    script.resume(ADA)

    paused, resumed = audit_events(script.entries)

    assert (paused.type, paused.step, paused.actor) == ("paused", "hold", None)
    assert resumed == AuditEvent(
        type="resumed",
        step="hold",
        actor="ada",
        comment="looks right",
        metadata={"ticket": ["T-1"]},
        at=script.now,
    )


def test_an_approval_is_an_event_at_the_time_of_the_decision() -> None:
    script = at_review()
    script.approve(ADA)

    assert told(script) == ["paused", "approved"]
    assert last(script).at == script.now


def test_a_rejection_takes_its_marked_route_in_the_name_of_whoever_rejected() -> None:
    script = at_review()
    script.reject(ADA)

    assert told(script) == ["paused", "rejected", "undo_routed"]
    routed = last(script)
    assert (routed.step, routed.actor, routed.comment) == ("review", "ada", None)
    assert routed.metadata == {"target": "page"}


def test_a_failure_takes_its_marked_route_in_nobodys_name() -> None:
    script = at_ask()
    script.fail("ask")

    assert told(script) == ["compensation_routed"]
    assert (last(script).step, last(script).actor) == ("ask", None)


def test_a_marked_route_to_the_end_names_the_end_as_its_target() -> None:
    routed = StepRouted(
        at=T0, step="ask", transition=1, target=None, recovery=RecoveryMarker.COMPENSATION
    )

    (event,) = audit_events([routed])

    assert event.metadata == {"target": "complete"}


def test_a_route_without_a_marker_is_no_event() -> None:
    routed = StepRouted(at=T0, step="ask", transition=1, target="page")

    assert audit_events([routed]) == ()


def test_the_reason_of_a_cancellation_is_the_comment_of_its_event() -> None:
    script = a_run(PAYMENT)
    script.cancel(ADA)

    event = last(script)

    assert (event.type, event.step, event.comment) == ("cancel_requested", None, "looks right")


def test_a_replay_is_an_event_of_its_source_that_names_the_new_run() -> None:
    script = feasted()
    script.do(ReplayRun(new_run_id="run-2", issuer=ADA))
    script.do(ReplayRun(new_run_id="run-3", from_step="feast"))

    first, second = audit_events(script.entries)

    assert first.type == second.type == "replayed"
    assert first.metadata == {"ticket": ["T-1"], "new_run_id": "run-2"}
    assert second.metadata == {"new_run_id": "run-3", "from_step": "feast"}


def test_undoing_begins_with_the_list_of_what_is_undone() -> None:
    script = undoing()

    event = last(script)

    assert (event.type, event.step) == ("compensation_started", "tell")
    assert event.metadata == {"steps": ["credit"]}


def test_a_step_that_was_undone_is_an_event() -> None:
    script = undoing()
    finish(script, script.claim("compensate:credit"))

    event = last(script)

    assert (event.type, event.step) == ("compensation_completed", "credit")


def test_only_the_last_failure_of_a_compensation_is_an_event() -> None:
    script = not_undone()

    events = [event for event in audit_events(script.entries) if "compensation" in event.type]

    assert [event.type for event in events] == ["compensation_started", "compensation_failed"]
    assert (events[1].step, events[1].metadata) == ("credit", {"code": "no"})


def test_a_compensation_that_keeps_losing_its_worker_has_failed() -> None:
    script = undoing()
    script.lose(script.claim("compensate:credit"), max_deliveries=2)
    script.lose(script.claim("compensate:credit"), max_deliveries=2)

    events = [event for event in audit_events(script.entries) if "compensation" in event.type]

    assert [event.type for event in events] == ["compensation_started", "compensation_failed"]
    assert events[1].metadata == {"code": "poisoned"}


def test_what_a_reader_does_to_an_event_does_not_reach_the_entries() -> None:
    script = at_review()
    script.approve(ADA)

    ticket = last(script).metadata["ticket"]
    assert isinstance(ticket, list)
    ticket.append("T-2")

    assert last(script).metadata == {"ticket": ["T-1"]}


def test_a_loss_without_a_record_of_its_cause_is_still_told() -> None:
    lost = AttemptLost(at=T0, step="compensate:credit", number=1, then=AfterFailure.FAIL)
    over = RunTerminal(at=T0, status=FinalStatus.FAILED, error=ErrorRecord(code="x", message="x"))

    (event,) = audit_events([lost, over])

    assert (event.type, event.metadata) == ("compensation_failed", {"code": None})
