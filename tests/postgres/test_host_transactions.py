"""Commands in the transactions of a host whose database is PostgreSQL."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from typing import Any

import psycopg
import pytest
from psycopg.adapt import Dumper, Loader
from psycopg.rows import dict_row

from squidmesh import (
    InvalidOptionError,
    RunNotFoundError,
    SchemaNotMigratedError,
    SquidMesh,
    StoreConflictError,
    StoreUnavailableError,
)
from squidmesh.testing.clock import VirtualClock
from tests.contract.test_postgres_transactions import (
    READ,
    TABLE,
    WRITE,
    PostgresHost,
    called,
    connect,
)
from tests.hosts import (
    CASES,
    CommandsInATransaction,
    Inserting,
    OpenMesh,
    Parcel,
    Payment,
    StepsBesideOthers,
    StepsInATransaction,
    prepared,
    status_of,
    worked,
)
from tests.runtime.support import PATIENCE, Gate, a_moment, attempts_of, history, only, turns


async def quick() -> None: ...


class InPostgres:
    @pytest.fixture
    async def open_mesh(
        self, postgres_database: str, clock: VirtualClock
    ) -> AsyncIterator[OpenMesh]:
        async with AsyncExitStack() as opened:

            async def open_one(*workflows: Any, **options: Any) -> SquidMesh:
                given = {"clock": clock, **options}
                return await opened.enter_async_context(
                    SquidMesh.open(postgres_database, workflows=workflows, **given)
                )

            yield open_one

    @pytest.fixture(
        params=[("async", False), ("async", True), ("plain", False)],
        ids=["async", "autocommit", "plain"],
    )
    async def host(
        self, request: pytest.FixtureRequest, postgres_database: str
    ) -> AsyncIterator[PostgresHost]:
        kind, autocommit = request.param
        connection = await connect(postgres_database, kind=kind, autocommit=autocommit)
        await called(connection, connection.execute, TABLE)
        await called(connection, connection.commit)
        yield PostgresHost(postgres_database, connection)
        await called(connection, connection.close)


class TestCommandsInPostgres(InPostgres, CommandsInATransaction):
    pass


class TestStepsInPostgres(InPostgres, StepsInATransaction, StepsBesideOthers):
    @pytest.fixture
    async def host(self, postgres_database: str) -> AsyncIterator[PostgresHost]:
        async with await psycopg.AsyncConnection.connect(postgres_database) as connection:
            await connection.execute(TABLE)
            await connection.commit()
            yield PostgresHost(postgres_database, connection)

    @pytest.fixture
    def insert(self) -> Inserting:
        return lambda connection, text: connection.execute(WRITE, (text,))


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def mesh(postgres_database: str, clock: VirtualClock) -> AsyncIterator[SquidMesh]:
    async with SquidMesh.open(postgres_database, workflows=[Payment, Parcel], clock=clock) as mesh:
        yield mesh


Connection = psycopg.AsyncConnection[Any]


@pytest.fixture
async def connection(postgres_database: str) -> AsyncIterator[Connection]:
    async with await psycopg.AsyncConnection.connect(postgres_database) as opened:
        await opened.execute(TABLE)
        await opened.commit()
        yield opened


async def notes(connection: Connection) -> list[str]:
    rows = await (await connection.execute(READ)).fetchall()
    return [row["text"] if isinstance(row, dict) else row[0] for row in rows]


@pytest.mark.anyio
class TestConnectionsOfAllSorts:
    async def test_a_transaction_that_has_failed_is_refused_by_name(
        self, mesh: SquidMesh, connection: Connection
    ) -> None:
        with pytest.raises(psycopg.errors.UndefinedTable):
            await connection.execute("select 1 from nowhere")

        with pytest.raises(InvalidOptionError, match="has failed already"):
            await mesh.start_run(Payment, connection=connection)

        await connection.rollback()
        run = await mesh.start_run(Payment, connection=connection)
        await connection.commit()
        assert await status_of(mesh, run.id) == "pending"

    async def test_a_closed_connection_is_refused_by_name(
        self, mesh: SquidMesh, postgres_database: str
    ) -> None:
        connection = await psycopg.AsyncConnection.connect(postgres_database)
        await connection.close()

        with pytest.raises(InvalidOptionError, match="is closed"):
            await mesh.start_run(Payment, connection=connection)

    async def test_a_connection_that_breaks_is_an_accident_of_the_store(
        self, mesh: SquidMesh, connection: Connection, postgres_database: str
    ) -> None:
        await connection.execute(WRITE, ("a",))
        with psycopg.connect(postgres_database, autocommit=True) as other:
            other.execute("select pg_terminate_backend(%s)", (connection.info.backend_pid,))

        with pytest.raises(StoreUnavailableError):
            await mesh.start_run(Payment, connection=connection)

        assert (await mesh.list_runs()).runs == ()

    async def test_a_connection_of_another_technology_is_refused_by_its_name(
        self, mesh: SquidMesh
    ) -> None:
        with (
            closing(sqlite3.connect(":memory:")) as other,
            pytest.raises(InvalidOptionError, match=r"psycopg, and not a sqlite3\.Connection"),
        ):
            await mesh.start_run(Payment, connection=other)

    async def test_a_connection_in_pipeline_mode_is_refused(
        self, mesh: SquidMesh, connection: Connection
    ) -> None:
        async with connection.pipeline():
            with pytest.raises(InvalidOptionError, match="pipeline mode"):
                await mesh.start_run(Payment, connection=connection)

    async def test_a_connection_that_cannot_hold_every_text_is_refused(
        self, mesh: SquidMesh, postgres_database: str
    ) -> None:
        async with await psycopg.AsyncConnection.connect(
            postgres_database, client_encoding="latin1"
        ) as narrow:
            with pytest.raises(InvalidOptionError, match="client_encoding"):
                await mesh.start_run(Payment, connection=narrow)

    async def test_a_database_without_our_tables_leaves_the_host_its_transaction(
        self, mesh: SquidMesh, postgres_empty_database: str
    ) -> None:
        async with await psycopg.AsyncConnection.connect(postgres_empty_database) as elsewhere:
            await elsewhere.execute(TABLE)

            with pytest.raises(SchemaNotMigratedError):
                await mesh.start_run(Payment, connection=elsewhere)

            assert await notes(elsewhere) == []

    async def test_what_a_host_has_made_of_its_connection_does_not_matter(
        self, mesh: SquidMesh, connection: Connection
    ) -> None:
        connection.row_factory = dict_row
        connection.cursor_factory = psycopg.AsyncRawCursor
        connection.prepare_threshold = 0
        for kind in ("timestamptz", "text", "uuid", "jsonb", "int8"):
            connection.adapters.register_loader(kind, Shouting)
        connection.adapters.register_dumper(str, Whispering)
        await connection.execute("set search_path to pg_catalog")
        await connection.execute("set time zone 'Asia/Tokyo'")

        run = await mesh.start_run(Payment, tags={"a": "b"}, connection=connection)
        found = await mesh.inspect_run(run.id, include_history=True, connection=connection)
        await mesh.cancel_run(run.id, connection=connection)
        await connection.commit()

        assert found.status == "pending"
        assert await mesh.inspect_run(run.id) != found
        assert await status_of(mesh, run.id) == "cancelled"

    async def test_a_savepoint_of_the_host_takes_back_what_was_done_behind_it(
        self, mesh: SquidMesh, connection: Connection
    ) -> None:
        kept = await mesh.start_run(Payment, connection=connection)
        async with connection.transaction(force_rollback=True):
            await connection.execute(WRITE, ("a",))
            lost = await mesh.start_run(Payment, connection=connection)
        async with connection.transaction():
            late = await mesh.start_run(Payment, connection=connection)
        await connection.commit()

        assert await status_of(mesh, kept.id) == await status_of(mesh, late.id) == "pending"
        with pytest.raises(RunNotFoundError):
            await mesh.inspect_run(lost.id)

    async def test_a_block_of_psycopg_commits_or_takes_back(
        self, mesh: SquidMesh, postgres_database: str
    ) -> None:
        async with await psycopg.AsyncConnection.connect(
            postgres_database, autocommit=True
        ) as connection:
            async with connection.transaction():
                kept = await mesh.start_run(Payment, connection=connection)
            async with connection.transaction(force_rollback=True):
                lost = await mesh.start_run(Payment, connection=connection)

        assert [run.id for run in (await mesh.list_runs()).runs] == [kept.id]
        assert lost.id != kept.id

    async def test_a_snapshot_that_is_stale_is_a_conflict_and_the_host_goes_on(
        self, mesh: SquidMesh, connection: Connection
    ) -> None:
        run_id = await prepared(mesh, CASES["approve"])
        await connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
        await connection.execute(WRITE, ("a",))
        await mesh.approve_run(run_id, actor="ann")

        with pytest.raises(StoreConflictError):
            await mesh.reject_run(run_id, actor="bob", connection=connection)
        run = await mesh.start_run(Payment, connection=connection)
        await connection.execute(WRITE, ("b",))
        await connection.commit()

        assert await notes(connection) == ["a", "b"]
        assert await status_of(mesh, run.id) == "pending"

    async def test_a_command_that_is_cancelled_takes_back_its_own_part(
        self, mesh: SquidMesh, connection: Connection, postgres_database: str
    ) -> None:
        run_id = await prepared(mesh, CASES["approve"])
        async with await psycopg.AsyncConnection.connect(postgres_database) as other:
            await mesh.approve_run(run_id, actor="ann", connection=other)
            await connection.execute(WRITE, ("a",))
            waiting = asyncio.create_task(mesh.cancel_run(run_id, connection=connection))
            await until_blocked(postgres_database, connection)

            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            run = await mesh.start_run(Payment, connection=connection)
            await connection.commit()
            await other.commit()

        assert await notes(connection) == ["a"]
        assert await status_of(mesh, run.id) == "pending"
        assert await status_of(mesh, run_id) == "running"

    async def test_a_command_over_a_plain_connection_that_is_cancelled_waits_for_its_thread(
        self, mesh: SquidMesh, connection: Connection, postgres_database: str
    ) -> None:
        run_id = await prepared(mesh, CASES["approve"])
        with psycopg.connect(postgres_database) as plain:
            await mesh.approve_run(run_id, actor="ann", connection=connection)
            plain.execute(WRITE, ("a",))
            waiting = asyncio.create_task(mesh.cancel_run(run_id, connection=plain))
            await until_blocked(postgres_database, plain)

            waiting.cancel()
            await turns()
            await connection.rollback()
            answers = await asyncio.gather(waiting, return_exceptions=True)
            plain.commit()

        assert isinstance(answers[0], asyncio.CancelledError)
        assert await notes(connection) == ["a"]
        assert await status_of(mesh, run_id) == "paused"


class Shouting(Loader):
    def load(self, data: Any) -> str:
        return "A HOST'S OWN"


class Whispering(Dumper):
    def dump(self, obj: object) -> bytes:
        return b"a host's own"


async def until_blocked(url: str, connection: "psycopg.BaseConnection[Any]") -> None:
    """Return when *connection* waits for a lock that somebody else has."""
    query = "select wait_event_type = 'Lock' from pg_stat_activity where pid = %s"
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as other:
        while await _first(other, query, connection.info.backend_pid) != (True,):
            await a_moment()


async def _first(connection: Connection, query: str, *values: object) -> Any:
    return await (await connection.execute(query.encode(), values)).fetchone()


@pytest.mark.anyio
class TestHoldingThingsForLong:
    async def test_a_host_that_holds_a_run_holds_up_nobody_else(
        self, mesh: SquidMesh, connection: Connection
    ) -> None:
        held = await prepared(mesh, CASES["approve"])
        other = await prepared(mesh, CASES["approve"])

        started = await mesh.start_run(Payment, connection=connection)
        await mesh.approve_run(held, actor="ann", connection=connection)
        await mesh.approve_run(other, actor="ann")
        await worked(mesh)
        before = await status_of(mesh, other), await status_of(mesh, held)
        await connection.commit()
        await worked(mesh)

        assert before == ("completed", "paused")
        assert await status_of(mesh, held) == "completed"
        assert await status_of(mesh, started.id) == "paused"

    async def test_a_report_about_a_held_run_is_made_when_the_host_lets_go_of_it(
        self, postgres_database: str, connection: Connection
    ) -> None:
        gate = Gate()
        made = only(gate.wait)
        async with SquidMesh.open(postgres_database, workflows=[made]) as mesh:
            run = await mesh.start_run(made)
            working = asyncio.create_task(worked(mesh))
            await gate.reached()

            cancelled = await mesh.cancel_run(run.id, connection=connection)
            gate.opened.set()
            await turns()
            before = working.done()
            await connection.commit()
            await working

            assert (cancelled.status, before) == ("cancelling", False)
            assert await status_of(mesh, run.id) == "cancelled"
            assert attempts_of(await history(mesh, run)) == ["completed"]

    async def test_a_first_start_in_a_hosts_transaction_holds_up_no_other_start(
        self, postgres_database: str, connection: Connection, clock: VirtualClock
    ) -> None:
        made = only(quick)
        async with (
            SquidMesh.open(postgres_database, workflows=[made], clock=clock) as mesh,
            SquidMesh.open(postgres_database, workflows=[made], clock=clock) as peer,
            asyncio.timeout(PATIENCE),
        ):
            first = await mesh.start_run(made, connection=connection)
            second = await peer.start_run(made)
            await worked(peer)
            await connection.rollback()

            assert await status_of(peer, second.id) == "completed"
            with pytest.raises(RunNotFoundError):
                await peer.inspect_run(first.id)

    async def test_a_key_that_a_host_holds_holds_up_only_those_who_use_it(
        self, postgres_database: str, connection: Connection
    ) -> None:
        async with (
            SquidMesh.open(postgres_database, workflows=[Payment]) as mesh,
            asyncio.timeout(PATIENCE),
        ):
            first = await mesh.start_run(Payment, idempotency_key="k", connection=connection)
            alone = asyncio.create_task(mesh.start_run(Payment, idempotency_key="k"))
            among = asyncio.create_task(
                mesh.start_runs(Payment, [None, None], idempotency_keys=["k", "m"])
            )
            others = [await mesh.start_run(Payment, idempotency_key=key) for key in ("l", "n")]
            before = alone.done(), among.done()
            await connection.commit()

            assert before == (False, False)
            assert (await alone).id == first.id == (await among)[0]
            assert len({first.id, *await among, *(run.id for run in others)}) == 4
