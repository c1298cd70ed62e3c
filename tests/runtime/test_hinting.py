"""Hints between processes: what is told to others, how often, and who wakes up for it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import pairwise
from typing import Any, Final

import pytest

from squidmesh import SquidMesh, StepContext, Worker, approval, path, pause, step, wait
from squidmesh.errors import StoreUnavailableError
from squidmesh.ports.clock import Clock
from squidmesh.ports.store import ClaimRequest, Claims, Heard
from squidmesh.runtime.hinting import LONG_PAUSE, PAUSE, STREAM
from squidmesh.runtime.worker import LONGEST_HINTED_POLL, LONGEST_POLL
from squidmesh.testing.clock import VirtualClock
from tests.runtime.conftest import OpenMesh
from tests.runtime.support import (
    SECOND,
    Gate,
    ShakyStore,
    ended,
    in_a_row,
    only,
    turns,
    until,
    workflow,
)

pytestmark = pytest.mark.anyio

DEFAULT: Final = frozenset({"default"})


class TalkingStore(ShakyStore):
    """A store in memory over which meshes hear of one another.

    *hints* are those that arrived; a *gate* holds them up, and *deaf* counts those that fail.
    """

    def __init__(self, *, clock: Clock) -> None:
        super().__init__(clock=clock)
        self.hints: list[frozenset[str]] = []
        self.ears: list[tuple[str, Heard]] = []
        self.gate: Gate | None = None
        self.deaf = 0
        self.asked = 0
        self.breaks_off: Exception | None = None

    @property
    def hears(self) -> bool:
        return True

    async def hint(self, queues: Collection[str], *, source: str) -> None:
        if self.gate is not None:
            await self.gate.wait()
        if self.deaf:
            self.deaf -= 1
            raise StoreUnavailableError("the line is cut")
        self.hints.append(frozenset(queues))
        for listener, heard in self.ears:
            if listener != source:
                heard(queues)

    async def listen(self, heard: Heard, *, source: str) -> None:
        if self.breaks_off is not None:
            raise self.breaks_off
        self.ears.append((source, heard))
        try:
            heard(())
            await asyncio.Event().wait()
        finally:
            self.ears.remove((source, heard))

    async def claim(self, request: ClaimRequest) -> Claims:
        self.asked += 1
        return await super().claim(request)

    async def definitions(self, workflows: Collection[str] | None = None) -> tuple[str, ...]:
        self.asked += 1
        return await super().definitions(workflows)

    async def worker_seen(self, *said: Any) -> None:
        self.asked += 1
        await super().worker_seen(*said)


@pytest.fixture
def store(clock: VirtualClock) -> TalkingStore:
    return TalkingStore(clock=clock)


@asynccontextmanager
async def at_work(mesh: SquidMesh, *queues: str) -> AsyncIterator[None]:
    """A worker of *mesh* around the block."""
    worker = Worker(mesh, queues=queues or ("default",))
    working = asyncio.create_task(worker.run())
    yield
    worker.stop()
    await working


async def quick() -> None: ...


# -- What is told ----------------------------------------------------------------------------


async def test_a_start_is_told_at_once(composed: OpenMesh, store: TalkingStore) -> None:
    made = only(quick)
    mesh = await composed(made)

    await mesh.start_run(made)
    await turns()

    assert store.hints == [DEFAULT]


async def test_a_step_that_its_worker_cannot_run_is_told_to_the_others(
    composed: OpenMesh, store: TalkingStore
) -> None:
    async def elsewhere() -> None: ...

    both = in_a_row("orders", quick, elsewhere)
    await (await composed(both)).start_run(both)
    await turns()
    alone = step(quick)
    mesh = await composed(workflow("orders", first=alone, transitions=path(alone)))
    store.hints.clear()

    async with at_work(mesh):
        await until(lambda: store.hints == [DEFAULT])


async def test_what_follows_closely_is_told_together(
    composed: OpenMesh, store: TalkingStore, clock: VirtualClock
) -> None:
    made = only(quick)
    mesh = await composed(made)

    for queue in ("first", "second", "third", "second"):
        await mesh.start_run(made, queue=queue)
        await turns()
    told_at_once = list(store.hints)
    clock.advance(PAUSE)
    await turns()

    assert told_at_once == [{"first"}]
    assert store.hints == [{"first"}, {"second", "third"}]


async def test_a_stream_of_starts_is_told_less_often_until_it_runs_dry(
    composed: OpenMesh, store: TalkingStore, clock: VirtualClock
) -> None:
    made = only(quick)
    mesh = await composed(made)

    async def told_after(seconds: float, starts: int) -> int:
        for _ in range(starts):
            await mesh.start_run(made)
        clock.advance(seconds)
        await turns()
        return len(store.hints)

    await mesh.start_run(made)
    await turns()
    in_the_stream = await told_after(PAUSE, STREAM)
    too_soon = await told_after(PAUSE, 1)
    later = await told_after(LONG_PAUSE - PAUSE, 0)
    run_dry = await told_after(PAUSE, 1)

    assert [in_the_stream, too_soon, later, run_dry] == [2, 2, 3, 4]


async def test_after_a_silence_a_hint_is_told_at_once_again(
    composed: OpenMesh, store: TalkingStore, clock: VirtualClock
) -> None:
    made = only(quick)
    mesh = await composed(made)
    await mesh.start_run(made)
    await turns()
    clock.advance(PAUSE)
    await turns()

    await mesh.start_run(made)
    await turns()

    assert store.hints == [DEFAULT, DEFAULT]


async def test_1000_runs_started_together_are_one_hint(
    composed: OpenMesh, store: TalkingStore, clock: VirtualClock
) -> None:
    made = only(quick)
    mesh = await composed(made)

    await mesh.start_runs(made, [{"number": str(number)} for number in range(1000)])
    await turns()
    clock.advance(PAUSE)
    await turns()

    assert store.hints == [DEFAULT]


async def test_nothing_is_told_of_what_is_not_due_yet(
    composed: OpenMesh, store: TalkingStore
) -> None:
    first, second = wait(SECOND), step(quick)
    made = workflow("later", first=first, second=second, transitions=path(first, second))
    mesh = await composed(made)

    await mesh.start_run(made)
    await turns()

    assert store.hints == []


async def test_nothing_is_told_of_what_a_worker_s_report_makes_due(
    composed: OpenMesh, store: TalkingStore, clock: VirtualClock
) -> None:
    root = step(quick)
    leaves: dict[str, Any] = {f"leaf_{one}": step(quick, after=(root,)) for one in range(100)}
    made = workflow("wide", root=root, **leaves)
    mesh = await composed(made)

    run = await ended(mesh, made)
    clock.advance(PAUSE)
    await turns()

    assert run.status == "completed"
    assert store.hints == [DEFAULT]


def told_about() -> Any:
    """A workflow that stops for a person twice, with a queue of its own behind each answer."""
    begin, hold, review = step(quick), pause(), approval()
    accept, refuse = step(quick, queue="accepted"), step(quick, queue="refused")
    waits = {"hold": hold, "review": review}
    ways = (path(begin, hold, review, accept), review.on_error(refuse), path(refuse))
    return workflow("told", begin=begin, **waits, accept=accept, refuse=refuse, transitions=ways)


Say = Callable[[SquidMesh, str], Awaitable[object]]

ANSWERS: Final[dict[str, Say]] = {
    "accepted": lambda mesh, run_id: mesh.approve_run(run_id, actor="ada"),
    "refused": lambda mesh, run_id: mesh.reject_run(run_id, actor="ada"),
    "default": lambda mesh, run_id: mesh.replay_run(run_id),
}


@pytest.mark.parametrize("queue", ANSWERS)
async def test_what_a_command_makes_due_is_told(
    composed: OpenMesh, store: TalkingStore, clock: VirtualClock, queue: str
) -> None:
    made = told_about()
    mesh = await composed(made)
    run = await ended(mesh, made)
    for say in (lambda mesh, run_id: mesh.resume_run(run_id), ANSWERS[queue]):
        clock.advance(PAUSE)
        await turns()
        store.hints.clear()

        await say(mesh, run.id)
        await mesh.run_until_idle()

    assert store.hints == [{queue}]


async def test_a_command_that_makes_nothing_due_is_not_told(
    composed: OpenMesh, store: TalkingStore, clock: VirtualClock
) -> None:
    made = only(quick)
    mesh = await composed(made)
    run = await mesh.start_run(made)
    await turns()
    clock.advance(PAUSE)
    await turns()

    await mesh.cancel_run(run.id)
    await turns()

    assert store.hints == [DEFAULT]


async def test_closing_a_mesh_tells_what_was_to_be_told(
    composed: OpenMesh, store: TalkingStore
) -> None:
    made = only(quick)
    mesh = await composed(made)

    await mesh.start_run(made, queue="first")
    await turns()
    await mesh.start_run(made, queue="second")
    await mesh.aclose()

    assert store.hints == [{"first"}, {"second"}]


async def test_nobody_waits_for_a_hint(composed: OpenMesh, store: TalkingStore) -> None:
    made = only(quick)
    mesh = await composed(made)
    store.gate = Gate()

    runs = [await mesh.start_run(made) for _ in range(10)]
    await store.gate.reached()
    told_before = list(store.hints)
    store.gate.opened.set()
    await mesh.aclose()

    assert len({run.id for run in runs}) == 10
    assert told_before == []
    assert store.hints == [DEFAULT, DEFAULT]


async def test_hints_that_fail_are_logged_once_and_harm_nobody(
    composed: OpenMesh,
    store: TalkingStore,
    clock: VirtualClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = only(quick)
    mesh = await composed(made)
    store.deaf = 3

    for _ in range(4):
        await mesh.start_run(made)
        await turns()
        clock.advance(PAUSE)
        await turns()

    assert [one.getMessage() for one in caplog.records] == [
        "hint.failed error=StoreUnavailableError"
    ]
    assert store.hints == [DEFAULT]


# -- Who wakes up ----------------------------------------------------------------------------


async def test_an_idle_worker_of_another_mesh_takes_up_a_start_while_no_time_passes(
    composed: OpenMesh, store: TalkingStore, clock: VirtualClock
) -> None:
    made = only(quick)
    mesh, other = await composed(made), await composed(made)
    async with at_work(other):
        await until(lambda: clock.sleepers > 0)
        began = clock.now()

        run = await mesh.start_run(made)
        await turns(200)

        assert (await mesh.inspect_run(run.id)).status == "completed"
        assert clock.now() == began


async def test_a_worker_is_not_woken_by_its_own_mesh_twice(
    composed: OpenMesh, store: TalkingStore, clock: VirtualClock
) -> None:
    made = only(quick)
    mesh = await composed(made)
    async with at_work(mesh):
        await until(lambda: clock.sleepers > 0)
        engine = await mesh.engine()
        heard: list[Collection[str]] = []
        engine.dispatcher.hinting.hearers.append(heard.append)

        await mesh.start_run(made)
        await turns(200)

        assert (store.hints, heard) == ([DEFAULT], [])


@pytest.mark.parametrize(("queues", "wakes"), [(["mail"], True), (["ours"], False), ([], True)])
async def test_a_worker_wakes_up_for_its_own_queues_only(
    composed: OpenMesh, store: TalkingStore, clock: VirtualClock, queues: list[str], wakes: bool
) -> None:
    mesh = await composed(only(quick))
    async with at_work(mesh, "default", "mail"):
        await until(lambda: clock.sleepers > 0)
        await turns()
        before = store.asked

        await store.hint(queues, source="elsewhere")
        await turns()

        assert (store.asked > before) == wakes


async def test_a_mesh_listens_once_for_all_its_workers_and_until_it_is_closed(
    composed: OpenMesh, store: TalkingStore
) -> None:
    mesh = await composed(only(quick))
    await turns()
    before_work = len(store.ears)
    async with at_work(mesh), at_work(mesh, "mail"):
        await until(lambda: len(store.ears) > 0)
        await turns()
        during_work = len(store.ears)

    await mesh.aclose()

    assert (before_work, during_work, len(store.ears)) == (0, 1, 0)


async def test_a_mesh_that_cannot_listen_says_so_and_polls(
    composed: OpenMesh,
    store: TalkingStore,
    clock: VirtualClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = only(quick)
    mesh, other = await composed(made), await composed(made)
    store.breaks_off = RuntimeError("no ears")
    async with at_work(other):
        await until(lambda: clock.sleepers > 0)

        run = await mesh.start_run(made)
        while (await mesh.inspect_run(run.id)).status != "completed":
            clock.advance(LONGEST_HINTED_POLL)
            await turns()

    assert [one.getMessage() for one in caplog.records] == ["hints.unheard error=RuntimeError"]


# -- How often an idle worker asks -----------------------------------------------------------


async def idle(clock: VirtualClock, span: timedelta) -> None:
    """Let time pass from one sleeper's end to the next."""
    until = clock.now() + span
    while clock.next_wake_at is not None and clock.next_wake_at <= until:
        clock.advance(clock.next_wake_at - clock.now())
        await turns(20)
    clock.advance(until - clock.now())


