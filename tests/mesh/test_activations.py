"""What a clock starts: without a payload, known by its window or signal, and started once."""

import asyncio
import base64
import hashlib
from datetime import date
from typing import Any, Final

import attrs
import pytest

from squidmesh import (
    DefinitionError,
    InvalidPayloadForExecutorError,
    Runner,
    StepContext,
    Workflow,
    cron,
    log,
    manual,
    path,
    step,
)
from squidmesh.testing.clock import VirtualClock
from tests.mesh.support import (
    MINUTE,
    Deploy,
    OpenMesh,
    Order,
    contents,
    context_of,
    entries_of,
    history,
    step_of,
)

pytestmark = pytest.mark.anyio

START: Final = "2026-01-01T09:00:00Z"
END: Final = "2026-01-02T09:00:00Z"
WINDOW: Final = {"start_at": START, "end_at": END}


@attrs.frozen(kw_only=True)
class Digest:
    """Every field has a default, so a clock can start it."""

    day: date = date(2026, 1, 1)
    feed: str = "main"


@attrs.frozen(kw_only=True)
class Needy:
    """A clock cannot know the number."""

    number: str


class Daily(Workflow[Digest]):
    name = "daily"
    by_hand = manual()
    plain = cron("0 9 * * 1-5", timezone="Europe/Lisbon")
    once = cron("0 9 * * *", idempotency="return_existing_run")
    skipping = cron("0 9 * * *", idempotency="skip_duplicate")
    needy = cron("0 9 * * *", payload=Needy)
    read = step(lambda: {"read": True})
    transitions = path(read)


class Weekly(Workflow[Digest]):
    name = "weekly"
    once = cron("0 9 * * 1", idempotency="return_existing_run")
    read = log("read")


def tick(trigger: str, workflow: str = "daily", **more: Any) -> dict[str, Any]:
    return {"kind": "cron", "workflow": workflow, "trigger": trigger, **more}


def derived_id(workflow: str, trigger: str, start: str, end: str) -> str:
    """A window's id: each part behind its length, hashed, in base64 that suits an address."""
    parts = "".join(f"{len(part)}:{part}" for part in (workflow, trigger, start, end))
    digest = hashlib.sha256(parts.encode()).digest()
    return "sha256:" + base64.urlsafe_b64encode(digest).decode().rstrip("=")


async def schedule_after(mesh: Any, payload: dict[str, Any]) -> dict[str, Any]:
    """Let a clock start a run, and return what that remembers of it."""
    report = await Runner(mesh).perform(payload)
    assert report.run_id is not None
    schedule = context_of(await mesh.inspect_run(report.run_id))["schedule"]
    assert isinstance(schedule, dict)
    return schedule


async def test_an_activation_brings_no_payload_only_the_defaults_count(
    open_mesh: OpenMesh,
) -> None:
    mesh = await open_mesh(Daily)

    report = await Runner(mesh).perform(
        tick("plain", payload={"feed": "other"}, context={"a": 1}, unknown="ignored")
    )

    assert report.run_id is not None
    run = await history(mesh, report.run_id)
    assert (report.status, report.reason, report.step, report.attempt) == (
        "started",
        None,
        None,
        None,
    )
    assert run.payload == {"day": "2026-01-01", "feed": "main"}
    assert (run.workflow, run.trigger, run.status) == ("daily", "plain", "pending")
    assert set(context_of(run)) == {"schedule"}


async def test_fields_without_a_default_make_an_activation_invalid_and_leave_no_trace(
    open_mesh: OpenMesh,
) -> None:
    mesh = await open_mesh(Daily)
    before = await contents(mesh)

    with pytest.raises(InvalidPayloadForExecutorError) as refused:
        await Runner(mesh).perform(tick("needy"))

    assert refused.value.code == "invalid_payload"
    assert "number" in str(refused.value)
    assert await contents(mesh) == before


