"""What stands in the rows comes back, or is called corrupt: it is never guessed at."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from squidmesh.adapters.sqlite import SQLiteStore
from squidmesh.adapters.sqlite.bulk import Statement
from squidmesh.errors import (
    JournalCorruptError,
)
from squidmesh.ports.store import GuardFailed
from squidmesh.testing.builders import (
    FIRST,
    LEASE,
    SECOND,
    alone,
    complete,
    following,
    lose,
    scheduled,
    start,
    take,
)
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


async def change(store: SQLiteStore, sql: str, *values: object) -> None:
    """Alter what is stored, behind the store's back."""
    await store._database.write(lambda connection, _: connection.execute(sql, values))


@pytest.mark.parametrize(
    "encrypt",
    [
        "update squidmesh_entries set encoding = 1 where run_id = ?",
        "update squidmesh_runs set encoding = 1 where run_id = ?",
        "update squidmesh_step_runs set output_encoding = 1 where run_id = ?",
        "update squidmesh_step_runs set error_encoding = 1 where run_id = ?",
        "update squidmesh_attempts set error_encoding = 1 where run_id = ?",
    ],
)
async def test_a_document_encoded_by_others_parks_its_run_and_no_other(
    store: SQLiteStore, clock: VirtualClock, encrypt: str
) -> None:
    await store.commit(alone(start(FIRST, at=clock.now()), start(SECOND, at=clock.now())))
    await change(store, encrypt, FIRST)

    with pytest.raises(JournalCorruptError, match="encoded") as caught:
        await store.load([FIRST])

    assert caught.value.details["run_id"] == FIRST
    assert set((await store.load([SECOND])).states) == {SECOND}


async def test_a_journal_in_a_newer_format_is_not_guessed_at(
    store: SQLiteStore, clock: VirtualClock
) -> None:
    await store.commit(alone(start(at=clock.now())))
    await change(store, "update squidmesh_entries set format = 2")

    with pytest.raises(JournalCorruptError, match="format 2"):
        await store.read(FIRST)
    with pytest.raises(JournalCorruptError, match="format 2"):
        await store.load([FIRST])


async def test_a_checkpoint_in_a_newer_format_counts_as_none(
    store: SQLiteStore, clock: VirtualClock
) -> None:
    started = start(at=clock.now())
    await store.commit(alone(started))
    await store.save_checkpoint(started.state)

    await change(store, "update squidmesh_checkpoints set format = 2")

    assert await store.checkpoint(FIRST) is None


async def test_a_refused_report_names_the_holder_that_its_own_batch_has_brought(
    store: SQLiteStore, clock: VirtualClock
) -> None:
    started = start(at=clock.now())
    alice = take(started.state, "load", at=clock.now(), owner="alice")
    await store.commit(alone(started, alice))
    clock.advance(LEASE)
    lost = lose(alice.state, "load", at=clock.now())
    bob = take(lost.state, "load", at=clock.now(), owner="bob")

    late = complete(alice.state, "load", at=clock.now())
    committed = await store.commit(alone(lost, bob, late))

    assert committed.results[2].failure() == GuardFailed(
        run_id=FIRST, guard=late.guards[0], holder="bob"
    )


async def test_a_definition_in_a_newer_format_is_nobodys(
    store: SQLiteStore, clock: VirtualClock
) -> None:
    started = start(at=clock.now())
    assert started.definition is not None
    await store.commit(alone(started))

    await change(store, "update squidmesh_definitions set format = 2")

    assert await store.definition(started.definition.fingerprint) is None


