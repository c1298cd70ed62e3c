"""Of every reason: the facts that it names, the time or the person it waits for, and what helps."""

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import attrs
import pytest

from squidmesh import (
    Errored,
    Explanation,
    InvalidReviewError,
    RecoveryReport,
    Retry,
    Run,
    Runner,
    SquidMesh,
    StepContext,
    Worker,
    Workflow,
    log,
    manual,
    step,
    wait,
)
from squidmesh.testing.clock import VirtualClock
from tests.mesh.situations import SITUATIONS, Place, Situation
from tests.mesh.support import (
    LEASE,
    MINUTE,
    Gate,
    OpenMesh,
    Order,
    contents,
    history,
    step_of,
    turn,
)

pytestmark = pytest.mark.anyio

NOON: Final = "2030-01-01T00:00:00+00:00"
LATER: Final = "2030-01-01T00:01:00+00:00"
TICK: Final = timedelta(microseconds=1)

HELD: Final = {"attempt": 1, "queue": "default", "claimed_at": NOON, "lease_until": LATER}
DUE: Final = {"attempt": 1, "queue": "default", "visible_at": NOON}
PUT_OFF: Final = {"attempt": 1, "queue": "default", "visible_at": LATER}
FREE: Final = {"replay": {"allowed": True, "blocked_by": []}}


@attrs.frozen(kw_only=True)
class Told:
    """What an explanation tells: at least these details, and exactly these actions."""

    reason: str
    status: str
    step: str | None
    details: Mapping[str, object]
    actions: tuple[str, ...]


TOLD: Final = {
    "completed": Told(
        reason="completed",
        status="completed",
        step=None,
        details={**FREE, "ended_at": LATER},
        actions=("replay_run",),
    ),
    "cancelled": Told(
        reason="cancelled",
        status="cancelled",
        step=None,
        details={**FREE, "ended_at": NOON},
        actions=("replay_run",),
    ),
    "compensation_failed": Told(
        reason="compensation_failed",
        status="failed",
        step="b",
        details={
            **FREE,
            "compensation_failures": [{"step": "a", "code": "closed", "message": "closed"}],
        },
        actions=("replay_run",),
    ),
    "poisoned": Told(
        reason="poisoned",
        status="failed",
        step="a",
        details={**FREE, "failures": 0, "deliveries": 1},
        actions=("replay_run",),
    ),
    "retry_exhausted": Told(
        reason="retry_exhausted",
        status="failed",
        step="a",
        details={**FREE, "failures": 2, "max_attempts": 2},
        actions=("replay_run",),
    ),
    "step_failed": Told(
        reason="step_failed",
        status="failed",
        step="a",
        details={**FREE, "failures": 1, "max_attempts": 1},
        actions=("replay_run",),
    ),
    "cancelling": Told(
        reason="cancelling",
        status="cancelling",
        step="a",
        details=HELD,
        actions=("wait_for_cancellation",),
    ),
    "compensating": Told(
        reason="compensating",
        status="compensating",
        step="compensate:a",
        details={**HELD, "remaining": ["a"], "compensation_failures": []},
        actions=("wait_for_compensation",),
    ),
    "paused_for_approval": Told(
        reason="paused_for_approval",
        status="paused",
        step="review",
        details={"paused_at": NOON, "approval_targets": {"ok": "yes", "error": "no"}},
        actions=("approve_run", "reject_run", "cancel_run"),
    ),
    "paused_for_manual_action": Told(
        reason="paused_for_manual_action",
        status="paused",
        step="hold",
        details={"paused_at": NOON, "resume_target": "then"},
        actions=("resume_run", "cancel_run"),
    ),
    "lease_expired": Told(
        reason="lease_expired",
        status="running",
        step="a",
        details=HELD,
        actions=("recover", "cancel_run"),
    ),
    "step_running": Told(
        reason="step_running",
        status="running",
        step="a",
        details=HELD,
        actions=("wait_for_step", "cancel_run"),
    ),
    "waiting_for_retry": Told(
        reason="waiting_for_retry",
        status="retrying",
        step="a",
        details={**PUT_OFF, "attempt": 2, "cause": "retry"},
        actions=("wait_for_retry", "cancel_run"),
    ),
    "waiting_until": Told(
        reason="waiting_until",
        status="running",
        step="b",
        details={**PUT_OFF, "cause": "wait"},
        actions=("wait_until", "cancel_run"),
    ),
    "deferred": Told(
        reason="waiting_until",
        status="running",
        step="a",
        details={**PUT_OFF, "cause": "deferral", "reason": "not open yet"},
        actions=("wait_until", "cancel_run"),
    ),
    "pending_dispatch": Told(
        reason="pending_dispatch",
        status="pending",
        step="a",
        details=DUE,
        actions=("wait_for_step", "cancel_run"),
    ),
    "overlooked": Told(
        reason="pending_dispatch",
        status="pending",
        step="a",
        details=DUE,
        actions=("wait_for_step", "recover", "cancel_run"),
    ),
    "step_scheduled": Told(
        reason="step_scheduled",
        status="running",
        step="b",
        details=PUT_OFF,
        actions=("wait_for_step", "cancel_run"),
    ),
    "waiting_for_dependencies": Told(
        reason="waiting_for_dependencies",
        status="waiting",
        step="join",
        details={
            "waiting_on": ["slow"],
            "dependency_statuses": {"quick": "completed", "slow": "scheduled"},
        },
        actions=("wait_for_dependencies", "cancel_run"),
    ),
}

