"""What happens to commands on their way to the store: races, accidents, and lost answers."""

import asyncio
import gc
from collections.abc import Awaitable
from typing import Any

import pytest

from squidmesh import (
    InvalidTransitionError,
    JournalCorruptError,
    RunExistsError,
    Runner,
    RunNotFoundError,
    SquidMesh,
    StoreConflictError,
    StoreUnavailableError,
    Worker,
)
from squidmesh.domain.commands import CancelRun
from squidmesh.domain.values import Json
from squidmesh.runtime.asks import Ask
from squidmesh.runtime.committer import MOST_TRIES
from squidmesh.testing.clock import VirtualClock
from tests.runtime.conftest import OpenMesh
from tests.runtime.support import (
    PATIENCE,
    Gate,
    ShakyStore,
    attempts_of,
    ended,
    history,
    in_a_row,
    only,
    turns,
    until,
)

pytestmark = pytest.mark.anyio

RUN_ID = "00000000-0000-7000-8000-000000000001"


async def quick() -> None: ...


def delivery(run_id: str) -> dict[str, Json]:
    return {"kind": "step", "run_id": run_id, "step": "first", "attempt": 1}


async def passing_time(clock: VirtualClock, work: Awaitable[object]) -> None:
    """Wait for *work* while time goes on."""
    working = asyncio.ensure_future(work)
    async with asyncio.timeout(PATIENCE):
        while not working.done():
            clock.advance(0.25)
            await turns(10)
    await working


@pytest.mark.parametrize("accident", ["before", "after"])
async def test_a_report_outlives_a_store_that_is_away_and_has_its_effect_once(
    composed: OpenMesh, store: ShakyStore, clock: VirtualClock, accident: str
) -> None:
    calls: list[str] = []

    async def first() -> dict[str, int]:
        calls.append("first")
        setattr(store, accident, 3)
        return {"a": 1}

    async def second(a: int) -> dict[str, int]:
        calls.append("second")
        return {"b": a + 1}

    made = in_a_row("shaken", first, second)
    mesh = await composed(made)
    run = await mesh.start_run(made)

    await passing_time(clock, mesh.run_until_idle())

    run = await history(mesh, run)
    assert (run.status, run.context) == ("completed", {"a": 1, "b": 2})
    assert calls == ["first", "second"]
    assert run.attempts is not None
    assert [attempt.status for attempt in run.attempts] == ["completed", "completed"]


async def test_a_delivery_whose_report_lost_its_answer_is_performed(
    composed: OpenMesh, store: ShakyStore, clock: VirtualClock
) -> None:
    async def body() -> None:
        store.after = 1

    made = only(body)
    mesh = await composed(made)
    run = await mesh.start_run(made)
    reports: list[Any] = []

    async def perform() -> None:
        payload = delivery(run.id)
        reports.append(await Runner(mesh).perform(payload))

    await passing_time(clock, perform())

    assert reports[0].status == "performed"
    assert (await mesh.inspect_run(run.id)).status == "completed"


async def test_a_report_that_came_too_late_while_the_store_was_away_is_no_performance(
    composed: OpenMesh, store: ShakyStore, clock: VirtualClock
) -> None:
    async def body() -> None:
        store.before = 1
        store.beats = 1_000_000

    made = only(body)
    mesh, other = await composed(made), await composed(made)
    run = await mesh.start_run(made)
    payload = delivery(run.id)
    performing = asyncio.create_task(Runner(mesh).perform(payload))
    await until(lambda: store.beats > 0)
    await turns()

    # Another mesh finds the lease over before this one reports again.
    store._clock.advance(61)  # type: ignore[attr-defined]
    await other.recover()
    report = await performing

    assert (report.status, report.reason) == ("skipped", "stale_attempt")
    assert attempts_of(await history(mesh, run)) == ["lost", "scheduled"]


