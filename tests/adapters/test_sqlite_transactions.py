"""A transaction of SQLite is whole or absent, whoever is cancelled and whatever breaks."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from returns.pipeline import is_successful

from squidmesh.adapters.sqlite import SQLiteStore
from squidmesh.adapters.sqlite.connection import _keep_log, accidents, check_version
from squidmesh.errors import StoreConflictError, StoreUnavailableError
from squidmesh.ports.store import RunChange
from squidmesh.testing.builders import FIRST, SECOND, alone, complete, run_id, start, take
from squidmesh.testing.clock import VirtualClock

pytestmark = pytest.mark.anyio


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


@pytest.fixture
async def peer(store: SQLiteStore, path: Path, clock: VirtualClock) -> AsyncIterator[SQLiteStore]:
    peer = await SQLiteStore.open(path, clock=clock)
    yield peer
    await peer.close()


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Opened at the end, whatever happens, so that no thread waits for ever."""
    event = threading.Event()
    yield event
    event.set()


async def test_a_cancelled_task_leaves_no_transaction_open_and_its_commit_whole(
    store: SQLiteStore, peer: SQLiteStore, clock: VirtualClock, gate: threading.Event
) -> None:
    entered = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stay(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("insert into squidmesh_leases values ('held', 'me', 'x')")
        loop.call_soon_threadsafe(entered.set)
        gate.wait()

    task = asyncio.create_task(store._database.write(stay))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.set()

    committed = await peer.commit(alone(start(at=clock.now())))
    leases = await peer._database.read(
        lambda connection: connection.execute("select name from squidmesh_leases").fetchall()
    )
    assert is_successful(committed.results[0])
    assert leases == [("held",)]


async def test_cancelling_a_commit_wherever_it_waits_never_leaves_the_lock_held(
    store: SQLiteStore, peer: SQLiteStore, clock: VirtualClock
) -> None:
    changes = [start(run_id(number), at=clock.now()) for number in range(20)]

    for change in changes:
        task = asyncio.create_task(store.commit(alone(change)))
        await asyncio.create_task(_nothing())
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await peer.commit(alone(start(run_id(99), at=clock.now())))

    states = (await peer.load([change.run_id for change in changes])).states
    assert all(
        states[change.run_id] == change.state for change in changes if change.run_id in states
    )
    assert set((await peer.load([run_id(99)])).states) == {run_id(99)}


async def _nothing() -> None:
    """Let other tasks run."""


@pytest.mark.parametrize("turns", range(0, 40, 3))
async def test_cancelling_the_opening_wherever_it_waits_leaves_a_file_that_can_be_opened(
    path: Path, clock: VirtualClock, turns: int
) -> None:
    opening = asyncio.create_task(SQLiteStore.open(path, clock=clock))
    for _ in range(turns):
        await asyncio.to_thread(_nothing_at_all)
    opening.cancel()
    (opened,) = await asyncio.gather(opening, return_exceptions=True)
    if isinstance(opened, SQLiteStore):
        await opened.close()

    store = await SQLiteStore.open(path, clock=clock)
    committed = await store.commit(alone(start(at=clock.now())))
    await store.close()

    assert is_successful(committed.results[0])


def _nothing_at_all() -> None:
    """Give other threads a turn."""


async def test_who_is_not_cancelled_gets_an_answer_although_another_is(
    store: SQLiteStore, clock: VirtualClock
) -> None:
    first = asyncio.create_task(store.commit(alone(start(FIRST, at=clock.now()))))
    second = asyncio.create_task(store.commit(alone(start(SECOND, at=clock.now()))))
    await asyncio.create_task(_nothing())
    first.cancel()

    committed = await second

    assert is_successful(committed.results[0])
    assert SECOND in (await store.load([SECOND])).states


async def test_an_accident_inside_a_transaction_takes_all_of_it_back(
    store: SQLiteStore, clock: VirtualClock
) -> None:
    def half(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("insert into squidmesh_leases values ('half', 'me', 'x')")
        raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        await store._database.write(half)

    assert await store.take_lease("half", "somebody else", clock.now() - clock.now())
    assert is_successful((await store.commit(alone(start(at=clock.now())))).results[0])


async def test_a_commit_that_cannot_be_written_keeps_nothing_of_its_batch(
    store: SQLiteStore, clock: VirtualClock
) -> None:
    fine = start(FIRST, at=clock.now())
    hopeless = start(SECOND, at=clock.now(), priority=2**70)

    with pytest.raises(OverflowError):
        await store.commit(alone(fine, hopeless))

    assert (await store.load([FIRST, SECOND])).states == {}
    assert is_successful((await store.commit(alone(fine))).results[0])


async def test_reading_does_not_wait_for_a_writer_and_sees_nothing_of_it(
    store: SQLiteStore, clock: VirtualClock, gate: threading.Event
) -> None:
    await store.commit(alone(start(FIRST, at=clock.now())))
    entered = threading.Event()

    def stay(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("delete from squidmesh_runs")
        entered.set()
        gate.wait()

    task = asyncio.create_task(store._database.write(stay))
    await asyncio.to_thread(entered.wait)
    during = (await store.load([FIRST])).states
    gate.set()
    await task

    assert set(during) == {FIRST}
    assert (await store.load([FIRST])).states == {}


async def test_a_lock_that_another_holds_for_too_long_makes_the_store_unavailable(
    store: SQLiteStore, path: Path, clock: VirtualClock
) -> None:
    await store._database._writer.run(
        lambda connection: connection.execute("pragma busy_timeout = 20").fetchall()
    )
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("begin immediate")

    with pytest.raises(StoreUnavailableError, match="lock"):
        await store.commit(alone(start(at=clock.now())))
    other.execute("rollback")
    other.close()

    assert is_successful((await store.commit(alone(start(at=clock.now())))).results[0])


async def test_a_fresh_file_that_another_has_locked_is_waited_for(
    path: Path, clock: VirtualClock
) -> None:
    host = sqlite3.connect(path, isolation_level=None)
    host.execute("begin exclusive")
    asyncio.get_running_loop().call_later(0.05, host.execute, "rollback")

    store = await SQLiteStore.open(path, clock=clock)
    await store.close()

    host.close()


def test_a_fresh_file_that_another_keeps_locked_is_unavailable(path: Path) -> None:
    host = sqlite3.connect(path, isolation_level=None)
    host.execute("begin exclusive")
    hasty = sqlite3.connect(path, isolation_level=None, timeout=0)

    with pytest.raises(StoreUnavailableError, match="lock"), accidents():
        _keep_log(hasty)

    hasty.close()
    host.close()


def test_a_place_that_keeps_no_write_ahead_log_is_refused() -> None:
    connection = sqlite3.connect(":memory:")

    with pytest.raises(StoreUnavailableError, match="write-ahead log"):
        _keep_log(connection)

    connection.close()


async def test_a_full_disk_refuses_commits_whole_until_there_is_room_again(
    store: SQLiteStore, clock: VirtualClock
) -> None:
    filling = {"filling": "x" * 20_000}
    changes = [start(run_id(number), at=clock.now(), payload=filling) for number in range(100)]
    await _limit_pages(store, 150)

    failures = [await _failure(store, change) for change in changes]

    committed = [
        change for change, failure in zip(changes, failures, strict=True) if failure is None
    ]
    states = (await store.load([change.run_id for change in changes])).states
    assert 0 < len(committed) < len(changes)
    assert all("full" in failure for failure in failures if failure is not None)
    assert states == {change.run_id: change.state for change in committed}
    await _limit_pages(store, 10_000)
    assert await _failure(store, changes[-1]) is None


async def _failure(store: SQLiteStore, change: RunChange) -> str | None:
    try:
        await store.commit(alone(change))
    except StoreUnavailableError as error:
        return str(error)
    return None


async def _limit_pages(store: SQLiteStore, count: int) -> None:
    await store._database._writer.run(
        lambda connection: connection.execute(f"pragma max_page_count = {count}").fetchall()
    )


async def test_two_stores_see_what_the_other_has_committed(
    store: SQLiteStore, peer: SQLiteStore, clock: VirtualClock
) -> None:
    started = start(at=clock.now())
    taken = take(started.state, "load", at=clock.now())
    done = complete(taken.state, "load", at=clock.now(), output=1)

    await store.commit(alone(started))
    await peer.commit(alone(taken))
    await store.commit(alone(done))

    assert (await peer.load([FIRST])).states == {FIRST: done.state}


def test_a_stale_snapshot_is_a_conflict_and_not_an_outage() -> None:
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY_SNAPSHOT

    with pytest.raises(StoreConflictError), accidents():
        raise error


def test_a_mistake_in_a_statement_is_not_called_an_outage() -> None:
    connection = sqlite3.connect(":memory:")

    with pytest.raises(sqlite3.OperationalError, match="no such table"), accidents():
        connection.execute("select * from no_table")
    connection.close()


def test_a_library_that_is_too_old_is_refused_with_both_versions() -> None:
    with pytest.raises(StoreUnavailableError, match=r"needs SQLite 3\.37, .* has 3\.31\.1"):
        check_version((3, 31, 1))
