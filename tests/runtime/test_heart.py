"""Leases: they are kept while a body runs, whatever it does, and losing one does no harm."""

import asyncio
import sqlite3
import threading
import time
from datetime import timedelta

import pytest

from squidmesh import (
    ClaimLostError,
    Retry,
    Runner,
    SquidMesh,
    StepContext,
    StoreUnavailableError,
    Worker,
)
from squidmesh.domain.values import Json
from squidmesh.runtime.heart import Heart, _answer_from_thread
from squidmesh.system import SystemClock
from squidmesh.testing.clock import VirtualClock
from tests.runtime.conftest import OpenMesh
from tests.runtime.support import (
    PATIENCE,
    SECOND,
    Door,
    Gate,
    ShakyStore,
    a_moment,
    attempts_of,
    ended,
    error_of,
    history,
    in_a_row,
    only,
    step_of,
    turns,
    until,
)

pytestmark = pytest.mark.anyio

SHORT = timedelta(seconds=2)


async def quick() -> None: ...


async def test_a_long_body_keeps_its_lease_by_heartbeats(
    composed: OpenMesh, clock: VirtualClock
) -> None:
    gate = Gate()
    made = only(gate.wait)
    mesh = await composed(made)
    run = await mesh.start_run(made)
    working = asyncio.create_task(mesh.run_until_idle())
    await gate.reached()

    for _ in range(30):
        clock.advance(20)
        await turns(5)
        assert (await mesh.recover()).reclaimed == 0
    gate.opened.set()
    await working

    assert attempts_of(await history(mesh, run)) == ["completed"]


async def test_a_workers_own_shorter_lease_is_kept_too(
    composed: OpenMesh, clock: VirtualClock
) -> None:
    slow, gate = Gate(), Gate()
    first, made = in_a_row("patient", slow.wait), only(gate.wait)
    mesh = await composed(first, made)
    await mesh.start_run(first)
    patient = asyncio.create_task(mesh.run_until_idle())
    await slow.reached()
    await turns()
    run = await mesh.start_run(made, queue="hurried")
    worker = Worker(mesh, queues=("hurried",), lease=3 * SECOND)
    slow.opened.set()
    patient.cancel()
    await asyncio.gather(patient, return_exceptions=True)
    working = asyncio.create_task(worker.run())
    await gate.reached()

    for _ in range(30):
        clock.advance(1)
        await turns(5)
        assert (await mesh.recover()).reclaimed == 0
    gate.opened.set()
    worker.stop()
    await working

    assert attempts_of(await history(mesh, run)) == ["completed"]


async def test_a_lost_lease_gives_the_attempt_to_another_and_the_late_report_changes_nothing(
    on_file: OpenMesh, clock: VirtualClock
) -> None:
    gate, seen = Gate(), []

    async def body(context: StepContext) -> dict[str, int]:
        seen.append((context.attempt, context.fence, context.idempotency_key))
        if context.attempt == 1:
            await gate.wait()
        return {"by": context.attempt}

    made = only(body)
    slow, other = await on_file(made), await on_file(made)
    run = await slow.start_run(made)
    payload: dict[str, Json] = {
        "kind": "step",
        "run_id": run.id,
        "step": "first",
        "attempt": 1,
    }
    working = asyncio.create_task(Runner(slow).perform(payload))
    await gate.reached()

    clock.advance(61)
    await other.run_until_idle()
    after = await history(other, run)
    gate.opened.set()
    late = await working

    assert (late.status, late.reason) == ("skipped", "stale_attempt")
    assert attempts_of(after) == ["lost", "completed"]
    assert (after.status, after.context) == ("completed", {"by": 2})
    assert await history(slow, run) == after
    (first, second) = seen
    assert first[0] < second[0]
    assert first[1] < second[1]
    assert first[2] == second[2]
    assert step_of(after, "first").deliveries == 1


async def test_a_lost_attempt_counts_against_no_retry_policy(
    composed: OpenMesh, clock: VirtualClock
) -> None:
    gate = Gate()

    async def body(context: StepContext) -> None:
        if context.attempt == 1:
            await gate.wait()
        raise OSError

    made = only(body, retry=Retry(2))
    mesh = await composed(made)
    run = await mesh.start_run(made)
    working = asyncio.create_task(mesh.run_until_idle())
    await gate.reached()
    clock.advance(61)
    await mesh.recover()
    gate.opened.set()

    await working

    run = await history(mesh, run)
    assert attempts_of(run) == ["lost", "failed", "failed"]
    assert error_of(run)["code"] == "step_exception"