@pytest.mark.parametrize("accident", ["before", "after"])
async def test_a_start_whose_commit_failed_raises_and_its_key_tells_what_happened(
    composed: OpenMesh, store: ShakyStore, accident: str
) -> None:
    made = only(quick)
    mesh = await composed(made)
    setattr(store, accident, 1)

    with pytest.raises(StoreUnavailableError):
        await mesh.start_run(made, idempotency_key="k1")
    again = await mesh.start_run(made, idempotency_key="k1")

    assert [run.id for run in (await mesh.list_runs()).runs] == [again.id]


async def test_a_cancel_and_a_report_of_two_processes_are_put_in_some_order(
    on_file: OpenMesh,
) -> None:
    made = in_a_row("raced", quick, quick, quick)
    here, there = await on_file(made), await on_file(made)

    for _ in range(20):
        run = await here.start_run(made)
        (_, cancelled) = await asyncio.gather(
            here.run_until_idle(), there.cancel_run(run.id), return_exceptions=True
        )
        run = await history(there, run)
        if isinstance(cancelled, BaseException):
            assert isinstance(cancelled, InvalidTransitionError)
            assert run.status == "completed"
        else:
            assert run.status == "cancelled"
        assert await history(here, run) == run


async def test_a_report_that_lost_the_race_to_a_cancel_is_recorded(on_file: OpenMesh) -> None:
    gate = Gate()

    async def body() -> dict[str, int]:
        await gate.wait()
        return {"a": 1}

    made = in_a_row("raced", body, quick)
    here, there = await on_file(made), await on_file(made)
    run = await here.start_run(made)
    working = asyncio.create_task(here.run_until_idle())
    await gate.reached()

    await there.cancel_run(run.id)
    gate.opened.set()
    await working

    run = await history(here, run)
    assert (run.status, attempts_of(run), attempts_of(run, "second")) == (
        "cancelled",
        ["completed"],
        [],
    )


async def test_many_commands_at_once_go_out_in_few_commits(
    composed: OpenMesh, store: ShakyStore
) -> None:
    made = only(quick)
    mesh = await composed(made)

    runs = await asyncio.gather(*(mesh.start_run(made) for _ in range(100)))

    assert len({run.id for run in runs}) == 100
    assert len(store.commits) < 5


async def test_of_two_starts_with_one_id_at_once_one_is_refused(on_file: OpenMesh) -> None:
    made = only(quick)
    meshes = [await on_file(made) for _ in range(2)]

    answers = await asyncio.gather(
        *(meshes[one % 2].start_run(made, run_id=RUN_ID) for one in range(6)),
        return_exceptions=True,
    )

    refused = [one for one in answers if isinstance(one, RunExistsError)]
    assert len(refused) == 5


async def test_a_command_that_is_given_before_the_run_exists_is_refused_alone(
    composed: OpenMesh,
) -> None:
    made = only(quick)
    mesh = await composed(made)
    await mesh.engine()

    answers = await asyncio.gather(
        mesh.cancel_run(RUN_ID),
        mesh.start_run(made, run_id=RUN_ID),
        mesh.start_run(made),
        return_exceptions=True,
    )

    assert isinstance(answers[0], RunNotFoundError)
    assert not any(isinstance(one, BaseException) for one in answers[1:])


async def test_a_command_about_no_run_is_refused(composed: OpenMesh) -> None:
    mesh = await composed()

    with pytest.raises(RunNotFoundError):
        await mesh.cancel_run(RUN_ID)


async def test_a_damaged_run_fails_its_own_commands_and_no_others(
    composed: OpenMesh, store: ShakyStore
) -> None:
    made = only(quick)
    writer, mesh = await composed(made), await composed(made)
    damaged, other = await writer.start_run(made), await writer.start_run(made)
    store.unreadable = {damaged.id}

    answers = await asyncio.gather(
        mesh.cancel_run(damaged.id), mesh.cancel_run(other.id), return_exceptions=True
    )

    assert isinstance(answers[0], JournalCorruptError)
    assert not isinstance(answers[1], BaseException)
    assert (await mesh.inspect_run(other.id)).status == "cancelled"


