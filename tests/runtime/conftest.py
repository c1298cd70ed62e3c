"""Every test of the runtime owns its time, its store and its meshes."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from squidmesh import SquidMesh
from squidmesh.testing.clock import VirtualClock
from tests.runtime.support import ShakyStore

OpenMesh = Callable[..., Awaitable[SquidMesh]]


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def store(clock: VirtualClock) -> ShakyStore:
    return ShakyStore(clock=clock)


@pytest.fixture
async def composed(store: ShakyStore, clock: VirtualClock) -> AsyncIterator[OpenMesh]:
    """Make meshes over the test's one store in memory."""
    async with AsyncExitStack() as opened:

        async def compose(*workflows: Any, **options: Any) -> SquidMesh:
            chosen = {"clock": clock, "store": store, **options}
            return await opened.enter_async_context(SquidMesh(workflows=workflows, **chosen))

        yield compose


@pytest.fixture
async def on_file(tmp_path: Path, clock: VirtualClock) -> AsyncIterator[OpenMesh]:
    """Make meshes over the test's one SQLite file, each with connections of its own."""
    async with AsyncExitStack() as opened:

        async def open_one(*workflows: Any, **options: Any) -> SquidMesh:
            chosen = {"clock": clock, **options}
            url = f"sqlite:///{tmp_path / 'mesh.db'}"
            return await opened.enter_async_context(
                SquidMesh.open(url, workflows=workflows, **chosen)
            )

        yield open_one
