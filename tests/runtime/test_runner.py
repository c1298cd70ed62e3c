"""What a delivery comes to: the attempt that it names is performed, or nothing, and it says why."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import attrs
import pytest
import structlog

from squidmesh import (
    Deferred,
    InvalidPayloadForExecutorError,
    PerformReport,
    Retry,
    Run,
    Runner,
    SquidMesh,
    StepContext,
    StoreUnavailableError,
    Worker,
    compensation,
    cron,
    path,
    step,
    wait,
)
from squidmesh.domain.values import Json
from squidmesh.testing.clock import VirtualClock
from squidmesh.testing.executors import RecordingExecutor
from tests.runtime.conftest import OpenMesh
from tests.runtime.support import (
    SECOND,
    Gate,
    Listener,
    Order,
    ShakyStore,
    attempts_of,
    error_of,
    history,
    in_a_row,
    only,
    step_of,
    turns,
    workflow,
)

pytestmark = pytest.mark.anyio

NOBODY = "00000000-0000-7000-8000-000000000000"


def fine() -> None: ...


def fail() -> None:
    raise OSError("gone")


def delivery(run: Run | str, name: str = "first", attempt: int = 1) -> dict[str, Json]:
    run_id = run if isinstance(run, str) else run.id
    return {"kind": "step", "run_id": run_id, "step": name, "attempt": attempt}


def undoing(run: Run, **more: Json) -> dict[str, Json]:
    return {"kind": "compensation", "run_id": run.id, **more}


@pytest.fixture
def executor() -> RecordingExecutor:
    return RecordingExecutor()


async def test_exactly_the_delivered_attempt_is_performed_and_its_successor_is_enqueued(
    composed: OpenMesh, executor: RecordingExecutor
) -> None:
    made = in_a_row("two", fine, fine)
    mesh = await composed(made, executor=executor)
    run = await mesh.start_run(made)

    (report,) = await executor.deliver(Runner(mesh))

    assert report == PerformReport(status="performed", run_id=run.id, step="first", attempt=1)
    await turns()
    run = await history(mesh, run)
    assert (attempts_of(run), attempts_of(run, "second")) == (["completed"], ["scheduled"])
    assert executor.payloads == [delivery(run), delivery(run, "second")]
    (report,) = await executor.deliver(Runner(mesh))
    assert report.step == "second"
    assert (await mesh.inspect_run(run.id)).status == "completed"


async def test_a_failed_body_is_a_performed_delivery_and_its_retry_another_one(
    composed: OpenMesh, executor: RecordingExecutor
) -> None:
    made = only(fail, retry=Retry(2))
    mesh = await composed(made, executor=executor)
    run = await mesh.start_run(made)
    runner = Runner(mesh)

    reports = [*await executor.deliver(runner), *await executor.deliver(runner)]

    assert [(one.status, one.attempt) for one in reports] == [("performed", 1), ("performed", 2)]
    assert (await mesh.inspect_run(run.id)).status == "failed"


async def test_a_deferred_body_is_a_performed_delivery(
    composed: OpenMesh, executor: RecordingExecutor, clock: VirtualClock
) -> None:
    def too_early() -> Deferred:
        return Deferred(SECOND)

    made = only(too_early)
    mesh = await composed(made, executor=executor)
    run = await mesh.start_run(made)
    runner = Runner(mesh)

    (first,) = await executor.deliver(runner)
    early = await runner.perform(delivery(run))
    clock.advance(1)
    second = await runner.perform(delivery(run))

    assert (first.status, second.status) == ("performed", "performed")
    assert (early.status, early.reason) == ("skipped", "not_yet_visible")


async def test_a_payload_with_further_keys_is_performed(composed: OpenMesh) -> None:
    made = only(fine)
    mesh = await composed(made)
    run = await mesh.start_run(made)

    report = await Runner(mesh).perform({**delivery(run), "priority": object(), "\ud800": 1})  # type: ignore[dict-item]

    assert report.status == "performed"


# -- reasons to skip -------------------------------------------------------------------------


async def test_a_delivery_for_no_run_is_skipped(composed: OpenMesh) -> None:
    mesh = await composed(only(fine))

    reports = [
        await Runner(mesh).perform(delivery(run_id)) for run_id in (NOBODY, "no uuid", "x" * 10_000)
    ]

    assert {(one.status, one.reason) for one in reports} == {("skipped", "unknown_run")}
    assert reports[0] == PerformReport(
        status="skipped", reason="unknown_run", run_id=NOBODY, step="first", attempt=1
    )


async def test_a_delivery_for_no_step_is_skipped(composed: OpenMesh) -> None:
    made = only(fine)
    mesh = await composed(made)
    run = await mesh.start_run(made)
    perform = Runner(mesh).perform

    reports = [
        await perform(delivery(run, "nowhere")),
        await perform(delivery(run, "compensate:first")),
        await perform(undoing(run, step="nowhere", attempt=1)),
    ]

    assert {one.reason for one in reports} == {"unknown_step"}


@pytest.mark.parametrize("attempt", [2, 2**63 - 1])
async def test_an_attempt_that_never_was_is_not_scheduled(composed: OpenMesh, attempt: int) -> None:
    made = in_a_row("two", fine, fine)
    mesh = await composed(made)
    run = await mesh.start_run(made)
    perform = Runner(mesh).perform

    reports = [
        await perform(delivery(run, attempt=attempt)),
        await perform(delivery(run, "second")),
    ]

    assert [one.reason for one in reports] == ["not_scheduled"] * 2


async def test_an_attempt_that_is_not_due_is_not_yet_visible(
    composed: OpenMesh, clock: VirtualClock
) -> None:
    made = workflow("timer", first=(first := wait(SECOND)), transitions=path(first))
    mesh = await composed(made)
    run = await mesh.start_run(made)
    perform = Runner(mesh).perform

    early = await perform(delivery(run))
    clock.advance(1)
    due = await perform(delivery(run))

    assert (early.status, early.reason) == ("skipped", "not_yet_visible")
    assert due.status == "performed"
    assert (await mesh.inspect_run(run.id)).status == "completed"


async def test_an_attempt_that_somebody_performs_is_already_claimed(composed: OpenMesh) -> None:
    gate = Gate()
    made = only(gate.wait)
    mesh = await composed(made)
    run = await mesh.start_run(made)
    perform = Runner(mesh).perform
    first = asyncio.create_task(perform(delivery(run)))
    await gate.reached()

    second = await perform(delivery(run))

    gate.opened.set()
    assert (second.status, second.reason) == ("skipped", "already_claimed")
    assert (await first).status == "performed"


async def test_an_attempt_that_has_ended_is_stale(composed: OpenMesh) -> None:
    made = only(fail, retry=Retry(2, backoff_min=SECOND))
    mesh = await composed(made)
    run = await mesh.start_run(made)
    perform = Runner(mesh).perform
    await perform(delivery(run))

    report = await perform(delivery(run))

    assert (report.status, report.reason) == ("skipped", "stale_attempt")


async def test_an_attempt_that_another_mesh_has_ended_is_stale_here_too(
    on_file: OpenMesh,
) -> None:
    made = in_a_row("two", fine, fine)
    here, there = await on_file(made), await on_file(made)
    run = await here.start_run(made)
    await Runner(there).perform(delivery(run))

    report = await Runner(here).perform(delivery(run))

    assert (report.status, report.reason) == ("skipped", "stale_attempt")


async def test_a_run_that_is_over_needs_nothing(composed: OpenMesh) -> None:
    made = in_a_row("two", fine, fine)
    mesh = await composed(made)
    run = await mesh.start_run(made)
    await mesh.cancel_run(run.id)
    perform = Runner(mesh).perform

    reports = [
        await perform(payload)
        for payload in (
            delivery(run),
            delivery(run, "second"),
            delivery(run, attempt=9),
            undoing(run),
        )
    ]

    assert [one.reason for one in reports] == ["run_over"] * 4


async def test_a_mesh_without_the_workflow_skips_and_leaves_it_to_others(
    composed: OpenMesh,
) -> None:
    made = only(fine)
    knows, knows_not = await composed(made), await composed()
    run = await knows.start_run(made)

    skipped = await Runner(knows_not).perform(delivery(run))

    assert (skipped.status, skipped.reason) == ("skipped", "unknown_workflow")
    assert (await Runner(knows).perform(delivery(run))).status == "performed"


async def test_one_attempt_delivered_a_hundred_times_at_once_is_performed_once(
    on_file: OpenMesh,
) -> None:
    calls: list[int] = []
    made = in_a_row("counted", lambda: calls.append(1), fine)
    meshes = [await on_file(made) for _ in range(3)]
    run = await meshes[0].start_run(made)

    reports = await asyncio.gather(
        *(Runner(meshes[one % 3]).perform(delivery(run)) for one in range(100))
    )

    assert calls == [1]
    assert [one.status for one in reports].count("performed") == 1
    assert {one.reason for one in reports} <= {None, "already_claimed", "stale_attempt"}


async def test_a_lease_that_ran_out_meanwhile_makes_the_delivery_stale(
    composed: OpenMesh, clock: VirtualClock
) -> None:
    gate = Gate()
    made = only(gate.wait)
    mesh = await composed(made)
    run = await mesh.start_run(made)
    performing = asyncio.create_task(Runner(mesh).perform(delivery(run)))
    await gate.reached()
    clock.advance(61)
    await mesh.recover()

    gate.opened.set()
    report = await performing

    assert (report.status, report.reason) == ("skipped", "stale_attempt")
    assert attempts_of(await history(mesh, run)) == ["lost", "scheduled"]


async def test_every_skip_is_told_to_telemetry(composed: OpenMesh) -> None:
    listener = Listener()
    made = only(fine)
    mesh = await composed(made, telemetry=listener)
    run = await mesh.start_run(made)
    perform = Runner(mesh).perform
    listener.events.clear()

    await perform(delivery(NOBODY))
    await perform(delivery(run, attempt=3))

    first, second = listener.of("step.skipped")
    assert first.metadata["reason"] == "unknown_run"
    assert (second.metadata["run_id"], second.metadata["step"], second.metadata["attempt"]) == (
        run.id,
        "first",
        3,
    )
    assert second.metadata["reason"] == "not_scheduled"
    assert second.metadata["workflow"] == "only"


# -- compensations ---------------------------------------------------------------------------


async def undone(mesh: SquidMesh, made: Any, executor: RecordingExecutor) -> Run:
    """A run whose compensation is scheduled."""
    run = await mesh.start_run(made)
    await executor.deliver(Runner(mesh))
    await executor.deliver(Runner(mesh))
    return await history(mesh, run)


def compensated(undo: Any = fine) -> Any:
    first = step(fine, compensate=compensation(undo, retry=Retry(2)))
    second = step(fail)
    return workflow("undone", first=first, second=second, transitions=path(first, second))


async def test_a_compensation_is_enqueued_as_such_and_performed(
    composed: OpenMesh, executor: RecordingExecutor
) -> None:
    made = compensated()
    mesh = await composed(made, executor=executor)
    run = await undone(mesh, made, executor)
    assert run.status == "compensating"

    (report,) = await executor.deliver(Runner(mesh))

    assert executor.payloads[-1] == undoing(run, step="compensate:first", attempt=1)
    assert (report.status, report.step) == ("performed", "compensate:first")
    assert (await mesh.inspect_run(run.id)).status == "failed"


@pytest.mark.parametrize(
    "named",
    [
        {},
        {"step": None, "attempt": None},
        {"step": "first"},
        {"step": "compensate:first"},
        {"step": "first", "attempt": 1},
        {"step": "compensate:first", "attempt": 1},
    ],
    ids=str,
)
async def test_a_compensation_may_be_named_fully_in_part_or_not_at_all(
    composed: OpenMesh, executor: RecordingExecutor, named: dict[str, Json]
) -> None:
    made = compensated()
    mesh = await composed(made, executor=executor)
    run = await undone(mesh, made, executor)

    report = await Runner(mesh).perform(undoing(run, **named))

    assert report == PerformReport(
        status="performed", run_id=run.id, step="compensate:first", attempt=1
    )


async def test_a_compensation_that_is_not_due_says_why(
    composed: OpenMesh, executor: RecordingExecutor
) -> None:
    made = compensated(fail)
    mesh = await composed(made, executor=executor)
    fresh = await mesh.start_run(made)
    perform = Runner(mesh).perform
    before = await perform(undoing(fresh))
    run = await undone(mesh, made, executor)
    await executor.deliver(Runner(mesh))

    stale = await perform(undoing(run, step="first", attempt=1))
    await perform(undoing(run))
    over = await perform(undoing(run))

    assert (before.reason, stale.reason, over.reason) == (
        "not_scheduled",
        "stale_attempt",
        "run_over",
    )


async def test_a_compensation_in_progress_is_already_claimed(
    composed: OpenMesh, executor: RecordingExecutor
) -> None:
    gate = Gate()
    made = compensated(gate.wait)
    mesh = await composed(made, executor=executor)
    run = await undone(mesh, made, executor)
    first = asyncio.create_task(Runner(mesh).perform(undoing(run)))
    await gate.reached()

    second = await Runner(mesh).perform(undoing(run))

    gate.opened.set()
    assert second.reason == "already_claimed"
    assert (await first).status == "performed"


# -- payloads that nobody enqueued -----------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (None, "invalid_payload"),
        ("step", "invalid_payload"),
        ([], "invalid_payload"),
        ({}, "unknown_kind"),
        ({"kind": None}, "unknown_kind"),
        ({"kind": []}, "unknown_kind"),
        ({"kind": "event"}, "unknown_kind"),
        ({"kind": "step"}, "invalid_payload"),
        ({"kind": "step", "run_id": 7, "step": "first", "attempt": 1}, "invalid_payload"),
        ({"kind": "step", "run_id": "", "step": "first", "attempt": 1}, "invalid_payload"),
        ({"kind": "step", "run_id": "a\0", "step": "first", "attempt": 1}, "invalid_payload"),
        ({"kind": "step", "run_id": "\ud800", "step": "first", "attempt": 1}, "invalid_payload"),
        ({"kind": "step", "run_id": NOBODY, "attempt": 1}, "invalid_payload"),
        ({"kind": "step", "run_id": NOBODY, "step": 1, "attempt": 1}, "invalid_payload"),
        ({"kind": "step", "run_id": NOBODY, "step": "first"}, "invalid_payload"),
        ({"kind": "step", "run_id": NOBODY, "step": "first", "attempt": 0}, "invalid_payload"),
        ({"kind": "step", "run_id": NOBODY, "step": "first", "attempt": True}, "invalid_payload"),
        ({"kind": "step", "run_id": NOBODY, "step": "first", "attempt": "1"}, "invalid_payload"),
        ({"kind": "step", "run_id": NOBODY, "step": "first", "attempt": 1.0}, "invalid_payload"),
        ({"kind": "compensation"}, "invalid_payload"),
        ({"kind": "compensation", "run_id": NOBODY, "step": 1}, "invalid_payload"),
        ({"kind": "compensation", "run_id": NOBODY, "step": "a", "attempt": 0}, "invalid_payload"),
        ({"kind": "cron"}, "invalid_payload"),
        ({"kind": "cron", "workflow": "clocked"}, "invalid_payload"),
        ({"kind": "cron", "workflow": "clocked", "trigger": ""}, "invalid_payload"),
        ({"kind": "cron", "workflow": "clocked", "trigger": "unheard_of"}, "unknown_trigger"),
        ({"kind": "cron", "workflow": "clocked", "trigger": "by_hand"}, "unknown_trigger"),
        ({"kind": "cron", "workflow": "clocked", "trigger": "needy"}, "invalid_payload"),
        ({"kind": "cron", "workflow": "clocked", "trigger": "once"}, "missing_schedule_identity"),
        (
            {
                "kind": "cron",
                "workflow": "clocked",
                "trigger": "once",
                "intended_window": {"start_at": "2030-01-01"},
            },
            "missing_schedule_identity",
        ),
        (
            {"kind": "cron", "workflow": "clocked", "trigger": "daily", "signal_id": ""},
            "invalid_schedule_signal_id",
        ),
        (
            {"kind": "cron", "workflow": "clocked", "trigger": "daily", "signal_id": 7},
            "invalid_schedule_signal_id",
        ),
        (
            {"kind": "cron", "workflow": "clocked", "trigger": "once", "signal_id": "\ud800"},
            "invalid_payload",
        ),
        (
            {"kind": "cron", "workflow": "clocked", "trigger": "daily", "intended_window": "today"},
            "invalid_schedule_intended_window",
        ),
        (
            {
                "kind": "cron",
                "workflow": "clocked",
                "trigger": "daily",
                "intended_window": {"start_at": 1},
            },
            "invalid_schedule_intended_window",
        ),
        (
            {
                "kind": "cron",
                "workflow": "clocked",
                "trigger": "daily",
                "intended_window": {"why": object()},
            },
            "invalid_payload",
        ),
    ],
    ids=repr,
)
async def test_a_payload_that_nobody_enqueued_is_refused_with_a_code(
    on_file: OpenMesh, payload: Any, code: str
) -> None:
    mesh = await on_file(clocked())

    with pytest.raises(InvalidPayloadForExecutorError) as caught:
        await Runner(mesh).perform(payload)

    assert caught.value.code == code
    assert (await mesh.list_runs()).runs == ()


# -- activations -----------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Needy:
    wanted: str


def clocked(tell: Any = fine) -> Any:
    first = step(tell)
    return workflow(
        "clocked",
        Order,
        daily=cron("0 9 * * *", timezone="Europe/Lisbon"),
        once=cron("0 9 * * *", idempotency="return_existing_run"),
        needy=cron("0 9 * * *", payload=Needy),
        first=first,
        transitions=path(first),
    )


def activation(trigger: str, **more: Json) -> dict[str, Json]:
    return {"kind": "cron", "workflow": "clocked", "trigger": trigger, **more}


WINDOW: Mapping[str, Json] = {"start_at": "2030-01-01T09:00:00", "end_at": "2030-01-02T09:00:00"}


async def test_an_activation_starts_a_run_that_knows_its_schedule(composed: OpenMesh) -> None:
    schedules: list[object] = []

    def tell(context: StepContext) -> None:
        schedules.append(context.schedule)

    made = clocked(tell)
    mesh = await composed(made)

    report = await Runner(mesh).perform(
        activation("daily", signal_id="s1", intended_window=dict(WINDOW))
    )

    assert (report.status, report.reason) == ("started", None)
    assert report.run_id is not None
    await mesh.run_until_idle()
    run = await mesh.inspect_run(report.run_id)
    assert (run.status, run.trigger, run.payload) == (
        "completed",
        "daily",
        {"number": "o1", "amount": 100},
    )
    assert schedules == [
        {
            "workflow": "clocked",
            "trigger": "daily",
            "cron_expression": "0 9 * * *",
            "timezone": "Europe/Lisbon",
            "received_at": "2030-01-01T00:00:00+00:00",
            "signal_id": "s1",
            "intended_window": dict(WINDOW),
        }
    ]


async def test_without_idempotency_each_delivery_starts_a_run(composed: OpenMesh) -> None:
    mesh = await composed(clocked())
    runner = Runner(mesh)

    reports = [await runner.perform(activation("daily", signal_id="s1")) for _ in range(2)]

    assert [one.status for one in reports] == ["started", "started"]
    assert reports[0].run_id != reports[1].run_id


@pytest.mark.parametrize("identity", [{"signal_id": "s1"}, {"intended_window": dict(WINDOW)}])
async def test_a_second_delivery_of_one_activation_finds_its_run(
    on_file: OpenMesh, identity: dict[str, Json]
) -> None:
    here, there = await on_file(clocked()), await on_file(clocked())
    first = await Runner(here).perform(activation("once", **identity))
    await here.run_until_idle()

    reports = [await Runner(mesh).perform(activation("once", **identity)) for mesh in (here, there)]

    assert first.status == "started"
    for report in reports:
        assert report == PerformReport(
            status="skipped", reason="duplicate_activation", run_id=first.run_id
        )


async def test_of_many_deliveries_of_one_activation_at_once_one_starts_a_run(
    on_file: OpenMesh,
) -> None:
    meshes = [await on_file(clocked()) for _ in range(2)]

    reports = await asyncio.gather(
        *(Runner(meshes[one % 2]).perform(activation("once", signal_id="s1")) for one in range(20))
    )

    assert [one.status for one in reports].count("started") == 1
    assert len({one.run_id for one in reports}) == 1
    assert len((await meshes[0].list_runs()).runs) == 1


async def test_other_windows_and_signals_are_other_activations(composed: OpenMesh) -> None:
    runner = Runner(await composed(clocked()))
    other = {**WINDOW, "end_at": "2030-01-03T09:00:00"}

    reports = [
        await runner.perform(activation("once", **identity))
        for identity in (
            {"signal_id": "s1"},
            {"signal_id": "s2"},
            {"intended_window": dict(WINDOW)},
            {"intended_window": other},
            {"signal_id": "s3", "intended_window": dict(WINDOW)},
        )
    ]

    assert [one.status for one in reports] == ["started"] * 5


async def test_an_activation_of_a_workflow_that_is_not_here_is_skipped(
    composed: OpenMesh,
) -> None:
    mesh = await composed()

    report = await Runner(mesh).perform(activation("daily"))

    assert (report.status, report.reason) == ("skipped", "unknown_workflow")


# -- accidents -------------------------------------------------------------------------------


async def test_an_accident_of_the_store_is_raised_so_that_the_host_delivers_again(
    composed: OpenMesh, store: ShakyStore
) -> None:
    made = only(fine)
    mesh = await composed(made)
    run = await mesh.start_run(made)
    runner = Runner(mesh)

    store.loads = 1
    with pytest.raises(StoreUnavailableError):
        await runner.perform(delivery(run))
    store.before = 1
    with pytest.raises(StoreUnavailableError):
        await runner.perform(delivery(run))

    assert (await runner.perform(delivery(run))).status == "performed"


async def test_a_claim_whose_answer_was_lost_is_not_performed_without_proof(
    composed: OpenMesh, store: ShakyStore, clock: VirtualClock
) -> None:
    calls: list[int] = []
    made = only(lambda context: calls.append(context.attempt))
    mesh = await composed(made)
    run = await mesh.start_run(made)
    runner = Runner(mesh)

    store.after = 1
    with pytest.raises(StoreUnavailableError):
        await runner.perform(delivery(run))
    again = await runner.perform(delivery(run))

    assert again.reason == "already_claimed"
    assert calls == []
    clock.advance(61)
    await mesh.run_until_idle()
    assert calls == [2]


async def test_a_cancelled_host_job_lets_go_of_its_claim(
    composed: OpenMesh, clock: VirtualClock
) -> None:
    gate = Gate()
    made = only(gate.wait)
    mesh = await composed(made)
    run = await mesh.start_run(made)
    performing = asyncio.create_task(Runner(mesh).perform(delivery(run)))
    await gate.reached()

    performing.cancel()
    await asyncio.gather(performing, return_exceptions=True)
    clock.advance(30)
    await asyncio.sleep(0)  # noqa: TID251  the heart has its chance to beat
    clock.advance(31)
    recovered = await mesh.recover()

    assert performing.cancelled()
    assert recovered.reclaimed == 1
    assert step_of(await history(mesh, run), "first").deliveries == 1


async def test_what_a_host_has_bound_for_its_log_is_as_it_was_afterwards(
    composed: OpenMesh,
) -> None:
    made = only(fine)
    mesh = await composed(made)
    run = await mesh.start_run(made)
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request="r1", step="the host's own")

    await Runner(mesh).perform(delivery(run))

    assert structlog.contextvars.get_contextvars() == {"request": "r1", "step": "the host's own"}
    structlog.contextvars.clear_contextvars()


async def test_a_runner_and_a_worker_share_a_run_and_never_an_attempt(
    on_file: OpenMesh, clock: VirtualClock
) -> None:
    calls: list[str] = []

    def note(context: StepContext) -> None:
        calls.append(context.runnable_key)

    made = in_a_row("shared", note, note, note)
    executor = RecordingExecutor()
    here, there = await on_file(made, executor=executor), await on_file(made)
    worker = Worker(there)
    working = asyncio.create_task(worker.run())

    runs = [await here.start_run(made) for _ in range(10)]
    for _ in range(10):
        await executor.deliver(Runner(here))
    worker.stop()
    clock.advance(1)
    await working
    await here.run_until_idle(timeout=timedelta(seconds=10))

    assert len(calls) == len(set(calls)) == 30
    assert {(await here.inspect_run(run.id)).status for run in runs} == {"completed"}


async def test_an_error_in_a_compensation_is_kept_where_it_belongs(
    composed: OpenMesh, executor: RecordingExecutor
) -> None:
    made = compensated(fail)
    mesh = await composed(made, executor=executor)
    run = await undone(mesh, made, executor)

    await executor.deliver(Runner(mesh))
    await executor.deliver(Runner(mesh))

    run = await history(mesh, run)
    assert attempts_of(run, "compensate:first") == ["failed", "failed"]
    assert [one["step"] for one in error_of(run)["details"]["compensation_failures"]] == ["first"]
