"""squidmesh as a contender, over any store that a URL names."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final, Self

import attrs

from benchmarks.contender import Contender, Count, Serve, StepBody
from benchmarks.mesh_workflows import AnyWorkflow, Ends, NextEnd, Seed, chain_of, fan_of
from benchmarks.wal import counting_commits
from squidmesh import SquidMesh, Worker

_LONGEST: Final = timedelta(minutes=30)


@attrs.frozen
class Prepared:
    """A workflow and the mesh that knows it."""

    mesh: SquidMesh
    workflow: AnyWorkflow


@attrs.define(eq=False)
class OverMesh(Contender):
    """A mesh per workflow, all over one store, which work until nothing is due."""

    _file: str | None
    _folder: Path = attrs.field(init=False)
    _body: StepBody = attrs.field(init=False)
    _prepared: dict[str, Prepared] = attrs.field(factory=dict[str, Prepared])

    @classmethod
    def on_memory(cls) -> Self:
        """A contender that keeps everything in memory."""
        return cls(None)

    @classmethod
    def on_sqlite(cls) -> Self:
        """A contender over an SQLite file."""
        return cls("mesh.db")

    async def set_up(self, folder: Path, body: StepBody) -> None:
        self._folder, self._body = folder, body

    async def sequential(self, steps: int) -> None:
        found = await self.chain(steps)
        await found.mesh.start_run(found.workflow, Seed(seed=steps))
        await found.mesh.run_until_idle(timeout=_LONGEST)

    async def concurrent(self, runs: int, steps: int) -> Callable[[], Awaitable[None]]:
        found = await self.chain(steps)
        await found.mesh.start_runs(found.workflow, [Seed(seed=seed) for seed in range(runs)])
        return lambda: found.mesh.run_until_idle(timeout=_LONGEST)

    async def long(self, steps: int) -> None:
        await self.sequential(steps)

    async def fanout(self, width: int) -> None:
        found = self._prepared.get(f"fan-{width}")
        if found is None:
            found = await self._prepare(f"fan-{width}", fan_of(width, self._body))
        await found.mesh.start_run(found.workflow, Seed(seed=width))
        await found.mesh.run_until_idle(timeout=_LONGEST)

    async def start(self, runs: int) -> None:
        found = await self.chain(3)
        for seed in range(runs):
            await found.mesh.start_run(found.workflow, Seed(seed=seed))

    async def start_bulk(self, runs: int) -> None:
        found = await self.chain(3)
        await found.mesh.start_runs(found.workflow, [Seed(seed=seed) for seed in range(runs)])

    def serving(self) -> AbstractAsyncContextManager[Serve] | None:
        return self._serving()

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[Serve]:
        ended, workflow = NextEnd(), chain_of(10, self._body)
        telemetry = Ends(ended.happen)
        async with SquidMesh.open(self.url, workflows=[workflow], telemetry=telemetry) as mesh:
            worker = Worker(mesh)
            working = asyncio.create_task(worker.run())
            starter = await self.starter_beside(mesh)

            async def serve(seed: int) -> None:
                end = ended.expect()
                await starter.start_run(workflow, Seed(seed=seed))
                await end

            yield serve
            worker.stop()
            await working

    async def starter_beside(self, worker: SquidMesh) -> SquidMesh:
        """Whose runs a waiting worker is to pick up: those of its own mesh."""
        return worker

    def counting(self) -> AbstractAsyncContextManager[Count] | None:
        return None if self._file is None else counting_commits(self._folder / self._file)

    async def tear_down(self) -> None:
        for found in self._prepared.values():
            await found.mesh.aclose()

    @property
    def url(self) -> str:
        """Where the runs are kept."""
        return "memory://" if self._file is None else f"sqlite:///{self._folder / self._file}"

    async def chain(self, steps: int) -> Prepared:
        """The workflow of so many steps, ready to be started and worked on."""
        found = self._prepared.get(f"chain-{steps}")
        return found or await self._prepare(f"chain-{steps}", chain_of(steps, self._body))

    async def _prepare(self, name: str, workflow: AnyWorkflow) -> Prepared:
        mesh = SquidMesh.open(self.url, workflows=[workflow])
        await mesh.engine()
        self._prepared[name] = Prepared(mesh, workflow)
        return self._prepared[name]
