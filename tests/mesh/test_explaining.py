"""Why a run stands where it stands: every reason that there is, and what may be done then."""

from collections.abc import Mapping
from typing import Any

import pytest

from squidmesh import (
    Deferred,
    Errored,
    Explanation,
    InvalidOptionError,
    Retry,
    RunNotFoundError,
    SquidMesh,
    StepContext,
    Workflow,
    approval,
    compensation,
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
    contents,
    die_at,
    history,
    step_statuses,
    turn,
)

pytestmark = pytest.mark.anyio


def fail() -> None:
    raise ConnectionError("the line of o1 is dead")


def names(explanation: Explanation) -> list[str]:
    return [action.name for action in explanation.next_actions]


def well_formed(explanation: Explanation, run_id: str) -> None:
    """What every explanation keeps to."""
    assert explanation.summary.endswith(".")
    assert "\n" not in explanation.summary
    assert isinstance(explanation.details, Mapping)
    run = explanation.evidence["run"]
    assert isinstance(run, dict)
    assert run["id"] == run_id
    for action in explanation.next_actions:
        assert action.call.startswith("await ")


async def asked(mesh: SquidMesh, run_id: str, step_name: str | None = None) -> Explanation:
    found = await mesh.explain_run(run_id, step=step_name)
    well_formed(found, run_id)
    return found


class Two(Workflow[Order]):
    name = "two"
    by_hand = manual()
    a = log("a")
    b = wait(MINUTE)
    transitions = path(a, b)


async def test_pending_dispatch_until_the_first_claim(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Two)
    run = await mesh.start_run(Two)

    found = await asked(mesh, run.id)

    assert (found.reason, found.status, found.step) == ("pending_dispatch", "pending", "a")
    assert names(found) == ["wait_for_step", "cancel_run"]


async def test_waiting_until_the_time_of_a_timer(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Two)
    run = await mesh.start_run(Two)
    await mesh.run_until_idle()

    found = await asked(mesh, run.id)

    assert (found.reason, found.step) == ("waiting_until", "b")
    assert found.details["visible_at"] == (run.started_at + MINUTE).isoformat()
    assert found.details["cause"] == "wait"
    assert names(found) == ["wait_until", "cancel_run"]


async def test_waiting_until_the_time_of_a_deferral(open_mesh: OpenMesh) -> None:
    class Later(Workflow[Order]):
        name = "later"
        by_hand = manual()
        a = step(lambda: Deferred(MINUTE, reason="not open yet"))

    mesh = await open_mesh(Later)
    run = await mesh.start_run(Later)
    await mesh.run_until_idle()

    found = await asked(mesh, run.id)

    assert found.reason == "waiting_until"
    assert (found.details["cause"], found.details["reason"]) == ("deferral", "not open yet")
    known = found.evidence["step"]
    assert isinstance(known, dict)
    assert known["deferred"] == "not open yet"
    assert found.details["visible_at"] == (run.started_at + MINUTE).isoformat()
    assert "open" not in found.summary


