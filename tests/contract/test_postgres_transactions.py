"""The store in a PostgreSQL database takes part in transactions of hosts and of steps."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import attrs
import psycopg
import pytest
from psycopg.pq import TransactionStatus

from squidmesh.adapters.postgres import PostgresStore
from squidmesh.testing.contracts import TransactionsContract
from tests.contract.test_postgres_store import InOneDatabase

AnyConnection = psycopg.AsyncConnection[Any] | psycopg.Connection[Any]

TABLE = b"create table notes (id bigint generated always as identity, text text)"
WRITE = b"insert into notes (text) values (%s)"
READ = b"select text from notes order by id"


@attrs.frozen
class PostgresHost:
    url: str
    connection: AnyConnection

    async def write(self, text: str, *, on: Any = None) -> None:
        connection = on or self.connection
        status = connection.info.transaction_status
        if on is None and connection.autocommit and status is TransactionStatus.IDLE:
            await called(connection, connection.execute, b"begin")
        await called(connection, connection.execute, WRITE, (text,))

    async def commit(self) -> None:
        await called(self.connection, self.connection.commit)

    async def rollback(self) -> None:
        await called(self.connection, self.connection.rollback)

    async def read(self) -> list[str]:
        async with await psycopg.AsyncConnection.connect(self.url) as other:
            rows = await (await other.execute(READ)).fetchall()
            return [text for (text,) in rows]


async def called(connection: AnyConnection, method: Callable[..., Any], *values: object) -> None:
    """Call a method of a connection of either kind."""
    if isinstance(connection, psycopg.AsyncConnection):
        await method(*values)
    else:
        await asyncio.to_thread(method, *values)


async def connect(url: str, *, kind: str, autocommit: bool) -> AnyConnection:
    if kind == "async":
        return await psycopg.AsyncConnection.connect(url, autocommit=autocommit)
    return await asyncio.to_thread(psycopg.connect, url, autocommit=autocommit)


class TestPostgresTransactions(InOneDatabase, TransactionsContract):
    @pytest.fixture(
        params=[("async", False), ("async", True), ("plain", False), ("plain", True)],
        ids=["async", "async and autocommit", "plain", "plain and autocommit"],
    )
    async def host(
        self, request: pytest.FixtureRequest, postgres_database: str, store: PostgresStore
    ) -> AsyncIterator[PostgresHost]:
        kind, autocommit = request.param
        connection = await connect(postgres_database, kind=kind, autocommit=autocommit)
        await called(connection, connection.execute, TABLE)
        await called(connection, connection.commit)
        yield PostgresHost(postgres_database, connection)
        await called(connection, connection.close)
