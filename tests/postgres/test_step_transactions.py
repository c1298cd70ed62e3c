"""Steps whose own writes are committed with their completion, as PostgreSQL has it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any, Final

import psycopg
import pytest
from psycopg.rows import dict_row

from squidmesh import (
    Retry,
    SquidMesh,
    StepContext,
    StoreUnavailableError,
    Worker,
    path,
    step,
)
from squidmesh.testing.clock import VirtualClock
from squidmesh.testing.postgres import TemporaryServer, embedded_binaries, system_binaries
from tests.hosts import Payment, alone, status_of, worked
from tests.postgres.template import fresh_database, migrated
from tests.runtime.support import (
    PATIENCE,
    Gate,
    a_moment,
    attempts_of,
    error_of,
    history,
    step_of,
    turns,
    until,
    workflow,
)

pytestmark = pytest.mark.anyio

TABLE: Final = b"create table notes (text text unique deferrable initially deferred)"
WRITE: Final = b"insert into notes values (%s)"
TICK: Final = timedelta(milliseconds=1)


@pytest.fixture
def notes(postgres_database: str) -> Iterator["psycopg.Connection[Any]"]:
    """The host's table, as somebody else sees it."""
    with psycopg.connect(postgres_database, autocommit=True) as connection:
        connection.execute(TABLE)
        yield connection


def read(notes: "psycopg.Connection[Any]") -> list[str]:
    return [text for (text,) in notes.execute("select text from notes order by text")]


async def ended(url: str, made: Any, **options: Any) -> Any:
    """A run of one step, worked to its end and told with its history."""
    async with SquidMesh.open(url, workflows=[made], **options) as mesh:
        run = await mesh.start_run(made)
        await worked(mesh)
        return await history(mesh, run)


async def test_an_error_that_a_body_swallows_is_a_transaction_that_failed(
    postgres_database: str, notes: "psycopg.Connection[Any]"
) -> None:
    async def careless(context: StepContext) -> str:
        await context.connection.execute(WRITE, (f"try {context.attempt}",))
        if context.attempt == 1:
            try:
                await context.connection.execute("select 1 from nowhere")
            except psycopg.Error:
                return "it will do"
        return "done"

    run = await ended(postgres_database, alone(careless, retry=Retry(2)))

    error = (step_of(run, "first").attempts[0].error) or {}
    assert (error["code"], error["retryable"]) == ("transaction_failed", True)
    assert run.context == {"said": "done"}
    assert read(notes) == ["try 2"]


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_a_body_cannot_commit(
    postgres_database: str, notes: "psycopg.Connection[Any]", kind: str
) -> None:
    async def in_coroutine(context: StepContext) -> None:
        await context.connection.execute(WRITE, ("a",))
        await context.connection.commit()

    def in_thread(context: StepContext) -> None:
        context.connection.execute(WRITE, ("a",))
        context.connection.commit()

    run = await ended(postgres_database, alone(in_coroutine if kind == "async" else in_thread))

    error = error_of(step_of(run, "first"))
    assert (error["code"], error["type"]) == ("step_exception", "ProgrammingError")
    assert read(notes) == []


async def test_a_body_that_ends_its_transaction_behind_the_drivers_back_has_failed(
    postgres_database: str, notes: "psycopg.Connection[Any]"
) -> None:
    async def sly(context: StepContext) -> None:
        await context.connection.execute(WRITE, ("a",))
        await context.connection.execute("rollback")

    run = await ended(postgres_database, alone(sly))

    assert error_of(step_of(run, "first"))["code"] == "transaction_failed"
    assert read(notes) == []


