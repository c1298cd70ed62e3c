"""Rows that others hold, poolers met by several at once, and scripts that are run twice."""

import asyncio
from contextlib import suppress
from uuid import uuid4

import attrs
import psycopg
import pytest

from squidmesh import (
    SquidMesh,
    StepContext,
    StoreUnavailableError,
    Worker,
    Workflow,
    manual,
    path,
    step,
)
from tests.postgres.pooler import Pooler
from tests.runtime.support import PATIENCE, until

pytestmark = pytest.mark.anyio


GREETED: list[str] = []


async def greet(context: StepContext) -> None:
    GREETED.append(context.run_id)


@attrs.frozen
class Nobody:
    """Greetings need no payload."""


class Greeting(Workflow[Nobody]):
    name = "greeting"
    by_hand = manual()
    hello = step(greet)
    again = step(greet)
    transitions = path(hello, again)


class OtherGreeting(Workflow[Nobody]):
    """The same steps on another way, as another deploy would declare them."""

    name = "greeting"
    by_hand = manual()
    hello = step(greet)
    again = step(greet)
    transitions = path(again, hello)


@pytest.mark.parametrize("prepare_threshold", [0, None])
async def test_a_start_whose_id_somebody_holds_keeps_no_other_start_waiting(
    postgres_database: str, prepare_threshold: int | None
) -> None:
    taken = str(uuid4())
    async with (
        SquidMesh.open(
            postgres_database, workflows=[Greeting], prepare_threshold=prepare_threshold
        ) as mesh,
        await psycopg.AsyncConnection.connect(postgres_database) as host,
    ):
        await mesh.start_run(Greeting)
        await mesh.start_run(Greeting, run_id=taken, connection=host)

        held = asyncio.create_task(mesh.start_run(Greeting, run_id=taken))
        others = [asyncio.create_task(mesh.start_run(Greeting)) for _ in range(2)]
        async with asyncio.timeout(PATIENCE):
            started = [run.status for run in await asyncio.gather(*others)]
        waited = not held.done()
        await host.rollback()
        async with asyncio.timeout(PATIENCE):
            late = await held

    assert started == ["pending", "pending"]
    assert waited
    assert late.id == taken


async def test_a_command_over_the_hosts_connection_waits_no_longer_than_a_call_may_take(
    postgres_database: str,
) -> None:
    async with (
        SquidMesh.open(postgres_database, workflows=[Greeting], deadline=0.5) as mesh,
        await psycopg.AsyncConnection.connect(postgres_database) as first,
        await psycopg.AsyncConnection.connect(postgres_database) as second,
    ):
        run = await mesh.start_run(Greeting)
        await mesh.cancel_run(run.id, connection=first)
        await second.execute("set lock_timeout = '7s'")

        with pytest.raises(StoreUnavailableError, match="holds what this needs"):
            async with asyncio.timeout(PATIENCE):
                await mesh.cancel_run(run.id, connection=second)

        setting = await (await second.execute("show lock_timeout")).fetchone()
        await second.rollback()
        await first.commit()
        status = (await mesh.inspect_run(run.id)).status

    assert setting == ("7s",)
    assert status == "cancelled"


async def test_several_that_meet_an_unannounced_pooler_at_once_are_all_served(
    postgres_database: str,
) -> None:
    with Pooler.start(postgres_database) as pooler:
        async with SquidMesh.open(pooler.url, workflows=[Greeting]) as mesh:
            pages = await asyncio.gather(*(mesh.list_runs() for _ in range(6)))

    assert [page.runs for page in pages] == [()] * 6


async def test_a_hint_about_a_definition_that_is_new_is_taken_up_soon(
    postgres_database: str,
) -> None:
    async with (
        SquidMesh.open(postgres_database, workflows=[Greeting]) as working,
        SquidMesh.open(postgres_database, workflows=[OtherGreeting]) as starting,
    ):
        worker = Worker(working)
        task = asyncio.create_task(worker.run())
        known = await working.start_run(Greeting)
        await until(lambda: GREETED.count(known.id) == 2)

        began = asyncio.get_running_loop().time()
        run = await starting.start_run(OtherGreeting)
        await until(lambda: GREETED.count(run.id) == 2)
        took = asyncio.get_running_loop().time() - began
        worker.stop()
        await task

    # Definitions are looked for every five seconds without a hint.
    assert took < 3


async def test_a_migration_script_that_is_run_twice_leaves_what_it_found(
    postgres_empty_database: str,
) -> None:
    script = SquidMesh.migration_sql(postgres_empty_database)
    statements = [part for part in script.split(";") if part.strip()]
    with psycopg.connect(postgres_empty_database, autocommit=True) as psql:
        for statement in (*statements, *statements):
            with suppress(psycopg.errors.DuplicateTable):
                psql.execute(statement)

    async with SquidMesh.open(postgres_empty_database, workflows=[Greeting]) as mesh:
        run = await mesh.start_run(Greeting)
        version = await mesh.migrate()

    assert (run.status, version) == ("pending", 1)


async def test_a_migration_that_broke_off_is_named(postgres_empty_database: str) -> None:
    script = SquidMesh.migration_sql(postgres_empty_database)
    with psycopg.connect(postgres_empty_database, autocommit=True) as psql:
        for statement in script.split(";")[:4]:
            psql.execute(statement)

    async with SquidMesh.open(postgres_empty_database) as mesh:
        with pytest.raises(StoreUnavailableError, match="migration has broken off"):
            await mesh.migrate()
