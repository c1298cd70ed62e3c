"""DBOS, in three ways: workflows as tasks, as threads, and through a queue with a worker.

A queue is looked at every tenth of a second, for which its documented setting is used: with the
default of a second, the timer would be all that is measured of a start.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from enum import Enum
from pathlib import Path
from typing import Any, Final, Self

import attrs
from dbos import DBOS, SetEnqueueOptions

from benchmarks.contender import Serve, StepBody
from benchmarks.peers.common import CONCURRENCY, Peer, finish, in_turn
from benchmarks.postgres.cloning import Keys

_QUEUE: Final = "runs"
_LEFT_ALONE: Final = "nobody listens to this one"
_LOOKS_EVERY: Final = 0.1
_DAY: Final = 86_400.0
_AT_REST: Final = """not exists (
    select from dbos.workflow_status where status in ('ENQUEUED', 'PENDING')
)"""


class Way(Enum):
    """How runs are started, and where they run."""

    TASKS = "tasks"
    THREADS = "threads"
    QUEUE = "queue"


@attrs.define(eq=False)
class OverDBOS(Peer):
    """Workflows of many steps."""

    _way: Way = Way.TASKS
    _threads: ThreadPoolExecutor = attrs.field(factory=lambda: ThreadPoolExecutor(CONCURRENCY))
    _chain: Any = attrs.field(init=False)
    _chain_in_thread: Any = attrs.field(init=False)
    _fan: Any = attrs.field(init=False)

    @classmethod
    def in_tasks(cls, url: str) -> Self:
        """Asynchronous workflows, started where they run."""
        return cls(url, way=Way.TASKS)

    @classmethod
    def in_threads(cls, url: str) -> Self:
        """Workflows in threads, each of them called."""
        return cls(url, way=Way.THREADS)

    @classmethod
    def through_a_queue(cls, url: str) -> Self:
        """Asynchronous workflows, started by a queue's worker."""
        return cls(url, way=Way.QUEUE)

    async def set_up(self, folder: Path, body: StepBody) -> None:
        await super().set_up(folder, body)
        DBOS(
            config={
                "name": "benchmarks",
                "system_database_url": self.url,
                "application_version": "1",
                "log_level": "ERROR",
                "run_admin_server": False,
            }
        )
        self._chain, self._chain_in_thread, self._fan = _workflows(self.bodies)
        await asyncio.to_thread(DBOS.launch)
        if self._way is Way.QUEUE:
            await DBOS.register_queue_async(
                _QUEUE, worker_concurrency=CONCURRENCY, polling_interval_sec=_LOOKS_EVERY
            )

    async def sequential(self, steps: int) -> None:
        match self._way:
            case Way.TASKS:
                await (await DBOS.start_workflow_async(self._chain, steps)).get_result()
            case Way.THREADS:
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(self._threads, self._chain_in_thread, steps)
            case Way.QUEUE:
                ran = self.bodies.expect(steps)
                await self._enqueue(1, steps)
                await ran()
                await self.rest(_AT_REST)

    async def concurrent(self, runs: int, steps: int) -> Callable[[], Awaitable[None]]:
        if self._way is not Way.QUEUE:
            return lambda: in_turn(runs, lambda _number: self.sequential(steps))

        async def work() -> None:
            ran = self.bodies.expect(runs * steps)
            await self._enqueue(runs, steps)
            await ran()
            await self.rest(_AT_REST)

        return work

    async def fanout(self, width: int) -> None:
        await (await DBOS.start_workflow_async(self._fan, width)).get_result()

    async def start(self, runs: int) -> None:
        await self._enqueue(runs, 3, _LEFT_ALONE)

    async def _enqueue(self, runs: int, steps: int, queue: str = _QUEUE) -> None:
        for _ in range(runs):
            await DBOS.enqueue_workflow_async(queue, self._chain, steps)

    def serving(self) -> AbstractAsyncContextManager[Serve] | None:
        return self._serving() if self._way is Way.QUEUE else None

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[Serve]:
        yield lambda _seed: self.sequential(10)

    async def start_later(self) -> None:
        with SetEnqueueOptions(delay_seconds=_DAY):
            await self._enqueue(1, 3)

    def keys(self) -> Keys:
        return {"*": ("workflow_uuid",)}

    async def tear_down(self) -> None:
        await asyncio.to_thread(DBOS.destroy)
        self._threads.shutdown()
        await super().tear_down()


def _workflows(body: StepBody) -> tuple[Any, Any, Any]:
    @DBOS.step()  # type: ignore[untyped-decorator,unused-ignore]
    async def step(seed: int) -> int:
        return await body(seed)

    @DBOS.step()  # type: ignore[untyped-decorator,unused-ignore]
    def step_in_thread(seed: int) -> int:
        return finish(body, seed)

    @DBOS.workflow()  # type: ignore[untyped-decorator,unused-ignore]
    async def chain(steps: int) -> int:
        return int([await step(position) for position in range(steps)][-1])

    @DBOS.workflow()  # type: ignore[untyped-decorator,unused-ignore]
    def chain_in_thread(steps: int) -> int:
        return int([step_in_thread(position) for position in range(steps)][-1])

    @DBOS.workflow()  # type: ignore[untyped-decorator,unused-ignore]
    async def fan(width: int) -> int:
        await asyncio.gather(*(step(position) for position in range(width)))
        return int(await step(0))

    return chain, chain_in_thread, fan
