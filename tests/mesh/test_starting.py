"""Starting runs: all of it or nothing, and once per idempotency key."""

import asyncio
import itertools
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager

import attrs
import psycopg
import pytest

from squidmesh import (
    Errored,
    IdempotencyConflictError,
    InvalidOptionError,
    InvalidPayloadError,
    RunExistsError,
    Workflow,
    WorkflowDefinition,
    approval,
    log,
    manual,
    path,
    pause,
    step,
    wait,
)
from squidmesh.opening import path_of
from squidmesh.testing.clock import VirtualClock
from tests.mesh.support import (
    MINUTE,
    Deploy,
    OpenMesh,
    Order,
    attempt_statuses,
    contents,
    entry_types,
    history,
    step_statuses,
)

pytestmark = pytest.mark.anyio


@attrs.frozen(kw_only=True)
class Dated:
    number: str = "o1"
    serial: int = attrs.field(factory=itertools.count().__next__)


class Sale(Workflow[Dated]):
    name = "sale"
    by_hand = manual()
    by_phone = manual()
    only = log("sold")
    transitions = path(only)


class Return(Workflow[Dated]):
    name = "return"
    by_hand = manual()
    hold = pause()
    transitions = path(hold)


async def test_a_start_writes_the_run_its_first_attempts_and_its_index_together(
    open_mesh: OpenMesh,
) -> None:
    mesh = await open_mesh(Sale)

    run = await history(mesh, await mesh.start_run(Sale))

    assert entry_types(run) == [
        "run_started",
        "run_indexed",
        "runnables_planned",
        "attempt_scheduled",
    ]
    assert run.revision == len(entry_types(run))
    assert attempt_statuses(run, "only") == ["scheduled"]
    assert [listed.id for listed in (await mesh.list_runs()).runs] == [run.id]
    (commit,) = await (await mesh.engine()).store.read(run.id)
    assert (commit.revision, len(commit.entries)) == (run.revision, 4)


async def test_a_start_with_several_first_steps_schedules_all_of_them_in_its_commit(
    open_mesh: OpenMesh,
) -> None:
    class Roots(Workflow[Dated]):
        name = "roots"
        by_hand = manual()
        one = log("one")
        two = wait(MINUTE)
        both = log("both", after=(one, two))

    mesh = await open_mesh(Roots)

    run = await history(mesh, await mesh.start_run(Roots))

    (commit,) = await (await mesh.engine()).store.read(run.id)
    assert entry_types(run)[2:] == ["runnables_planned", *["attempt_scheduled"] * 2]
    assert commit.revision == run.revision
    assert step_statuses(run) == {"one": "scheduled", "two": "scheduled", "both": "waiting"}


RAISE = "'begin raise exception using errcode = ''23514''; end'"


