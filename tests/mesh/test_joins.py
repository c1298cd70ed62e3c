"""Steps that come after others: no phases, and what a failure does to those beside it."""

import asyncio
from datetime import timedelta

import pytest

from squidmesh import Deferred, Errored, Retry, Run, SquidMesh, Workflow, log, manual, step, wait
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
    entries_of,
    error_of,
    history,
    kill,
    once,
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


def bad_has_failed(run: Run) -> bool:
    return step_statuses(run)["bad"] == "failed"


async def commits(mesh: SquidMesh, run: Run) -> list[list[str]]:
    """What was written about the run together, commit by commit: entries and their steps."""
    rows = await (await mesh.engine()).store.read(run.id)
    return [
        [f"{type(entry).__name__} {getattr(entry, 'step', '')}".strip() for entry in row.entries]
        for row in rows
    ]


async def test_a_join_is_scheduled_in_the_commit_of_the_last_completion_that_it_waited_for(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    class Joined(Workflow[Order]):
        name = "joined"
        by_hand = manual()
        short = wait(SECOND)
        long = wait(MINUTE)
        join = log("join", after=(short, long))

    mesh = await open_mesh(Joined)
    run = await mesh.start_run(Joined)
    clock.advance(SECOND)
    await mesh.run_until_idle()
    early = await commits(mesh, run)
    clock.advance(MINUTE)
    await mesh.run_until_idle()

    found = await commits(mesh, run)
    assert ["AttemptCompleted short", "RunnableApplied short"] in early
    (last,) = [names for names in found if "AttemptCompleted long" in names]
    assert "AttemptScheduled join" in last
    assert sum(names.count("AttemptScheduled join") for names in found) == 1


async def test_siblings_that_wait_are_cancelled_in_the_commit_of_the_failure_beside_one_that_runs(
    open_mesh: OpenMesh,
) -> None:
    first, slow, shaken = Gate(), Gate(), Gate()

    async def fail_first() -> Errored:
        await first.wait()
        return Errored("no", code="declined")

    async def fail_and_wait() -> None:
        shaken.entered.set()
        raise ConnectionError

    class Siblings(Workflow[Order]):
        name = "siblings"
        by_hand = manual()
        bad = step(fail_first, output="x")
        slow_one = step(slow.wait)
        shaky = step(fail_and_wait, retry=Retry(3, backoff_min=MINUTE))
        later = wait(MINUTE)
        join = log("join", after=(bad, slow_one, shaky, later))

    mesh = await open_mesh(Siblings)
    run = await mesh.start_run(Siblings)
    async with at_work(mesh, first, slow, shaken):
        await once(mesh, run, lambda one: step_statuses(one)["shaky"] == "retrying")
        first.opened.set()
        doomed = await once(mesh, run, bad_has_failed)

    (failure,) = [names for names in await commits(mesh, run) if "AttemptFailed bad" in names]
    assert failure == ["AttemptFailed bad", "AttemptCancelled shaky", "AttemptCancelled later"]
    assert doomed.status == "running"
    assert step_statuses(doomed) == {
        "bad": "failed",
        "slow_one": "running",
        "shaky": "cancelled",
        "later": "cancelled",
        "join": "waiting",
    }
    assert (await mesh.inspect_run(run.id)).status == "failed"


async def test_behind_a_failure_nothing_begins_that_siblings_in_flight_would_lead_to(
    open_mesh: OpenMesh,
) -> None:
    first, slow = Gate(), Gate()

    async def fail_first() -> Errored:
        await first.wait()
        return Errored("no", code="declined")

    async def finish() -> None:
        await slow.wait()

    async def come_back() -> Deferred:
        await slow.wait()
        return Deferred(timedelta(0))

    async def try_again() -> None:
        await slow.wait()
        raise ConnectionError

    class Siblings(Workflow[Order]):
        name = "siblings"
        by_hand = manual()
        bad = step(fail_first, output="x")
        done = step(finish)
        deferred = step(come_back, output="y")
        retried = step(try_again, retry=Retry(5))
        behind = log("behind", after=done)
        join = log("join", after=(bad, behind, deferred, retried))

    mesh = await open_mesh(Siblings)
    run = await mesh.start_run(Siblings)
    async with at_work(mesh, first, slow):
        first.opened.set()
        await once(mesh, run, bad_has_failed)

    failed = await history(mesh, run)
    assert (failed.status, error_of(failed)["step"]) == ("failed", "bad")
    assert step_statuses(failed) == {
        "bad": "failed",
        "done": "completed",
        "deferred": "cancelled",
        "retried": "failed",
        "behind": "skipped",
        "join": "skipped",
    }
    assert [attempt.number for attempt in failed.attempts or ()] == [1, 1, 1, 1]


async def test_a_sibling_in_flight_that_loses_its_worker_is_not_tried_again_behind_a_failure(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    first, slow = Gate(), Gate()

    async def fail_first() -> Errored:
        await first.wait()
        return Errored("no", code="declined")

    class Siblings(Workflow[Order]):
        name = "siblings"
        by_hand = manual()
        bad = step(fail_first, output="x")
        lost = step(slow.wait)
        join = log("join", after=(bad, lost))

    mesh = await open_mesh(Siblings)
    run = await mesh.start_run(Siblings)
    worker = asyncio.create_task(mesh.run_until_idle())
    await slow.entered.wait()
    first.opened.set()
    doomed = await once(mesh, run, bad_has_failed)
    await kill(worker)
    clock.advance(LEASE)

    await mesh.run_until_idle()

    failed = await history(mesh, run)
    assert (doomed.status, step_statuses(doomed)["lost"]) == ("running", "running")
    assert (failed.status, error_of(failed)["step"]) == ("failed", "bad")
    assert attempt_statuses(failed, "lost") == ["lost"]
    assert failed.ended_at == run.started_at + LEASE