FINAL: Final = frozenset({"completed", "failed", "cancelled"})
UNDER_WAY: Final = [name for name, told in TOLD.items() if told.status not in FINAL]
BY_ITSELF: Final = [
    "cancelling",
    "compensating",
    "step_running",
    "waiting_for_retry",
    "waiting_until",
    "deferred",
]
FOR_PEOPLE: Final = frozenset(
    {"approve_run", "reject_run", "resume_run", "cancel_run", "recover", "deploy_workflow"}
)

each_situation = pytest.mark.parametrize("name", TOLD)


@pytest.fixture
def place(open_mesh: OpenMesh, clock: VirtualClock) -> Place:
    return Place(open_mesh, clock)


async def asked(found: Situation) -> Explanation:
    return await found.mesh.explain_run(found.run_id, step=found.step)


def names(explanation: Explanation) -> tuple[str, ...]:
    """The names of the actions; a run may be replayed as a whole and from where it failed."""
    return tuple(dict.fromkeys(action.name for action in explanation.next_actions))


async def done(call: str, mesh: SquidMesh) -> Any:
    """Do what an action says, word for word but for the actor that it leaves open."""
    space: dict[str, Any] = {"mesh": mesh, "Worker": Worker}
    text = call.replace("actor=...", 'actor="ada"')
    exec(f"async def act():\n    return {text}\n", space)  # noqa: S102  that is what is tested
    return await space["act"]()


def moment_of(explanation: Explanation) -> datetime:
    """When it says that it changes by itself."""
    details = explanation.details
    return datetime.fromisoformat(str(details.get("lease_until") or details["visible_at"]))


@each_situation
async def test_every_reason_comes_with_its_step_its_details_and_its_actions(
    place: Place, name: str
) -> None:
    told = TOLD[name]
    found = await SITUATIONS[name](place)

    explanation = await asked(found)

    shown = {key: explanation.details.get(key) for key in told.details}
    assert (explanation.reason, explanation.status, explanation.step) == (
        told.reason,
        told.status,
        told.step,
    )
    assert shown == told.details
    assert names(explanation) == told.actions


@each_situation
async def test_the_evidence_of_every_reason_is_what_the_history_shows(
    place: Place, name: str
) -> None:
    found = await SITUATIONS[name](place)

    evidence = (await asked(found)).evidence

    run = await history(found.mesh, found.run_id)
    told = TOLD[name]
    assert evidence["run"] == {
        "id": run.id,
        "status": run.status,
        "workflow": run.workflow,
        "revision": run.revision,
        "started_at": run.started_at.isoformat(),
        "updated_at": run.updated_at.isoformat(),
    }
    if told.step is None or told.status == "waiting":
        assert set(evidence) == {"run"}
    else:
        assert evidence == {"run": evidence["run"], **facts_of(run, told.step, evidence)}


