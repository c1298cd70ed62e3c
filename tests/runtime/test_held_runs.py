"""What the committer does about a run whose row a transaction of somebody else holds."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta

import pytest
from returns.result import Failure, Result

from squidmesh import Run, SquidMesh, StoreUnavailableError
from squidmesh.adapters.memory import MemoryStore
from squidmesh.ports.clock import Clock
from squidmesh.ports.store import Change, CommitFailure, Committed, RunHeld
from squidmesh.runtime.committer import HELD_PAUSE, LONGEST_HELD, LONGEST_HELD_PAUSE
from squidmesh.testing.clock import VirtualClock
from tests.runtime.conftest import OpenMesh
from tests.runtime.support import PATIENCE, history, only, turns

pytestmark = pytest.mark.anyio


async def quick() -> None: ...


class HeldStore(MemoryStore):
    """A store in memory with runs that somebody else holds, and the times of commits about them."""

    def __init__(self, *, clock: Clock) -> None:
        super().__init__(clock=clock)
        self.clock = clock
        self.held: set[str] = set()
        self.asked_at: list[float] = []

    async def commit(self, changes: Sequence[Change]) -> Committed:
        free = [change for change in changes if self._holder(change) is None]
        committed = await super().commit(free)
        results = iter(committed.results)
        return Committed(at=committed.at, results=tuple(self._of(one, results) for one in changes))

    def _of(
        self, change: Change, results: Iterator[Result[None, CommitFailure]]
    ) -> Result[None, CommitFailure]:
        held = self._holder(change)
        if held is None:
            return next(results)
        self.asked_at.append(self.clock.monotonic())
        return Failure(RunHeld(run_id=held))

    def _holder(self, change: Change) -> str | None:
        return next((run.run_id for run in change.runs if run.run_id in self.held), None)


@pytest.fixture
def store(clock: VirtualClock) -> HeldStore:
    return HeldStore(clock=clock)


async def passing(clock: VirtualClock, happened: Callable[[], bool]) -> None:
    """Let time go on, from one who sleeps to the next, until something has happened."""
    async with asyncio.timeout(PATIENCE):
        while not happened():
            await turns()
            wakes_at = clock.next_wake_at
            if wakes_at is not None and not happened():
                clock.advance(max(wakes_at - clock.now(), timedelta(0)))


async def cancelling(mesh: SquidMesh, run: Run) -> "asyncio.Task[Run]":
    """Ask for a cancel, and let it come as far as it can."""
    asked = asyncio.create_task(mesh.cancel_run(run.id))
    await turns()
    return asked


async def test_other_runs_are_committed_while_one_is_held(
    composed: OpenMesh, store: HeldStore, clock: VirtualClock
) -> None:
    made = only(quick)
    mesh = await composed(made)
    held, free = await mesh.start_run(made), await mesh.start_run(made)
    store.held = {held.id}

    waiting, done = await cancelling(mesh, held), await cancelling(mesh, free)

    assert (waiting.done(), done.done()) == (False, True)
    assert (await done).status == "cancelled"
    store.held.clear()
    await passing(clock, waiting.done)


async def test_a_command_about_a_held_run_is_carried_out_when_it_is_let_go(
    composed: OpenMesh, store: HeldStore, clock: VirtualClock
) -> None:
    made = only(quick)
    mesh = await composed(made)
    run = await mesh.start_run(made)
    store.held = {run.id}
    waiting = await cancelling(mesh, run)

    store.held.clear()
    await passing(clock, waiting.done)

    assert (await waiting).status == "cancelled"


async def test_commands_are_decided_on_what_the_holder_has_left(
    composed: OpenMesh, store: HeldStore, clock: VirtualClock
) -> None:
    made = only(quick)
    mesh, holder = await composed(made), await composed(made)
    run = await mesh.start_run(made)
    store.held = {run.id}
    waiting = await cancelling(mesh, run)

    store.held.clear()
    await holder.run_until_idle()
    await passing(clock, waiting.done)

    with pytest.raises(Exception, match="completed"):
        await waiting
    assert (await mesh.inspect_run(run.id)).status == "completed"


async def test_a_held_run_is_tried_again_less_and_less_often(
    composed: OpenMesh, store: HeldStore, clock: VirtualClock
) -> None:
    made = only(quick)
    mesh = await composed(made)
    run = await mesh.start_run(made)
    store.held = {run.id}

    waiting = await cancelling(mesh, run)
    await passing(clock, lambda: len(store.asked_at) > 8)

    first, *pauses = [
        round(later - earlier, 6)
        for earlier, later in zip(store.asked_at, store.asked_at[1:], strict=False)
    ]
    assert first == HELD_PAUSE
    assert pauses == [0.01, 0.02, 0.04, 0.08, 0.16, LONGEST_HELD_PAUSE, LONGEST_HELD_PAUSE]
    store.held.clear()
    await passing(clock, waiting.done)


async def test_who_waits_for_a_held_run_is_told_after_half_a_minute(
    composed: OpenMesh, store: HeldStore, clock: VirtualClock
) -> None:
    made = only(quick)
    mesh = await composed(made)
    run = await mesh.start_run(made)
    store.held = {run.id}
    asked_at = clock.monotonic()

    waiting = await cancelling(mesh, run)
    await passing(clock, waiting.done)

    with pytest.raises(StoreUnavailableError, match="held the run for over 30 seconds"):
        await waiting
    waited = clock.monotonic() - asked_at
    assert LONGEST_HELD - LONGEST_HELD_PAUSE < waited <= LONGEST_HELD
    store.held.clear()
    assert (await mesh.inspect_run(run.id)).status == "pending"


async def test_a_report_about_a_held_run_waits_and_is_not_performed_again(
    composed: OpenMesh, store: HeldStore, clock: VirtualClock
) -> None:
    calls: list[str] = []

    async def body() -> None:
        calls.append("body")
        store.held = {run.id}

    made = only(body)
    mesh = await composed(made)
    run = await mesh.start_run(made)
    working = asyncio.create_task(mesh.run_until_idle())
    await passing(clock, lambda: len(store.asked_at) > 2)

    store.held.clear()
    await passing(clock, working.done)

    assert calls == ["body"]
    assert (await history(mesh, run)).status == "completed"


async def test_closing_does_not_leave_commands_about_held_runs_without_an_answer(
    store: HeldStore, clock: VirtualClock
) -> None:
    made = only(quick)
    mesh = SquidMesh(store=store, workflows=[made], clock=clock)
    run = await mesh.start_run(made)
    store.held = {run.id}
    waiting = await cancelling(mesh, run)

    closing = asyncio.create_task(mesh.aclose())
    await passing(clock, lambda: closing.done() and waiting.done())

    with pytest.raises(StoreUnavailableError):
        await waiting
