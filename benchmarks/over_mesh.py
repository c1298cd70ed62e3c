"""squidmesh as a contender, over any store that a URL names."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from types import new_class
from typing import Any, Final, Self, TypeAlias

import attrs

from benchmarks.contender import Contender, Count, Serve, StepBody
from benchmarks.wal import counting_commits
from squidmesh import SquidMesh, Worker, Workflow, manual, path, step
from squidmesh.runtime.telemetry import Event

AnyWorkflow: TypeAlias = type[Workflow[Any]]

_LONGEST: Final = timedelta(minutes=30)


@attrs.frozen(kw_only=True)
class Seed:
    """What every run starts with: its number."""

    seed: int


@attrs.define(eq=False)
class Ended:
    """A telemetry sink that waits for one run's end."""

    _end: "asyncio.Future[None] | None" = None

    def expect(self) -> "asyncio.Future[None]":
        """Return what is done when the next run ends."""
        self._end = asyncio.get_running_loop().create_future()
        return self._end

    def emit(self, event: Event) -> None:
        """Take an event; what it tells of is durable already."""
        if event.metadata.get("to_status") == "completed" and self._end is not None:
            self._end.set_result(None)


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
        found = await self._chain(steps)
        await found.mesh.start_run(found.workflow, Seed(seed=steps))
        await found.mesh.run_until_idle(timeout=_LONGEST)

    async def concurrent(self, runs: int, steps: int) -> Callable[[], Awaitable[None]]:
        found = await self._chain(steps)
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
        found = await self._chain(3)
        for seed in range(runs):
            await found.mesh.start_run(found.workflow, Seed(seed=seed))

    async def start_bulk(self, runs: int) -> None:
        found = await self._chain(3)
        await found.mesh.start_runs(found.workflow, [Seed(seed=seed) for seed in range(runs)])

    def serving(self) -> AbstractAsyncContextManager[Serve] | None:
        return self._serving()

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[Serve]:
        ended, workflow = Ended(), chain_of(10, self._body)
        async with SquidMesh.open(self._url, workflows=[workflow], telemetry=ended) as mesh:
            worker = Worker(mesh)
            working = asyncio.create_task(worker.run())

            async def serve(seed: int) -> None:
                end = ended.expect()
                await mesh.start_run(workflow, Seed(seed=seed))
                await end

            yield serve
            worker.stop()
            await working

    def counting(self) -> AbstractAsyncContextManager[Count] | None:
        return None if self._file is None else counting_commits(self._folder / self._file)

    async def tear_down(self) -> None:
        for found in self._prepared.values():
            await found.mesh.aclose()

    @property
    def _url(self) -> str:
        return "memory://" if self._file is None else f"sqlite:///{self._folder / self._file}"

    async def _chain(self, steps: int) -> Prepared:
        found = self._prepared.get(f"chain-{steps}")
        return found or await self._prepare(f"chain-{steps}", chain_of(steps, self._body))

    async def _prepare(self, name: str, workflow: AnyWorkflow) -> Prepared:
        mesh = SquidMesh.open(self._url, workflows=[workflow])
        await mesh.engine()
        self._prepared[name] = Prepared(mesh, workflow)
        return self._prepared[name]


def chain_of(length: int, body: StepBody) -> AnyWorkflow:
    """A workflow of *length* steps, one behind the other; each keeps what it returned."""
    steps = [step(body, output=f"output_{number}") for number in range(length)]
    return _workflow(f"chain_{length}", steps, transitions=path(*steps))


def fan_of(width: int, body: StepBody) -> AnyWorkflow:
    """A workflow of *width* steps that wait for nothing, and one that waits for all of them."""
    branches = [step(body, output=f"output_{number}") for number in range(width)]
    joined = step(body, output="joined", after=tuple(branches))
    return _workflow(f"fan_{width}", [*branches, joined])


def _workflow(name: str, steps: list[Any], **options: object) -> AnyWorkflow:
    """The class that somebody with much patience would have written out."""
    attributes = {
        "name": name,
        "__doc__": f"The workflow {name}.",
        "by_hand": manual(),
        **{f"step_{number}": one for number, one in enumerate(steps)},
        **options,
    }
    return new_class(name, (Workflow[Seed],), exec_body=lambda space: space.update(attributes))