async def test_step_scheduled_when_it_is_due_and_the_run_has_begun(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    mesh = await open_mesh(Two)
    run = await mesh.start_run(Two)
    await mesh.run_until_idle()
    clock.advance(MINUTE)

    found = await asked(mesh, run.id)

    assert (found.reason, found.step) == ("step_scheduled", "b")
    assert names(found) == ["wait_for_step", "cancel_run"]


async def test_step_running_with_its_holder_and_lease_then_lease_expired(
    open_mesh: OpenMesh, clock: VirtualClock
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
    running = await asked(mesh, run.id)
    clock.advance(LEASE)

    expired = await asked(mesh, run.id)

    assert (running.reason, running.step) == ("step_running", "a")
    assert running.details["lease_until"] == (run.started_at + LEASE).isoformat()
    assert running.details["owner"]
    assert names(running) == ["wait_for_step", "cancel_run"]
    assert expired.reason == "lease_expired"
    assert names(expired) == ["recover", "cancel_run"]


async def test_waiting_for_a_retry_with_its_time_and_the_error(open_mesh: OpenMesh) -> None:
    class Shaky(Workflow[Order]):
        name = "shaky"
        by_hand = manual()
        a = step(fail, retry=Retry(3, backoff_min=MINUTE))

    mesh = await open_mesh(Shaky)
    run = await mesh.start_run(Shaky)
    await mesh.run_until_idle()

    found = await asked(mesh, run.id)

    assert (found.reason, found.status, found.step) == ("waiting_for_retry", "retrying", "a")
    assert found.details["visible_at"] == (run.started_at + MINUTE).isoformat()
    assert found.details["attempt"] == 2
    assert names(found) == ["wait_for_retry", "cancel_run"]
    assert "o1" not in found.summary


class Judged(Workflow[Order]):
    name = "judged"
    by_hand = manual()
    review = approval()
    yes = log("yes")
    no = log("no")
    transitions = (path(review, yes), review.on_error(no), path(no))


async def test_paused_for_approval_with_its_targets(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Judged)
    run = await mesh.start_run(Judged)

    found = await asked(mesh, run.id)

    assert (found.reason, found.status, found.step) == ("paused_for_approval", "paused", "review")
    assert found.details["approval_targets"] == {"ok": "yes", "error": "no"}
    assert names(found) == ["approve_run", "reject_run", "cancel_run"]


async def test_paused_for_manual_action_with_its_target(open_mesh: OpenMesh) -> None:
    class Held(Workflow[Order]):
        name = "held"
        by_hand = manual()
        hold = pause()
        transitions = path(hold)

    mesh = await open_mesh(Held)
    run = await mesh.start_run(Held)

    found = await asked(mesh, run.id)

    assert (found.reason, found.step) == ("paused_for_manual_action", "hold")
    assert found.details["resume_target"] == "complete"
    assert names(found) == ["resume_run", "cancel_run"]


async def test_the_calls_of_the_actions_do_what_they_say(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Judged)
    run = await mesh.start_run(Judged)
    found = await asked(mesh, run.id)

    calls = {action.name: action.call for action in found.next_actions}

    assert calls["approve_run"] == f'await mesh.approve_run("{run.id}", actor=...)'
    assert calls["cancel_run"] == f'await mesh.cancel_run("{run.id}")'


async def test_cancelling_until_what_is_held_lets_go_then_cancelled(open_mesh: OpenMesh) -> None:
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
        await mesh.cancel_run(run.id)
        cancelling = await asked(mesh, run.id)

    cancelled = await asked(mesh, run.id)
    assert (cancelling.reason, names(cancelling)) == ("cancelling", ["wait_for_cancellation"])
    assert (cancelled.reason, names(cancelled)) == ("cancelled", ["replay_run"])


async def test_compensating_while_it_is_undone_then_compensation_failed(
    open_mesh: OpenMesh,
) -> None:
    gate = Gate()

    async def undo() -> Errored:
        await gate.wait()
        return Errored("closed", code="closed")

    class Undone(Workflow[Order]):
        name = "undone"
        by_hand = manual()
        a = step(lambda: None, compensate=compensation(undo, Retry(1)))
        b = step(lambda: Errored("no", code="declined"), output="x")
        transitions = path(a, b)

    mesh = await open_mesh(Undone)
    run = await mesh.start_run(Undone)
    async with at_work(mesh, gate):
        undoing = await asked(mesh, run.id)

    failed = await asked(mesh, run.id)
    assert (undoing.reason, undoing.status) == ("compensating", "compensating")
    assert names(undoing) == ["wait_for_compensation"]
    assert (failed.reason, failed.status) == ("compensation_failed", "failed")
    assert failed.details["compensation_failures"]


async def test_completed_may_be_replayed(open_mesh: OpenMesh, clock: VirtualClock) -> None:
    mesh = await open_mesh(Two)
    run = await mesh.start_run(Two)
    await mesh.run_until_idle()
    clock.advance(MINUTE)
    await mesh.run_until_idle()

    found = await asked(mesh, run.id)

    assert (found.reason, found.status, found.step) == ("completed", "completed", None)
    assert names(found) == ["replay_run"]
    assert found.details["replay"] == {"allowed": True, "blocked_by": []}


async def test_an_unsafe_replay_is_no_action_and_names_what_stands_in_its_way(
    open_mesh: OpenMesh,
) -> None:
    class Paid(Workflow[Order]):
        name = "paid"
        by_hand = manual()
        pay = step(lambda: None, irreversible=True)

    mesh = await open_mesh(Paid)
    run = await mesh.start_run(Paid)
    await mesh.run_until_idle()

    found = await asked(mesh, run.id)

    assert names(found) == []
    replay = found.details["replay"]
    assert isinstance(replay, dict)
    assert (replay["allowed"], replay["blocked_by"]) == (False, ["pay"])


FAILURES: list[tuple[Any, dict[str, Any], str, str]] = [
    (lambda: Errored("no", code="declined"), {}, "step_failed", "declined"),
    (fail, {}, "step_failed", "step_exception"),
    (fail, {"retry": Retry(3)}, "retry_exhausted", "step_exception"),
    (lambda: Errored("x", code="poisoned"), {}, "step_failed", "poisoned"),
    (lambda: Errored("x", code="retry_exhausted"), {}, "step_failed", "retry_exhausted"),
]


@pytest.mark.parametrize(("body", "options", "reason", "code"), FAILURES, ids=range(5))
async def test_the_cause_of_a_failure_is_the_stored_one(
    open_mesh: OpenMesh, body: Any, options: dict[str, Any], reason: str, code: str
) -> None:
    class Failing(Workflow[Order]):
        name = "failing"
        by_hand = manual()
        a = step(body, output="x", **options)

    mesh = await open_mesh(Failing)
    run = await mesh.start_run(Failing)
    await mesh.run_until_idle()

    found = await asked(mesh, run.id)

    error = found.details["error"]
    assert isinstance(error, dict)
    assert (found.reason, found.status, found.step) == (reason, "failed", "a")
    assert error["code"] == code
    assert [action.call for action in found.next_actions] == [
        f'await mesh.replay_run("{run.id}")',
        f"await mesh.replay_run(\"{run.id}\", from_step='a')",
    ]


async def test_poisoned_when_it_lost_its_worker_too_often(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    gate = Gate()

    async def kill() -> None:
        await gate.wait()

    class Deadly(Workflow[Order]):
        name = "deadly"
        by_hand = manual()
        a = step(kill)

    mesh = await open_mesh(Deadly, max_deliveries=1)
    run = await mesh.start_run(Deadly)
    await die_at(mesh, gate)
    clock.advance(LEASE + SECOND)
    await mesh.recover()

    found = await asked(mesh, run.id)

    assert (found.reason, found.step) == ("poisoned", "a")


async def test_no_worker_for_a_workflow_that_neither_we_nor_a_worker_of_late_know(
    url: str, clock: VirtualClock
) -> None:
    class Brief(Workflow[Order]):
        name = "brief"
        by_hand = manual()
        a = log("a")
        b = wait(SECOND * 30)
        transitions = path(a, b)

    async with SquidMesh.open(url, workflows=[Brief], clock=clock) as mesh:
        run = await mesh.start_run(Brief)
        store = (await mesh.engine()).store
        async with SquidMesh(store=store, clock=clock) as other:
            alone = await asked(other, run.id)
            knows = await asked(mesh, run.id)
            await mesh.run_until_idle()
            clock.advance(SECOND * 30)
            fresh = await asked(other, run.id)
            clock.advance(SECOND * 31)
            stale = await asked(other, run.id)

    assert (alone.reason, alone.step) == ("no_worker_for_workflow", "a")
    assert names(alone) == ["deploy_workflow", "cancel_run"]
    assert knows.reason == "pending_dispatch"
    assert fresh.reason == "step_scheduled"
    assert stale.reason == "no_worker_for_workflow"


class Joined(Workflow[Order]):
    name = "joined"
    by_hand = manual()
    quick = log("quick")
    slow = wait(MINUTE)
    join = log("join", after=(quick, slow))
    last = log("last", after=join)


async def test_joins_that_wait_are_listed_and_explained_when_asked_for(
    open_mesh: OpenMesh,
) -> None:
    mesh = await open_mesh(Joined)
    run = await mesh.start_run(Joined)
    await mesh.run_until_idle()

    found = await asked(mesh, run.id)
    join = await asked(mesh, run.id, "join")

    waiting = found.details["waiting"]
    assert found.reason == "waiting_until"
    assert isinstance(waiting, list)
    assert isinstance(waiting[0], dict)
    assert waiting[0]["step"] == "join"
    assert waiting[0]["waiting_on"] == ["slow"]
    assert waiting[0]["dependency_statuses"] == {"quick": "completed", "slow": "scheduled"}
    assert (join.reason, join.status, join.step) == ("waiting_for_dependencies", "waiting", "join")
    assert join.details["waiting_on"] == ["slow"]
    assert names(join) == ["wait_for_dependencies", "cancel_run"]


async def test_a_step_is_explained_by_its_own_state(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    mesh = await open_mesh(Joined)
    run = await mesh.start_run(Joined)
    await mesh.run_until_idle()

    quick, slow = await asked(mesh, run.id, "quick"), await asked(mesh, run.id, "slow")

    assert (quick.reason, quick.status, quick.step) == ("completed", "completed", "quick")
    assert (slow.reason, slow.status) == ("waiting_until", "scheduled")


async def test_the_first_reason_that_fits_counts(open_mesh: OpenMesh) -> None:
    gate = Gate()

    async def hold() -> None:
        await gate.wait()

    class Several(Workflow[Order]):
        name = "several"
        by_hand = manual()
        later = wait(MINUTE)
        shaky = step(fail, retry=Retry(2, backoff_min=MINUTE))
        held = step(hold)

    mesh = await open_mesh(Several)
    run = await mesh.start_run(Several)
    async with at_work(mesh, gate):
        while step_statuses(await history(mesh, run))["shaky"] != "retrying":
            await turn()
        running = await asked(mesh, run.id)
    then = await asked(mesh, run.id)

    assert (running.reason, running.step) == ("step_running", "held")
    assert (then.reason, then.step) == ("waiting_for_retry", "shaky")


async def test_a_run_that_nobody_knows_and_a_step_that_it_does_not_have(
    open_mesh: OpenMesh,
) -> None:
    mesh = await open_mesh(Two)
    run = await mesh.start_run(Two)

    with pytest.raises(RunNotFoundError):
        await mesh.explain_run("0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b")
    with pytest.raises(InvalidOptionError) as refused:
        await mesh.explain_run(run.id, step="nowhere")

    assert refused.value.details["option"] == "step"


async def test_asking_changes_nothing(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Joined)
    run = await mesh.start_run(Joined)
    before = await contents(mesh)

    await mesh.explain_run(run.id)
    await mesh.graph(run.id)
    await mesh.inspect_run(run.id, include_history=True)
    await mesh.list_runs()

    assert await contents(mesh) == before


def look(context: StepContext) -> dict[str, str]:
    return {"secret": f"4711 {context.step}"}


async def test_no_value_of_a_payload_stands_in_a_summary(open_mesh: OpenMesh) -> None:
    class Secret(Workflow[Order]):
        name = "secret"
        by_hand = manual()
        find = step(look)
        ask = step(fail)
        transitions = path(find, ask)

    mesh = await open_mesh(Secret)
    run = await mesh.start_run(Secret, Order(number="secret-4711"))
    await mesh.run_until_idle()

    found = await asked(mesh, run.id)

    assert "4711" not in found.summary
    assert "4711" not in str(found.evidence)
