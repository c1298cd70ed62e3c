"""Every exception of the tree is raised by the public interface, and none repeats a value.

Whatever belongs to a run here, its payload, outputs, actors and metadata, holds `SECRET`.
"""

import copy
import pickle  # noqa: TID251  host queues pickle exceptions, whatever we think of it
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit
from uuid import UUID

import aiosqlite
import attrs
import psycopg
import pydantic
import pytest

from squidmesh import (
    ClaimLostError,
    DefinitionError,
    DispatchFailedError,
    Errored,
    IdempotencyConflictError,
    IncompatibleDefinitionError,
    InvalidOptionError,
    InvalidPayloadError,
    InvalidPayloadForExecutorError,
    InvalidReviewError,
    InvalidRunIdError,
    InvalidTransitionError,
    JournalCorruptError,
    NotPausedError,
    PayloadTooLargeError,
    Run,
    RunExistsError,
    Runner,
    RunNotFoundError,
    SchemaNotMigratedError,
    SquidMesh,
    SquidMeshError,
    StepContext,
    StoreConflictError,
    StoreUnavailableError,
    UnknownTriggerError,
    UnknownWorkflowError,
    UnsafeReplayError,
    UnserializableValueError,
    Workflow,
    approval,
    cron,
    errors,
    manual,
    path,
    pause,
    step,
)
from squidmesh.adapters.memory import MemoryStore
from squidmesh.codec import plain
from squidmesh.opening import path_of
from squidmesh.testing.clock import VirtualClock
from tests.contract.test_memory_store import MemoryDamage
from tests.contract.test_postgres_store import PostgresDamage
from tests.contract.test_sqlite_store import SQLiteDamage
from tests.mesh.support import LEASE, OpenMesh

pytestmark = pytest.mark.anyio

SECRET: Final = "hunter2"
SOMEBODY: Final = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"


class Telling:
    """An object that says too much whenever it is asked what it is."""

    def __repr__(self) -> str:
        return SECRET

    __str__ = __repr__


class Colour(Enum):
    RED = "red"


@attrs.frozen
class Inner:
    pin: int = 0
    ratio: float = 0.0


def _short(_: object, field: object, value: str) -> None:
    if len(value) > 2:
        raise ValueError(f"{value} is too long for {field}")


@attrs.frozen
class Picky:
    code: str = attrs.field(default="a", validator=_short)


class Account(pydantic.BaseModel):
    number: int = 0


@attrs.frozen(kw_only=True)
class Deposit:
    """A field of every kind, so that each of them can be given something that does not fit."""

    pin: str = SECRET
    whole: int = 0
    ratio: float = 0.0
    flag: bool = False
    nothing: None = None
    day: date | None = None
    moment: datetime | None = None
    key: UUID | None = None
    amount: Decimal = Decimal(0)
    colour: Colour = Colour.RED
    size: Literal["s", "m"] = "s"
    inner: Inner = Inner()
    several: list[int] = attrs.field(factory=list[int])
    by_name: dict[str, int] = attrs.field(factory=dict[str, int])
    anything: Any = None
    picky: Picky = Picky()
    account: Account = attrs.field(factory=Account)


class Vault(Workflow[Deposit]):
    """Leaves the secret in its context, waits for people twice, and does what cannot be undone."""

    name = "vault"
    by_hand = manual()
    by_clock = cron("0 9 * * *", idempotency="return_existing_run")
    put = step(lambda pin: {"kept": pin}, output="put", irreversible=True)
    hold = pause()
    review = approval(output="review")
    again = step(lambda put: Errored(SECRET, details={"put": put}))
    transitions = (path(put, hold, review, again), review.on_error(Workflow.complete))


@attrs.frozen
class Demanding:
    pin: str
    more: str


class VaultOfTomorrow(Workflow[Demanding]):
    """The same by its name, but the payloads of yesterday do not fit it."""

    name = "vault"
    by_hand = manual()
    put = step(lambda pin: {"kept": pin}, output="put")


