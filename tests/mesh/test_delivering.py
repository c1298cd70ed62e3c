"""What a host's job system delivers, what a clock starts, what recovery and telemetry tell."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import attrs
import pytest

from squidmesh import (
    Deferred,
    Errored,
    InvalidPayloadForExecutorError,
    PerformReport,
    Retry,
    Runner,
    SquidMesh,
    StepContext,
    StoreUnavailableError,
    Worker,
    Workflow,
    compensation,
    cron,
    log,
    manual,
    path,
    step,
    wait,
)
from squidmesh.domain.values import Json
from squidmesh.ports.executor import EnqueueOptions, ExecutorCapabilities
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
    context_of,
    die_at,
    history,
    step_statuses,
    turn,
)

pytestmark = pytest.mark.anyio

NOBODY = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"


class Desk:
    """An executor that keeps what it was given, and refuses to take anything while it is shut."""

    def __init__(self, capabilities: ExecutorCapabilities | None = None) -> None:
        self.capabilities = capabilities or ExecutorCapabilities()
        self.jobs: list[tuple[dict[str, Json], EnqueueOptions]] = []
        self.shut = False

    async def enqueue_step(
        self, payload: Mapping[str, Json], options: EnqueueOptions
    ) -> Mapping[str, Json]:
        if self.shut:
            raise ConnectionError("the desk is shut")
        self.jobs.append((dict(payload), options))
        return {"job": len(self.jobs)}

    async def enqueue_steps(
        self, items: Sequence[tuple[Mapping[str, Json], EnqueueOptions]]
    ) -> Mapping[str, Json]:
        for payload, options in items:
            await self.enqueue_step(payload, options)
        return {}

    async def enqueue_compensation(
        self, payload: Mapping[str, Json], options: EnqueueOptions
    ) -> Mapping[str, Json]:
        return await self.enqueue_step(payload, options)

    async def enqueue_cron(
        self, payload: Mapping[str, Json], options: EnqueueOptions
    ) -> Mapping[str, Json]:
        return await self.enqueue_step(payload, options)


class Sink:
    """Hears events, and raises at every one of them if it was told to."""

    def __init__(self, *, raises: bool = False) -> None:
        self.events: list[Any] = []
        self.raises = raises

    def emit(self, event: Any) -> None:
        self.events.append(event)
        if self.raises:
            raise RuntimeError

    def named(self, name: str) -> list[Any]:
        return [event for event in self.events if event.name == f"squidmesh.{name}"]


class Two(Workflow[Order]):
    name = "two"
    by_hand = manual()
    a = step(lambda number: {"id": number}, output="a")
    b = log("b")
    transitions = path(a, b)


def job(run_id: str, step_name: str = "a", attempt: int = 1) -> dict[str, Any]:
    return {"kind": "step", "run_id": run_id, "step": step_name, "attempt": attempt}


async def test_a_delivery_performs_exactly_its_attempt(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Two)
    run = await mesh.start_run(Two)

    report = await Runner(mesh).perform({**job(run.id), "unknown": "ignored"})

    assert report == PerformReport(
        status="performed", reason=None, run_id=run.id, step="a", attempt=1
    )
    assert step_statuses(await history(mesh, run)) == {"a": "completed", "b": "scheduled"}


async def test_deliveries_alone_carry_a_run_to_its_end(open_mesh: OpenMesh) -> None:
    desk = Desk()
    mesh = await open_mesh(Two, executor=desk)
    run = await mesh.start_run(Two)
    runner = Runner(mesh)

    for _ in range(10):
        await turn()
    first, options = desk.jobs.pop(0)
    await runner.perform(first)
    while not desk.jobs:
        await turn()
    second, _ = desk.jobs.pop(0)
    await runner.perform(second)

    assert first == job(run.id)
    assert second == job(run.id, "b")
    assert options.queue == "default"
    assert options.key == f"{run.id}:a:1"
    assert (await mesh.inspect_run(run.id)).status == "completed"


SKIPS: list[tuple[str, dict[str, Any]]] = [
    ("unknown_run", {"run_id": NOBODY}),
    ("unknown_step", {"step": "nowhere"}),
    ("not_scheduled", {"step": "b"}),
    ("not_scheduled", {"attempt": 2}),
]


@pytest.mark.parametrize(("reason", "changes"), SKIPS, ids=range(4))
async def test_a_delivery_that_fits_nothing_is_skipped_with_the_reason(
    open_mesh: OpenMesh, reason: str, changes: dict[str, Any]
) -> None:
    mesh = await open_mesh(Two)
    run = await mesh.start_run(Two)
    before = await contents(mesh)

    report = await Runner(mesh).perform({**job(run.id), **changes})

    assert (report.status, report.reason) == ("skipped", reason)
    assert await contents(mesh) == before


async def test_a_second_a_late_and_a_last_delivery_are_skipped(open_mesh: OpenMesh) -> None:
    gate = Gate()

    async def hold() -> None:
        await gate.wait()

    class Held(Workflow[Order]):
        name = "held"
        by_hand = manual()
        a = step(hold)
        b = log("b")
        transitions = path(a, b)

    mesh = await open_mesh(Held)
    run = await mesh.start_run(Held)
    runner = Runner(mesh)
    first = asyncio.create_task(runner.perform(job(run.id)))
    await gate.entered.wait()
    second = await runner.perform(job(run.id))
    gate.opened.set()
    await first
    late = await runner.perform(job(run.id))
    await mesh.run_until_idle()

    last = await runner.perform(job(run.id, "b"))

    assert (second.status, second.reason) == ("skipped", "already_claimed")
    assert (late.status, late.reason) == ("skipped", "stale_attempt")
    assert (last.status, last.reason) == ("skipped", "run_over")


async def test_an_early_delivery_is_skipped(open_mesh: OpenMesh, clock: VirtualClock) -> None:
    class Timer(Workflow[Order]):
        name = "timer"
        by_hand = manual()
        a = wait(MINUTE)

    mesh = await open_mesh(Timer)
    run = await mesh.start_run(Timer)

    early = await Runner(mesh).perform(job(run.id))
    clock.advance(MINUTE)
    due = await Runner(mesh).perform(job(run.id))

    assert (early.status, early.reason) == ("skipped", "not_yet_visible")
    assert due.status == "performed"
    assert (await mesh.inspect_run(run.id)).status == "completed"


async def test_a_delivery_where_nobody_knows_the_workflow_is_skipped(
    url: str, clock: VirtualClock
) -> None:
    async with SquidMesh.open(url, workflows=[Two], clock=clock) as mesh:
        run = await mesh.start_run(Two)
        store = (await mesh.engine()).store
        async with SquidMesh(store=store, clock=clock) as other:
            report = await Runner(other).perform(job(run.id))

    assert (report.status, report.reason) == ("skipped", "unknown_workflow")


NO_JOBS: list[Any] = [
    {},
    None,
    7,
    "text",
    [1],
    {"kind": "unknown"},
    {"kind": "step"},
    {"kind": "step", "run_id": NOBODY},
    {"kind": "step", "run_id": NOBODY, "step": "a"},
    {"kind": "step", "run_id": 7, "step": "a", "attempt": 1},
    {"kind": "step", "run_id": NOBODY, "step": 7, "attempt": 1},
    {"kind": "step", "run_id": NOBODY, "step": "a", "attempt": "1"},
    {"kind": "step", "run_id": NOBODY, "step": "a", "attempt": 0},
    {"kind": "step", "run_id": NOBODY, "step": "a", "attempt": True},
    {"kind": "compensation"},
    {"kind": "compensation", "run_id": NOBODY, "step": 7},
    {"kind": "cron"},
    {"kind": "cron", "workflow": "two"},
    {"kind": "cron", "workflow": 7, "trigger": "x"},
    {"kind": ["step"]},
]


@pytest.mark.parametrize("payload", NO_JOBS, ids=range(len(NO_JOBS)))
async def test_a_payload_that_no_runner_understands_is_refused(
    open_mesh: OpenMesh, payload: Any
) -> None:
    mesh = await open_mesh(Two)
    before = await contents(mesh)

    with pytest.raises(InvalidPayloadForExecutorError):
        await Runner(mesh).perform(payload)

    assert await contents(mesh) == before


async def test_a_compensation_is_delivered_by_its_run_or_by_its_step(open_mesh: OpenMesh) -> None:
    undone: list[str] = []

    class Undone(Workflow[Order]):
        name = "undone"
        by_hand = manual()
        a = step(lambda: None, compensate=lambda: undone.append("a"))
        b = step(lambda: None, compensate=lambda: undone.append("b"))
        c = step(lambda: Errored("no"), output="x")
        transitions = path(a, b, c)

    mesh = await open_mesh(Undone)
    run = await mesh.start_run(Undone)
    runner = Runner(mesh)
    early = await runner.perform({"kind": "compensation", "run_id": run.id})
    for name in ("a", "b", "c"):
        await runner.perform(job(run.id, name))

    first = await runner.perform({"kind": "compensation", "run_id": run.id})
    second = await runner.perform(
        {"kind": "compensation", "run_id": run.id, "step": "a", "attempt": 1}
    )
    third = await runner.perform({"kind": "compensation", "run_id": run.id})

    assert (early.status, early.reason) == ("skipped", "not_scheduled")
    assert (first.status, second.status) == ("performed", "performed")
    assert undone == ["b", "a"]
    assert (third.status, third.reason) == ("skipped", "run_over")
    assert (await mesh.inspect_run(run.id)).status == "failed"


async def announced(desk: Desk, wanted: str) -> dict[str, Json]:
    """The payload that was enqueued for a step, as soon as it was."""
    while True:
        for payload, _ in desk.jobs:
            if payload["step"] == wanted:
                return payload
        await turn()


async def test_what_is_enqueued_is_a_json_object_that_says_kind_run_step_and_attempt(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    def once(context: StepContext) -> None:
        if context.attempt == 1:
            raise ConnectionError

    class Undone(Workflow[Order]):
        name = "undone"
        by_hand = manual()
        a = step(once, retry=Retry(2, backoff_min=MINUTE), compensate=lambda: None)
        b = step(lambda: Errored("no"), output="x")
        transitions = path(a, b)

    desk = Desk()
    mesh = await open_mesh(Undone, executor=desk)
    run = await mesh.start_run(Undone)
    runner = Runner(mesh)
    await runner.perform(await announced(desk, "a"))
    clock.advance(MINUTE)
    await mesh.recover()
    retry = desk.jobs[-1][0]
    for payload in (retry, job(run.id, "b")):
        await runner.perform(payload)

    undoing = await announced(desk, "compensate:a")

    assert retry == job(run.id, attempt=2)
    assert undoing == {
        "kind": "compensation",
        "run_id": run.id,
        "step": "compensate:a",
        "attempt": 1,
    }
    assert [json.loads(json.dumps(payload)) for payload, _ in desk.jobs] == [
        payload for payload, _ in desk.jobs
    ]
    assert (await runner.perform(undoing)).status == "performed"


async def test_an_attempt_that_failed_or_was_lost_is_stale_and_its_successor_is_not_due_early(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    gate = Gate()

    async def shaky(context: StepContext) -> Deferred | None:
        if context.attempt == 1:
            await gate.wait()
        if context.attempt == 2:
            raise ConnectionError
        return Deferred(MINUTE, reason="later")

    class Shaky(Workflow[Order]):
        name = "shaky"
        by_hand = manual()
        a = step(shaky, retry=Retry(3, backoff_min=MINUTE))

    mesh = await open_mesh(Shaky)
    run = await mesh.start_run(Shaky)
    perform = Runner(mesh).perform
    await die_at(mesh, gate)
    clock.advance(LEASE)
    await mesh.recover()
    reasons = [(await perform(job(run.id, attempt=1))).reason]
    await perform(job(run.id, attempt=2))

    reasons += [(await perform(job(run.id, attempt=number))).reason for number in (2, 3)]
    clock.advance(MINUTE)
    put_off = await perform(job(run.id, attempt=3))
    reasons += [(await perform(job(run.id, attempt=3))).reason]

    assert put_off.status == "performed"
    assert reasons == ["stale_attempt", "stale_attempt", "not_yet_visible", "not_yet_visible"]


async def test_a_skipped_delivery_changes_nothing_whatever_the_reason(
    open_mesh: OpenMesh,
) -> None:
    gate = Gate()

    async def hold() -> None:
        await gate.wait()

    class Held(Workflow[Order]):
        name = "held"
        by_hand = manual()
        a = step(hold)
        b = wait(MINUTE)
        transitions = path(a, b)

    mesh = await open_mesh(Held)
    run, over = await mesh.start_run(Held), await mesh.start_run(Held)
    await mesh.cancel_run(over.id)
    perform = Runner(mesh).perform

    async def skipped(payload: dict[str, Any]) -> str | None:
        before = await contents(mesh)
        report = await perform(payload)
        assert report.status == "skipped"
        assert await contents(mesh) == before
        return report.reason

    first = asyncio.create_task(perform(job(run.id)))
    await gate.entered.wait()
    reasons = [await skipped(job(run.id))]
    gate.opened.set()
    await first
    reasons += [
        await skipped(job(run.id)),
        await skipped(job(run.id, "b")),
        await skipped(job(run.id, "b", 2)),
        await skipped(job(over.id)),
        await skipped({"kind": "compensation", "run_id": over.id}),
        await skipped({"kind": "compensation", "run_id": run.id, "step": "a"}),
        await skipped({"kind": "compensation", "run_id": NOBODY}),
    ]

    assert reasons == [
        "already_claimed",
        "stale_attempt",
        "not_yet_visible",
        "not_scheduled",
        "run_over",
        "run_over",
        "unknown_step",
        "unknown_run",
    ]


async def test_a_compensation_in_progress_early_or_done_is_skipped_with_the_reason(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    gate = Gate()

    async def undo(context: StepContext) -> None:
        if context.attempt == 1:
            await gate.wait()
            raise ConnectionError

    class Undone(Workflow[Order]):
        name = "undone"
        by_hand = manual()
        a = step(lambda: None, compensate=compensation(undo, Retry(2, backoff_min=MINUTE)))
        b = step(lambda: Errored("no"), output="x")
        transitions = path(a, b)

    mesh = await open_mesh(Undone)
    run = await mesh.start_run(Undone)
    perform = Runner(mesh).perform
    for name in ("a", "b"):
        await perform(job(run.id, name))
    undoing = {"kind": "compensation", "run_id": run.id}
    first = asyncio.create_task(perform(undoing))
    await gate.entered.wait()

    reasons = [(await perform(undoing)).reason]
    gate.opened.set()
    await first
    reasons += [(await perform(undoing)).reason]
    reasons += [(await perform({**undoing, "step": "a", "attempt": 1})).reason]
    clock.advance(MINUTE)
    last = await perform({**undoing, "step": "a", "unknown": "ignored"})

    assert reasons == ["already_claimed", "not_yet_visible", "stale_attempt"]
    assert last == PerformReport(
        status="performed", reason=None, run_id=run.id, step="compensate:a", attempt=2
    )


class Unreachable:
    """A store whose line is cut for the calls that the test names, and whole for all others."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.cut: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        if name in self.cut:
            raise StoreUnavailableError("the line is cut")
        return getattr(self._store, name)


