"""The embedded executor: who claims what, how many at once, and how it ends."""

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from squidmesh import (
    InvalidOptionError,
    Retry,
    StepContext,
    StoreUnavailableError,
    Worker,
    path,
    step,
    wait,
)
from squidmesh.domain.commands import Failed, Succeeded
from squidmesh.domain.entries import ErrorRecord
from squidmesh.errors import JournalCorruptError
from squidmesh.ports.clock import Clock
from squidmesh.ports.store import StoredDefinition
from squidmesh.runtime.worker import LONGEST_POLL, WorkerLoop
from squidmesh.system import SystemClock
from squidmesh.testing.clock import VirtualClock
from tests.runtime.conftest import OpenMesh
from tests.runtime.support import (
    PATIENCE,
    SECOND,
    Door,
    Gate,
    ShakyStore,
    attempts_of,
    ended,
    error_of,
    history,
    in_a_row,
    only,
    step_of,
    turns,
    until,
    workflow,
)

pytestmark = pytest.mark.anyio

DEADLINE = timedelta(seconds=PATIENCE)


def fine() -> None: ...


async def quick() -> None: ...


# -- run_until_idle --------------------------------------------------------------------------


async def test_with_nothing_to_do_it_returns(composed: OpenMesh) -> None:
    mesh = await composed(only(fine))

    await mesh.run_until_idle(timeout=SECOND)


@pytest.mark.parametrize("delay", [timedelta(milliseconds=1), SECOND, timedelta(days=400)], ids=str)
async def test_it_returns_while_timers_are_pending(
    composed: OpenMesh, clock: VirtualClock, delay: timedelta
) -> None:
    first, second = step(quick), wait(delay)
    made = workflow("timer", first=first, second=second, transitions=path(first, second))
    mesh = await composed(made)

    run = await ended(mesh, made)

    assert run.status == "running"
    assert attempts_of(run, "second") == ["scheduled"]
    clock.advance(delay)
    await mesh.run_until_idle()
    assert (await mesh.inspect_run(run.id)).status == "completed"


async def test_it_gives_up_when_its_time_is_over_and_the_lease_decides(
    composed: OpenMesh, clock: VirtualClock
) -> None:
    gate = Gate()
    made = only(gate.wait)
    mesh = await composed(made)
    run = await mesh.start_run(made)

    with pytest.raises(TimeoutError):
        await mesh.run_until_idle(timeout=timedelta(milliseconds=20))

    assert attempts_of(await history(mesh, run)) == ["claimed"]
    gate.opened.set()
    clock.advance(61)
    await mesh.run_until_idle()
    assert attempts_of(await history(mesh, run)) == ["lost", "completed"]


async def test_what_a_body_starts_is_worked_on_too(composed: OpenMesh) -> None:
    started: list[str] = []
    child = in_a_row("child", quick, fine)

    async def start_another(number: str) -> None:
        run = await mesh.start_run(child, {"number": number})
        started.append(run.id)

    made = only(start_another)
    mesh = await composed(made, child)

    await ended(mesh, made)

    assert [(await mesh.inspect_run(run_id)).status for run_id in started] == ["completed"]


async def test_a_fan_out_of_500_is_joined(composed: OpenMesh) -> None:
    calls: Counter[str] = Counter()

    async def count(context: StepContext) -> None:
        calls[context.step] += 1

    root = step(count)
    leaves: dict[str, Any] = {f"leaf_{one}": step(count, after=(root,)) for one in range(500)}
    last = step(count, after=tuple(leaves.values()))
    made = workflow("wide", root=root, **leaves, last=last)
    mesh = await composed(made)

    run = await ended(mesh, made)

    assert run.status == "completed"
    assert len(calls) == 502
    assert set(calls.values()) == {1}


