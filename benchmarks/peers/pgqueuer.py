"""PgQueuer: a job queue. A run is a chain of jobs, each of which enqueues the next.

A step's result is not kept. "Enqueue the next" and "this one is done" are two commits, the latter
shared by several jobs and buffered in memory: after a crash, jobs that were done run again.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import asyncpg
import attrs
from pgqueuer import PgQueuer, Queries
from pgqueuer.db import AsyncpgPoolDriver

from benchmarks.contender import Serve, StepBody
from benchmarks.peers.common import Peer, stop
from benchmarks.postgres.cloning import Keys

_BATCH: Final = 50
_AT_REST: Final = "not exists (select from pgqueuer where execute_after <= now())"


@attrs.define(eq=False)
class OverPgQueuer(Peer):
    """Chains of jobs, and a queue manager that waits for them."""

    _pool: Any = attrs.field(init=False)
    _queries: Any = attrs.field(init=False)
    _queuer: Any = attrs.field(init=False)
    _worker: "asyncio.Task[object] | None" = None

    async def set_up(self, folder: Path, body: StepBody) -> None:
        await super().set_up(folder, body)
        self._pool = await asyncpg.create_pool(self.url, min_size=4, max_size=20)
        self._queries = Queries(AsyncpgPoolDriver(self._pool))
        await self._queries.install()
        self._queuer = PgQueuer.from_asyncpg_pool(self._pool)
        self._queuer.entrypoint("step")(self._one_step)

    async def _one_step(self, job: Any) -> None:  # noqa: ANN401  it is not installed everywhere
        told = json.loads(job.payload)
        await self.bodies(told["seed"])
        if told["left"] > 1:
            await self._enqueue(told["seed"], told["left"] - 1)

    async def _enqueue(self, seed: int, left: int, after: timedelta | None = None) -> None:
        await self._queries.enqueue("step", _payload(seed, left), execute_after=after)

    def _work(self) -> None:
        if self._worker is None:
            self._worker = asyncio.create_task(self._queuer.run(batch_size=_BATCH))

    async def sequential(self, steps: int) -> None:
        self._work()
        ran = self.bodies.expect(steps)
        await self._enqueue(0, steps)
        await ran()
        await self.rest(_AT_REST)

    async def concurrent(self, runs: int, steps: int) -> Callable[[], Awaitable[None]]:
        async def work() -> None:
            ran = self.bodies.expect(runs * steps)
            self._work()
            await self._enqueue_all(runs, steps)
            await ran()
            await self.rest(_AT_REST)

        return work

    async def start(self, runs: int) -> None:
        for seed in range(runs):
            await self._enqueue(seed, 3)

    async def start_bulk(self, runs: int) -> None:
        await self._enqueue_all(runs, 3)

    async def _enqueue_all(self, runs: int, steps: int) -> None:
        payloads = [_payload(seed, steps) for seed in range(runs)]
        if payloads:
            await self._queries.enqueue(["step"] * runs, payloads, [0] * runs)

    def serving(self) -> AbstractAsyncContextManager[Serve] | None:
        return self._serving()

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[Serve]:
        yield lambda _seed: self.sequential(10)

    async def start_later(self) -> None:
        await self._enqueue(0, 3, timedelta(days=1))

    def keys(self) -> Keys:
        return {"pgqueuer": ("id",), "pgqueuer_log": ("job_id",)}

    async def tear_down(self) -> None:
        if self._worker is not None:
            self._queuer.shutdown.set()
            await stop(self._worker)
        await self._pool.close()
        await super().tear_down()


def _payload(seed: int, left: int) -> bytes:
    return json.dumps({"seed": seed, "left": left}).encode()
