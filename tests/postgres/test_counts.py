"""What work costs a server, as the server itself counts: statements, and commits that write.

No mood of a machine can change these numbers. They are taken while a real worker works; what it
does by the clock and not by the step, polls and heartbeats, is told apart by its text.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from types import new_class
from typing import Any, Final, Self

import attrs
import psycopg
import pytest

from squidmesh import SquidMesh, Worker, Workflow, manual, path, step
from squidmesh.adapters.postgres import PostgresStore
from squidmesh.runtime.telemetry import Event
from squidmesh.testing.builders import alone, request, start
from squidmesh.testing.clock import VirtualClock
from squidmesh.testing.postgres import TemporaryServer

pytestmark = pytest.mark.anyio

PATIENCE: Final = 30.0

BY_THE_CLOCK: Final = ("squidmesh:claim", "prolonged as (", ".workers", ".leases", "wake_at <= (")
"""What is in the statements of polls, heartbeats, presence and sweeps, and in no others."""

WRITERS: Final = "select pg_snapshot_xmax(pg_current_snapshot())::text::bigint"


async def body() -> int:
    return 1


def chain(length: int) -> type[Workflow[None]]:
    """A workflow of *length* steps, one behind the other; each keeps what it returned."""
    steps: dict[str, Any] = {
        f"step_{number}": step(body, output=f"output_{number}") for number in range(length)
    }
    members = {"by_hand": manual(), **steps, "transitions": path(*steps.values())}
    return new_class(f"Chain{length}", (Workflow[None],), exec_body=lambda s: s.update(members))


@attrs.define(eq=False)
class Ends:
    """A telemetry sink that waits for runs to end; what it is told of is durable."""

    _left: int = 0
    _done: asyncio.Event = attrs.field(factory=asyncio.Event)

    def emit(self, event: Event) -> None:
        if event.metadata.get("to_status") == "completed":
            self._left -= 1
            if self._left <= 0:
                self._done.set()

    async def of(self, runs: int) -> None:
        """Return when so many have ended since they were `expected`."""
        self._left += runs
        self._done.clear()
        if self._left > 0:
            async with asyncio.timeout(PATIENCE):
                await self._done.wait()


@attrs.frozen
class Cost:
    """What was asked of the server: each statement's first line, and how many commits wrote."""

    statements: Sequence[str]
    commits: int

    @property
    def of_work(self) -> int:
        """How many statements are there for what is done, and not because time passes."""
        return sum(not any(mark in text for mark in BY_THE_CLOCK) for text in self.statements)


@attrs.define(eq=False)
class Ledger:
    """The server's own log of one database's statements, and its counter of transactions."""

    _server: TemporaryServer
    _log: Path
    _read: int = 0
    _written: int = 0

    @classmethod
    def of(cls, server: TemporaryServer) -> Self:
        ledger = cls(server, server.folder / "server.log")
        ledger.since_last_time()
        return ledger

    def since_last_time(self) -> Cost:
        """What has come since this was asked for the last time."""
        text = self._log.read_text("utf-8", "replace")
        said, self._read = text[self._read :], len(text)
        ((written,),) = self._server.execute(WRITERS)
        before, self._written = self._written, written
        return Cost(list(_statements(said)), written - before)


def _statements(log: str) -> Iterator[str]:
    """The statements of a log; the lines of one but for the first are indented."""
    for entry in log.replace("\n\t", " ").splitlines():
        _, found, statement = entry.partition("LOG:  execute ")
        if not found:
            _, found, statement = entry.partition("LOG:  statement: ")
        if found:
            yield " ".join(statement.split())


@pytest.fixture
def ledger(postgres_server: TemporaryServer, postgres_database: str) -> Iterator[Ledger]:
    """The statements in the test's database, while nothing else writes on the whole server."""
    name = postgres_database.rpartition("/")[2]
    postgres_server.execute(f"alter database {name} set log_statement = 'all'")
    postgres_server.execute("alter system set autovacuum = off")
    postgres_server.execute("select pg_reload_conf()")
    yield Ledger.of(postgres_server)
    postgres_server.execute("alter system reset autovacuum")
    postgres_server.execute("select pg_reload_conf()")


@asynccontextmanager
async def at_work(
    url: str, workflow: type[Workflow[None]], ends: Ends, *, concurrency: int
) -> AsyncIterator[SquidMesh]:
    """A mesh with a worker; both have done everything once that is done only once."""
    async with SquidMesh.open(url, workflows=[workflow], telemetry=ends) as mesh:
        worker = Worker(mesh, concurrency=concurrency)
        working = asyncio.create_task(worker.run())
        # The server prepares a statement that comes for the sixth time.
        for _ in range(6):
            await mesh.start_run(workflow)
            await ends.of(1)
        yield mesh
        worker.stop()
        await working


async def cost_of_one_run(url: str, ledger: Ledger, length: int) -> Cost:
    workflow, ends = chain(length), Ends()
    async with at_work(url, workflow, ends, concurrency=1) as mesh:
        ledger.since_last_time()
        await mesh.start_run(workflow)
        await ends.of(1)
        return ledger.since_last_time()


async def test_one_more_step_costs_at_most_one_statement_and_one_commit(
    postgres_database: str, ledger: Ledger
) -> None:
    short = await cost_of_one_run(postgres_database, ledger, 10)
    long = await cost_of_one_run(postgres_database, ledger, 110)

    assert (long.commits - short.commits) / 100 <= 1.0
    assert (long.of_work - short.of_work) / 100 <= 1.0


async def test_steps_of_many_runs_share_their_statements_and_commits(
    postgres_database: str, ledger: Ledger
) -> None:
    workflow, ends = chain(3), Ends()
    async with at_work(postgres_database, workflow, ends, concurrency=64) as mesh:
        ledger.since_last_time()
        await mesh.start_runs(workflow, [None] * 200)
        await ends.of(200)
        cost = ledger.since_last_time()

    assert cost.commits / 600 < 0.2
    assert len(cost.statements) / 600 < 0.2


async def test_a_claim_of_nothing_is_one_statement_and_writes_nothing(
    postgres_database: str, ledger: Ledger
) -> None:
    clock = VirtualClock()
    store = await PostgresStore.open(postgres_database, clock=clock)
    tomorrow = clock.now() + timedelta(days=1)
    await store.commit(alone(start(at=clock.now(), visible_at=tomorrow)))
    ledger.since_last_time()

    for _ in range(10):
        await store.claim(request())
    cost = ledger.since_last_time()
    await store.close()

    assert (len(cost.statements), cost.commits) == (10, 0)


def test_the_ledger_reads_every_statement_and_counts_those_that_write(
    postgres_database: str, ledger: Ledger
) -> None:
    with psycopg.connect(postgres_database, autocommit=True) as connection:
        connection.execute("create table numbers (number integer)")
        for number in range(3):
            connection.execute("insert into numbers\nvalues (%s)", (number,), prepare=True)
            connection.execute("select max(number)\nfrom numbers")

    cost = ledger.since_last_time()

    assert cost.commits == 4
    assert len(cost.statements) == 7
    assert cost.statements[-1] == "select max(number) from numbers"
