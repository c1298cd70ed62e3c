"""What is told of a run: behind the commit, in order, and without any effect on it."""

import asyncio
import logging
from typing import Any

import pytest

from squidmesh import (
    Errored,
    Retry,
    Runner,
    SquidMesh,
    StepContext,
    Worker,
    approval,
    log,
    path,
    step,
)
from squidmesh.runtime.telemetry import SLOW_SINK, Event
from squidmesh.testing.clock import VirtualClock
from squidmesh.testing.executors import RecordingExecutor
from tests.runtime.conftest import OpenMesh
from tests.runtime.support import (
    SECOND,
    Gate,
    Listener,
    ended,
    in_a_row,
    only,
    turns,
    until,
    workflow,
)

pytestmark = pytest.mark.anyio


async def quick() -> None: ...


@pytest.fixture
def listener() -> Listener:
    return Listener()


async def worked(mesh: SquidMesh, made: Any) -> None:
    await ended(mesh, made)


async def delivered(mesh: SquidMesh, made: Any) -> None:
    run = await mesh.start_run(made)
    runner = Runner(mesh)
    for name in ("first", "second"):
        await runner.perform({"kind": "step", "run_id": run.id, "step": name, "attempt": 1})


@pytest.mark.parametrize("work", [worked, delivered])
async def test_the_life_of_a_run_is_told_in_order(
    composed: OpenMesh, listener: Listener, work: Any
) -> None:
    made = in_a_row("told", quick, quick)
    mesh = await composed(made, telemetry=listener)

    await work(mesh, made)

    assert sorted(listener.names[1:3]) == ["run.transition", "step.started"]
    assert [listener.names[0], *listener.names[3:]] == [
        "run.created",
        "step.completed",
        "step.started",
        "step.completed",
        "run.transition",
    ]
    moves = [
        (one.metadata["from_status"], one.metadata["to_status"])
        for one in listener.of("run.transition")
    ]
    assert moves == [("pending", "running"), ("running", "completed")]


async def test_events_say_which_run_and_which_attempt(
    composed: OpenMesh, listener: Listener
) -> None:
    made = only(quick)
    mesh = await composed(made, telemetry=listener)

    run = await ended(mesh, made)

    (created,) = listener.of("run.created")
    assert created == Event(
        "squidmesh.run.created",
        {
            "run_id": run.id,
            "workflow": "only",
            "trigger": "by_hand",
            "status": "pending",
            "current_step": "first",
        },
        {},
    )
    (started,) = listener.of("step.started")
    assert started.metadata == {
        **created.metadata,
        "status": "running",
        "step": "first",
        "attempt": 1,
    }


async def test_durations_and_delays_are_in_seconds(
    composed: OpenMesh, clock: VirtualClock, listener: Listener
) -> None:
    async def slow(context: StepContext) -> Errored | None:
        clock.advance(1.5)
        return Errored("busy", code="busy", retryable=True) if context.attempt == 1 else None

    made = only(slow, retry=Retry(2, backoff_min=10 * SECOND))
    mesh = await composed(made, telemetry=listener)

    await ended(mesh, made)
    clock.advance(10)
    await mesh.run_until_idle()

    (failed,), (retry,), (completed,) = (
        listener.of("step.failed"),
        listener.of("step.retry_scheduled"),
        listener.of("step.completed"),
    )
    assert failed.measurements == {"duration": 1.5}
    assert failed.metadata["error"] == {"code": "busy", "type": None}
    assert retry.measurements == {"delay": 10.0}
    assert (retry.metadata["step"], retry.metadata["attempt"]) == ("first", 1)
    assert completed.measurements == {"duration": 1.5}
    assert completed.metadata["attempt"] == 2
    order = [name for name in listener.names if name.startswith("step.")]
    assert order == [
        "step.started",
        "step.failed",
        "step.retry_scheduled",
        "step.started",
        "step.completed",
    ]


