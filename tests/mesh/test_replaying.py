"""Replaying: a new run from an old one, unless that would repeat what cannot be undone."""

from itertools import chain, repeat
from typing import Any

import pytest

from squidmesh import (
    Errored,
    IdempotencyConflictError,
    IncompatibleDefinitionError,
    InvalidOptionError,
    InvalidPayloadError,
    Retry,
    SquidMesh,
    StoreConflictError,
    UnknownWorkflowError,
    UnsafeReplayError,
    Workflow,
    compensation,
    log,
    manual,
    path,
    pause,
    step,
)
from squidmesh.domain.evolution import rebuild
from squidmesh.testing.clock import VirtualClock
from squidmesh.testing.ids import SequentialIds
from tests.mesh.support import (
    MINUTE,
    Deploy,
    Gate,
    OpenMesh,
    Order,
    at_work,
    audit_types,
    contents,
    context_of,
    entries_of,
    error_of,
    event_of,
    history,
    step_of,
    step_statuses,
    turn,
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


async def test_a_policy_that_only_today_has_does_not_stand_in_the_way(deploy: Deploy) -> None:
    class Before(Workflow[Order]):
        name = "policy"
        by_hand = manual()
        pay = step(lambda: None)

    class After(Workflow[Order]):
        name = "policy"
        by_hand = manual()
        pay = step(lambda: None, irreversible=True)

    async with deploy(Before) as first:
        source = await first.start_run("policy")
        await first.run_until_idle()
    async with deploy(After) as second:
        new = await second.replay_run(source.id)
        await second.run_until_idle()

        with pytest.raises(UnsafeReplayError):
            await second.replay_run(new.id)


async def test_a_replay_follows_the_definition_of_today_and_its_source_the_one_it_carries(
    deploy: Deploy,
) -> None:
    class Before(Workflow[Order]):
        name = "growing"
        version = "1"
        by_hand = manual()
        hold = pause()
        tell = step(lambda number: f"told {number}", output="told")
        transitions = path(hold, tell)

    class After(Workflow[Order]):
        name = "growing"
        version = "2"
        by_hand = manual()
        hold = pause()
        tell = step(lambda number: f"told {number}", output="told")
        thank = step(lambda number: f"thanked {number}", output="thanks")
        transitions = path(hold, tell, thank)

    async with deploy(Before) as first:
        source = await first.start_run("growing", Order(number="o9"))
    async with deploy(After) as second:
        new = await second.replay_run(source.id)
        for run in (source, new):
            await second.resume_run(run.id)
        await second.run_until_idle()
        old, today = await history(second, source), await history(second, new)

    assert (old.version, today.version) == ("1", "2")
    assert today.fingerprint == After.definition.fingerprint != old.fingerprint
    assert context_of(old)["told"] == context_of(today)["told"] == "told o9"
    assert [list(step_statuses(run)) for run in (old, today)] == [
        ["hold", "tell"],
        ["hold", "tell", "thank"],
    ]
    assert context_of(today)["thanks"] == "thanked o9"


class TwoIds(SequentialIds):
    """Gives the first run an id of its own, and all others one that they share."""

    def __init__(self) -> None:
        super().__init__()
        self._first, self._second = super().run_id(), super().run_id()
        self._given = chain([self._first], repeat(self._second))

    def run_id(self) -> str:
        return next(self._given)


async def test_where_the_new_run_cannot_start_the_source_is_not_said_to_be_replayed(
    open_mesh: OpenMesh,
) -> None:
    mesh = await open_mesh(Plain, ids=TwoIds())
    source, _ = await mesh.start_run(Plain), await mesh.start_run(Plain)
    before = await contents(mesh)

    with pytest.raises(StoreConflictError):
        await mesh.replay_run(source.id, idempotency_key="once")

    assert await contents(mesh) == before


async def test_a_replay_raises_the_revision_of_its_source_by_one_entry_and_nothing_else(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    mesh = await open_mesh(Plain)
    source = await mesh.start_run(Plain)
    await mesh.run_until_idle()
    before = await history(mesh, source)
    clock.advance(MINUTE)

    new = await mesh.replay_run(source.id)

    after = await history(mesh, source)
    (replayed,) = entries_of(after, "run_replayed")
    (started,) = entries_of(await history(mesh, new), "run_started")
    assert after.entries is not None
    assert after.entries[:-1] == before.entries
    assert after.entries[-1] == replayed
    assert replayed.at == started.at == clock.now()
    assert after.steps == before.steps


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
    outcomes = [None, Errored("no")]

    class Undoable(Workflow[Order]):
        name = "undoable"
        by_hand = manual()
        a = step(lambda: None, compensate=lambda: undone.append("a"))
        b = step(lambda: None, compensate=lambda: undone.append("b"))
        c = step(lambda: outcomes.pop(0), output="x")
        transitions = path(a, b, c)

    mesh = await open_mesh(Undoable)
    source = await mesh.start_run(Undoable)
    await mesh.run_until_idle()

    new = await mesh.replay_run(source.id, from_step="b")
    await mesh.run_until_idle()

    assert (await mesh.inspect_run(source.id)).status == "completed"
    assert (await mesh.inspect_run(new.id)).status == "failed"
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


class Booking(Workflow[Order]):
    """Two steps that can be undone, one between them, and an end that never succeeds."""

    name = "booking"
    by_hand = manual()
    look = step(lambda: {"seen": True})
    reserve = step(lambda: {"seat": 7}, compensate=lambda: None)
    note = log("noted")
    charge = step(lambda: {"paid": 3}, compensate=lambda: None)
    send = step(lambda: Errored("no", code="down"), output="x")
    transitions = path(look, reserve, note, charge, send)


async def replays_offered(mesh: SquidMesh, run_id: str) -> list[str]:
    found = await mesh.explain_run(run_id)
    return [action.call for action in found.next_actions if action.name == "replay_run"]


async def test_a_preview_names_what_was_undone_and_would_be_built_upon(
    open_mesh: OpenMesh,
) -> None:
    mesh = await open_mesh(Booking)
    source = await mesh.start_run(Booking)
    await mesh.run_until_idle()

    shown = [
        await mesh.replay_run(source.id, from_step=place, preview=True)
        for place in ("send", "charge", "reserve")
    ]
    new = await mesh.replay_run(source.id, from_step="send")

    assert [each.undone for each in shown] == [("reserve", "charge"), ("reserve",), ()]
    assert new.context == {"seen": True, "seat": 7, "paid": 3}


async def test_a_failed_run_says_where_it_can_be_taken_up(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Booking, Risky)
    undone = await mesh.start_run(Booking)
    kept = await mesh.start_run(Risky)
    await mesh.run_until_idle()

    offered = [await replays_offered(mesh, run.id) for run in (undone, kept)]

    assert offered == [
        [
            f'await mesh.replay_run("{undone.id}")',
            f"await mesh.replay_run(\"{undone.id}\", from_step='reserve')",
        ],
        [f"await mesh.replay_run(\"{kept.id}\", from_step='never')"],
    ]
    resumed = await mesh.replay_run(kept.id, from_step="never")
    assert step_statuses(await history(mesh, resumed))["pay"] == "completed"


async def test_a_step_that_could_not_be_undone_is_carried_over(open_mesh: OpenMesh) -> None:
    class Stuck(Workflow[Order]):
        name = "stuck"
        by_hand = manual()
        reserve = step(
            lambda: {"seat": 7},
            compensate=compensation(lambda: Errored("closed"), Retry(1)),
        )
        send = step(lambda: Errored("no", code="down"), output="x")
        transitions = path(reserve, send)

    mesh = await open_mesh(Stuck)
    source = await mesh.start_run(Stuck)
    await mesh.run_until_idle()

    new = await mesh.replay_run(source.id, from_step="send")

    assert new.context == {"seat": 7}
    assert step_statuses(await history(mesh, new)) == {"reserve": "completed", "send": "scheduled"}


async def test_where_today_leads_back_to_what_was_done_the_definition_does_not_fit(
    open_mesh: OpenMesh,
) -> None:
    class Before(Workflow[Order]):
        name = "turned"
        by_hand = manual()
        a = step(lambda: {"a": 1})
        b = step(lambda: {"b": 2})
        c = step(lambda: {"c": 3})
        transitions = path(a, b, c)

    class After(Workflow[Order]):
        name = "turned"
        by_hand = manual()
        b = step(lambda: {"b": 2})
        a = step(lambda: {"a": 1})
        transitions = path(b, a)

    first = await open_mesh(Before)
    source = await first.start_run(Before)
    await first.run_until_idle()
    before = await contents(first)
    async with SquidMesh(store=(await first.engine()).store, workflows=[After]) as second:
        for preview in (True, False):
            with pytest.raises(IncompatibleDefinitionError) as refused:
                await second.replay_run(source.id, from_step="b", preview=preview)

            assert refused.value.code == "incompatible_definition"
            assert refused.value.details["workflow"] == "turned"
            assert refused.value.details["run_id"] == source.id
            assert "a came before b" in str(refused.value)
        with pytest.raises(InvalidOptionError):
            await second.replay_run(source.id, from_step="c")
        assert await contents(first) == before

        new = await second.replay_run(source.id, from_step="a")

    assert new.fingerprint == After.definition.fingerprint


async def test_what_a_run_failed_with_is_kept_though_it_ends_as_cancelled(
    open_mesh: OpenMesh,
) -> None:
    gate = Gate()

    async def hold() -> None:
        await gate.wait()

    class Doomed(Workflow[Order]):
        name = "doomed"
        by_hand = manual()
        done = step(lambda: None, compensate=lambda: None)
        held = step(hold)
        refuse = step(lambda: Errored("no", code="down"), output="x", after=done)

    mesh = await open_mesh(Doomed)
    run = await mesh.start_run(Doomed)
    async with at_work(mesh, gate):
        while (await mesh.inspect_run(run.id)).error is None:
            await turn()
        await mesh.cancel_run(run.id)

    ended = await history(mesh, run)
    (terminal,) = entries_of(ended, "run_terminal")
    assert ended.status == "cancelled"
    assert (error_of(ended)["code"], error_of(ended)["step"]) == ("down", "refuse")
    assert terminal.data["error"] == error_of(ended)
    (listed,) = (await mesh.list_runs()).runs
    assert listed.error == ended.error
    assert step_statuses(ended) == {"done": "completed", "held": "completed", "refuse": "failed"}
    await check_rebuilt(mesh, run.id)


async def check_rebuilt(mesh: SquidMesh, run_id: str) -> None:
    """The stored state is the one that the run's journal leads to."""
    store = (await mesh.engine()).store
    rows = await store.read(run_id)
    facts = [fact for row in rows for fact in row.entries]

    loaded = await store.load([run_id])

    assert loaded.states[run_id] == rebuild(run_id, facts)


async def test_an_output_that_today_has_no_place_for_is_not_silently_dropped(
    deploy: Deploy,
) -> None:
    class Before(Workflow[Order]):
        name = "renamed"
        by_hand = manual()
        load = step(lambda: {"invoice": 1})
        note = log("loaded")
        charge = step(lambda invoice: Errored("no"), output="charged")
        transitions = path(load, note, charge)

    class After(Workflow[Order]):
        name = "renamed"
        by_hand = manual()
        fetch = step(lambda: {"invoice": 2})
        charge = step(lambda invoice: invoice, output="charged")
        transitions = path(fetch, charge)

    class Silent(Workflow[Order]):
        name = "renamed"
        by_hand = manual()
        load = step(lambda: {"invoice": 2})
        charge = step(lambda invoice: invoice, output="charged")
        transitions = path(load, charge)

    async with deploy(Before) as mesh:
        source = await mesh.start_run(Before)
        await mesh.run_until_idle()
    async with deploy(After) as mesh:
        before = await contents(mesh)
        for preview in (True, False):
            with pytest.raises(IncompatibleDefinitionError) as refused:
                await mesh.replay_run(source.id, from_step="charge", preview=preview)
            assert "load" in str(refused.value)
        assert await contents(mesh) == before
        assert await replays_offered(mesh, source.id) == [f'await mesh.replay_run("{source.id}")']
    async with deploy(Silent) as mesh:
        new = await mesh.replay_run(source.id, from_step="charge")
        await mesh.run_until_idle()
        assert context_of(await mesh.inspect_run(new.id)) == {"invoice": 1, "charged": 1}


async def test_what_was_undone_is_remembered_from_replay_to_replay(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Booking)
    source = await mesh.start_run(Booking)
    await mesh.run_until_idle()
    second = await mesh.replay_run(source.id, from_step="send")
    await mesh.run_until_idle()

    shown = await mesh.replay_run(second.id, from_step="send", preview=True)

    assert shown.undone == ("reserve", "charge")
    assert await replays_offered(mesh, second.id) == [
        f'await mesh.replay_run("{second.id}")',
        f"await mesh.replay_run(\"{second.id}\", from_step='reserve')",
    ]
    (started,) = entries_of(await history(mesh, second), "run_started")
    carried: Any = started.data["carried"]
    assert [(item["step"], item["undone"]) for item in carried] == [
        ("look", False),
        ("reserve", True),
        ("note", False),
        ("charge", True),
    ]