async def test_a_body_that_closes_its_connection_has_failed(
    postgres_database: str, notes: "psycopg.Connection[Any]"
) -> None:
    async def rude(context: StepContext) -> None:
        await context.connection.execute(WRITE, ("a",))
        if context.attempt == 1:
            await context.connection.close()

    run = await ended(postgres_database, alone(rude, retry=Retry(2)))

    assert attempts_of(run) == ["failed", "completed"]
    assert read(notes) == ["a"]


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_what_only_the_commit_finds_wrong_is_a_transaction_that_failed(
    postgres_database: str, notes: "psycopg.Connection[Any]", kind: str
) -> None:
    async def in_coroutine(context: StepContext) -> None:
        for _ in range(3 - context.attempt):
            await context.connection.execute(WRITE, ("secret",))

    def in_thread(context: StepContext) -> None:
        for _ in range(3 - context.attempt):
            context.connection.execute(WRITE, ("secret",))

    body = in_coroutine if kind == "async" else in_thread
    run = await ended(postgres_database, alone(body, retry=Retry(2)))

    error = step_of(run, "first").attempts[0].error or {}
    assert (error["code"], error["type"]) == ("transaction_failed", "UniqueViolation")
    assert "secret" not in str(error)
    assert run.status == "completed"
    assert read(notes) == ["secret"]


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_more_steps_than_connections_have_their_turn(
    postgres_database: str, notes: "psycopg.Connection[Any]", kind: str
) -> None:
    most = open_now = 0

    async def in_coroutine(context: StepContext) -> None:
        nonlocal most, open_now
        open_now += 1
        most = max(most, open_now)
        await context.connection.execute(WRITE, (context.run_id,))
        await context.connection.execute("select pg_sleep(0.005)")
        open_now -= 1

    def in_thread(context: StepContext) -> None:
        context.connection.execute(WRITE, (context.run_id,))
        context.connection.execute("select pg_sleep(0.005)")

    made = alone(in_coroutine if kind == "async" else in_thread)
    async with SquidMesh.open(postgres_database, workflows=[made], max_connections=2) as mesh:
        ids = await mesh.start_runs(made, [None] * 40)
        await worked(mesh)
        runs = [await history(mesh, run_id) for run_id in ids]

    assert most in (0, 2)
    assert {run.status for run in runs} == {"completed"}
    assert {tuple(attempts_of(run)) for run in runs} == {("completed",)}
    assert read(notes) == sorted(ids)


async def test_a_body_finds_the_servers_own_settings_and_the_drivers_own_rows(
    postgres_database: str, notes: "psycopg.Connection[Any]"
) -> None:
    found = list[Any]()
    query = "select name, setting from pg_settings where name ~ '^(enable_seqscan|jit)$' order by 1"

    async def look(context: StepContext) -> None:
        connection = context.connection
        found.append(await (await connection.execute(query)).fetchall())
        connection.row_factory = dict_row

    made = workflow(
        "look",
        None,
        first=(first := step(look, transaction=True)),
        second=(second := step(look, transaction=True)),
        transitions=path(first, second),
    )
    await ended(postgres_database, made)

    assert found == [notes.execute(query.encode()).fetchall()] * 2


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_a_statement_that_outlasts_the_bodys_time_limit_is_stopped(
    postgres_database: str, notes: "psycopg.Connection[Any]", kind: str
) -> None:
    async def in_coroutine(context: StepContext) -> None:
        await context.connection.execute(WRITE, ("a",))
        await context.connection.execute("select pg_sleep(60)")

    def in_thread(context: StepContext) -> None:
        context.connection.execute(WRITE, ("a",))
        context.connection.execute("select pg_sleep(60)")

    body = in_coroutine if kind == "async" else in_thread
    run = await ended(postgres_database, alone(body, timeout=timedelta(milliseconds=200)))

    assert error_of(step_of(run, "first"))["code"] == "timeout"
    assert read(notes) == []
    asleep = (
        "select count(*) from pg_stat_activity where query like '%%pg_sleep(60)%%' and pid <> %s"
    )
    assert notes.execute(asleep, (notes.info.backend_pid,)).fetchone() == (0,)


async def test_a_claim_lives_while_its_step_waits_for_a_connection(
    postgres_database: str, notes: "psycopg.Connection[Any]"
) -> None:
    """The lease is over long before the other step lets go of the only connection there is."""
    gate, lease = Gate(), timedelta(seconds=1)

    async def slow(context: StepContext) -> None:
        await context.connection.execute(WRITE, (context.run_id,))
        await gate.wait()

    made = alone(slow)
    async with SquidMesh.open(
        postgres_database, workflows=[made], max_connections=1, lease=lease
    ) as mesh:
        ids = await mesh.start_runs(made, [None] * 2)
        working = asyncio.create_task(worked(mesh))
        await gate.reached()
        loop = asyncio.get_running_loop()
        until_then = loop.time() + 2.5 * lease.total_seconds()
        while loop.time() < until_then:
            await a_moment()
        gate.opened.set()
        await working
        runs = [await history(mesh, run_id) for run_id in ids]

    assert [attempts_of(run) for run in runs] == [["completed"], ["completed"]]
    assert read(notes) == sorted(ids)


@pytest.fixture(scope="module")
def mortal_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TemporaryServer]:
    """A server of these tests' own, to be killed, which keeps what it has confirmed."""
    binaries = system_binaries() or embedded_binaries()
    assert binaries is not None
    folder = tmp_path_factory.mktemp("mortal")
    settings = {"synchronous_commit": "on"}
    with TemporaryServer.start(folder, binaries=binaries, settings=settings) as server:
        yield server