async def test_a_timer_that_comes_due_while_something_runs_is_worked_on(
    composed: OpenMesh, clock: VirtualClock
) -> None:
    gate = Gate()

    async def wait_for_the_other() -> None:
        await gate.wait()

    async def open_it() -> None:
        gate.opened.set()

    waiting = only(wait_for_the_other)
    timer, opener = wait(SECOND), step(open_it)
    timed = workflow("timed", timer=timer, opener=opener, transitions=path(timer, opener))
    mesh = await composed(waiting, timed)
    runs = [await mesh.start_run(waiting), await mesh.start_run(timed)]
    working = asyncio.create_task(mesh.run_until_idle(timeout=DEADLINE))
    await gate.reached()
    await turns()

    clock.advance(1)
    await working

    assert {(await mesh.inspect_run(run.id)).status for run in runs} == {"completed"}


async def test_it_takes_every_queue(composed: OpenMesh) -> None:
    first, second = step(quick), step(quick, queue="of-the-step")
    made = workflow("queued", first=first, second=second, transitions=path(first, second))
    mesh = await composed(made)

    run = await ended(mesh, made, queue="of-the-run")

    assert run.status == "completed"


async def test_an_accident_of_the_store_is_its_callers(
    composed: OpenMesh, store: ShakyStore
) -> None:
    mesh = await composed(only(fine))
    store.claims = 1

    with pytest.raises(StoreUnavailableError):
        await mesh.run_until_idle()

    await mesh.run_until_idle()


async def test_under_the_real_clock_a_retry_within_an_instant_is_waited_for(
    composed: OpenMesh,
) -> None:
    clock = SystemClock()

    def second_time_lucky(context: StepContext) -> None:
        if context.attempt == 1:
            raise OSError

    made = only(second_time_lucky, retry=Retry(2, backoff_min=timedelta(milliseconds=5)))
    mesh = await composed(made, clock=clock, store=ShakyStore(clock=clock))

    run = await ended(mesh, made)

    assert run.status == "completed"


# -- Worker ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"queues": ()}, "queues"),
        ({"queues": "default"}, "queues"),
        ({"queues": ("",)}, "queues"),
        ({"queues": (7,)}, "queues"),
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": True}, "concurrency"),
        ({"concurrency": 1.5}, "concurrency"),
        ({"lease": timedelta(0)}, "lease"),
        ({"lease": 60}, "lease"),
    ],
    ids=repr,
)
async def test_a_worker_checks_its_options(
    composed: OpenMesh, options: dict[str, Any], option: str
) -> None:
    mesh = await composed()

    with pytest.raises(InvalidOptionError) as caught:
        Worker(mesh, **options)

    assert caught.value.option == option


async def test_a_worker_that_is_stopped_reports_what_it_holds_and_claims_nothing_more(
    composed: OpenMesh,
) -> None:
    gate = Gate()
    made = in_a_row("two", gate.wait, fine)
    mesh = await composed(made)
    run, later = await mesh.start_run(made), None
    worker = Worker(mesh, concurrency=1)
    working = asyncio.create_task(worker.run())
    await gate.reached()

    worker.stop()
    later = await mesh.start_run(made)
    await turns()
    assert not working.done()
    gate.opened.set()
    await working

    run = await history(mesh, run)
    assert (attempts_of(run), attempts_of(run, "second")) == (["completed"], ["scheduled"])
    assert attempts_of(await history(mesh, later)) == ["scheduled"]


async def test_a_worker_that_is_stopped_before_it_runs_does_nothing(composed: OpenMesh) -> None:
    made = only(fine)
    mesh = await composed(made)
    run = await mesh.start_run(made)
    worker = Worker(mesh)

    worker.stop()
    await worker.run()

    assert (await mesh.inspect_run(run.id)).status == "pending"