@pytest.mark.parametrize(
    "spoil",
    [
        "update squidmesh_runs set status = 'sleeping'",
        "update squidmesh_runs set error = '{'",
        "update squidmesh_runs set updated_at = 'yesterday'",
        "update squidmesh_step_runs set status = 'sleeping'",
        "update squidmesh_step_runs set output = '{'",
        "update squidmesh_attempts set status = 'sleeping'",
        """update squidmesh_attempts set error = '{"code": 1}'""",
        "update squidmesh_entries set data = '[]'",
        """update squidmesh_entries set data = '[{"type":"runnables_planned","steps":[]}]'""",
        "update squidmesh_entries set actor = '{'",
        "delete from squidmesh_entries",
    ],
)
async def test_a_row_that_makes_no_sense_is_a_corrupt_journal(
    store: SQLiteStore, clock: VirtualClock, spoil: str
) -> None:
    await store.commit(alone(start(at=clock.now())))
    await change(store, spoil)

    with pytest.raises(JournalCorruptError):
        await store.load([FIRST])


async def test_a_gap_in_the_journal_is_found(store: SQLiteStore, clock: VirtualClock) -> None:
    started = start(at=clock.now())
    taken = take(started.state, "load", at=clock.now())
    done = complete(taken.state, "load", at=clock.now())
    await store.commit(alone(started, taken, done))
    await change(store, "delete from squidmesh_entries where revision = ?", taken.state.revision)

    with pytest.raises(JournalCorruptError, match="gap"):
        await store.read(FIRST)
    with pytest.raises(JournalCorruptError, match="gap"):
        await store.read(FIRST, after=started.state.revision)
    assert len(await store.read(FIRST, after=taken.state.revision)) == 1


async def test_a_conflict_about_a_corrupt_journal_does_not_hinder_others(
    store: SQLiteStore, clock: VirtualClock
) -> None:
    started = start(FIRST, at=clock.now())
    taken = take(started.state, "load", at=clock.now())
    await store.commit(alone(started, taken))
    await change(store, "update squidmesh_entries set data = '{'")

    late = following(started.state, scheduled("ship", at=clock.now()))
    committed = await store.commit(alone(late, start(SECOND, at=clock.now())))

    assert committed.results[0].failure().unseen == ()  # type: ignore[union-attr]
    assert set((await store.load([SECOND])).states) == {SECOND}


async def test_steps_come_back_in_the_order_in_which_the_run_reached_them(
    store: SQLiteStore, clock: VirtualClock
) -> None:
    state = start(at=clock.now(), steps=("zip", "ask", "mix")).state
    changes = [start(at=clock.now(), steps=("zip", "ask", "mix"))]
    for step, then in (("ask", "ship"), ("zip", "bill"), ("mix", "end")):
        changes.append(take(changes[-1].state, step, at=clock.now()))
        changes.append(complete(changes[-1].state, step, at=clock.now(), then=then))

    await store.commit(alone(*changes[:3]))
    await store.commit(alone(*changes[3:]))

    loaded = (await store.load([FIRST])).states[FIRST]
    assert list(loaded.steps) == ["zip", "ask", "mix", "ship", "bill", "end"]
    assert list(loaded.steps) == list(changes[-1].state.steps)
    assert list(state.steps) == ["zip", "ask", "mix"]


async def test_a_long_batch_about_one_run_is_written_once_and_read_back_whole(
    store: SQLiteStore, clock: VirtualClock
) -> None:
    steps = tuple(f"step-{number:03}" for number in range(150))
    changes = [start(at=clock.now(), steps=steps)]
    for step in steps:
        changes.append(take(changes[-1].state, step, at=clock.now()))
        changes.append(complete(changes[-1].state, step, at=clock.now(), output={step: 1}))

    await store.commit(alone(*changes))

    assert (await store.load([FIRST])).states == {FIRST: changes[-1].state}
    assert len(await store.read(FIRST)) == 301


@pytest.mark.parametrize("count", [0, 1, 3, 63, 64, 65, 131])
def test_a_statement_takes_any_number_of_rows_in_order(count: int) -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("create table numbers (number integer, text text)")
    given = [(number, str(number)) for number in range(count)]

    Statement("insert into numbers values ?", width=2).run(connection, given)
    squared = Statement(
        "with wanted (number, text) as (values ?) select number * number from wanted", width=2
    ).run(connection, given)

    assert connection.execute("select * from numbers order by rowid").fetchall() == given
    assert squared == [(number * number,) for number in range(count)]
    connection.close()
