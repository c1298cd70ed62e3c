"""The contract for executors accepts honest engines of every ability."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import attrs
import pytest

from squidmesh.domain.values import Json
from squidmesh.ports.executor import EnqueueOptions, Executor, ExecutorCapabilities
from squidmesh.testing.clock import VirtualClock
from squidmesh.testing.contracts import Delivery, ExecutorContract
from squidmesh.testing.executors import RecordingExecutor


@attrs.define
class Queue:
    """A job system in a list: what was enqueued, and from when on it is delivered."""

    clock: VirtualClock
    jobs: list[tuple[datetime, str, Delivery]] = attrs.field(factory=list)
    is_reachable: bool = True

    async def deliveries(self, until: datetime) -> Sequence[Delivery]:
        self.clock.advance(until - self.clock.now())
        return [delivery for due, _, delivery in self.jobs if due <= self.clock.now()]

    async def cut_off(self) -> None:
        self.is_reachable = False


@attrs.frozen
class ListExecutor(Executor):
    """Enqueues into a `Queue`, as well as its capabilities say."""

    queue: Queue
    abilities: ExecutorCapabilities

    @property
    def capabilities(self) -> ExecutorCapabilities:
        return self.abilities

    async def enqueue_step(
        self, payload: Mapping[str, Json], options: EnqueueOptions
    ) -> Mapping[str, Json]:
        if not self.queue.is_reachable:
            raise ConnectionError("cut off")
        known = {key for _, key, _ in self.queue.jobs}
        if self.abilities.dedup_window is None or options.key not in known:
            delivery = Delivery(dict(payload), options.queue)
            self.queue.jobs.append((self._due(options), options.key, delivery))
        return {"job": len(self.queue.jobs)}

    def _due(self, options: EnqueueOptions) -> datetime:
        keeps_delays = self.abilities.max_delay is None
        return (keeps_delays and options.not_before) or self.queue.clock.now()

    async def enqueue_steps(
        self, items: Sequence[tuple[Mapping[str, Json], EnqueueOptions]]
    ) -> Mapping[str, Json]:
        return {"jobs": [dict(await self.enqueue_step(*item)) for item in items]}

    enqueue_compensation = enqueue_step
    enqueue_cron = enqueue_step


ABLE: Final = ExecutorCapabilities(max_delay=None, dedup_window=timedelta(hours=1))


class TestAbleEngine(ExecutorContract):
    @pytest.fixture
    def executor(self, clock: VirtualClock) -> ListExecutor:
        return ListExecutor(Queue(clock), ABLE)

    @pytest.fixture
    def engine(self, executor: ListExecutor) -> Queue:
        return executor.queue


@attrs.frozen
class Notes:
    """What a `RecordingExecutor` took note of."""

    executor: RecordingExecutor

    async def deliveries(self, until: datetime) -> Sequence[Delivery]:
        return [Delivery(one.payload, one.options.queue) for one in self.executor.enqueued]

    async def cut_off(self) -> None:
        self.executor.fail_with(ConnectionError("cut off"))


class TestRecordingExecutor(ExecutorContract):
    @pytest.fixture
    def executor(self) -> RecordingExecutor:
        return RecordingExecutor()

    @pytest.fixture
    def engine(self, executor: RecordingExecutor) -> Notes:
        return Notes(executor)
