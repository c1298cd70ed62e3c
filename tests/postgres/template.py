"""The databases that tests get: fresh, and copied from one that was migrated once."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Final

from squidmesh.system import SystemClock
from squidmesh.testing.postgres import TemporaryServer

TEMPLATE: Final = "migrated"
_numbers = count(1)


def migrated(url: str) -> None:
    """Give the database at *url* the tables of the store."""
    asyncio.run(_migrate(url))


async def _migrate(url: str) -> None:
    from squidmesh.adapters.postgres import PostgresStore

    store = await PostgresStore.open(url, clock=SystemClock())
    try:
        await store.migrate()
    finally:
        await store.close()


def make_template(server: TemporaryServer) -> str:
    """Make the database that the others are copied from, and return its name."""
    server.create_database(TEMPLATE)
    migrated(server.url(TEMPLATE))
    # A session in it would keep it from being copied, and a write would end up in every test.
    server.execute(f"alter database {TEMPLATE} allow_connections false")
    return TEMPLATE


@contextmanager
def fresh_database(server: TemporaryServer, *, template: str | None = None) -> Iterator[str]:
    """Lend the URL of a database that nobody has used, and drop it whoever is still connected."""
    name = f"test_{next(_numbers)}"
    server.create_database(name, template=template)
    try:
        yield server.url(name)
    finally:
        server.drop_database(name)