async def test_an_idle_worker_that_can_hear_asks_the_store_once_a_second_at_most(
    composed: OpenMesh, store: TalkingStore, clock: VirtualClock
) -> None:
    mesh = await composed(only(quick))
    async with at_work(mesh):
        await until(lambda: clock.sleepers > 0)
        await idle(clock, timedelta(seconds=10))
        before = store.asked

        await idle(clock, timedelta(hours=1))

        assert 2400 < store.asked - before <= 3600


async def test_an_idle_worker_asks_less_and_less_often(
    composed: OpenMesh, store: TalkingStore, clock: VirtualClock
) -> None:
    mesh = await composed(only(quick))
    async with at_work(mesh):
        await until(lambda: clock.sleepers > 0)
        asked_at = []
        while clock.monotonic() < 8:
            assert clock.next_wake_at is not None
            clock.advance(clock.next_wake_at - clock.now())
            asked_at.append(clock.monotonic())
            await turns(20)

    pauses = [later - earlier for earlier, later in pairwise(asked_at)]
    assert pauses[0] < 0.1
    assert pauses[-1] == pytest.approx(LONGEST_HINTED_POLL)
    assert all(later >= earlier - 1e-9 for earlier, later in pairwise(pauses))


class Contested(TalkingStore):
    """Something is due there that somebody else is always just about to take."""

    async def claim(self, request: ClaimRequest) -> Claims:
        self.asked += 1
        now = self._clock.now()
        return Claims(at=now, next_visible_at=now)