@pytest.mark.parametrize("call", ["load", "commit"])
async def test_an_accident_of_the_store_raises_and_the_repeated_delivery_is_performed(
    open_mesh: OpenMesh, clock: VirtualClock, call: str
) -> None:
    mesh = await open_mesh(Two)
    run = await mesh.start_run(Two)
    store: Any = Unreachable((await mesh.engine()).store)
    async with SquidMesh(store=store, workflows=[Two], clock=clock) as other:
        runner = Runner(other)
        store.cut = {call}

        with pytest.raises(StoreUnavailableError):
            await runner.perform(job(run.id))
        store.cut = set()
        again = await runner.perform(job(run.id))

    assert again.status == "performed"
    assert step_statuses(await history(mesh, run))["a"] == "completed"


@attrs.frozen(kw_only=True)
class Digest:
    day: date = date(2026, 1, 1)
    feed: str = "main"


class Daily(Workflow[Digest]):
    name = "daily"
    by_hand = manual()
    plain = cron("0 9 * * 1-5", timezone="Europe/Lisbon")
    once = cron("0 9 * * *", idempotency="return_existing_run")
    skipping = cron("0 9 * * *", idempotency="skip_duplicate")
    needy = cron("0 9 * * *", payload=Order)
    read = step(lambda context: {"seen": context.schedule["trigger"], "t": context.trigger})
    transitions = path(read)


