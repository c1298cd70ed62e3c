"""Commands and steps in the transactions of a host whose database is a SQLite file, or memory."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from squidmesh import (
    InvalidOptionError,
    Retry,
    SquidMesh,
    StepContext,
    StoreConflictError,
    StoreUnavailableError,
)
from squidmesh.testing.clock import VirtualClock
from tests.contract.test_sqlite_store import READ, TABLE, WRITE, SQLiteHost
from tests.hosts import (
    CASES,
    LEASE,
    CommandsInATransaction,
    HostTests,
    Inserting,
    OpenMesh,
    Parcel,
    Payment,
    StepsInATransaction,
    prepared,
    status_of,
    worked,
)
from tests.runtime.support import Gate, error_of, history, only, step_of, until


class InAFile(HostTests):
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        with closing(sqlite3.connect(tmp_path / "app.db")) as connection:
            connection.execute(TABLE)
        return tmp_path / "app.db"

    @pytest.fixture
    async def open_mesh(self, file: Path, clock: VirtualClock) -> AsyncIterator[OpenMesh]:
        async with AsyncExitStack() as opened:

            async def open_one(*workflows: Any, **options: Any) -> SquidMesh:
                given = {"clock": clock, **options}
                return await opened.enter_async_context(
                    SquidMesh.open(f"sqlite:///{file}", workflows=workflows, **given)
                )

            yield open_one

    @pytest.fixture(params=["async", "plain", "no isolation level"])
    async def host(self, request: pytest.FixtureRequest, file: Path) -> AsyncIterator[SQLiteHost]:
        if request.param == "plain":
            with closing(sqlite3.connect(file)) as connection:
                yield SQLiteHost(file, connection)
        else:
            level = "DEFERRED" if request.param == "async" else None
            async with aiosqlite.connect(file, isolation_level=level) as opened:
                yield BeginningHost(file, opened)


class BeginningHost(SQLiteHost):
    """A host that begins its transactions itself where the driver does not."""

    async def write(self, text: str, *, on: Any = None) -> None:
        connection = self.connection
        assert isinstance(connection, aiosqlite.Connection)
        if connection.isolation_level is None and not connection.in_transaction:
            await connection.execute("begin")
        await super().write(text, on=on)


class TestCommandsInAFile(InAFile, CommandsInATransaction):
    pass


class TestStepsInAFile(InAFile, StepsInATransaction):
    @pytest.fixture
    async def host(self, file: Path) -> AsyncIterator[SQLiteHost]:
        async with aiosqlite.connect(file) as connection:
            yield SQLiteHost(file, connection)

    @pytest.fixture
    def insert(self) -> Inserting:
        return lambda connection, text: connection.execute(WRITE, (text,))


@pytest.mark.anyio
class TestAFileHasOneWriter(InAFile):
    @pytest.fixture
    def insert(self) -> Inserting:
        return lambda connection, text: connection.execute(WRITE, (text,))

    @pytest.mark.parametrize("kind", ["async", "plain"])
    async def test_a_body_must_end_within_a_part_of_its_lease(
        self, open_mesh: OpenMesh, file: Path, clock: VirtualClock, kind: str
    ) -> None:
        entered, ended, late = threading.Event(), threading.Event(), list[str]()

        async def in_coroutine(context: StepContext) -> None:
            await context.connection.execute(WRITE, ("early",))
            entered.set()
            await asyncio.get_running_loop().create_future()

        def in_thread(context: StepContext) -> None:
            context.connection.execute(WRITE, ("early",))
            entered.set()
            ended.wait(10)
            try:
                context.connection.execute(WRITE, ("late",))
            except sqlite3.Error as problem:
                late.append(str(problem))
            finally:
                late.append("over")

        body = in_coroutine if kind == "async" else in_thread
        made = only(body, transaction=True, timeout=timedelta(hours=1), retry=Retry(1))
        mesh = await open_mesh(made)
        run = await mesh.start_run(made)
        working = asyncio.create_task(worked(mesh))
        await until(entered.is_set)
        await until(lambda: clock.sleepers >= 2)

        clock.advance(LEASE / 4)
        await working
        found = await history(mesh, run)
        ended.set()
        if kind == "plain":
            await until(lambda: "over" in late)

        error = error_of(step_of(found, "first"))
        assert (found.status, error["code"]) == ("failed", "timeout")
        assert error["message"] == "The step took longer than its limit of 15 s."
        assert late in ([], ["Cannot operate on a closed database.", "over"])
        assert rows_of(file) == []

    async def test_a_report_behind_its_lease_takes_everything_back(
        self, open_mesh: OpenMesh, file: Path, clock: VirtualClock
    ) -> None:
        gate = Gate()
        tries = 0

        async def slow(context: StepContext) -> None:
            nonlocal tries
            tries += 1
            await context.connection.execute(WRITE, (f"try {context.attempt}",))
            if tries == 1:
                engine = await mesh.engine()
                engine.heart.let_go(context.claim_id)
                clock.advance(LEASE)
            gate.entered.set()

        made = only(slow, transaction=True, timeout=None)
        mesh = await open_mesh(made, lease=LEASE)
        run = await mesh.start_run(made)

        await worked(mesh)

        found = await history(mesh, run)
        assert [attempt.status for attempt in step_of(found, "first").attempts] == [
            "lost",
            "completed",
        ]
        assert rows_of(file) == ["try 2"]

    @pytest.mark.parametrize("kind", ["async", "plain"])
    async def test_a_body_cannot_end_its_transaction(
        self, open_mesh: OpenMesh, file: Path, kind: str
    ) -> None:
        async def in_coroutine(context: StepContext) -> None:
            await context.connection.execute(WRITE, ("a",))
            await context.connection.commit()

        def in_thread(context: StepContext) -> None:
            context.connection.execute(WRITE, ("a",))
            context.connection.commit()

        made = only(in_coroutine if kind == "async" else in_thread, transaction=True)
        mesh = await open_mesh(made)

        run = await mesh.start_run(made)
        await worked(mesh)

        found = await history(mesh, run)
        assert error_of(step_of(found, "first"))["message"] == "not authorized"
        assert rows_of(file) == []

    async def test_rows_and_texts_are_read_our_way_on_a_connection_that_has_its_own(
        self, open_mesh: OpenMesh, file: Path
    ) -> None:
        mesh = await open_mesh(Payment)
        with closing(sqlite3.connect(file, detect_types=sqlite3.PARSE_DECLTYPES)) as connection:
            connection.row_factory = lambda cursor, row: {"row": row}
            connection.text_factory = bytes

            run = await mesh.start_run(Payment, tags={"a": "b"}, connection=connection)
            await mesh.cancel_run(run.id, connection=connection)
            found = await mesh.inspect_run(run.id, include_history=True, connection=connection)
            connection.commit()

            assert connection.text_factory is bytes
            assert connection.execute("select 'x'").fetchall() == [{"row": (b"x",)}]
        assert (await history(mesh, run)) == found

    async def test_a_connection_to_another_file_or_a_closed_one_is_refused(
        self, open_mesh: OpenMesh, tmp_path: Path, file: Path
    ) -> None:
        mesh = await open_mesh(Payment)
        with closing(sqlite3.connect(tmp_path / "other.db")) as other:
            closed = sqlite3.connect(file)
            closed.close()
            over = await aiosqlite.connect(file)
            await over.close()

            for connection in (other, sqlite3.connect(":memory:"), closed, over):
                with pytest.raises(InvalidOptionError):
                    await mesh.start_run(Payment, connection=connection)

        assert (await mesh.list_runs()).runs == ()

    async def test_a_connection_of_another_thread_is_refused(
        self, open_mesh: OpenMesh, file: Path
    ) -> None:
        mesh = await open_mesh(Payment)
        connection = await asyncio.to_thread(sqlite3.connect, file)

        with pytest.raises(InvalidOptionError, match="thread"):
            await mesh.start_run(Payment, connection=connection)

    async def test_reading_leaves_the_host_no_transaction_that_it_has_not_begun(
        self, open_mesh: OpenMesh, file: Path
    ) -> None:
        mesh = await open_mesh(Payment)
        run = await mesh.start_run(Payment)
        async with aiosqlite.connect(file) as connection:
            found = await mesh.inspect_run(run.id, connection=connection)

            assert (found.status, connection.in_transaction) == ("pending", False)

    async def test_a_host_that_has_read_something_old_loses_the_race(
        self, open_mesh: OpenMesh, file: Path
    ) -> None:
        mesh = await open_mesh(Payment, Parcel)
        run_id = await prepared(mesh, CASES["approve"])
        async with aiosqlite.connect(file, isolation_level=None) as connection:
            await connection.execute("begin")
            assert await status_of(mesh, run_id, connection=connection) == "paused"
            await mesh.approve_run(run_id, actor="ann")

            with pytest.raises(StoreConflictError):
                await mesh.reject_run(run_id, actor="bob", connection=connection)

            await connection.rollback()
        assert await status_of(mesh, run_id) == "running"

    async def test_a_host_is_told_that_a_step_holds_the_file(
        self, open_mesh: OpenMesh, file: Path
    ) -> None:
        gate = Gate()
        made = only(gate.wait, transaction=True)
        mesh = await open_mesh(made, Payment)
        await mesh.start_run(made)
        working = asyncio.create_task(worked(mesh))
        await gate.reached()
        async with aiosqlite.connect(file, timeout=0.01) as connection:
            with pytest.raises(StoreUnavailableError):
                await mesh.start_run(Payment, connection=connection)

            gate.opened.set()
            await working
            run = await mesh.start_run(Payment, connection=connection)
            await connection.commit()

        assert await status_of(mesh, run.id) == "pending"

    async def test_a_savepoint_of_the_host_takes_back_what_was_done_behind_it(
        self, open_mesh: OpenMesh, file: Path
    ) -> None:
        mesh = await open_mesh(Payment)
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            connection.execute("begin")
            kept = await mesh.start_run(Payment, connection=connection)
            connection.execute("savepoint squidmesh")
            lost = await mesh.start_run(Payment, connection=connection)
            connection.execute("rollback to squidmesh")
            connection.execute("commit")

        assert [run.id for run in (await mesh.list_runs()).runs] == [kept.id]
        assert lost.id != kept.id


def rows_of(file: Path) -> list[str]:
    with closing(sqlite3.connect(file)) as connection:
        return [text for (text,) in connection.execute(READ)]


@pytest.mark.anyio
class TestInMemory:
    async def test_a_step_in_a_transaction_fails_before_its_body(self) -> None:
        begun = list[str]()

        async def write(context: StepContext) -> None:
            begun.append(context.run_id)

        made = only(write, transaction=True, retry=Retry(5))
        async with SquidMesh.open("memory://", workflows=[made]) as mesh:
            run = await mesh.start_run(made)
            await worked(mesh)
            found = await history(mesh, run)

        error = error_of(found)
        assert (found.status, error["code"]) == ("failed", "transaction_unsupported")
        assert not error["retryable"]
        assert len(step_of(found, "first").attempts) == 1
        assert begun == []

    async def test_a_connection_is_refused(self) -> None:
        async with SquidMesh.open("memory://", workflows=[Payment]) as mesh:
            with (
                closing(sqlite3.connect(":memory:")) as connection,
                pytest.raises(InvalidOptionError, match="no transactions"),
            ):
                await mesh.start_run(Payment, connection=connection)

            assert (await mesh.list_runs()).runs == ()
