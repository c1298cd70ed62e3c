"""Every test of the public interface runs in memory and on a file, in time that the test owns."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from squidmesh import SquidMesh
from squidmesh.testing.clock import VirtualClock
from tests.mesh.support import OpenMesh


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'mesh.db'}"


@pytest.fixture
async def open_mesh(url: str, clock: VirtualClock) -> AsyncIterator[OpenMesh]:
    """Open meshes of the wanted workflows; each runs twice, in memory and on a SQLite file."""
    async with AsyncExitStack() as opened:

        async def open_one(*workflows: Any, **options: Any) -> SquidMesh:
            chosen = {"clock": clock, **options}
            return await opened.enter_async_context(
                SquidMesh.open(url, workflows=workflows, **chosen)
            )

        yield open_one
