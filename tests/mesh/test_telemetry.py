"""What sinks are told of a run: which events, with what, when, and with no effect on anything."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from structlog.contextvars import bound_contextvars, get_contextvars

from squidmesh import (
    Deferred,
    Errored,
    IdempotencyConflictError,
    InvalidTransitionError,
    NotPausedError,
    Retry,
    Run,
    RunExistsError,
    Runner,
    SquidMesh,
    StepContext,
    UnsafeReplayError,
    Workflow,
    approval,
    manual,
    path,
    pause,
    step,
)
from squidmesh.adapters.memory import MemoryStore
from squidmesh.opening import path_of
from squidmesh.runtime.telemetry import SLOW_SINK, Event
from squidmesh.testing.clock import VirtualClock
from squidmesh.testing.executors import RecordingExecutor
from tests.mesh.support import (
    LEASE,
    MINUTE,
    SECOND,
    Gate,
    OpenMesh,
    Order,
    at_work,
    die_at,
    entry_types,
    history,
    rows_in_file,
    rows_on_server,
    step_statuses,
    turn,
)
from tests.runtime.support import Listener, workflow

pytestmark = pytest.mark.anyio

RUN: Final = {"run_id", "workflow", "trigger", "status", "current_step"}
STEP: Final = RUN | {"step", "attempt"}

CARRIED: Final[Mapping[str, tuple[set[str], set[str]]]] = {
    "run.created": (RUN, set()),
    "run.replayed": (RUN | {"replayed_from"}, set()),
    "run.transition": (RUN | {"from_status", "to_status"}, set()),
    "step.started": (STEP, set()),
    "step.skipped": (STEP | {"reason"}, set()),
    "step.completed": (STEP, {"duration"}),
    "step.failed": (STEP | {"error"}, {"duration"}),
    "step.retry_scheduled": (STEP, {"delay"}),
    "step.lost": (STEP, set()),
}
"""Of each event that needs no engine: the names of its metadata and of its measurements."""


@pytest.fixture
def listener() -> Listener:
    return Listener()


class Story:
    """A run to which everything happens that is told of."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.gate = Gate()
        story = self

        async def eventful(context: StepContext) -> Errored | None:
            if context.attempt == 1:
                await story.gate.wait()
            clock.advance(1.5)
            return Errored("busy", code="busy", retryable=True) if context.attempt == 2 else None

        class Eventful(Workflow[Order]):
            name = "eventful"
            by_hand = manual()
            a = step(eventful, retry=Retry(2, backoff_min=10 * SECOND))
            review = approval(output="review")
            b = step(lambda: {"done": True})
            transitions = (path(a, review, b), review.on_error(Workflow.complete))

        self.workflow = Eventful

    async def told(self, mesh: SquidMesh) -> Run:
        """Be lost, fail, be retried and decided, come too late, and be replayed for a moment."""
        run = await mesh.start_run(self.workflow)
        await die_at(mesh, self.gate)
        self.clock.advance(LEASE)
        await mesh.run_until_idle()
        self.clock.advance(10)
        await mesh.run_until_idle()
        self.clock.advance(7)
        await mesh.approve_run(run.id, actor="ada")
        await mesh.run_until_idle()
        await Runner(mesh).perform(delivery(run.id))
        new = await mesh.replay_run(run.id)
        await mesh.cancel_run(new.id)
        return await history(mesh, run)


def delivery(run_id: str, name: str = "a", attempt: int = 1) -> dict[str, Any]:
    return {"kind": "step", "run_id": run_id, "step": name, "attempt": attempt}


async def test_each_event_has_its_name_its_metadata_and_its_measurements(
    open_mesh: OpenMesh, clock: VirtualClock, listener: Listener
) -> None:
    story = Story(clock)
    mesh = await open_mesh(story.workflow, telemetry=listener)

    await story.told(mesh)

    assert set(listener.names) == set(CARRIED)
    for event in listener.events:
        metadata, measurements = CARRIED[event.name.removeprefix("squidmesh.")]
        assert (set(event.metadata), set(event.measurements)) == (metadata, measurements)