@attrs.frozen(kw_only=True)
class Needy:
    number: str


class Lacking(Workflow[Needy]):
    name = "lacking"
    nightly = cron("0 3 * * *")
    only = log("only")


def tick(trigger: str, workflow: str = "daily", **more: Any) -> dict[str, Any]:
    return {"kind": "cron", "workflow": workflow, "trigger": trigger, **more}


WINDOW = {"start_at": "2026-01-01T09:00:00Z", "end_at": "2026-01-02T09:00:00Z"}


async def test_an_activation_starts_a_run_that_knows_its_schedule(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    mesh = await open_mesh(Daily)
    clock.advance(1.5)

    report = await Runner(mesh).perform(tick("plain", intended_window=WINDOW))
    assert report.run_id is not None
    await mesh.run_until_idle()

    run = await mesh.inspect_run(report.run_id)
    schedule = context_of(run)["schedule"]
    assert report.status == "started"
    assert isinstance(schedule, dict)
    assert str(schedule.pop("signal_id")).startswith("sha256:")
    assert schedule == {
        "workflow": "daily",
        "trigger": "plain",
        "cron_expression": "0 9 * * 1-5",
        "timezone": "Europe/Lisbon",
        "received_at": datetime(2030, 1, 1, 0, 0, 1, tzinfo=UTC).isoformat(),
        "intended_window": WINDOW,
    }
    assert context_of(run)["seen"] == context_of(run)["t"] == "plain"
    assert run.payload == {"day": "2026-01-01", "feed": "main"}


@pytest.mark.parametrize("trigger", ["once", "skipping"])
@pytest.mark.parametrize(
    "identity", [{"signal_id": "s1"}, {"intended_window": WINDOW}], ids=["s", "w"]
)
async def test_with_idempotency_a_window_starts_one_run(
    open_mesh: OpenMesh, trigger: str, identity: dict[str, Any]
) -> None:
    mesh = await open_mesh(Daily)
    runner = Runner(mesh)
    first = await runner.perform(tick(trigger, **identity))
    before = await contents(mesh)

    second = await runner.perform(tick(trigger, **identity))
    assert await contents(mesh) == before
    other = await runner.perform(tick(trigger, signal_id="another"))

    assert first.status == "started"
    assert (second.status, second.reason) == ("skipped", "duplicate_activation")
    assert second.run_id == first.run_id
    assert other.status == "started"


async def test_without_idempotency_every_activation_starts_a_run(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Daily)
    runner = Runner(mesh)

    reports = [await runner.perform(tick("plain", signal_id="s1")) for _ in range(2)]

    assert len({report.run_id for report in reports}) == 2


BAD_TICKS: list[tuple[dict[str, Any], str]] = [
    (tick("unknown"), "unknown_trigger"),
    (tick("by_hand"), "unknown_trigger"),
    (tick("once"), "missing_schedule_identity"),
    (tick("once", intended_window={"start_at": "x"}), "missing_schedule_identity"),
    (tick("once", signal_id=""), "invalid_schedule_signal_id"),
    (tick("plain", signal_id=7), "invalid_schedule_signal_id"),
    (tick("nightly", "lacking"), "invalid_payload"),
]


@pytest.mark.parametrize(("payload", "code"), BAD_TICKS, ids=range(len(BAD_TICKS)))
async def test_an_activation_that_makes_no_sense_is_refused_with_its_code(
    open_mesh: OpenMesh, payload: dict[str, Any], code: str
) -> None:
    mesh = await open_mesh(Daily, Lacking)
    before = await contents(mesh)

    with pytest.raises(InvalidPayloadForExecutorError) as refused:
        await Runner(mesh).perform(payload)

    assert refused.value.code == code
    assert await contents(mesh) == before


async def test_an_activation_of_an_unknown_workflow_is_skipped(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Daily)

    report = await Runner(mesh).perform(tick("plain", "nowhere"))

    assert (report.status, report.reason) == ("skipped", "unknown_workflow")


async def test_a_replay_keeps_the_schedule_without_its_identity(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Daily)
    started = await Runner(mesh).perform(tick("once", signal_id="s1"))
    assert started.run_id is not None

    new = await mesh.replay_run(started.run_id)

    schedule = context_of(await mesh.inspect_run(new.id))["schedule"]
    assert isinstance(schedule, dict)
    assert schedule["trigger"] == "once"
    assert schedule["signal_id"] is None
    assert new.replayed_from == started.run_id


async def test_recovering_announces_what_is_due_and_reclaims_what_is_lost(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    gate = Gate()

    async def hold() -> None:
        await gate.wait()

    class Held(Workflow[Order]):
        name = "held"
        by_hand = manual()
        a = step(hold)

    desk = Desk()
    desk.shut = True
    mesh = await open_mesh(Held, executor=desk)
    run = await mesh.start_run(Held)
    for _ in range(10):
        await turn()
    desk.shut = False

    nothing = await mesh.recover(older_than=MINUTE)
    emitted = await mesh.recover()
    clock.advance(SECOND)
    jobs = [payload for payload, _ in desk.jobs]
    await die_at(mesh, gate)
    clock.advance(LEASE)
    reclaimed = await mesh.recover()

    assert nothing.emitted == 0
    assert emitted.emitted == 1
    assert jobs[0] == job(run.id)
    assert reclaimed.reclaimed == 1
    assert (await mesh.recover()).reclaimed == 0


async def test_an_executor_that_fails_changes_nothing_about_the_command(
    open_mesh: OpenMesh,
) -> None:
    desk = Desk()
    desk.shut = True
    mesh = await open_mesh(Two, executor=desk)

    run = await mesh.start_run(Two)
    await mesh.run_until_idle()

    assert (await mesh.inspect_run(run.id)).status == "completed"


async def test_a_worker_serves_its_queues_until_it_is_stopped(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Two)
    fast = await mesh.start_run(Two, queue="fast")
    slow = await mesh.start_run(Two, queue="slow")
    worker = Worker(mesh, queues=("fast",), concurrency=2)
    working = asyncio.create_task(worker.run())

    while (await mesh.inspect_run(fast.id)).status != "completed":
        await turn()
    worker.stop()
    await working

    assert (await mesh.inspect_run(slow.id)).status == "pending"


async def test_telemetry_tells_each_stage_with_its_metadata(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    def shaky(context: StepContext) -> None:
        clock.advance(2)
        if context.attempt == 1:
            raise ConnectionError

    class Shaky(Workflow[Order]):
        name = "shaky"
        by_hand = manual()
        a = step(shaky, retry=Retry(2, backoff_min=timedelta(seconds=10)))

    sink = Sink()
    mesh = await open_mesh(Shaky, telemetry=sink)
    run = await mesh.start_run(Shaky)
    runner = Runner(mesh)
    await runner.perform(job(run.id))
    clock.advance(10)
    await runner.perform(job(run.id, attempt=2))
    await runner.perform(job(run.id))
    new = await mesh.replay_run(run.id)

    (created,) = sink.named("run.created")
    (failed,) = sink.named("step.failed")
    (retried,) = sink.named("step.retry_scheduled")
    (skipped,) = sink.named("step.skipped")
    (replayed,) = sink.named("run.replayed")
    assert created.metadata["run_id"] == run.id
    assert created.metadata["workflow"] == "shaky"
    assert len(sink.named("step.started")) == 2
    assert len(sink.named("step.completed")) == 1
    assert failed.metadata["step"] == "a"
    assert failed.metadata["attempt"] == 1
    assert failed.measurements["duration"] == pytest.approx(2.0)
    assert retried.measurements["delay"] == pytest.approx(10.0)
    assert skipped.metadata["reason"] == "run_over"
    assert replayed.metadata["run_id"] == new.id
    moves = [
        (event.metadata["from_status"], event.metadata["to_status"])
        for event in sink.named("run.transition")
    ]
    assert moves[-1] == ("running", "completed")


async def test_a_sink_that_raises_changes_nothing(open_mesh: OpenMesh) -> None:
    good, bad = Sink(), Sink(raises=True)
    mesh = await open_mesh(Two, telemetry=[bad, good])

    run = await mesh.start_run(Two)
    await mesh.run_until_idle()

    assert (await mesh.inspect_run(run.id)).status == "completed"
    assert bad.events
    assert len(good.events) == len(bad.events)


class BareClock:
    """What the documents ask of a clock, and nothing more."""

    def __init__(self) -> None:
        self.at = datetime(2030, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.at.timestamp()

    async def sleep(self, seconds: float) -> None:
        wake_at = self.at + timedelta(seconds=seconds)
        while self.at < wake_at:
            await turn()


async def test_a_clock_needs_no_more_than_is_documented(url: str) -> None:
    clock: Any = BareClock()

    class Timer(Workflow[Order]):
        name = "timer"
        by_hand = manual()
        a = wait(MINUTE)
        b = step(lambda: {"done": True}, timeout=MINUTE)
        transitions = path(a, b)

    async with SquidMesh.open(url, workflows=[Timer], clock=clock) as mesh:
        run = await mesh.start_run(Timer)
        await mesh.run_until_idle()
        early = await mesh.inspect_run(run.id)
        clock.at += MINUTE
        await mesh.run_until_idle()
        done = await mesh.inspect_run(run.id)

    assert (early.status, done.status) == ("running", "completed")


async def test_two_meshes_over_one_store_share_its_runs(url: str, clock: VirtualClock) -> None:
    gate = Gate()

    async def hold() -> None:
        await gate.wait()

    class Held(Workflow[Order]):
        name = "held"
        by_hand = manual()
        a = step(hold)

    async with SquidMesh.open(url, workflows=[Held], clock=clock) as first:
        store = (await first.engine()).store
        async with SquidMesh(store=store, workflows=[Held], clock=clock) as second:
            run = await first.start_run(Held)
            async with at_work(second, gate):
                await first.cancel_run(run.id)
            done = await first.inspect_run(run.id)

    assert done.status == "cancelled"
