"""What every store with transactions is to do for a host, told through the public interface.

`CommandsInATransaction` and `StepsInATransaction` are inherited by the tests of each store, which
provide `open_mesh` and `host`. Bodies write with an ``insert`` that every driver understands.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final, Protocol

import attrs
import pytest

from squidmesh import (
    Deferred,
    Errored,
    IdempotencyConflictError,
    InvalidOptionError,
    InvalidTransitionError,
    NotPausedError,
    Retry,
    Run,
    RunExistsError,
    Runner,
    RunNotFoundError,
    SquidMesh,
    StepContext,
    Workflow,
    approval,
    manual,
    path,
    pause,
    step,
)
from squidmesh.domain.values import Json
from squidmesh.testing.clock import VirtualClock
from squidmesh.testing.contracts import Host
from tests.runtime.support import (
    PATIENCE,
    Gate,
    Listener,
    a_moment,
    attempts_of,
    error_of,
    history,
    step_of,
    turns,
    until,
    workflow,
)

OpenMesh = Callable[..., Awaitable[SquidMesh]]

LEASE: Final = timedelta(seconds=60)


class Inserting(Protocol):
    """How a body of either kind writes a row of the host's."""

    def __call__(self, connection: Any, text: str) -> Any: ...


@attrs.frozen
class Order:
    """What a payment is for."""

    amount: int = 1


class Payment(Workflow[Order]):
    """A step, a person's decision, and another step."""

    name = "payment"
    by_hand = manual()
    reserve = step(lambda: {"reserved": True})
    review = approval(output="review")
    charge = step(lambda: {"charged": True})
    refuse = step(lambda: {"refused": True})
    transitions = (path(reserve, review, charge), path(refuse), review.on_error(refuse))


class Parcel(Workflow[None]):
    """A step that waits to be sent on."""

    name = "parcel"
    by_hand = manual()
    rest = pause()
    send = step(lambda: {"sent": True})
    transitions = path(rest, send)


Command = Callable[[SquidMesh, str, object], Awaitable[Run]]


@attrs.frozen(kw_only=True)
class Case:
    """A command: what it is given to, and how the run stands behind it, at once and in the end."""

    give: Command
    workflow: type[Workflow[Any]]
    before: str
    behind: str
    ended: str


CASES: Final = {
    "cancel": Case(
        give=lambda mesh, run_id, connection: mesh.cancel_run(run_id, connection=connection),
        workflow=Payment,
        before="paused",
        behind="cancelled",
        ended="cancelled",
    ),
    "resume": Case(
        give=lambda mesh, run_id, connection: mesh.resume_run(run_id, connection=connection),
        workflow=Parcel,
        before="paused",
        behind="running",
        ended="completed",
    ),
    "approve": Case(
        give=lambda mesh, run_id, connection: mesh.approve_run(
            run_id, actor="ann", connection=connection
        ),
        workflow=Payment,
        before="paused",
        behind="running",
        ended="completed",
    ),
    "reject": Case(
        give=lambda mesh, run_id, connection: mesh.reject_run(
            run_id, actor="ann", connection=connection
        ),
        workflow=Payment,
        before="paused",
        behind="running",
        ended="completed",
    ),
}

each_command = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


async def worked(mesh: SquidMesh) -> None:
    await mesh.run_until_idle(timeout=timedelta(seconds=PATIENCE))


async def prepared(mesh: SquidMesh, case: Case) -> str:
    run = await mesh.start_run(case.workflow)
    await worked(mesh)
    assert (await mesh.inspect_run(run.id)).status == case.before
    return run.id


async def status_of(mesh: SquidMesh, run_id: str, **options: Any) -> str:
    return (await mesh.inspect_run(run_id, **options)).status


@pytest.mark.anyio
class HostTests:
    """The fixtures that a store's tests provide."""

    @pytest.fixture
    def clock(self) -> VirtualClock:
        return VirtualClock()

    @pytest.fixture
    async def open_mesh(self) -> OpenMesh:
        raise NotImplementedError(f"{type(self).__name__} provides no `open_mesh` fixture")

    @pytest.fixture
    async def host(self) -> Host:
        raise NotImplementedError(f"{type(self).__name__} provides no `host` fixture")

    @pytest.fixture
    def insert(self) -> Inserting:
        raise NotImplementedError(f"{type(self).__name__} provides no `insert` fixture")

    @pytest.fixture
    async def mesh(self, open_mesh: OpenMesh) -> SquidMesh:
        return await open_mesh(Payment, Parcel)