@attrs.frozen(kw_only=True)
class Door:
    """A mesh to knock at, over the store at *url*."""

    url: str
    mesh: SquidMesh
    clock: VirtualClock
    open_mesh: OpenMesh

    async def paused(self) -> Run:
        run = await self.mesh.start_run(Vault, {"anything": {SECRET: [SECRET]}})
        await self.mesh.run_until_idle()
        return await self.mesh.inspect_run(run.id)

    async def over(self) -> Run:
        run = await self.paused()
        said: dict[str, Any] = {"actor": {"name": SECRET}, "metadata": {"why": SECRET}}
        await self.mesh.resume_run(run.id, **said)
        await self.mesh.approve_run(run.id, comment=SECRET, **said)
        await self.mesh.run_until_idle()
        return await self.mesh.inspect_run(run.id)

    @asynccontextmanager
    async def beside(self, *workflows: Any) -> AsyncIterator[SquidMesh]:
        """Another mesh over the same runs."""
        store = (await self.mesh.engine()).store
        async with SquidMesh(store=store, workflows=workflows, clock=self.clock) as other:
            yield other

    @asynccontextmanager
    async def old_snapshot(self, run_id: str) -> AsyncIterator[Any]:
        """A host's connection, whose transaction has seen the run as it stands now."""
        async with AsyncExitStack() as opened:
            if self.url.startswith("sqlite"):
                in_file = await opened.enter_async_context(
                    aiosqlite.connect(path_of(self.url), isolation_level=None)
                )
                await in_file.execute("begin")
                await self.mesh.inspect_run(run_id, connection=in_file)
                yield in_file
                await in_file.rollback()
            else:
                on_server = await opened.enter_async_context(
                    await psycopg.AsyncConnection.connect(self.url)
                )
                await on_server.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
                await self.mesh.inspect_run(run_id, connection=on_server)
                yield on_server
                await on_server.rollback()

    async def damage(self, run_id: str) -> None:
        """Cut the end off the newest row of the run's journal."""
        store = (await self.mesh.engine()).store
        if isinstance(store, MemoryStore):
            await MemoryDamage(store).journal(run_id)
        elif self.url.startswith("sqlite"):
            await SQLiteDamage(Path(path_of(self.url))).journal(run_id)
        else:
            await PostgresDamage(self.url).journal(run_id)


@pytest.fixture
async def door(url: str, clock: VirtualClock, open_mesh: OpenMesh) -> Door:
    return Door(url=url, clock=clock, open_mesh=open_mesh, mesh=await open_mesh(Vault))


Scenario = Callable[[Door], Awaitable[object]]


async def a_class_statement(door: Door) -> None:
    def body(nobody: str) -> None: ...

    class Broken(Workflow[Deposit]):
        by_hand = manual()
        one = step(body)


async def a_payload_that_fits_nowhere(door: Door) -> None:
    wrong: dict[str, object] = {
        field.name: SECRET
        for field in attrs.fields(Deposit)
        if field.name not in ("pin", "anything", "inner", "several", "by_name", "picky", "account")
    }
    deep = {
        "pin": [SECRET],
        "inner": {"pin": SECRET, "ratio": True, "other": SECRET},
        "several": [1, SECRET],
        "by_name": {"a": SECRET},
        "stranger": SECRET,
    }
    await door.mesh.start_run(Vault, {**wrong, **deep})


async def a_payload_that_is_none(door: Door) -> None:
    await door.mesh.start_run(Vault, SECRET)


async def a_validator_that_repeats_the_value(door: Door) -> None:
    (await door.mesh.start_run(Vault, {"picky": {"code": SECRET}})).payload_as(Deposit)


async def a_model_of_pydantic(door: Door) -> None:
    await door.mesh.start_run(Vault, {"account": {"number": SECRET}})


async def a_payload_read_as_another_class(door: Door) -> None:
    (await door.paused()).payload_as(Inner)


async def a_payload_of_yesterday(door: Door) -> None:
    run = await door.paused()
    async with door.beside(VaultOfTomorrow) as tomorrow:
        await tomorrow.replay_run(run.id, allow_irreversible=True)


async def many_payloads(door: Door) -> None:
    await door.mesh.start_runs(Vault, [{}, {"whole": SECRET}])


async def an_option_that_means_nothing(door: Door) -> None:
    await door.mesh.start_run(Vault, tags={"a": Telling()})  # type: ignore[dict-item]


async def a_replay_from_nowhere(door: Door) -> None:
    await door.mesh.replay_run((await door.paused()).id, from_step="nowhere")


async def a_connection_that_is_none(door: Door) -> None:
    await door.mesh.start_run(Vault, connection=Telling())