async def test_the_story_of_a_run_is_told_in_order_and_with_its_numbers(
    open_mesh: OpenMesh, clock: VirtualClock, listener: Listener
) -> None:
    story = Story(clock)
    mesh = await open_mesh(story.workflow, telemetry=listener)

    run = await story.told(mesh)

    steps = [event for event in listener.events if event.name.startswith("squidmesh.step.")]
    assert [
        (
            event.name.removeprefix("squidmesh.step."),
            event.metadata["step"],
            event.metadata["attempt"],
            dict(event.measurements),
        )
        for event in steps
    ] == [
        ("started", "a", 1, {}),
        ("lost", "a", 1, {}),
        ("started", "a", 2, {}),
        ("failed", "a", 2, {"duration": 1.5}),
        ("retry_scheduled", "a", 2, {"delay": 10.0}),
        ("started", "a", 3, {}),
        ("completed", "a", 3, {"duration": 1.5}),
        ("completed", "review", None, {"duration": 7.0}),
        ("started", "b", 1, {}),
        ("completed", "b", 1, {"duration": 0.0}),
        ("skipped", "a", 1, {}),
    ]
    assert moves(listener) == [
        ("pending", "running"),
        ("running", "retrying"),
        ("retrying", "running"),
        ("running", "paused"),
        ("paused", "running"),
        ("running", "completed"),
        ("pending", "cancelled"),
    ]
    (created,), (replayed,) = listener.of("run.created"), listener.of("run.replayed")
    assert created.metadata == {
        "run_id": run.id,
        "workflow": "eventful",
        "trigger": "by_hand",
        "status": "pending",
        "current_step": "a",
    }
    assert replayed.metadata["replayed_from"] == run.id != replayed.metadata["run_id"]
    assert {event.metadata["run_id"] for event in steps} == {run.id}
    (failed,) = listener.of("step.failed")
    assert failed.metadata["error"] == {"code": "busy", "type": None}


def moves(listener: Listener) -> list[tuple[object, object]]:
    return [
        (event.metadata["from_status"], event.metadata["to_status"])
        for event in listener.of("run.transition")
    ]


async def test_every_change_of_status_is_told_on_each_way_to_an_end(
    open_mesh: OpenMesh, clock: VirtualClock, listener: Listener
) -> None:
    gate = Gate()

    async def hold() -> None:
        await gate.wait()

    class Held(Workflow[Order]):
        name = "held"
        by_hand = manual()
        a = step(hold)

    class Undone(Workflow[Order]):
        name = "undone"
        by_hand = manual()
        a = step(lambda: None, compensate=lambda: None)
        b = step(lambda: Errored("no"), output="x")
        transitions = path(a, b)

    mesh = await open_mesh(Held, Undone, telemetry=listener)
    run = await mesh.start_run(Held)
    async with at_work(mesh, gate):
        await mesh.cancel_run(run.id)
    cancelled = moves(listener)
    listener.events.clear()

    await mesh.start_run(Undone)
    await mesh.run_until_idle()

    assert cancelled == [
        ("pending", "running"),
        ("running", "cancelling"),
        ("cancelling", "cancelled"),
    ]
    assert moves(listener) == [
        ("pending", "running"),
        ("running", "compensating"),
        ("compensating", "failed"),
    ]
    undoing = [event.metadata["step"] for event in listener.of("step.completed")]
    assert undoing == ["a", "compensate:a"]


