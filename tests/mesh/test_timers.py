"""Timers: stored times, by which a run waits without anybody sleeping for it."""

from datetime import timedelta

import pytest

from squidmesh import Errored, Workflow, log, manual, path, step, wait
from squidmesh.testing.clock import VirtualClock
from tests.mesh.support import (
    MINUTE,
    SECOND,
    Deploy,
    OpenMesh,
    Order,
    attempt_statuses,
    entry_types,
    history,
    step_of,
    step_statuses,
)

pytestmark = pytest.mark.anyio


class Resting(Workflow[Order]):
    """A timer in the middle."""

    name = "resting"
    by_hand = manual()
    before = log("before")
    rest = wait(MINUTE)
    behind = log("behind")
    transitions = path(before, rest, behind)


async def test_a_wait_delays_its_own_completion_until_its_stored_time(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    mesh = await open_mesh(Resting)
    run = await mesh.start_run(Resting)
    await mesh.run_until_idle()
    begun = await history(mesh, run)
    clock.advance(MINUTE - SECOND)
    await mesh.run_until_idle()
    early = await history(mesh, run)

    clock.advance(SECOND)
    await mesh.run_until_idle()

    done = await history(mesh, run)
    (attempt,) = step_of(begun, "rest").attempts
    assert attempt.visible_at == begun.started_at + MINUTE
    assert begun.status == early.status == "running"
    assert step_statuses(early) == {"before": "completed", "rest": "scheduled", "behind": "waiting"}
    assert step_statuses(done) == dict.fromkeys(("before", "rest", "behind"), "completed")
    assert attempt_statuses(done, "rest") == ["completed"]
    assert step_of(done, "rest").kind == "wait"
    assert step_of(done, "rest").output is None


async def test_a_wait_as_the_last_step_is_waited_for(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    class Last(Workflow[Order]):
        name = "last"
        by_hand = manual()
        begin = log("begin")
        rest = wait(MINUTE)
        transitions = path(begin, rest)

    mesh = await open_mesh(Last)
    run = await mesh.start_run(Last)
    await mesh.run_until_idle()
    early = await mesh.inspect_run(run.id)
    clock.advance(MINUTE)
    await mesh.run_until_idle()

    done = await mesh.inspect_run(run.id)
    assert early.status == "running"
    assert (done.status, done.ended_at) == ("completed", run.started_at + MINUTE)


async def test_before_a_join_each_path_waits_its_own_time(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    class Paths(Workflow[Order]):
        name = "paths"
        by_hand = manual()
        short = wait(SECOND * 10)
        long = wait(SECOND * 30)
        behind_short = log("behind", after=short)
        join = log("join", after=(behind_short, long))

    mesh = await open_mesh(Paths)
    run = await mesh.start_run(Paths)
    seen = []
    for _ in range(3):
        clock.advance(10)
        await mesh.run_until_idle()
        seen.append(step_statuses(await history(mesh, run)))

    assert seen[0]["behind_short"] == "completed"
    assert seen[0]["long"] == seen[1]["long"] == "scheduled"
    assert seen[1]["join"] == "waiting"
    assert seen[2]["join"] == "completed"
    assert (await mesh.inspect_run(run.id)).ended_at == run.started_at + SECOND * 30


async def test_a_wait_may_come_after_others(open_mesh: OpenMesh, clock: VirtualClock) -> None:
    class After(Workflow[Order]):
        name = "after"
        by_hand = manual()
        begin = step(lambda: None)
        rest = wait(MINUTE, after=begin)

    mesh = await open_mesh(After)
    run = await mesh.start_run(After)
    await mesh.run_until_idle()
    clock.advance(MINUTE)
    await mesh.run_until_idle()

    assert (await mesh.inspect_run(run.id)).status == "completed"


async def test_a_timer_that_is_found_late_counts_from_its_own_time(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    mesh = await open_mesh(Resting)
    run = await mesh.start_run(Resting)
    await mesh.run_until_idle()

    clock.advance(timedelta(days=400))
    await mesh.run_until_idle()

    done = await history(mesh, run)
    (attempt,) = step_of(done, "rest").attempts
    assert done.status == "completed"
    assert attempt.visible_at == run.started_at + MINUTE
    assert attempt.claimed_at == done.ended_at == run.started_at + timedelta(days=400)


async def test_run_until_idle_does_not_wait_for_timers_and_can_be_bounded(
    open_mesh: OpenMesh,
) -> None:
    mesh = await open_mesh(Resting)
    run = await mesh.start_run(Resting)

    await mesh.run_until_idle(timeout=timedelta(seconds=5))

    assert (await mesh.inspect_run(run.id)).status == "running"


class LastRest(Workflow[Order]):
    """A timer with nothing behind it."""

    name = "last_rest"
    by_hand = manual()
    begin = log("begin")
    rest = wait(MINUTE)
    transitions = path(begin, rest)


class JoinedRest(Workflow[Order]):
    """A timer that a join waits for."""

    name = "joined_rest"
    by_hand = manual()
    begin = log("begin")
    rest = wait(MINUTE)
    join = log("join", after=(begin, rest))


@pytest.mark.parametrize("workflow", [Resting, LastRest, JoinedRest])
async def test_a_cancel_cuts_a_timer_short_wherever_it_stands(
    open_mesh: OpenMesh, clock: VirtualClock, workflow: type[Workflow[Order]]
) -> None:
    mesh = await open_mesh(workflow)
    run = await mesh.start_run(workflow)
    await mesh.run_until_idle()
    clock.advance(SECOND)

    cancelled = await mesh.cancel_run(run.id)
    clock.advance(MINUTE)
    await mesh.run_until_idle()

    after = await history(mesh, run)
    assert cancelled.status == "cancelled"
    assert after.ended_at == run.started_at + SECOND
    assert after.revision == cancelled.revision
    assert attempt_statuses(after, "rest") == ["cancelled"]


async def test_a_failure_beside_it_cuts_a_timer_short(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    class Failing(Workflow[Order]):
        name = "failing"
        by_hand = manual()
        rest = wait(MINUTE)
        bad = step(lambda: Errored("no"), output="x")
        join = log("join", after=(rest, bad))

    mesh = await open_mesh(Failing)
    run = await mesh.start_run(Failing)

    await mesh.run_until_idle()

    failed = await history(mesh, run)
    assert (failed.status, failed.ended_at) == ("failed", run.started_at)
    assert attempt_statuses(failed, "rest") == ["cancelled"]


async def test_a_timer_goes_on_while_no_process_is_there(
    deploy: Deploy, clock: VirtualClock
) -> None:
    async with deploy(Resting) as first:
        run = await first.start_run(Resting)
        await first.run_until_idle()
    clock.advance(MINUTE - SECOND)
    async with deploy(Resting) as second:
        await second.run_until_idle()
        early = await second.inspect_run(run.id)
    clock.advance(SECOND)

    async with deploy(Resting) as third:
        await third.run_until_idle()
        done = await third.inspect_run(run.id)

    assert (early.status, done.status) == ("running", "completed")
    assert done.ended_at == run.started_at + MINUTE


async def test_timers_keep_no_worker_from_anything_else(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    class Quick(Workflow[Order]):
        name = "quick"
        by_hand = manual()
        only = step(lambda: {"done": True})

    mesh = await open_mesh(Resting, Quick)
    waiting = await mesh.start_runs(Resting, [{}] * 100)
    await mesh.run_until_idle()

    run = await mesh.start_run(Quick)
    await mesh.run_until_idle()

    resting = await history(mesh, waiting[0])
    assert (await mesh.inspect_run(run.id)).status == "completed"
    assert resting.status == "running"
    assert entry_types(resting, "dispatch")[-1] == "attempt_scheduled"
    assert clock.now() == run.started_at
