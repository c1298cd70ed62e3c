"""Cancelling: at once where nothing is held, else as soon as what is held has let go."""

import pytest

from squidmesh import (
    ClaimLostError,
    Errored,
    InvalidTransitionError,
    Retry,
    StepContext,
    Workflow,
    log,
    manual,
    path,
    pause,
    step,
    wait,
)
from squidmesh.testing.clock import VirtualClock
from tests.mesh.support import (
    LEASE,
    MINUTE,
    SECOND,
    Gate,
    OpenMesh,
    Order,
    at_work,
    attempt_statuses,
    audit_types,
    contents,
    die_at,
    entry_types,
    event_of,
    history,
    step_of,
    step_statuses,
)

pytestmark = pytest.mark.anyio


def fail() -> None:
    raise ConnectionError


class Pending(Workflow[Order]):
    name = "pending"
    by_hand = manual()
    a = log("a")
    b = log("b")
    transitions = path(a, b)


class Waiting(Workflow[Order]):
    name = "waiting"
    by_hand = manual()
    a = wait(MINUTE)
    b = log("b")
    transitions = path(a, b)


class Retrying(Workflow[Order]):
    name = "retrying"
    by_hand = manual()
    a = step(fail, retry=Retry(2, backoff_min=MINUTE))
    b = log("b")
    transitions = path(a, b)


class Paused(Workflow[Order]):
    name = "paused"
    by_hand = manual()
    a = pause()
    b = log("b")
    transitions = path(a, b)


@pytest.mark.parametrize(
    ("workflow", "works", "status"),
    [
        (Pending, False, "pending"),
        (Waiting, True, "running"),
        (Retrying, True, "retrying"),
        (Paused, True, "paused"),
    ],
)
async def test_a_run_with_nothing_claimed_is_cancelled_at_once_whatever_its_status(
    open_mesh: OpenMesh,
    clock: VirtualClock,
    workflow: type[Workflow[Order]],
    works: bool,
    status: str,
) -> None:
    mesh = await open_mesh(workflow)
    run = await mesh.start_run(workflow)
    if works:
        await mesh.run_until_idle()
    before = await mesh.inspect_run(run.id)

    cancelled = await mesh.cancel_run(run.id, actor="ada", reason="not needed")
    clock.advance(MINUTE * 2)
    await mesh.run_until_idle()

    after = await history(mesh, run)
    assert before.status == status
    assert (cancelled.status, after.status) == ("cancelled", "cancelled")
    assert after.ended_at == before.updated_at
    assert after.revision == cancelled.revision
    assert step_statuses(after) == {"a": "cancelled", "b": "skipped"}
    assert entry_types(after)[-1] == "run_terminal"
    event = event_of(after, "cancel_requested")
    assert (event.actor, event.comment) == ("ada", "not needed")
    assert after.current_step is None


async def test_a_run_with_a_claimed_attempt_is_cancelling_until_it_reports(
    open_mesh: OpenMesh,
) -> None:
    gate, told = Gate(), []

    async def hold(context: StepContext) -> str:
        told.append(context.cancelled)
        await gate.wait()
        told.append(context.cancelled)
        return "done all the same"

    class Held(Workflow[Order]):
        name = "held"
        by_hand = manual()
        a = step(hold, output="said")
        b = log("b")
        transitions = path(a, b)

    mesh = await open_mesh(Held)
    run = await mesh.start_run(Held)
    async with at_work(mesh, gate):
        cancelling = await mesh.cancel_run(run.id)
        seen = await history(mesh, run)

    done = await history(mesh, run)
    assert (cancelling.status, seen.status, done.status) == (
        "cancelling",
        "cancelling",
        "cancelled",
    )
    assert step_statuses(seen) == {"a": "running", "b": "waiting"}
    assert told == [False, True]
    assert attempt_statuses(done, "a") == ["completed"]
    assert step_of(done, "a").output == "done all the same"
    assert done.context == {}
    assert step_statuses(done)["b"] == "skipped"
    assert done.error is None


async def test_a_failure_that_arrives_while_cancelling_changes_nothing_else(
    open_mesh: OpenMesh,
) -> None:
    gate = Gate()

    async def hold() -> Errored:
        await gate.wait()
        return Errored("no", code="declined", retryable=True)

    class Held(Workflow[Order]):
        name = "held"
        by_hand = manual()
        a = step(hold, output="x", retry=Retry(5))
        b = log("b")
        transitions = (path(a), a.on_error(b), path(b))

    mesh = await open_mesh(Held)
    run = await mesh.start_run(Held)
    async with at_work(mesh, gate):
        await mesh.cancel_run(run.id)

    done = await history(mesh, run)
    assert (done.status, done.error) == ("cancelled", None)
    assert attempt_statuses(done, "a") == ["failed"]
    assert step_statuses(done)["b"] == "skipped"