@pytest.mark.parametrize(
    "plans", [(("fail", Deferred(SECOND)),), (("fail",), ("fail",))], ids=["deferred", "at once"]
)
async def test_a_retry_ends_the_waiting_once_however_it_is_claimed(
    open_mesh: OpenMesh,
    clock: VirtualClock,
    listener: Listener,
    plans: tuple[tuple[object, ...], ...],
) -> None:
    def body(plan: tuple[object, ...]) -> Callable[[], object]:
        left = list(plan)

        def say() -> object:
            said = left.pop(0) if left else None
            if said == "fail":
                raise ConnectionError
            return said

        return say

    retry = Retry(2, backoff_min=SECOND)
    steps: dict[str, Any] = {f"s{n}": step(body(plan), retry=retry) for n, plan in enumerate(plans)}
    shaky = workflow("shaky", **steps)
    mesh = await open_mesh(shaky, telemetry=listener)
    await mesh.start_run(shaky)

    for _ in range(3):
        await mesh.run_until_idle()
        clock.advance(1)

    assert [to for _, to in moves(listener)] == ["running", "retrying", "running", "completed"]


@pytest.mark.parametrize("decision", ["resumed", "approved", "rejected", "cancelled"])
async def test_a_paused_step_ends_with_the_decision_and_lasts_from_its_opening(
    open_mesh: OpenMesh, clock: VirtualClock, listener: Listener, decision: str
) -> None:
    class Judged(Workflow[Order]):
        name = "judged"
        by_hand = manual()
        hold = approval(output="review")
        transitions = (path(hold), hold.on_error(Workflow.complete))

    class Halted(Workflow[Order]):
        name = "judged"
        by_hand = manual()
        hold = pause()
        transitions = path(hold)

    mesh = await open_mesh(Halted if decision == "resumed" else Judged, telemetry=listener)
    run = await mesh.start_run("judged")
    listener.events.clear()
    clock.advance(7)

    await DECISIONS[decision](mesh, run.id)

    ended, transition = listener.events
    failed = decision in ("rejected", "cancelled")
    assert ended.name == f"squidmesh.step.{'failed' if failed else 'completed'}"
    assert (ended.metadata["step"], ended.metadata["attempt"]) == ("hold", None)
    assert ended.measurements == {"duration": 7.0}
    assert ended.metadata.get("error") == ({"code": decision, "type": None} if failed else None)
    assert transition.metadata["from_status"] == "paused"


DECISIONS: Final[Mapping[str, Any]] = {
    "resumed": lambda mesh, run_id: mesh.resume_run(run_id),
    "approved": lambda mesh, run_id: mesh.approve_run(run_id, actor="ada"),
    "rejected": lambda mesh, run_id: mesh.reject_run(run_id, actor="ada"),
    "cancelled": lambda mesh, run_id: mesh.cancel_run(run_id),
}


async def test_what_an_engine_says_of_a_wake_up_never_hides_what_the_run_says(
    open_mesh: OpenMesh, listener: Listener
) -> None:
    class Two(Workflow[Order]):
        name = "two"
        by_hand = manual()
        a = step(lambda: None)

    told = {"job_id": "j7", "run_id": "not this", "workflow": "nor this", "status": "nor this"}
    desk = RecordingExecutor(metadata=told)
    mesh = await open_mesh(Two, telemetry=listener, executor=desk)

    run = await mesh.start_run(Two)
    while "run.dispatched" not in listener.names:
        await turn()

    (event,) = listener.of("run.dispatched")
    assert event.metadata == {
        "job_id": "j7",
        "run_id": run.id,
        "workflow": "two",
        "trigger": "by_hand",
        "status": "pending",
        "current_step": "a",
    }


NOBODY: Final = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"