@pytest.fixture
async def mortal_database(mortal_server: TemporaryServer) -> AsyncIterator[str]:
    with fresh_database(mortal_server) as url:
        await asyncio.to_thread(migrated, url)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(TABLE)
        yield url


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_a_server_that_dies_between_body_and_commit_leaves_each_step_done_once(
    mortal_server: TemporaryServer, mortal_database: str, kind: str
) -> None:
    gate, tries = Gate(), 0
    loop = asyncio.get_running_loop()

    async def in_coroutine(context: StepContext) -> None:
        nonlocal tries
        tries += 1
        await context.connection.execute(WRITE, (f"try {tries}",))
        if tries == 1:
            await gate.wait()

    def in_thread(context: StepContext) -> None:
        nonlocal tries
        tries += 1
        context.connection.execute(WRITE, (f"try {tries}",))
        if tries == 1:
            asyncio.run_coroutine_threadsafe(gate.wait(), loop).result(PATIENCE)

    body = in_coroutine if kind == "async" else in_thread
    made = alone(body, retry=Retry(10, backoff_min=TICK))
    async with SquidMesh.open(mortal_database, workflows=[made]) as mesh:
        run = await mesh.start_run(made)
        worker = Worker(mesh)
        working = asyncio.create_task(worker.run())
        await gate.reached()
        await asyncio.to_thread(mortal_server.stop, "immediate")
        gate.opened.set()
        await turns()
        await asyncio.to_thread(mortal_server.restart)
        async with asyncio.timeout(PATIENCE):
            while await _status(mesh, run.id) != "completed":
                await a_moment()
        worker.stop()
        await working

        with psycopg.connect(mortal_database) as connection:
            assert read(connection) == [f"try {tries}"]
        assert tries > 1


async def _status(mesh: SquidMesh, run_id: str) -> str | None:
    try:
        return await status_of(mesh, run_id)
    except StoreUnavailableError:
        return None


async def test_a_worker_elsewhere_hears_of_a_start_with_the_hosts_commit_and_not_before(
    postgres_database: str,
) -> None:
    """Time stands still, so nobody polls: what is picked up was told."""
    clock = VirtualClock()
    async with (
        SquidMesh.open(postgres_database, workflows=[Payment], clock=clock) as mesh,
        SquidMesh.open(postgres_database, workflows=[Payment], clock=clock) as peer,
        await psycopg.AsyncConnection.connect(postgres_database) as connection,
        await psycopg.AsyncConnection.connect(postgres_database, autocommit=True) as onlooker,
        asyncio.timeout(PATIENCE),
    ):
        await onlooker.execute('listen "squidmesh:squidmesh"')
        workers = [Worker(mesh), Worker(peer)]
        working = [asyncio.create_task(worker.run()) for worker in workers]
        await until(lambda: clock.sleepers >= 2)

        await mesh.start_runs(Payment, [None] * 3, connection=connection)
        run = await mesh.start_run(Payment, connection=connection)
        lost = await mesh.start_run(Payment, queue="lost", connection=connection)
        await mesh.cancel_run(lost.id, connection=connection)
        await turns(100)
        before = await status_of(mesh, run.id, connection=connection)
        await connection.commit()
        while await status_of(mesh, run.id) != "paused":
            await a_moment()
        told = [each async for each in onlooker.notifies(timeout=0.1)]

        assert before == "pending"
        assert [each.payload for each in told] == ['["","default"]', '["","lost"]']
        for worker in workers:
            worker.stop()
        await asyncio.gather(*working)


async def test_a_host_that_rolls_back_and_one_without_hints_tell_nobody(
    postgres_database: str,
) -> None:
    async with (
        SquidMesh.open(postgres_database, workflows=[Payment]) as mesh,
        SquidMesh.open(postgres_database, workflows=[Payment], listen=False) as silent,
        await psycopg.AsyncConnection.connect(postgres_database) as connection,
        await psycopg.AsyncConnection.connect(postgres_database, autocommit=True) as onlooker,
    ):
        await onlooker.execute('listen "squidmesh:squidmesh"')

        await mesh.start_run(Payment, connection=connection)
        await connection.rollback()
        await silent.start_run(Payment, connection=connection)
        await connection.commit()
        told = [each async for each in onlooker.notifies(timeout=0.1)]

        assert told == []