async def test_every_change_of_status_is_told_whoever_claims(
    composed: OpenMesh, clock: VirtualClock, listener: Listener
) -> None:
    async def second_time_lucky(context: StepContext) -> Errored | None:
        return Errored("busy", retryable=True) if context.attempt == 1 else None

    made = only(second_time_lucky, retry=Retry(2, backoff_min=SECOND))
    mesh = await composed(made, telemetry=listener)

    await ended(mesh, made)
    clock.advance(1)
    await mesh.run_until_idle()

    assert [one.metadata["to_status"] for one in listener.of("run.transition")] == [
        "running",
        "retrying",
        "running",
        "completed",
    ]


async def test_a_lost_attempt_a_replay_and_a_dispatch_are_told(
    composed: OpenMesh, clock: VirtualClock, listener: Listener
) -> None:
    gate = Gate()
    made = only(gate.wait)
    executor = RecordingExecutor(metadata={"job_id": "j7", "run_id": "not this one"})
    mesh = await composed(made, telemetry=listener, executor=executor)
    run = await mesh.start_run(made)
    working = asyncio.create_task(mesh.run_until_idle())
    await gate.reached()
    clock.advance(61)
    await mesh.recover()
    gate.opened.set()
    await working

    again = await mesh.replay_run(run.id)
    await turns()

    (lost,), (replayed,) = listener.of("step.lost"), listener.of("run.replayed")
    assert (lost.metadata["step"], lost.metadata["attempt"]) == ("first", 1)
    assert (replayed.metadata["run_id"], replayed.metadata["replayed_from"]) == (again.id, run.id)
    dispatched = listener.of("run.dispatched")
    assert {one.metadata["job_id"] for one in dispatched} == {"j7"}
    assert {one.metadata["run_id"] for one in dispatched} == {run.id, again.id}


async def test_a_decision_completes_the_step_that_waited_for_it(
    composed: OpenMesh, clock: VirtualClock, listener: Listener
) -> None:
    first, second = approval(output="review"), step(quick)
    made = workflow(
        "asked",
        first=first,
        second=second,
        transitions=(path(first, second), first.on_error(second)),
    )
    mesh = await composed(made, telemetry=listener)
    runs = [await mesh.start_run(made) for _ in range(2)]
    clock.advance(7)

    await mesh.approve_run(runs[0].id, actor="somebody")
    await mesh.reject_run(runs[1].id, actor="somebody")

    (completed,), (failed,) = listener.of("step.completed"), listener.of("step.failed")
    for event in (completed, failed):
        assert event.metadata["step"] == "first"
        assert event.measurements == {"duration": 7.0}
    assert failed.metadata["error"] == {"code": "rejected", "type": None}


async def test_a_cancel_of_a_paused_run_ends_the_step_before_the_run(
    composed: OpenMesh, listener: Listener
) -> None:
    first, second = approval(output="review"), step(quick)
    made = workflow(
        "asked",
        first=first,
        second=second,
        transitions=(path(first, second), first.on_error(second)),
    )
    mesh = await composed(made, telemetry=listener)
    run = await mesh.start_run(made)
    listener.events.clear()

    await mesh.cancel_run(run.id)

    assert listener.names == ["step.failed", "run.transition"]


async def test_nothing_is_told_of_what_was_refused_or_lost(
    composed: OpenMesh, listener: Listener, store: Any
) -> None:
    made = only(quick)
    mesh = await composed(made, telemetry=listener)
    store.before = 1

    with pytest.raises(Exception, match="cannot be reached"):
        await mesh.start_run(made)

    assert listener.events == []


class Broken:
    def emit(self, event: Event) -> None:
        raise ZeroDivisionError(event.name)


class Slow:
    def emit(self, event: Event) -> None:
        import time

        time.sleep(SLOW_SINK + 0.01)  # noqa: TID251  a sink that takes its time