async def test_a_worker_that_is_cancelled_drops_what_it_holds_for_others(
    composed: OpenMesh, clock: VirtualClock
) -> None:
    gate, ends = Gate(), []

    async def hold(context: StepContext) -> None:
        try:
            await gate.wait()
        finally:
            ends.append(context.attempt)

    made = only(hold)
    mesh = await composed(made)
    run = await mesh.start_run(made)
    working = asyncio.create_task(Worker(mesh).run())
    await gate.reached()

    working.cancel()
    await asyncio.gather(working, return_exceptions=True)

    assert working.cancelled()
    assert ends == [1]
    assert attempts_of(await history(mesh, run)) == ["claimed"]
    gate.opened.set()
    clock.advance(61)
    await mesh.run_until_idle()
    run = await history(mesh, run)
    assert (run.status, attempts_of(run)) == ("completed", ["lost", "completed"])


async def test_a_body_that_swallows_the_workers_cancellation_is_its_last(
    composed: OpenMesh,
) -> None:
    gate = Gate()

    async def stubborn() -> None:
        try:
            await gate.wait()
        except asyncio.CancelledError:
            return

    made = in_a_row("stubborn", stubborn, fine, fine)
    mesh = await composed(made)
    run = await mesh.start_run(made)
    working = asyncio.create_task(Worker(mesh).run())
    await gate.reached()

    working.cancel()
    await asyncio.gather(working, return_exceptions=True)

    run = await history(mesh, run)
    assert attempts_of(run, "second") in ([], ["scheduled"])


async def test_a_body_that_never_ends_does_not_keep_a_cancelled_worker(
    composed: OpenMesh, clock: VirtualClock
) -> None:
    gate, end = Gate(), asyncio.Event()

    async def deaf() -> None:
        while not end.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                await end.wait()

    made = only(deaf)
    mesh = await composed(made)
    run = await mesh.start_run(made)
    working = asyncio.create_task(Worker(mesh).run())
    await gate.reached()

    working.cancel()
    await turns()
    clock.advance(61)
    await until(working.done)

    await mesh.recover()
    assert attempts_of(await history(mesh, run)) == ["lost", "scheduled"]
    end.set()
    await turns()


async def test_a_plain_body_of_a_cancelled_worker_is_told(composed: OpenMesh) -> None:
    door, contexts = Door(), []

    def hold(context: StepContext) -> None:
        contexts.append(context)
        door.wait()

    made = only(hold)
    mesh = await composed(made)
    await mesh.start_run(made)
    working = asyncio.create_task(Worker(mesh).run())
    await door.entered()

    working.cancel()
    await asyncio.gather(working, return_exceptions=True)

    assert contexts[0].cancelled
    door.open()


async def test_a_worker_serves_only_its_queues(composed: OpenMesh, clock: VirtualClock) -> None:
    first, second, third = step(fine), step(fine, queue="mail"), step(fine)
    made = workflow(
        "queued", first=first, second=second, third=third, transitions=path(first, second, third)
    )
    mesh = await composed(made)
    run = await mesh.start_run(made, queue="orders")
    other = await mesh.start_run(made)
    seen: list[list[str]] = []

    for queues in (("orders",), ("nobody's",), ("mail",), ("default", "orders")):
        worker = Worker(mesh, queues=queues)
        working = asyncio.create_task(worker.run())
        await until(lambda: clock.sleepers > 0)
        await turns(200)
        await asyncio.to_thread(lambda: None)
        await turns(200)
        worker.stop()
        await working
        known = await history(mesh, run)
        assert known.steps is not None
        seen.append([one.status for one in known.steps])

    assert seen == [
        ["completed", "scheduled", "waiting"],
        ["completed", "scheduled", "waiting"],
        ["completed", "completed", "scheduled"],
        ["completed", "completed", "completed"],
    ]
    assert step_of(await history(mesh, other), "second").status == "scheduled"


async def test_a_worker_never_claims_what_it_does_not_know(composed: OpenMesh) -> None:
    here, there = only(fine), in_a_row("another", quick)
    knows, knows_not = await composed(here, there), await composed(there)
    run, other = await knows.start_run(here), await knows.start_run(there)

    await knows_not.run_until_idle()

    assert (await knows.inspect_run(run.id)).status == "pending"
    assert (await knows.inspect_run(other.id)).status == "completed"


