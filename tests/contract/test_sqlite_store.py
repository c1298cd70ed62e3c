"""The store in a file keeps the promises of every port of a storage."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import attrs
import pytest

from squidmesh.adapters.sqlite import SQLiteStore
from squidmesh.testing.clock import VirtualClock
from squidmesh.testing.contracts import (
    AttemptStoreContract,
    JournalContract,
    PresenceContract,
    RunStoreContract,
    SchemaContract,
    StorageContract,
    StoreContract,
)


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


class TestSQLiteSchema(InOneFile, SchemaContract):
    pass


class TestSQLiteJournal(InOneFile, JournalContract):
    @pytest.fixture
    def damage(self, path: Path, store: SQLiteStore) -> SQLiteDamage:
        return SQLiteDamage(path)
