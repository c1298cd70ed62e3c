"""What an `Executor` promises: what is enqueued is delivered, and what is not raises."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, Protocol

import attrs
import pytest

from squidmesh.codec import plain
from squidmesh.domain.values import Json
from squidmesh.ports.clock import Clock
from squidmesh.ports.executor import EnqueueOptions, Executor, ExecutorCapabilities
from squidmesh.testing.builders import FIRST, SECOND
from squidmesh.testing.clock import VirtualClock
from squidmesh.testing.contract_base import promises

STEP: Final[Mapping[str, Json]] = {"kind": "step", "run_id": FIRST, "step": "load", "attempt": 1}
ANOTHER: Final[Mapping[str, Json]] = {**STEP, "run_id": SECOND, "attempt": 12}
UNDOING: Final[Mapping[str, Json]] = {
    "kind": "compensation",
    "run_id": FIRST,
    "step": "load",
    "attempt": 1,
}
ACTIVATION: Final[Mapping[str, Json]] = {
    "kind": "cron",
    "workflow": "orders",
    "trigger": "every_morning",
    "signal_id": "it's \N{CRAB}",
    "intended_window": {
        "start_at": "2030-01-01T00:00:00+00:00",
        "end_at": "2030-01-02T00:00:00+00:00",
    },
}
A_WHILE: Final = timedelta(seconds=2)

Enqueue = Callable[[Mapping[str, Json], EnqueueOptions], Awaitable[Mapping[str, Json]]]


@attrs.frozen
class Delivery:
    """What a host's job would be called with, and the queue that it came through."""

    payload: Mapping[str, Json]
    queue: str


class Engine(Protocol):
    """The job system behind an executor, seen from the side where the jobs come out."""

    async def deliveries(self, until: datetime) -> Sequence[Delivery]:
        """Let the engine work until *until*, and return what it has delivered so far, in all."""

    async def cut_off(self) -> None:
        """Make the engine unreachable for its executor from here on."""


