"""What is written down of a run: its entries on three threads, and the audit derived from them."""

from datetime import datetime
from itertools import pairwise

import pytest

from squidmesh import (
    Deferred,
    Errored,
    Retry,
    SquidMesh,
    StepContext,
    Workflow,
    approval,
    log,
    manual,
    path,
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
    audit_types,
    die_at,
    entries_of,
    entry_types,
    history,
)

pytestmark = pytest.mark.anyio


def moment(text: object) -> datetime:
    return datetime.fromisoformat(str(text))


class Two(Workflow[Order]):
    name = "two"
    by_hand = manual()
    a = step(lambda number: {"id": number}, output="a")
    b = log("b")
    transitions = path(a, b)


async def test_a_plain_run_writes_these_entries_on_these_threads(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Two)
    run = await mesh.start_run(Two)
    await mesh.run_until_idle()

    done = await history(mesh, run)

    assert entry_types(done, "run") == [
        "run_started",
        "runnables_planned",
        "runnable_applied",
        "runnables_planned",
        "runnable_applied",
        "run_terminal",
    ]
    assert (
        entry_types(done, "dispatch")
        == [
            "attempt_scheduled",
            "attempt_claimed",
            "attempt_completed",
        ]
        * 2
    )
    assert entry_types(done, "index") == ["run_indexed"]


