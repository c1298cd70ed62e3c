"""The examples about PostgreSQL on the page about your own transaction do what they say."""

import ast
import inspect
from typing import Any

import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from squidmesh import SquidMesh
from tests.hosts import CASES, Payment, prepared, status_of, worked
from tests.test_docs import DOCS, blocks_of

pytestmark = pytest.mark.anyio

PAGE = DOCS / "host_transactions.md"


class Base(DeclarativeBase):
    pass


class OrderRow(Base):
    __tablename__ = "orders"
    number: Mapped[str] = mapped_column(primary_key=True)


async def test_the_examples_for_psycopg_and_sqlalchemy_run(postgres_database: str) -> None:
    engine = create_async_engine(
        postgres_database.replace("postgresql://", "postgresql+psycopg://")
    )
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with SquidMesh.open(postgres_database, workflows=[Payment]) as mesh:
        known: dict[str, Any] = {
            "AsyncSession": AsyncSession,
            "OrderRow": OrderRow,
            "Sale": Payment,
            "URL": postgres_database,
            "engine": engine,
            "mesh": mesh,
            "psycopg": psycopg,
        }
        approved = await prepared(mesh, CASES["approve"])
        with_psycopg, with_sqlalchemy = [
            block for block in blocks_of(PAGE) if block.language == "py"
        ]

        await _execute(with_psycopg.text.replace('{"number": "o1"}', "None"), known)
        started = known["run"]
        known["run"] = await mesh.inspect_run(approved)
        await _execute(with_sqlalchemy.text, known)
        await worked(mesh)

        assert await status_of(mesh, started.id) == "paused"
        assert await status_of(mesh, approved) == "completed"
    await engine.dispose()
    with psycopg.connect(postgres_database) as read:
        assert read.execute("select number from orders").fetchall() == [("o1",), ("o2",)]


async def _execute(source: str, known: dict[str, Any]) -> None:
    code = compile(source, PAGE.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    awaited = eval(code, known)  # noqa: S307  it is what is tested
    if inspect.iscoroutine(awaited):
        await awaited