async def what_is_no_run_id(door: Door) -> None:
    await door.mesh.inspect_run(Telling())  # type: ignore[arg-type]


def reviewing(**said: Any) -> Scenario:
    async def an_approval(door: Door) -> None:
        run = await door.paused()
        await door.mesh.resume_run(run.id)
        await door.mesh.approve_run(run.id, **{"actor": "ada", **said})

    return an_approval


def performing(**payload: Any) -> Scenario:
    async def a_delivery(door: Door) -> None:
        await Runner(door.mesh).perform(payload)

    return a_delivery


async def a_run_that_is_not_there(door: Door) -> None:
    await door.mesh.cancel_run(SOMEBODY, actor=SECRET, reason=SECRET)


async def a_workflow_of_others(door: Door) -> None:
    await door.mesh.start_run("nowhere", {"pin": SECRET})


async def a_trigger_of_others(door: Door) -> None:
    await door.mesh.start_run(Vault, trigger="nowhere")


async def a_run_id_that_is_taken(door: Door) -> None:
    await door.mesh.start_run(Vault, run_id=(await door.paused()).id)


async def a_key_with_another_payload(door: Door) -> None:
    await door.mesh.start_run(Vault, idempotency_key="k")
    await door.mesh.start_run(Vault, {"anything": SECRET}, idempotency_key="k")


async def a_key_of_another_command(door: Door) -> None:
    run = await door.paused()
    await door.mesh.resume_run(run.id, metadata={"a": SECRET}, idempotency_key="k")
    await door.mesh.approve_run(run.id, actor=SECRET, idempotency_key="k")


async def a_cancel_behind_the_end(door: Door) -> None:
    await door.mesh.cancel_run((await door.over()).id, actor=SECRET, reason=SECRET)


async def an_approval_of_a_pause(door: Door) -> None:
    await door.mesh.approve_run((await door.paused()).id, actor=SECRET, comment=SECRET)


async def a_replay_of_what_cannot_be_undone(door: Door) -> None:
    await door.mesh.replay_run((await door.over()).id, actor=SECRET, comment=SECRET)


async def a_heartbeat_behind_the_lease(door: Door) -> None:
    lost: list[ClaimLostError] = []

    async def outlive(context: StepContext) -> dict[str, str]:
        (await mesh.engine()).heart.let_go(context.claim_id)
        door.clock.advance(LEASE)
        try:
            await context.heartbeat()
        except ClaimLostError as problem:
            lost.append(problem)
        return {"kept": SECRET}

    class Slow(Workflow[Deposit]):
        name = "slow"
        by_hand = manual()
        one = step(outlive)

    mesh = await door.open_mesh(Slow, max_deliveries=1)
    await mesh.start_run(Slow)
    await mesh.run_until_idle()
    raise lost[0]


async def a_store_that_is_closed(door: Door) -> None:
    async with door.beside(Vault) as other:
        await door.mesh.aclose()
        await other.start_run(Vault)


async def a_journal_that_was_cut(door: Door) -> None:
    run = await door.over()
    await door.damage(run.id)
    await door.mesh.inspect_run(run.id, include_history=True)


async def a_payload_over_the_limit(door: Door) -> None:
    mesh = await door.open_mesh(Vault, max_payload_bytes=1000)
    await mesh.start_run(Vault, {"anything": SECRET * 1000})


def holding(value: object) -> Scenario:
    async def a_payload(door: Door) -> None:
        await door.mesh.start_run(Vault, {"anything": [SECRET, value]})

    return a_payload


