"""Hints over a real server: they come at once, come again, are few, and can be turned off."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any, Final

import psycopg
import pytest

from squidmesh import SquidMesh, Worker
from squidmesh.adapters.postgres import Options, PostgresStore
from squidmesh.adapters.postgres.hints import channel_of, payload_of, read_payload
from squidmesh.testing.clock import VirtualClock
from tests.postgres.pooler import Pooler
from tests.runtime.support import PATIENCE, a_moment, only, turns, until

pytestmark = pytest.mark.anyio

OpenMesh = Callable[..., Awaitable[SquidMesh]]
CHANNEL: Final = b'listen "squidmesh:squidmesh"'


async def quick() -> None: ...


WORKFLOW: Final = only(quick)


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def open_mesh(postgres_database: str, clock: VirtualClock) -> AsyncIterator[OpenMesh]:
    """Meshes over the test's database, each with connections of its own.

    Their time stands still: nobody polls, and what happens happens because of a hint.
    """
    async with AsyncExitStack() as opened:

        async def open_one(url: str = postgres_database, **options: Any) -> SquidMesh:
            mesh = SquidMesh.open(url, workflows=[WORKFLOW], clock=clock, **options)
            return await opened.enter_async_context(mesh)

        yield open_one


@pytest.fixture
async def onlooker(postgres_database: str) -> AsyncIterator["Onlooker"]:
    """Somebody who is told of every notification, and asks the server what goes on."""
    async with await psycopg.AsyncConnection.connect(
        postgres_database, autocommit=True
    ) as connection:
        await connection.execute(CHANNEL)
        yield Onlooker(connection)


class Onlooker:
    def __init__(self, connection: "psycopg.AsyncConnection[Any]") -> None:
        self._connection = connection

    async def ask(self, statement: bytes) -> list[tuple[Any, ...]]:
        return await (await self._connection.execute(statement)).fetchall()

    async def heard(self) -> list[str]:
        """What was said so far: notifications come in the order of their commits."""
        await self.ask(b"select pg_notify('squidmesh:squidmesh', 'the end')")
        said: list[str] = []
        async for notice in self._connection.notifies(timeout=PATIENCE):
            if notice.payload == "the end":
                break
            said.append(notice.payload)
        return said

    async def heard_something(self) -> int:
        """How many notifications there were, once there were any."""
        async with asyncio.timeout(PATIENCE):
            while not (said := await self.heard()):
                await a_moment()
        return len(said)

    async def listeners(self) -> list[int]:
        rows = await self.ask(
            b"select pid from pg_stat_activity where query like 'listen%'"
            b" and datname = current_database() and pid <> pg_backend_pid()"
        )
        return [pid for (pid,) in rows]


@asynccontextmanager
async def at_work(mesh: SquidMesh) -> AsyncIterator[None]:
    """A worker of *mesh* that has nothing to do when the block begins."""
    engine = await mesh.engine()
    began: list[Collection[str]] = []
    engine.dispatcher.hinting.hearers.append(began.append)
    worker = Worker(mesh)
    working = asyncio.create_task(worker.run())
    if engine.store.hears:
        await until(lambda: bool(began))
    await turns(200)
    yield
    worker.stop()
    await working


async def completed(mesh: SquidMesh, run_id: str) -> None:
    """Wait until a run is; its steps are taken up while no time passes."""
    async with asyncio.timeout(PATIENCE):
        while (await mesh.inspect_run(run_id)).status != "completed":
            await a_moment()


async def test_a_start_is_taken_up_by_another_mesh_although_nobody_polls(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    mesh, other = await open_mesh(), await open_mesh()
    async with at_work(other):
        began = clock.now()

        run = await mesh.start_run(WORKFLOW)
        await completed(mesh, run.id)

    assert clock.now() == began


async def test_a_connection_that_was_lost_comes_back_and_nothing_is_missed(
    open_mesh: OpenMesh,
    postgres_database: str,
    onlooker: Onlooker,
    caplog: pytest.LogCaptureFixture,
) -> None:
    line_clock = VirtualClock()
    store = await PostgresStore.open(postgres_database, clock=line_clock)
    # The worker's own time stands still, so whatever wakes it is no poll.
    deaf = SquidMesh(store=store, workflows=[WORKFLOW], clock=VirtualClock())
    mesh = await open_mesh()
    async with deaf, at_work(deaf):
        (pid,) = await onlooker.listeners()
        await onlooker.ask(b"select pg_terminate_backend(%d, 10000)" % pid)
        await until(lambda: any("hints.lost" in one.getMessage() for one in caplog.records))

        missed = await mesh.start_run(WORKFLOW)
        told_nobody = await onlooker.heard_something()
        line_clock.advance(0.1)
        await completed(mesh, missed.id)
        again = await onlooker.listeners()
        heard = await mesh.start_run(WORKFLOW)
        await mesh.aclose()
        await completed(deaf, heard.id)
    await store.close()

    assert told_nobody == 1
    assert [one != pid for one in again] == [True]
    assert len([one for one in caplog.records if one.name == "squidmesh.hints"]) == 1


async def test_a_hint_goes_out_although_the_connection_for_it_was_lost(
    open_mesh: OpenMesh, onlooker: Onlooker, clock: VirtualClock
) -> None:
    mesh = await open_mesh()
    await mesh.start_run(WORKFLOW, queue="first")
    await onlooker.heard_something()
    lost = await onlooker.ask(
        b"select pg_terminate_backend(pid, 10000) from pg_stat_activity"
        b" where query like '%pg_notify($1%' and datname = current_database()"
        b" and pid <> pg_backend_pid()"
    )

    clock.advance(1)
    await mesh.start_run(WORKFLOW, queue="second")
    await mesh.aclose()

    assert lost == [(True,)]
    assert [read_payload(said)[1] for said in await onlooker.heard()] == [("second",)]


async def test_a_flood_of_starts_is_few_notifications(
    open_mesh: OpenMesh, onlooker: Onlooker, clock: VirtualClock
) -> None:
    mesh = await open_mesh()

    for _ in range(10):
        await asyncio.gather(*(mesh.start_run(WORKFLOW) for _ in range(100)))
        clock.advance(0.001)
    await mesh.aclose()

    said = await onlooker.heard()
    assert 1 <= len(said) <= 4
    assert {read_payload(payload)[1] for payload in said} == {("default",)}


async def test_steps_are_not_announced(
    open_mesh: OpenMesh, onlooker: Onlooker, clock: VirtualClock
) -> None:
    mesh = await open_mesh()
    await mesh.start_runs(WORKFLOW, [{"number": str(number)} for number in range(100)])
    await mesh.run_until_idle()
    clock.advance(1)
    await mesh.aclose()

    assert len(await onlooker.heard()) == 1


async def test_without_listening_nothing_is_sent_and_no_connection_opened(
    open_mesh: OpenMesh, onlooker: Onlooker
) -> None:
    mesh, other = await open_mesh(listen=False), await open_mesh(listen=False)
    async with at_work(other):
        await mesh.start_run(WORKFLOW)
        await mesh.start_runs(WORKFLOW, [{}, {}])
        listeners = await onlooker.listeners()
    await mesh.aclose()

    assert listeners == []
    assert await onlooker.heard() == []


async def test_a_mesh_that_only_works_opens_one_connection_more_and_gives_it_back(
    open_mesh: OpenMesh, onlooker: Onlooker
) -> None:
    mesh = await open_mesh()
    async with at_work(mesh):
        during = await onlooker.listeners()
    await mesh.aclose()
    async with asyncio.timeout(PATIENCE):
        while await onlooker.listeners():
            await a_moment()

    assert len(during) == 1


async def test_what_others_say_on_the_channel_wakes_workers_and_harms_nobody(
    open_mesh: OpenMesh, onlooker: Onlooker
) -> None:
    quiet, other = await open_mesh(listen=False), await open_mesh()
    async with at_work(other):
        run = await quiet.start_run(WORKFLOW)

        await onlooker.ask(b"select pg_notify('squidmesh:squidmesh', 'now!')")
        await completed(quiet, run.id)


async def test_meshes_of_different_schemas_do_not_hear_each_other(
    postgres_database: str, clock: VirtualClock
) -> None:
    heard: dict[str, list[Collection[str]]] = {"ours": [], "theirs": [], "o" * 63: []}
    stores: dict[str, PostgresStore] = {}
    async with AsyncExitStack() as opened:
        for schema, hints in heard.items():
            options = Options(schema=schema)
            store = await PostgresStore.open(postgres_database, clock=clock, options=options)
            opened.push_async_callback(store.close)
            listening = asyncio.create_task(store.listen(hints.append, source="listener"))
            opened.callback(listening.cancel)
            stores[schema] = store
        await until(lambda: all(heard.values()))

        await stores["o" * 63].hint(["long"], source="starter")
        await until(lambda: len(heard["o" * 63]) > 1)
        await stores["ours"].hint(["short"], source="starter")
        await until(lambda: len(heard["ours"]) > 1)

    assert list(heard.values()) == [[(), ("short",)], [()], [(), ("long",)]]


async def test_a_hint_inside_a_host_s_transaction_is_told_with_its_commit(
    postgres_database: str, onlooker: Onlooker, clock: VirtualClock
) -> None:
    store = await PostgresStore.open(postgres_database, clock=clock)
    async with await psycopg.AsyncConnection.connect(postgres_database) as host:
        await (await store.joined(host)).hint(["taken-back"], source="host")
        await host.rollback()

        await (await store.joined(host)).hint(["told"], source="host")
        durable = await (await host.execute("show synchronous_commit")).fetchone()
        before = await onlooker.heard()
        await host.commit()
        usual = await (await host.execute("show synchronous_commit")).fetchone()
    await store.close()

    assert before == []
    assert durable == usual
    assert [read_payload(said) for said in await onlooker.heard()] == [("host", ("told",))]


# -- Behind a pooler -------------------------------------------------------------------------


@pytest.fixture
def pooler(postgres_database: str) -> Iterator[Pooler]:
    with Pooler.start(postgres_database) as pooler:
        yield pooler


async def test_behind_a_pooler_nobody_listens_and_hints_are_sent(
    open_mesh: OpenMesh, onlooker: Onlooker, pooler: Pooler, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="squidmesh.hints")
    pooled = await open_mesh(pooler.url, prepare_threshold=None)
    direct = await open_mesh()
    worker = Worker(pooled)
    working = asyncio.create_task(worker.run())
    await until(lambda: any("hints.unheard" in one.getMessage() for one in caplog.records))
    listeners = await onlooker.listeners()
    worker.stop()
    await working

    async with at_work(direct):
        run = await pooled.start_run(WORKFLOW)
        await completed(direct, run.id)

    assert listeners == []


async def test_an_idle_worker_asks_the_server_once_a_second_at_most(
    open_mesh: OpenMesh, pooler: Pooler, clock: VirtualClock
) -> None:
    mesh = await open_mesh(pooler.url, prepare_threshold=None)
    worker = Worker(mesh)
    working = asyncio.create_task(worker.run())
    before = 0
    for span in (timedelta(seconds=10), timedelta(minutes=10)):
        before, ends = pooler.transactions, clock.now() + span
        while True:
            async with asyncio.timeout(PATIENCE):
                while clock.next_wake_at is None:
                    await a_moment()
            if clock.next_wake_at > ends:
                break
            clock.advance(clock.next_wake_at - clock.now())
            await turns(2)
    worker.stop()
    await working

    assert 400 < pooler.transactions - before <= 600


# -- What is said ----------------------------------------------------------------------------


@pytest.mark.parametrize("schema", ["squidmesh", "s" * 53, "s" * 54, "s" * 63, "\N{SQUID}" * 15])
def test_a_channel_has_a_name_that_the_server_takes(schema: str) -> None:
    assert 0 < len(channel_of(schema).encode()) <= 63


def test_long_schemas_have_channels_of_their_own() -> None:
    assert channel_of("s" * 62 + "a") != channel_of("s" * 62 + "b")


@pytest.mark.parametrize("count", [0, 1, 700, 701, 10_000])
def test_a_payload_names_the_queues_if_they_find_room(count: int) -> None:
    queues = [f"queue-{number:03}" for number in range(count)]

    payload = payload_of(queues, "alice")

    assert len(payload.encode()) < 8000
    assert read_payload(payload) in (("alice", tuple(sorted(queues))), ("alice", ()))


@pytest.mark.parametrize("payload", ["", "now!", "{}", "[]", "[1, 2]", "null", "[" * 7000])
def test_what_is_no_hint_of_ours_may_be_about_any_queue(payload: str) -> None:
    assert read_payload(payload) == ("", ())
