"""What all contenders on a PostgreSQL server have in common."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path

import attrs

from benchmarks.contender import Backlog, Contender, Count, NotOffered, Serve, Server, StepBody
from benchmarks.postgres.cloning import Changes, Keys, Original
from benchmarks.postgres.meter import LocalServer, counting_writes


@attrs.define(eq=False)
class OnServer(Contender):
    """A contender on one database of a server; what it cannot do is left to say so."""

    url: str
    body: StepBody = attrs.field(init=False)

    async def set_up(self, folder: Path, body: StepBody) -> None:  # noqa: ARG002  it needs no file
        self.body = body

    async def long(self, steps: int) -> None:
        await self.sequential(steps)

    async def fanout(self, width: int) -> None:
        raise NotOffered(width)

    async def start(self, runs: int) -> None:
        raise NotOffered(runs)

    async def start_bulk(self, runs: int) -> None:
        raise NotOffered(runs)

    def serving(self) -> AbstractAsyncContextManager[Serve] | None:
        return None

    def counting(self) -> AbstractAsyncContextManager[Count] | None:
        return counting_writes(self.url)

    def server(self) -> Server | None:
        return LocalServer.behind(self.url)

    async def pile_up(self, backlog: Backlog, runs: int) -> None:
        original = Original.before(self.url)
        match backlog:
            case Backlog.ENDED:
                await self.sequential(3)
            case Backlog.NOT_DUE:
                await self.start_later()
        original.copy(runs, self.keys(), self.delays() if backlog is Backlog.NOT_DUE else None)

    async def start_later(self) -> None:
        """Start one run of three steps that is not due before tomorrow."""
        raise NotOffered

    def keys(self) -> Keys:
        """Which columns tell one run's rows from another's."""
        raise NotOffered

    def delays(self) -> Changes | None:
        """What is to be changed in the copies of a run that was started to be left for later."""
        return None