EVERYWHERE: Final[tuple[tuple[type[SquidMeshError], Scenario], ...]] = (
    (DefinitionError, a_class_statement),
    (InvalidPayloadError, a_payload_that_fits_nowhere),
    (InvalidPayloadError, a_payload_that_is_none),
    (InvalidPayloadError, a_validator_that_repeats_the_value),
    (InvalidPayloadError, a_model_of_pydantic),
    (InvalidPayloadError, a_payload_read_as_another_class),
    (InvalidPayloadError, a_payload_of_yesterday),
    (InvalidPayloadError, many_payloads),
    (InvalidOptionError, an_option_that_means_nothing),
    (InvalidOptionError, a_replay_from_nowhere),
    (InvalidOptionError, a_connection_that_is_none),
    (InvalidRunIdError, what_is_no_run_id),
    (InvalidReviewError, reviewing(actor="")),
    (InvalidReviewError, reviewing(actor=[SECRET])),
    (InvalidReviewError, reviewing(actor=Telling())),
    (InvalidReviewError, reviewing(comment=[SECRET])),
    (InvalidReviewError, reviewing(comment=Telling())),
    (InvalidReviewError, reviewing(metadata=SECRET)),
    (InvalidReviewError, reviewing(metadata={"why": SECRET * 20_000})),
    (InvalidReviewError, reviewing(metadata={"why": SECRET.encode()})),
    (InvalidPayloadForExecutorError, performing(kind=SECRET)),
    (InvalidPayloadForExecutorError, performing(kind="step", run_id=SOMEBODY, step=Telling())),
    (
        InvalidPayloadForExecutorError,
        performing(kind="step", run_id=SOMEBODY, step="put", attempt=SECRET),
    ),
    (InvalidPayloadForExecutorError, performing(kind="cron", workflow="vault", trigger="by_clock")),
    (
        InvalidPayloadForExecutorError,
        performing(kind="cron", workflow="vault", trigger="by_clock", signal_id=[SECRET]),
    ),
    (RunNotFoundError, a_run_that_is_not_there),
    (UnknownWorkflowError, a_workflow_of_others),
    (UnknownTriggerError, a_trigger_of_others),
    (RunExistsError, a_run_id_that_is_taken),
    (IdempotencyConflictError, a_key_with_another_payload),
    (IdempotencyConflictError, a_key_of_another_command),
    (InvalidTransitionError, a_cancel_behind_the_end),
    (NotPausedError, an_approval_of_a_pause),
    (UnsafeReplayError, a_replay_of_what_cannot_be_undone),
    (ClaimLostError, a_heartbeat_behind_the_lease),
    (StoreUnavailableError, a_store_that_is_closed),
    (JournalCorruptError, a_journal_that_was_cut),
    (PayloadTooLargeError, a_payload_over_the_limit),
    (UnserializableValueError, holding(float("nan"))),
    (UnserializableValueError, holding(SECRET.encode())),
    (UnserializableValueError, holding({SECRET})),
    (UnserializableValueError, holding(Telling())),
    (UnserializableValueError, holding({(SECRET,): 1})),
    (UnserializableValueError, holding(f"{SECRET}\ud800")),
    (UnserializableValueError, holding(f"{SECRET}\x00")),
    (UnserializableValueError, holding(2**70)),
)


async def a_host_that_has_read_something_old(door: Door) -> None:
    run = await door.paused()
    async with door.old_snapshot(run.id) as connection:
        await door.mesh.resume_run(run.id, actor=SECRET)
        await door.mesh.resume_run(run.id, actor=SECRET, connection=connection)


async def tables_of_another_release(door: Door) -> None:
    options: dict[str, Any] = {}
    if door.url.startswith("sqlite"):
        with closing(sqlite3.connect(path_of(door.url))) as connection, connection:
            connection.execute("update squidmesh_schema set version = 99")
    else:
        options["schema"] = "never_made"
    async with SquidMesh.open(door.url, workflows=[Vault], **options) as mesh:
        await mesh.start_run(Vault)


def connecting(url: str) -> Scenario:
    async def a_server_that_lets_nobody_in(door: Door) -> None:
        at = urlsplit(door.url)
        given = url.format(host=at.hostname, port=at.port, user=at.username)
        async with SquidMesh.open(given, workflows=[Vault]) as mesh:
            await mesh.start_run(Vault)

    return a_server_that_lets_nobody_in


IN_DATABASES: Final[tuple[tuple[type[SquidMeshError], Scenario], ...]] = (
    (StoreConflictError, a_host_that_has_read_something_old),
    (SchemaNotMigratedError, tables_of_another_release),
)
"""What memory cannot say: it has no snapshots, and its tables are made with it."""

ON_SERVERS: Final[tuple[tuple[type[SquidMeshError], Scenario], ...]] = (
    (
        StoreUnavailableError,
        connecting(f"postgresql://{{user}}:{SECRET}@{{host}}:{{port}}/postgres"),
    ),
    (StoreUnavailableError, connecting(f"postgresql://{{user}}:{SECRET}@{{host}}:1/postgres")),
    (StoreUnavailableError, connecting(f"postgresql://{{user}}@{{host}}:1/a?password={SECRET}")),
    (InvalidOptionError, connecting(f"postgresql://{{user}}:{SECRET}@{{host}}/a?pasword={SECRET}")),
    (InvalidOptionError, connecting(f"mysql://{{user}}:{SECRET}@{{host}}/a")),
)

