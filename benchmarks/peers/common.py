"""What it takes to see a run of a job queue through: counting bodies, and looking for the end."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import attrs
import psycopg

from benchmarks.contender import StepBody
from benchmarks.measuring import pass_time
from benchmarks.postgres.base import OnServer
from benchmarks.postgres.meter import WAITING

CONCURRENCY: Final = 64
_LOOKS_EVERY: Final = 0.001


@attrs.define(eq=False)
class Bodies:
    """Counts the bodies that ran, so that nobody has to ask the database all the time."""

    body: StepBody
    _ran: int = 0
    _wanted: int = 0
    _reached: asyncio.Event = attrs.field(factory=asyncio.Event)
    _loop: asyncio.AbstractEventLoop = attrs.field(factory=asyncio.get_running_loop)

    async def __call__(self, seed: int) -> int:
        found = await self.body(seed)
        self._ran += 1
        if self._ran == self._wanted:
            self._loop.call_soon_threadsafe(self._reached.set)  # others may run bodies in threads
        return found

    def expect(self, more: int) -> Callable[[], Awaitable[object]]:
        """What waits until so many more bodies have run than now."""
        self._wanted = self._ran + more
        self._reached.clear()
        return self._reached.wait


@attrs.define(eq=False)
class Peer(OnServer):
    """Another library, with its worker in this process."""

    bodies: Bodies = attrs.field(init=False)
    _looking: "psycopg.AsyncConnection[tuple[Any, ...]]" = attrs.field(init=False)

    async def set_up(self, folder: Path, body: StepBody) -> None:
        await super().set_up(folder, body)
        self.bodies = Bodies(body)
        self._looking = await psycopg.AsyncConnection.connect(self.url, autocommit=True)

    async def tear_down(self) -> None:
        await self._looking.close()

    async def rest(self, question: str) -> None:
        """Look until the answer is yes: nothing is due and nothing is under way."""
        statement = f"{WAITING} select {question}"
        while True:
            answer = await self._looking.execute(statement.encode())
            if (await answer.fetchone()) == (True,):
                return
            await pass_time(_LOOKS_EVERY)

    async def execute(self, text: str) -> None:
        """Run several statements."""
        await self._looking.execute(text.encode(), prepare=False)


async def in_turn(runs: int, run: Callable[[int], Awaitable[object]]) -> None:
    """Do so many things, 64 at once."""
    numbers = iter(range(runs))

    async def slot() -> None:
        for number in numbers:
            await run(number)

    await asyncio.gather(*(slot() for _ in range(CONCURRENCY)))


async def stop(task: "asyncio.Task[object]") -> None:
    """Cancel what works for ever, and wait until it has stopped."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def finish(body: StepBody, seed: int) -> int:
    """Run a body that waits for nothing, where there is no loop to run it."""
    running = body(seed).__await__()
    try:
        next(running)
    except StopIteration as ended:
        return int(ended.value)
    raise AssertionError("A step's body has waited for something.")