async def test_a_wake_up_that_is_repeated_is_told_like_the_first(
    open_mesh: OpenMesh, listener: Listener
) -> None:
    class Two(Workflow[Order]):
        name = "two"
        by_hand = manual()
        a = step(lambda: None)

    desk = RecordingExecutor(metadata={"job_id": "j7", "status": "not this"})
    mesh = await open_mesh(Two, telemetry=listener, executor=desk)
    await mesh.start_run(Two)
    while "run.dispatched" not in listener.names:
        await turn()

    await mesh.recover()

    first, second = listener.of("run.dispatched")
    assert second.metadata == first.metadata


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("unknown_run", {"run_id": NOBODY}),
        ("unknown_step", {"step": "nowhere"}),
        ("not_scheduled", {"attempt": 2}),
        ("not_yet_visible", {"step": "later"}),
        ("stale_attempt", {}),
    ],
)
async def test_a_skipped_delivery_is_told_with_the_reason_of_its_report(
    open_mesh: OpenMesh, listener: Listener, reason: str, changes: Mapping[str, Any]
) -> None:
    class Two(Workflow[Order]):
        name = "two"
        by_hand = manual()
        a = step(lambda: Errored("busy", retryable=True), output="x", retry=Retry(2))
        later = step(
            lambda: Errored("busy", retryable=True),
            output="y",
            retry=Retry(2, backoff_min=MINUTE),
        )

    mesh = await open_mesh(Two, telemetry=listener)
    run = await mesh.start_run(Two)
    perform = Runner(mesh).perform
    await perform(delivery(run.id))
    await perform(delivery(run.id, "later"))
    wanted = {**delivery(run.id), **changes}
    if reason == "not_scheduled":
        wanted["attempt"] = 3
    if reason == "not_yet_visible":
        wanted["attempt"] = 2
    listener.events.clear()

    report = await perform(wanted)

    (event,) = listener.of("step.skipped")
    assert report.reason == event.metadata["reason"] == reason
    for field in ("run_id", "step", "attempt"):
        assert event.metadata[field] == wanted[field]


class Witness:
    """A sink that looks into the store, past the mesh, for what it is being told."""

    ENTRIES: Final[Mapping[str, str]] = {
        "run.created": "run_started",
        "run.replayed": "run_replayed",
        "step.started": "attempt_claimed",
        "step.completed": "attempt_completed",
        "step.failed": "attempt_failed",
        "step.lost": "attempt_lost",
    }

    def __init__(self) -> None:
        self.count: Callable[[str], int] = lambda _: 0
        self.told: Counter[str] = Counter()
        self.found: Counter[str] = Counter()
        self.ahead: list[Event] = []

    def emit(self, event: Event) -> None:
        entry = self.ENTRIES.get(event.name.removeprefix("squidmesh."))
        if entry is None or event.metadata.get("attempt", 1) is None:
            return
        self.told[entry] += 1
        self.found[entry] = self.count(entry)
        if self.found[entry] < self.told[entry]:
            self.ahead.append(event)


def counting(store: object, url: str) -> Callable[[str], int]:
    """How many entries of a type are committed, read past the mesh that writes them."""

    def rows() -> object:
        if isinstance(store, MemoryStore):
            return [record.journal for record in store._tables.runs.values()]
        return rows_in_file(Path(path_of(url))) if url.startswith("sqlite") else rows_on_server(url)

    return lambda kind: repr(rows()).count(f'"{kind}')


async def test_an_event_is_told_when_what_it_tells_of_is_in_the_store(
    open_mesh: OpenMesh, url: str, clock: VirtualClock
) -> None:
    witness = Witness()
    story = Story(clock)
    mesh = await open_mesh(story.workflow, telemetry=witness)
    witness.count = counting((await mesh.engine()).store, url)

    await story.told(mesh)

    assert witness.ahead == []
    assert witness.found == witness.told
    assert set(witness.told) == set(Witness.ENTRIES.values())


async def test_nothing_is_told_of_a_command_that_was_refused_or_repeated(
    open_mesh: OpenMesh, listener: Listener
) -> None:
    class Paid(Workflow[Order]):
        name = "paid"
        by_hand = manual()
        pay = step(lambda: None, irreversible=True)

    mesh = await open_mesh(Paid, telemetry=listener)
    run = await mesh.start_run(Paid, idempotency_key="once")
    await mesh.run_until_idle()
    new = await mesh.replay_run(run.id, allow_irreversible=True, idempotency_key="again")
    await mesh.cancel_run(new.id, idempotency_key="stop")
    listener.events.clear()

    await mesh.start_run(Paid, idempotency_key="once")
    await mesh.start_runs(Paid, [None], idempotency_keys=["once"])
    await mesh.replay_run(run.id, allow_irreversible=True, idempotency_key="again")
    await mesh.cancel_run(new.id, idempotency_key="stop")
    with pytest.raises(IdempotencyConflictError):
        await mesh.start_run(Paid, Order(number="other"), idempotency_key="once")
    with pytest.raises(RunExistsError):
        await mesh.start_run(Paid, run_id=run.id)
    with pytest.raises(InvalidTransitionError):
        await mesh.cancel_run(run.id)
    with pytest.raises(NotPausedError):
        await mesh.approve_run(run.id, actor="ada")
    with pytest.raises(UnsafeReplayError):
        await mesh.replay_run(run.id)

    assert listener.events == []