async def test_a_body_that_has_lost_its_claim_hears_of_it_with_the_next_beat(
    composed: OpenMesh, clock: VirtualClock
) -> None:
    gate, contexts = Gate(), []

    async def body(context: StepContext) -> None:
        contexts.append(context)
        if context.attempt == 1:
            await gate.wait()

    made = only(body)
    mesh = await composed(made)
    await mesh.start_run(made)
    working = asyncio.create_task(mesh.run_until_idle())
    await gate.reached()

    clock.advance(61)
    await turns()

    assert contexts[0].cancelled
    with pytest.raises(ClaimLostError):
        await contexts[0].heartbeat()
    gate.opened.set()
    await working


async def test_a_body_prolongs_its_lease_itself_if_it_wants_to(
    composed: OpenMesh, clock: VirtualClock
) -> None:
    async def body(context: StepContext) -> None:
        for _ in range(5):
            clock.advance(50)
            await context.heartbeat()

    made = only(body)
    mesh = await composed(made)

    run = await ended(mesh, made)

    assert attempts_of(run) == ["completed"]


async def test_an_attempt_that_is_over_has_no_claim_to_prolong(
    composed: OpenMesh, clock: VirtualClock
) -> None:
    gate, again, problems = Gate(), Gate(), []

    async def stubborn(context: StepContext) -> None:
        try:
            await gate.wait()
        except asyncio.CancelledError:
            await again.wait()
        try:
            await context.heartbeat()
        except ClaimLostError as problem:
            problems.append(problem.code)

    made = only(stubborn, timeout=5 * SECOND)
    mesh = await composed(made)
    await mesh.start_run(made)
    working = asyncio.create_task(mesh.run_until_idle())
    await gate.reached()
    clock.advance(5)
    await working

    again.opened.set()
    await until(lambda: bool(problems))

    assert problems == ["claim_lost"]


# -- cancelling ------------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "plain"])
async def test_a_cancel_of_the_same_process_is_seen_at_once(
    composed: OpenMesh, is_async: bool
) -> None:
    gate, door, contexts = Gate(), Door(), []

    async def body(context: StepContext) -> None:
        contexts.append(context)
        await gate.wait()

    def plain(context: StepContext) -> None:
        contexts.append(context)
        door.wait()

    made = only(body if is_async else plain)
    mesh = await composed(made)
    run = await mesh.start_run(made)
    working = asyncio.create_task(mesh.run_until_idle())
    await (gate.reached() if is_async else door.entered())
    assert not contexts[0].cancelled

    cancelling = await mesh.cancel_run(run.id)

    assert (cancelling.status, contexts[0].cancelled) == ("cancelling", True)
    gate.opened.set()
    door.open()
    await working
    run = await history(mesh, run)
    assert (run.status, attempts_of(run)) == ("cancelled", ["completed"])


async def test_a_cancel_of_another_process_is_seen_with_the_next_beat(
    on_file: OpenMesh, clock: VirtualClock
) -> None:
    gate, contexts = Gate(), []

    async def body(context: StepContext) -> None:
        contexts.append(context)
        await gate.wait()

    made = only(body)
    here, there = await on_file(made), await on_file(made)
    run = await here.start_run(made)
    working = asyncio.create_task(here.run_until_idle())
    await gate.reached()

    await there.cancel_run(run.id)
    before = contexts[0].cancelled
    clock.advance(20)
    await until(lambda: contexts[0].cancelled)

    assert not before
    gate.opened.set()
    await working
    assert (await here.inspect_run(run.id)).status == "cancelled"


async def test_a_cancel_of_another_process_is_seen_by_a_body_that_asks(on_file: OpenMesh) -> None:
    gate, seen = Gate(), []

    async def body(context: StepContext) -> None:
        await gate.wait()
        seen.append(context.cancelled)
        await context.heartbeat()
        seen.append(context.cancelled)

    made = only(body)
    here, there = await on_file(made), await on_file(made)
    run = await here.start_run(made)
    working = asyncio.create_task(here.run_until_idle())
    await gate.reached()
    await there.cancel_run(run.id)

    gate.opened.set()
    await working

    assert seen == [False, True]


async def test_a_cancel_between_a_claim_and_its_body_is_seen_by_the_body(
    composed: OpenMesh, store: ShakyStore
) -> None:
    seen: list[bool] = []
    background: list[asyncio.Task[object]] = []

    async def let_pass() -> None:
        await turns()
        store.passable.set()

    async def cancel_behind_me(context: StepContext) -> None:
        # While a start is under way this report and the cancel wait, and then go out in one
        # commit: report first, then cancel.
        store.passable.clear()
        background.append(asyncio.create_task(mesh.start_run(other)))
        await turns()
        background.append(asyncio.create_task(mesh.cancel_run(context.run_id)))
        background.append(asyncio.create_task(let_pass()))

    async def look(context: StepContext) -> None:
        seen.append(context.cancelled)

    made, other = in_a_row("raced", cancel_behind_me, look), only(quick)
    mesh = await composed(made, other)

    run = await ended(mesh, made)
    await asyncio.gather(*background)

    assert run.status == "cancelled"
    assert seen in ([], [True])


