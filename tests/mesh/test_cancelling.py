"""Cancelling: at once where nothing is held, else as soon as what is held has let go."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from squidmesh import (
    ClaimLostError,
    Deferred,
    Errored,
    InvalidReviewError,
    InvalidTransitionError,
    Retry,
    Runner,
    SquidMesh,
    StepContext,
    Worker,
    Workflow,
    log,
    manual,
    path,
    pause,
    step,
    wait,
)
from squidmesh.testing.clock import VirtualClock
from squidmesh.testing.executors import RecordingExecutor
from tests.mesh.support import (
    LEASE,
    MINUTE,
    PATIENCE,
    SECOND,
    Deploy,
    Gate,
    OpenMesh,
    Order,
    at_work,
    attempt_statuses,
    audit_types,
    contents,
    die_at,
    entries_of,
    entry_types,
    error_of,
    event_of,
    history,
    once,
    step_of,
    step_statuses,
    turn,
)

pytestmark = pytest.mark.anyio


def fail() -> None:
    raise ConnectionError


class Pending(Workflow[Order]):
    name = "pending"
    by_hand = manual()
    a = log("a")
    b = log("b")
    transitions = path(a, b)


class Waiting(Workflow[Order]):
    name = "waiting"
    by_hand = manual()
    a = wait(MINUTE)
    b = log("b")
    transitions = path(a, b)


class Retrying(Workflow[Order]):
    name = "retrying"
    by_hand = manual()
    a = step(fail, retry=Retry(2, backoff_min=MINUTE))
    b = log("b")
    transitions = path(a, b)


class Paused(Workflow[Order]):
    name = "paused"
    by_hand = manual()
    a = pause()
    b = log("b")
    transitions = path(a, b)


@pytest.mark.parametrize(
    ("workflow", "works", "status"),
    [
        (Pending, False, "pending"),
        (Waiting, True, "running"),
        (Retrying, True, "retrying"),
        (Paused, True, "paused"),
    ],
)
async def test_a_run_with_nothing_claimed_is_cancelled_at_once_whatever_its_status(
    open_mesh: OpenMesh,
    clock: VirtualClock,
    workflow: type[Workflow[Order]],
    works: bool,
    status: str,
) -> None:
    mesh = await open_mesh(workflow)
    run = await mesh.start_run(workflow)
    if works:
        await mesh.run_until_idle()
    before = await mesh.inspect_run(run.id)

    cancelled = await mesh.cancel_run(run.id, actor="ada", reason="not needed")
    clock.advance(MINUTE * 2)
    await mesh.run_until_idle()

    after = await history(mesh, run)
    assert before.status == status
    assert (cancelled.status, after.status) == ("cancelled", "cancelled")
    assert after.ended_at == before.updated_at
    assert after.revision == cancelled.revision
    assert step_statuses(after) == {"a": "cancelled", "b": "skipped"}
    assert entry_types(after)[-1] == "run_terminal"
    event = event_of(after, "cancel_requested")
    assert (event.actor, event.comment) == ("ada", "not needed")
    assert after.current_step is None


async def test_a_run_with_a_claimed_attempt_is_cancelling_until_it_reports(
    open_mesh: OpenMesh,
) -> None:
    gate, told = Gate(), []

    async def hold(context: StepContext) -> str:
        told.append(context.cancelled)
        await gate.wait()
        told.append(context.cancelled)
        return "done all the same"

    class Held(Workflow[Order]):
        name = "held"
        by_hand = manual()
        a = step(hold, output="said")
        b = log("b")
        transitions = path(a, b)

    mesh = await open_mesh(Held)
    run = await mesh.start_run(Held)
    async with at_work(mesh, gate):
        cancelling = await mesh.cancel_run(run.id)
        seen = await history(mesh, run)

    done = await history(mesh, run)
    assert (cancelling.status, seen.status, done.status) == (
        "cancelling",
        "cancelling",
        "cancelled",
    )
    assert step_statuses(seen) == {"a": "running", "b": "waiting"}
    assert told == [False, True]
    assert attempt_statuses(done, "a") == ["completed"]
    assert step_of(done, "a").output == "done all the same"
    assert done.context == {}
    assert step_statuses(done)["b"] == "skipped"
    assert done.error is None


async def test_a_failure_that_arrives_while_cancelling_changes_nothing_else(
    open_mesh: OpenMesh,
) -> None:
    gate = Gate()

    async def hold() -> Errored:
        await gate.wait()
        return Errored("no", code="declined", retryable=True)

    class Held(Workflow[Order]):
        name = "held"
        by_hand = manual()
        a = step(hold, output="x", retry=Retry(5))
        b = log("b")
        transitions = (path(a), a.on_error(b), path(b))

    mesh = await open_mesh(Held)
    run = await mesh.start_run(Held)
    async with at_work(mesh, gate):
        await mesh.cancel_run(run.id)

    done = await history(mesh, run)
    assert (done.status, done.error) == ("cancelled", None)
    assert attempt_statuses(done, "a") == ["failed"]
    assert step_statuses(done)["b"] == "skipped"


async def test_scheduled_siblings_are_cancelled_at_once_and_claimed_ones_waited_for(
    open_mesh: OpenMesh,
) -> None:
    gate = Gate()

    async def hold() -> None:
        await gate.wait()

    class Siblings(Workflow[Order]):
        name = "siblings"
        by_hand = manual()
        held = step(hold)
        later = wait(MINUTE)
        join = log("join", after=(held, later))

    mesh = await open_mesh(Siblings)
    run = await mesh.start_run(Siblings)
    async with at_work(mesh, gate):
        await mesh.cancel_run(run.id)
        seen = await history(mesh, run)

    assert step_statuses(seen) == {"held": "running", "later": "cancelled", "join": "waiting"}
    assert (await mesh.inspect_run(run.id)).status == "cancelled"


@pytest.mark.parametrize("how", ["recover", "work"])
async def test_cancelling_converges_when_the_last_lease_has_run_out(
    open_mesh: OpenMesh, clock: VirtualClock, how: str
) -> None:
    gate = Gate()

    async def hold() -> None:
        await gate.wait()

    class Held(Workflow[Order]):
        name = "held"
        by_hand = manual()
        a = step(hold)

    mesh = await open_mesh(Held)
    run = await mesh.start_run(Held)
    await die_at(mesh, gate)
    await mesh.cancel_run(run.id)
    clock.advance(LEASE + SECOND)
    stuck = await mesh.inspect_run(run.id)

    if how == "recover":
        report = await mesh.recover()
        assert (report.reclaimed, report.converged) == (1, 1)
    else:
        await mesh.run_until_idle()

    done = await history(mesh, run)
    assert (stuck.status, done.status) == ("cancelling", "cancelled")
    assert attempt_statuses(done, "a") == ["lost"]


async def test_a_report_after_the_end_is_refused_and_recorded_nowhere(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    gate, refused = Gate(), []

    async def hold(context: StepContext) -> str:
        await gate.wait()
        try:
            await context.heartbeat()
        except ClaimLostError as lost:
            refused.append(lost.code)
        return "late"

    class Held(Workflow[Order]):
        name = "held"
        by_hand = manual()
        a = step(hold, output="said")

    # A heartbeat of the worker's own would keep the lease: this clock jumps over all of them.
    mesh = await open_mesh(Held)
    run = await mesh.start_run(Held)
    async with at_work(mesh, gate):
        await mesh.cancel_run(run.id)
        clock.advance(LEASE * 2)
        await mesh.recover()
        over = await history(mesh, run)

    done = await history(mesh, run)
    assert over.status == "cancelled"
    assert refused == ["claim_lost"]
    assert done == over


@pytest.mark.parametrize("again", [True, False])
async def test_a_run_that_is_cancelling_or_over_cannot_be_cancelled(
    open_mesh: OpenMesh, again: bool
) -> None:
    gate = Gate()

    async def hold() -> None:
        await gate.wait()

    class Held(Workflow[Order]):
        name = "held"
        by_hand = manual()
        a = step(hold)

    mesh = await open_mesh(Held)
    run = await mesh.start_run(Held)
    async with at_work(mesh, gate):
        if again:
            await mesh.cancel_run(run.id)
            before = await contents(mesh)
            with pytest.raises(InvalidTransitionError) as cancelling:
                await mesh.cancel_run(run.id)
            assert cancelling.value.details == {"from": "cancelling", "to": "cancelling"}
            assert await contents(mesh) == before

    left = await contents(mesh)
    with pytest.raises(InvalidTransitionError) as over:
        await mesh.cancel_run(run.id)
    assert over.value.code == "invalid_transition"
    assert over.value.details["from"] == ("cancelled" if again else "completed")
    assert await contents(mesh) == left


async def test_a_failed_run_cannot_be_cancelled(open_mesh: OpenMesh) -> None:
    class Failing(Workflow[Order]):
        name = "failing"
        by_hand = manual()
        a = step(fail)

    mesh = await open_mesh(Failing)
    run = await mesh.start_run(Failing)
    await mesh.run_until_idle()
    before = await contents(mesh)

    with pytest.raises(InvalidTransitionError) as refused:
        await mesh.cancel_run(run.id)

    assert refused.value.details == {"from": "failed", "to": "cancelling"}
    assert await contents(mesh) == before


async def test_cancelling_undoes_nothing(open_mesh: OpenMesh) -> None:
    undone: list[str] = []

    def undo() -> None:
        undone.append("a")

    class Undoable(Workflow[Order]):
        name = "undoable"
        by_hand = manual()
        a = step(lambda: None, compensate=undo)
        b = pause()
        transitions = path(a, b)

    mesh = await open_mesh(Undoable)
    run = await mesh.start_run(Undoable)
    await mesh.run_until_idle()

    await mesh.cancel_run(run.id)
    await mesh.run_until_idle()

    assert undone == []
    assert audit_types(await history(mesh, run)) == ["paused", "cancel_requested"]


async def test_a_cancel_tells_a_body_in_the_same_process_at_once(open_mesh: OpenMesh) -> None:
    gate = Gate()
    seen: list[StepContext] = []

    async def hold(context: StepContext) -> None:
        seen.append(context)
        await gate.wait()

    class Held(Workflow[Order]):
        name = "held"
        by_hand = manual()
        a = step(hold)

    mesh = await open_mesh(Held)
    run = await mesh.start_run(Held)
    async with at_work(mesh, gate):
        before = seen[0].cancelled
        await mesh.cancel_run(run.id)
        after = seen[0].cancelled

    assert (before, after) == (False, True)


@pytest.mark.parametrize("said", [None, Deferred(timedelta(0))], ids=["between", "deferred"])
async def test_a_run_whose_next_attempt_is_due_and_unclaimed_is_cancelled_at_once(
    open_mesh: OpenMesh, said: Deferred | None
) -> None:
    class Due(Workflow[Order]):
        name = "due"
        by_hand = manual()
        a = step(lambda: said)
        b = log("b")
        transitions = path(a, b)

    mesh = await open_mesh(Due)
    run = await mesh.start_run(Due)
    runner, due = Runner(mesh), "b" if said is None else "a"
    await runner.perform({"kind": "step", "run_id": run.id, "step": "a", "attempt": 1})
    before = await mesh.inspect_run(run.id)

    cancelled = await mesh.cancel_run(run.id)
    await mesh.run_until_idle()
    late = await runner.perform({"kind": "step", "run_id": run.id, "step": due, "attempt": 1})

    after = await history(mesh, run)
    assert before.status == "running"
    assert (cancelled.status, after.revision) == ("cancelled", cancelled.revision)
    assert (late.status, late.reason) == ("skipped", "run_over")
    assert attempt_statuses(after, due) == ["cancelled"]


async def test_a_run_is_cancelled_when_the_last_of_several_claimed_attempts_has_ended(
    open_mesh: OpenMesh,
) -> None:
    first, second = Gate(), Gate()

    class Several(Workflow[Order]):
        name = "several"
        by_hand = manual()
        a = step(first.wait)
        b = step(second.wait)
        behind_a = log("behind", after=a)
        join = log("join", after=(a, b))

    mesh = await open_mesh(Several)
    run = await mesh.start_run(Several)
    async with at_work(mesh, first, second):
        await mesh.cancel_run(run.id)
        first.opened.set()
        early = await once(mesh, run, lambda one: step_statuses(one)["a"] != "running")

    done = await history(mesh, run)
    assert (early.status, done.status) == ("cancelling", "cancelled")
    assert step_statuses(early) == {
        "a": "completed",
        "b": "running",
        "behind_a": "waiting",
        "join": "waiting",
    }
    assert step_statuses(done) == {
        "a": "completed",
        "b": "completed",
        "behind_a": "skipped",
        "join": "skipped",
    }
    assert len(entries_of(done, "attempt_scheduled")) == 2


async def test_a_deferral_that_arrives_while_cancelling_is_not_waited_for(
    open_mesh: OpenMesh,
) -> None:
    gate = Gate()

    async def hold() -> Deferred:
        await gate.wait()
        return Deferred(MINUTE)

    class Held(Workflow[Order]):
        name = "held"
        by_hand = manual()
        a = step(hold)

    mesh = await open_mesh(Held)
    run = await mesh.start_run(Held)
    async with at_work(mesh, gate):
        await mesh.cancel_run(run.id)

    done = await history(mesh, run)
    assert (done.status, done.error) == ("cancelled", None)
    assert attempt_statuses(done, "a") == ["cancelled"]
    assert entries_of(done, "attempt_deferred") == []


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "plain"])
async def test_a_body_hears_of_a_cancel_by_another_process_with_the_next_heartbeat(
    deploy: Deploy, clock: VirtualClock, is_async: bool
) -> None:
    loop = asyncio.get_running_loop()
    gate, door = Gate(), threading.Event()
    contexts: list[StepContext] = []

    async def hold(context: StepContext) -> None:
        contexts.append(context)
        await gate.wait()

    def hold_in_a_thread(context: StepContext) -> None:
        contexts.append(context)
        loop.call_soon_threadsafe(gate.entered.set)
        door.wait(10)

    class Held(Workflow[Order]):
        name = "held"
        by_hand = manual()
        a = step(hold if is_async else hold_in_a_thread)

    async with deploy(Held) as here, deploy(Held) as there:
        run = await here.start_run(Held)
        async with at_work(here, gate):
            await there.cancel_run(run.id)
            before = contexts[0].cancelled
            clock.advance(LEASE / 3)
            for _ in range(10):
                await turn()
            after = contexts[0].cancelled
            door.set()
        done = await here.inspect_run(run.id)

    assert (before, after) == (False, True)
    assert done.status == "cancelled"


async def test_a_body_that_asks_hears_of_a_cancel_by_another_process_at_once(
    deploy: Deploy,
) -> None:
    gate, told = Gate(), []

    async def hold(context: StepContext) -> None:
        await gate.wait()
        told.append(context.cancelled)
        await context.heartbeat()
        told.append(context.cancelled)

    class Held(Workflow[Order]):
        name = "held"
        by_hand = manual()
        a = step(hold)

    async with deploy(Held) as here, deploy(Held) as there:
        run = await here.start_run(Held)
        async with at_work(here, gate):
            await there.cancel_run(run.id)
        done = await here.inspect_run(run.id)

    assert told == [False, True]
    assert done.status == "cancelled"


class Overtaken:
    """A store whose claims somebody gets ahead of, before the claimer hears of them."""

    def __init__(self, store: Any, then: Callable[[str], Awaitable[object]]) -> None:
        self._store = store
        self._then = then

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def claim(self, request: Any) -> Any:
        claims = await self._store.claim(request)
        for claimed in claims.claimed:
            await self._then(claimed.run_id)
        return claims


@pytest.mark.parametrize("by", ["itself", "another process"])
async def test_a_body_whose_worker_learns_of_the_cancel_behind_its_claim_does_not_begin(
    deploy: Deploy, clock: VirtualClock, by: str
) -> None:
    begun: list[str] = []

    class Raced(Workflow[Order]):
        name = "raced"
        by_hand = manual()
        a = step(lambda: begun.append("a"))
        b = log("b")
        transitions = path(a, b)

    async with deploy(Raced) as there:
        canceller = there

        async def cancel(run_id: str) -> None:
            await canceller.cancel_run(run_id)

        store: Any = Overtaken((await there.engine()).store, cancel)
        async with SquidMesh(store=store, workflows=[Raced], clock=clock) as here:
            # A run of others is read behind the claim; its own cancels a process knows anyway.
            run = await (there if by == "another process" else here).start_run(Raced)
            canceller = there if by == "another process" else here
            await here.run_until_idle()
        done = await history(there, run)

    assert begun == []
    assert done.status == "cancelled"
    assert attempt_statuses(done, "a") == ["cancelled"]
    assert step_statuses(done)["b"] == "skipped"


async def test_cancelling_a_run_that_has_failed_and_waits_for_siblings_undoes_nothing_either(
    open_mesh: OpenMesh,
) -> None:
    first, slow = Gate(), Gate()
    undone: list[str] = []

    async def fail_first() -> Errored:
        await first.wait()
        return Errored("no", code="declined")

    class Doomed(Workflow[Order]):
        name = "doomed"
        by_hand = manual()
        early = step(lambda: None, compensate=lambda: undone.append("early"))
        late = step(slow.wait, compensate=lambda: undone.append("late"))
        bad = step(fail_first, output="x", after=early)
        join = log("join", after=(bad, late))

    mesh = await open_mesh(Doomed)
    run = await mesh.start_run(Doomed)
    async with at_work(mesh, first, slow):
        first.opened.set()
        await once(mesh, run, lambda one: step_statuses(one)["bad"] == "failed")
        cancelling = await mesh.cancel_run(run.id)

    done = await history(mesh, run)
    assert (cancelling.status, done.status) == ("cancelling", "cancelled")
    assert undone == []
    assert audit_types(done) == ["cancel_requested"]
    assert (error_of(done)["code"], error_of(done)["step"]) == ("declined", "bad")


class Elsewhere(Workflow[Order]):
    """What the workers of others know."""

    name = "elsewhere"
    by_hand = manual()
    only = log("only")


async def test_any_workers_claim_completes_a_cancel_whatever_it_knows_and_serves(
    deploy: Deploy, clock: VirtualClock
) -> None:
    gate = Gate()

    class Held(Workflow[Order]):
        name = "held"
        by_hand = manual()
        a = step(gate.wait)

    async with deploy(Held) as doomed:
        run = await doomed.start_run(Held, queue="rare")
        await die_at(doomed, gate)
        await doomed.cancel_run(run.id)
    clock.advance(LEASE)

    async with deploy(Elsewhere) as other:
        stuck = await other.inspect_run(run.id)
        worker = Worker(other, queues=("common",))
        working = asyncio.create_task(worker.run())
        done = await once(other, run, lambda one: one.status == "cancelled")
        worker.stop()
        await working

    assert stuck.status == "cancelling"
    assert attempt_statuses(done, "a") == ["lost"]


async def test_a_mesh_with_an_executor_completes_a_cancel_without_being_asked(
    deploy: Deploy, clock: VirtualClock
) -> None:
    gate = Gate()

    class Held(Workflow[Order]):
        name = "held"
        by_hand = manual()
        a = step(gate.wait)

    executor = RecordingExecutor()
    async with deploy(Held) as doomed:
        run = await doomed.start_run(Held)
        await die_at(doomed, gate)
    async with deploy(Held, executor=executor) as other:
        await other.cancel_run(run.id)
        async with asyncio.timeout(PATIENCE):
            while (done := await history(other, run)).status != "cancelled":
                clock.advance(SECOND)
                await turn()

    assert attempt_statuses(done, "a") == ["lost"]
    assert executor.enqueued == []


BAD_REASONS: list[Any] = [
    "",
    "  ",
    7,
    ["because"],
    "half \ud800",
    "a\x00",
    "x" * 20_000,
    "x" * 70_000,
]


@pytest.mark.parametrize("reason", BAD_REASONS, ids=range(len(BAD_REASONS)))
async def test_a_reason_is_a_text_and_a_bad_one_cancels_nothing(
    open_mesh: OpenMesh, reason: Any
) -> None:
    mesh = await open_mesh(Pending)
    run = await mesh.start_run(Pending)
    before = await contents(mesh)

    with pytest.raises(InvalidReviewError) as refused:
        await mesh.cancel_run(run.id, reason=reason)

    assert (refused.value.code, refused.value.field) == ("invalid_review", "reason")
    assert await contents(mesh) == before
