"""Absurd: durable tasks whose rules are in the database. A run is a task, a step a checkpoint.

One client has one connection, so several of them work where runs are concurrent. Workers look for
tasks every quarter of a second, which is the default.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, LiteralString

import absurdctl
import attrs
from absurd_sdk import AsyncAbsurd

from benchmarks.contender import Serve, StepBody
from benchmarks.peers.common import Peer, stop
from benchmarks.postgres.cloning import Changes, Keys

_CLIENTS: Final = 8
_EACH: Final = 8
_AT_REST: Final = """not exists (
    select from absurd.r_default
    where state in ('pending', 'running', 'sleeping') and available_at <= now()
)"""


@attrs.define(eq=False)
class OverAbsurd(Peer):
    """Tasks of many steps, and clients that work on them."""

    _spawners: list[Any] = attrs.field(init=False)
    _clients: list[Any] = attrs.field(factory=list[Any])
    _workers: list["asyncio.Task[object]"] = attrs.field(factory=list)

    async def set_up(self, folder: Path, body: StepBody) -> None:
        await super().set_up(folder, body)
        await self.execute(absurdctl.BUNDLED_SCHEMA_SQL)
        self._spawners = [self._new_client() for _ in range(_CLIENTS)]
        await self._spawners[0].create_queue("default")

    def _new_client(self) -> Any:  # noqa: ANN401  it is not installed everywhere
        client = AsyncAbsurd(self.url)
        client.register_task("chain")(self._chain)
        client.register_task("fan")(self._fan)
        self._clients.append(client)
        return client

    async def _chain(self, parameters: Any, context: Any) -> None:  # noqa: ANN401
        for position in range(parameters["steps"]):
            await context.step(f"step-{position}", partial(self.bodies, position))

    async def _fan(self, parameters: Any, context: Any) -> None:  # noqa: ANN401
        branches = (
            context.step(f"step-{position}", partial(self.bodies, position))
            for position in range(parameters["width"])
        )
        await asyncio.gather(*branches)
        await context.step("joined", partial(self.bodies, 0))

    async def _work(self, clients: int, concurrency: int) -> None:
        if not self._workers:
            for _ in range(clients):
                worker = self._new_client().start_worker(concurrency=concurrency)
                self._workers.append(asyncio.create_task(worker))

    async def sequential(self, steps: int) -> None:
        await self._see_through("chain", {"steps": steps}, steps)

    async def fanout(self, width: int) -> None:
        await self._see_through("fan", {"width": width}, width + 1)

    async def _see_through(self, task: str, parameters: dict[str, int], bodies: int) -> None:
        await self._work(1, 1)
        ran = self.bodies.expect(bodies)
        await self._spawners[0].spawn(task, parameters)
        await ran()
        await self.rest(_AT_REST)

    async def concurrent(self, runs: int, steps: int) -> Callable[[], Awaitable[None]]:
        async def work() -> None:
            ran = self.bodies.expect(runs * steps)
            await self._work(_CLIENTS, _EACH)
            spawning = (
                self._spawn(len(range(client, runs, _CLIENTS)), steps, client)
                for client in range(_CLIENTS)
            )
            await asyncio.gather(*spawning)
            await ran()
            await self.rest(_AT_REST)

        return work

    async def start(self, runs: int) -> None:
        await self._spawn(runs, 3)

    async def _spawn(self, runs: int, steps: int, client: int = 0) -> None:
        for _ in range(runs):
            await self._spawners[client].spawn("chain", {"steps": steps})

    def serving(self) -> AbstractAsyncContextManager[Serve] | None:
        return self._serving()

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[Serve]:
        yield lambda _seed: self.sequential(10)

    async def start_later(self) -> None:
        """Start a run that is due, with nobody there: it is its copies that will have to wait."""
        await self._stop_working()
        await self._spawn(1, 3)

    async def _stop_working(self) -> None:
        for worker in self._workers:
            await stop(worker)
        self._workers.clear()

    def keys(self) -> Keys:
        return {
            "t_default": ("task_id", "last_attempt_run"),
            "r_default": ("run_id", "task_id"),
            "c_default": ("task_id", "owner_run_id"),
        }

    def delays(self) -> Changes | None:
        tomorrow: LiteralString = "t.available_at + interval '1 day' + g * interval '10 ms'"
        return {"r_default": {"available_at": tomorrow}}

    async def tear_down(self) -> None:
        await self._stop_working()
        for client in self._clients:
            await client.close()
        await super().tear_down()
