"""Several processes that work on one database, and what they say of it.

``python -m benchmarks.crowd STEPS`` is one of them. It tells the one that started it when it is
ready, which bodies it ran, and which runs ended; it stops when its input ends.
"""

import asyncio
import os
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import attrs

from benchmarks.contender import Crowd, StepBody
from benchmarks.mesh_workflows import Ends, chain_through
from squidmesh import SquidMesh, Worker

_ROOT: Final = Path(__file__).parent.parent
_LONGEST: Final = 600.0
_READY: Final = "ready"
_BODY: Final = "body"
_END: Final = "end"


@attrs.define(eq=False)
class Members:
    """The processes that work together."""

    _processes: Sequence[Process]

    async def ready(self) -> None:
        """Return when all of them wait for work."""
        for process in self._processes:
            assert await _told(process) == [_READY], "A process did not come up."

    async def see_through(self, runs: int) -> Crowd:
        """Return when so many runs have ended; the clock runs from the first body on."""
        moments: list[float] = []
        bodies: list[str] = []
        done = asyncio.Event()

        async def listen(process: Process) -> None:
            while said := await _told(process):
                match said:
                    case [word, *rest] if word == _BODY:
                        moments[:1] = moments[:1] or [time.perf_counter()]
                        bodies.append(" ".join(rest))
                    case _:
                        moments.append(time.perf_counter())
                        if len(moments) == runs + 1:
                            done.set()

        listening = [asyncio.create_task(listen(process)) for process in self._processes]
        async with asyncio.timeout(_LONGEST):
            await done.wait()
        for task in listening:
            task.cancel()
        await asyncio.gather(*listening, return_exceptions=True)
        return Crowd(moments[-1] - moments[0], bodies)


@asynccontextmanager
async def crowding(url: str, processes: int, steps: int) -> AsyncIterator[Members]:
    """Have so many processes wait for runs of so many steps on the database at *url*."""
    async with AsyncExitStack() as stack:
        found = [await stack.enter_async_context(_member(url, steps)) for _ in range(processes)]
        members = Members(found)
        await members.ready()
        yield members


@asynccontextmanager
async def _member(url: str, steps: int) -> AsyncIterator[Process]:
    command = [sys.executable, "-m", "benchmarks.crowd", str(steps)]
    # The URL may hold a password, and command lines are for everybody to read.
    environment = {**os.environ, "BENCHMARKS_URL": url}
    process = await asyncio.create_subprocess_exec(
        *command, stdin=PIPE, stdout=PIPE, cwd=_ROOT, env=environment
    )
    assert process.stdin is not None
    try:
        yield process
    finally:
        process.stdin.close()
        await process.wait()


async def _told(process: Process) -> list[str]:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().split()


def say(*words: object) -> None:
    """Tell the process that started this one, at once."""
    os.write(1, f"{' '.join(map(str, words))}\n".encode())


def _telling(number: int) -> StepBody:
    async def tell(seed: int) -> int:
        say(_BODY, number, seed)
        return seed

    return tell


async def work(url: str, steps: int) -> None:
    """Be one of several, until the input ends."""
    workflow = chain_through([_telling(number) for number in range(steps)])
    telemetry = Ends(lambda: say(_END))
    async with SquidMesh.open(url, workflows=[workflow], telemetry=telemetry) as mesh:
        worker = Worker(mesh)
        working = asyncio.create_task(worker.run())
        say(_READY)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        worker.stop()
        await working


if __name__ == "__main__":
    asyncio.run(work(os.environ["BENCHMARKS_URL"], int(sys.argv[1])))