ELSEWHERE: Final = {
    SquidMeshError,  # the root is there to be caught, and nothing raises it
    IncompatibleDefinitionError,  # what replays say of it stands with the replays
    DispatchFailedError,  # for executors that enqueue inside the commit, of which there is none
}


async def raised_by(scenario: Scenario, door: Door) -> SquidMeshError:
    with pytest.raises(SquidMeshError) as raised:
        await scenario(door)
    return raised.value


def hold_to_its_promises(error: SquidMeshError, kind: type[SquidMeshError], door: Door) -> None:
    assert type(error) is kind
    assert error.code
    assert plain(error.details) == error.details
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):  # noqa: S301
        assert (type(twin), str(twin), vars(twin)) == (kind, str(error), vars(error))
    said = "\n".join(all_said_by(error))
    assert SECRET not in said
    assert (urlsplit(door.url).password or SECRET) not in said


def all_said_by(error: BaseException | None) -> Iterator[str]:
    """Every text that a log shows of an exception, of those behind it, and of what it carries."""
    while error is not None:
        yield from (str(error), repr(error), repr(error.args), repr(vars(error)))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _ids(pairs: tuple[tuple[type[SquidMeshError], Scenario], ...]) -> list[str]:
    return [
        f"{number}-{kind.__name__}-{scenario.__name__}"
        for number, (kind, scenario) in enumerate(pairs)
    ]


@pytest.mark.parametrize(("kind", "scenario"), EVERYWHERE, ids=_ids(EVERYWHERE))
async def test_an_error_that_a_caller_gets_keeps_the_promises_of_the_tree(
    door: Door, kind: type[SquidMeshError], scenario: Scenario
) -> None:
    error = await raised_by(scenario, door)

    hold_to_its_promises(error, kind, door)


@pytest.mark.parametrize("url", ["sqlite", "postgres"], indirect=True)
@pytest.mark.parametrize(("kind", "scenario"), IN_DATABASES, ids=_ids(IN_DATABASES))
async def test_an_error_of_a_database_keeps_the_promises_of_the_tree(
    door: Door, kind: type[SquidMeshError], scenario: Scenario
) -> None:
    error = await raised_by(scenario, door)

    hold_to_its_promises(error, kind, door)


@pytest.mark.parametrize("url", ["postgres"], indirect=True)
@pytest.mark.parametrize(("kind", "scenario"), ON_SERVERS, ids=_ids(ON_SERVERS))
async def test_an_error_of_connecting_repeats_no_password(
    door: Door, kind: type[SquidMeshError], scenario: Scenario
) -> None:
    error = await raised_by(scenario, door)

    hold_to_its_promises(error, kind, door)


def take(anything: int) -> None:
    raise AssertionError


RESULTS: Final[dict[str, Callable[..., object]]] = {
    "invalid_input": take,
    "invalid_result": lambda: [SECRET],
    "unserializable_result": lambda: {"a": [SECRET, SECRET.encode()]},
    "result_too_large": lambda: {"a": SECRET * 1000},
}


@pytest.mark.parametrize("code", RESULTS)
async def test_what_is_written_down_of_a_value_that_does_not_fit_is_not_the_value(
    open_mesh: OpenMesh, code: str
) -> None:
    class Careless(Workflow[Deposit]):
        name = "careless"
        by_hand = manual()
        one = step(RESULTS[code])

    mesh = await open_mesh(Careless, max_payload_bytes=1000)
    run = await mesh.start_run(Careless, {"anything": SECRET})
    await mesh.run_until_idle()

    failed = await mesh.inspect_run(run.id)
    assert failed.error is not None
    assert failed.error["code"] == code
    assert SECRET not in repr(failed.error)


def test_every_class_of_the_tree_has_a_scenario_or_a_reason_to_have_none() -> None:
    tree = {kind for kind in vars(errors).values() if _is_error(kind)}

    assert {kind for kind, _ in EVERYWHERE + IN_DATABASES} == tree - ELSEWHERE


def _is_error(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, SquidMeshError)
