"""Decisions that take weeks: processes come and go meanwhile, and the workflow is another one."""

from datetime import timedelta

import pytest

from squidmesh import (
    IdempotencyConflictError,
    NotPausedError,
    Workflow,
    approval,
    log,
    manual,
    path,
    pause,
)
from squidmesh.testing.clock import VirtualClock
from tests.mesh.support import (
    Deploy,
    Order,
    audit_types,
    contents,
    context_of,
    event_of,
    history,
    step_of,
    step_statuses,
)

pytestmark = pytest.mark.anyio

SIX_WEEKS = timedelta(weeks=6)


class Asked(Workflow[Order]):
    """What was deployed when the question was asked."""

    name = "asking"
    by_hand = manual()
    ask = approval(output="review")
    paid = log("paid")
    refused = log("refused")
    transitions = (
        path(ask, paid),
        ask.on_error(refused, recovery="compensation"),
        path(refused),
    )


class Changed(Workflow[Order]):
    """What is deployed when it is answered: other ways, another key, another marker."""

    name = "asking"
    by_hand = manual()
    ask = approval(output="verdict")
    paid = log("paid")
    refused = log("refused")
    extra = log("extra")
    transitions = (
        path(ask, extra, refused),
        ask.on_error(paid, recovery="undo"),
        path(paid),
    )


class Held(Workflow[Order]):
    name = "holding"
    by_hand = manual()
    hold = pause(output="let")
    ship = log("shipped")
    transitions = path(hold, ship)


class HeldOtherwise(Workflow[Order]):
    name = "holding"
    by_hand = manual()
    hold = pause()
    check = log("checked")
    ship = log("shipped")
    transitions = path(hold, check, ship)


@pytest.mark.parametrize(
    ("command", "taken", "events"),
    [
        ("approve_run", "paid", ["paused", "approved"]),
        ("reject_run", "refused", ["paused", "rejected", "compensation_routed"]),
    ],
)
async def test_an_approval_goes_where_it_pointed_weeks_ago_whatever_is_deployed_now(
    deploy: Deploy, clock: VirtualClock, command: str, taken: str, events: list[str]
) -> None:
    async with deploy(Asked) as before:
        run = await before.start_run("asking")
        await before.run_until_idle()
    clock.advance(SIX_WEEKS)

    async with deploy(Changed) as after:
        waiting = await history(after, run)
        await getattr(after, command)(run.id, actor={"id": 7}, comment="at last", metadata={"n": 1})
        await after.run_until_idle()
        done = await history(after, run)

    ways = {"paid": "skipped", "refused": "skipped", taken: "completed"}
    assert (waiting.status, waiting.current_step) == ("paused", "ask")
    assert done.status == "completed"
    assert step_statuses(done) == {"ask": "completed", **ways}
    assert context_of(done) == {
        "review": {
            "decision": events[1],
            "actor": {"id": 7},
            "decided_at": (run.started_at + SIX_WEEKS).isoformat(),
            "comment": "at last",
            "metadata": {"n": 1},
        }
    }
    assert audit_types(done) == events


async def test_a_pause_goes_where_it_pointed_weeks_ago_whatever_is_deployed_now(
    deploy: Deploy, clock: VirtualClock
) -> None:
    async with deploy(Held) as before:
        run = await before.start_run("holding")
    clock.advance(SIX_WEEKS)

    async with deploy(HeldOtherwise) as after:
        await after.resume_run(run.id, actor="ada")
        await after.run_until_idle()
        done = await history(after, run)

    assert done.status == "completed"
    assert step_statuses(done) == {"hold": "completed", "ship": "completed"}
    assert list(context_of(done)) == ["let"]


async def test_a_deploy_in_between_that_does_not_know_the_workflow_loses_nothing(
    deploy: Deploy, clock: VirtualClock
) -> None:
    async with deploy(Asked) as before:
        run = await before.start_run("asking")
    clock.advance(SIX_WEEKS)
    async with deploy() as without:
        decided = await without.approve_run(run.id, actor="ada")
        await without.run_until_idle()
        unable = await history(without, run)
    clock.advance(SIX_WEEKS)

    async with deploy(Changed) as after:
        await after.run_until_idle()
        done = await history(after, run)

    assert (decided.status, unable.status) == ("running", "running")
    assert step_statuses(unable) == {
        "ask": "completed",
        "paid": "scheduled",
        "refused": "waiting",
    }
    assert step_of(done, "paid").status == "completed"
    assert event_of(done, "approved").at == run.started_at + SIX_WEEKS


async def test_the_key_of_a_decision_is_remembered_across_deploys(
    deploy: Deploy, clock: VirtualClock
) -> None:
    async with deploy(Asked) as before:
        run = await before.start_run("asking")
        decided = await before.approve_run(run.id, actor="ada", idempotency_key="once")
    clock.advance(SIX_WEEKS)

    async with deploy(Changed) as after:
        rows = await contents(after)
        again = await after.approve_run(run.id, actor="ada", idempotency_key="once")
        with pytest.raises(IdempotencyConflictError):
            await after.reject_run(run.id, actor="ada", idempotency_key="once")
        with pytest.raises(NotPausedError):
            await after.approve_run(run.id, actor="ada", idempotency_key="twice")
        left = await contents(after)

    assert again == decided
    assert left == rows
