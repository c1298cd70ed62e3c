"""The floor on PostgreSQL: the least that a durable workflow can do there, written by hand.

A row per run and a row per step. All that piled up during a commit goes out with the next, as one
statement that fences and moves the runs, keeps the steps' results and, where there is room, claims
more runs: one round trip and one commit, however much it is. There are no retries, timers,
heartbeats, signals, history or payload contracts. It is no contender: it shows what the machine
allows.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import attrs
import psycopg

from benchmarks.contender import StepBody
from benchmarks.postgres.base import OnServer
from benchmarks.postgres.cloning import Keys

CONCURRENCY: Final = 64

_SCHEMA: Final = """
create table runs (
    run_id uuid not null primary key,
    due timestamptz not null,
    revision integer not null,
    status text not null,
    owner uuid,
    leased_until timestamptz,
    payload text not null
) with (fillfactor = 70);

create index runs_due on runs (due, run_id) where status = 'queued';

create table steps (
    run_id uuid not null,
    position integer not null,
    output text not null,
    primary key (run_id, position)
);
"""

_START: Final = """
insert into runs (run_id, due, revision, status, owner, leased_until, payload)
values (%s, now(), 0, %s, %s, now() + interval '1 minute', %s)
"""
_START_ALL: Final = """
insert into runs (run_id, due, revision, status, payload)
select r.run_id, %s, 0, 'queued', r.payload
from unnest(%s::uuid[], %s::text[]) as r(run_id, payload)
"""
_KEEP: Final = """
with moved as (
    update runs r
    set revision = m.after, status = m.status, leased_until = now() + interval '1 minute'
    from unnest(%s::uuid[], %s::int[], %s::int[], %s::text[]) as m(run_id, before, after, status)
    where r.run_id = m.run_id and r.revision = m.before and r.owner = %s
    returning r.run_id
), kept as (
    insert into steps (run_id, position, output)
    select s.run_id, s.position, s.output
    from unnest(%s::uuid[], %s::int[], %s::text[]) as s(run_id, position, output)
)
"""
_AND_NO_MORE: Final = f"{_KEEP} select null::uuid, count(*) from moved"  # noqa: S608  ours
_AND_CLAIM: Final = f"""
{_KEEP}, claimed as (
    update runs r
    set status = 'running', owner = %s, leased_until = now() + interval '1 minute'
    from (
        select run_id from runs
        where status = 'queued' and due <= now()
        order by due, run_id limit %s
        for update skip locked
    ) as d
    where r.run_id = d.run_id
    returning r.run_id
)
select null::uuid, count(*) from moved union all select run_id, 0 from claimed
"""  # noqa: S608  ours


@attrs.frozen
class _Done:
    """A step that was done, and the answer that its run waits for."""

    run_id: UUID
    revision: int
    status: str
    output: str
    committed: "asyncio.Future[None]"


@attrs.define(eq=False)
class BareServer(OnServer):
    """Runs steps and writes them down, and nothing else."""

    _connection: "psycopg.AsyncConnection[tuple[Any, ...]]" = attrs.field(init=False)
    _owner: UUID = attrs.field(factory=uuid4)
    _numbers: "count[int]" = attrs.field(factory=count)
    _waiting: list[_Done] = attrs.field(factory=list[_Done])
    _idle: list["asyncio.Future[UUID | None]"] = attrs.field(factory=list)
    _writing: "asyncio.Task[None] | None" = None

    async def set_up(self, folder: Path, body: StepBody) -> None:
        await super().set_up(folder, body)
        self._connection = await psycopg.AsyncConnection.connect(
            self.url, autocommit=True, prepare_threshold=0
        )
        await self._connection.execute(_SCHEMA, prepare=False)

    async def sequential(self, steps: int) -> None:
        await self._chain(await self._started("running"), steps)

    async def concurrent(self, runs: int, steps: int) -> Callable[[], Awaitable[None]]:
        await self.start_bulk(runs)

        async def slot() -> None:
            while (run_id := await self._claimed()) is not None:
                await self._chain(run_id, steps)

        async def work() -> None:
            await asyncio.gather(*(slot() for _ in range(CONCURRENCY)))

        return work

    async def fanout(self, width: int) -> None:
        run_id = await self._started("running")
        ended = iter(range(width))

        async def branch() -> None:
            output = await self.body(0)
            await self._keep(run_id, next(ended), "running", output)

        await asyncio.gather(*(branch() for _ in range(width)))
        await self._keep(run_id, width, "completed", await self.body(0))

    async def start(self, runs: int) -> None:
        for _ in range(runs):
            await self._started("queued")

    async def start_bulk(self, runs: int) -> None:
        await self._start_all(runs, datetime.now(UTC))

    async def start_later(self) -> None:
        await self._start_all(1, datetime.now(UTC) + timedelta(days=1))

    def keys(self) -> Keys:
        return {"*": ("run_id",)}

    async def tear_down(self) -> None:
        if self._writing is not None:
            await self._writing
        await self._connection.close()

    def _new_id(self) -> UUID:
        """As long as a UUID of version 7, and rising like them."""
        return UUID(int=(1 << 100) + (next(self._numbers) << 42))

    async def _started(self, status: str) -> UUID:
        run_id, payload = self._new_id(), json.dumps({"seed": 0})
        await self._connection.execute(_START, (run_id, status, self._owner, payload))
        return run_id

    async def _start_all(self, runs: int, due: datetime) -> None:
        run_ids = [self._new_id() for _ in range(runs)]
        payloads = [json.dumps({"seed": seed}) for seed in range(runs)]
        await self._connection.execute(_START_ALL, (due, run_ids, payloads))

    async def _chain(self, run_id: UUID, steps: int) -> None:
        for position in range(steps):
            output = await self.body(position)
            status = "running" if position < steps - 1 else "completed"
            await self._keep(run_id, position, status, output)

    def _keep(
        self, run_id: UUID, revision: int, status: str, output: int
    ) -> "asyncio.Future[None]":
        committed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Done(run_id, revision, status, json.dumps(output), committed))
        self._write_soon()
        return committed

    def _claimed(self) -> "asyncio.Future[UUID | None]":
        """The next run that is due; None if there was none."""
        claimed: asyncio.Future[UUID | None] = asyncio.get_running_loop().create_future()
        self._idle.append(claimed)
        self._write_soon()
        return claimed

    def _write_soon(self) -> None:
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write_all())

    async def _write_all(self) -> None:
        while self._waiting or self._idle:
            batch, self._waiting = self._waiting, []
            idle, self._idle = self._idle, []
            claimed = iter(await self._write(batch, len(idle)))
            for done in batch:
                done.committed.set_result(None)
            for slot in idle:
                slot.set_result(next(claimed, None))
        self._writing = None

    async def _write(self, batch: Sequence[_Done], wanted: int) -> list[UUID]:
        """Write down what was done and take so many runs more, in one statement and commit."""
        first = {done.run_id: done for done in reversed(batch)}
        last = {done.run_id: done for done in batch}
        kept: list[object] = [
            list(first),
            [done.revision for done in first.values()],
            [last[run_id].revision + 1 for run_id in first],
            [last[run_id].status for run_id in first],
            self._owner,
            [done.run_id for done in batch],
            [done.revision for done in batch],
            [done.output for done in batch],
        ]
        if wanted:
            answer = await self._connection.execute(_AND_CLAIM, [*kept, self._owner, wanted])
        else:
            answer = await self._connection.execute(_AND_NO_MORE, kept)
        rows = await answer.fetchall()
        if sum(moved for _, moved in rows) != len(first):
            raise AssertionError("Somebody else has moved a run.")
        return [run_id for run_id, _ in rows if run_id is not None]
