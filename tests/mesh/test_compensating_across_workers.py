"""Undoing goes on wherever its worker died: whoever comes next takes it up where it stands."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from squidmesh import (
    Errored,
    Runner,
    SquidMesh,
    StepContext,
    StoreUnavailableError,
    Workflow,
    manual,
    path,
    step,
)
from squidmesh.testing.clock import VirtualClock
from tests.mesh.support import (
    LEASE,
    SECOND,
    Deploy,
    Gate,
    Order,
    at_work,
    attempt_statuses,
    audit_types,
    die_at,
    entries_of,
    error_of,
    event_of,
    history,
    kill,
    step_of,
    step_statuses,
)

pytestmark = pytest.mark.anyio


class Trip:
    """Two bookings that can be taken back, and a third that fails."""

    def __init__(self) -> None:
        self.undone: list[str] = []
        self.keys: list[str] = []
        self.gate = Gate()
        self.stops_at: str | None = None
        self.then: Callable[[], object] = lambda: None

        async def undo(context: StepContext) -> None:
            name = context.step.removeprefix("compensate:")
            if name == self.stops_at:
                await self.gate.wait()
            self.undone.append(name)
            self.keys.append(context.idempotency_key)
            self.then()

        class Booking(Workflow[Order]):
            name = "trip"
            by_hand = manual()
            flight = step(lambda: None, compensate=undo)
            hotel = step(lambda: None, compensate=undo)
            pay = step(lambda: Errored("card declined", code="declined"), output="receipt")
            transitions = path(flight, hotel, pay)

        self.workflow = Booking


async def deliver(mesh: SquidMesh, run_id: str, *steps: str) -> None:
    """Perform these steps as a host's jobs would, and claim nothing that follows from them."""
    runner = Runner(mesh)
    for name in steps:
        kind = "compensation" if name.startswith("compensate:") else "step"
        report = await runner.perform({"kind": kind, "run_id": run_id, "step": name, "attempt": 1})
        assert report.status == "performed"


async def test_a_callback_that_nobody_had_claimed_is_run_by_whoever_comes_next(
    deploy: Deploy,
) -> None:
    trip = Trip()
    async with deploy(trip.workflow) as doomed:
        run = await doomed.start_run("trip")
        await deliver(doomed, run.id, "flight", "hotel", "pay")
        left = await history(doomed, run)

    async with deploy(trip.workflow) as other:
        await other.run_until_idle()
        failed = await history(other, run)

    assert left.status == "compensating"
    assert step_statuses(left)["compensate:hotel"] == "scheduled"
    assert trip.undone == ["hotel", "flight"]
    assert failed.status == "failed"
    assert attempt_statuses(failed, "compensate:hotel") == ["completed"]


@pytest.mark.parametrize("at", ["hotel", "flight"])
async def test_a_callback_whose_worker_died_in_it_is_run_again_under_the_same_key(
    deploy: Deploy, clock: VirtualClock, at: str
) -> None:
    trip = Trip()
    trip.stops_at = at
    async with deploy(trip.workflow) as doomed:
        run = await doomed.start_run("trip")
        await die_at(doomed, trip.gate)
    trip.gate.opened.set()

    async with deploy(trip.workflow) as other:
        await other.run_until_idle()
        early = await history(other, run)
        clock.advance(LEASE)
        await other.run_until_idle()
        failed = await history(other, run)

    assert early.status == "compensating"
    assert attempt_statuses(early, f"compensate:{at}") == ["claimed"]
    assert attempt_statuses(failed, f"compensate:{at}") == ["lost", "completed"]
    assert trip.undone == ["hotel", "flight"]
    assert trip.keys == [f"{run.id}:compensate:hotel", f"{run.id}:compensate:flight"]
    assert (failed.status, error_of(failed)["code"]) == ("failed", "declined")
    assert step_of(failed, f"compensate:{at}").deliveries == 1