async def test_scheduled_siblings_are_cancelled_at_once_and_claimed_ones_waited_for(
    open_mesh: OpenMesh,
) -> None:
    gate = Gate()

    async def hold() -> None:
        await gate.wait()

    class Siblings(Workflow[Order]):
        name = "siblings"
        by_hand = manual()
        held = step(hold)
        later = wait(MINUTE)
        join = log("join", after=(held, later))

    mesh = await open_mesh(Siblings)
    run = await mesh.start_run(Siblings)
    async with at_work(mesh, gate):
        await mesh.cancel_run(run.id)
        seen = await history(mesh, run)

    assert step_statuses(seen) == {"held": "running", "later": "cancelled", "join": "waiting"}
    assert (await mesh.inspect_run(run.id)).status == "cancelled"


@pytest.mark.parametrize("how", ["recover", "work"])
async def test_cancelling_converges_when_the_last_lease_has_run_out(
    open_mesh: OpenMesh, clock: VirtualClock, how: str
) -> None:
    gate = Gate()

    async def hold() -> None:
        await gate.wait()

    class Held(Workflow[Order]):
        name = "held"
        by_hand = manual()
        a = step(hold)

    mesh = await open_mesh(Held)
    run = await mesh.start_run(Held)
    await die_at(mesh, gate)
    await mesh.cancel_run(run.id)
    clock.advance(LEASE + SECOND)
    stuck = await mesh.inspect_run(run.id)

    if how == "recover":
        report = await mesh.recover()
        assert (report.reclaimed, report.converged) == (1, 1)
    else:
        await mesh.run_until_idle()

    done = await history(mesh, run)
    assert (stuck.status, done.status) == ("cancelling", "cancelled")
    assert attempt_statuses(done, "a") == ["lost"]


async def test_a_report_after_the_end_is_refused_and_recorded_nowhere(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    gate, refused = Gate(), []

    async def hold(context: StepContext) -> str:
        await gate.wait()
        try:
            await context.heartbeat()
        except ClaimLostError as lost:
            refused.append(lost.code)
        return "late"

    class Held(Workflow[Order]):
        name = "held"
        by_hand = manual()
        a = step(hold, output="said")

    # A heartbeat of the worker's own would keep the lease: this clock jumps over all of them.
    mesh = await open_mesh(Held)
    run = await mesh.start_run(Held)
    async with at_work(mesh, gate):
        await mesh.cancel_run(run.id)
        clock.advance(LEASE * 2)
        await mesh.recover()
        over = await history(mesh, run)

    done = await history(mesh, run)
    assert over.status == "cancelled"
    assert refused == ["claim_lost"]
    assert done == over


@pytest.mark.parametrize("again", [True, False])
async def test_a_run_that_is_cancelling_or_over_cannot_be_cancelled(
    open_mesh: OpenMesh, again: bool
) -> None:
    gate = Gate()

    async def hold() -> None:
        await gate.wait()

    class Held(Workflow[Order]):
        name = "held"
        by_hand = manual()
        a = step(hold)

    mesh = await open_mesh(Held)
    run = await mesh.start_run(Held)
    async with at_work(mesh, gate):
        if again:
            await mesh.cancel_run(run.id)
            before = await contents(mesh)
            with pytest.raises(InvalidTransitionError) as cancelling:
                await mesh.cancel_run(run.id)
            assert cancelling.value.details == {"from": "cancelling", "to": "cancelling"}
            assert await contents(mesh) == before

    with pytest.raises(InvalidTransitionError) as over:
        await mesh.cancel_run(run.id)
    assert over.value.code == "invalid_transition"
    assert over.value.details["from"] == ("cancelled" if again else "completed")


async def test_a_failed_run_cannot_be_cancelled(open_mesh: OpenMesh) -> None:
    class Failing(Workflow[Order]):
        name = "failing"
        by_hand = manual()
        a = step(fail)

    mesh = await open_mesh(Failing)
    run = await mesh.start_run(Failing)
    await mesh.run_until_idle()

    with pytest.raises(InvalidTransitionError) as refused:
        await mesh.cancel_run(run.id)

    assert refused.value.details == {"from": "failed", "to": "cancelling"}


async def test_cancelling_undoes_nothing(open_mesh: OpenMesh) -> None:
    undone: list[str] = []

    def undo() -> None:
        undone.append("a")

    class Undoable(Workflow[Order]):
        name = "undoable"
        by_hand = manual()
        a = step(lambda: None, compensate=undo)
        b = pause()
        transitions = path(a, b)

    mesh = await open_mesh(Undoable)
    run = await mesh.start_run(Undoable)
    await mesh.run_until_idle()

    await mesh.cancel_run(run.id)
    await mesh.run_until_idle()

    assert undone == []
    assert audit_types(await history(mesh, run)) == ["paused", "cancel_requested"]


async def test_a_cancel_tells_a_body_in_the_same_process_at_once(open_mesh: OpenMesh) -> None:
    gate = Gate()
    seen: list[StepContext] = []

    async def hold(context: StepContext) -> None:
        seen.append(context)
        await gate.wait()

    class Held(Workflow[Order]):
        name = "held"
        by_hand = manual()
        a = step(hold)

    mesh = await open_mesh(Held)
    run = await mesh.start_run(Held)
    async with at_work(mesh, gate):
        before = seen[0].cancelled
        await mesh.cancel_run(run.id)
        after = seen[0].cancelled

    assert (before, after) == (False, True)
