"""Time limits of steps: each attempt has its own, and what comes of one that is over."""

import asyncio
import threading
from datetime import timedelta

import pytest

from squidmesh import (
    Errored,
    Retry,
    Runner,
    SquidMesh,
    StepContext,
    Workflow,
    log,
    manual,
    path,
    step,
)
from squidmesh.testing.clock import VirtualClock
from tests.mesh.support import (
    SECOND,
    Gate,
    OpenMesh,
    Order,
    attempt_statuses,
    context_of,
    error_of,
    history,
    step_of,
    step_statuses,
    turn,
)

pytestmark = pytest.mark.anyio

LIMIT = timedelta(seconds=30)
"""Half of the lease: the clock jumps over heartbeats, and a lease must not run out under it."""


async def until_asleep(clock: VirtualClock, gate: Gate) -> None:
    """Wait until a body stands at *gate*, and all who watch it watch the clock."""
    await gate.entered.wait()
    for _ in range(5):
        await turn()


async def test_each_attempt_has_the_whole_limit_to_itself(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    gates = {1: Gate(), 2: Gate()}

    async def slow(context: StepContext) -> str:
        await gates[context.attempt].wait()
        return f"attempt {context.attempt}"

    class Slow(Workflow[Order]):
        name = "slow"
        by_hand = manual()
        only = step(slow, output="said", timeout=LIMIT, retry=Retry(2, backoff_min=SECOND * 10))

    mesh = await open_mesh(Slow)
    run = await mesh.start_run(Slow)
    first = asyncio.create_task(mesh.run_until_idle())
    await until_asleep(clock, gates[1])
    clock.advance(LIMIT)
    await first
    failed = await history(mesh, run)
    clock.advance(10)
    second = asyncio.create_task(mesh.run_until_idle())
    await until_asleep(clock, gates[2])
    clock.advance(LIMIT - SECOND)
    gates[2].opened.set()
    await second

    done = await history(mesh, run)
    timed_out, latest = step_of(failed, "only").attempts
    assert (failed.status, timed_out.status) == ("retrying", "failed")
    assert timed_out.ended_at == run.started_at + LIMIT
    assert latest.visible_at == run.started_at + LIMIT + SECOND * 10
    assert context_of(done) == {"said": "attempt 2"}
    assert attempt_statuses(done, "only") == ["failed", "completed"]


async def test_without_another_attempt_the_error_route_is_taken_with_the_code_timeout(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    gate = Gate()

    async def slow() -> None:
        await gate.wait()

    class Routed(Workflow[Order]):
        name = "routed"
        by_hand = manual()
        ask = step(slow, timeout=SECOND)
        page = log("paged")
        transitions = (path(ask), path(page), ask.on_error(page))

    mesh = await open_mesh(Routed)
    run = await mesh.start_run(Routed)
    worker = asyncio.create_task(mesh.run_until_idle())
    await until_asleep(clock, gate)
    clock.advance(SECOND)
    await worker

    done = await history(mesh, run)
    assert (done.status, done.error) == ("completed", None)
    assert step_statuses(done) == {"ask": "failed", "page": "completed"}
    assert error_of(step_of(done, "ask"))["code"] == "timeout"


async def test_a_body_that_does_not_heed_its_cancellation_fails_at_its_limit_all_the_same(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    gate, ended = Gate(), asyncio.Event()

    async def stubborn() -> dict[str, int]:
        while not gate.opened.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                continue
        ended.set()
        return {"late": 1}

    class Stubborn(Workflow[Order]):
        name = "stubborn"
        by_hand = manual()
        only = step(stubborn, timeout=SECOND)

    mesh = await open_mesh(Stubborn)
    run = await mesh.start_run(Stubborn)
    worker = asyncio.create_task(mesh.run_until_idle())
    await until_asleep(clock, gate)
    clock.advance(SECOND)
    await worker
    failed = await history(mesh, run)
    gate.opened.set()
    await ended.wait()

    assert (failed.status, error_of(failed)["code"]) == ("failed", "timeout")
    assert await history(mesh, run) == failed


async def test_the_next_attempt_of_a_plain_body_may_overlap_the_abandoned_one(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    loop = asyncio.get_running_loop()
    entered, ended, may_end = asyncio.Event(), asyncio.Event(), threading.Event()

    def slow(context: StepContext) -> str:
        if context.attempt == 1:
            loop.call_soon_threadsafe(entered.set)
            may_end.wait(10)
            loop.call_soon_threadsafe(ended.set)
        return f"attempt {context.attempt}"

    class Slow(Workflow[Order]):
        name = "slow"
        by_hand = manual()
        only = step(slow, output="said", timeout=SECOND, retry=Retry(2))

    mesh = await open_mesh(Slow)
    run = await mesh.start_run(Slow)
    worker = asyncio.create_task(mesh.run_until_idle())
    await entered.wait()
    clock.advance(SECOND)
    await worker
    done = await history(mesh, run)
    may_end.set()
    await ended.wait()

    assert (done.status, context_of(done)) == ("completed", {"said": "attempt 2"})
    assert attempt_statuses(done, "only") == ["failed", "completed"]
    assert await history(mesh, run) == done


async def test_a_limit_longer_than_the_lease_is_held_by_heartbeats(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    gate = Gate()

    async def slow() -> None:
        await gate.wait()

    class Slow(Workflow[Order]):
        name = "slow"
        by_hand = manual()
        only = step(slow, timeout=timedelta(minutes=5))

    mesh = await open_mesh(Slow)
    run = await mesh.start_run(Slow)
    worker = asyncio.create_task(mesh.run_until_idle())
    await until_asleep(clock, gate)
    while clock.now() < run.started_at + timedelta(minutes=5):
        clock.advance(20)
        for _ in range(5):
            await turn()
    await worker

    failed = await history(mesh, run)
    assert attempt_statuses(failed, "only") == ["failed"]
    assert error_of(failed)["code"] == "timeout"


async def test_a_delivered_attempt_has_its_limit_too(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    gate = Gate()

    async def slow() -> None:
        await gate.wait()

    class Slow(Workflow[Order]):
        name = "slow"
        by_hand = manual()
        only = step(slow, timeout=SECOND)

    mesh = await open_mesh(Slow)
    run = await mesh.start_run(Slow)
    delivery = asyncio.create_task(deliver(mesh, run.id))
    await until_asleep(clock, gate)
    clock.advance(SECOND)

    assert await delivery == "performed"
    assert error_of(await mesh.inspect_run(run.id))["code"] == "timeout"


async def deliver(mesh: SquidMesh, run_id: str) -> str:
    report = await Runner(mesh).perform(
        {"kind": "step", "run_id": run_id, "step": "only", "attempt": 1}
    )
    return report.status


async def test_an_error_that_a_body_reports_within_its_limit_is_its_own(
    open_mesh: OpenMesh,
) -> None:
    class Quick(Workflow[Order]):
        name = "quick"
        by_hand = manual()
        only = step(lambda: Errored("no", code="declined"), output="x", timeout=SECOND)

    mesh = await open_mesh(Quick)
    run = await mesh.start_run(Quick)
    await mesh.run_until_idle()

    assert error_of(await mesh.inspect_run(run.id))["code"] == "declined"
