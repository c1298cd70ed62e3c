"""The store in memory keeps the promises of every port of a storage."""

import attrs
import pytest

from squidmesh.adapters.memory import MemoryStore
from squidmesh.testing.clock import VirtualClock
from squidmesh.testing.contracts import (
    AttemptStoreContract,
    HintsContract,
    JournalContract,
    NoHost,
    PresenceContract,
    RunStoreContract,
    SchemaContract,
    StorageContract,
    StoreContract,
    TransactionsContract,
)


class InMemory(StorageContract):
    @pytest.fixture
    def store(self, clock: VirtualClock) -> MemoryStore:
        return MemoryStore(clock=clock)

    @pytest.fixture
    def peer(self, store: MemoryStore) -> MemoryStore:
        return store


@attrs.frozen
class MemoryDamage:
    store: MemoryStore

    async def journal(self, run_id: str) -> None:
        rows = self.store._tables.runs[run_id].journal
        rows[-1] = attrs.evolve(rows[-1], entries=rows[-1].entries[:-9])

    async def checkpoint(self, run_id: str) -> None:
        self.store._checkpoints[run_id] = self.store._checkpoints[run_id][:-9]


class TestMemoryStore(InMemory, StoreContract):
    pass


class TestMemoryRunStore(InMemory, RunStoreContract):
    pass


class TestMemoryAttemptStore(InMemory, AttemptStoreContract):
    pass


class TestMemoryPresence(InMemory, PresenceContract):
    pass


class TestMemoryHints(InMemory, HintsContract):
    pass


class TestMemoryTransactions(InMemory, TransactionsContract):
    @pytest.fixture
    def host(self) -> NoHost:
        return NoHost()


class TestMemorySchema(InMemory, SchemaContract):
    pass


class TestMemoryJournal(InMemory, JournalContract):
    @pytest.fixture
    def damage(self, store: MemoryStore) -> MemoryDamage:
        return MemoryDamage(store)