@pytest.mark.anyio
class ExecutorContract:
    """The promises an `Executor` makes.

    A subclass provides `executor`, and as `engine` the other side of it. The engine's time is
    `clock`; override that for an engine that lives in real time.
    """

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture
    def clock(self) -> Clock:
        return VirtualClock()

    @pytest.fixture
    def executor(self) -> Executor:
        raise NotImplementedError(f"{type(self).__name__} provides no `executor` fixture")

    @pytest.fixture
    def engine(self, executor: Executor) -> Engine:
        """The other side of `executor`."""
        raise NotImplementedError(f"{type(self).__name__} provides no `engine` fixture")

    @promises("Executor.capabilities")
    async def test_what_the_engine_can_do_is_said_before_it_is_used(
        self, executor: Executor
    ) -> None:
        first, second = executor.capabilities, executor.capabilities

        assert isinstance(first, ExecutorCapabilities)
        assert first == second

    @promises("Executor.enqueue_step")
    async def test_a_step_is_delivered_as_it_was_enqueued_in_its_queue(
        self, executor: Executor, engine: Engine, clock: Clock
    ) -> None:
        answer = await executor.enqueue_step(STEP, EnqueueOptions(key="a", queue="mail"))

        assert await engine.deliveries(clock.now()) == [Delivery(STEP, "mail")]
        assert plain(answer) == answer

    @promises("Executor.enqueue_compensation")
    async def test_an_undoing_is_delivered_as_it_was_enqueued(
        self, executor: Executor, engine: Engine, clock: Clock
    ) -> None:
        answer = await executor.enqueue_compensation(UNDOING, EnqueueOptions(key="a"))

        assert await engine.deliveries(clock.now()) == [Delivery(UNDOING, "default")]
        assert plain(answer) == answer

    @promises("Executor.enqueue_cron")
    async def test_an_activation_is_delivered_as_it_was_enqueued(
        self, executor: Executor, engine: Engine, clock: Clock
    ) -> None:
        answer = await executor.enqueue_cron(ACTIVATION, EnqueueOptions(key="a"))

        assert await engine.deliveries(clock.now()) == [Delivery(ACTIVATION, "default")]
        assert plain(answer) == answer

    @promises("Executor.enqueue_steps")
    async def test_several_steps_are_delivered_each_in_its_queue(
        self, executor: Executor, engine: Engine, clock: Clock
    ) -> None:
        items = [
            (STEP, EnqueueOptions(key="a", queue="mail")),
            (ANOTHER, EnqueueOptions(key="b")),
        ]

        answer = await executor.enqueue_steps(items)

        delivered = await engine.deliveries(clock.now())
        assert sorted(delivered, key=_queue) == [
            Delivery(ANOTHER, "default"),
            Delivery(STEP, "mail"),
        ]
        assert plain(answer) == answer

    @promises("Executor.enqueue_steps")
    async def test_no_steps_are_no_deliveries(
        self, executor: Executor, engine: Engine, clock: Clock
    ) -> None:
        answer = await executor.enqueue_steps([])

        assert await engine.deliveries(clock.now()) == []
        assert plain(answer) == answer

    @promises("Executor.enqueue_step")
    async def test_what_the_caller_does_to_a_payload_afterwards_is_not_delivered(
        self, executor: Executor, engine: Engine, clock: Clock
    ) -> None:
        payload = dict(STEP)
        await executor.enqueue_step(payload, EnqueueOptions(key="a"))

        payload["step"] = "changed"

        assert await engine.deliveries(clock.now()) == [Delivery(STEP, "default")]

    @promises("Executor.enqueue_step")
    async def test_a_delay_is_kept_by_an_engine_that_says_so_and_never_loses_a_delivery(
        self, executor: Executor, engine: Engine, clock: Clock
    ) -> None:
        longest = executor.capabilities.max_delay
        due = clock.now() + A_WHILE
        await executor.enqueue_step(STEP, EnqueueOptions(key="a", not_before=due))

        early = await engine.deliveries(clock.now())
        delivered = await engine.deliveries(due)

        if longest is None or longest >= A_WHILE:
            assert early == []
        assert delivered == [Delivery(STEP, "default")]

    @promises("Executor.enqueue_step")
    async def test_a_repeated_key_is_dropped_by_an_engine_that_says_so_and_else_delivered_again(
        self, executor: Executor, engine: Engine, clock: Clock
    ) -> None:
        await executor.enqueue_step(STEP, EnqueueOptions(key="a"))
        await executor.enqueue_step(STEP, EnqueueOptions(key="a"))
        await executor.enqueue_step(ANOTHER, EnqueueOptions(key="b"))

        delivered = await engine.deliveries(clock.now())

        drops = executor.capabilities.dedup_window is not None
        assert delivered.count(Delivery(STEP, "default")) == (1 if drops else 2)
        assert delivered.count(Delivery(ANOTHER, "default")) == 1

    @promises("Executor.enqueue_step")
    @promises("Executor.enqueue_steps")
    @promises("Executor.enqueue_compensation")
    @promises("Executor.enqueue_cron")
    async def test_what_cannot_be_enqueued_raises(self, executor: Executor, engine: Engine) -> None:
        options = EnqueueOptions(key="a")
        await engine.cut_off()

        calls: list[tuple[Enqueue, Mapping[str, Json]]] = [
            (executor.enqueue_step, STEP),
            (executor.enqueue_compensation, UNDOING),
            (executor.enqueue_cron, ACTIVATION),
        ]

        for enqueue, payload in calls:
            with pytest.raises(Exception):  # noqa: B017, PT011  every engine has its own
                await enqueue(payload, options)
        with pytest.raises(Exception):  # noqa: B017, PT011  every engine has its own
            await executor.enqueue_steps([(STEP, options)])


def _queue(delivery: Delivery) -> str:
    return delivery.queue
