"""Every kind of entry with fields and thread, each command with who gave it, and anomalies."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Final, get_args

import pytest

from squidmesh import (
    Deferred,
    Entry,
    Errored,
    PerformReport,
    Retry,
    Run,
    Runner,
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
from squidmesh.domain import entries as vocabulary
from squidmesh.domain.dispatch import AnomalyKind
from squidmesh.records import type_name
from squidmesh.testing.clock import VirtualClock
from tests.mesh.support import (
    LEASE,
    MINUTE,
    SECOND,
    Gate,
    OpenMesh,
    Order,
    audit_types,
    contents,
    die_at,
    entries_of,
    entry_types,
    event_of,
    history,
)

pytestmark = pytest.mark.anyio

VISIT: Final = {"run_id", "runnable_key", "idempotency_key", "at", "step", "visit"}
ATTEMPT: Final = VISIT | {"attempt_number", "queue"}
CLAIM: Final = {"claim_id", "claim_token_hash"}
RETRY: Final = {"then", "error", "retry_runnable_key", "retry_visible_at"}
ISSUER: Final = {"actor", "comment", "metadata", "idempotency_key"}

FIELDS: Final[dict[str, tuple[str, set[str]]]] = {
    "run_started": (
        "run",
        {
            "run_id",
            "at",
            "workflow",
            "trigger",
            "fingerprint",
            "payload",
            "version",
            "queue",
            "priority",
            "concurrency_key",
            "tags",
            "schedule",
            "replayed_from",
            "carried",
        }
        | ISSUER,
    ),
    "runnables_planned": ("run", {"run_id", "at", "steps", "runnables"}),
    "runnable_applied": (
        "run",
        {
            "run_id",
            "runnable_key",
            "idempotency_key",
            "at",
            "applied_at",
            "step",
            "visit",
            "result",
            "under",
            "transition",
        },
    ),
    "step_routed": ("run", {"run_id", "at", "step", "transition", "target", "recovery"}),
    "manual_step_paused": (
        "run",
        {"run_id", "at", "step", "kind", "on_ok", "on_error", "output", "visit"},
    ),
    "manual_step_resolved": (
        "run",
        ISSUER | {"run_id", "at", "step", "action", "transition", "result", "visit"},
    ),
    "cancel_requested": ("run", ISSUER | {"run_id", "at"}),
    "compensation_planned": ("run", {"run_id", "at", "steps", "error"}),
    "run_replayed": ("run", ISSUER | {"run_id", "at", "new_run_id", "from_step"}),
    "run_terminal": ("run", {"run_id", "at", "status", "error"}),
    "attempt_scheduled": ("dispatch", ATTEMPT | {"visible_at", "input"}),
    "attempt_claimed": ("dispatch", ATTEMPT | CLAIM | {"owner_id", "lease", "lease_until"}),
    "attempt_deferred": ("dispatch", ATTEMPT | CLAIM | {"visible_at", "reason"}),
    "attempt_completed": ("dispatch", ATTEMPT | CLAIM | {"result"}),
    "attempt_failed": ("dispatch", ATTEMPT | CLAIM | RETRY),
    "attempt_lost": ("dispatch", ATTEMPT | CLAIM | RETRY),
    "attempt_cancelled": ("dispatch", ATTEMPT | CLAIM),
    "run_indexed": ("index", {"run_id", "at", "workflow", "queue"}),
}
"""Of each type that the stores write: its thread, and the fields that it is shown with."""

NEVER_WRITTEN: Final = {"attempt_heartbeat", "live_wakeup_emitted"}


class Trip:
    """A run that goes through almost everything, and the keys that its first step was given."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.keys: list[tuple[str, str]] = []
        trip = self

        async def eventful(context: StepContext) -> object:
            trip.keys.append((context.runnable_key, context.idempotency_key))
            return await trip.happen(len(trip.keys))

        class Eventful(Workflow[Order]):
            name = "eventful"
            version = "7"
            by_hand = manual()
            a = step(
                eventful,
                output="a",
                retry=Retry(2, backoff_min=SECOND),
                compensate=lambda: None,
            )
            review = approval(output="review")
            b = step(lambda a, number: Errored("no", code="declined"), output="b")
            c = step(lambda: Errored("not either", code="declined_too"), output="c")
            transitions = (
                path(a, review, b),
                path(c),
                review.on_error(c),
                b.on_error(c, recovery="undo"),
            )

        self.workflow = Eventful

    async def happen(self, call: int) -> object:
        """Be lost, come back later, fail, and succeed."""
        if call == 1:
            await self.gate.wait()
        if call == 2:
            return Deferred(MINUTE, reason="not open yet")
        if call == 3:
            raise ConnectionError
        return {"done": True}

    async def made(self, mesh: SquidMesh, clock: VirtualClock) -> Run:
        run = await mesh.start_run(
            self.workflow,
            Order(number="o7"),
            idempotency_key="start",
            tags={"team": "blue"},
            priority=3,
            concurrency_key="customer",
        )
        await die_at(mesh, self.gate)
        clock.advance(LEASE)
        await mesh.run_until_idle()
        clock.advance(MINUTE)
        await mesh.run_until_idle()
        clock.advance(SECOND)
        await mesh.run_until_idle()
        await mesh.approve_run(run.id, actor="ada", idempotency_key="yes")
        await mesh.run_until_idle()
        return await history(mesh, run)


