"""What costs the same however much is stored: claims, lists, and commits beside busy threads."""

import sqlite3
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from squidmesh.adapters.sqlite import SQLiteStore, claiming, listing
from squidmesh.domain.state import RunStatus
from squidmesh.ports.store import Change, RunQuery
from squidmesh.testing.builders import (
    alone,
    request,
    run_id,
    start,
    together,
)
from squidmesh.testing.clock import VirtualClock

pytestmark = pytest.mark.anyio

DAY = timedelta(days=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mesh.db"


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def store(path: Path, clock: VirtualClock) -> AsyncIterator[SQLiteStore]:
    store = await SQLiteStore.open(path, clock=clock)
    yield store
    await store.close()


async def rows(store: SQLiteStore, sql: str, *values: object) -> list[tuple[Any, ...]]:
    """What a statement says, as this store sees its file."""
    return await store._database.read(lambda connection: connection.execute(sql, values).fetchall())


async def change(store: SQLiteStore, sql: str, *values: object) -> None:
    """Alter what is stored, behind the store's back."""
    await store._database.write(lambda connection, _: connection.execute(sql, values))


async def plan(store: SQLiteStore, sql: str, values: Any) -> list[str]:
    """How SQLite means to answer a statement, a line for each step."""
    explained = await store._database.read(
        lambda connection: connection.execute(f"explain query plan {sql}", values).fetchall()
    )
    return [line for _, _, _, line in explained]


async def test_a_claim_searches_the_index_and_sorts_nothing(store: SQLiteStore) -> None:
    waiting = await plan(store, claiming.WAITING, ("default", "f", 0, 1))
    expired = await plan(store, claiming.EXPIRED, ("now", 1))
    queues = await plan(store, claiming.NEXT_QUEUE, ("default",))

    assert waiting[0] == (
        "SEARCH attempts USING INDEX squidmesh_attempts_due "
        "(queue=? AND definition=? AND priority<?)"
    )
    assert expired == [
        "SEARCH squidmesh_attempts USING INDEX squidmesh_attempts_leased (lease_until<?)"
    ]
    assert "squidmesh_attempts_due (queue>?)" in queues[0]
    assert not any("TEMP B-TREE" in line for line in (*waiting, *expired, *queues))


async def _work_of_a_claim(store: SQLiteStore) -> int:
    """How many hundreds of instructions of SQLite's machine one claim takes."""
    hundreds = 0

    def count() -> None:
        nonlocal hundreds
        hundreds += 1

    def claim(connection: sqlite3.Connection, now: Any) -> None:
        connection.set_progress_handler(count, 100)
        claiming.claim(connection, request(tickets=3), now)
        connection.set_progress_handler(None, 0)

    await store._database.write(claim)
    return hundreds


async def test_a_claim_costs_the_same_beside_any_backlog(
    store: SQLiteStore, clock: VirtualClock
) -> None:
    due = [start(run_id(number), at=clock.now()) for number in range(6)]
    await store.commit(alone(*due))
    before = await _work_of_a_claim(store)

    tomorrow = [
        start(run_id(number), at=clock.now(), visible_at=clock.now() + DAY, priority=number % 2)
        for number in range(100, 3100)
    ]
    later = [start(run_id(number), at=clock.now(), queue="other") for number in range(5000, 6000)]
    await store.commit([*together(*tomorrow), *together(*later)])
    after = await _work_of_a_claim(store)

    assert len(await rows(store, "select 1 from squidmesh_attempts where status = 'claimed'")) == 6
    assert after <= before + 10


async def test_attempts_of_a_run_that_is_over_are_not_claimed_whatever_their_rows_say(
    store: SQLiteStore, clock: VirtualClock
) -> None:
    await store.commit(alone(start(at=clock.now())))
    await change(store, "update squidmesh_runs set status = 'cancelled'")

    claims = await store.claim(request())

    assert (claims.claimed, claims.next_visible_at) == ((), None)


async def test_priorities_at_both_ends_of_the_range_are_claimed(
    store: SQLiteStore, clock: VirtualClock
) -> None:
    ends = (-(2**63), 0, 2**63 - 1)
    later = clock.now() + DAY
    for number, priority in enumerate(ends):
        await store.commit(
            alone(
                start(run_id(number), at=clock.now(), priority=priority),
                start(run_id(number + 10), at=clock.now(), priority=priority, visible_at=later),
            )
        )

    claims = await store.claim(request(tickets=9))

    assert [claimed.run_id for claimed in claims.claimed] == [run_id(2), run_id(1), run_id(0)]
    assert claims.next_visible_at == later


@pytest.mark.parametrize("statistics", ["none", "of runs that are all alike"])
@pytest.mark.parametrize(
    ("query", "index"),
    [
        (RunQuery(), "squidmesh_runs_started"),
        (RunQuery(tags={"team": "blue"}), "squidmesh_runs_started"),
        (RunQuery(workflow="orders"), "squidmesh_runs_workflow"),
        (RunQuery(statuses=frozenset({RunStatus.PAUSED})), "squidmesh_runs_status"),
        (
            RunQuery(workflow="orders", statuses=frozenset({RunStatus.PAUSED, RunStatus.FAILED})),
            "squidmesh_runs_status",
        ),
    ],
)
async def test_a_list_walks_along_an_index_and_sorts_nothing(
    store: SQLiteStore, clock: VirtualClock, query: RunQuery, index: str, statistics: str
) -> None:
    if statistics != "none":
        alike = [start(run_id(number), at=clock.now()) for number in range(100)]
        await store.commit(together(*alike))
        await change(store, "analyze")

    for sql, values in listing.statements(query):
        lines = await plan(store, sql, values)

        assert lines[0].startswith(f"SEARCH squidmesh_runs USING INDEX {index} (")
        assert "(started_at,run_id)<(?,?)" in lines[0]
        assert not any("TEMP B-TREE" in line for line in lines)


async def test_a_writer_beside_a_busy_thread_is_not_held_up_row_by_row(
    store: SQLiteStore, clock: VirtualClock
) -> None:
    """A thread that computes gives way every few milliseconds; a statement per row would wait."""
    done = threading.Event()
    busy = threading.Thread(target=_compute, args=(done,))
    changes = [Change((start(run_id(number), at=clock.now()),)) for number in range(64)]
    statements: list[str] = []
    await store._database._writer.run(
        lambda connection: connection.set_trace_callback(statements.append)
    )

    busy.start()
    await store.commit(changes)
    done.set()
    busy.join()

    assert len(statements) <= 10


def _compute(done: threading.Event) -> None:
    while not done.is_set():
        sum(range(1000))
