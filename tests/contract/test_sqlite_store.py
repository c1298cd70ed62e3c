"""The store in a file keeps the promises of every port of a storage."""

import sqlite3
from collections.abc import AsyncIterator, Awaitable
from contextlib import closing
from pathlib import Path
from typing import Any

import aiosqlite
import attrs
import pytest

from squidmesh.adapters.sqlite import SQLiteStore
from squidmesh.testing.clock import VirtualClock
from squidmesh.testing.contracts import (
    AttemptStoreContract,
    HintsContract,
    JournalContract,
    PresenceContract,
    RunStoreContract,
    SchemaContract,
    StorageContract,
    StoreContract,
    TransactionsContract,
)

TABLE = "create table notes (text text)"
WRITE = "insert into notes values (?)"
READ = "select text from notes order by rowid"


class InOneFile(StorageContract):
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "mesh.db"

    @pytest.fixture
    async def store(self, path: Path, clock: VirtualClock) -> AsyncIterator[SQLiteStore]:
        store = await SQLiteStore.open(path, clock=clock)
        yield store
        await store.close()

    @pytest.fixture
    async def peer(
        self, path: Path, clock: VirtualClock, store: SQLiteStore
    ) -> AsyncIterator[SQLiteStore]:
        peer = await SQLiteStore.open(path, clock=clock)
        yield peer
        await peer.close()


@attrs.frozen
class SQLiteDamage:
    path: Path

    async def journal(self, run_id: str) -> None:
        self._spoil(
            """
            update squidmesh_entries
            set data = substr(data, 1, length(data) - 9)
            where run_id = ?1
                and revision = (select max(revision) from squidmesh_entries where run_id = ?1)
            """,
            run_id,
        )

    async def checkpoint(self, run_id: str) -> None:
        self._spoil(
            """
            update squidmesh_checkpoints
            set data = substr(data, 1, length(data) - 9)
            where run_id = ?
            """,
            run_id,
        )

    def _spoil(self, statement: str, run_id: str) -> None:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            assert connection.execute(statement, (run_id,)).rowcount == 1


class TestSQLiteStore(InOneFile, StoreContract):
    pass


class TestSQLiteRunStore(InOneFile, RunStoreContract):
    pass


class TestSQLiteAttemptStore(InOneFile, AttemptStoreContract):
    pass


class TestSQLitePresence(InOneFile, PresenceContract):
    pass


class TestSQLiteHints(InOneFile, HintsContract):
    pass


class TestSQLiteSchema(InOneFile, SchemaContract):
    pass


class TestSQLiteJournal(InOneFile, JournalContract):
    @pytest.fixture
    def damage(self, path: Path, store: SQLiteStore) -> SQLiteDamage:
        return SQLiteDamage(path)


@attrs.frozen
class SQLiteHost:
    path: Path
    connection: sqlite3.Connection | aiosqlite.Connection

    async def write(self, text: str, *, on: Any = None) -> None:
        connection = on or self.connection
        if isinstance(connection, aiosqlite.Connection):
            await connection.execute(WRITE, (text,))
        else:
            connection.execute(WRITE, (text,))

    async def commit(self) -> None:
        await _awaited(self.connection.commit())

    async def rollback(self) -> None:
        await _awaited(self.connection.rollback())

    async def read(self) -> list[str]:
        with closing(sqlite3.connect(self.path)) as connection:
            return [text for (text,) in connection.execute(READ)]


async def _awaited(answer: Awaitable[None] | None) -> None:
    if answer is not None:
        await answer


class TestSQLiteTransactions(InOneFile, TransactionsContract):
    @pytest.fixture(params=["async", "plain"])
    async def host(
        self, request: pytest.FixtureRequest, path: Path, store: SQLiteStore
    ) -> AsyncIterator[SQLiteHost]:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(TABLE)
            if request.param == "plain":
                yield SQLiteHost(path, connection)
        if request.param == "async":
            async with aiosqlite.connect(path) as opened:
                yield SQLiteHost(path, opened)