async def test_a_bulk_start_tells_of_every_run_that_it_started(
    open_mesh: OpenMesh, listener: Listener
) -> None:
    class Two(Workflow[Order]):
        name = "two"
        by_hand = manual()
        a = step(lambda: None)

    mesh = await open_mesh(Two, telemetry=listener)

    ids = await mesh.start_runs(Two, [None] * 5)

    assert sorted(str(event.metadata["run_id"]) for event in listener.of("run.created")) == ids


async def test_what_a_body_logs_knows_its_run_and_what_the_host_has_bound_is_as_it_was_behind_it(
    open_mesh: OpenMesh,
) -> None:
    seen: list[dict[str, Any]] = []

    class Two(Workflow[Order]):
        name = "two"
        by_hand = manual()
        a = step(lambda: seen.append(get_contextvars()))

    mesh = await open_mesh(Two)
    run = await mesh.start_run(Two)
    with bound_contextvars(request="r7", run_id="the host's"):
        await Runner(mesh).perform(delivery(run.id))
        behind = get_contextvars()

    (bound,) = seen
    assert behind == {"request": "r7", "run_id": "the host's"}
    known = {"run_id": run.id, "workflow": "two", "step": "a", "attempt": 1}
    assert known.items() <= bound.items()


class Broken:
    """A sink that raises at everything."""

    def emit(self, event: Event) -> None:
        raise ZeroDivisionError(event.name)


class Blocking:
    """A sink that keeps everybody waiting, a little longer than it may."""

    def emit(self, event: Event) -> None:
        until = time.perf_counter() + SLOW_SINK + 0.005
        while time.perf_counter() < until:
            pass


@pytest.mark.parametrize("sink", [Broken(), Blocking()], ids=["raises", "blocks"])
async def test_a_sink_that_raises_or_blocks_changes_nothing_of_a_run_nor_of_what_others_hear(
    open_mesh: OpenMesh, clock: VirtualClock, sink: Any
) -> None:
    undisturbed, disturbed = Listener(), Listener()
    story, again = Story(clock), Story(clock)
    before = await story.told(await open_mesh(story.workflow, telemetry=undisturbed))

    async with asyncio.timeout(30):
        behind = await again.told(await open_mesh(again.workflow, telemetry=[sink, disturbed]))

    assert behind.status == before.status == "completed"
    assert step_statuses(behind) == step_statuses(before)
    assert entry_types(behind) == entry_types(before)
    assert disturbed.names == undisturbed.names


async def test_a_sink_that_takes_too_long_is_reported_once_and_one_that_raises_each_time(
    open_mesh: OpenMesh, caplog: pytest.LogCaptureFixture
) -> None:
    class Two(Workflow[Order]):
        name = "two"
        by_hand = manual()
        a = step(lambda: None)

    caplog.set_level(logging.WARNING, logger="squidmesh")
    mesh = await open_mesh(Two, telemetry=[Blocking(), Broken(), Listener()])

    await mesh.start_run(Two)
    await mesh.run_until_idle()

    lines: list[Any] = [one for one in caplog.records if one.name == "squidmesh.telemetry"]
    told = [(line.squidmesh["event"], line.squidmesh["sink"]) for line in lines]
    assert told == [("sink.slow", "Blocking"), *[("sink.failed", "Broken")] * 5]
