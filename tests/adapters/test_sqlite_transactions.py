"""A transaction of SQLite is whole or absent: after a kill, a cancellation, a full disk."""

import asyncio
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from itertools import chain
from pathlib import Path
from typing import Final

import pytest
from returns.pipeline import is_successful

from squidmesh.adapters.sqlite import SQLiteStore
from squidmesh.adapters.sqlite.connection import accidents, check_version
from squidmesh.domain.evolution import rebuild
from squidmesh.errors import StoreConflictError, StoreUnavailableError
from squidmesh.ports.store import RunChange, RunQuery
from squidmesh.testing.builders import FIRST, SECOND, alone, complete, run_id, start, take
from squidmesh.testing.clock import VirtualClock

pytestmark = pytest.mark.anyio

# Starts runs one after the other for ever, and names each when its commit was answered. With an
# argument behind the path it stops inside the transaction of the third one.
WRITER: Final = """
import asyncio, sys
from squidmesh.adapters.sqlite import SQLiteStore
from squidmesh.adapters.sqlite.commits import commit
from squidmesh.system import SystemClock
from squidmesh.testing.builders import alone, run_id, start

async def main(path, stop_inside):
    clock = SystemClock()
    store = await SQLiteStore.open(path, clock=clock)
    number = 0
    while True:
        number += 1
        change = start(run_id(number), at=clock.now(), steps=("load", "ship"))
        if stop_inside and number == 3:
            await store._database.write(lambda connection, now: stay(connection, change, now))
        await store.commit(alone(change))
        print(number, flush=True)

def stay(connection, change, now):
    commit(connection, alone(change), now)
    print("inside", flush=True)
    sys.stdin.read()

asyncio.run(main(sys.argv[1], len(sys.argv) > 2))
"""

FORGETFUL: Final = """
import asyncio, sys
from squidmesh.adapters.sqlite import SQLiteStore
from squidmesh.system import SystemClock
from squidmesh.testing.builders import alone, start

async def main():
    global store
    clock = SystemClock()
    store = await SQLiteStore.open(sys.argv[1], clock=clock)
    await store.commit(alone(start(at=clock.now())))

asyncio.run(main())
"""


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


class Writer:
    """A process that writes until it is killed, without a chance to tidy up."""

    def __init__(self, path: Path, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def says(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def kill(self) -> list[str]:
        self._process.kill()
        rest, _ = self._process.communicate()
        return rest.split()


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Opened at the end, whatever happens, so that no thread waits for ever."""
    event = threading.Event()
    yield event
    event.set()


async def whole_runs(path: Path) -> set[str]:
    """The runs in the file, each of which is checked to be what its journal says."""
    store = await SQLiteStore.open(path, clock=VirtualClock())
    listed = await store.list_runs(RunQuery(limit=100_000))
    ids = {summary.state.run_id for summary in listed}
    states = (await store.load(ids)).states
    for each in ids:
        rows = await store.read(each)
        assert states[each] == rebuild(each, chain.from_iterable(row.entries for row in rows))
        assert len(states[each].steps) == 2
    await store.close()
    return ids


async def test_a_writer_killed_inside_a_transaction_leaves_what_was_committed_before(
    path: Path,
) -> None:
    writer = Writer(path, "stop inside")
    said = [writer.says() for _ in range(3)]

    writer.kill()

    assert said == ["1", "2", "inside"]
    assert await whole_runs(path) == {run_id(1), run_id(2)}


async def test_a_writer_killed_at_any_time_leaves_every_commit_that_was_answered(
    path: Path,
) -> None:
    for answered in (1, 7, 40):
        writer = Writer(path.with_name(f"{answered}.db"))
        said = [writer.says() for _ in range(answered)]

        said += writer.kill()

        committed = {run_id(int(number)) for number in said}
        found = await whole_runs(path.with_name(f"{answered}.db"))
        assert committed <= found
        assert found <= {*committed, run_id(len(said) + 1)}


async def test_the_lock_of_a_killed_writer_is_free_at_once(path: Path, clock: VirtualClock) -> None:
    writer = Writer(path, "stop inside")
    while writer.says() != "inside":
        pass
    writer.kill()

    store = await SQLiteStore.open(path, clock=clock)
    committed = await store.commit(alone(start(run_id(3), at=clock.now())))
    await store.close()

    assert is_successful(committed.results[0])


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


async def test_a_full_disk_refuses_commits_whole_until_there_is_room_again(
    store: SQLiteStore, clock: VirtualClock
) -> None:
    filling = {"filling": "x" * 20_000}
    changes = [start(run_id(number), at=clock.now(), payload=filling) for number in range(100)]
    await _limit_pages(store, 150)

    committed = [change for change in changes if await _is_committed(store, change)]

    states = (await store.load([change.run_id for change in changes])).states
    assert 0 < len(committed) < len(changes)
    assert states == {change.run_id: change.state for change in committed}
    await _limit_pages(store, 10_000)
    assert await _is_committed(store, changes[-1])


async def _is_committed(store: SQLiteStore, change: RunChange) -> bool:
    try:
        committed = await store.commit(alone(change))
    except StoreUnavailableError as error:
        assert "full" in str(error)
        return False
    return is_successful(committed.results[0])


async def _limit_pages(store: SQLiteStore, count: int) -> None:
    await store._database._writer.run(
        lambda connection: connection.execute(f"pragma max_page_count = {count}").fetchall()
    )


async def test_two_processes_write_into_one_file_without_losing_anything(
    path: Path, clock: VirtualClock
) -> None:
    writer = Writer(path)
    writer.says()
    store = await SQLiteStore.open(path, clock=clock)

    mine = [start(run_id(number), at=clock.now(), steps=("a", "b")) for number in range(900, 930)]
    for change in mine:
        committed = await store.commit(alone(change))
        assert is_successful(committed.results[0])
    await store.close()
    theirs = {run_id(1), *(run_id(int(number)) for number in writer.kill())}

    found = await whole_runs(path)
    assert {change.run_id for change in mine} | theirs <= found


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


def test_a_process_that_forgets_to_close_its_store_ends_nevertheless(path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", FORGETFUL, str(path)], check=False, timeout=60, capture_output=True
    )

    assert finished.returncode == 0


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