async def test_every_type_that_is_written_stands_in_its_thread_with_all_its_fields(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    trip = Trip()
    mesh = await open_mesh(trip.workflow)
    gone = await trip.made(mesh, clock)
    cancelled = await mesh.start_run(trip.workflow)
    await mesh.cancel_run(cancelled.id)
    await mesh.replay_run(gone.id)

    runs = [await history(mesh, gone), await history(mesh, cancelled)]

    found: list[Entry] = [entry for run in runs for entry in run.entries or ()]
    assert {entry.type for entry in found} == set(FIELDS)
    for entry in found:
        thread, fields = FIELDS[entry.type]
        assert (entry.thread, set(entry.data)) == (thread, fields)


def test_the_vocabulary_is_what_is_written_and_two_types_for_engines_that_own_their_leases() -> (
    None
):
    named = {type_name(kind) for kind in get_args(vocabulary.Entry)}

    assert named == set(FIELDS) | NEVER_WRITTEN


async def test_entries_hold_what_they_tell_of(open_mesh: OpenMesh, clock: VirtualClock) -> None:
    trip = Trip()
    mesh = await open_mesh(trip.workflow)

    run = await trip.made(mesh, clock)

    (started,) = entries_of(run, "run_started")
    (indexed,) = entries_of(run, "run_indexed")
    (paused,) = entries_of(run, "manual_step_paused")
    (routed,) = entries_of(run, "step_routed")
    (planned,) = entries_of(run, "compensation_planned")
    (ended,) = entries_of(run, "run_terminal")
    assert started.data["workflow"] == indexed.data["workflow"] == "eventful"
    assert started.data["payload"] == {"number": "o7", "amount": 100}
    assert (started.data["version"], started.data["trigger"]) == ("7", "by_hand")
    assert (started.data["tags"], started.data["priority"]) == ({"team": "blue"}, 3)
    assert (started.data["concurrency_key"], started.data["queue"]) == ("customer", "default")
    assert (paused.data["step"], paused.data["kind"]) == ("review", "approval")
    assert paused.data["output"] == "review"
    assert (routed.data["step"], routed.data["target"]) == ("b", "c")
    assert routed.data["recovery"] == "undo"
    assert planned.data["steps"] == ["a"]
    assert code_of(planned) == code_of(ended) == "declined_too"
    assert ended.data["status"] == "failed"


def code_of(entry: Entry) -> object:
    error = entry.data["error"]
    assert isinstance(error, dict)
    return error["code"]


async def test_an_attempts_entries_say_what_followed_from_its_end(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    trip = Trip()
    mesh = await open_mesh(trip.workflow)

    run = await trip.made(mesh, clock)

    (lost,) = entries_of(run, "attempt_lost")
    failed = entries_of(run, "attempt_failed")
    completed, undone = entries_of(run, "attempt_completed")
    assert (lost.data["then"], lost.data["error"]) == ("retry", None)
    assert [(entry.data["step"], entry.data["then"]) for entry in failed] == [
        ("a", "retry"),
        ("b", "route"),
        ("c", "fail"),
    ]
    assert [code_of(entry) for entry in failed] == ["step_exception", "declined", "declined_too"]
    assert (completed.data["step"], completed.data["result"]) == ("a", {"done": True})
    assert (undone.data["step"], undone.data["result"]) == ("compensate:a", None)


async def test_what_ends_an_attempt_names_the_claim_that_it_was_under_and_what_follows(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    trip = Trip()
    mesh = await open_mesh(trip.workflow)

    run = await trip.made(mesh, clock)

    first, _, again = [
        entry.data for entry in entries_of(run, "attempt_claimed") if entry.data["step"] == "a"
    ][:3]
    (lost,), failed = entries_of(run, "attempt_lost"), entries_of(run, "attempt_failed")[0]
    retry = entries_of(run, "attempt_scheduled")[2]
    for ended, claim in ((lost, first), (failed, again)):
        assert {key: ended.data[key] for key in CLAIM} == {key: claim[key] for key in CLAIM}
        assert ended.data["queue"] == claim["queue"] == "default"
    assert first["claim_id"] != again["claim_id"]
    assert first["lease_until"] == text_of(run.started_at + LEASE)
    assert lost.data["retry_runnable_key"] == f"{run.id}:a:2"
    assert lost.data["retry_visible_at"] == text_of(lost.at)
    assert failed.data["retry_runnable_key"] == retry.data["runnable_key"] == f"{run.id}:a:3"
    assert failed.data["retry_visible_at"] == text_of(failed.at + SECOND)


def text_of(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds")


async def test_what_is_planned_scheduled_and_applied_is_one_runnable(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    trip = Trip()
    mesh = await open_mesh(trip.workflow)

    run = await trip.made(mesh, clock)

    scheduled = {
        entry.data["runnable_key"]: entry.data for entry in entries_of(run, "attempt_scheduled")
    }
    planned = [each for entry in entries_of(run, "runnables_planned") for each in runnables(entry)]
    (applied,) = [
        entry for entry in entries_of(run, "runnable_applied") if entry.data["step"] == "a"
    ]
    by_step = {each["step"]: each for each in planned}
    assert list(by_step) == ["a", "review", "b", "c"]
    for name in ("a", "b", "c"):
        known = scheduled[f"{run.id}:{name}:1"]
        shared = set(by_step[name]) - {"recovery"}
        assert {key: by_step[name][key] for key in shared} == {key: known[key] for key in shared}
    assert by_step["b"]["input"] == {"a": {"done": True}, "number": "o7"}
    assert applied.data["runnable_key"] == f"{run.id}:a:3"
    assert applied.data["idempotency_key"] == by_step["a"]["idempotency_key"]
    assert applied.data["result"] == {"done": True}


def runnables(entry: Entry) -> list[dict[str, Any]]:
    found: Any = entry.data["runnables"]
    return list(found)


async def test_the_runnable_key_names_run_step_and_attempt_in_every_dispatch_entry(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    trip = Trip()
    mesh = await open_mesh(trip.workflow)

    run = await trip.made(mesh, clock)

    told = [entry for entry in run.entries or () if entry.thread == "dispatch"]
    assert {entry.data["step"] for entry in told} == {"a", "b", "c", "compensate:a"}
    for entry in told:
        named = f"{run.id}:{entry.data['step']}:{entry.data['attempt_number']}"
        assert entry.data["runnable_key"] == named


async def test_all_attempts_of_a_step_share_one_idempotency_key_and_each_has_its_runnable_key(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    trip = Trip()
    mesh = await open_mesh(trip.workflow)

    run = await trip.made(mesh, clock)

    runnable = [key for key, _ in trip.keys]
    idempotency = {key for _, key in trip.keys}
    told = {
        entry.data["idempotency_key"]
        for entry in run.entries or ()
        if entry.thread == "dispatch" and entry.data["step"] == "a"
    }
    assert runnable == [f"{run.id}:a:{number}" for number in (1, 2, 2, 3)]
    assert idempotency == told
    assert len(idempotency) == 1
    assert not idempotency & set(runnable)
    shown = {
        (entry.data["runnable_key"], entry.data["idempotency_key"])
        for entry in entries_of(run, "attempt_claimed")
        if entry.data["step"] == "a"
    }
    assert shown == set(trip.keys)


async def test_two_runs_and_two_steps_never_share_an_idempotency_key(open_mesh: OpenMesh) -> None:
    keys: list[str] = []

    def note(context: StepContext) -> None:
        keys.append(context.idempotency_key)

    class Noting(Workflow[Order]):
        name = "noting"
        by_hand = manual()
        a = step(note, compensate=note)
        b = step(note)
        c = step(lambda: Errored("no"), output="x")
        transitions = path(a, b, c)

    mesh = await open_mesh(Noting)
    first, _ = await mesh.start_run(Noting), await mesh.start_run(Noting)
    await mesh.run_until_idle()

    await mesh.replay_run(first.id)
    await mesh.run_until_idle()

    assert len(keys) == 9
    assert len(set(keys)) == 9


async def test_a_deferral_puts_the_same_attempt_back_with_its_new_time(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    trip = Trip()
    mesh = await open_mesh(trip.workflow)

    run = await trip.made(mesh, clock)

    (deferred,) = entries_of(run, "attempt_deferred")
    before = [entry for entry in run.entries or () if entry.seq < deferred.seq][-1]
    behind = next(entry for entry in run.entries or () if entry.seq > deferred.seq)
    assert (before.type, behind.type) == ("attempt_claimed", "attempt_claimed")
    assert (
        before.data["runnable_key"]
        == deferred.data["runnable_key"]
        == behind.data["runnable_key"]
        == f"{run.id}:a:2"
    )
    assert deferred.data["visible_at"] == text_of(deferred.at + MINUTE)
    assert behind.at == deferred.at + MINUTE
    assert deferred.data["reason"] == "not open yet"


async def test_a_timer_is_completed_by_its_claim_without_a_body_or_anything_between(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    class Timer(Workflow[Order]):
        name = "timer"
        by_hand = manual()
        a = wait(MINUTE)
        b = log("b")
        transitions = path(a, b)

    mesh = await open_mesh(Timer)
    run = await mesh.start_run(Timer)
    clock.advance(MINUTE)

    report = await Runner(mesh).perform(
        {"kind": "step", "run_id": run.id, "step": "a", "attempt": 1}
    )

    done = await history(mesh, run)
    (completed,) = entries_of(done, "attempt_completed")
    assert report.status == "performed"
    assert entry_types(done, "dispatch")[:3] == [
        "attempt_scheduled",
        "attempt_claimed",
        "attempt_completed",
    ]
    assert (completed.data["step"], completed.data["result"]) == ("a", None)


async def test_a_heartbeat_is_no_entry_and_moves_no_revision(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    seen: list[int] = []

    async def slow(context: StepContext) -> None:
        seen.append((await mesh.inspect_run(context.run_id)).revision)
        for _ in range(3):
            clock.advance(SECOND)
            await context.heartbeat()
        running = await history(mesh, context.run_id)
        seen.append(running.revision)
        assert running.attempts is not None
        assert running.attempts[0].lease_until == clock.now() + LEASE

    class Slow(Workflow[Order]):
        name = "slow"
        by_hand = manual()
        a = step(slow)

    mesh = await open_mesh(Slow)
    run = await mesh.start_run(Slow)
    await mesh.run_until_idle()

    done = await history(mesh, run)
    assert done.status == "completed"
    assert seen[0] == seen[1]
    assert NEVER_WRITTEN.isdisjoint(entry_types(done))


# -- who gave a command ------------------------------------------------------------------------

ACTOR: Final = {"name": "ada", "roles": ["ops"]}
SAID: Final[dict[str, Any]] = {
    "actor": ACTOR,
    "comment": "it is fine",
    "metadata": {"ticket": 7},
    "idempotency_key": "by-ada",
}


class Judged(Workflow[Order]):
    """A person decides."""

    name = "judged"
    by_hand = manual()
    review = approval(output="review")
    transitions = (path(review), review.on_error(Workflow.complete))


class Halted(Workflow[Order]):
    """A person lets it go on."""

    name = "halted"
    by_hand = manual()
    hold = pause()
    transitions = path(hold)


def without_metadata(given: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in given.items() if key != "metadata"}


Command = Callable[[SquidMesh, str], Awaitable[Run]]

COMMANDS: Final[dict[str, tuple[Any, Command, str, dict[str, Any]]]] = {
    "approved": (
        Judged,
        lambda mesh, run_id: mesh.approve_run(run_id, **SAID),
        "manual_step_resolved",
        SAID,
    ),
    "rejected": (
        Judged,
        lambda mesh, run_id: mesh.reject_run(run_id, **SAID),
        "manual_step_resolved",
        SAID,
    ),
    "resumed": (
        Halted,
        lambda mesh, run_id: mesh.resume_run(run_id, **SAID),
        "manual_step_resolved",
        SAID,
    ),
    "cancel_requested": (
        Halted,
        lambda mesh, run_id: mesh.cancel_run(
            run_id, actor=ACTOR, reason="it is fine", idempotency_key="by-ada"
        ),
        "cancel_requested",
        {**SAID, "metadata": {}},
    ),
    "replayed": (
        Halted,
        lambda mesh, run_id: mesh.replay_run(run_id, **without_metadata(SAID)),
        "run_replayed",
        {**SAID, "metadata": {}},
    ),
}


@pytest.mark.parametrize("kind", COMMANDS)
async def test_the_entry_of_a_command_carries_actor_comment_metadata_and_key(
    open_mesh: OpenMesh, kind: str
) -> None:
    workflow, give, entry_type, said = COMMANDS[kind]
    mesh = await open_mesh(workflow)
    run = await mesh.start_run(workflow)

    await give(mesh, run.id)

    (entry,) = entries_of(await history(mesh, run), entry_type)
    assert {key: entry.data[key] for key in ISSUER} == said


@pytest.mark.parametrize("kind", COMMANDS)
async def test_the_audit_event_of_a_command_says_what_its_entry_says(
    open_mesh: OpenMesh, kind: str
) -> None:
    workflow, give, entry_type, said = COMMANDS[kind]
    mesh = await open_mesh(workflow)
    run = await mesh.start_run(workflow)

    await give(mesh, run.id)

    told = await history(mesh, run)
    (entry,), event = entries_of(told, entry_type), event_of(told, kind)
    assert (event.actor, event.comment) == (said["actor"], said["comment"])
    assert said["metadata"].items() <= dict(event.metadata).items()
    assert event.at == entry.at


async def test_the_entry_of_a_start_carries_its_key(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Halted)
    run = await mesh.start_run(Halted, idempotency_key="once")

    (started,) = entries_of(await history(mesh, run), "run_started")

    assert {key: started.data[key] for key in ISSUER} == {
        "actor": None,
        "comment": None,
        "metadata": {},
        "idempotency_key": "once",
    }


async def test_audit_events_come_in_the_order_of_the_entries_that_they_are_derived_from(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    trip = Trip()
    mesh = await open_mesh(trip.workflow)
    run = await trip.made(mesh, clock)
    await mesh.replay_run(run.id, actor="bob")

    told = await history(mesh, run)

    assert told.audit_events is not None
    moments = {entry.at for entry in told.entries or ()}
    assert audit_types(told) == [
        "paused",
        "approved",
        "undo_routed",
        "compensation_started",
        "compensation_completed",
        "replayed",
    ]
    assert {event.at for event in told.audit_events} <= moments


# -- anomalies ---------------------------------------------------------------------------------


class Heard:
    """A sink that keeps the anomalies."""

    def __init__(self) -> None:
        self.anomalies: list[dict[str, object]] = []

    def emit(self, event: Any) -> None:
        if event.name == "squidmesh.dispatch.anomaly":
            self.anomalies.append(dict(event.metadata))


@pytest.fixture
def heard() -> Heard:
    return Heard()


async def at_odds(
    mesh: SquidMesh, clock: VirtualClock, gate: Gate, *, cancelled: bool = False
) -> tuple[str, "asyncio.Task[PerformReport]"]:
    """A run whose first attempt was taken from a body that is still running, and that body."""
    run = await mesh.start_run("held")
    first = asyncio.create_task(Runner(mesh).perform(delivery(run.id)))
    await gate.entered.wait()
    engine = await mesh.engine()
    for held in engine.heart._snapshot():
        engine.heart.let_go(held.claim.claim_id)
    if cancelled:
        await mesh.cancel_run(run.id)
    clock.advance(LEASE)
    await mesh.recover()
    return run.id, first


def delivery(run_id: str, name: str = "a", attempt: int = 1) -> dict[str, Any]:
    return {"kind": "step", "run_id": run_id, "step": name, "attempt": attempt}


def held_at(gate: Gate) -> Any:
    async def hold() -> None:
        await gate.wait()

    class Held(Workflow[Order]):
        name = "held"
        by_hand = manual()
        a = step(hold)
        b = wait(MINUTE)
        transitions = path(a, b)

    return Held


async def test_a_claim_that_contradicts_the_protocol_is_an_answer_and_an_event_but_no_entry(
    open_mesh: OpenMesh, heard: Heard
) -> None:
    gate = Gate()
    mesh = await open_mesh(held_at(gate), telemetry=heard)
    run = await mesh.start_run("held")
    runner = Runner(mesh)
    performing = asyncio.create_task(runner.perform(delivery(run.id)))
    await gate.entered.wait()
    before = await contents(mesh)

    unknown = await runner.perform(delivery(run.id, attempt=2))
    held = await runner.perform(delivery(run.id))
    assert await contents(mesh) == before
    gate.opened.set()
    await performing
    before = await contents(mesh)
    over = await runner.perform(delivery(run.id))
    early = await runner.perform(delivery(run.id, "b"))

    assert await contents(mesh) == before
    assert [report.status for report in (unknown, held, over, early)] == ["skipped"] * 4
    assert heard.anomalies == [
        {"kind": kind, "run_id": run.id, "step": step_name, "attempt": attempt}
        for kind, step_name, attempt in (
            ("unknown_runnable_intent", "a", 2),
            ("active_claim", "a", 1),
            ("terminal_attempt", "a", 1),
            ("attempt_not_visible", "b", 1),
        )
    ]


@pytest.mark.parametrize("cancelled", [False, True], ids=["going on", "over"])
async def test_a_report_behind_its_lease_is_an_answer_and_an_event_but_no_entry(
    open_mesh: OpenMesh, clock: VirtualClock, heard: Heard, *, cancelled: bool
) -> None:
    gate = Gate()
    mesh = await open_mesh(held_at(gate), telemetry=heard)
    run_id, late = await at_odds(mesh, clock, gate, cancelled=cancelled)
    before = await contents(mesh)

    gate.opened.set()
    report = await late

    kind = AnomalyKind.TERMINAL_RUN if cancelled else AnomalyKind.EXPIRED_CLAIM
    assert (report.status, report.reason) == ("skipped", "stale_attempt")
    assert heard.anomalies == [{"kind": kind.value, "run_id": run_id, "step": "a", "attempt": 1}]
    assert await contents(mesh) == before


def test_the_kinds_of_anomalies_are_those_of_the_protocol() -> None:
    assert {kind.value for kind in AnomalyKind} == {
        "unknown_runnable_intent",
        "conflicting_runnable_intent",
        "terminal_run",
        "terminal_attempt",
        "active_claim",
        "attempt_not_visible",
        "stale_claim",
        "expired_claim",
        "conflicting_completion",
        "result_not_completed",
    }