async def test_a_definition_that_cannot_be_read_keeps_no_worker_from_the_others(
    composed: OpenMesh, store: ShakyStore
) -> None:
    made = only(fine)
    mesh = await composed(made)
    run = await mesh.start_run(made)
    store._tables.definitions["of the future"] = StoredDefinition(
        fingerprint="of the future", workflow="only", version=None, document='{"format": 99}'
    )

    await mesh.run_until_idle()

    assert (await mesh.inspect_run(run.id)).status == "completed"


async def test_a_run_that_cannot_be_read_keeps_no_worker_from_the_others(
    composed: OpenMesh, store: ShakyStore
) -> None:
    made = only(fine)
    first, second = await composed(made), await composed(made)
    broken, run = await first.start_run(made), await first.start_run(made)
    store.unreadable = {broken.id}

    await second.run_until_idle()

    assert (await first.inspect_run(run.id)).status == "completed"


async def test_workflows_that_are_alike_run_their_own_bodies(composed: OpenMesh) -> None:
    def told(name: str) -> Any:
        def tell() -> str:
            return name

        return tell

    one, other = only(told("one"), output="said"), in_a_row("other", told("other"), output="said")
    mesh = await composed(one, other)

    runs = [await ended(mesh, made) for made in (one, other)]

    assert [run.context for run in runs] == [{"said": "one"}, {"said": "other"}]


async def test_higher_priorities_go_first(composed: OpenMesh) -> None:
    order: list[str] = []

    async def note(number: str) -> None:
        order.append(number)

    made = only(note)
    mesh = await composed(made)
    for number, priority in (("low", -5), ("normal", 0), ("high", 9), ("higher", 10)):
        await mesh.start_run(made, {"number": number}, priority=priority)

    worker = Worker(mesh, concurrency=1)
    working = asyncio.create_task(worker.run())
    await until(lambda: len(order) == 4)
    worker.stop()
    await working

    assert order == ["higher", "high", "normal", "low"]


class Crowd:
    """Counts how many bodies run at once."""

    def __init__(self) -> None:
        self.now = self.most = 0

    async def join(self) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        await turns(5)
        self.now -= 1


@pytest.mark.parametrize("concurrency", [1, 2, 3, 5])
async def test_no_more_bodies_run_at_once_than_the_worker_was_told(
    composed: OpenMesh, concurrency: int
) -> None:
    crowd = Crowd()
    root, other = step(crowd.join), step(crowd.join)
    leaves: dict[str, Any] = {f"of_root_{one}": step(crowd.join, after=(root,)) for one in range(8)}
    more: dict[str, Any] = {f"of_other_{one}": step(crowd.join, after=(other,)) for one in range(8)}
    made = workflow("crowd", root=root, other=other, **leaves, **more)
    mesh = await composed(made)
    runs = [await mesh.start_run(made) for _ in range(3)]
    worker = Worker(mesh, concurrency=concurrency)

    working = asyncio.create_task(worker.run())
    clock = (await mesh.engine()).clock
    assert isinstance(clock, VirtualClock)
    for run in runs:
        async with asyncio.timeout(PATIENCE):
            while (await mesh.inspect_run(run.id)).status != "completed":
                clock.advance(0.02)
                await turns(5)
    worker.stop()
    await working

    assert crowd.most == concurrency


async def test_a_timed_out_plain_body_keeps_its_slot_until_it_ends(
    composed: OpenMesh, clock: VirtualClock
) -> None:
    door, calls = Door(), []

    def stuck(number: str) -> None:
        calls.append(number)
        if number == "first":
            door.wait()

    made = only(stuck, timeout=5 * SECOND)
    mesh = await composed(made)
    first = await mesh.start_run(made, {"number": "first"})
    second = await mesh.start_run(made, {"number": "second"})
    worker = Worker(mesh, concurrency=1)
    working = asyncio.create_task(worker.run())
    await door.entered()

    clock.advance(5)
    await turns(200)
    assert (await mesh.inspect_run(first.id)).status == "failed"
    for _ in range(20):
        clock.advance(LONGEST_POLL)
        await turns()
    assert calls == ["first"]
    door.open()
    engine = await mesh.engine()
    await until(lambda: not engine.bodies.leftovers)
    async with asyncio.timeout(PATIENCE):
        while calls != ["first", "second"]:
            clock.advance(LONGEST_POLL)
            await turns()
    worker.stop()
    await working
    assert (await mesh.inspect_run(second.id)).ended_at is not None


