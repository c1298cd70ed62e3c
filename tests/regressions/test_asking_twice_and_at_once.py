"""Answers about runs while others change them, and starts that were made before.

Found by reading the runtime as a stranger: repeating a bulk start took a commit for each run of
it, a command beside a start of the same run heard that there is no such run, and a history could
end before the run that it was told with.
"""

import asyncio
from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from squidmesh import (
    IdempotencyConflictError,
    InvalidOptionError,
    Run,
    RunExistsError,
    SquidMesh,
    Worker,
    step,
)
from squidmesh.adapters.memory import MemoryStore
from squidmesh.adapters.sqlite import claiming
from squidmesh.adapters.sqlite.connection import connect
from squidmesh.domain.entries import Issuer, RunReplayed
from squidmesh.domain.evolution import rebuild
from squidmesh.ports.store import ClaimRequest, ClaimTicket, JournalRow
from squidmesh.testing.clock import VirtualClock
from tests.runtime.conftest import OpenMesh
from tests.runtime.support import Gate, Order, ShakyStore, only, workflow

pytestmark = pytest.mark.anyio


async def quick() -> None: ...


async def test_a_bulk_start_that_was_made_before_is_found_in_a_few_commits(
    composed: OpenMesh, store: ShakyStore
) -> None:
    made = only(quick)
    mesh = await composed(made)
    keys = [f"order-{number}" for number in range(40)]
    first = await mesh.start_runs(made, [Order()] * 30, idempotency_keys=keys[:30])
    before = len(store.commits)

    second = await mesh.start_runs(made, [Order()] * 40, idempotency_keys=keys)

    assert second[:30] == first
    assert len(set(second)) == 40
    assert len(store.commits) - before <= 2


async def test_a_command_beside_a_start_of_the_same_run_finds_the_run_that_there_is(
    on_file: OpenMesh,
) -> None:
    made = only(quick)
    mesh, other = await on_file(made), await on_file(made)
    run = await other.start_run(made)

    cancelled, started = await asyncio.gather(
        mesh.cancel_run(run.id), mesh.start_run(made, run_id=run.id), return_exceptions=True
    )

    assert isinstance(cancelled, Run)
    assert cancelled.status == "cancelled"
    assert isinstance(started, RunExistsError)


class Growing(MemoryStore):
    """A store in which somebody else commits before and behind each look at a journal."""

    async def read(self, run_id: str, *, after: int = 0) -> tuple[JournalRow, ...]:
        await self._grow(run_id)
        rows: Sequence[JournalRow] = await super().read(run_id, after=after)
        await self._grow(run_id)
        return tuple(rows)

    async def _grow(self, run_id: str) -> None:
        loaded = await self.load([run_id])
        revision = loaded.states[run_id].revision
        entry = RunReplayed(at=loaded.at, new_run_id="other", issuer=Issuer())
        row = JournalRow(revision=revision + 1, at=loaded.at, cause="replay", entries=(entry,))
        await self.append(run_id, revision, row)


async def test_a_history_ends_where_the_run_stands_that_it_is_told_with() -> None:
    made = only(quick)
    clock = VirtualClock()
    async with SquidMesh(store=Growing(clock=clock), workflows=[made], clock=clock) as mesh:
        started = await mesh.start_run(made)

        run = await mesh.inspect_run(started.id, include_history=True)

    assert run.entries is not None
    assert run.entries[-1].seq == run.revision


async def test_a_worker_takes_no_lease_that_outlasts_the_calendar(composed: OpenMesh) -> None:
    mesh = await composed(only(quick))

    with pytest.raises(InvalidOptionError, match="at most a year"):
        Worker(mesh, lease=timedelta.max)


async def test_a_claim_does_not_walk_through_a_backlog_in_which_every_priority_is_another(
    on_file: OpenMesh, tmp_path: Path
) -> None:
    made = only(quick)
    mesh = await on_file(made)
    await asyncio.gather(*(mesh.start_run(made, priority=number) for number in range(100)))
    engine = await mesh.engine()
    request = ClaimRequest(
        owner="counted",
        queues=("default",),
        definitions=tuple(await engine.registry.runnable()),
        tickets=(ClaimTicket(claim_id="one", token_hash="one"),),
        lease=timedelta(minutes=1),
    )
    statements: list[str] = []
    with closing(connect(tmp_path / "mesh.db")) as connection:
        connection.set_trace_callback(statements.append)

        claims = claiming.claim(connection, request, engine.clock.now())

    assert len(claims.claimed) == 1
    assert claims.next_visible_at is not None
    assert len(statements) < 20


async def test_a_key_that_stands_twice_with_other_input_is_refused_before_anything_is_started(
    composed: OpenMesh,
) -> None:
    made = only(quick)
    mesh = await composed(made)
    orders = [Order(number=str(number)) for number in range(1001)]
    keys = ["same", *[None] * 999, "same"]

    with pytest.raises(IdempotencyConflictError):
        await mesh.start_runs(made, orders, idempotency_keys=keys)

    assert (await mesh.list_runs()).runs == ()


async def test_steps_are_read_from_a_file_in_the_order_in_which_the_run_reached_them(
    on_file: OpenMesh,
) -> None:
    gates = {name: Gate() for name in ("alpha", "beta", "gamma", "delta", "omega")}
    roots = {name: step(gate.wait) for name, gate in gates.items()}
    rest = {f"behind_{name}": step(quick, after=(root,)) for name, root in roots.items()}
    made = workflow("wide", **roots, **rest)
    mesh = await on_file(made)
    run = await mesh.start_run(made)
    working = asyncio.create_task(mesh.run_until_idle())
    for gate in gates.values():
        await gate.reached()

    for gate in gates.values():
        gate.opened.set()
    await working

    engine = await mesh.engine()
    stored = (await engine.store.load([run.id])).states[run.id]
    entries = [entry for row in await engine.store.read(run.id) for entry in row.entries]
    assert list(stored.steps) == list(rebuild(run.id, entries).steps)
