"""Replaying: a new run from an old one, unless that would repeat what cannot be undone."""

from typing import Any

import pytest

from squidmesh import (
    Errored,
    IdempotencyConflictError,
    InvalidOptionError,
    InvalidPayloadError,
    SquidMesh,
    UnknownWorkflowError,
    UnsafeReplayError,
    Workflow,
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


class Plain(Workflow[Order]):
    """Nothing here stands in the way of a replay."""

    name = "plain"
    version = "1"
    by_hand = manual()
    by_phone = manual()
    load = step(lambda number: {"id": number}, output="invoice")
    ask = step(lambda invoice: f"asked {invoice['id']}", output="verdict")
    tell = step(lambda verdict: {"told": verdict})
    transitions = path(load, ask, tell)


class Risky(Workflow[Order]):
    """One step cannot be undone, another not compensated, and one says that it can."""

    name = "risky"
    by_hand = manual()
    safe = log("safe")
    pay = step(lambda: None, irreversible=True)
    post = step(lambda: None, compensatable=False)
    again = step(lambda: None, irreversible=False, compensatable=True)
    never = step(lambda: Errored("no"), output="x", irreversible=True)
    transitions = path(safe, pay, post, again, never)


async def test_a_replay_is_a_new_run_with_the_sources_payload_and_trigger(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    mesh = await open_mesh(Plain)
    source = await mesh.start_run(
        Plain, Order(number="o9"), trigger="by_phone", tags={"a": "b"}, queue="q", priority=4
    )
    await mesh.run_until_idle()
    clock.advance(MINUTE)

    new = await mesh.replay_run(source.id)
    begun = await history(mesh, new)
    await mesh.run_until_idle()

    done = await mesh.inspect_run(new.id)
    assert new.id != source.id
    assert new.replayed_from == source.id
    assert (new.status, new.context) == ("pending", {})
    assert (new.payload, new.trigger) == ({"number": "o9", "amount": 100}, "by_phone")
    assert (new.tags, new.queue, new.priority) == ({"a": "b"}, "q", 4)
    assert new.started_at == clock.now()
    assert step_statuses(begun)["load"] == "scheduled"
    assert context_of(done)["told"] == "asked o9"


async def test_the_source_keeps_its_state_and_gets_the_audit_event(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Plain)
    source = await mesh.start_run(Plain)
    await mesh.run_until_idle()
    before = await mesh.inspect_run(source.id)

    new = await mesh.replay_run(source.id, actor="ada", comment="once more")

    after = await history(mesh, source)
    event = event_of(after, "replayed")
    assert after.status == before.status == "completed"
    assert (after.context, after.ended_at) == (before.context, before.ended_at)
    assert (event.actor, event.comment) == ("ada", "once more")
    assert new.id in event.metadata.values()
    assert audit_types(await history(mesh, new)) == []


@pytest.mark.parametrize("status", ["pending", "paused", "failed", "cancelled"])
async def test_a_run_of_any_status_can_be_replayed(open_mesh: OpenMesh, status: str) -> None:
    class Held(Workflow[Order]):
        name = "any"
        by_hand = manual()
        hold = pause()
        refuse = step(lambda: Errored("no"), output="x")
        transitions = path(hold, refuse)

    class Pending(Workflow[Order]):
        name = "pending"
        by_hand = manual()
        only = log("only")

    workflow = Pending if status == "pending" else Held
    mesh = await open_mesh(Held, Pending)
    source = await mesh.start_run(workflow)
    if status == "failed":
        await mesh.resume_run(source.id)
        await mesh.run_until_idle()
    if status == "cancelled":
        await mesh.cancel_run(source.id)

    new = await mesh.replay_run(source.id)

    assert (await mesh.inspect_run(source.id)).status == status
    assert new.replayed_from == source.id


async def test_completed_steps_that_cannot_be_undone_stand_in_the_way(
    open_mesh: OpenMesh,
) -> None:
    mesh = await open_mesh(Risky)
    source = await mesh.start_run(Risky)
    await mesh.run_until_idle()
    before = await contents(mesh)

    with pytest.raises(UnsafeReplayError) as refused:
        await mesh.replay_run(source.id)

    assert refused.value.code == "unsafe_replay"
    assert refused.value.steps == ("pay", "post")
    assert refused.value.details["steps"] == ["pay", "post"]
    assert await contents(mesh) == before


NEARLY_TRUE: list[Any] = [1, "true", "yes", 1.0, [1], {"a": 1}]


@pytest.mark.parametrize("nearly", NEARLY_TRUE, ids=range(len(NEARLY_TRUE)))
async def test_only_exactly_true_allows_what_cannot_be_undone(
    open_mesh: OpenMesh, nearly: Any
) -> None:
    mesh = await open_mesh(Risky)
    source = await mesh.start_run(Risky)
    await mesh.run_until_idle()

    with pytest.raises(UnsafeReplayError):
        await mesh.replay_run(source.id, allow_irreversible=nearly)
    new = await mesh.replay_run(source.id, allow_irreversible=True)

    assert new.replayed_from == source.id


async def test_a_step_that_was_not_completed_does_not_stand_in_the_way(
    open_mesh: OpenMesh,
) -> None:
    mesh = await open_mesh(Risky)
    source = await mesh.start_run(Risky)

    new = await mesh.replay_run(source.id)

    assert new.replayed_from == source.id


async def test_the_stored_policy_counts_and_not_todays(url: str) -> None:
    class Before(Workflow[Order]):
        name = "policy"
        by_hand = manual()
        pay = step(lambda: None, irreversible=True)

    class After(Workflow[Order]):
        name = "policy"
        by_hand = manual()
        pay = step(lambda: None)

    async with SquidMesh.open(url, workflows=[Before]) as first:
        source = await first.start_run("policy")
        await first.run_until_idle()
        store = (await first.engine()).store
        async with SquidMesh(store=store, workflows=[After]) as second:
            with pytest.raises(UnsafeReplayError):
                await second.replay_run(source.id)
            new = await second.replay_run(source.id, allow_irreversible=True)

    assert new.fingerprint == After.definition.fingerprint


async def test_from_a_step_on_the_outputs_before_it_are_carried_over(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Plain)
    source = await mesh.start_run(Plain, Order(number="o9"))
    await mesh.run_until_idle()

    new = await mesh.replay_run(source.id, from_step="tell")
    begun = await history(mesh, new)
    await mesh.run_until_idle()

    done = await history(mesh, new)
    assert new.context == {"invoice": {"id": "o9"}, "verdict": "asked o9"}
    assert step_statuses(begun) == {"load": "completed", "ask": "completed", "tell": "scheduled"}
    assert step_of(begun, "load").attempts == ()
    assert done.status == "completed"
    assert context_of(done)["told"] == "asked o9"
    assert event_of(await history(mesh, source), "replayed").metadata["from_step"] == "tell"


async def test_from_a_step_on_only_the_steps_from_there_count_for_the_guard(
    open_mesh: OpenMesh,
) -> None:
    mesh = await open_mesh(Risky)
    source = await mesh.start_run(Risky)
    await mesh.run_until_idle()

    with pytest.raises(UnsafeReplayError) as refused:
        await mesh.replay_run(source.id, from_step="post")
    new = await mesh.replay_run(source.id, from_step="again")

    assert refused.value.steps == ("post",)
    assert new.replayed_from == source.id


async def test_steps_carried_over_are_not_undone_when_the_replay_fails(
    open_mesh: OpenMesh,
) -> None:
    undone: list[str] = []

    class Undoable(Workflow[Order]):
        name = "undoable"
        by_hand = manual()
        a = step(lambda: None, compensate=lambda: undone.append("a"))
        b = step(lambda: None, compensate=lambda: undone.append("b"))
        c = step(lambda: Errored("no"), output="x")
        transitions = path(a, b, c)

    mesh = await open_mesh(Undoable)
    source = await mesh.start_run(Undoable)
    await mesh.run_until_idle()
    first = list(undone)
    undone.clear()

    await mesh.replay_run(source.id, from_step="b")
    await mesh.run_until_idle()

    assert first == ["b", "a"]
    assert undone == ["b"]


@pytest.mark.parametrize("step_name", ["nowhere", "tell", ""])
async def test_a_step_that_is_unknown_or_was_never_reached_is_no_place_to_start(
    open_mesh: OpenMesh, step_name: str
) -> None:
    mesh = await open_mesh(Plain)
    source = await mesh.start_run(Plain)
    before = await contents(mesh)

    with pytest.raises(InvalidOptionError) as refused:
        await mesh.replay_run(source.id, from_step=step_name)

    assert refused.value.details["option"] == "from_step"
    assert await contents(mesh) == before


async def test_with_dependencies_everything_but_what_came_before_the_step_runs_again(
    open_mesh: OpenMesh,
) -> None:
    calls: list[str] = []

    class Joined(Workflow[Order]):
        name = "joined"
        by_hand = manual()
        root = step(lambda: calls.append("root"))
        left = step(lambda: calls.append("left"), after=root)
        right = step(lambda: calls.append("right"), after=root)
        join = step(lambda: calls.append("join"), after=(left, right))

    mesh = await open_mesh(Joined)
    source = await mesh.start_run(Joined)
    await mesh.run_until_idle()
    calls.clear()

    new = await mesh.replay_run(source.id, from_step="left")
    await mesh.run_until_idle()

    assert sorted(calls) == ["join", "left", "right"]
    assert (await mesh.inspect_run(new.id)).status == "completed"


async def test_a_replay_needs_the_workflow_and_a_payload_that_still_fits(url: str) -> None:
    class Before(Workflow[Order]):
        name = "changing"
        by_hand = manual()
        only = log("only")

    class After(Workflow[None]):
        name = "changing"
        by_hand = manual()
        only = log("only")

    async with SquidMesh.open(url, workflows=[Before]) as first:
        source = await first.start_run("changing")
        store = (await first.engine()).store
        async with (
            SquidMesh(store=store) as nobody,
            SquidMesh(store=store, workflows=[After]) as second,
        ):
            before = await contents(first)
            with pytest.raises(UnknownWorkflowError):
                await nobody.replay_run(source.id)
            with pytest.raises(InvalidPayloadError):
                await second.replay_run(source.id)
            assert await contents(first) == before


async def test_a_repeated_replay_with_its_key_returns_the_new_run_and_writes_nothing(
    open_mesh: OpenMesh,
) -> None:
    mesh = await open_mesh(Plain)
    source = await mesh.start_run(Plain)
    new = await mesh.replay_run(source.id, idempotency_key="once")
    before = await contents(mesh)

    again = await mesh.replay_run(source.id, idempotency_key="once")
    with pytest.raises(IdempotencyConflictError):
        await mesh.cancel_run(source.id, idempotency_key="once")

    assert again.id == new.id
    assert await contents(mesh) == before


async def test_the_key_of_another_command_cannot_replay(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Plain)
    source = await mesh.start_run(Plain)
    await mesh.cancel_run(source.id, idempotency_key="once")
    before = await contents(mesh)

    with pytest.raises(IdempotencyConflictError):
        await mesh.replay_run(source.id, idempotency_key="once")

    assert await contents(mesh) == before


async def test_a_replay_is_told_in_both_journals(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Plain)
    source = await mesh.start_run(Plain)
    new = await mesh.replay_run(source.id)

    (told,) = entries_of(await history(mesh, source), "run_replayed")
    (started,) = entries_of(await history(mesh, new), "run_started")
    assert told.data["new_run_id"] == new.id
    assert started.data["replayed_from"] == source.id


async def test_a_replay_can_be_replayed(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Plain)
    source = await mesh.start_run(Plain, Order(number="o9"))
    await mesh.run_until_idle()
    second = await mesh.replay_run(source.id, from_step="ask")
    await mesh.run_until_idle()

    third = await mesh.replay_run(second.id, from_step="tell")
    await mesh.run_until_idle()

    done = await mesh.inspect_run(third.id)
    assert third.replayed_from == second.id
    assert context_of(done)["told"] == "asked o9"