async def test_an_idle_worker_asks_seldom_also_after_it_was_woken(
    composed: OpenMesh, store: ShakyStore, clock: VirtualClock
) -> None:
    made = only(quick)
    mesh = await composed(made)
    worker = Worker(mesh)
    working = asyncio.create_task(worker.run())
    await until(lambda: clock.sleepers > 0)
    for _ in range(10):
        clock.advance(LONGEST_POLL)
        await turns()
    run = await mesh.start_run(made)
    await turns(200)
    assert (await mesh.inspect_run(run.id)).status == "completed"

    before = len(store.requests)
    await turns(2000)
    assert len(store.requests) - before == 0
    for _ in range(20):
        clock.advance(LONGEST_POLL)
        await turns()
    assert len(store.requests) - before <= 20
    worker.stop()
    await working


async def test_a_worker_with_all_hands_full_does_not_ask_all_the_time(
    composed: OpenMesh, store: ShakyStore, clock: VirtualClock
) -> None:
    gate = Gate()
    made = only(gate.wait)
    mesh = await composed(made)
    await mesh.start_run(made)
    worker = Worker(mesh, concurrency=1)
    working = asyncio.create_task(worker.run())
    await gate.reached()
    await mesh.start_run(made)  # wakes it, and there is a backlog from now on
    await turns(200)

    before = len(store.requests)
    for _ in range(1000):
        clock.advance(0.001)
        await turns(5)

    assert len(store.requests) - before <= 10
    gate.opened.set()
    worker.stop()
    await working


async def test_a_worker_with_all_hands_full_is_still_seen(
    composed: OpenMesh, clock: VirtualClock
) -> None:
    gate = Gate()
    made = only(gate.wait)
    mesh, asking = await composed(made), await composed()
    await mesh.start_run(made)
    waiting = await mesh.start_run(made)
    worker = Worker(mesh, concurrency=1)
    working = asyncio.create_task(worker.run())
    await gate.reached()

    for _ in range(600):
        clock.advance(0.5)
        await turns(10)

    assert (await asking.explain_run(waiting.id)).reason == "pending_dispatch"
    gate.opened.set()
    worker.stop()
    await working


