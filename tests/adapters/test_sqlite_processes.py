"""Processes that share a file: killed at any time, writing at once, or forgetful."""

import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Final

import pytest
from returns.pipeline import is_successful

from squidmesh.adapters.sqlite import SQLiteStore
from squidmesh.domain.evolution import rebuild
from squidmesh.ports.store import RunQuery
from squidmesh.testing.builders import alone, run_id, start
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


def test_a_process_that_forgets_to_close_its_store_ends_nevertheless(path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", FORGETFUL, str(path)], check=False, timeout=60, capture_output=True
    )

    assert finished.returncode == 0