# -- the heart itself ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "problem", [StoreUnavailableError("away"), sqlite3.OperationalError("odd"), ValueError("worse")]
)
async def test_a_beat_that_fails_is_not_the_last(
    composed: OpenMesh, store: ShakyStore, clock: VirtualClock, problem: Exception
) -> None:
    gate = Gate()
    made = only(gate.wait)
    mesh = await composed(made)
    run = await mesh.start_run(made)
    working = asyncio.create_task(mesh.run_until_idle())
    await gate.reached()
    await turns()
    store.problem, store.beats = lambda: problem, 1

    for _ in range(10):
        clock.advance(20)
        await turns(5)
    recovered = await mesh.recover()
    gate.opened.set()
    await working

    assert recovered.reclaimed == 0
    assert attempts_of(await history(mesh, run)) == ["completed"]


@pytest.mark.parametrize("is_virtual", [True, False], ids=["virtual", "real"])
async def test_a_beat_that_a_body_asked_for_may_fail_without_failing_the_body(
    composed: OpenMesh, clock: VirtualClock, is_virtual: bool
) -> None:
    chosen = clock if is_virtual else SystemClock()
    store = ShakyStore(clock=chosen)

    async def body(context: StepContext) -> None:
        store.beats = 1
        await context.heartbeat()
        await context.heartbeat()

    made = only(body)
    mesh = await composed(made, clock=chosen, store=store)

    run = await ended(mesh, made)

    assert run.status == "completed"


@pytest.mark.parametrize("url", ["memory", "file"])
async def test_heartbeats_keep_a_body_alive_although_it_blocks_the_event_loop(
    composed: OpenMesh, on_file: OpenMesh, url: str
) -> None:
    clock = SystemClock()

    async def block() -> None:
        # Exactly what a body must not do, and some will.
        time.sleep(3)  # noqa: ASYNC251, TID251

    made = only(block)
    opened = [
        await on_file(made, clock=clock, lease=SHORT)
        if url == "file"
        else await composed(made, clock=clock, store=ShakyStore(clock=clock), lease=SHORT)
    ]

    run = await ended(opened[0], made)

    assert attempts_of(run) == ["completed"]


async def test_a_thread_that_failed_once_beats_again(composed: OpenMesh) -> None:
    clock, door = SystemClock(), Door()
    store = ShakyStore(clock=clock)
    store.problem = lambda: sqlite3.OperationalError("odd")
    made = only(door.wait)
    mesh = await composed(made, clock=clock, store=store, lease=timedelta(seconds=4))
    run = await mesh.start_run(made)
    working = asyncio.create_task(mesh.run_until_idle())
    await door.entered()
    store.beats = 1

    await until(lambda: not store.beats)
    await until(lambda: any(one.name == "squidmesh-heart" for one in threading.enumerate()))
    beaten = await step_lease(mesh, run.id)
    async with asyncio.timeout(PATIENCE):
        while await step_lease(mesh, run.id) == beaten:
            await a_moment()

    door.open()
    await working
    assert attempts_of(await history(mesh, run)) == ["completed"]


async def step_lease(mesh: SquidMesh, run_id: str) -> object:
    return step_of(await history(mesh, run_id), "first").attempts[0].lease_until


async def test_closing_the_mesh_ends_the_hearts_thread_and_answers_who_waits_for_a_beat() -> None:
    clock = SystemClock()
    store = ShakyStore(clock=clock)
    gate = Gate()
    made = only(gate.wait)

    mesh = SquidMesh(store=store, workflows=[made], clock=clock)
    run = await mesh.start_run(made)
    performing = asyncio.create_task(
        Runner(mesh).perform({"kind": "step", "run_id": run.id, "step": "first", "attempt": 1})
    )
    await gate.reached()
    heart: Heart = (await mesh.engine()).heart
    thread = heart._thread
    assert thread is not None
    performing.cancel()
    await asyncio.gather(performing, return_exceptions=True)

    await mesh.aclose()
    async with asyncio.timeout(PATIENCE):
        assert await heart._next_report() is None

    assert not thread.is_alive()
    assert thread.daemon


async def test_a_report_that_nobody_can_take_is_dropped() -> None:

    loop = asyncio.new_event_loop()
    loop.close()

    _answer_from_thread(loop, lambda report: None, None)