async def test_what_is_due_and_cannot_be_had_is_not_asked_for_all_the_time(
    composed: OpenMesh, clock: VirtualClock
) -> None:
    store = Contested(clock=clock)
    mesh = await composed(only(quick), store=store)
    async with at_work(mesh):
        await until(lambda: clock.sleepers > 0)

        await idle(clock, timedelta(seconds=60))

        assert store.asked <= 60 + 10


async def test_a_timer_of_others_is_kept_on_time_however_seldom_is_asked(
    composed: OpenMesh, store: TalkingStore, clock: VirtualClock
) -> None:
    ran_at: list[float] = []

    async def note(context: StepContext) -> None:
        ran_at.append(clock.monotonic())

    first, second = wait(100.25 * SECOND), step(note)
    made = workflow("timed", first=first, second=second, transitions=path(first, second))
    mesh, other = await composed(made), await composed(made)
    async with at_work(other):
        await until(lambda: clock.sleepers > 0)
        await mesh.start_run(made)

        await idle(clock, timedelta(seconds=120))

    assert ran_at == pytest.approx([100.25], abs=0.01)


async def test_where_nothing_can_be_heard_an_idle_worker_looks_twice_a_second(
    composed: OpenMesh, clock: VirtualClock
) -> None:
    quiet = ShakyStore(clock=clock)
    mesh = await composed(in_a_row("made", quick), store=quiet)
    async with at_work(mesh):
        await until(lambda: clock.sleepers > 0)
        await idle(clock, timedelta(seconds=10))
        before = len(quiet.requests)

        await idle(clock, timedelta(seconds=60))

        assert len(quiet.requests) - before == pytest.approx(60 / LONGEST_POLL, abs=1)
