"""Steps that come after others: no phases, and what a failure does to those beside it."""

from datetime import timedelta

import pytest

from squidmesh import Errored, Retry, Workflow, log, manual, step, wait
from squidmesh.testing.clock import VirtualClock
from tests.mesh.support import (
    MINUTE,
    SECOND,
    Gate,
    OpenMesh,
    Order,
    at_work,
    attempt_statuses,
    entries_of,
    error_of,
    history,
    step_of,
    step_statuses,
    turn,
)

pytestmark = pytest.mark.anyio


class Feast(Workflow[Order]):
    """Two roots and what follows from them."""

    name = "feast"
    by_hand = manual()
    march = step(lambda number: {"marched": number})
    sneak = step(lambda: {"sneaked": True})
    feast = step(lambda marched, sneaked: {"won": [marched, sneaked]}, after=(march, sneak))


async def test_all_roots_are_scheduled_at_once_and_the_run_ends_when_all_is_done(
    open_mesh: OpenMesh,
) -> None:
    mesh = await open_mesh(Feast)

    run = await mesh.start_run(Feast)
    begun = await history(mesh, run)
    await mesh.run_until_idle()

    done = await history(mesh, run)
    assert step_statuses(begun) == {"march": "scheduled", "sneak": "scheduled", "feast": "waiting"}
    assert begun.current_step is None
    assert done.status == "completed"
    assert done.context == {"marched": "o1", "sneaked": True, "won": ["o1", True]}


async def test_a_step_does_not_wait_for_a_slow_branch_that_it_does_not_come_after(
    open_mesh: OpenMesh,
) -> None:
    gate = Gate()

    async def wait_at_the_gate() -> None:
        await gate.wait()

    class Branches(Workflow[Order]):
        name = "branches"
        by_hand = manual()
        slow = step(wait_at_the_gate)
        a = log("a")
        b = log("b", after=a)
        c = log("c", after=b)
        join = log("join", after=(slow, c))

    mesh = await open_mesh(Branches)
    run = await mesh.start_run(Branches)

    async with at_work(mesh, gate):
        # The others are done as soon as the worker has nothing else to do than to wait.
        while step_statuses(seen := await history(mesh, run))["c"] != "completed":
            await turn()

    assert step_statuses(seen)["slow"] == "running"
    assert step_statuses(seen)["join"] == "waiting"
    assert (await mesh.inspect_run(run.id)).status == "completed"


async def test_a_terminal_failure_cancels_what_is_scheduled_or_retrying_beside_it(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    def fail() -> None:
        raise ConnectionError

    class Siblings(Workflow[Order]):
        name = "siblings"
        by_hand = manual()
        bad = wait(SECOND)
        worse = step(lambda: Errored("no", code="declined"), output="x", after=bad)
        shaky = step(fail, retry=Retry(3, backoff_min=MINUTE))
        later = wait(MINUTE)
        join = log("join", after=(worse, shaky, later))

    mesh = await open_mesh(Siblings)
    run = await mesh.start_run(Siblings)
    await mesh.run_until_idle()
    clock.advance(1)

    await mesh.run_until_idle()

    failed = await history(mesh, run)
    assert failed.status == "failed"
    assert step_statuses(failed) == {
        "bad": "completed",
        "worse": "failed",
        "shaky": "cancelled",
        "later": "cancelled",
        "join": "skipped",
    }
    assert attempt_statuses(failed, "shaky") == ["failed", "cancelled"]
    assert error_of(failed)["step"] == "worse"


async def test_siblings_in_flight_finish_and_are_recorded_before_the_run_fails(
    open_mesh: OpenMesh,
) -> None:
    slow, other = Gate(), Gate()

    async def finish_late() -> str:
        await slow.wait()
        return "late"

    async def fail_late() -> Errored:
        await other.wait()
        return Errored("second", code="second")

    async def fail_first() -> Errored:
        await first.wait()
        return Errored("first", code="first")

    first = Gate()

    class Siblings(Workflow[Order]):
        name = "siblings"
        by_hand = manual()
        bad = step(fail_first, output="x")
        late = step(finish_late, output="late")
        worse = step(fail_late, output="y", retry=Retry(5))
        join = log("join", after=(bad, late, worse))

    mesh = await open_mesh(Siblings)
    run = await mesh.start_run(Siblings)

    async with at_work(mesh, first, slow, other):
        first.opened.set()
        while step_statuses(doomed := await history(mesh, run))["bad"] != "failed":
            await turn()

    failed = await history(mesh, run)
    assert doomed.status == "running"
    assert step_statuses(doomed)["late"] == "running"
    assert failed.status == "failed"
    assert error_of(failed)["code"] == "first"
    assert step_statuses(failed) == {
        "bad": "failed",
        "late": "completed",
        "worse": "failed",
        "join": "skipped",
    }
    assert attempt_statuses(failed, "worse") == ["failed"]
    assert step_of(failed, "late").output == "late"


async def test_a_chain_of_dependencies_is_planned_step_by_step(open_mesh: OpenMesh) -> None:
    class Chain(Workflow[Order]):
        name = "chain"
        by_hand = manual()
        a = log("a")
        b = log("b", after=a)
        c = log("c", after=(a, b))

    mesh = await open_mesh(Chain)
    run = await mesh.start_run(Chain)
    await mesh.run_until_idle()

    planned = [
        one.data["steps"] for one in entries_of(await history(mesh, run), "runnables_planned")
    ]
    assert planned == [["a"], ["b"], ["c"]]


async def test_a_wide_join_of_hundreds_completes_once(open_mesh: OpenMesh) -> None:
    branches = {f"b{number}": log(f"b{number}") for number in range(200)}
    body = {"name": "wide", "by_hand": manual(), **branches}
    body["join"] = log("join", after=tuple(branches.values()))
    wide = type("Wide", (Workflow,), body)
    mesh = await open_mesh(wide)

    run = await mesh.start_run("wide")
    await mesh.run_until_idle(timeout=timedelta(seconds=20))

    done = await history(mesh, run)
    assert done.status == "completed"
    assert attempt_statuses(done, "join") == ["completed"]
    assert set(step_statuses(done).values()) == {"completed"}
