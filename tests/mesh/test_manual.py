"""Steps that wait for people: what may be said, what is kept of it, and where the run goes on."""

from typing import Any

import pytest

from squidmesh import (
    IdempotencyConflictError,
    InvalidReviewError,
    InvalidTransitionError,
    NotPausedError,
    Run,
    RunNotFoundError,
    SquidMesh,
    Workflow,
    approval,
    log,
    manual,
    path,
    pause,
    step,
)
from squidmesh.testing.clock import VirtualClock
from tests.mesh.support import (
    MINUTE,
    OpenMesh,
    Order,
    audit_types,
    contents,
    context_of,
    entries_of,
    event_of,
    history,
    step_of,
    step_statuses,
)

pytestmark = pytest.mark.anyio


class Release(Workflow[Order]):
    """A pause, a step behind it."""

    name = "release"
    by_hand = manual()
    hold = pause(output="let")
    ship = log("shipped")
    transitions = path(hold, ship)


class Credit(Workflow[Order]):
    """An approval with a way for both answers."""

    name = "credit"
    by_hand = manual()
    review = approval(output="review")
    pay = step(lambda review: {"paid_by": review["actor"]})
    refuse = step(lambda review: {"refused_by": review["actor"]})
    transitions = (
        path(review, pay),
        review.on_error(refuse, recovery="compensation"),
        path(refuse),
    )


ACTIONS: dict[str, dict[str, Any]] = {
    "resume_run": {},
    "approve_run": {"actor": "ada"},
    "reject_run": {"actor": "ada"},
}
COMMANDS = {**ACTIONS, "cancel_run": {}}


async def give(mesh: SquidMesh, command: str, run_id: str, **said: Any) -> Run:
    found: Run = await getattr(mesh, command)(run_id, **said)
    return found


def workflow_for(command: str) -> type[Workflow[Order]]:
    return Release if command in ("resume_run", "cancel_run") else Credit


