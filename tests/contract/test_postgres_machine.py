"""The machine finds the store in a PostgreSQL database and the store in memory alike."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import psycopg
import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from squidmesh.adapters.postgres import PostgresStore
from squidmesh.testing.clock import VirtualClock
from squidmesh.testing.machine import store_machine

# A server takes minutes to make a failing example smaller, and thirty steps are few enough to read.
FEW: Final = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)

TABLES: Final = """
select string_agg(format('%I.%I', schemaname, tablename), ', ')
from pg_tables
where schemaname = 'squidmesh' and tablename <> 'schema_version'
"""


@pytest.fixture
def tables(postgres_database: str) -> str:
    """The names of all tables in which runs leave something."""
    with psycopg.connect(postgres_database) as connection:
        row = connection.execute(TABLES).fetchone()
    assert row is not None
    return str(row[0])


def test_the_store_in_a_database_and_the_store_in_memory_are_alike(
    postgres_database: str, tables: str
) -> None:
    @asynccontextmanager
    async def emptied(clock: VirtualClock) -> AsyncIterator[PostgresStore]:
        async with await psycopg.AsyncConnection.connect(postgres_database) as connection:
            await connection.execute(f"truncate {tables}".encode())
        store = await PostgresStore.open(postgres_database, clock=clock)
        try:
            yield store
        finally:
            await store.close()

    run_state_machine_as_test(store_machine(emptied), settings=FEW)
