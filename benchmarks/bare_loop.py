"""The floor: the least that a durable workflow can do on SQLite, written by hand.

It has a row per run and a row per step, and each step fences and moves its run's row and leaves
its own in one commit. A thread writes, so that the event loop is free for the steps' bodies; all
that piled up during one commit goes out with the next. There are no retries, timers, leases,
claims, signals, history or payload contracts, and nothing could take over from it. It is no
contender: it shows what the machine allows.
"""

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from itertools import count
from pathlib import Path
from typing import Final

import attrs

from benchmarks.contender import Contender, Count, Serve, StepBody
from benchmarks.wal import counting_commits

CONCURRENCY: Final = 64
CHUNK: Final = 1000

_SCHEMA: Final = """
create table runs (
    run_id text not null primary key,
    revision integer not null,
    status text not null,
    payload text not null
) strict, without rowid;

create table steps (
    run_id text not null,
    position integer not null,
    output text not null,
    primary key (run_id, position)
) strict, without rowid;
"""

_START: Final = "insert into runs (run_id, revision, status, payload) values (?, 0, 'running', ?)"
_MOVE: Final = "update runs set revision = ?, status = ? where run_id = ? and revision = ?"
_KEEP: Final = "insert into steps (run_id, position, output) values (?, ?, ?)"


@attrs.frozen
class _Done:
    """A step that was done, and the answer that its run waits for."""

    run_id: str
    revision: int
    status: str
    output: str
    committed: "asyncio.Future[None]"


@attrs.define(eq=False)
class BareLoop(Contender):
    """Runs steps and writes them down, and nothing else."""

    _connection: sqlite3.Connection = attrs.field(init=False)
    _path: Path = attrs.field(init=False)
    _body: StepBody = attrs.field(init=False)
    _writer: ThreadPoolExecutor = attrs.field(factory=lambda: ThreadPoolExecutor(1))
    _numbers: "count[int]" = attrs.field(factory=count)
    _waiting: list[_Done] = attrs.field(factory=list[_Done])
    _writing: "asyncio.Task[None] | None" = None

    async def set_up(self, folder: Path, body: StepBody) -> None:
        self._body = body
        self._path = folder / "floor.db"
        self._connection = sqlite3.connect(
            self._path, isolation_level=None, check_same_thread=False
        )
        self._connection.execute("pragma journal_mode = wal")
        self._connection.execute("pragma synchronous = full")
        self._connection.executescript(_SCHEMA)

    async def sequential(self, steps: int) -> None:
        (run_id,) = await self._started(1)
        await self._chain(run_id, steps)

    async def concurrent(self, runs: int, steps: int) -> Callable[[], Awaitable[None]]:
        waiting = iter(await self._started(runs))

        async def slot() -> None:
            for run_id in waiting:
                await self._chain(run_id, steps)

        async def work() -> None:
            await asyncio.gather(*(slot() for _ in range(CONCURRENCY)))

        return work

    async def long(self, steps: int) -> None:
        await self.sequential(steps)

    async def fanout(self, width: int) -> None:
        (run_id,) = await self._started(1)
        ended = iter(range(width))

        async def branch() -> None:
            output = await self._body(0)
            await self._keep(run_id, next(ended), "running", output)

        await asyncio.gather(*(branch() for _ in range(width)))
        await self._keep(run_id, width, "completed", await self._body(0))

    async def start(self, runs: int) -> None:
        for _ in range(runs):
            await self._started(1)

    async def start_bulk(self, runs: int) -> None:
        await self._started(runs)

    def serving(self) -> AbstractAsyncContextManager[Serve] | None:
        return None

    def counting(self) -> AbstractAsyncContextManager[Count] | None:
        return counting_commits(self._path)

    async def tear_down(self) -> None:
        if self._writing is not None:
            await self._writing
        self._writer.shutdown()
        self._connection.close()

    async def _started(self, runs: int) -> Sequence[str]:
        loop = asyncio.get_running_loop()
        # As long as a UUID, and rising like those of version 7.
        run_ids = [f"run-{next(self._numbers):032}" for _ in range(runs)]
        for first in range(0, runs, CHUNK):
            rows = [
                (run_id, json.dumps({"seed": seed}))
                for seed, run_id in enumerate(run_ids[first : first + CHUNK])
            ]
            await loop.run_in_executor(self._writer, self._start, rows)
        return run_ids

    async def _chain(self, run_id: str, steps: int) -> None:
        for position in range(steps):
            output = await self._body(position)
            status = "running" if position < steps - 1 else "completed"
            await self._keep(run_id, position, status, output)

    def _keep(self, run_id: str, position: int, status: str, output: int) -> "asyncio.Future[None]":
        loop = asyncio.get_running_loop()
        done = _Done(run_id, position, status, json.dumps(output), loop.create_future())
        self._waiting.append(done)
        if self._writing is None:
            self._writing = loop.create_task(self._write_all())
        return done.committed

    async def _write_all(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting, []
            await loop.run_in_executor(self._writer, self._write, batch)
            for done in batch:
                done.committed.set_result(None)
        self._writing = None

    def _start(self, rows: Iterable[tuple[str, str]]) -> None:
        self._connection.execute("begin immediate")
        self._connection.executemany(_START, rows)
        self._connection.execute("commit")

    def _write(self, batch: Sequence[_Done]) -> None:
        self._connection.execute("begin immediate")
        moved = self._connection.executemany(
            _MOVE,
            [(done.revision + 1, done.status, done.run_id, done.revision) for done in batch],
        )
        if moved.rowcount != len(batch):
            raise AssertionError("Somebody else has moved a run.")
        self._connection.executemany(
            _KEEP, [(done.run_id, done.revision, done.output) for done in batch]
        )
        self._connection.execute("commit")
