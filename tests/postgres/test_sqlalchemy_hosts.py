"""Hosts that reach their database through SQLAlchemy, on Postgres and on a SQLite file."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from squidmesh import InvalidOptionError, RunNotFoundError, SquidMesh
from squidmesh.adapters.postgres import PostgresStore
from squidmesh.system import SystemClock
from tests.hosts import CASES, Parcel, Payment, prepared, status_of, worked

pytestmark = pytest.mark.anyio

TABLE = text("create table notes (text text)")
WRITE = text("insert into notes values (:text)")
READ = text("select text from notes")


def notes(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.execute(READ).scalars())


@asynccontextmanager
async def lent(kind: str, engine: Engine, async_engine: AsyncEngine) -> AsyncIterator[Any]:
    match kind:
        case "Session":
            with Session(engine) as session:
                yield session
        case "Connection":
            with engine.connect() as connection:
                yield connection
        case "AsyncSession":
            async with AsyncSession(async_engine) as async_session:
                yield async_session
        case _:
            async with async_engine.connect() as async_connection:
                yield async_connection


async def done(what: Any) -> Any:
    """Await what the asynchronous kinds give; the others have done it."""
    return await what if hasattr(what, "__await__") else what


each_kind = pytest.mark.parametrize(
    "kind", ["Session", "Connection", "AsyncSession", "AsyncConnection"]
)


class HostsOverSQLAlchemy:
    """What each kind of Session and Connection is good for; subclasses say where the database is.

    The *urls* are for us, and for SQLAlchemy's two ways to work.
    """

    @pytest.fixture
    def urls(self) -> tuple[str, str, str]:
        raise NotImplementedError(f"{type(self).__name__} provides no `urls` fixture")

    @pytest.fixture
    async def mesh(self, urls: tuple[str, str, str]) -> AsyncIterator[SquidMesh]:
        async with SquidMesh.open(urls[0], workflows=[Payment, Parcel]) as mesh:
            yield mesh

    @pytest.fixture
    def engine(self, urls: tuple[str, str, str], mesh: SquidMesh) -> Iterator[Engine]:
        engine = create_engine(urls[1])
        with engine.begin() as connection:
            connection.execute(TABLE)
        yield engine
        engine.dispose()

    @pytest.fixture
    async def async_engine(
        self, urls: tuple[str, str, str], engine: Engine
    ) -> AsyncIterator[AsyncEngine]:
        opened = create_async_engine(urls[2])
        yield opened
        await opened.dispose()

    @each_kind
    async def test_commands_belong_to_the_hosts_transaction(
        self, mesh: SquidMesh, engine: Engine, async_engine: AsyncEngine, kind: str
    ) -> None:
        run_id = await prepared(mesh, CASES["approve"])
        async with lent(kind, engine, async_engine) as host:
            await done(host.execute(WRITE, {"text": "lost"}))
            lost = await mesh.start_run(Payment, connection=host)
            await done(host.rollback())

            await done(host.execute(WRITE, {"text": "kept"}))
            kept = await mesh.start_run(Payment, connection=host)
            await mesh.approve_run(run_id, actor="ann", connection=host)
            inside = await status_of(mesh, run_id, connection=host)
            outside = await status_of(mesh, run_id)
            await done(host.commit())

        assert (inside, outside) == ("running", "paused")
        assert notes(engine) == ["kept"]
        with pytest.raises(RunNotFoundError):
            await mesh.inspect_run(lost.id)
        await worked(mesh)
        assert await status_of(mesh, kept.id) == "paused"
        assert await status_of(mesh, run_id) == "completed"

    @each_kind
    async def test_a_commit_counts_where_the_host_has_done_nothing_else(
        self, mesh: SquidMesh, engine: Engine, async_engine: AsyncEngine, kind: str
    ) -> None:
        async with lent(kind, engine, async_engine) as host:
            run = await mesh.start_run(Payment, connection=host)
            await done(host.commit())

        assert await status_of(mesh, run.id) == "pending"

    @each_kind
    async def test_a_host_that_forgets_to_commit_has_started_nothing(
        self, mesh: SquidMesh, engine: Engine, async_engine: AsyncEngine, kind: str
    ) -> None:
        async with lent(kind, engine, async_engine) as host:
            await mesh.start_run(Payment, connection=host)

        assert (await mesh.list_runs()).runs == ()

    async def test_blocks_of_the_library_commit_and_take_back(
        self, mesh: SquidMesh, async_engine: AsyncEngine
    ) -> None:
        async with AsyncSession(async_engine) as session, session.begin():
            kept = await mesh.start_run(Payment, connection=session)
            async with session.begin_nested() as nested:
                await mesh.start_run(Payment, connection=session)
                await nested.rollback()
        async with async_engine.begin() as connection:
            late = await mesh.start_run(Payment, connection=connection)

        assert {run.id for run in (await mesh.list_runs()).runs} == {kept.id, late.id}


class TestHostsOverSQLAlchemyOnAFile(HostsOverSQLAlchemy):
    @pytest.fixture
    def urls(self, tmp_path: Path) -> tuple[str, str, str]:
        file = tmp_path / "app.db"
        return f"sqlite:///{file}", f"sqlite:///{file}", f"sqlite+aiosqlite:///{file}"


class TestHostsOverSQLAlchemyOnPostgres(HostsOverSQLAlchemy):
    @pytest.fixture
    def urls(self, postgres_database: str) -> tuple[str, str, str]:
        theirs = postgres_database.replace("postgresql://", "postgresql+psycopg://")
        return postgres_database, theirs, theirs


async def test_a_session_on_another_technology_is_named(postgres_database: str) -> None:
    engine = create_async_engine("sqlite+aiosqlite://")
    store = await PostgresStore.open(postgres_database, clock=SystemClock())

    async with AsyncSession(engine) as session:
        with pytest.raises(InvalidOptionError, match=r"sqlalchemy.*AsyncSession over aiosqlite"):
            await store.joined(session)

    await engine.dispose()
    await store.close()