class CommandsInATransaction(HostTests):
    """Every command with `connection=`."""

    async def test_a_start_is_seen_by_its_host_alone_until_that_commits(
        self, mesh: SquidMesh, host: Host
    ) -> None:
        await host.write("order")
        run = await mesh.start_run(Payment, connection=host.connection)

        inside = await mesh.inspect_run(run.id, include_history=True, connection=host.connection)
        with pytest.raises(RunNotFoundError):
            await mesh.inspect_run(run.id)
        await host.commit()

        assert (inside.status, step_of(inside, "reserve").status) == ("pending", "scheduled")
        assert await status_of(mesh, run.id) == "pending"
        assert await host.read() == ["order"]
        await worked(mesh)
        assert await status_of(mesh, run.id) == "paused"

    async def test_a_start_is_gone_when_its_host_rolls_back(
        self, mesh: SquidMesh, host: Host
    ) -> None:
        await host.write("order")
        run = await mesh.start_run(Payment, connection=host.connection)
        await host.rollback()

        for connection in (None, host.connection):
            with pytest.raises(RunNotFoundError):
                await mesh.inspect_run(run.id, connection=connection)
        await host.rollback()
        assert await host.read() == []
        assert (await mesh.list_runs()).runs == ()
        again = await mesh.start_run(Payment)
        await worked(mesh)
        assert await status_of(mesh, again.id) == "paused"

    async def test_many_starts_belong_to_the_hosts_transaction(
        self, mesh: SquidMesh, host: Host
    ) -> None:
        lost = await mesh.start_runs(Payment, [None] * 1200, connection=host.connection)
        await host.rollback()
        kept = await mesh.start_runs(Payment, [None] * 12, connection=host.connection)
        await host.commit()

        await worked(mesh)

        found = await mesh.list_runs(limit=1000)
        assert len(lost) == 1200
        assert {run.id for run in found.runs} == set(kept)
        assert {run.status for run in found.runs} == {"paused"}

    @each_command
    async def test_a_command_belongs_to_the_hosts_transaction(
        self, mesh: SquidMesh, host: Host, case: Case
    ) -> None:
        run_id = await prepared(mesh, case)

        await host.write("lost")
        await case.give(mesh, run_id, host.connection)
        await host.rollback()
        taken_back = await status_of(mesh, run_id)
        await host.write("kept")
        given = await case.give(mesh, run_id, host.connection)
        inside = await status_of(mesh, run_id, connection=host.connection)
        outside = await status_of(mesh, run_id)
        await host.commit()

        assert taken_back == outside == case.before
        assert given.status == inside == case.behind
        assert await status_of(mesh, run_id) == case.behind
        await worked(mesh)
        assert await status_of(mesh, run_id) == case.ended
        assert await host.read() == ["kept"]

    async def test_a_replay_belongs_to_the_hosts_transaction(
        self, mesh: SquidMesh, host: Host
    ) -> None:
        run_id = await prepared(mesh, CASES["cancel"])
        await mesh.cancel_run(run_id)

        lost = await mesh.replay_run(run_id, connection=host.connection)
        await host.rollback()
        kept = await mesh.replay_run(run_id, connection=host.connection)
        with pytest.raises(RunNotFoundError):
            await mesh.inspect_run(kept.id)
        await host.commit()

        assert kept.replayed_from == run_id
        with pytest.raises(RunNotFoundError):
            await mesh.inspect_run(lost.id)
        await worked(mesh)
        assert await status_of(mesh, kept.id) == "paused"

    async def test_a_preview_sees_what_its_host_wrote_and_writes_nothing_there(
        self, mesh: SquidMesh, host: Host
    ) -> None:
        run_id = await prepared(mesh, CASES["approve"])
        await host.write("lost")
        await mesh.cancel_run(run_id, connection=host.connection)

        with pytest.raises(NotPausedError):
            await mesh.approve_run(run_id, actor="ann", preview=True, connection=host.connection)
        inside = await mesh.replay_run(run_id, preview=True, connection=host.connection)
        outside = await mesh.replay_run(run_id, preview=True)
        after = await mesh.inspect_run(run_id, connection=host.connection)
        await host.rollback()

        assert inside.reruns == outside.reruns == ("reserve",)
        assert inside.entries[0].seq == after.revision + 1 > outside.entries[0].seq
        assert await status_of(mesh, run_id) == "paused"
        assert await host.read() == []
        assert len((await mesh.list_runs()).runs) == 1

    async def test_a_preview_in_a_transaction_shows_what_is_written_there(
        self, mesh: SquidMesh, host: Host
    ) -> None:
        run_id = await prepared(mesh, CASES["approve"])

        shown = await mesh.approve_run(
            run_id, actor="ann", preview=True, connection=host.connection
        )
        await mesh.approve_run(run_id, actor="ann", connection=host.connection)
        await host.commit()

        written = ((await history(mesh, run_id)).entries or ())[-len(shown.entries) :]
        assert [(entry.seq, entry.type) for entry in shown.entries] == [
            (entry.seq, entry.type) for entry in written
        ]

    async def test_a_transaction_may_hold_a_whole_story(self, mesh: SquidMesh, host: Host) -> None:
        run_id = await prepared(mesh, CASES["approve"])

        await mesh.approve_run(run_id, actor="ann", connection=host.connection)
        started = await mesh.start_run(Payment, connection=host.connection)
        await mesh.cancel_run(started.id, connection=host.connection)
        again = await mesh.replay_run(started.id, connection=host.connection)
        await host.commit()

        await worked(mesh)
        runs = [await status_of(mesh, each) for each in (run_id, started.id, again.id)]
        assert runs == ["completed", "cancelled", "paused"]

    async def test_an_idempotency_key_belongs_to_the_transaction_it_was_used_in(
        self, mesh: SquidMesh, host: Host
    ) -> None:
        lost = await mesh.start_run(Payment, idempotency_key="k", connection=host.connection)
        await host.rollback()

        kept = await mesh.start_run(Payment, idempotency_key="k", connection=host.connection)
        inside = await mesh.start_run(Payment, idempotency_key="k", connection=host.connection)
        together = await mesh.start_runs(
            Payment, [None, None], idempotency_keys=["k", "l"], connection=host.connection
        )
        await host.commit()

        outside = await mesh.start_run(Payment, idempotency_key="k")
        assert lost.id != kept.id == inside.id == outside.id == together[0]
        assert len((await mesh.list_runs()).runs) == 2

    async def test_a_command_given_twice_under_one_key_happens_once(
        self, mesh: SquidMesh, host: Host
    ) -> None:
        run_id = await prepared(mesh, CASES["approve"])

        for connection in (host.connection, host.connection, None):
            given = await mesh.approve_run(
                run_id, actor="ann", idempotency_key="yes", connection=connection
            )
            assert given.status == "running"
            await host.commit()

        events = (await history(mesh, run_id)).audit_events or ()
        assert [event.type for event in events].count("approved") == 1

    async def test_a_refusal_leaves_the_hosts_transaction_as_it_is(
        self, mesh: SquidMesh, host: Host
    ) -> None:
        run_id = await prepared(mesh, CASES["cancel"])
        used = await mesh.start_run(Payment, idempotency_key="k")
        connection = host.connection
        await host.write("before")

        with pytest.raises(NotPausedError):
            await mesh.resume_run(run_id, connection=connection)
        await mesh.cancel_run(run_id, connection=connection)
        with pytest.raises(InvalidTransitionError):
            await mesh.cancel_run(run_id, connection=connection)
        with pytest.raises(RunExistsError):
            await mesh.start_run(Payment, run_id=run_id, connection=connection)
        with pytest.raises(IdempotencyConflictError):
            await mesh.start_run(Payment, Order(2), idempotency_key="k", connection=connection)
        await host.write("behind")
        await host.commit()

        assert await host.read() == ["before", "behind"]
        assert await status_of(mesh, run_id) == "cancelled"
        assert {run.id for run in (await mesh.list_runs()).runs} == {run_id, used.id}

    @each_command
    async def test_a_command_on_the_hosts_connection_tells_nothing_itself_and_what_follows_is_told(
        self, open_mesh: OpenMesh, host: Host, case: Case
    ) -> None:
        listener = Listener()
        mesh = await open_mesh(Payment, Parcel, telemetry=listener)
        run_id = await prepared(mesh, case)
        listener.events.clear()

        await case.give(mesh, run_id, host.connection)
        inside = listener.names
        await host.commit()
        behind = listener.names
        await worked(mesh)

        moved = [event.metadata["to_status"] for event in listener.of("run.transition")]
        assert inside == behind == []
        assert moved == ([] if case.ended == case.behind else [case.ended])

    async def test_a_start_on_the_hosts_connection_tells_nothing_itself_and_what_follows_is_told(
        self, open_mesh: OpenMesh, host: Host
    ) -> None:
        listener = Listener()
        mesh = await open_mesh(Payment, Parcel, telemetry=listener)

        started = await mesh.start_run(Payment, connection=host.connection)
        (bulk,) = await mesh.start_runs(Payment, [None], connection=host.connection)
        again = await mesh.replay_run(started.id, connection=host.connection)
        await host.commit()
        behind = listener.names
        await worked(mesh)

        begun = [event.metadata["run_id"] for event in listener.of("step.started")]
        assert behind == []
        assert sorted(begun, key=str) == sorted([started.id, bulk, again.id])
        assert not {"run.created", "run.replayed"} & set(listener.names)

    async def test_commands_given_at_once_on_one_connection_have_their_turn_each(
        self, mesh: SquidMesh, host: Host
    ) -> None:
        taken = await mesh.start_run(Payment)

        await host.write("a")
        answers = await asyncio.gather(
            *(mesh.start_run(Payment, connection=host.connection) for _ in range(5)),
            mesh.start_run(Payment, run_id=taken.id, connection=host.connection),
            mesh.cancel_run(taken.id, connection=host.connection),
            mesh.resume_run(taken.id, connection=host.connection),
            return_exceptions=True,
        )
        await host.commit()

        kinds = [type(answer) for answer in answers]
        assert kinds == [Run] * 5 + [RunExistsError, Run, NotPausedError]
        assert len((await mesh.list_runs()).runs) == 6
        assert await host.read() == ["a"]

    async def test_what_is_no_connection_is_refused_whatever_the_command(
        self, mesh: SquidMesh
    ) -> None:
        run_id = await prepared(mesh, CASES["cancel"])
        commands: list[Awaitable[object]] = [
            mesh.start_run(Payment, connection=object()),
            mesh.start_runs(Payment, [None], connection="db"),
            mesh.inspect_run(run_id, connection=1),
            mesh.cancel_run(run_id, connection=object()),
            mesh.resume_run(run_id, connection=object()),
            mesh.approve_run(run_id, actor="ann", connection=object()),
            mesh.reject_run(run_id, actor="ann", connection=object()),
            mesh.replay_run(run_id, connection=mesh),
        ]

        answers = await asyncio.gather(*commands, return_exceptions=True)

        assert {type(answer) for answer in answers} == {InvalidOptionError}
        assert await status_of(mesh, run_id) == "paused"
        assert len((await mesh.list_runs()).runs) == 1


