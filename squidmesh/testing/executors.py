"""A job system that delivers nothing by itself: the test sees what is enqueued, and hands it on."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from squidmesh import codec
from squidmesh.domain.values import Json
from squidmesh.ports.executor import EnqueueOptions, Executor, ExecutorCapabilities
from squidmesh.runtime.runner import PerformReport
from squidmesh.working import Runner

CAUTIOUS: Final = ExecutorCapabilities()
_TURNS: Final = 5


@attrs.frozen
class Enqueued:
    """One payload as it was enqueued, and how."""

    payload: Mapping[str, Json]
    options: EnqueueOptions


class RecordingExecutor(Executor):
    """An executor of chosen capabilities that only takes note, and fails when it is told to.

    `enqueued` lists everything that it ever took, in order; `deliver` hands to a runner what has
    not been handed out yet. Delays, queues and repeated keys are left to the test: the engine
    behind this executor is the test itself.
    """

    def __init__(
        self,
        capabilities: ExecutorCapabilities = CAUTIOUS,
        *,
        metadata: Mapping[str, Json] | None = None,
    ) -> None:
        """Be an engine of these *capabilities*, which answers each time with *metadata*."""
        self.enqueued: list[Enqueued] = []
        self.refused: list[Enqueued] = []
        self._capabilities = capabilities
        self._metadata = dict(metadata or {})
        self._problem: Exception | None = None
        self._delivered = 0

    @property
    def capabilities(self) -> ExecutorCapabilities:
        return self._capabilities

    @property
    def payloads(self) -> list[Mapping[str, Json]]:
        """The payloads of everything that was enqueued."""
        return [one.payload for one in self.enqueued]

    def fail_with(self, problem: Exception) -> None:
        """Refuse everything with *problem* from now on; `refused` lists it."""
        self._problem = problem

    def recover(self) -> None:
        """Take everything again."""
        self._problem = None

    async def deliver(self, runner: Runner) -> list[PerformReport]:
        """Perform what was enqueued and not delivered yet, once each, in order.

        What is enqueued meanwhile waits for the next call.
        """
        for _ in range(_TURNS):
            # Wake-ups are on their way for a moment when the commit behind them is answered.
            await asyncio.sleep(0)  # noqa: TID251  it only yields
        waiting = self.enqueued[self._delivered :]
        self._delivered = len(self.enqueued)
        return [await runner.perform(one.payload) for one in waiting]

    async def enqueue_step(
        self, payload: Mapping[str, Json], options: EnqueueOptions
    ) -> Mapping[str, Json]:
        return self._take([(payload, options)])

    async def enqueue_steps(
        self, items: Sequence[tuple[Mapping[str, Json], EnqueueOptions]]
    ) -> Mapping[str, Json]:
        return self._take(items)

    async def enqueue_compensation(
        self, payload: Mapping[str, Json], options: EnqueueOptions
    ) -> Mapping[str, Json]:
        return self._take([(payload, options)])

    async def enqueue_cron(
        self, payload: Mapping[str, Json], options: EnqueueOptions
    ) -> Mapping[str, Json]:
        return self._take([(payload, options)])

    def _take(
        self, items: Sequence[tuple[Mapping[str, Json], EnqueueOptions]]
    ) -> Mapping[str, Json]:
        taken = [Enqueued(_copied(payload), options) for payload, options in items]
        if self._problem is not None:
            self.refused += taken
            raise self._problem
        self.enqueued += taken
        return dict(self._metadata)


def _copied(payload: Mapping[str, Json]) -> Mapping[str, Json]:
    copy = codec.plain(payload)
    assert isinstance(copy, dict)
    return copy
