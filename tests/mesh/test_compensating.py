"""Undoing: what a failed run takes back, in which order, and what it says of it."""

import asyncio
from typing import Any, Literal

import pytest

from squidmesh import (
    Deferred,
    Errored,
    InvalidTransitionError,
    Retry,
    StepContext,
    Workflow,
    compensation,
    log,
    manual,
    path,
    step,
    wait,
    when,
)
from squidmesh.testing.clock import VirtualClock
from tests.mesh.support import (
    LEASE,
    MINUTE,
    SECOND,
    Gate,
    OpenMesh,
    Order,
    at_work,
    attempt_statuses,
    audit_types,
    contents,
    context_of,
    die_at,
    entries_of,
    error_of,
    event_of,
    history,
    kill,
    once,
    step_of,
    step_statuses,
    turn,
)

pytestmark = pytest.mark.anyio


def refuse() -> Errored:
    return Errored("card declined", code="declined")


class Trip:
    """A workflow of three bookings, of which the last one fails, and notes on the way back."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        note = self.notes.append

        def undo_flight(output: dict[str, int], number: str, failure: dict[str, Any]) -> None:
            note(f"flight {output['seat']} {number} {failure['code']} {failure['step']}")

        def undo_hotel(output: str, flight: dict[str, int], context: StepContext) -> None:
            note(f"hotel {output} {flight['seat']} {context.step} {context.attempt}")

        class Booking(Workflow[Order]):
            name = "booking"
            by_hand = manual()
            book = step(lambda: {"seat": 7}, output="flight", compensate=undo_flight)
            stay = step(lambda: "Ritz", output="hotel", compensate=undo_hotel)
            plain = log("no way back from here")
            pay = step(refuse, output="receipt", compensate=lambda: note("never"))
            transitions = path(book, stay, plain, pay)

        self.workflow = Booking


async def test_completed_steps_are_undone_newest_first_and_then_the_run_has_failed(
    open_mesh: OpenMesh,
) -> None:
    trip = Trip()
    mesh = await open_mesh(trip.workflow)
    run = await mesh.start_run("booking")

    await mesh.run_until_idle()

    failed = await history(mesh, run)
    assert trip.notes == ["hotel Ritz 7 compensate:stay 1", "flight 7 o1 declined pay"]
    assert failed.status == "failed"
    assert (error_of(failed)["code"], error_of(failed)["step"]) == ("declined", "pay")
    assert "compensation_failures" not in error_of(failed)["details"]
    assert step_statuses(failed) == {
        "book": "completed",
        "stay": "completed",
        "plain": "completed",
        "pay": "failed",
        "compensate:stay": "completed",
        "compensate:book": "completed",
    }
    assert step_of(failed, "compensate:book").kind == "compensation"
    assert audit_types(failed) == [
        "compensation_started",
        "compensation_completed",
        "compensation_completed",
    ]
    completed = [
        event.step for event in failed.audit_events or () if event.type == "compensation_completed"
    ]
    assert completed == ["stay", "book"]


async def test_a_run_is_compensating_while_it_is_undone_and_cannot_be_cancelled_then(
    open_mesh: OpenMesh,
) -> None:
    gate = Gate()

    async def undo() -> None:
        await gate.wait()

    class Undone(Workflow[Order]):
        name = "undone"
        by_hand = manual()
        a = step(lambda: None, compensate=undo)
        b = step(refuse, output="x")
        transitions = path(a, b)

    mesh = await open_mesh(Undone)
    run = await mesh.start_run(Undone)
    async with at_work(mesh, gate):
        seen = await history(mesh, run)
        before = await contents(mesh)
        with pytest.raises(InvalidTransitionError) as refused:
            await mesh.cancel_run(run.id)
        assert await contents(mesh) == before

    assert seen.status == "compensating"
    assert seen.ended_at is None
    assert error_of(seen)["code"] == "declined"
    assert step_statuses(seen)["compensate:a"] == "running"
    assert refused.value.details == {"from": "compensating", "to": "cancelling"}
    assert (await mesh.inspect_run(run.id)).status == "failed"


async def test_a_callback_is_a_step_visit_with_attempts_retries_and_one_key(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    keys: list[str] = []

    def undo(context: StepContext) -> None:
        keys.append(context.idempotency_key)
        if context.attempt < 3:
            raise ConnectionError

    class Undone(Workflow[Order]):
        name = "undone"
        by_hand = manual()
        a = step(lambda: None, compensate=undo)
        b = step(refuse, output="x")
        transitions = path(a, b)

    mesh = await open_mesh(Undone)
    run = await mesh.start_run(Undone)
    await mesh.run_until_idle()
    first = await history(mesh, run)
    for seconds in (1, 2):
        clock.advance(seconds)
        await mesh.run_until_idle()

    failed = await history(mesh, run)
    assert first.status == "compensating"
    assert attempt_statuses(failed, "compensate:a") == ["failed", "failed", "completed"]
    assert len(keys) == 3
    assert len(set(keys)) == 1
    assert failed.status == "failed"


async def test_a_callback_that_fails_for_good_is_listed_and_the_others_still_run(
    open_mesh: OpenMesh,
) -> None:
    undone: list[str] = []

    def cannot() -> None:
        raise PermissionError("closed")

    class Undone(Workflow[Order]):
        name = "undone"
        by_hand = manual()
        a = step(lambda: None, compensate=lambda: undone.append("a"))
        b = step(lambda: None, compensate=compensation(cannot, retry=Retry(2)))
        c = step(lambda: None, compensate=lambda: Errored("no", code="gone"))
        d = step(refuse, output="x")
        transitions = path(a, b, c, d)

    mesh = await open_mesh(Undone)
    run = await mesh.start_run(Undone)
    await mesh.run_until_idle()

    failed = await history(mesh, run)
    failures = error_of(failed)["details"]["compensation_failures"]
    assert undone == ["a"]
    assert failed.status == "failed"
    assert error_of(failed)["code"] == "declined"
    assert [(one["step"], one["code"]) for one in failures] == [
        ("c", "gone"),
        ("b", "step_exception"),
    ]
    assert attempt_statuses(failed, "compensate:b") == ["failed", "failed"]
    assert audit_types(failed) == [
        "compensation_started",
        "compensation_failed",
        "compensation_failed",
        "compensation_completed",
    ]


async def test_siblings_that_finish_late_are_undone_too_after_all_have_settled(
    open_mesh: OpenMesh,
) -> None:
    first, slow = Gate(), Gate()
    undone: list[str] = []

    async def fail_first() -> Errored:
        await first.wait()
        return Errored("no", code="declined")

    async def finish_late() -> str:
        await slow.wait()
        return "late"

    class Siblings(Workflow[Order]):
        name = "siblings"
        by_hand = manual()
        early = step(lambda: None, compensate=lambda: undone.append("early"))
        late = step(
            finish_late, output="late", compensate=lambda output: undone.append(str(output))
        )
        bad = step(fail_first, output="x", after=early)
        join = log("join", after=(bad, late))

    mesh = await open_mesh(Siblings)
    run = await mesh.start_run(Siblings)
    async with at_work(mesh, first, slow):
        first.opened.set()
        while step_statuses(doomed := await history(mesh, run))["bad"] != "failed":
            await turn()
        begun = list(undone)

    failed = await history(mesh, run)
    assert (doomed.status, begun) == ("running", [])
    assert undone == ["late", "early"]
    assert failed.status == "failed"


@pytest.mark.parametrize("marker", ["undo", "compensation"])
async def test_a_run_that_takes_an_error_route_undoes_nothing(
    open_mesh: OpenMesh, marker: Literal["undo", "compensation"]
) -> None:
    undone: list[str] = []

    class Routed(Workflow[Order]):
        name = "routed"
        by_hand = manual()
        a = step(lambda: None, compensate=lambda: undone.append("a"))
        b = step(refuse, output="x")
        c = log("c")
        transitions = (path(a, b), path(c), b.on_error(c, recovery=marker))

    mesh = await open_mesh(Routed)
    run = await mesh.start_run(Routed)
    await mesh.run_until_idle()

    done = await history(mesh, run)
    assert undone == []
    assert done.status == "completed"
    assert audit_types(done) == [f"{marker}_routed"]
    assert event_of(done, f"{marker}_routed").step == "b"


async def test_a_run_that_finds_no_route_is_undone(open_mesh: OpenMesh) -> None:
    undone: list[str] = []

    class Stuck(Workflow[Order]):
        name = "stuck"
        by_hand = manual()
        a = step(lambda: {"n": 1}, compensate=lambda: undone.append("a"))
        b = log("b")
        transitions = (a.on_ok(b, when=when("n", equals=2)), path(b))

    mesh = await open_mesh(Stuck)
    run = await mesh.start_run(Stuck)
    await mesh.run_until_idle()

    assert undone == ["a"]
    assert error_of(await mesh.inspect_run(run.id))["code"] == "no_matching_transition"


async def test_the_failed_step_itself_and_steps_never_reached_are_not_undone(
    open_mesh: OpenMesh,
) -> None:
    trip = Trip()
    mesh = await open_mesh(trip.workflow)
    run = await mesh.start_run("booking")
    await mesh.run_until_idle()

    (planned,) = entries_of(await history(mesh, run), "compensation_planned")
    assert planned.data["steps"] == ["stay", "book"]
    assert "never" not in trip.notes


async def test_a_lost_callback_is_followed_by_its_next_attempt(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    gate = Gate()

    async def undo() -> None:
        await gate.wait()

    class Undone(Workflow[Order]):
        name = "undone"
        by_hand = manual()
        a = step(lambda: None, compensate=undo)
        b = step(refuse, output="x")
        transitions = path(a, b)

    mesh = await open_mesh(Undone)
    run = await mesh.start_run(Undone)
    await die_at(mesh, gate)
    clock.advance(LEASE + SECOND)
    gate.opened.set()
    await mesh.run_until_idle()

    failed = await history(mesh, run)
    assert failed.status == "failed"
    assert attempt_statuses(failed, "compensate:a") == ["lost", "completed"]


async def test_what_became_of_an_undoing_is_told_with_the_step(open_mesh: OpenMesh) -> None:
    trip = Trip()
    mesh = await open_mesh(trip.workflow)
    run = await mesh.start_run("booking")
    begun = await history(mesh, run)
    await mesh.run_until_idle()

    failed = await history(mesh, run)
    before, after = step_of(begun, "book").recovery, step_of(failed, "book").recovery
    plain, never = step_of(failed, "plain").recovery, step_of(failed, "pay").recovery
    assert before is not None
    assert after is not None
    assert plain is not None
    assert never is not None
    assert before["compensation"] == {"status": "available"}
    assert isinstance(after["compensation"], dict)
    assert after["compensation"]["status"] == "completed"
    assert (after["irreversible"], after["compensatable"]) == (False, True)
    assert plain["compensation"] is None
    assert never["compensation"] == {"status": "available"}


async def test_a_timer_among_the_steps_does_not_disturb_the_order_of_undoing(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    undone: list[str] = []

    class Timed(Workflow[Order]):
        name = "timed"
        by_hand = manual()
        rest = wait(MINUTE)
        slow = step(lambda: None, after=rest, compensate=lambda: undone.append("slow"))
        quick = step(lambda: None, compensate=lambda: undone.append("quick"))
        bad = step(refuse, output="x", after=(slow, quick))

    mesh = await open_mesh(Timed)
    await mesh.start_run(Timed)
    await mesh.run_until_idle()
    clock.advance(MINUTE)
    await mesh.run_until_idle()

    assert undone == ["slow", "quick"]


async def test_an_error_that_a_callback_reports_may_be_tried_again(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    def undo(context: StepContext) -> Errored | None:
        return Errored("busy", retryable=True, retry_after=MINUTE) if context.attempt == 1 else None

    class Undone(Workflow[Order]):
        name = "undone"
        by_hand = manual()
        a = step(lambda: None, compensate=undo)
        b = step(refuse, output="x")
        transitions = path(a, b)

    mesh = await open_mesh(Undone)
    run = await mesh.start_run(Undone)
    await mesh.run_until_idle()
    clock.advance(MINUTE)
    await mesh.run_until_idle()

    failed = await history(mesh, run)
    assert attempt_statuses(failed, "compensate:a") == ["failed", "completed"]
    assert "compensation_failures" not in error_of(failed)["details"]


async def test_a_callback_without_a_policy_of_its_own_has_three_attempts(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    def undo() -> None:
        raise ConnectionError

    class Undone(Workflow[Order]):
        name = "undone"
        by_hand = manual()
        a = step(lambda: None, retry=Retry(7), compensate=undo)
        b = step(refuse, output="x")
        transitions = path(a, b)

    mesh = await open_mesh(Undone)
    run = await mesh.start_run(Undone)
    for _ in range(3):
        await mesh.run_until_idle()
        clock.advance(MINUTE)

    failed = await history(mesh, run)
    _, second, third = step_of(failed, "compensate:a").attempts
    assert failed.status == "failed"
    assert attempt_statuses(failed, "compensate:a") == ["failed"] * 3
    assert second.visible_at - second.scheduled_at == SECOND
    assert third.visible_at - third.scheduled_at == SECOND * 2
    (listed,) = error_of(failed)["details"]["compensation_failures"]
    assert (listed["step"], listed["code"]) == ("a", "step_exception")


async def test_a_callback_has_a_lease_a_holder_and_a_key_of_its_own(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    gate = Gate()
    contexts: list[StepContext] = []

    def do(context: StepContext) -> None:
        contexts.append(context)

    async def undo(context: StepContext) -> None:
        contexts.append(context)
        await gate.wait()

    class Undone(Workflow[Order]):
        name = "undone"
        by_hand = manual()
        a = step(do, compensate=undo)
        b = step(refuse, output="x")
        transitions = path(a, b)

    mesh = await open_mesh(Undone)
    run = await mesh.start_run(Undone)
    async with at_work(mesh, gate):
        (begun,) = step_of(await history(mesh, run), "compensate:a").attempts
        for _ in range(6):
            clock.advance(LEASE / 3)
            for _ in range(5):
                await turn()
        report = await mesh.recover()

    forward, back = contexts
    failed = await history(mesh, run)
    assert begun.status == "claimed"
    assert begun.owner
    assert begun.lease_until == run.started_at + LEASE
    assert report.reclaimed == 0
    assert attempt_statuses(failed, "compensate:a") == ["completed"]
    assert back.idempotency_key == f"{run.id}:compensate:a"
    assert back.idempotency_key != forward.idempotency_key
    assert back.runnable_key == f"{run.id}:compensate:a:1"
    assert back.fence > forward.fence


async def test_nothing_is_undone_while_the_failing_step_may_still_be_tried_again(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    undone: list[str] = []

    def fail() -> None:
        raise ConnectionError

    class Undone(Workflow[Order]):
        name = "undone"
        by_hand = manual()
        a = step(lambda: None, compensate=lambda: undone.append("a"))
        b = step(fail, retry=Retry(2, backoff_min=MINUTE))
        transitions = path(a, b)

    mesh = await open_mesh(Undone)
    run = await mesh.start_run(Undone)
    await mesh.run_until_idle()
    early, begun = await mesh.inspect_run(run.id), list(undone)
    clock.advance(MINUTE)
    await mesh.run_until_idle()

    assert (early.status, begun) == ("retrying", [])
    assert ((await mesh.inspect_run(run.id)).status, undone) == ("failed", ["a"])


async def test_a_run_with_nothing_to_undo_fails_at_once(open_mesh: OpenMesh) -> None:
    class Plain(Workflow[Order]):
        name = "plain"
        by_hand = manual()
        a = log("a")
        b = step(refuse, output="x", compensate=lambda: None)
        transitions = path(a, b)

    mesh = await open_mesh(Plain)
    run = await mesh.start_run(Plain)
    await mesh.run_until_idle()

    failed = await history(mesh, run)
    assert failed.status == "failed"
    assert audit_types(failed) == []
    assert entries_of(failed, "compensation_planned") == []
    assert step_statuses(failed) == {"a": "completed", "b": "failed"}


async def test_a_run_that_waits_for_a_callbacks_next_attempt_cannot_be_cancelled_either(
    open_mesh: OpenMesh,
) -> None:
    def undo() -> None:
        raise ConnectionError

    class Undone(Workflow[Order]):
        name = "undone"
        by_hand = manual()
        a = step(lambda: None, compensate=undo)
        b = step(refuse, output="x")
        transitions = path(a, b)

    mesh = await open_mesh(Undone)
    run = await mesh.start_run(Undone)
    await mesh.run_until_idle()
    before = await contents(mesh)

    with pytest.raises(InvalidTransitionError) as refused:
        await mesh.cancel_run(run.id)

    assert refused.value.details == {"from": "compensating", "to": "cancelling"}
    assert await contents(mesh) == before


async def test_a_callback_may_put_itself_off_and_adds_nothing_to_the_context(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    calls: list[int] = []

    def undo(context: StepContext) -> Deferred | dict[str, int]:
        calls.append(context.attempt)
        return Deferred(MINUTE) if len(calls) == 1 else {"undone": 1}

    class Undone(Workflow[Order]):
        name = "undone"
        by_hand = manual()
        a = step(lambda: {"done": 1}, compensate=undo)
        b = step(refuse, output="x")
        transitions = path(a, b)

    mesh = await open_mesh(Undone)
    run = await mesh.start_run(Undone)
    await mesh.run_until_idle()
    early = await mesh.inspect_run(run.id)
    clock.advance(MINUTE)
    await mesh.run_until_idle()

    failed = await history(mesh, run)
    assert early.status == "compensating"
    assert calls == [1, 1]
    assert attempt_statuses(failed, "compensate:a") == ["completed"]
    assert context_of(failed) == {"done": 1}
    assert step_of(failed, "compensate:a").output == {"undone": 1}


async def test_a_callback_that_cannot_be_given_what_it_asks_for_is_recorded_as_failed(
    open_mesh: OpenMesh,
) -> None:
    undone: list[str] = []

    def undo(output: int) -> None:
        undone.append(str(output))

    class Undone(Workflow[Order]):
        name = "undone"
        by_hand = manual()
        a = step(lambda: None, compensate=lambda: undone.append("a"))
        b = step(lambda: "not a number", output="said", compensate=undo)
        c = step(refuse, output="x")
        transitions = path(a, b, c)

    mesh = await open_mesh(Undone)
    run = await mesh.start_run(Undone)
    await mesh.run_until_idle()

    failed = await history(mesh, run)
    (listed,) = error_of(failed)["details"]["compensation_failures"]
    assert undone == ["a"]
    assert (listed["step"], listed["code"]) == ("b", "invalid_input")
    assert attempt_statuses(failed, "compensate:b") == ["failed"]
    assert failed.status == "failed"


async def test_a_sibling_that_loses_its_worker_late_holds_the_undoing_up_and_is_not_undone(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    first, slow = Gate(), Gate()
    undone: list[str] = []

    async def fail_first() -> Errored:
        await first.wait()
        return Errored("no", code="declined")

    class Siblings(Workflow[Order]):
        name = "siblings"
        by_hand = manual()
        early = step(lambda: None, compensate=lambda: undone.append("early"))
        lost = step(slow.wait, compensate=lambda: undone.append("lost"))
        bad = step(fail_first, output="x", after=early)
        join = log("join", after=(bad, lost))

    mesh = await open_mesh(Siblings)
    run = await mesh.start_run(Siblings)
    worker = asyncio.create_task(mesh.run_until_idle())
    await slow.entered.wait()
    first.opened.set()
    await once(mesh, run, lambda one: step_statuses(one)["bad"] == "failed")
    await kill(worker)
    await mesh.run_until_idle()
    held_up, begun = await mesh.inspect_run(run.id), list(undone)
    clock.advance(LEASE)
    await mesh.run_until_idle()

    failed = await history(mesh, run)
    assert (held_up.status, begun) == ("running", [])
    assert undone == ["early"]
    assert failed.status == "failed"
    assert attempt_statuses(failed, "lost") == ["lost"]


async def test_a_step_that_was_in_flight_is_undone_with_what_it_left(open_mesh: OpenMesh) -> None:
    gate = Gate()
    undone: list[tuple[int, int]] = []

    async def fly() -> dict[str, int]:
        await gate.wait()
        return {"seat": 7}

    async def book() -> int:
        await gate.wait()
        return 8

    class Siblings(Workflow[Order]):
        name = "siblings"
        by_hand = manual()
        wrong = step(lambda: Errored("no"), output="x")
        flying = step(fly, compensate=lambda seat, output: undone.append((seat, output["seat"])))
        booked = step(
            book, output="room", compensate=lambda room, output: undone.append((room, output))
        )

    mesh = await open_mesh(Siblings)
    run = await mesh.start_run(Siblings)
    async with at_work(mesh, gate):
        while step_statuses(await history(mesh, run))["wrong"] != "failed":
            await turn()

    assert sorted(undone) == [(7, 7), (8, 8)]
    assert "compensation_failures" not in error_of(await history(mesh, run))["details"]