class CutOff:
    """A store that takes no commit any more, once it is cut off."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.is_cut = False
        self.missed = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def commit(self, changes: Sequence[Any]) -> Any:
        if self.is_cut:
            self.missed.set()
            raise StoreUnavailableError("cut off")
        return await self._store.commit(changes)


@pytest.mark.parametrize("at", ["hotel", "flight"])
async def test_a_callback_that_ran_and_was_not_reported_runs_again_under_the_same_key(
    deploy: Deploy, clock: VirtualClock, at: str
) -> None:
    trip = Trip()
    async with deploy(trip.workflow) as other:
        store: Any = CutOff((await other.engine()).store)

        def cut_off() -> None:
            store.is_cut = trip.undone[-1] == at

        trip.then = cut_off
        async with SquidMesh(store=store, workflows=[trip.workflow], clock=clock) as doomed:
            run = await doomed.start_run("trip")
            worker = asyncio.create_task(doomed.run_until_idle())
            await store.missed.wait()
            await kill(worker)
        trip.then = lambda: None
        clock.advance(LEASE + SECOND)
        await other.run_until_idle()
        failed = await history(other, run)

    assert trip.undone == sorted([*trip.undone], reverse=True)
    assert trip.undone.count(at) == 2
    assert len(set(trip.keys)) == 2
    assert attempt_statuses(failed, f"compensate:{at}") == ["lost", "completed"]
    assert failed.status == "failed"
    assert audit_types(failed) == [
        "compensation_started",
        "compensation_completed",
        "compensation_completed",
    ]


async def test_between_two_callbacks_the_next_one_waits_for_whoever_comes(deploy: Deploy) -> None:
    trip = Trip()
    async with deploy(trip.workflow) as doomed:
        run = await doomed.start_run("trip")
        await deliver(doomed, run.id, "flight", "hotel", "pay", "compensate:hotel")
        left = await history(doomed, run)
        begun = list(trip.undone)

    async with deploy(trip.workflow) as other:
        await other.run_until_idle()
        failed = await history(other, run)

    assert (left.status, begun) == ("compensating", ["hotel"])
    assert step_statuses(left)["compensate:flight"] == "scheduled"
    assert trip.undone == ["hotel", "flight"]
    assert failed.status == "failed"


async def test_a_callback_that_waits_for_its_next_attempt_gets_it_from_another_worker(
    deploy: Deploy, clock: VirtualClock
) -> None:
    undone: list[int] = []

    def undo(context: StepContext) -> None:
        undone.append(context.attempt)
        if context.attempt == 1:
            raise ConnectionError

    class Undone(Workflow[Order]):
        name = "undone"
        by_hand = manual()
        a = step(lambda: None, compensate=undo)
        b = step(lambda: Errored("no"), output="x")
        transitions = path(a, b)

    async with deploy(Undone) as doomed:
        run = await doomed.start_run(Undone)
        await doomed.run_until_idle()
    async with deploy(Undone) as other:
        await other.run_until_idle()
        early = await history(other, run)
        clock.advance(SECOND)
        await other.run_until_idle()
        failed = await history(other, run)

    assert attempt_statuses(early, "compensate:a") == ["failed", "scheduled"]
    assert undone == [1, 2]
    assert (early.status, failed.status) == ("compensating", "failed")


async def test_a_callback_that_keeps_killing_its_worker_is_recorded_and_the_others_still_run(
    deploy: Deploy, clock: VirtualClock
) -> None:
    trip = Trip()
    trip.stops_at = "hotel"
    async with deploy(trip.workflow, max_deliveries=2) as mesh:
        run = await mesh.start_run("trip")
        for _ in range(2):
            await die_at(mesh, trip.gate)
            clock.advance(LEASE)
            await mesh.recover()
        await mesh.run_until_idle()
        failed = await history(mesh, run)

    (listed,) = error_of(failed)["details"]["compensation_failures"]
    assert attempt_statuses(failed, "compensate:hotel") == ["lost", "lost"]
    assert trip.undone == ["flight"]
    assert (failed.status, error_of(failed)["code"]) == ("failed", "declined")
    assert (listed["step"], listed["code"]) == ("hotel", "poisoned")
    assert event_of(failed, "compensation_failed").metadata == {"code": "poisoned"}


async def test_callbacks_run_one_after_another_however_many_workers_there_are(
    deploy: Deploy,
) -> None:
    trip = Trip()
    trip.stops_at = "hotel"
    async with deploy(trip.workflow) as one, deploy(trip.workflow) as other:
        run = await one.start_run("trip")
        async with at_work(one, trip.gate):
            await other.run_until_idle()
            seen = await history(other, run)
            begun = list(trip.undone)
        failed = await history(other, run)

    assert (begun, step_statuses(seen)["compensate:hotel"]) == ([], "running")
    assert [entry.data["step"] for entry in entries_of(seen, "attempt_scheduled")] == [
        "flight",
        "hotel",
        "pay",
        "compensate:hotel",
    ]
    assert trip.undone == ["hotel", "flight"]
    assert failed.status == "failed"


async def test_a_late_report_of_a_callback_is_refused_and_changes_nothing(
    deploy: Deploy, clock: VirtualClock
) -> None:
    trip = Trip()
    trip.stops_at = "hotel"
    async with deploy(trip.workflow) as slow, deploy(trip.workflow) as quick:
        run = await slow.start_run("trip")
        await deliver(slow, run.id, "flight", "hotel", "pay")
        late = asyncio.create_task(Runner(slow).perform({"kind": "compensation", "run_id": run.id}))
        await trip.gate.entered.wait()
        trip.stops_at = None
        clock.advance(LEASE)
        await quick.run_until_idle()
        over = await history(quick, run)
        trip.gate.opened.set()
        report = await late
        after = await history(quick, run)

    assert (report.status, report.reason) == ("skipped", "stale_attempt")
    assert over.status == "failed"
    assert attempt_statuses(over, "compensate:hotel") == ["lost", "completed"]
    assert trip.undone == ["hotel", "flight", "hotel"]
    assert after == over


async def test_a_deploy_that_has_dropped_the_callback_leaves_it_to_one_that_has_it(
    deploy: Deploy,
) -> None:
    trip = Trip()

    class Dropped(Workflow[Order]):
        name = "trip"
        by_hand = manual()
        flight = step(lambda: None)
        hotel = step(lambda: None)
        pay = step(lambda: Errored("card declined", code="declined"), output="receipt")
        transitions = path(flight, hotel, pay)

    async with deploy(trip.workflow) as before:
        run = await before.start_run("trip")
        await deliver(before, run.id, "flight", "hotel", "pay")
    async with deploy(Dropped) as between:
        await between.run_until_idle()
        left = await history(between, run)
    async with deploy(trip.workflow) as after:
        await after.run_until_idle()
        failed = await history(after, run)

    assert left.status == "compensating"
    assert attempt_statuses(left, "compensate:hotel") == ["scheduled"]
    assert trip.undone == ["hotel", "flight"]
    assert (failed.status, error_of(failed)["code"]) == ("failed", "declined")
