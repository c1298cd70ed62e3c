"""How a run and its steps stand, seen from outside, at each stage of their lives."""

import uuid
from datetime import timedelta

import pytest

from squidmesh import (
    Deferred,
    Errored,
    Retry,
    StepContext,
    Workflow,
    approval,
    log,
    manual,
    path,
    pause,
    step,
    wait,
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
    die_at,
    error_of,
    history,
    step_of,
    step_statuses,
)

pytestmark = pytest.mark.anyio


def charge(number: str) -> str:
    return f"receipt of {number}"


def tell(receipt: str) -> None: ...


class Sale(Workflow[Order]):
    """Two steps in a row."""

    name = "sale"
    version = "7"
    by_hand = manual()
    charge = step(charge, output="receipt")
    tell = step(tell)
    transitions = path(charge, tell)


async def test_a_run_that_nobody_has_touched_is_pending(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    mesh = await open_mesh(Sale)

    run = await mesh.start_run(Sale, Order(number="o7"), tags={"team": "blue"}, priority=3)

    assert run.status == "pending"
    assert (run.workflow, run.trigger, run.version) == ("sale", "by_hand", "7")
    assert run.fingerprint == Sale.definition.fingerprint
    assert run.payload == {"number": "o7", "amount": 100}
    assert run.context == {}
    assert run.current_step == "charge"
    assert (run.error, run.ended_at, run.replayed_from, run.parent) == (None, None, None, None)
    assert (run.queue, run.priority, run.tags) == ("default", 3, {"team": "blue"})
    assert run.started_at == run.updated_at == clock.now()
    assert uuid.UUID(run.id).version == 7
    assert step_statuses(await history(mesh, run)) == {"charge": "scheduled", "tell": "waiting"}


async def test_history_is_only_there_when_it_was_asked_for(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Sale)
    run = await mesh.start_run(Sale)

    plain = await mesh.inspect_run(run.id)
    full = await history(mesh, run)

    assert (plain.steps, plain.attempts, plain.audit_events, plain.entries) == (None,) * 4
    assert full.steps is not None
    assert full.attempts is not None
    assert full.audit_events == ()
    assert full.entries


async def test_a_claimed_run_is_running_and_says_who_holds_the_attempt_until_when(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    gate = Gate()

    async def do_hold() -> None:
        await gate.wait()

    class Held(Workflow[Order]):
        name = "held"
        by_hand = manual()
        hold = step(do_hold)
        tell = step(charge, output="receipt")
        transitions = path(hold, tell)

    mesh = await open_mesh(Held)
    run = await mesh.start_run(Held)
    clock.advance(5)

    async with at_work(mesh, gate):
        held = await history(mesh, run)

    (attempt,) = step_of(held, "hold").attempts
    assert held.status == "running"
    assert step_statuses(held) == {"hold": "running", "tell": "waiting"}
    assert attempt.status == "claimed"
    assert attempt.owner
    assert attempt.claimed_at == clock.now()
    assert attempt.lease_until == clock.now() + LEASE
    assert attempt.ended_at is None
    assert attempt.runnable_key == f"{run.id}:hold:1"


async def test_a_run_whose_steps_are_all_done_is_completed(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    mesh = await open_mesh(Sale)
    run = await mesh.start_run(Sale, Order(number="o7"))
    clock.advance(MINUTE)

    await mesh.run_until_idle()

    done = await history(mesh, run)
    assert done.status == "completed"
    assert done.ended_at == done.updated_at == clock.now()
    assert done.current_step is None
    assert done.context == {"receipt": "receipt of o7"}
    assert step_statuses(done) == {"charge": "completed", "tell": "completed"}
    assert step_of(done, "charge").input == {"number": "o7"}
    assert step_of(done, "charge").output == "receipt of o7"
    assert step_of(done, "tell").input == {"receipt": "receipt of o7"}
    assert step_of(done, "tell").output is None
    assert attempt_statuses(done, "tell") == ["completed"]
    assert done.attempts is not None
    assert [(one.step, one.number) for one in done.attempts] == [("charge", 1), ("tell", 1)]


async def test_a_run_is_retrying_until_the_retry_is_claimed_whether_it_is_due_or_not(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    gate = Gate()

    async def do_ask(context: StepContext) -> None:
        if context.attempt == 1:
            raise ConnectionError("the line is dead")
        await gate.wait()

    class Asking(Workflow[Order]):
        name = "asking"
        by_hand = manual()
        ask = step(do_ask, retry=Retry(3, backoff_min=timedelta(seconds=10)))
        transitions = path(ask)

    mesh = await open_mesh(Asking)
    run = await mesh.start_run(Asking)
    await mesh.run_until_idle()
    early = await history(mesh, run)
    clock.advance(11)
    due = await mesh.inspect_run(run.id)

    async with at_work(mesh, gate):
        again = await history(mesh, run)

    assert (early.status, due.status, again.status) == ("retrying", "retrying", "running")
    assert step_statuses(early) == {"ask": "retrying"}
    assert attempt_statuses(early, "ask") == ["failed", "scheduled"]
    assert step_statuses(again) == {"ask": "running"}
    assert attempt_statuses(again, "ask") == ["failed", "claimed"]
    assert early.current_step == "ask"


async def test_a_step_that_is_due_beside_a_retry_keeps_the_run_running(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    def do_fail() -> None:
        raise ConnectionError

    class Two(Workflow[Order]):
        name = "two"
        by_hand = manual()
        shaky = step(do_fail, retry=Retry(2, backoff_min=MINUTE))
        later = wait(MINUTE * 2)
        joined = log("joined", after=(shaky, later))

    mesh = await open_mesh(Two)
    run = await mesh.start_run(Two)

    await mesh.run_until_idle()

    seen = await history(mesh, run)
    assert seen.status == "running"
    assert step_statuses(seen) == {"shaky": "retrying", "later": "scheduled", "joined": "waiting"}


class Held(Workflow[Order]):
    """A pause before everything."""

    name = "held"
    by_hand = manual()
    hold = pause()
    then = log("then")
    transitions = path(hold, then)


class Judged(Workflow[Order]):
    """An approval before everything."""

    name = "judged"
    by_hand = manual()
    hold = approval()
    then = log("then")
    transitions = (path(hold, then), hold.on_error(then))


@pytest.mark.parametrize(("workflow", "kind"), [(Held, "pause"), (Judged, "approval")])
async def test_an_open_manual_step_pauses_the_run_even_as_its_first(
    open_mesh: OpenMesh, workflow: type[Workflow[Order]], kind: str
) -> None:
    mesh = await open_mesh(workflow)

    run = await mesh.start_run(workflow)

    seen = await history(mesh, run)
    assert run.status == "paused"
    assert run.current_step == "hold"
    assert step_statuses(seen) == {"hold": "paused", "then": "waiting"}
    assert step_of(seen, "hold").kind == kind
    assert step_of(seen, "hold").attempts == ()


async def test_a_timer_as_the_first_step_takes_the_run_to_running_at_once(
    open_mesh: OpenMesh,
) -> None:
    class Timer(Workflow[Order]):
        name = "timer"
        by_hand = manual()
        rest = wait(MINUTE)
        then = log("then")
        transitions = path(rest, then)

    mesh = await open_mesh(Timer)

    run = await mesh.start_run(Timer)

    assert run.status == "running"
    assert step_statuses(await history(mesh, run)) == {"rest": "scheduled", "then": "waiting"}


async def test_steps_that_a_finished_run_never_reached_are_skipped(open_mesh: OpenMesh) -> None:
    class Fork(Workflow[Order]):
        name = "fork"
        by_hand = manual()
        charge = step(charge, output="receipt")
        page = step(tell, inputs={"receipt": "number"})
        transitions = (path(charge), path(page), charge.on_error(page))

    mesh = await open_mesh(Fork)
    run = await mesh.start_run(Fork)

    await mesh.run_until_idle()

    done = await history(mesh, run)
    assert done.status == "completed"
    assert step_statuses(done) == {"charge": "completed", "page": "skipped"}
    assert step_of(done, "page").input is None


async def test_a_step_that_was_passed_by_is_waiting_and_only_behind_the_end_skipped(
    open_mesh: OpenMesh,
) -> None:
    class Fork(Workflow[Order]):
        name = "fork"
        by_hand = manual()
        charge = step(charge, output="receipt")
        page = log("paged")
        hold = pause()
        transitions = (path(charge, hold), charge.on_error(page), path(page))

    mesh = await open_mesh(Fork)
    run = await mesh.start_run(Fork)
    await mesh.run_until_idle()
    passed_by = await history(mesh, run)

    await mesh.resume_run(run.id)

    over = await history(mesh, run)
    assert (passed_by.status, over.status) == ("paused", "completed")
    assert step_statuses(passed_by) == {"charge": "completed", "page": "waiting", "hold": "paused"}
    assert step_statuses(over) == {"charge": "completed", "page": "skipped", "hold": "completed"}


async def test_a_failed_run_says_what_it_failed_with_and_where(open_mesh: OpenMesh) -> None:
    def do_refuse() -> object:
        return Errored("card declined", code="declined", details={"network": "visa"})

    class Refused(Workflow[Order]):
        name = "refused"
        by_hand = manual()
        refuse = step(do_refuse, output="said")
        tell = log("told")
        transitions = path(refuse, tell)

    mesh = await open_mesh(Refused)
    run = await mesh.start_run(Refused)

    await mesh.run_until_idle()

    failed = await history(mesh, run)
    record = {
        "code": "declined",
        "message": "card declined",
        "type": None,
        "details": {"network": "visa"},
        "retryable": False,
    }
    assert failed.status == "failed"
    assert failed.error == {**record, "step": "refuse"}
    assert failed.current_step == "refuse"
    assert step_of(failed, "refuse").error == record
    assert step_of(failed, "refuse").attempts[0].error == record
    assert step_statuses(failed) == {"refuse": "failed", "tell": "skipped"}


async def test_an_exception_is_recorded_with_its_type_and_message(open_mesh: OpenMesh) -> None:
    def do_fail() -> None:
        raise LookupError("no such page")

    class Failing(Workflow[Order]):
        name = "failing"
        by_hand = manual()
        fail = step(do_fail)
        transitions = path(fail)

    mesh = await open_mesh(Failing)
    run = await mesh.start_run(Failing)

    await mesh.run_until_idle()

    error = error_of(await mesh.inspect_run(run.id))
    assert (error["code"], error["type"]) == ("step_exception", "LookupError")
    assert error["message"] == "no such page"
    assert error["retryable"] is True


async def test_attempts_are_lost_when_their_lease_runs_out_and_numbered_without_gaps(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    gate = Gate()

    async def do_work() -> str:
        await gate.wait()
        return "done"

    class Work(Workflow[Order]):
        name = "work"
        by_hand = manual()
        work = step(do_work, output="result")
        transitions = path(work)

    mesh = await open_mesh(Work)
    run = await mesh.start_run(Work)
    await die_at(mesh, gate)
    clock.advance(LEASE + SECOND)

    async with at_work(mesh, gate):
        again = await history(mesh, run)

    done = await history(mesh, run)
    assert again.status == "running"
    assert attempt_statuses(again, "work") == ["lost", "claimed"]
    assert done.status == "completed"
    assert attempt_statuses(done, "work") == ["lost", "completed"]
    assert [attempt.number for attempt in step_of(done, "work").attempts] == [1, 2]
    assert step_of(done, "work").deliveries == 1


async def test_a_deferral_puts_the_same_attempt_back_to_scheduled(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    calls: list[str] = []

    def do_ready(context: StepContext) -> object:
        calls.append(context.runnable_key)
        return Deferred(MINUTE, reason="too early") if len(calls) < 3 else "ready"

    class Patient(Workflow[Order]):
        name = "patient"
        by_hand = manual()
        ready = step(do_ready, output="said")
        transitions = path(ready)

    mesh = await open_mesh(Patient)
    run = await mesh.start_run(Patient)
    await mesh.run_until_idle()
    put_off = await history(mesh, run)

    for _ in range(2):
        clock.advance(MINUTE)
        await mesh.run_until_idle()

    done = await history(mesh, run)
    (attempt,) = step_of(put_off, "ready").attempts
    assert put_off.status == "running"
    assert (attempt.number, attempt.status) == (1, "scheduled")
    assert attempt.visible_at == put_off.updated_at + MINUTE
    assert done.status == "completed"
    assert calls == [f"{run.id}:ready:1"] * 3
    assert attempt_statuses(done, "ready") == ["completed"]


async def test_what_a_reader_does_to_an_answer_changes_nothing(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Sale)
    run = await mesh.start_run(Sale)
    await mesh.run_until_idle()

    seen = await history(mesh, run)
    assert isinstance(seen.payload, dict)
    assert isinstance(seen.context, dict)
    seen.payload["number"] = seen.context["receipt"] = "forged"

    again = await mesh.inspect_run(run.id)
    assert again.payload["number"] == "o1"
    assert again.context == {"receipt": "receipt of o1"}


async def test_the_payload_comes_back_as_the_class_that_it_was(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Sale)

    run = await mesh.start_run(Sale, {"number": "o9", "amount": 5})

    assert run.payload_as(Order) == Order(number="o9", amount=5)
