"""What a worker must survive, and must not do while it does.

Found by reading the runtime as a stranger: an unreadable run kept every worker spinning, a worker
on a closed mesh waited for ever, threads outlived their meshes, and one hiccup of the store hid
what had been claimed for the length of a lease.
"""

import asyncio
import sqlite3
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from squidmesh import ClaimLostError, SquidMesh, StoreUnavailableError, Worker, step
from squidmesh.adapters.memory import MemoryStore
from squidmesh.domain.entries import AttemptId
from squidmesh.ports.store import ClaimRequest, ClaimTicket, HeldClaim
from squidmesh.runtime.claims import context_of, held_from
from squidmesh.runtime.heart import Heart
from squidmesh.system import SystemClock
from squidmesh.testing.clock import VirtualClock
from squidmesh.testing.executors import RecordingExecutor
from tests.runtime.conftest import OpenMesh
from tests.runtime.support import (
    LEASE,
    PATIENCE,
    Gate,
    Order,
    ShakyStore,
    attempts_of,
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


def url_of(scheme: str, folder: Path) -> str:
    return "memory://" if scheme == "memory" else f"sqlite:///{folder / 'mesh.db'}"


async def claim_and_vanish(mesh: SquidMesh, lease: timedelta = MINUTE) -> None:
    """Claim what is due first, as a worker does that dies at once."""
    engine = await mesh.engine()
    await engine.store.claim(
        ClaimRequest(
            owner="nobody",
            queues=None,
            definitions=tuple(await engine.registry.runnable()),
            tickets=(ClaimTicket(claim_id="lost", token_hash="lost"),),
            lease=lease,
        )
    )


async def test_an_expired_claim_of_an_unreadable_run_keeps_no_worker_busy(
    composed: OpenMesh, store: ShakyStore, clock: VirtualClock
) -> None:
    made = only(quick)
    mesh, other = await composed(made), await composed(made)
    run = await other.start_run(made)
    await claim_and_vanish(other)
    store.unreadable = {run.id}
    clock.advance(61)
    worker = Worker(mesh)
    working = asyncio.create_task(worker.run())
    await until(lambda: len(store.requests) > 1)
    await turns(500)
    asked = len(store.requests)
    worker.stop()
    await working

    await mesh.run_until_idle(timeout=timedelta(seconds=PATIENCE))

    assert asked < 10


async def test_a_run_that_can_be_read_again_is_taken_up_by_the_worker_that_could_not(
    composed: OpenMesh, store: ShakyStore, clock: VirtualClock
) -> None:
    made = only(quick)
    mesh, other = await composed(made), await composed(made)
    run = await other.start_run(made)
    await claim_and_vanish(other)
    store.unreadable = {run.id}
    clock.advance(61)
    worker = Worker(mesh)
    working = asyncio.create_task(worker.run())
    await until(lambda: len(store.requests) > 1)

    store.unreadable = ()
    for _ in range(20):
        clock.advance(0.5)
        await turns()
    worker.stop()
    await working

    assert attempts_of(await history(mesh, run)) == ["lost", "completed"]


async def test_what_a_worker_has_claimed_is_done_though_loading_it_fails_at_first(
    composed: OpenMesh, store: ShakyStore, clock: VirtualClock
) -> None:
    made = only(quick)
    mesh, other = await composed(made), await composed(made)
    run = await other.start_run(made)
    store.loads = 2
    worker = Worker(mesh)
    working = asyncio.create_task(worker.run())

    for _ in range(5):
        clock.advance(0.1)
        await turns()
    worker.stop()
    await working

    assert attempts_of(await history(mesh, run)) == ["completed"]


@pytest.mark.parametrize("scheme", ["memory", "sqlite"])
async def test_a_worker_that_holds_a_step_ends_when_it_is_stopped_though_its_mesh_is_closed(
    scheme: str, tmp_path: Path
) -> None:
    gate = Gate()
    made = only(gate.wait)
    mesh = SquidMesh.open(url_of(scheme, tmp_path), workflows=[made])
    await mesh.start_run(made)
    worker = Worker(mesh)
    working = asyncio.create_task(worker.run())
    await gate.reached()

    await mesh.aclose()
    worker.stop()
    gate.opened.set()

    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(working, return_exceptions=True)


@pytest.mark.parametrize("scheme", ["memory", "sqlite"])
async def test_an_idle_worker_on_a_closed_mesh_says_so_and_ends(
    scheme: str, tmp_path: Path
) -> None:
    made = only(quick)
    mesh = SquidMesh.open(url_of(scheme, tmp_path), workflows=[made])
    await mesh.start_run(made)
    working = asyncio.create_task(Worker(mesh).run())
    while (await mesh.list_runs(status="completed")).runs == ():
        await turns(1)

    await mesh.aclose()

    async with asyncio.timeout(PATIENCE):
        with pytest.raises(StoreUnavailableError, match="closed"):
            await working


async def test_a_closed_mesh_leaves_no_thread_behind() -> None:
    def plain() -> None: ...

    made = only(plain)
    before = set(threading.enumerate())

    async with SquidMesh.open("memory://", workflows=[made]) as mesh:
        await mesh.start_runs(made, [Order()] * 5)
        await mesh.run_until_idle()
        started = set(threading.enumerate()) - before

    assert started
    for thread in started:
        thread.join(PATIENCE)
        assert not thread.is_alive()


async def test_a_stuck_body_takes_a_slot_of_its_own_worker_and_of_no_other(
    composed: OpenMesh, clock: VirtualClock
) -> None:
    stuck = threading.Event()
    slow = workflow(
        "slow",
        first=step(lambda: stuck.wait(PATIENCE), timeout=timedelta(seconds=1), queue="slow"),
    )
    fast = workflow("fast", first=step(quick, queue="fast"))
    mesh = await composed(slow, fast)
    engine = await mesh.engine()
    workers = [Worker(mesh, queues=(queue,), concurrency=1) for queue in ("slow", "fast")]
    working = [asyncio.create_task(worker.run()) for worker in workers]
    await mesh.start_run(slow)
    await until(lambda: "squidmesh-body" in {thread.name for thread in threading.enumerate()})
    await turns()
    clock.advance(2)
    await until(lambda: bool(engine.bodies.leftovers))

    run = await mesh.start_run(fast)
    for _ in range(10):
        clock.advance(0.5)
        await turns()
    done = await mesh.inspect_run(run.id)
    stuck.set()
    for worker in workers:
        worker.stop()
    await asyncio.gather(*working)

    assert done.status == "completed"


async def test_a_heart_that_got_no_thread_at_first_beats_for_the_next_claim() -> None:
    made = only(quick)
    clock = SystemClock()
    store = MemoryStore(clock=clock)
    async with SquidMesh(store=store, workflows=[made], clock=clock) as mesh:
        run = await mesh.start_run(made)
        await claim_and_vanish(mesh)
        state = (await store.load([run.id])).states[run.id]
    (row,) = (await store.read(run.id))[1:]
    heart = Heart(store, clock, LEASE)
    context = context_of(held_from(state, row.entries[0]), heart)  # type: ignore[arg-type]
    wrong = HeldClaim(
        run_id=run.id, attempt=AttemptId("first", 1), claim_id="x", token_hash="x", lease=LEASE
    )
    size = threading.stack_size(2**47 - 2**12)  # no machine has that much
    try:
        with pytest.raises(RuntimeError):
            heart.hold(wrong, context)
    finally:
        threading.stack_size(size)

    heart.hold(wrong, context)

    async with asyncio.timeout(PATIENCE):
        with pytest.raises(ClaimLostError):
            await heart.beat_now(wrong)
        await heart.close()


async def test_a_job_system_that_takes_its_time_does_not_keep_the_sweep_from_going_on(
    composed: OpenMesh, clock: VirtualClock
) -> None:
    told: list[str] = []

    class Slow(RecordingExecutor):
        async def enqueue_step(self, payload: object, options: object) -> dict[str, None]:
            told.append(str(payload))
            clock.advance(3)
            return {}

    made = only(quick)
    mesh = await composed(made)
    await mesh.start_runs(made, [Order()] * 10)
    engine = await mesh.engine()
    engine.dispatcher.executor = Slow()
    owed = await engine.store.owed_wakeups(due_before=clock.now(), limit=100)

    emitted = await engine.dispatcher.emit(owed, within=5)

    assert (emitted, len(told), len(owed)) == (2, 2, 10)


async def test_a_definition_that_is_no_json_stands_in_nobody_elses_way(
    on_file: OpenMesh, tmp_path: Path
) -> None:
    old, new = in_a_row("changed", quick), in_a_row("changed", quick, quick)
    bad = await (await on_file(old)).start_run(old)
    damage = sqlite3.connect(tmp_path / "mesh.db")
    with damage:
        damage.execute("update squidmesh_definitions set document = '{'")
    damage.close()
    mesh = await on_file(new)

    refused, run = await asyncio.gather(
        mesh.cancel_run(bad.id), mesh.start_run(new), return_exceptions=True
    )
    await mesh.run_until_idle()

    assert getattr(refused, "code", None) == "journal_corrupt"
    assert (await mesh.inspect_run(run.id)).status == "completed"  # type: ignore[union-attr]
