"""A worker beside work that it cannot run: it is left alone, told of, and does not slow it down."""

import asyncio
from itertools import pairwise

import pytest

from squidmesh import Worker, path, step
from squidmesh.ports.store import ClaimRequest, Claims
from squidmesh.runtime.worker import PASSING_OVER_PAUSE
from squidmesh.testing.clock import VirtualClock
from squidmesh.testing.executors import RecordingExecutor
from tests.runtime.conftest import OpenMesh
from tests.runtime.support import Listener, ShakyStore, in_a_row, only, turns, until, workflow

pytestmark = pytest.mark.anyio

LONG = 0.05
"""How many seconds a claim takes that has to pass over what the worker lacks."""


async def first() -> None: ...


async def second() -> None: ...


class LabouringStore(ShakyStore):
    """A store in which passing over attempts takes its time, and which knows who asked when."""

    def __init__(self, *, clock: VirtualClock) -> None:
        super().__init__(clock=clock)
        self.clock = clock
        self.passed_over: list[float] = []
        self.others: list[float] = []

    async def claim(self, request: ClaimRequest) -> Claims:
        asked_at = self.clock.monotonic()
        if request.lacking:
            self.clock.advance(LONG)
        (self.passed_over if request.lacking else self.others).append(asked_at)
        return await super().claim(request)


@pytest.fixture
def store(clock: VirtualClock) -> LabouringStore:
    return LabouringStore(clock=clock)


async def test_a_backlog_that_a_worker_cannot_run_takes_a_twentieth_of_its_time(
    composed: OpenMesh, store: LabouringStore, clock: VirtualClock
) -> None:
    host = await composed(in_a_row("orders", first, second))
    await host.start_run("orders")
    other = step(second)
    worker = Worker(await composed(workflow("orders", other=other, transitions=path(other))))
    working = asyncio.create_task(worker.run())

    began = clock.monotonic()
    while clock.monotonic() - began < 30:
        await turns()
        assert clock.next_wake_at is not None
        clock.advance(clock.next_wake_at - clock.now())
    worker.stop()
    await working

    between = [later - asked for asked, later in pairwise(store.passed_over)]
    assert len(between) > 10
    assert min(between) > 0.99 * LONG * (1 + PASSING_OVER_PAUSE)
    assert max(between) < 2 * LONG * (1 + PASSING_OVER_PAUSE)
    assert len(store.others) > len(store.passed_over)


async def test_what_a_worker_lacks_is_judged_anew_when_another_version_is_registered(
    composed: OpenMesh,
) -> None:
    old = in_a_row("orders", first, second)
    mesh = await composed(old)
    registry = (await mesh.engine()).registry
    mark = old.definition.fingerprint
    other = step(first)
    assert registry.lacking(mark) == frozenset()

    new = workflow("orders", other=other, transitions=path(other)).definition
    registry.register(new, new.bodies)

    assert registry.lacking(mark) == frozenset({"second"})
    assert not registry.can_run(mark, "second")


@pytest.mark.parametrize("accident", ["away", "unreadable"])
async def test_whoever_cannot_be_told_of_is_woken_all_the_same(
    composed: OpenMesh, store: LabouringStore, accident: str
) -> None:
    listener, desk = Listener(), RecordingExecutor()
    made = only(first)
    mesh = await composed(made, executor=desk, telemetry=listener)
    runs = [await mesh.start_run(made) for _ in range(3)]
    await until(lambda: listener.names.count("run.dispatched") == 3)
    if accident == "away":
        store.loads = 1
    else:
        store.unreadable = {runs[1].id}

    report = await mesh.recover()

    told = [event.metadata.get("workflow") for event in listener.of("run.dispatched")[3:]]
    assert report.emitted == 3
    assert told == ([None] * 3 if accident == "away" else ["only", None, "only"])