async def test_entries_are_numbered_without_gaps_up_to_the_runs_revision_and_timed(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    mesh = await open_mesh(Two)
    run = await mesh.start_run(Two)
    clock.advance(MINUTE)
    await mesh.run_until_idle()

    done = await history(mesh, run)
    assert done.entries is not None
    assert [entry.seq for entry in done.entries] == list(range(1, done.revision + 1))
    assert all(first.at <= second.at for first, second in pairwise(done.entries))
    assert done.entries[0].at == run.started_at
    assert done.entries[-1].at == run.started_at + MINUTE


async def test_an_entry_is_shown_with_all_its_fields(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    mesh = await open_mesh(Two)
    run = await mesh.start_run(Two, Order(number="o7"), idempotency_key="k")
    await mesh.run_until_idle()
    done = await history(mesh, run)

    (started,) = entries_of(done, "run_started")
    scheduled, _ = entries_of(done, "attempt_scheduled")
    claimed, _ = entries_of(done, "attempt_claimed")
    completed, _ = entries_of(done, "attempt_completed")
    applied, _ = entries_of(done, "runnable_applied")
    (ended,) = entries_of(done, "run_terminal")

    assert started.data["workflow"] == "two"
    assert started.data["trigger"] == "by_hand"
    assert started.data["payload"] == {"number": "o7", "amount": 100}
    assert started.data["fingerprint"] == Two.definition.fingerprint
    assert scheduled.data["step"] == "a"
    assert moment(scheduled.data["visible_at"]) == clock.now()
    assert scheduled.data["queue"] == "default"
    assert scheduled.data["runnable_key"] == f"{run.id}:a:1"
    assert claimed.data["owner"]
    assert claimed.data["claim_id"]
    assert claimed.data["lease"] == 60.0
    assert completed.data["output"] == {"id": "o7"}
    assert applied.data["step"] == "a"
    assert ended.data["status"] == "completed"


async def test_no_claim_token_can_be_read_anywhere(open_mesh: OpenMesh) -> None:
    seen: list[StepContext] = []

    def look(context: StepContext) -> None:
        seen.append(context)

    class Looking(Workflow[Order]):
        name = "looking"
        by_hand = manual()
        a = step(look)

    mesh = await open_mesh(Looking)
    run = await mesh.start_run(Looking)
    await mesh.run_until_idle()

    shown = repr(await history(mesh, run))
    assert "'token'" not in shown
    assert not hasattr(seen[0], "token")


async def test_every_way_in_which_an_attempt_ends_is_an_entry_of_its_own(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    gate, calls = Gate(), [0]

    async def all_of_it() -> object:
        calls[0] += 1
        match calls[0]:
            case 1:
                await gate.wait()
            case 2:
                return Deferred(SECOND, reason="later")
            case 3:
                raise ConnectionError
            case _:
                return {"done": True}
        return None

    class Odd(Workflow[Order]):
        name = "odd"
        by_hand = manual()
        a = step(all_of_it, retry=Retry(2))

    mesh = await open_mesh(Odd)
    run = await mesh.start_run(Odd)
    await die_at(mesh, gate)
    clock.advance(LEASE + SECOND)
    await mesh.run_until_idle()
    clock.advance(SECOND)
    await mesh.run_until_idle()

    done = await history(mesh, run)
    (deferred,) = entries_of(done, "attempt_deferred")
    assert entry_types(done, "dispatch") == [
        "attempt_scheduled",
        "attempt_claimed",
        "attempt_lost",
        "attempt_scheduled",
        "attempt_claimed",
        "attempt_deferred",
        "attempt_claimed",
        "attempt_failed",
        "attempt_scheduled",
        "attempt_claimed",
        "attempt_completed",
    ]
    assert deferred.data["reason"] == "later"
    assert deferred.data["number"] == 2


async def test_a_timer_is_an_attempt_whose_due_time_is_when_it_is_visible(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    class Timer(Workflow[Order]):
        name = "timer"
        by_hand = manual()
        a = wait(MINUTE)

    mesh = await open_mesh(Timer)
    run = await mesh.start_run(Timer)
    clock.advance(MINUTE)
    await mesh.run_until_idle()

    done = await history(mesh, run)
    (scheduled,) = entries_of(done, "attempt_scheduled")
    assert moment(scheduled.data["visible_at"]) == run.started_at + MINUTE
    assert entry_types(done, "dispatch") == [
        "attempt_scheduled",
        "attempt_claimed",
        "attempt_completed",
    ]


async def test_a_cancelled_and_an_undone_run_write_down_how(open_mesh: OpenMesh) -> None:
    class Undone(Workflow[Order]):
        name = "undone"
        by_hand = manual()
        a = step(lambda: None, compensate=lambda: None)
        b = step(lambda: Errored("no"), output="x")
        transitions = path(a, b)

    mesh = await open_mesh(Undone)
    cancelled = await mesh.start_run(Undone)
    await mesh.cancel_run(cancelled.id, actor="ada", reason="why not")
    undone = await mesh.start_run(Undone)
    await mesh.run_until_idle()

    first, second = await history(mesh, cancelled), await history(mesh, undone)
    (asked_for,) = entries_of(first, "cancel_requested")
    assert entry_types(first)[-3:] == ["cancel_requested", "attempt_cancelled", "run_terminal"]
    assert "why not" in str(asked_for.data)
    assert "compensation_planned" in entry_types(second, "run")
    assert entries_of(second, "run_terminal")[0].data["status"] == "failed"


async def test_an_error_route_is_an_entry_and_only_a_marked_one_an_audit_event(
    open_mesh: OpenMesh,
) -> None:
    class Plain(Workflow[Order]):
        name = "plain"
        by_hand = manual()
        a = step(lambda: Errored("no"), output="x")
        b = log("b")
        transitions = (path(a), path(b), a.on_error(b))

    class Marked(Workflow[Order]):
        name = "marked"
        by_hand = manual()
        a = step(lambda: Errored("no"), output="x")
        b = log("b")
        transitions = (path(a), path(b), a.on_error(b, recovery="compensation"))

    mesh = await open_mesh(Plain, Marked)
    plain, marked = await mesh.start_run(Plain), await mesh.start_run(Marked)
    await mesh.run_until_idle()

    first, second = await history(mesh, plain), await history(mesh, marked)
    assert entries_of(first, "step_routed")[0].data["target"] == "b"
    assert audit_types(first) == []
    assert audit_types(second) == ["compensation_routed"]


async def test_audit_events_tell_type_step_actor_comment_metadata_and_time(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    class Judged(Workflow[Order]):
        name = "judged"
        by_hand = manual()
        review = approval()
        transitions = (path(review), review.on_error(Workflow.complete))

    mesh = await open_mesh(Judged)
    run = await mesh.start_run(Judged)
    clock.advance(MINUTE)
    await mesh.reject_run(run.id, actor={"name": "ada"}, comment="no", metadata={"a": [1]})

    done = await history(mesh, run)
    assert done.audit_events is not None
    paused, rejected = done.audit_events
    assert (paused.type, paused.step, paused.actor) == ("paused", "review", None)
    assert (rejected.type, rejected.step, rejected.actor) == ("rejected", "review", {"name": "ada"})
    assert (rejected.comment, rejected.metadata) == ("no", {"a": [1]})
    assert rejected.at == run.started_at + MINUTE


async def test_history_can_be_read_where_nobody_knows_the_workflow(
    url: str, clock: VirtualClock
) -> None:
    async with SquidMesh.open(url, workflows=[Two], clock=clock) as mesh:
        run = await mesh.start_run(Two)
        await mesh.run_until_idle()
        known = await history(mesh, run)
        store = (await mesh.engine()).store
        async with SquidMesh(store=store, clock=clock) as other:
            unknown = await history(other, run)
            graph = await other.graph(run.id)

    assert unknown == known
    assert [node.id for node in graph.nodes] == ["a", "b"]