async def test_an_observer_that_raises_changes_no_answer(
    composed: OpenMesh, caplog: pytest.LogCaptureFixture
) -> None:
    made = only(quick)
    mesh = await composed(made)

    def raise_always(_commits: object) -> None:
        raise ZeroDivisionError("an observer's own fault")

    (await mesh.engine()).committer.observers.insert(0, raise_always)

    run = await ended(mesh, made)

    assert run.status == "completed"
    assert any("observer.failed" in one.getMessage() for one in caplog.records)


async def test_who_loses_every_race_is_told_so(
    composed: OpenMesh, store: ShakyStore, clock: VirtualClock
) -> None:
    made = only(quick)
    mesh = await composed(made)
    run = await mesh.start_run(made)
    engine = await mesh.engine()
    ask = Ask(run.id, CancelRun())
    ask.tries = MOST_TRIES - 1

    other = await composed(made)
    await other.cancel_run(run.id)  # what this mesh knows of the run is overtaken
    with pytest.raises(StoreConflictError):
        await engine.committer.ask(ask)


async def test_a_wait_that_is_cancelled_does_not_recall_the_command(
    composed: OpenMesh,
) -> None:
    made = only(quick)
    mesh = await composed(made)
    await mesh.engine()
    starting = asyncio.create_task(mesh.start_run(made, run_id=RUN_ID))
    await asyncio.sleep(0)  # noqa: TID251  it is queued now

    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await turns()

    assert (await mesh.inspect_run(RUN_ID)).status == "pending"


async def test_closing_commits_what_was_asked_for(clock: VirtualClock) -> None:
    made = only(quick)
    store = ShakyStore(clock=clock)
    mesh = SquidMesh(store=store, workflows=[made], clock=clock)
    await mesh.engine()
    starting = [asyncio.create_task(mesh.start_run(made)) for _ in range(5)]
    await asyncio.sleep(0)  # noqa: TID251  they are queued now

    await mesh.aclose()

    assert len(await asyncio.gather(*starting)) == 5


async def test_commands_behind_the_close_fail_and_do_not_hang(tmp_path: Any) -> None:
    made = only(quick)
    mesh = SquidMesh.open(f"sqlite:///{tmp_path / 'a.db'}", workflows=[made])
    run = await mesh.start_run(made)
    committer = (await mesh.engine()).committer
    await mesh.aclose()

    for _ in range(3):
        with pytest.raises(StoreUnavailableError):
            async with asyncio.timeout(PATIENCE):
                await committer.ask(Ask(run.id, CancelRun(), reloads=True))


async def test_a_mesh_may_be_closed_while_its_worker_runs(
    composed: OpenMesh, tmp_path: Any
) -> None:
    gate = Gate()
    made = only(gate.wait)
    mesh = SquidMesh.open(f"sqlite:///{tmp_path / 'a.db'}", workflows=[made])
    await mesh.start_run(made)
    working = asyncio.create_task(Worker(mesh).run())
    await gate.reached()

    await mesh.aclose()
    gate.opened.set()
    await turns()
    working.cancel()
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(working, return_exceptions=True)

    assert working.done()


async def test_what_is_known_of_runs_does_not_grow_with_those_that_are_over(
    composed: OpenMesh,
) -> None:
    made = only(quick)
    mesh = await composed(made)
    runs = [await ended(mesh, made) for _ in range(5)]
    for run in runs:
        with pytest.raises(InvalidTransitionError):
            await mesh.cancel_run(run.id)

    states = (await mesh.engine()).committer.states._states

    assert not [state for state in states.values() if state.status.is_final]


async def test_an_accident_that_nobody_waits_for_any_more_disturbs_nobody() -> None:
    troubles: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    handler = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, trouble: troubles.append(trouble))
    ask = Ask("nobody", CancelRun())

    ask.fail(StoreUnavailableError("the line is cut"))
    del ask
    gc.collect()

    loop.set_exception_handler(handler)
    assert troubles == []
