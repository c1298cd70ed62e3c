"""Clocks, and what is made of what they say."""

import asyncio
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Final, Self

import attrs

from benchmarks.contender import Server, StepBody

_PAGE: Final = b"\0" * 8192
_sync: Final = getattr(os, "fdatasync", os.fsync)


@attrs.frozen
class Spent:
    """Time that has passed, and time that this process's threads have computed, in seconds."""

    wall: float
    cpu: float

    @classmethod
    def so_far(cls) -> Self:
        """The time now, to measure from."""
        return cls(time.perf_counter(), time.process_time())

    def until_now(self) -> "Spent":
        """What was spent since."""
        now = Spent.so_far()
        return Spent(now.wall - self.wall, now.cpu - self.cpu)


@attrs.frozen
class Watched:
    """What a server had done at a moment, to measure from; nothing if there is no server."""

    _server: Server | None
    _cpu: float | None
    _size: int

    @classmethod
    def on(cls, server: Server | None) -> Self:
        """Look at the server now."""
        return cls(server, server.cpu(), server.table_bytes()) if server else cls(None, None, 0)

    def until_now(self, steps: int, runs: int) -> dict[str, float]:
        """What so many steps of so many runs have cost it since."""
        if self._server is None:
            return {}
        cpu = self._server.cpu()
        figures = {"table_bytes_per_run": (self._server.table_bytes() - self._size) / runs}
        if cpu is not None and self._cpu is not None:
            figures["server_cpu_ms"] = (cpu - self._cpu) / steps * 1000
        return figures


@attrs.define
class Ticks:
    """When steps were run: each body notes it, and on request how much was computed until then."""

    notes_cpu: bool = False
    wall: list[float] = attrs.field(factory=list[float])
    cpu: list[float] = attrs.field(factory=list[float])

    def body(self) -> StepBody:
        """A step's body that notes when it was called."""

        async def noted(seed: int) -> int:
            self.wall.append(time.perf_counter())
            return seed

        async def noted_with_cpu(seed: int) -> int:
            self.wall.append(time.perf_counter())
            self.cpu.append(time.process_time())
            return seed

        return noted_with_cpu if self.notes_cpu else noted

    def clear(self) -> None:
        """Forget what was noted."""
        self.wall.clear()
        self.cpu.clear()


def gaps(moments: Sequence[float]) -> list[float]:
    """What passed from each step's beginning to the next one's."""
    return [end - start for start, end in pairwise(moments)]


def around(values: Sequence[float], step: int, reach: int) -> float:
    """The median of the gaps around a step, counted from 1, as far as there are any."""
    return median(values[max(step - reach - 1, 0) : step + reach])


async def pass_time(seconds: float) -> None:
    """Wait, so that whoever has something left to do comes to rest."""
    try:
        async with asyncio.timeout(seconds):
            await asyncio.Event().wait()
    except TimeoutError:
        pass


async def hop_ms(times: int = 200) -> float:
    """The median of what it takes to ask another thread something and hear the answer.

    Machines have moods: what costs nothing in one minute may cost five times as much in the next.
    """
    loop = asyncio.get_running_loop()
    took: list[float] = []
    with ThreadPoolExecutor(1) as pool:
        for _ in range(times):
            began = time.perf_counter()
            await loop.run_in_executor(pool, int)
            took.append(time.perf_counter() - began)
    return median(took) * 1000


def sync_ms(folder: Path, times: int = 50) -> float:
    """The median of what it takes to write two pages and have the disk say that it has them."""
    took: list[float] = []
    file = os.open(folder / "sync", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.pwrite(file, _PAGE, 0)
        os.fsync(file)
        for _ in range(times):
            began = time.perf_counter()
            os.pwrite(file, _PAGE, 0)
            _sync(file)
            took.append(time.perf_counter() - began)
    finally:
        os.close(file)
    return median(took) * 1000
