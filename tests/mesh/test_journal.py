"""What is written down of a run: its entries on three threads, and the audit derived from them."""

from datetime import datetime
from itertools import pairwise
from typing import Final, TypeAlias

import pytest

from squidmesh import (
    Deferred,
    Errored,
    Retry,
    Run,
    SquidMesh,
    StepContext,
    Workflow,
    approval,
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
    audit_types,
    die_at,
    entries_of,
    entry_types,
    history,
    step_of,
)

pytestmark = pytest.mark.anyio

Fields: TypeAlias = dict[str, object]


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


def slow(gate: Gate) -> type[Workflow[Order]]:
    """A charge that is lost, put off, refused and made; then a pause, and a time to wait."""
    calls: list[str] = []

    async def charge(number: str) -> object:
        calls.append(number)
        if len(calls) == 1:
            await gate.wait()
        answers = {2: Deferred(MINUTE, reason="later"), 3: Errored("busy", retryable=True)}
        return answers.get(len(calls), {"of": number})

    class Slow(Workflow[Order]):
        name = "slow"
        version = "7"
        by_hand = manual()
        a = step(
            charge,
            output="receipt",
            retry=Retry(2, backoff_min=SECOND),
            queue="cards",
            compensate=lambda: None,
        )
        hold = pause()
        rest = wait(MINUTE)
        transitions = path(a, hold, rest)

    return Slow


async def slowed(mesh: SquidMesh, clock: VirtualClock, gate: Gate) -> Run:
    """A run of it, cancelled while it waits."""
    run = await mesh.start_run("slow", Order(number="o7"))
    await die_at(mesh, gate)
    clock.advance(LEASE)
    await mesh.run_until_idle()
    clock.advance(MINUTE)
    await mesh.run_until_idle()
    clock.advance(SECOND)
    await mesh.run_until_idle()
    await mesh.resume_run(run.id, actor="ada")
    await mesh.cancel_run(run.id, actor="ada")
    return await history(mesh, run)


