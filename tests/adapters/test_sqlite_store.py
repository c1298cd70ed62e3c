"""What is special about the store in an SQLite file: its path, its schema, its indexes."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from squidmesh.adapters.sqlite import SQLiteStore, schema
from squidmesh.errors import (
    InvalidOptionError,
    SchemaNotMigratedError,
    StoreUnavailableError,
)
from squidmesh.testing.builders import (
    FIRST,
    SECOND,
    alone,
    key,
    run_id,
    start,
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


LETTER = b"A letter, not a database. " * 100


@pytest.fixture
def letter(tmp_path: Path) -> Path:
    path = tmp_path / "letter.txt"
    path.write_bytes(LETTER)
    return path


async def rows(store: SQLiteStore, sql: str, *values: object) -> list[tuple[Any, ...]]:
    """What a statement says, as this store sees its file."""
    return await store._database.read(lambda connection: connection.execute(sql, values).fetchall())


async def change(store: SQLiteStore, sql: str, *values: object) -> None:
    """Alter what is stored, behind the store's back."""
    await store._database.write(lambda connection, _: connection.execute(sql, values))


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


async def test_a_file_of_another_kind_is_left_alone(letter: Path, clock: VirtualClock) -> None:
    with pytest.raises(StoreUnavailableError, match="not an SQLite database"):
        await SQLiteStore.open(letter, clock=clock)

    assert letter.read_bytes() == LETTER  # noqa: ASYNC240  nothing else runs here


async def test_a_path_may_be_text_and_relative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: VirtualClock
) -> None:
    monkeypatch.chdir(tmp_path)
    store = await SQLiteStore.open("mesh.db", clock=clock)
    monkeypatch.chdir(tmp_path.parent)

    await store.commit(alone(start(at=clock.now())))
    await store.close()

    assert (tmp_path / "mesh.db").exists()


def _delete(path: Path) -> None:
    path.unlink()


def _replace(path: Path) -> None:
    copy = path.with_name("copy.db")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)


@pytest.mark.parametrize("tamper", [_delete, _replace])
async def test_a_store_whose_file_is_no_longer_the_one_it_opened_is_unavailable(
    store: SQLiteStore, path: Path, clock: VirtualClock, tamper: Callable[[Path], None]
) -> None:
    tamper(path)

    with pytest.raises(StoreUnavailableError, match="moved, deleted or replaced"):
        await store.commit(alone(start(at=clock.now())))
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


async def test_a_worker_that_was_not_seen_for_a_week_is_forgotten(
    store: SQLiteStore, clock: VirtualClock
) -> None:
    await store.worker_seen("alice", ["default"], {"a": ()})
    clock.advance(8 * DAY)

    await store.worker_seen("bob", ["default"], {"a": ()})

    assert await rows(store, "select owner from squidmesh_workers") == [("bob",)]


async def test_a_key_that_has_expired_is_free_again(
    store: SQLiteStore, clock: VirtualClock
) -> None:
    await store.commit(alone(start(FIRST, at=clock.now(), keys=(key("k", FIRST),))))
    await change(
        store,
        "update squidmesh_idempotency_keys set expires_at = '2030-01-01T00:00:00.000000+00:00'",
    )

    again = start(SECOND, at=clock.now(), keys=(key("k", SECOND),))
    await store.commit(alone(again))

    assert await store.find_key("orders:by_hand", "k") == key("k", SECOND)