def facts_of(run: Run, name: str, evidence: Mapping[str, Any]) -> dict[str, object]:
    """The step's and its latest attempt's part of the evidence, as the history has them."""
    known = step_of(run, name)
    ended = [attempt.status for attempt in known.attempts]
    facts: dict[str, object] = {
        "step": {
            "name": name,
            "status": known.status,
            "failures": ended.count("failed"),
            "deliveries": known.deliveries,
            "deferrals": evidence["step"]["deferrals"],
            "deferred": evidence["step"]["deferred"],
        }
    }
    if known.attempts:
        latest = known.attempts[-1]
        until = latest.lease_until
        facts["attempt"] = {
            "number": latest.number,
            "status": latest.status,
            "owner": latest.owner,
            "lease_until": until.isoformat() if until is not None else None,
            "visible_at": latest.visible_at.isoformat(),
            "error": latest.error["code"] if latest.error is not None else None,
        }
    return facts


@pytest.mark.parametrize("name", UNDER_WAY)
async def test_whatever_is_not_over_waits_for_a_person_or_for_a_time_that_it_names(
    place: Place, name: str
) -> None:
    found = await SITUATIONS[name](place)

    explanation = await asked(found)

    waits_for_somebody = FOR_PEOPLE & set(names(explanation))
    waits_for_a_time = {"visible_at", "lease_until"} & set(explanation.details)
    assert waits_for_somebody or waits_for_a_time


@pytest.mark.parametrize("name", BY_ITSELF)
async def test_what_changes_by_itself_does_so_at_the_time_that_it_names(
    place: Place, name: str
) -> None:
    found = await SITUATIONS[name](place)
    before = await asked(found)
    place.gate.opened.set()

    place.clock.advance((moment_of(before) - TICK - place.clock.now()).total_seconds())
    await found.mesh.run_until_idle()
    just_before = await asked(found)
    place.clock.advance(TICK.total_seconds())
    await found.mesh.run_until_idle()

    assert just_before == before
    assert (await asked(found)).reason in ("completed", "cancelled", "step_failed")


PEOPLES_ACTIONS: Final = [
    (name, action)
    for name, told in TOLD.items()
    for action in told.actions
    if action in ("approve_run", "reject_run", "resume_run", "cancel_run", "replay_run")
]


@pytest.mark.parametrize(("name", "action"), PEOPLES_ACTIONS)
async def test_the_call_of_an_action_for_people_does_what_the_action_is_called(
    place: Place, name: str, action: str
) -> None:
    found = await SITUATIONS[name](place)
    calls = [each.call for each in (await asked(found)).next_actions if each.name == action]

    for call in calls:
        answer = await done(call, found.mesh)

        assert isinstance(answer, Run)
        run = await history(found.mesh, found.run_id)
        assert WHAT_IT_DID[action](answer, run)


def was_decided(as_what: str) -> Any:
    def holds(answer: Run, run: Run) -> bool:
        output = step_of(run, "review").output
        return answer.id == run.id and isinstance(output, dict) and output["decision"] == as_what

    return holds


WHAT_IT_DID: Final[Mapping[str, Any]] = {
    "approve_run": was_decided("approved"),
    "reject_run": was_decided("rejected"),
    "resume_run": lambda answer, run: (
        (answer.id, step_of(run, "hold").status) == (run.id, "completed")
    ),
    "cancel_run": lambda answer, run: (
        answer.id == run.id and run.status in ("cancelled", "cancelling")
    ),
    "replay_run": lambda answer, run: (answer.replayed_from, answer.status) == (run.id, "pending"),
}


@pytest.mark.parametrize("name", [name for name, told in TOLD.items() if "recover" in told.actions])
async def test_the_call_to_recover_puts_the_run_back_within_reach(place: Place, name: str) -> None:
    found = await SITUATIONS[name](place)
    (action,) = [each for each in (await asked(found)).next_actions if each.name == "recover"]

    report = await done(action.call, found.mesh)

    run = await history(found.mesh, found.run_id)
    assert isinstance(report, RecoveryReport)
    assert report.reclaimed == (1 if name == "lease_expired" else 0)
    assert step_of(run, "a").attempts[-1].status == "scheduled"


@pytest.mark.parametrize("name", UNDER_WAY)
async def test_the_call_of_an_action_that_waits_looks_again_and_changes_nothing(
    place: Place, name: str
) -> None:
    found = await SITUATIONS[name](place)
    waiting = [each for each in (await asked(found)).next_actions if each.name.startswith("wait_")]
    before = await contents(found.mesh)

    for action in waiting:
        assert await done(action.call, found.mesh) == await found.mesh.explain_run(found.run_id)

    assert bool(waiting) == (TOLD[name].reason not in WITHOUT_WAITING)
    assert await contents(found.mesh) == before


