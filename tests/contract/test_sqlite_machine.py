"""The machine finds the store in a file and the store in memory alike."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import settings

from squidmesh.adapters.sqlite import SQLiteStore
from squidmesh.testing.clock import VirtualClock
from squidmesh.testing.machine import store_machine


@asynccontextmanager
async def a_file(clock: VirtualClock) -> AsyncIterator[SQLiteStore]:
    with TemporaryDirectory() as folder:
        store = await SQLiteStore.open(Path(folder) / "mesh.db", clock=clock)
        try:
            yield store
        finally:
            await store.close()


TestSQLiteLikeMemory = store_machine(a_file).TestCase
TestSQLiteLikeMemory.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