async def test_a_worker_outlives_a_store_that_is_away_and_says_so_once(
    composed: OpenMesh,
    store: ShakyStore,
    clock: VirtualClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = only(fine)
    mesh = await composed(made)
    store.claims = 5
    worker = Worker(mesh)
    working = asyncio.create_task(worker.run())
    run = await mesh.start_run(made)

    async with asyncio.timeout(PATIENCE):
        while (await mesh.inspect_run(run.id)).status != "completed":
            clock.advance(1)
            await turns()
    worker.stop()
    await working

    lines = [one for one in caplog.records if "claim.failed" in one.getMessage()]
    assert len(lines) == 1


async def test_a_worker_is_stopped_at_once_although_the_store_is_away(
    composed: OpenMesh, store: ShakyStore
) -> None:
    mesh = await composed(only(fine))
    store.claims = 1_000_000
    worker = Worker(mesh)
    working = asyncio.create_task(worker.run())
    await until(lambda: bool(store.requests))

    worker.stop()
    await until(working.done)


async def test_a_claim_whose_answer_was_lost_is_hidden_for_a_lease_and_no_longer(
    composed: OpenMesh, store: ShakyStore, clock: VirtualClock
) -> None:
    calls: list[int] = []
    made = only(lambda context: calls.append(context.attempt))
    mesh, other = await composed(made), await composed(made)
    run = await other.start_run(made)

    store.loads = 1  # the claim happens; what it claimed cannot be loaded
    with pytest.raises(StoreUnavailableError):
        await mesh.run_until_idle()
    await mesh.run_until_idle()
    assert calls == []
    clock.advance(61)
    await mesh.run_until_idle()

    assert calls == [2]
    assert attempts_of(await history(mesh, run)) == ["lost", "completed"]


async def test_two_workers_on_one_file_share_200_runs_and_no_body_runs_twice(
    on_file: OpenMesh,
) -> None:
    clock: Clock = SystemClock()
    calls: Counter[str] = Counter()
    owners: list[str] = []

    async def note(context: StepContext) -> None:
        calls[context.runnable_key] += 1

    made = in_a_row("shared", note, note)
    meshes = [await on_file(made, clock=clock) for _ in range(2)]
    ids = await meshes[0].start_runs(made, [{"number": str(one)} for one in range(200)])

    workers = [Worker(mesh, concurrency=8) for mesh in meshes]
    working = [asyncio.create_task(worker.run()) for worker in workers]
    await until(lambda: len(calls) == 400)
    for worker in workers:
        worker.stop()
    await asyncio.gather(*working)

    assert set(calls.values()) == {1}
    runs = [await history(meshes[0], run_id) for run_id in ids]
    assert {run.status for run in runs} == {"completed"}
    for run in runs:
        assert run.attempts is not None
        owners += [str(attempt.owner) for attempt in run.attempts]
    assert len(set(owners)) == 2


async def test_a_defect_behind_a_body_abandons_the_attempt_and_not_the_worker(
    composed: OpenMesh, store: ShakyStore, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    made = only(quick)
    mesh = await composed(made)
    run, other = await mesh.start_run(made), None
    store.problem = lambda: JournalCorruptError(run.id, "by a test")
    store.before = 2

    await mesh.run_until_idle()
    other = await ended(mesh, made)
    clock.advance(61)
    await mesh.run_until_idle()

    assert any("attempt.abandoned" in one.getMessage() for one in caplog.records)
    assert other.status == "completed"
    assert attempts_of(await history(mesh, run)) == ["lost", "completed"]


async def test_a_step_that_keeps_losing_its_worker_is_poisoned(
    composed: OpenMesh, clock: VirtualClock
) -> None:
    gate = Gate()
    made = only(gate.wait, retry=Retry(10))
    mesh = await composed(made, max_deliveries=3)
    run = await mesh.start_run(made)

    for _ in range(3):
        gate.entered.clear()
        working = asyncio.create_task(mesh.run_until_idle())
        await gate.reached()
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        clock.advance(61)
    await mesh.run_until_idle()

    run = await history(mesh, run)
    assert run.status == "failed"
    assert error_of(run)["code"] == "poisoned"
    assert attempts_of(run) == ["lost"] * 3
    assert step_of(run, "first").deliveries == 3


async def test_what_a_worker_holds_is_never_more_than_its_slots(composed: OpenMesh) -> None:
    made = only(quick)
    mesh = await composed(made)
    engine = await mesh.engine()
    loop = WorkerLoop(
        engine=engine, queues=None, concurrency=2, lease=engine.lease, owner=engine.ids.owner()
    )
    for _ in range(5):
        await mesh.start_run(made)

    claims = await loop._claim()

    assert len(claims.claimed) == 2
    await loop._finish()


async def test_no_claim_is_offered_behind_a_last_step_unless_it_may_be_tried_again(
    composed: OpenMesh,
) -> None:
    made = in_a_row("row", fine, fine)
    mesh = await composed(made)
    run = await mesh.start_run(made)
    engine = await mesh.engine()
    state = (await engine.store.load([run.id])).states[run.id]
    failed = Failed(error=ErrorRecord(code="c", message="m", retryable=True))

    offered = [
        engine.successors(state, name, outcome)
        for name, outcome in (("first", Succeeded()), ("second", Succeeded()), ("second", failed))
    ]

    assert offered == [1, 0, 1]