async def test_a_sink_that_raises_changes_nothing_and_is_reported(
    composed: OpenMesh, listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    made = only(quick)
    mesh = await composed(made, telemetry=[Broken(), listener])

    run = await ended(mesh, made)

    assert run.status == "completed"
    assert len(listener.events) == 5
    lines = [one for one in caplog.records if one.name == "squidmesh.telemetry"]
    assert {one.squidmesh["event"] for one in lines} == {"sink.failed"}  # type: ignore[attr-defined]
    assert {one.squidmesh["error"] for one in lines} == {"ZeroDivisionError"}  # type: ignore[attr-defined]


async def test_a_slow_sink_is_reported_once(
    composed: OpenMesh, caplog: pytest.LogCaptureFixture
) -> None:
    made = only(quick)
    mesh = await composed(made, telemetry=Slow())

    await ended(mesh, made)

    lines = [one for one in caplog.records if "sink.slow" in one.getMessage()]
    assert len(lines) == 1


# -- the log ---------------------------------------------------------------------------------


async def test_a_log_step_writes_one_line_that_knows_its_run(
    composed: OpenMesh, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="squidmesh")
    levels = ("debug", "info", "warning", "error")
    steps: dict[str, Any] = {
        level: log(f"at {level}, 100% %s {{}}", level=level) for level in levels
    }
    made = workflow("logged", **steps, transitions=path(*steps.values()))
    mesh = await composed(made)

    run = await ended(mesh, made)

    lines = [one for one in caplog.records if one.name == "squidmesh.workflow"]
    assert run.status == "completed"
    assert [one.levelname.lower() for one in lines] == list(levels)
    for line, level in zip(lines, levels, strict=True):
        assert line.getMessage().startswith(f"at {level}, 100% %s {{}}")
        assert line.squidmesh == {  # type: ignore[attr-defined]
            "event": f"at {level}, 100% %s {{}}",
            "run_id": run.id,
            "workflow": "logged",
            "step": level,
            "attempt": 1,
        }


async def test_changes_of_a_run_and_failed_attempts_are_one_line_each(
    composed: OpenMesh, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="squidmesh")

    async def fail() -> None:
        raise OSError("a secret")

    gate = Gate()
    made, other = only(fail), in_a_row("lost", gate.wait)
    mesh = await composed(made, other)

    run = await ended(mesh, made)
    await mesh.start_run(other)
    working = asyncio.create_task(mesh.run_until_idle())
    await gate.reached()
    clock.advance(61)
    await mesh.recover()
    gate.opened.set()
    await working

    lines = [one.squidmesh for one in caplog.records if one.name == "squidmesh.run"]  # type: ignore[attr-defined]
    of_the_first = [line["event"] for line in lines if line["run_id"] == run.id]
    assert of_the_first[0] == "run.started"
    assert of_the_first[-2:] == ["attempt.failed", "run.transition"]
    assert "attempt.lost" in {line["event"] for line in lines}
    assert "a secret" not in caplog.text


async def test_a_log_that_raises_changes_nothing(composed: OpenMesh) -> None:
    class Hostile(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            raise ZeroDivisionError(record.name)

    logger, handler = logging.getLogger("squidmesh"), Hostile()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        first, second = log("hello"), step(quick)
        made = workflow("logged", first=first, second=second, transitions=path(first, second))
        mesh = await composed(made)
        run = await ended(mesh, made)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)

    assert run.status == "completed"


async def test_what_one_run_has_bound_is_not_in_the_lines_of_another(
    composed: OpenMesh, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="squidmesh")
    child = in_a_row("child", quick)
    other = await composed(child)
    ids: list[str] = []

    async def start_elsewhere() -> None:
        ids.append((await other.start_run(child)).id)

    made = only(start_elsewhere)
    mesh = await composed(made)
    await ended(mesh, made)

    await other.cancel_run(ids[0])

    lines = [one.squidmesh for one in caplog.records if one.name == "squidmesh.run"]  # type: ignore[attr-defined]
    for line in lines:
        if line["run_id"] == ids[0] and line["event"].startswith("run."):
            assert "step" not in line


async def test_a_worker_tells_step_started_for_what_it_claims_behind_a_report(
    composed: OpenMesh, listener: Listener
) -> None:
    made = in_a_row("three", quick, quick, quick)
    mesh = await composed(made, telemetry=listener)
    await mesh.start_run(made)
    worker = Worker(mesh)
    working = asyncio.create_task(worker.run())

    await until(lambda: "step.completed" in listener.names[-2:] and len(listener.events) >= 9)
    worker.stop()
    await working

    assert [one.metadata["step"] for one in listener.of("step.started")] == [
        "first",
        "second",
        "third",
    ]