@contextmanager
def refusing(url: str, table: str) -> Iterator[None]:
    """Inside, the database at *url* takes no row into this table."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(path_of(url))) as file:
            abort = "begin select raise(abort, 'no'); end"
            file.execute(f"create trigger no before insert on squidmesh_{table} {abort}")
            yield
            file.execute("drop trigger no")
        return
    with psycopg.connect(url, autocommit=True) as server:
        server.execute("create function no() returns trigger language plpgsql as " + RAISE)
        server.execute(
            f"create trigger no before insert on squidmesh.{table} execute function no()".encode()
        )
        try:
            yield
        finally:
            server.execute("drop function no() cascade")


REFUSALS = [
    *itertools.product(["runs", "step_runs", "entries"], [None, "k"]),
    ("idempotency_keys", "k"),
]


@pytest.mark.parametrize("url", ["sqlite", "postgres"], indirect=True)
@pytest.mark.parametrize(("table", "key"), REFUSALS)
async def test_a_start_that_one_table_refuses_is_in_none_of_them(
    open_mesh: OpenMesh, url: str, table: str, key: str | None
) -> None:
    mesh = await open_mesh(Sale)
    earlier = await mesh.start_run(Sale)
    before = await contents(mesh)

    refusals = (sqlite3.IntegrityError, psycopg.IntegrityError)
    with refusing(url, table), pytest.raises(refusals):
        await mesh.start_run(Sale, {"number": "o1"}, idempotency_key=key)

    after = await contents(mesh)
    again = await mesh.start_run(Sale, {"number": "o2"}, idempotency_key=key)
    assert after == before
    assert {run.id for run in (await mesh.list_runs()).runs} == {earlier.id, again.id}


async def test_a_start_that_is_refused_for_its_id_does_not_use_up_its_key(
    open_mesh: OpenMesh,
) -> None:
    mesh = await open_mesh(Sale)
    taken = await mesh.start_run(Sale)
    before = await contents(mesh)

    with pytest.raises(RunExistsError):
        await mesh.start_run(Sale, {"number": "o1"}, run_id=taken.id, idempotency_key="k")
    after = await contents(mesh)
    run = await mesh.start_run(Sale, {"number": "o2"}, idempotency_key="k")

    assert after == before
    assert run.id != taken.id


async def test_a_workflow_can_be_named_given_as_a_class_or_as_its_definition(
    open_mesh: OpenMesh,
) -> None:
    mesh = await open_mesh(Sale, Return.definition)

    by_name = await mesh.start_run("sale")
    by_class = await mesh.start_run(Return)
    by_definition = await mesh.start_run(Return.definition, None)

    assert isinstance(Return.definition, WorkflowDefinition)
    assert by_name.workflow == "sale"
    assert by_class.fingerprint == by_definition.fingerprint


async def test_the_default_trigger_is_the_first_declared(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Sale)

    assert (await mesh.start_run(Sale)).trigger == "by_hand"
    assert (await mesh.start_run(Sale, trigger="by_phone")).trigger == "by_phone"


async def test_a_run_id_can_be_chosen_and_is_taken_only_once(open_mesh: OpenMesh) -> None:
    chosen = uuid.uuid4()
    mesh = await open_mesh(Sale)
    run = await mesh.start_run(Sale, run_id=str(chosen).upper())
    before = await contents(mesh)

    with pytest.raises(RunExistsError) as refused:
        await mesh.start_run(Sale, {"number": "other"}, run_id=str(chosen))

    assert run.id == str(chosen)
    assert refused.value.code == "run_exists"
    assert await contents(mesh) == before


async def test_the_same_key_and_payload_return_the_run_whatever_has_happened_since(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    mesh = await open_mesh(Sale)
    run = await mesh.start_run(Sale, {"number": "o1"}, idempotency_key="k")
    await mesh.run_until_idle()
    clock.advance(MINUTE)
    before = await contents(mesh)

    again = await mesh.start_run(Sale, {"number": "o1"}, idempotency_key="k")

    assert again.id == run.id
    assert again.status == "completed"
    assert again.payload == run.payload
    assert await contents(mesh) == before


COMMAND_FOR = {"cancelled": "cancel_run", "failed": "reject_run", "completed": "approve_run"}


@pytest.mark.parametrize("status", ["paused", *COMMAND_FOR])
async def test_a_key_finds_its_run_in_every_status_and_also_when_it_was_replayed(
    open_mesh: OpenMesh, status: str
) -> None:
    class Deciding(Workflow[Dated]):
        name = "deciding"
        by_hand = manual()
        hold = approval()
        fail = step(lambda: Errored("no"))
        transitions = (path(hold), hold.on_error(fail), path(fail))

    mesh = await open_mesh(Deciding)
    run = await mesh.start_run(Deciding, idempotency_key="k")
    if status != "paused":
        await getattr(mesh, COMMAND_FOR[status])(run.id, actor="ada")
    await mesh.run_until_idle()
    await mesh.replay_run(run.id)
    before = await contents(mesh)

    again = await mesh.start_run(Deciding, idempotency_key="k")

    assert (again.id, again.status) == (run.id, status)
    assert await contents(mesh) == before


async def test_a_key_finds_its_run_though_the_workflow_was_changed_since(deploy: Deploy) -> None:
    class Resale(Workflow[Dated]):
        name = "sale"
        by_hand = manual()
        first = log("first")
        only = log("sold")
        transitions = path(first, only)

    async with deploy(Sale) as before:
        run = await before.start_run(Sale, {"number": "o1"}, idempotency_key="k")
    async with deploy(Resale) as mesh:
        again = await mesh.start_run(Resale, {"number": "o1"}, idempotency_key="k")
        fresh = await mesh.start_run(Resale, {"number": "o1"}, idempotency_key="l")

    assert (again.id, again.fingerprint) == (run.id, run.fingerprint)
    assert (fresh.id == run.id, fresh.fingerprint == run.fingerprint) == (False, False)


async def test_of_starts_with_one_key_in_two_meshes_at_once_one_run_comes(
    deploy: Deploy,
) -> None:
    async with deploy(Sale) as one, deploy(Sale) as other:
        runs = await asyncio.gather(
            *(
                mesh.start_run(Sale, {"number": "o1"}, idempotency_key="k")
                for mesh in (one, other) * 10
            )
        )
        listed = (await one.list_runs()).runs

    assert {run.id for run in runs} == {run.id for run in listed}
    assert len(listed) == 1


async def test_the_key_is_looked_up_before_the_run_id(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Sale)
    run = await mesh.start_run(Sale, idempotency_key="k", run_id=str(uuid.uuid4()))

    same_id = await mesh.start_run(Sale, idempotency_key="k", run_id=run.id)
    other_id = await mesh.start_run(Sale, idempotency_key="k", run_id=str(uuid.uuid4()))

    assert same_id.id == other_id.id == run.id


async def test_the_same_key_with_another_payload_is_a_conflict(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Sale)
    await mesh.start_run(Sale, {"number": "o1"}, idempotency_key="k")
    before = await contents(mesh)

    with pytest.raises(IdempotencyConflictError) as refused:
        await mesh.start_run(Sale, {"number": "o2"}, idempotency_key="k")

    assert refused.value.code == "idempotency_conflict"
    assert await contents(mesh) == before


async def test_what_is_compared_is_the_payload_as_given_without_its_defaults(
    open_mesh: OpenMesh,
) -> None:
    mesh = await open_mesh(Sale)
    run = await mesh.start_run(Sale, idempotency_key="k")

    again = await mesh.start_run(Sale, {}, idempotency_key="k")
    with pytest.raises(IdempotencyConflictError):
        await mesh.start_run(Sale, dict(run.payload), idempotency_key="k")

    assert again.id == run.id


async def test_an_instance_is_compared_whole_its_defaults_included(open_mesh: OpenMesh) -> None:
    given = Dated()
    mesh = await open_mesh(Sale)
    run = await mesh.start_run(Sale, given, idempotency_key="k")

    again = await mesh.start_run(Sale, given, idempotency_key="k")
    with pytest.raises(IdempotencyConflictError):
        await mesh.start_run(Sale, Dated(), idempotency_key="k")

    assert again.id == run.id


async def test_a_key_belongs_to_its_workflow_and_trigger(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Sale, Return)

    runs = [
        await mesh.start_run(Sale, idempotency_key="k"),
        await mesh.start_run(Sale, idempotency_key="k", trigger="by_phone"),
        await mesh.start_run(Return, idempotency_key="k"),
    ]

    assert len({run.id for run in runs}) == 3


async def test_of_many_starts_with_one_key_at_once_one_run_comes(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Sale)

    runs = await asyncio.gather(
        *(mesh.start_run(Sale, {"number": "o1"}, idempotency_key="k") for _ in range(20))
    )

    assert len({run.id for run in runs}) == 1
    assert len((await mesh.list_runs()).runs) == 1


async def test_many_runs_are_started_in_the_order_of_their_payloads(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Sale)

    ids = await mesh.start_runs(Sale, [{"number": str(n)} for n in range(2_500)], queue="bulk")

    last = await mesh.inspect_run(ids[-1])
    assert len(set(ids)) == 2_500
    assert ids == sorted(ids)
    assert (last.payload["number"], last.queue, last.status) == ("2499", "bulk", "pending")


async def test_a_bulk_start_with_one_bad_payload_starts_nothing(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Sale)
    before = await contents(mesh)

    with pytest.raises(InvalidPayloadError):
        await mesh.start_runs(Sale, [{}] * 1_500 + [{"nubmer": "x"}])

    assert await contents(mesh) == before


async def test_keys_of_a_bulk_start_find_the_runs_that_they_started(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Sale)
    payloads = [{"number": "1"}, {"number": "2"}, {"number": "3"}]
    first = await mesh.start_runs(Sale, payloads[:2], idempotency_keys=["a", None])

    second = await mesh.start_runs(Sale, payloads, idempotency_keys=["a", None, "c"])

    assert second[0] == first[0]
    assert second[1] != first[1]
    assert len({*first, *second}) == 4


async def test_a_conflicting_key_in_a_bulk_start_leaves_its_chunk_unwritten(
    open_mesh: OpenMesh,
) -> None:
    mesh = await open_mesh(Sale)
    await mesh.start_run(Sale, {"number": "1"}, idempotency_key="a")
    before = await contents(mesh)

    with pytest.raises(IdempotencyConflictError):
        await mesh.start_runs(Sale, [{"number": "9"}, {"number": "2"}], idempotency_keys=["b", "a"])

    assert await contents(mesh) == before


async def test_a_bulk_start_takes_any_trigger_and_as_many_keys_as_payloads(
    open_mesh: OpenMesh,
) -> None:
    mesh = await open_mesh(Sale)

    (started,) = await mesh.start_runs(Sale, (Dated(),), trigger="by_phone")
    nothing = await mesh.start_runs(Sale, [])
    with pytest.raises(InvalidOptionError) as refused:
        await mesh.start_runs(Sale, [{}, {}], idempotency_keys=["a"])

    assert (await mesh.inspect_run(started)).trigger == "by_phone"
    assert nothing == []
    assert refused.value.details["option"] == "idempotency_keys"


async def test_runs_of_a_higher_priority_are_claimed_first(open_mesh: OpenMesh) -> None:
    done: list[str] = []

    async def note(number: str) -> None:  # threads would begin in an order of their own
        done.append(number)

    class Noting(Workflow[Order]):
        name = "noting"
        by_hand = manual()
        write = step(note)
        transitions = path(write)

    mesh = await open_mesh(Noting)
    for number, priority in (("low", -1), ("normal", 0), ("high", 9)):
        await mesh.start_run(Noting, Order(number=number), priority=priority)

    await mesh.run_until_idle()

    assert done == ["high", "normal", "low"]
