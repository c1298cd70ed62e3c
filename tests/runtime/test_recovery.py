"""Lost wake-ups, lost workers, and a job system that is away: nothing stays lying about."""

import asyncio
from datetime import datetime, timedelta

import pytest

from squidmesh import (
    RecoveryReport,
    Retry,
    Runner,
    SquidMesh,
    StoreUnavailableError,
    compensation,
    path,
    step,
    wait,
)
from squidmesh.ports.executor import ExecutorCapabilities
from squidmesh.testing.clock import VirtualClock
from squidmesh.testing.executors import RecordingExecutor
from tests.runtime.conftest import OpenMesh
from tests.runtime.support import (
    SECOND,
    Gate,
    Listener,
    ShakyStore,
    attempts_of,
    ended,
    history,
    in_a_row,
    only,
    turns,
    until,
    workflow,
)

pytestmark = pytest.mark.anyio

MINUTE = timedelta(minutes=1)


async def quick() -> None: ...


async def fail() -> None:
    raise OSError("gone")


async def drop(mesh: SquidMesh, gate: Gate) -> None:
    """Claim what is due, get as far as the gate, and never be heard of again."""
    gate.entered.clear()
    working = asyncio.create_task(mesh.run_until_idle())
    await gate.reached()
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)


async def pass_time(clock: VirtualClock, by: timedelta, *, step: timedelta = SECOND) -> None:
    """Let time go by in steps in which the sweep has its turn."""
    left = by
    while left > timedelta(0):
        clock.advance(min(step, left))
        left -= step
        await turns(20)


# -- wake-ups --------------------------------------------------------------------------------


async def test_a_start_is_enqueued_with_all_that_the_host_needs(
    composed: OpenMesh,
) -> None:
    made = only(quick, queue="mail")
    executor = RecordingExecutor()
    mesh = await composed(made, executor=executor)

    run = await mesh.start_run(made)
    await turns()

    (one,) = executor.enqueued
    assert one.payload == {"kind": "step", "run_id": run.id, "step": "first", "attempt": 1}
    assert (one.options.key, one.options.queue, one.options.not_before) == (
        f"{run.id}:first:1",
        "mail",
        None,
    )


async def test_without_an_executor_nothing_is_owed_to_anybody(
    composed: OpenMesh, store: ShakyStore, clock: VirtualClock
) -> None:
    made = only(quick)
    mesh = await composed(made)
    await mesh.start_run(made)

    clock.advance(timedelta(days=1))

    assert await mesh.recover() == RecoveryReport()
    assert await store.owed_wakeups(due_before=None, limit=10) == ()


