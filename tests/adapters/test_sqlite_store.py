"""What is special about the store in an SQLite file: its path, its schema, its indexes."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from squidmesh.adapters.sqlite import SQLiteStore, claiming, listing, schema
from squidmesh.adapters.sqlite.bulk import Statement
from squidmesh.domain.state import RunStatus
from squidmesh.errors import (
    InvalidOptionError,
    JournalCorruptError,
    SchemaNotMigratedError,
    StoreUnavailableError,
)
from squidmesh.ports.store import Change, RunQuery
from squidmesh.testing.builders import (
    FIRST,
    SECOND,
    alone,
    complete,
    following,
    request,
    run_id,
    scheduled,
    start,
    take,
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


@pytest.mark.parametrize("given", [":memory:", "", "file:mesh.db?mode=memory", "file::memory:"])
async def test_a_store_without_a_file_of_its_own_is_refused(
    given: str, clock: VirtualClock
) -> None:
    with pytest.raises(InvalidOptionError, match="path of a file"):
        await SQLiteStore.open(given, clock=clock)


async def test_a_missing_folder_is_named_as_the_reason(tmp_path: Path, clock: VirtualClock) -> None:
    with pytest.raises(StoreUnavailableError, match="folder has to exist"):
        await SQLiteStore.open(tmp_path / "missing" / "mesh.db", clock=clock)


async def test_a_folder_is_not_a_store(tmp_path: Path, clock: VirtualClock) -> None:
    with pytest.raises(StoreUnavailableError, match="cannot be opened"):
        await SQLiteStore.open(tmp_path, clock=clock)


async def test_a_file_of_another_kind_is_left_alone(path: Path, clock: VirtualClock) -> None:
    path.write_text("A letter, not a database. " * 100, encoding="utf-8")
    before = path.read_bytes()

    with pytest.raises(StoreUnavailableError, match="not an SQLite database"):
        await SQLiteStore.open(path, clock=clock)

    assert path.read_bytes() == before


async def test_a_path_may_be_text_and_relative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: VirtualClock
) -> None:
    monkeypatch.chdir(tmp_path)
    store = await SQLiteStore.open("mesh.db", clock=clock)
    monkeypatch.chdir(tmp_path.parent)

    await store.commit(alone(start(at=clock.now())))
    await store.close()

    assert (tmp_path / "mesh.db").exists()


async def test_a_store_whose_file_was_deleted_is_unavailable(
    store: SQLiteStore, path: Path, clock: VirtualClock
) -> None:
    path.unlink()

    with pytest.raises(StoreUnavailableError, match="moved, deleted or replaced"):
        await store.commit(alone(start(at=clock.now())))


async def test_a_store_whose_file_was_replaced_is_unavailable(
    store: SQLiteStore, path: Path, clock: VirtualClock
) -> None:
    copy = path.with_name("copy.db")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)

    with pytest.raises(StoreUnavailableError, match="moved, deleted or replaced"):
        await store.load([FIRST])


async def test_commits_are_flushed_to_the_disk_before_they_are_answered(store: SQLiteStore) -> None:
    settings = await store._database._writer.run(
        lambda connection: [
            connection.execute(f"pragma {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    )

    assert settings == ["wal", 2, 0]


async def test_closing_leaves_one_file_behind(path: Path, clock: VirtualClock) -> None:
    store = await SQLiteStore.open(path, clock=clock)
    await store.commit(alone(start(at=clock.now())))

    await store.close()

    assert [each.name for each in path.parent.iterdir()] == ["mesh.db"]


async def test_closing_waits_for_what_was_asked_before(path: Path, clock: VirtualClock) -> None:
    store = await SQLiteStore.open(path, clock=clock)
    commits = [
        asyncio.create_task(store.commit(alone(start(run_id(number), at=clock.now()))))
        for number in range(5)
    ]
    reading = asyncio.create_task(store.load([FIRST]))
    asking = asyncio.Event()
    asyncio.get_running_loop().call_soon(asking.set)
    await asking.wait()

    await store.close()

    assert len(await asyncio.gather(*commits)) == 5
    assert (await reading).at == clock.now()


async def test_heartbeats_of_a_closed_store_are_unavailable(
    path: Path, clock: VirtualClock
) -> None:
    store = await SQLiteStore.open(path, clock=clock)
    heartbeats = store.heartbeats()
    await store.close()

    with pytest.raises(StoreUnavailableError, match="closed"):
        heartbeats.beat([])
    with pytest.raises(StoreUnavailableError, match="closed"):
        store.heartbeats()
    heartbeats.close()


async def test_heartbeats_that_were_closed_say_so_and_may_be_closed_again(
    store: SQLiteStore,
) -> None:
    heartbeats = store.heartbeats()
    heartbeats.close()
    heartbeats.close()

    with pytest.raises(StoreUnavailableError, match="closed"):
        heartbeats.beat([])


async def test_heartbeats_belong_to_the_thread_that_opened_them(store: SQLiteStore) -> None:
    heartbeats = store.heartbeats()

    with pytest.raises(sqlite3.ProgrammingError, match="thread"):
        await asyncio.to_thread(heartbeats.beat, [])
    heartbeats.close()


async def test_a_file_of_a_newer_release_is_refused_and_says_what_helps(
    path: Path, clock: VirtualClock
) -> None:
    store = await SQLiteStore.open(path, clock=clock)
    await change(store, "update squidmesh_schema set version = 99")
    await store.close()

    with pytest.raises(SchemaNotMigratedError, match="upgrade squidmesh") as caught:
        await SQLiteStore.open(path, clock=clock)

    assert caught.value.details == {"found": 99, "needed": schema.VERSION}


async def test_the_tables_of_the_host_are_left_alone(path: Path, clock: VirtualClock) -> None:
    host = sqlite3.connect(path)
    host.execute("create table runs (distance integer)")
    host.execute("insert into runs values (42)")
    host.execute("pragma user_version = 17")
    host.commit()

    store = await SQLiteStore.open(path, clock=clock)
    await store.commit(alone(start(at=clock.now())))
    await store.close()

    assert host.execute("select distance from runs").fetchall() == [(42,)]
    assert host.execute("pragma user_version").fetchone() == (17,)
    host.close()


async def test_the_printed_migration_makes_the_tables_that_opening_makes(
    store: SQLiteStore, path: Path
) -> None:
    printed = sqlite3.connect(":memory:")
    printed.executescript(store.migration_sql())

    made = "select type, name, sql from sqlite_schema order by name"

    assert printed.execute(made).fetchall() == await rows(store, made)
    assert printed.execute("select version from squidmesh_schema").fetchall() == [(schema.VERSION,)]
    printed.close()


async def test_every_table_is_strict_and_carries_the_name_of_the_library(
    store: SQLiteStore,
) -> None:
    tables = await rows(store, "select name, sql from sqlite_schema where type = 'table'")

    assert all(name.startswith("squidmesh_") for name, _ in tables)
    assert [name for name, sql in tables if "strict" not in sql] == []


@pytest.mark.parametrize("table", ["entries", "runs", "step_runs", "attempts"])
async def test_a_document_encoded_by_others_parks_its_run_and_no_other(
    store: SQLiteStore, clock: VirtualClock, table: str
) -> None:
    await store.commit(alone(start(FIRST, at=clock.now()), start(SECOND, at=clock.now())))
    column = {"step_runs": "output_encoding", "attempts": "error_encoding"}.get(table, "encoding")
    await change(store, f"update squidmesh_{table} set {column} = 1 where run_id = ?", FIRST)

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


async def test_a_definition_in_a_newer_format_is_nobodys(
    store: SQLiteStore, clock: VirtualClock
) -> None:
    started = start(at=clock.now())
    assert started.definition is not None
    await store.commit(alone(started))

    await change(store, "update squidmesh_definitions set format = 2")

    assert await store.definition(started.definition.fingerprint) is None


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("runs", "status", "sleeping"),
        ("runs", "error", "{"),
        ("runs", "updated_at", "yesterday"),
        ("step_runs", "status", "sleeping"),
        ("step_runs", "output", "{"),
        ("attempts", "status", "sleeping"),
        ("attempts", "error", '{"code": 1}'),
        ("entries", "data", "[]"),
        ("entries", "data", '[{"type":"runnables_planned","steps":[]}]'),
        ("entries", "actor", "{"),
    ],
)
async def test_a_row_that_makes_no_sense_is_a_corrupt_journal(
    store: SQLiteStore, clock: VirtualClock, table: str, column: str, value: str
) -> None:
    await store.commit(alone(start(at=clock.now())))
    await change(store, f"update squidmesh_{table} set {column} = ?", value)

    with pytest.raises(JournalCorruptError):
        await store.load([FIRST])


async def test_a_run_without_its_first_entries_is_corrupt(
    store: SQLiteStore, clock: VirtualClock
) -> None:
    await store.commit(alone(start(at=clock.now())))
    await change(store, "delete from squidmesh_entries")

    with pytest.raises(JournalCorruptError, match="begin"):
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
    store: SQLiteStore, query: RunQuery, index: str
) -> None:
    for sql, values in listing.statements(query):
        lines = await plan(store, sql, values)

        assert lines[0].startswith(f"SEARCH squidmesh_runs USING INDEX {index} (")
        assert "(started_at,run_id)<(?,?)" in lines[0]
        assert not any("TEMP B-TREE" in line for line in lines)


async def test_a_worker_that_was_not_seen_for_a_week_is_forgotten(
    store: SQLiteStore, clock: VirtualClock
) -> None:
    await store.worker_seen("alice", ["default"], ["a"])
    clock.advance(8 * DAY)

    await store.worker_seen("bob", ["default"], ["a"])

    assert await rows(store, "select owner from squidmesh_workers") == [("bob",)]


async def test_a_key_that_has_expired_is_free_again(
    store: SQLiteStore, clock: VirtualClock
) -> None:
    from squidmesh.testing.builders import key

    await store.commit(alone(start(FIRST, at=clock.now(), keys=(key("k", FIRST),))))
    await change(
        store,
        "update squidmesh_idempotency_keys set expires_at = '2030-01-01T00:00:00.000000+00:00'",
    )

    again = start(SECOND, at=clock.now(), keys=(key("k", SECOND),))
    await store.commit(alone(again))

    assert await store.find_key("orders:by_hand", "k") == key("k", SECOND)


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