async def test_the_schedule_says_when_by_which_trigger_and_for_which_window_a_run_was_started(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    mesh = await open_mesh(Daily)
    clock.advance(1.999999)

    schedule = await schedule_after(
        mesh, tick("plain", signal_id="s1", intended_window=WINDOW, received_at="1999-01-01")
    )

    assert schedule == {
        "workflow": "daily",
        "trigger": "plain",
        "cron_expression": "0 9 * * 1-5",
        "timezone": "Europe/Lisbon",
        "received_at": "2030-01-01T00:00:01+00:00",
        "signal_id": "s1",
        "intended_window": WINDOW,
    }


async def test_without_a_signal_the_id_is_derived_from_workflow_trigger_and_whole_window(
    open_mesh: OpenMesh,
) -> None:
    mesh = await open_mesh(Daily)

    schedule = await schedule_after(mesh, tick("plain", intended_window=WINDOW))

    assert schedule["signal_id"] == derived_id("daily", "plain", START, END)


@pytest.mark.parametrize(
    "identity",
    [
        {},
        {"intended_window": None},
        {"intended_window": {}},
        {"intended_window": {"start_at": START}},
        {"intended_window": {"end_at": END, "start_at": None}},
    ],
    ids=range(5),
)
async def test_half_a_window_is_no_identity(open_mesh: OpenMesh, identity: dict[str, Any]) -> None:
    mesh = await open_mesh(Daily)

    schedule = await schedule_after(mesh, tick("plain", **identity))
    with pytest.raises(InvalidPayloadForExecutorError) as refused:
        await Runner(mesh).perform(tick("once", **identity))

    assert schedule["signal_id"] is None
    assert schedule["intended_window"] == identity.get("intended_window")
    assert refused.value.code == "missing_schedule_identity"
    assert len((await mesh.list_runs()).runs) == 1


@pytest.mark.parametrize(
    ("identity", "code"),
    [
        ({"signal_id": ""}, "invalid_schedule_signal_id"),
        ({"signal_id": 7}, "invalid_schedule_signal_id"),
        ({"signal_id": ["s1"]}, "invalid_schedule_signal_id"),
        ({"signal_id": "", "intended_window": WINDOW}, "invalid_schedule_signal_id"),
        ({"intended_window": "today"}, "invalid_schedule_intended_window"),
        ({"intended_window": {**WINDOW, "end_at": 7}}, "invalid_schedule_intended_window"),
    ],
    ids=range(6),
)
@pytest.mark.parametrize("trigger", ["plain", "once"])
async def test_an_identity_that_is_none_is_refused_by_every_trigger(
    open_mesh: OpenMesh, trigger: str, identity: dict[str, Any], code: str
) -> None:
    mesh = await open_mesh(Daily)
    before = await contents(mesh)

    with pytest.raises(InvalidPayloadForExecutorError) as refused:
        await Runner(mesh).perform(tick(trigger, **identity))

    assert refused.value.code == code
    assert await contents(mesh) == before


@pytest.mark.parametrize("trigger", ["once", "skipping"])
async def test_a_second_activation_of_a_window_finds_the_run_whatever_has_become_of_it(
    open_mesh: OpenMesh, clock: VirtualClock, trigger: str
) -> None:
    mesh = await open_mesh(Daily)
    perform = Runner(mesh).perform
    first = await perform(tick(trigger, intended_window=WINDOW))
    await mesh.run_until_idle()
    clock.advance(60 * MINUTE)
    before = await contents(mesh)

    by_window = await perform(tick(trigger, intended_window=WINDOW))
    by_id = await perform(tick(trigger, signal_id=derived_id("daily", trigger, START, END)))

    assert first.status == "started"
    for again in (by_window, by_id):
        assert (again.status, again.reason) == ("skipped", "duplicate_activation")
        assert again.run_id == first.run_id
    assert await contents(mesh) == before


async def test_of_many_activations_of_a_window_at_once_one_starts_a_run(
    open_mesh: OpenMesh,
) -> None:
    mesh = await open_mesh(Daily)
    runners = [Runner(mesh) for _ in range(3)]

    reports = await asyncio.gather(
        *(runners[number % 3].perform(tick("once", intended_window=WINDOW)) for number in range(12))
    )

    (run,) = (await mesh.list_runs()).runs
    assert [report.status for report in reports].count("started") == 1
    assert {report.run_id for report in reports} == {run.id}


async def test_another_window_signal_trigger_or_workflow_is_another_activation(
    open_mesh: OpenMesh,
) -> None:
    mesh = await open_mesh(Daily, Weekly)
    perform = Runner(mesh).perform

    reports = [
        await perform(payload)
        for payload in (
            tick("once", intended_window=WINDOW),
            tick("once", intended_window={**WINDOW, "end_at": START}),
            tick("once", signal_id="s1"),
            tick("once", signal_id="s2", intended_window=WINDOW),
            tick("skipping", intended_window=WINDOW),
            tick("skipping", signal_id="s1"),
            tick("once", "weekly", intended_window=WINDOW),
            tick("once", "weekly", signal_id="s1"),
        )
    ]

    assert [report.status for report in reports] == ["started"] * 8


async def test_the_schedulers_own_signal_counts_and_not_the_window_beside_it(
    open_mesh: OpenMesh,
) -> None:
    mesh = await open_mesh(Daily)
    perform = Runner(mesh).perform
    first = await perform(tick("once", signal_id="s1", intended_window=WINDOW))

    again = await perform(
        tick("once", signal_id="s1", intended_window={**WINDOW, "end_at": "another"})
    )

    assert (again.status, again.run_id) == ("skipped", first.run_id)


async def test_a_window_stays_taken_when_the_workflow_has_changed(deploy: Deploy) -> None:
    class Changed(Workflow[Order]):
        name = "daily"
        once = cron("30 9 * * *", timezone="Asia/Tokyo", idempotency="skip_duplicate")
        other = log("another step")

    async with deploy(Daily) as before:
        first = await Runner(before).perform(tick("once", intended_window=WINDOW))
    async with deploy(Changed) as behind:
        again = await Runner(behind).perform(tick("once", intended_window=WINDOW))

        assert (again.status, again.reason) == ("skipped", "duplicate_activation")
        assert again.run_id == first.run_id


async def test_a_step_reads_the_schedule_and_a_run_of_another_kind_has_none(
    open_mesh: OpenMesh,
) -> None:
    seen: list[tuple[str, object]] = []

    def look(context: StepContext) -> None:
        seen.append((context.trigger, context.schedule))

    class Looking(Workflow[Digest]):
        name = "looking"
        by_hand = manual()
        daily = cron("0 9 * * *")
        a = step(look)

    mesh = await open_mesh(Looking)
    schedule = await schedule_after(mesh, tick("daily", "looking", signal_id="s1"))
    await mesh.run_until_idle()
    run = await mesh.start_run(Looking)
    await mesh.run_until_idle()

    assert seen == [("daily", schedule), ("by_hand", None)]
    assert "schedule" not in context_of(await mesh.inspect_run(run.id))


async def test_no_step_writes_over_the_schedule(open_mesh: OpenMesh) -> None:
    class Overwriting(Workflow[Digest]):
        name = "overwriting"
        daily = cron("0 9 * * *")
        a = step(lambda: {"schedule": "mine"})

    mesh = await open_mesh(Overwriting)
    report = await Runner(mesh).perform(tick("daily", "overwriting", signal_id="s1"))
    assert report.run_id is not None
    await mesh.run_until_idle()

    run = await history(mesh, report.run_id)
    schedule = context_of(run)["schedule"]
    error = step_of(run, "a").error
    assert isinstance(schedule, dict)
    assert schedule["signal_id"] == "s1"
    assert error is not None
    assert (run.status, error["code"]) == ("failed", "invalid_result")


def test_no_step_may_declare_the_schedule_as_its_output() -> None:
    with pytest.raises(DefinitionError) as refused:

        class Overwriting(Workflow[Digest]):
            daily = cron("0 9 * * *")
            a = step(lambda: 1, output="schedule")

    assert [problem.code for problem in refused.value.problems] == ["invalid_output"]


async def test_a_replay_keeps_all_of_the_schedule_but_its_identity_and_takes_no_window(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    mesh = await open_mesh(Daily)
    perform = Runner(mesh).perform
    first = await perform(tick("once", intended_window=WINDOW))
    assert first.run_id is not None
    source = context_of(await mesh.inspect_run(first.run_id))["schedule"]
    clock.advance(MINUTE)

    new = await mesh.replay_run(first.run_id)
    again = await perform(tick("once", intended_window=WINDOW))

    (started,) = entries_of(await history(mesh, new), "run_started")
    kept = context_of(await mesh.inspect_run(new.id))["schedule"]
    assert isinstance(source, dict)
    assert kept == {**source, "signal_id": None} == started.data["schedule"]
    assert again.run_id == first.run_id