class Transactional:
    """Bodies of a step with ``transaction=True``, and workflows of them."""

    def __init__(self, insert: Inserting) -> None:
        self.insert = insert
        self.tries = 0

    def once(self, said: Callable[[int], object], *, kind: str, **options: Any) -> Any:
        """A workflow whose one step writes its try's number and then says something, or raises."""

        async def in_coroutine(context: StepContext) -> object:
            await self.insert(context.connection, f"try {context.attempt}")
            return self._say(said)

        def in_thread(context: StepContext) -> object:
            self.insert(context.connection, f"try {context.attempt}")
            return self._say(said)

        body = in_coroutine if kind == "async" else in_thread
        first = step(body, output="said", transaction=True, **options)
        second = step(lambda: {"went": "on"})
        return workflow("once", None, first=first, second=second, transitions=path(first, second))

    def _say(self, said: Callable[[int], object]) -> object:
        self.tries += 1
        return said(self.tries)


def raising(until_try: int) -> Callable[[int], object]:
    """Something that raises until it is tried so often."""

    def say(number: int) -> object:
        if number < until_try:
            raise ConnectionError("the bank is asleep")
        return number

    return say


each_kind = pytest.mark.parametrize("kind", ["async", "plain"])


class StepsInATransaction(HostTests):
    """Steps with ``transaction=True``."""

    @pytest.fixture
    def bodies(self, insert: Inserting) -> Transactional:
        return Transactional(insert)

    @each_kind
    async def test_a_bodys_writes_are_committed_with_its_completion(
        self, open_mesh: OpenMesh, host: Host, bodies: Transactional, kind: str
    ) -> None:
        made = bodies.once(lambda number: number, kind=kind)
        mesh = await open_mesh(made)

        ids = await mesh.start_runs(made, [None] * 20)
        await worked(mesh)

        runs = [await history(mesh, run_id) for run_id in ids]
        assert {run.status for run in runs} == {"completed"}
        assert {str(run.context["said"]) for run in runs if run.context} == {
            str(number) for number in range(1, 21)
        }
        assert await host.read() == ["try 1"] * 20

    @each_kind
    async def test_what_an_attempt_that_raised_has_written_is_taken_back(
        self, open_mesh: OpenMesh, host: Host, bodies: Transactional, kind: str
    ) -> None:
        made = bodies.once(raising(3), kind=kind, retry=Retry(3))
        mesh = await open_mesh(made)

        run = await mesh.start_run(made)
        await worked(mesh)

        assert attempts_of(await history(mesh, run)) == ["failed", "failed", "completed"]
        assert await host.read() == ["try 3"]

    @each_kind
    @pytest.mark.parametrize(
        "said",
        [
            Errored("card declined"),
            {1, 2},
            object(),
            Errored("busy", retryable=True),
        ],
        ids=["errored", "unserializable", "object", "busy"],
    )
    async def test_what_a_failed_step_has_written_is_taken_back(
        self, open_mesh: OpenMesh, host: Host, bodies: Transactional, kind: str, said: object
    ) -> None:
        made = bodies.once(lambda _: said, kind=kind)
        mesh = await open_mesh(made)

        run = await mesh.start_run(made)
        await worked(mesh)

        assert await status_of(mesh, run.id) == "failed"
        assert await host.read() == []

    @each_kind
    async def test_what_a_deferring_body_has_written_is_taken_back(
        self,
        open_mesh: OpenMesh,
        host: Host,
        bodies: Transactional,
        clock: VirtualClock,
        kind: str,
    ) -> None:
        delay = timedelta(minutes=5)
        made = bodies.once(lambda number: Deferred(delay) if number < 3 else number, kind=kind)
        mesh = await open_mesh(made)
        run = await mesh.start_run(made)

        for _ in range(2):
            await worked(mesh)
            assert await host.read() == []
            clock.advance(delay)
        await worked(mesh)

        assert await status_of(mesh, run.id) == "completed"
        assert attempts_of(await history(mesh, run)) == ["completed"]
        assert await host.read() == ["try 1"]

    async def test_a_body_may_give_commands_in_its_own_transaction(
        self, open_mesh: OpenMesh, host: Host, insert: Inserting
    ) -> None:
        tries = 0

        async def order(context: StepContext) -> str:
            nonlocal tries
            tries += 1
            await insert(context.connection, "ordered")
            child = await mesh.start_run(Parcel, connection=context.connection)
            if tries == 1:
                raise ConnectionError("the bank is asleep")
            return child.id

        first = step(order, output="child", transaction=True, retry=Retry(2))
        made = workflow("ordering", None, first=first, transitions=path(first))
        mesh = await open_mesh(made, Parcel)

        run = await mesh.start_run(made)
        await worked(mesh)

        child = (await history(mesh, run)).context or {}
        parcels = (await mesh.list_runs(workflow="parcel")).runs
        assert [(parcel.id, parcel.status) for parcel in parcels] == [(child["child"], "paused")]
        assert await host.read() == ["ordered"]

    async def test_a_worker_that_is_cancelled_takes_everything_back(
        self, open_mesh: OpenMesh, host: Host, insert: Inserting, clock: VirtualClock
    ) -> None:
        gate = Gate()
        tries = 0

        async def slow(context: StepContext) -> str:
            nonlocal tries
            tries += 1
            await insert(context.connection, f"try {context.attempt}")
            if tries == 1:
                await gate.wait()
            return "done"

        made = alone(slow)
        mesh = await open_mesh(made)
        run = await mesh.start_run(made)
        working = asyncio.create_task(worked(mesh))
        await gate.reached()

        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        before = await host.read()
        clock.advance(LEASE)
        await worked(mesh)

        assert before == []
        assert attempts_of(await history(mesh, run)) == ["lost", "completed"]
        assert await host.read() == ["try 2"]

    @each_kind
    async def test_a_body_that_outlasts_its_time_limit_leaves_nothing(
        self,
        open_mesh: OpenMesh,
        host: Host,
        insert: Inserting,
        clock: VirtualClock,
        kind: str,
    ) -> None:
        entered, ended, late = threading.Event(), threading.Event(), threading.Event()

        async def in_coroutine(context: StepContext) -> None:
            await insert(context.connection, "early")
            entered.set()
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                late.set()

        def in_thread(context: StepContext) -> None:
            insert(context.connection, "early")
            entered.set()
            ended.wait(PATIENCE)
            try:
                insert(context.connection, "late")
            finally:
                late.set()

        limit = timedelta(seconds=10)
        made = alone(in_coroutine if kind == "async" else in_thread, timeout=limit)
        mesh = await open_mesh(made)
        run = await mesh.start_run(made)
        working = asyncio.create_task(worked(mesh))
        await until(entered.is_set)
        await until(lambda: clock.sleepers > 0)
        await turns()

        clock.advance(limit)
        while await status_of(mesh, run.id) != "failed":
            await a_moment()
        ended.set()
        await until(late.is_set)
        await working

        found = await history(mesh, run)
        assert error_of(step_of(found, "first"))["code"] == "timeout"
        assert await host.read() == []