WITHOUT_WAITING: Final = ("paused_for_approval", "paused_for_manual_action", "lease_expired")


async def test_the_call_to_deploy_a_workflow_lets_its_run_go_on(
    place: Place, clock: VirtualClock
) -> None:
    found = await SITUATIONS["pending_dispatch"](place)
    store = (await found.mesh.engine()).store
    async with SquidMesh(store=store, clock=clock) as stranger:
        explanation = await stranger.explain_run(found.run_id)
    (action,) = [each for each in explanation.next_actions if each.name == "deploy_workflow"]

    working = asyncio.create_task(done(action.call, found.mesh))
    while (await found.mesh.inspect_run(found.run_id)).status == "pending":
        await turn()
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)

    assert (await found.mesh.inspect_run(found.run_id)).status == "running"


async def test_a_decision_is_not_taken_while_its_actor_is_left_open(place: Place) -> None:
    found = await SITUATIONS["paused_for_approval"](place)

    with pytest.raises(InvalidReviewError):
        await found.mesh.approve_run(found.run_id, actor=...)

    assert (await asked(found)).reason == "paused_for_approval"


def delivery(run: Run, name: str, attempt: int = 1) -> dict[str, Any]:
    return {"kind": "step", "run_id": run.id, "step": name, "attempt": attempt}


async def test_of_several_reasons_the_first_counts_and_the_next_when_that_is_gone(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    gate, told = Gate(), []

    async def hold() -> None:
        await gate.wait()

    def shaky(context: StepContext) -> Errored | None:
        return Errored("busy", retryable=True) if context.attempt == 1 else None

    class Everything(Workflow[Order]):
        name = "everything"
        by_hand = manual()
        lost = step(hold)
        held = step(hold)
        shaky_ = step(shaky, retry=Retry(2, backoff_min=MINUTE))
        later = wait(10 * MINUTE)
        due = log("due")

    mesh = await open_mesh(Everything)
    run = await mesh.start_run(Everything)
    perform = Runner(mesh).perform

    async def look() -> None:
        found = await mesh.explain_run(run.id)
        told.append((found.reason, found.step))

    dying = asyncio.create_task(perform(delivery(run, "lost")))
    await gate.entered.wait()
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    clock.advance(LEASE)
    gate.entered.clear()
    holding = asyncio.create_task(perform(delivery(run, "held")))
    await gate.entered.wait()
    await perform(delivery(run, "shaky_"))
    await look()
    await mesh.recover()
    await look()
    gate.opened.set()
    await holding
    await look()
    clock.advance(MINUTE)
    await perform(delivery(run, "shaky_", 2))
    await look()
    clock.advance(10 * MINUTE)
    await look()
    store = (await mesh.engine()).store
    async with SquidMesh(store=store, clock=clock) as stranger:
        alone = await stranger.explain_run(run.id)

    assert told == [
        ("lease_expired", "lost"),
        ("step_running", "held"),
        ("waiting_for_retry", "shaky_"),
        ("waiting_until", "later"),
        ("step_scheduled", "due"),
    ]
    assert alone.reason == "no_worker_for_workflow"


@pytest.mark.parametrize("name", ["cancelling", "compensating"])
async def test_an_ending_run_says_so_also_when_nobody_is_working_on_its_end(
    place: Place, name: str
) -> None:
    found = await SITUATIONS[name](place)
    place.clock.advance(LEASE)

    explanation = await asked(found)

    assert explanation.reason == name
    assert "recover" in names(explanation)


async def test_a_final_error_on_the_last_attempt_is_not_taken_for_exhaustion(
    open_mesh: OpenMesh,
) -> None:
    def body(context: StepContext) -> Errored:
        return Errored("busy", code="busy", retryable=context.attempt == 1)

    class Two(Workflow[Order]):
        name = "two"
        by_hand = manual()
        a = step(body, output="x", retry=Retry(2))

    mesh = await open_mesh(Two)
    run = await mesh.start_run(Two)
    await mesh.run_until_idle()

    found = await mesh.explain_run(run.id)

    assert found.reason == "step_failed"
    assert found.details["failures"] == found.details["max_attempts"] == 2