async def test_every_entry_of_an_attempt_is_shown_with_the_fields_of_the_protocol(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    gate, start = Gate(), clock.now()
    mesh = await open_mesh(slow(gate))

    run = await slowed(mesh, clock, gate)

    told = [entry for entry in run.entries or () if entry.thread == "dispatch"]
    late = [start + LEASE, start + LEASE + MINUTE, start + LEASE + MINUTE + SECOND]
    papers = [
        {key: entry.data[key] for key in ("claim_id", "claim_token_hash")}
        for entry in entries_of(run, "attempt_claimed")
    ]
    a: Fields = {"input": {"number": "o7"}}
    rest: Fields = {"input": {}}
    expected: list[tuple[str, str, int, datetime, Fields]] = [
        ("attempt_scheduled", "a", 1, start, {**a, "visible_at": text(start)}),
        ("attempt_claimed", "a", 1, start, {**papers[0], **leased(start)}),
        (
            "attempt_lost",
            "a",
            1,
            late[0],
            {**papers[0], "error": None, **retried(run, 2, late[0])},
        ),
        ("attempt_scheduled", "a", 2, late[0], {**a, "visible_at": text(late[0])}),
        ("attempt_claimed", "a", 2, late[0], {**papers[1], **leased(late[0])}),
        (
            "attempt_deferred",
            "a",
            2,
            late[0],
            {**papers[1], "visible_at": text(late[1]), "reason": "later"},
        ),
        ("attempt_claimed", "a", 2, late[1], {**papers[2], **leased(late[1])}),
        (
            "attempt_failed",
            "a",
            2,
            late[1],
            {**papers[2], "error": BUSY, **retried(run, 3, late[2])},
        ),
        ("attempt_scheduled", "a", 3, late[1], {**a, "visible_at": text(late[2])}),
        ("attempt_claimed", "a", 3, late[2], {**papers[3], **leased(late[2])}),
        ("attempt_completed", "a", 3, late[2], {**papers[3], "result": {"of": "o7"}}),
        ("attempt_scheduled", "rest", 1, late[2], {**rest, "visible_at": text(late[2] + MINUTE)}),
        ("attempt_cancelled", "rest", 1, late[2], {"claim_id": None, "claim_token_hash": None}),
    ]
    assert [entry.type for entry in told] == [kind for kind, *_ in expected]
    for entry, (_, name, number, at, more) in zip(told, expected, strict=True):
        owner = {"owner_id": entry.data["owner_id"]} if "owner_id" in entry.data else {}
        assert entry.data == {
            "run_id": run.id,
            "runnable_key": f"{run.id}:{name}:{number}",
            "idempotency_key": f"{run.id}:{name}",
            "at": text(at),
            "step": name,
            "attempt_number": number,
            "visit": 1,
            "queue": "cards" if name == "a" else "default",
            **more,
            **owner,
        }
    assert len({claim["claim_token_hash"] for claim in papers}) == len(papers)
    owners = [entry.data["owner_id"] for entry in entries_of(run, "attempt_claimed")]
    assert all(isinstance(owner, str) and owner for owner in owners)


BUSY: Final[Fields] = {
    "code": "step_error",
    "message": "busy",
    "type": None,
    "details": {},
    "retryable": True,
    "step": None,
}


def text(at: datetime) -> str:
    return at.isoformat(timespec="microseconds")


def leased(at: datetime) -> Fields:
    return {"lease": LEASE.total_seconds(), "lease_until": text(at + LEASE)}


def retried(run: Run, number: int, at: datetime) -> Fields:
    return {
        "then": "retry",
        "retry_runnable_key": f"{run.id}:a:{number}",
        "retry_visible_at": text(at),
    }


async def test_every_entry_of_the_run_and_the_index_is_shown_with_the_fields_of_the_protocol(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    gate, start = Gate(), clock.now()
    mesh = await open_mesh(slow(gate))

    run = await slowed(mesh, clock, gate)

    late = start + LEASE + MINUTE + SECOND
    nobody: Fields = {"actor": None, "comment": None, "metadata": {}, "idempotency_key": None}
    paused = {"step": "hold", "visit": 1}
    told = [(entry.type, entry.data) for entry in run.entries or () if entry.thread != "dispatch"]
    expected: list[tuple[str, datetime, Fields]] = [
        (
            "run_started",
            start,
            {
                "workflow": "slow",
                "trigger": "by_hand",
                "payload": {"number": "o7", "amount": 100},
                "version": "7",
                "fingerprint": run.fingerprint,
                "queue": "default",
                "priority": 0,
                "concurrency_key": None,
                "tags": {},
                "schedule": None,
                "replayed_from": None,
                "carried": [],
                **nobody,
            },
        ),
        ("run_indexed", start, {"workflow": "slow", "queue": "default"}),
        ("runnables_planned", start, planned(run, "a", start, number="o7")),
        (
            "runnable_applied",
            late,
            {
                "runnable_key": f"{run.id}:a:3",
                "idempotency_key": f"{run.id}:a",
                "step": "a",
                "visit": 1,
                "result": {"of": "o7"},
                "under": "receipt",
                "applied_at": text(late),
                "transition": 0,
            },
        ),
        ("runnables_planned", late, planned(run, "hold", None)),
        (
            "manual_step_paused",
            late,
            {**paused, "kind": "pause", "on_ok": 1, "on_error": None, "output": None},
        ),
        (
            "manual_step_resolved",
            late,
            {
                **paused,
                "action": "resumed",
                "transition": 1,
                "result": step_of(run, "hold").output,
                **nobody,
                "actor": "ada",
            },
        ),
        ("runnables_planned", late, planned(run, "rest", late + MINUTE)),
        ("cancel_requested", late, {**nobody, "actor": "ada"}),
        ("run_terminal", late, {"status": "cancelled", "error": None}),
    ]
    assert told == [
        (kind, {"run_id": run.id, "at": text(at), **more}) for kind, at, more in expected
    ]


def planned(run: Run, name: str, due: datetime | None, **given: str) -> Fields:
    """A plan of one step, which is *due* if it is one for workers."""
    runnable = {
        "run_id": run.id,
        "runnable_key": f"{run.id}:{name}:1" if due else None,
        "idempotency_key": f"{run.id}:{name}",
        "attempt_number": 1 if due else None,
        "queue": ("cards" if name == "a" else "default") if due else None,
        "step": name,
        "input": given,
        "visible_at": text(due) if due else None,
        "recovery": {
            "irreversible": False,
            "compensatable": True,
            "replay": "allowed",
            "compensation": {"status": "available"} if name == "a" else None,
        },
    }
    return {"steps": [name], "runnables": [runnable]}


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
    assert deferred.data["attempt_number"] == 2


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
