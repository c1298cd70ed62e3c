"""The store in a PostgreSQL database keeps the promises of every port of a storage."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import attrs
import psycopg
import pytest

from squidmesh.adapters.postgres import PostgresStore
from squidmesh.testing.clock import VirtualClock
from squidmesh.testing.contracts import (
    AttemptStoreContract,
    HintsContract,
    Hold,
    JournalContract,
    PresenceContract,
    RunStoreContract,
    SchemaContract,
    StorageContract,
    StoreContract,
)

LOCK: Final = "select 1 from squidmesh.runs where run_id = %s for update"


class InOneDatabase(StorageContract):
    @pytest.fixture
    async def store(
        self, postgres_database: str, clock: VirtualClock
    ) -> AsyncIterator[PostgresStore]:
        store = await PostgresStore.open(postgres_database, clock=clock)
        yield store
        await store.close()

    @pytest.fixture
    async def peer(
        self, postgres_database: str, clock: VirtualClock, store: PostgresStore
    ) -> AsyncIterator[PostgresStore]:
        peer = await PostgresStore.open(postgres_database, clock=clock)
        yield peer
        await peer.close()

    @pytest.fixture
    def hold(self, postgres_database: str) -> Hold:
        @asynccontextmanager
        async def held(run_id: str) -> AsyncIterator[bool]:
            async with await psycopg.AsyncConnection.connect(postgres_database) as host:
                await host.execute(LOCK, (run_id,))
                yield True

        return held


@attrs.frozen
class PostgresDamage:
    url: str

    async def journal(self, run_id: str) -> None:
        await self._spoil(
            """
            update squidmesh.entries
            set data = left(data, -9)
            where run_id = $1
                and revision = (select max(revision) from squidmesh.entries where run_id = $1)
            """,
            run_id,
        )

    async def checkpoint(self, run_id: str) -> None:
        await self._spoil(
            "update squidmesh.checkpoints set data = left(data, -9) where run_id = $1", run_id
        )

    async def _spoil(self, statement: str, run_id: str) -> None:
        async with await psycopg.AsyncConnection.connect(self.url) as connection:
            cursor = psycopg.AsyncRawCursor(connection)
            await cursor.execute(statement.encode(), (run_id,))
            assert cursor.rowcount == 1


class TestPostgresStore(InOneDatabase, StoreContract):
    pass


class TestPostgresRunStore(InOneDatabase, RunStoreContract):
    pass


class TestPostgresAttemptStore(InOneDatabase, AttemptStoreContract):
    pass


class TestPostgresPresence(InOneDatabase, PresenceContract):
    pass


class TestPostgresHints(InOneDatabase, HintsContract):
    pass


class TestPostgresSchema(InOneDatabase, SchemaContract):
    pass


class TestPostgresJournal(InOneDatabase, JournalContract):
    @pytest.fixture
    def damage(self, postgres_database: str, store: PostgresStore) -> PostgresDamage:
        return PostgresDamage(postgres_database)
