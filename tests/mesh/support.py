"""What the tests of the public interface share: gates in bodies, workers, looks into the store."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import attrs
import psycopg

from squidmesh import AuditEvent, Entry, Run, SquidMesh, Step
from squidmesh.adapters.memory import MemoryStore
from squidmesh.adapters.postgres import PostgresStore
from squidmesh.domain.values import Json
from squidmesh.opening import StoreAt, path_of

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
LEASE = timedelta(seconds=60)
PATIENCE = 20.0
"""How many real seconds a test waits for what must happen, before it fails."""


@attrs.frozen(kw_only=True)
class Order:
    """What most of the workflows here start with."""

    number: str = "o1"
    amount: int = 100


class OpenMesh(Protocol):
    """Opens a mesh over the test's store, with the test's clock; closed when the test ends."""

    def __call__(self, *workflows: Any, **options: Any) -> Awaitable[SquidMesh]: ...


class Deploy(Protocol):
    """Makes a mesh over the test's store, with the test's clock; closing it leaves the runs."""

    def __call__(self, *workflows: Any, **options: Any) -> SquidMesh: ...


class Gate:
    """A place in a body where it stands until the test lets it go on."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.opened = asyncio.Event()

    async def wait(self) -> None:
        self.entered.set()
        await self.opened.wait()


@asynccontextmanager
async def at_work(mesh: SquidMesh, *gates: Gate) -> AsyncIterator[None]:
    """Inside, a worker stands at all the *gates*; behind it they are open and all work is done."""
    worker = asyncio.create_task(mesh.run_until_idle())
    try:
        async with asyncio.timeout(PATIENCE):
            for gate in gates:
                await gate.entered.wait()
        yield
    except BaseException:
        worker.cancel()
        raise
    for gate in gates:
        gate.opened.set()
    async with asyncio.timeout(PATIENCE):
        await worker


async def die_at(mesh: SquidMesh, gate: Gate) -> None:
    """Let a worker claim what is due, get as far as *gate*, and never be heard of again."""
    worker = asyncio.create_task(mesh.run_until_idle())
    async with asyncio.timeout(PATIENCE):
        await gate.entered.wait()
    await kill(worker)
    gate.entered.clear()


async def kill(worker: "asyncio.Task[None]") -> None:
    """Let a worker do nothing more, and tell nobody of what it holds."""
    worker.cancel()
    await asyncio.gather(worker, return_exceptions=True)


async def history(mesh: SquidMesh, run: Run | str) -> Run:
    """The run with everything that can be read of it."""
    run_id = run if isinstance(run, str) else run.id
    return await mesh.inspect_run(run_id, include_history=True)


async def once(mesh: SquidMesh, run: Run, condition: Callable[[Run], bool]) -> Run:
    """The run as soon as *condition* holds for it; others have their turns meanwhile."""
    async with asyncio.timeout(PATIENCE):
        while not condition(found := await history(mesh, run)):
            await turn()
    return found


def step_of(run: Run, name: str) -> Step:
    assert run.steps is not None
    (found,) = [step for step in run.steps if step.name == name]
    return found


def step_statuses(run: Run) -> dict[str, str]:
    assert run.steps is not None
    return {step.name: step.status for step in run.steps}


def attempt_statuses(run: Run, step: str) -> list[str]:
    return [attempt.status for attempt in step_of(run, step).attempts]


def entry_types(run: Run, thread: str | None = None) -> list[str]:
    assert run.entries is not None
    return [entry.type for entry in run.entries if thread in (None, entry.thread)]


def entries_of(run: Run, kind: str) -> list[Entry]:
    assert run.entries is not None
    return [entry for entry in run.entries if entry.type == kind]


def audit_types(run: Run) -> list[str]:
    assert run.audit_events is not None
    return [event.type for event in run.audit_events]


def event_of(run: Run, kind: str) -> AuditEvent:
    assert run.audit_events is not None
    (found,) = [event for event in run.audit_events if event.type == kind]
    return found


def error_of(run: Run | Step) -> dict[str, Any]:
    assert run.error is not None
    return dict(run.error)


def context_of(run: Run) -> dict[str, Json]:
    assert run.context is not None
    return dict(run.context)


async def contents(mesh: SquidMesh) -> object:
    """All that is in the mesh's store about runs: what a refused call must leave as it was."""
    store = (await mesh.engine()).store
    if isinstance(store, MemoryStore):
        tables = store._tables
        journals = {run_id: tuple(record.journal) for run_id, record in tables.runs.items()}
        return journals, dict(tables.keys), dict(tables.definitions)
    assert isinstance(mesh._store, StoreAt)
    if isinstance(store, PostgresStore):
        return rows_on_server(mesh._store.url)
    return rows_in_file(Path(path_of(mesh._store.url)))


def rows_in_file(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """All that is committed to a file, by table, read on a connection of its own."""
    with closing(sqlite3.connect(path)) as connection:
        names = "select name from sqlite_master where type = 'table' order by name"
        tables: Iterable[tuple[str]] = connection.execute(names).fetchall()
        return {
            name: sorted(connection.execute(f'select * from "{name}"').fetchall(), key=repr)  # noqa: S608
            for (name,) in tables
        }


def rows_on_server(url: str) -> dict[str, list[tuple[object, ...]]]:
    """All that is committed to our tables in a database, read on a connection of its own."""
    with psycopg.connect(url) as connection:
        names = connection.execute(
            "select tablename from pg_tables where schemaname = 'squidmesh' order by tablename"
        ).fetchall()
        return {
            name: sorted(
                connection.execute(f"table squidmesh.{name}".encode()).fetchall(), key=repr
            )
            for (name,) in names
        }


async def turn() -> None:
    """Let every other task that can go on go on."""
    loop = asyncio.get_running_loop()
    now: asyncio.Future[None] = loop.create_future()
    loop.call_soon(_settle, now)
    await now


def _settle(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