class StepsBesideOthers(HostTests):
    """Steps in a transaction that keeps nobody else waiting."""

    async def test_a_claim_that_is_lost_meanwhile_takes_everything_back(
        self, open_mesh: OpenMesh, host: Host, insert: Inserting, clock: VirtualClock
    ) -> None:
        gates = [Gate(), Gate()]
        entering = iter(gates)

        async def slow(context: StepContext) -> str:
            gate = next(entering)
            await insert(context.connection, f"try {context.attempt}")
            await gate.wait()
            return "done"

        made = alone(slow)
        first, second = await open_mesh(made), await open_mesh(made)
        run = await first.start_run(made)
        which: dict[str, Json] = {"run_id": run.id, "step": "first", "attempt": 1}
        late = asyncio.create_task(Runner(first).perform({"kind": "step", **which}))
        await gates[0].reached()

        await lose_claims(first, clock)
        taking_over = asyncio.create_task(worked(second))
        await gates[1].reached()
        gates[0].opened.set()
        report = await late
        before = await host.read()
        gates[1].opened.set()
        await taking_over

        assert (report.status, report.reason) == ("skipped", "stale_attempt")
        assert before == []
        assert attempts_of(await history(second, run)) == ["lost", "completed"]
        assert await host.read() == ["try 2"]

    async def test_a_run_that_is_cancelled_meanwhile_keeps_what_its_body_has_done(
        self, open_mesh: OpenMesh, host: Host, insert: Inserting
    ) -> None:
        gate = Gate()

        async def slow(context: StepContext) -> str:
            await gate.wait()
            await insert(context.connection, "done")
            return "done"

        made = alone(slow)
        mesh = await open_mesh(made)
        run = await mesh.start_run(made)
        working = asyncio.create_task(worked(mesh))
        await gate.reached()

        await mesh.cancel_run(run.id)
        gate.opened.set()
        await working

        assert await status_of(mesh, run.id) == "cancelled"
        assert attempts_of(await history(mesh, run)) == ["completed"]
        assert await host.read() == ["done"]


async def lose_claims(mesh: SquidMesh, clock: VirtualClock) -> None:
    """Let the leases of what *mesh* holds run out while it is not heard of."""
    engine = await mesh.engine()
    for held in engine.heart._snapshot():
        engine.heart.let_go(held.claim.claim_id)
    clock.advance(LEASE)


def alone(body: Callable[..., object], **options: Any) -> Any:
    first = step(body, output="said", transaction=True, **options)
    return workflow("alone", None, first=first, transitions=path(first))
