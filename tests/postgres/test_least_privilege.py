"""A role that has what `squidmesh grants` gives, and nothing else, can do all that it should."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta

import attrs
import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege

from squidmesh import InvalidOptionError, SquidMesh, StoreUnavailableError
from squidmesh.opening import grants_sql
from squidmesh.testing.executors import RecordingExecutor
from squidmesh.testing.postgres import TemporaryServer
from tests.postgres.support import count, ears, name_of
from tests.postgres.whole_runs import LEASE, Fulfilment, fulfil, stands, working

pytestmark = pytest.mark.anyio

NAME = 'it\'s "mine" {role}'


@attrs.frozen
class Roles:
    """Makes roles for a test's database, each with the statements that it was granted."""

    server: TemporaryServer
    owner_url: str

    def grant(self, role: str, *, read_only: bool = False) -> str:
        """The URL of the database for a new role."""
        name = name_of(self.owner_url)
        quoted = '"' + role.replace('"', '""') + '"'
        self.server.execute(f"create role {quoted} login password 'secret'")
        self.server.execute(grants_sql(self.owner_url, role, {}, read_only=read_only), name)
        return self.server.url(name, user=role, password="secret")

    def drop(self, role: str) -> None:
        quoted = '"' + role.replace('"', '""') + '"'
        self.server.execute(f"drop owned by {quoted}", name_of(self.owner_url))
        self.server.execute(f"drop role {quoted}")


@pytest.fixture
def roles(postgres_server: TemporaryServer, postgres_database: str) -> Roles:
    return Roles(postgres_server, postgres_database)


@pytest.fixture
def worker_url(roles: Roles) -> Iterator[str]:
    yield roles.grant(NAME)
    roles.drop(NAME)


@pytest.fixture
def reader_url(roles: Roles) -> Iterator[str]:
    yield roles.grant("reader", read_only=True)
    roles.drop("reader")


async def test_a_worker_needs_no_more_than_it_is_granted(worker_url: str) -> None:
    executor = RecordingExecutor()
    mesh = SquidMesh.open(worker_url, workflows=[Fulfilment], lease=LEASE, executor=executor)

    with ears() as heard:
        async with mesh, working(mesh):
            paid = await fulfil(mesh, "pays", "completed")
            same = await mesh.start_run(Fulfilment, {"bank": "pays"}, idempotency_key="at pays")
            await fulfil(mesh, "declines", "failed")
            again = await mesh.replay_run(
                paid.id, from_step="charge", allow_irreversible=True, actor="ana"
            )
            ids = await mesh.start_runs(Fulfilment, [{"bank": "pays"}] * 3)
            await mesh.cancel_run(ids[0], actor="ana")
            await stands(mesh, ids[0], "cancelled")
            await stands(mesh, again.id, "completed")
            await mesh.recover(older_than=timedelta(0))
            engine = await mesh.engine()
            loaded = await engine.store.load([paid.id])
            await engine.store.save_checkpoint(loaded.states[paid.id])
            await engine.store.save_checkpoint(loaded.states[paid.id])
            explained = await mesh.explain_run(ids[1])

    assert same.id == paid.id
    assert explained.status in ("running", "paused", "pending")
    assert [line for line in heard.warnings if "failed" in line and "attempt" not in line] == []


@pytest.mark.parametrize(
    "statement",
    [
        "update squidmesh.entries set data = ''",
        "delete from squidmesh.entries",
        "truncate squidmesh.entries",
        "delete from squidmesh.runs",
        "update squidmesh.definitions set document = ''",
        "update squidmesh.schema_version set version = 7",
        "create table squidmesh.more (one integer)",
        "drop table squidmesh.runs",
    ],
)
def test_a_worker_changes_no_history(worker_url: str, statement: str) -> None:
    with psycopg.connect(worker_url) as connection, pytest.raises(InsufficientPrivilege):
        connection.execute(statement.encode())


async def test_a_reader_reads_and_changes_nothing(postgres_database: str, reader_url: str) -> None:
    async with SquidMesh.open(postgres_database, workflows=[Fulfilment]) as mesh:
        run = await mesh.start_run(Fulfilment, {"bank": "pays"})
        await mesh.run_until_idle()
    entries = count(postgres_database, "entries")

    async with SquidMesh.open(reader_url, workflows=[Fulfilment]) as mesh:
        page = await mesh.list_runs()
        seen = await mesh.inspect_run(run.id, include_history=True)
        explained = await mesh.explain_run(run.id)
        asks = (
            mesh.start_run(Fulfilment, {"bank": "pays"}),
            mesh.cancel_run(run.id, actor="ana"),
            mesh.run_until_idle(),
        )
        refused = await asyncio.gather(*asks, return_exceptions=True)

    assert [found.id for found in page.runs] == [run.id]
    assert seen.entries
    assert explained.summary
    assert all(isinstance(problem, StoreUnavailableError) for problem in refused)
    assert all("role may not do this" in str(problem) for problem in refused)
    assert count(postgres_database, "entries") == entries


def test_no_table_is_forgotten(
    postgres_server: TemporaryServer, postgres_database: str, worker_url: str
) -> None:
    name = name_of(postgres_database)
    tables = postgres_server.execute(
        "select tablename from pg_tables where schemaname = 'squidmesh' order by tablename", name
    )
    with psycopg.connect(worker_url) as connection:
        granted = connection.execute(
            "select tablename from pg_tables where schemaname = 'squidmesh' and"
            " has_table_privilege(format('%I.%I', schemaname, tablename), 'select')"
            " order by tablename"
        ).fetchall()

    assert granted == tables
    assert ("entries",) in tables


@pytest.mark.parametrize("url", ["memory://", "sqlite:///app.db"])
def test_stores_without_roles_grant_nothing(url: str) -> None:
    with pytest.raises(InvalidOptionError, match="no roles"):
        grants_sql(url, "ida", {})


@pytest.mark.parametrize("role", ["", "two\nlines"])
def test_a_role_has_a_name(role: str) -> None:
    with pytest.raises(InvalidOptionError, match="A role has a name"):
        grants_sql("postgresql://host/shop", role, {})