async def test_resuming_a_pause_goes_on_and_keeps_who_said_what(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    mesh = await open_mesh(Release)
    run = await mesh.start_run(Release)
    paused_at = clock.now()
    clock.advance(MINUTE)

    resumed = await mesh.resume_run(
        run.id, actor={"id": 7}, comment="go on", metadata={"ticket": "T-1"}
    )
    await mesh.run_until_idle()

    done = await history(mesh, run)
    record = {
        "decision": "resumed",
        "actor": {"id": 7},
        "decided_at": clock.now().isoformat(),
        "comment": "go on",
        "metadata": {"ticket": "T-1"},
    }
    event = event_of(done, "resumed")
    assert resumed.status == "running"
    assert done.status == "completed"
    assert done.context == {"let": record}
    assert step_of(done, "hold").output == record
    assert audit_types(done) == ["paused", "resumed"]
    assert event_of(done, "paused").at == paused_at
    assert (event.step, event.actor, event.comment) == ("hold", {"id": 7}, "go on")
    assert (event.metadata, event.at) == ({"ticket": "T-1"}, clock.now())


async def test_a_pause_can_be_resumed_without_a_word(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Release)
    run = await mesh.start_run(Release)

    await mesh.resume_run(run.id)

    assert event_of(await history(mesh, run), "resumed").actor is None


async def test_an_approval_takes_the_way_on_ok(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Credit)
    run = await mesh.start_run(Credit)

    approved = await mesh.approve_run(run.id, actor="ada")
    await mesh.run_until_idle()

    done = await history(mesh, run)
    assert approved.status == "running"
    assert step_statuses(done) == {"review": "completed", "pay": "completed", "refuse": "skipped"}
    assert context_of(done)["paid_by"] == "ada"
    assert audit_types(done) == ["paused", "approved"]
    review = context_of(done)["review"]
    assert isinstance(review, dict)
    assert (review["decision"], review["comment"], review["metadata"]) == ("approved", None, {})


async def test_a_rejection_takes_the_way_on_error_and_a_marked_one_is_audited(
    open_mesh: OpenMesh,
) -> None:
    mesh = await open_mesh(Credit)
    run = await mesh.start_run(Credit)

    await mesh.reject_run(run.id, actor="ada", comment="too much")
    await mesh.run_until_idle()

    done = await history(mesh, run)
    assert done.status == "completed"
    assert step_statuses(done) == {"review": "completed", "pay": "skipped", "refuse": "completed"}
    assert context_of(done)["refused_by"] == "ada"
    assert audit_types(done) == ["paused", "rejected", "compensation_routed"]
    assert event_of(done, "compensation_routed").actor == "ada"


@pytest.mark.parametrize(
    ("command", "decision"), [("approve_run", "approved"), ("reject_run", "rejected")]
)
async def test_a_decision_is_recorded_whole_under_the_output_and_in_the_audit(
    open_mesh: OpenMesh, clock: VirtualClock, command: str, decision: str
) -> None:
    mesh = await open_mesh(Credit)
    run = await mesh.start_run(Credit)
    clock.advance(MINUTE)

    await give(mesh, command, run.id, actor="ada", comment="seen", metadata={"ticket": "T-1"})

    decided = await history(mesh, run)
    record = {
        "decision": decision,
        "actor": "ada",
        "decided_at": clock.now().isoformat(),
        "comment": "seen",
        "metadata": {"ticket": "T-1"},
    }
    event = event_of(decided, decision)
    assert context_of(decided) == {"review": record}
    assert step_of(decided, "review").output == record
    assert (event.step, event.actor, event.comment) == ("review", "ada", "seen")
    assert (event.metadata, event.at) == ({"ticket": "T-1"}, clock.now())


async def test_a_manual_step_may_be_the_last_and_end_the_run_at_once(
    open_mesh: OpenMesh,
) -> None:
    class Final(Workflow[Order]):
        name = "final"
        by_hand = manual()
        review = approval()
        transitions = (path(review), review.on_error(Workflow.complete))

    mesh = await open_mesh(Final)
    yes, no = await mesh.start_run(Final), await mesh.start_run(Final)

    approved = await mesh.approve_run(yes.id, actor="ada")
    rejected = await mesh.reject_run(no.id, actor="ada")

    assert (approved.status, rejected.status) == ("completed", "completed")
    assert approved.context == {}
    assert step_of(await history(mesh, yes), "review").status == "completed"


async def test_a_deploy_does_not_move_the_targets_of_an_open_manual_step(url: str) -> None:
    class Before(Workflow[Order]):
        name = "moving"
        by_hand = manual()
        hold = pause(output="old_key")
        old = log("old")
        transitions = path(hold, old)

    class After(Workflow[Order]):
        name = "moving"
        by_hand = manual()
        hold = pause(output="new_key")
        new = log("new")
        old = log("old")
        transitions = (path(hold, new), path(old), new.on_error(old))

    async with SquidMesh.open(url, workflows=[Before]) as first:
        run = await first.start_run("moving")
        store = (await first.engine()).store
        async with SquidMesh(store=store, workflows=[After]) as second:
            await second.resume_run(run.id, actor="ada")
            await second.run_until_idle()
            done = await history(second, run)

    assert step_statuses(done) == {"hold": "completed", "old": "completed"}
    assert list(context_of(done)) == ["old_key"]


async def test_the_entry_of_an_open_step_holds_its_targets_and_its_output_key(
    open_mesh: OpenMesh,
) -> None:
    mesh = await open_mesh(Credit)
    run = await history(mesh, await mesh.start_run(Credit))

    (entry,) = entries_of(run, "manual_step_paused")
    assert entry.data["kind"] == "approval"
    assert entry.data["output"] == "review"
    assert entry.data["on_ok"] != entry.data["on_error"]


BAD_ACTORS: list[Any] = ["", "   ", {}, 7, ["ada"], True, object(), {"id": float("nan")}, "a\x00"]


@pytest.mark.parametrize("command", [*COMMANDS])
async def test_an_actor_is_a_non_empty_text_or_mapping(open_mesh: OpenMesh, command: str) -> None:
    mesh = await open_mesh(workflow_for(command))
    run = await mesh.start_run(workflow_for(command))
    before = await contents(mesh)

    for actor in BAD_ACTORS:
        with pytest.raises(InvalidReviewError) as refused:
            await give(mesh, command, run.id, actor=actor)

        assert refused.value.code == "invalid_review"
        assert refused.value.details["field"] == "actor"
    assert await contents(mesh) == before


@pytest.mark.parametrize("command", ["approve_run", "reject_run"])
async def test_approving_and_rejecting_need_an_actor(open_mesh: OpenMesh, command: str) -> None:
    mesh = await open_mesh(Credit)
    run = await mesh.start_run(Credit)
    before = await contents(mesh)

    with pytest.raises(InvalidReviewError) as refused:
        await give(mesh, command, run.id, actor=None)
    with pytest.raises(TypeError):
        await give(mesh, command, run.id)

    assert refused.value.details["field"] == "actor"
    assert await contents(mesh) == before


BAD_WORDS: list[tuple[str, Any]] = [
    ("comment", ""),
    ("comment", 5),
    ("comment", "half \ud800"),
    ("metadata", "text"),
    ("metadata", [1]),
    ("metadata", {"a": object()}),
    ("metadata", {1: 2}),
]


@pytest.mark.parametrize("command", [*ACTIONS])
async def test_comments_are_texts_and_metadata_mappings_that_json_can_hold(
    open_mesh: OpenMesh, command: str
) -> None:
    mesh = await open_mesh(workflow_for(command))
    run = await mesh.start_run(workflow_for(command))
    before = await contents(mesh)

    for field, value in BAD_WORDS:
        with pytest.raises(InvalidReviewError) as refused:
            await give(mesh, command, run.id, **{**ACTIONS[command], field: value})

        assert refused.value.details["field"] == field
    assert await contents(mesh) == before


@pytest.mark.parametrize(
    ("command", "workflow", "expected", "found"),
    [
        ("approve_run", Release, "approval", "pause"),
        ("reject_run", Release, "approval", "pause"),
        ("resume_run", Credit, "pause", "approval"),
    ],
)
async def test_the_wrong_kind_of_manual_step_is_refused_with_both_kinds(
    open_mesh: OpenMesh,
    command: str,
    workflow: type[Workflow[Order]],
    expected: str,
    found: str,
) -> None:
    mesh = await open_mesh(workflow)
    run = await mesh.start_run(workflow)
    before = await contents(mesh)

    with pytest.raises(NotPausedError) as refused:
        await give(mesh, command, run.id, **ACTIONS[command])

    assert isinstance(refused.value, InvalidTransitionError)
    assert refused.value.code == "not_paused"
    assert refused.value.details["expected"] == expected
    assert refused.value.details["found"] == found
    assert await contents(mesh) == before


@pytest.mark.parametrize("command", [*ACTIONS])
async def test_a_run_that_is_not_paused_cannot_be_decided(
    open_mesh: OpenMesh, command: str
) -> None:
    class Plain(Workflow[Order]):
        name = "plain"
        by_hand = manual()
        only = log("only")

    mesh = await open_mesh(Plain)
    run = await mesh.start_run(Plain)

    begun = await contents(mesh)
    with pytest.raises(NotPausedError) as pending:
        await give(mesh, command, run.id, **ACTIONS[command])
    assert await contents(mesh) == begun
    await mesh.run_until_idle()
    over = await contents(mesh)
    with pytest.raises(NotPausedError) as completed:
        await give(mesh, command, run.id, **ACTIONS[command])

    assert await contents(mesh) == over
    assert pending.value.details["from"] == "pending"
    assert completed.value.details["from"] == "completed"
    assert completed.value.details["to"] == "running"
    assert completed.value.details["found"] is None


@pytest.mark.parametrize("command", [*COMMANDS])
async def test_a_repeated_command_with_its_key_returns_the_run_and_writes_nothing(
    open_mesh: OpenMesh, command: str
) -> None:
    workflow, said = workflow_for(command), COMMANDS[command]
    mesh = await open_mesh(workflow)
    run = await mesh.start_run(workflow)
    first = await give(mesh, command, run.id, **said, idempotency_key="once")
    await mesh.run_until_idle()
    before = await contents(mesh)

    again = await give(mesh, command, run.id, **said, idempotency_key="once")

    assert again.id == first.id
    assert again.revision >= first.revision
    assert await contents(mesh) == before


@pytest.mark.parametrize("command", [*COMMANDS])
async def test_the_key_of_another_command_is_a_conflict(open_mesh: OpenMesh, command: str) -> None:
    workflow, said = workflow_for(command), COMMANDS[command]
    mesh = await open_mesh(workflow)
    run = await mesh.start_run(workflow)
    other = "cancel_run" if command != "cancel_run" else "resume_run"
    await give(mesh, command, run.id, **said, idempotency_key="once")
    before = await contents(mesh)

    with pytest.raises(IdempotencyConflictError):
        await give(mesh, other, run.id, idempotency_key="once")

    assert await contents(mesh) == before


async def test_keys_of_commands_belong_to_their_run(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Release)
    one = await mesh.start_run(Release, idempotency_key="k")
    two = await mesh.start_run(Release)

    first = await mesh.resume_run(one.id, idempotency_key="k")
    second = await mesh.resume_run(two.id, idempotency_key="k")

    assert (first.status, second.status) == ("running", "running")


@pytest.mark.parametrize("command", [*ACTIONS])
async def test_without_its_key_a_repeated_command_finds_nothing_open(
    open_mesh: OpenMesh, command: str
) -> None:
    workflow = workflow_for(command)
    mesh = await open_mesh(workflow)
    run = await mesh.start_run(workflow)
    await give(mesh, command, run.id, **ACTIONS[command], idempotency_key="once")

    with pytest.raises(NotPausedError):
        await give(mesh, command, run.id, **ACTIONS[command])
    with pytest.raises(NotPausedError):
        await give(mesh, command, run.id, **ACTIONS[command], idempotency_key="twice")


@pytest.mark.parametrize("command", [*COMMANDS])
async def test_commands_to_an_unknown_run_are_refused(open_mesh: OpenMesh, command: str) -> None:
    mesh = await open_mesh(Release)

    with pytest.raises(RunNotFoundError) as refused:
        await give(mesh, command, "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b", **COMMANDS[command])

    assert refused.value.code == "run_not_found"


async def test_each_entry_of_a_command_carries_who_gave_it(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Credit)
    run = await mesh.start_run(Credit)

    await mesh.approve_run(
        run.id, actor="ada", comment="fine", metadata={"t": 1}, idempotency_key="k"
    )

    (entry,) = entries_of(await history(mesh, run), "manual_step_resolved")
    shown = str(entry.data)
    assert all(word in shown for word in ("ada", "fine", "'t': 1", "'k'"))
    assert entry.data["action"] == "approved"


@pytest.mark.parametrize("field", ["actor", "comment", "metadata"])
@pytest.mark.parametrize("command", [*ACTIONS])
async def test_what_is_said_with_a_command_has_a_size_that_can_be_recorded(
    open_mesh: OpenMesh, command: str, field: str
) -> None:
    mesh = await open_mesh(workflow_for(command))
    run = await mesh.start_run(workflow_for(command))
    before = await contents(mesh)
    large = {"a": "x" * 70_000} if field == "metadata" else "x" * 70_000

    with pytest.raises(InvalidReviewError) as refused:
        await give(mesh, command, run.id, **{**ACTIONS[command], field: large})

    assert refused.value.details["field"] == field
    assert await contents(mesh) == before
