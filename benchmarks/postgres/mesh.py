"""squidmesh as a contender on a PostgreSQL server."""

from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path
from typing import Final

import attrs

from benchmarks.contender import Backlog, Count, Crowd, Server, StepBody
from benchmarks.crowd import crowding
from benchmarks.mesh_workflows import Seed, chain_of
from benchmarks.over_mesh import OverMesh
from benchmarks.postgres.cloning import Original
from benchmarks.postgres.meter import LocalServer, counting_writes
from squidmesh import SquidMesh

_KEYS: Final = {"*": ("run_id",)}
_TOMORROW: Final = {
    "step_runs": {
        "visible_at": "t.visible_at + interval '1 day' + g * interval '10 ms'",
        "wake_at": "t.wake_at + interval '1 day' + g * interval '10 ms'",
    }
}
_LONGEST: Final = timedelta(minutes=1)


@attrs.define(eq=False)
class OverPostgres(OverMesh):
    """A mesh per workflow, all over one database of a server."""

    _server_url: str = ""

    @classmethod
    def at(cls, url: str) -> "OverPostgres":
        """A contender over the database at *url*."""
        return cls(file=None, server_url=url)

    async def set_up(self, folder: Path, body: StepBody) -> None:
        await super().set_up(folder, body)
        async with SquidMesh.open(self.url, workflows=[chain_of(3, body)]) as mesh:
            await mesh.migrate()

    @property
    def url(self) -> str:
        return self._server_url

    async def starter_beside(self, worker: SquidMesh) -> SquidMesh:  # noqa: ARG002  another
        """Whose runs a waiting worker is to pick up: another's, of which the server has to tell."""
        return (await self.chain(10)).mesh

    def counting(self) -> AbstractAsyncContextManager[Count] | None:
        return counting_writes(self.url)

    def server(self) -> Server | None:
        return LocalServer.behind(self.url)

    async def pile_up(self, backlog: Backlog, runs: int) -> None:
        await self.sequential(3)  # the definition is stored once and for all
        original = Original.before(self.url)
        match backlog:
            case Backlog.ENDED:
                await self.sequential(3)
                original.copy(runs, _KEYS)
            case Backlog.NOT_DUE:
                await self.start(1)
                original.copy(runs, _KEYS, _TOMORROW)
                found = await self.chain(3)
                await found.mesh.run_until_idle(timeout=_LONGEST)  # the original is due

    async def crowd(self, processes: int, runs: int, steps: int) -> Crowd:
        found = await self.chain(steps)
        async with crowding(self.url, processes, steps) as members:
            await found.mesh.start_runs(found.workflow, [Seed(seed=seed) for seed in range(runs)])
            return await members.see_through(runs)