async def test_an_executor_that_raises_changes_nothing_and_the_sweep_repeats_it(
    composed: OpenMesh, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    made = only(quick)
    executor = RecordingExecutor()
    executor.fail_with(OSError("the queue is away"))
    mesh = await composed(made, executor=executor)

    run = await mesh.start_run(made)
    await turns()
    assert run.status == "pending"
    assert len(executor.refused) == 1
    executor.recover()
    await pass_time(clock, 29 * SECOND)
    assert executor.enqueued == []
    await pass_time(clock, 2 * SECOND)

    assert [one.payload["run_id"] for one in executor.enqueued] == [run.id]
    assert any("wakeup.failed" in one.getMessage() for one in caplog.records)
    (report,) = await executor.deliver(Runner(mesh))
    assert report.status == "performed"


async def test_the_sweep_announces_again_with_growing_pauses(
    composed: OpenMesh, clock: VirtualClock
) -> None:
    made = only(quick)
    executor = RecordingExecutor()
    mesh = await composed(made, executor=executor)
    start = clock.now()
    await mesh.start_run(made)
    await turns()
    seen: list[datetime] = [clock.now()]

    for _ in range(250):
        await pass_time(clock, MINUTE, step=MINUTE)
        seen += [clock.now()] * (len(executor.enqueued) - len(seen))

    minutes = [round((at - start) / MINUTE) for at in seen]
    assert minutes == [0, 1, 2, 4, 8, 16, 32, 64, 124, 184, 244]


async def test_recover_announces_at_once_what_is_due_and_counts_it(
    composed: OpenMesh, clock: VirtualClock
) -> None:
    made = only(quick)
    executor = RecordingExecutor()
    mesh = await composed(made, executor=executor)
    first = await mesh.start_run(made)
    clock.advance(10)
    second = await mesh.start_run(made)
    await turns()
    executor.enqueued.clear()

    older = await mesh.recover(older_than=5 * SECOND)
    everything = await mesh.recover()

    assert (older, everything) == (RecoveryReport(emitted=1), RecoveryReport(emitted=2))
    assert [one.payload["run_id"] for one in executor.enqueued] == [first.id, first.id, second.id]


async def test_recover_counts_only_what_was_taken(composed: OpenMesh) -> None:
    made = only(quick)
    executor = RecordingExecutor()
    mesh = await composed(made, executor=executor)
    await mesh.start_run(made)
    await turns()
    executor.fail_with(OSError("the queue is away"))

    assert await mesh.recover() == RecoveryReport()


async def test_what_is_claimed_or_over_is_not_announced(composed: OpenMesh) -> None:
    gate = Gate()
    made, other = only(gate.wait), in_a_row("other", quick)
    executor = RecordingExecutor()
    mesh = await composed(made, other, executor=executor)
    await ended(mesh, other)
    await mesh.start_run(made)
    working = asyncio.create_task(mesh.run_until_idle())
    await gate.reached()

    report = await mesh.recover()

    assert report == RecoveryReport()
    gate.opened.set()
    await working


# -- delays ----------------------------------------------------------------------------------


def timer(delay: timedelta) -> object:
    first = wait(delay)
    return workflow("timer", first=first, transitions=path(first))


async def test_a_delay_that_the_engine_cannot_hold_is_announced_when_it_is_due(
    composed: OpenMesh, clock: VirtualClock
) -> None:
    made = timer(10 * SECOND)
    executor = RecordingExecutor()
    mesh = await composed(made, executor=executor)
    run = await mesh.start_run(made)  # type: ignore[arg-type]
    await turns()

    await pass_time(clock, 9 * SECOND)
    assert executor.enqueued == []
    await pass_time(clock, 2 * SECOND)

    (one,) = executor.enqueued
    assert one.options.not_before is None
    (report,) = await executor.deliver(Runner(mesh))
    assert report.status == "performed"
    assert (await mesh.inspect_run(run.id)).status == "completed"


@pytest.mark.parametrize("longest", [None, 10 * SECOND, timedelta(days=1)], ids=str)
async def test_a_delay_that_the_engine_holds_is_enqueued_at_once_with_its_time(
    composed: OpenMesh, clock: VirtualClock, longest: timedelta | None
) -> None:
    made = timer(10 * SECOND)
    executor = RecordingExecutor(ExecutorCapabilities(max_delay=longest))
    mesh = await composed(made, executor=executor)
    due = clock.now() + 10 * SECOND
    await mesh.start_run(made)  # type: ignore[arg-type]
    await turns()

    (one,) = executor.enqueued
    assert one.options.not_before == due
    await pass_time(clock, 39 * SECOND)
    assert len(executor.enqueued) == 1
    await pass_time(clock, 2 * SECOND)
    assert len(executor.enqueued) == 2


async def test_a_delay_one_instant_too_long_is_kept_here(
    composed: OpenMesh, clock: VirtualClock
) -> None:
    made = timer(10 * SECOND + timedelta(microseconds=1))
    executor = RecordingExecutor(ExecutorCapabilities(max_delay=10 * SECOND))
    mesh = await composed(made, executor=executor)
    await mesh.start_run(made)  # type: ignore[arg-type]
    await turns()

    assert executor.enqueued == []
    await pass_time(clock, 12 * SECOND)
    assert len(executor.enqueued) == 1


async def test_a_retry_is_announced_when_its_backoff_is_over(
    composed: OpenMesh, clock: VirtualClock
) -> None:
    made = only(fail, retry=Retry(2, backoff_min=10 * SECOND))
    executor = RecordingExecutor()
    mesh = await composed(made, executor=executor)
    run = await mesh.start_run(made)
    await executor.deliver(Runner(mesh))
    await turns()

    await pass_time(clock, 11 * SECOND)

    assert [one.payload["attempt"] for one in executor.enqueued] == [1, 2]
    assert executor.enqueued[1].options.key == f"{run.id}:first:2"


# -- leases ----------------------------------------------------------------------------------


async def test_recover_reclaims_what_expired_and_says_how_much(
    composed: OpenMesh, clock: VirtualClock
) -> None:
    gate = Gate()
    made = only(gate.wait)
    mesh = await composed(made)
    runs = [await mesh.start_run(made) for _ in range(3)]
    await drop(mesh, gate)

    assert await mesh.recover() == RecoveryReport()
    clock.advance(60)
    assert await mesh.recover() == RecoveryReport(reclaimed=3)

    assert [attempts_of(await history(mesh, run)) for run in runs] == [["lost", "scheduled"]] * 3
    assert await mesh.recover() == RecoveryReport()


async def test_recover_announces_what_it_has_reclaimed(
    composed: OpenMesh, clock: VirtualClock
) -> None:
    gate = Gate()
    made = only(gate.wait)
    executor = RecordingExecutor()
    mesh = await composed(made, executor=executor)
    await mesh.start_run(made)
    await drop(mesh, gate)
    executor.enqueued.clear()
    clock.advance(60)

    report = await mesh.recover()
    await turns()

    assert report == RecoveryReport(emitted=1, reclaimed=1)
    assert {one.payload["attempt"] for one in executor.enqueued} == {2}


async def test_a_cancelled_run_whose_worker_died_converges(
    composed: OpenMesh, clock: VirtualClock
) -> None:
    gate = Gate()
    made = only(gate.wait)
    mesh = await composed(made)
    run = await mesh.start_run(made)
    await drop(mesh, gate)
    await mesh.cancel_run(run.id)
    clock.advance(60)

    report = await mesh.recover()

    assert report == RecoveryReport(reclaimed=1, converged=1)
    assert (await mesh.inspect_run(run.id)).status == "cancelled"


async def test_the_sweep_reclaims_without_anybody_asking(
    composed: OpenMesh, clock: VirtualClock
) -> None:
    gate = Gate()
    made = only(gate.wait)
    worker, sweeping = await composed(made), await composed(executor=RecordingExecutor())
    run = await worker.start_run(made)
    await drop(worker, gate)

    await pass_time(clock, 62 * SECOND)

    assert attempts_of(await history(sweeping, run)) == ["lost", "scheduled"]


async def test_a_lost_compensation_is_tried_again(composed: OpenMesh, clock: VirtualClock) -> None:
    gate = Gate()
    first = step(quick, compensate=compensation(gate.wait))
    second = step(fail)
    made = workflow("undone", first=first, second=second, transitions=path(first, second))
    mesh = await composed(made)
    run = await mesh.start_run(made)
    await drop(mesh, gate)
    clock.advance(60)
    gate.opened.set()

    await mesh.run_until_idle()

    run = await history(mesh, run)
    assert run.status == "failed"
    assert attempts_of(run, "compensate:first") == ["lost", "completed"]


# -- the sweep itself ------------------------------------------------------------------------


async def test_of_several_meshes_one_sweeps_at_a_time(
    composed: OpenMesh, clock: VirtualClock
) -> None:
    made = timer(10 * SECOND)
    executors = [RecordingExecutor() for _ in range(3)]
    meshes = [await composed(made, executor=executor) for executor in executors]
    await meshes[0].start_run(made)  # type: ignore[arg-type]

    clock.advance(10)
    await until(lambda: any(one.enqueued for one in executors))
    for _ in range(20):
        clock.advance(1)
        await turns(200)

    assert sum(len(one.enqueued) for one in executors) == 1


async def test_another_mesh_sweeps_when_the_first_is_gone(
    on_file: OpenMesh, clock: VirtualClock
) -> None:
    made = timer(60 * SECOND)
    gone, staying = RecordingExecutor(), RecordingExecutor()
    first = await on_file(made, executor=gone)
    await first.start_run(made)  # type: ignore[arg-type]
    await on_file(made, executor=staying)
    await first.aclose()

    clock.advance(60)
    for _ in range(50):
        clock.advance(1)
        await turns(100)
        if staying.enqueued:
            break

    assert (len(gone.enqueued), len(staying.enqueued)) == (0, 1)


@pytest.mark.parametrize(
    "problem", [StoreUnavailableError("away"), ZeroDivisionError("a driver's own")], ids=repr
)
async def test_a_sweep_that_fails_is_not_the_last_and_says_so_once(
    composed: OpenMesh,
    store: ShakyStore,
    clock: VirtualClock,
    caplog: pytest.LogCaptureFixture,
    problem: Exception,
) -> None:
    made = timer(10 * SECOND)
    executor = RecordingExecutor()
    mesh = await composed(made, executor=executor)
    await mesh.start_run(made)  # type: ignore[arg-type]
    store.problem, store.claims = lambda: problem, 5

    await pass_time(clock, 20 * SECOND)

    assert len(executor.enqueued) == 1
    assert len([one for one in caplog.records if "sweep.failed" in one.getMessage()]) == 1


async def test_a_damaged_run_keeps_no_other_from_being_taken_up(
    composed: OpenMesh, store: ShakyStore, clock: VirtualClock
) -> None:
    gate = Gate()
    made = only(gate.wait)
    mesh = await composed(made)
    damaged, other = await mesh.start_run(made), await mesh.start_run(made)
    await drop(mesh, gate)
    clock.advance(60)
    recovering = await composed(made)
    store.unreadable = {damaged.id}

    report = await recovering.recover()

    assert report.reclaimed == 1
    assert attempts_of(await history(mesh, other)) == ["lost", "scheduled"]


async def test_a_store_that_goes_away_while_recovering_is_the_callers_accident(
    composed: OpenMesh, store: ShakyStore, clock: VirtualClock
) -> None:
    gate = Gate()
    made = only(gate.wait)
    mesh = await composed(made)
    await mesh.start_run(made)
    await drop(mesh, gate)
    clock.advance(60)
    store.before = 1

    with pytest.raises(StoreUnavailableError):
        await mesh.recover()

    assert await mesh.recover() == RecoveryReport(reclaimed=1)


async def test_an_executor_that_answers_nonsense_has_taken_the_wake_up_for_all_we_know(
    composed: OpenMesh,
) -> None:
    class Odd(RecordingExecutor):
        async def enqueue_step(self, payload: object, options: object) -> object:  # type: ignore[override]
            await super().enqueue_step(payload, options)  # type: ignore[arg-type]
            return None

    made = only(quick)
    executor, listener = Odd(), Listener()
    mesh = await composed(made, executor=executor, telemetry=listener)

    run = await mesh.start_run(made)
    reports = await executor.deliver(Runner(mesh))

    assert [one.status for one in reports] == ["performed"]
    assert listener.of("run.dispatched") == []
    assert (await mesh.inspect_run(run.id)).status == "completed"


async def test_closing_waits_for_wake_ups_that_are_on_their_way(clock: VirtualClock) -> None:
    class Slow(RecordingExecutor):
        async def enqueue_step(self, payload: object, options: object) -> object:  # type: ignore[override]
            await turns(20)
            return await super().enqueue_step(payload, options)  # type: ignore[arg-type]

    made = only(quick)
    executor = Slow()
    mesh = SquidMesh(
        store=ShakyStore(clock=clock), workflows=[made], clock=clock, executor=executor
    )
    await mesh.start_run(made)

    await mesh.aclose()

    assert len(executor.enqueued) == 1
