"""Procrastinate: a job queue. A run is a chain of jobs, each of which defers the next.

A step's result is not kept, and "defer the next" and "this one is done" are two commits. The worker
looks for jobs every tenth of a second, for which its documented setting is used: with the default
of five seconds, a wake-up that gets lost between two jobs would be all that is measured.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import procrastinate

from benchmarks.contender import Serve, StepBody
from benchmarks.peers.common import CONCURRENCY, Peer, stop
from benchmarks.postgres.cloning import Changes, Keys

_LOOKS_EVERY: Final = 0.1
_AT_REST: Final = """not exists (
    select from procrastinate_jobs
    where status in ('todo', 'doing') and (scheduled_at is null or scheduled_at <= now())
)"""


@attrs.define(eq=False)
class OverProcrastinate(Peer):
    """Chains of jobs, and a worker that waits for them."""

    _app: Any = attrs.field(init=False)
    _step: Any = attrs.field(init=False)
    _worker: "asyncio.Task[object] | None" = None

    async def set_up(self, folder: Path, body: StepBody) -> None:
        await super().set_up(folder, body)
        self._app = procrastinate.App(
            connector=procrastinate.PsycopgConnector(conninfo=self.url, max_size=20)
        )
        self._step = self._app.task(name="step")(self._one_step)
        await self._app.open_async()
        await self._app.schema_manager.apply_schema_async()

    async def _one_step(self, seed: int, left: int) -> int:
        found = await self.bodies(seed)
        if left > 1:
            await self._step.defer_async(seed=seed, left=left - 1)
        return found

    def _work(self) -> None:
        if self._worker is None:
            self._worker = asyncio.create_task(
                self._app.run_worker_async(
                    concurrency=CONCURRENCY,
                    fetch_job_polling_interval=_LOOKS_EVERY,
                    install_signal_handlers=False,
                )
            )

    async def sequential(self, steps: int) -> None:
        self._work()
        ran = self.bodies.expect(steps)
        await self._step.defer_async(seed=0, left=steps)
        await ran()
        await self.rest(_AT_REST)

    async def concurrent(self, runs: int, steps: int) -> Callable[[], Awaitable[None]]:
        async def work() -> None:
            ran = self.bodies.expect(runs * steps)
            self._work()
            await self._defer_all(runs, steps)
            await ran()
            await self.rest(_AT_REST)

        return work

    async def start(self, runs: int) -> None:
        for seed in range(runs):
            await self._step.defer_async(seed=seed, left=3)

    async def start_bulk(self, runs: int) -> None:
        await self._defer_all(runs, 3)

    async def _defer_all(self, runs: int, steps: int) -> None:
        jobs = [{"seed": seed, "left": steps} for seed in range(runs)]
        await self._step.batch_defer_async(*jobs)

    def serving(self) -> AbstractAsyncContextManager[Serve] | None:
        return self._serving()

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[Serve]:
        yield lambda _seed: self.sequential(10)

    async def start_later(self) -> None:
        later = self._step.configure(schedule_in={"days": 1})
        await later.defer_async(seed=0, left=3)

    def keys(self) -> Keys:
        return {"procrastinate_jobs": ("id",), "procrastinate_events": ("job_id",)}

    def delays(self) -> Changes | None:
        return None

    async def tear_down(self) -> None:
        if self._worker is not None:
            await stop(self._worker)
        await self._app.close_async()
        await super().tear_down()
