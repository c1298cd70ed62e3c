"""Which body a step runs, when the code has changed since the run was started."""

from typing import Any

import pytest

from squidmesh import JournalCorruptError, Runner, compensation, path, step
from squidmesh.adapters.memory import MemoryStore
from squidmesh.ports.store import StoredDefinition
from squidmesh.runtime.registry import Registry
from squidmesh.system import SystemClock
from squidmesh.testing.clock import VirtualClock
from tests.runtime.conftest import OpenMesh
from tests.runtime.support import ShakyStore, history, in_a_row, step_of, workflow

pytestmark = pytest.mark.anyio


def old(number: str) -> dict[str, str]:
    return {"by": "old"}


def new(number: str) -> dict[str, str]:
    return {"by": "new"}


def last() -> None: ...


def fail() -> None:
    raise OSError


async def started_and_deployed(composed: OpenMesh, before: Any, after: Any) -> tuple[Any, Any]:
    """A run of yesterday's workflow, and the mesh of today."""
    yesterday, today = await composed(before), await composed(after)
    return await yesterday.start_run(before), today


async def test_a_steps_body_is_the_one_that_todays_workflow_declares_under_its_name(
    composed: OpenMesh,
) -> None:
    run, today = await started_and_deployed(
        composed, in_a_row("deployed", old), in_a_row("deployed", new, last)
    )

    await today.run_until_idle()

    run = await history(today, run)
    assert (run.status, run.context) == ("completed", {"by": "new"})
    assert run.steps is not None
    assert [one.name for one in run.steps] == ["first"]


async def test_a_step_that_was_renamed_keeps_its_function(composed: OpenMesh) -> None:
    renamed = step(old)
    run, today = await started_and_deployed(
        composed,
        in_a_row("deployed", old),
        workflow("deployed", renamed=renamed, transitions=path(renamed)),
    )

    await today.run_until_idle()

    run = await history(today, run)
    assert (run.status, run.context) == ("completed", {"by": "old"})


async def test_a_step_whose_function_is_gone_waits_for_somebody_who_has_it(
    composed: OpenMesh,
) -> None:
    other = step(new)
    run, today = await started_and_deployed(
        composed,
        in_a_row("deployed", old),
        workflow("deployed", other=other, transitions=path(other)),
    )

    await today.run_until_idle()
    report = await Runner(today).perform(
        {"kind": "step", "run_id": run.id, "step": "first", "attempt": 1}
    )

    assert (report.status, report.reason) == ("skipped", "unknown_workflow")
    assert (await today.inspect_run(run.id)).status == "pending"
    assert (await today.explain_run(run.id)).reason in (
        "no_worker_for_workflow",
        "pending_dispatch",
    )


async def test_a_compensation_that_is_gone_waits_for_somebody_who_has_it(
    composed: OpenMesh,
) -> None:
    first, second = step(old, compensate=compensation(last)), step(fail)
    before = workflow("deployed", first=first, second=second, transitions=path(first, second))
    run, today = await started_and_deployed(composed, before, in_a_row("deployed", old, fail))

    await today.run_until_idle()

    waiting = await history(today, run)
    assert waiting.status == "compensating"
    assert step_of(waiting, "compensate:first").status == "scheduled"
    yesterday = await composed(before)
    await yesterday.run_until_idle()
    ended = await history(yesterday, run)
    assert (ended.status, step_of(ended, "compensate:first").status) == ("failed", "completed")


async def test_a_route_is_the_one_that_the_run_started_under(composed: OpenMesh) -> None:
    run, today = await started_and_deployed(
        composed, in_a_row("deployed", old, last), in_a_row("deployed", new)
    )

    await today.run_until_idle()
    waiting = await today.inspect_run(run.id)
    assert (waiting.status, waiting.current_step) == ("running", "second")  # nobody has its body

    both = await composed(in_a_row("deployed", new, last))
    await both.run_until_idle()
    assert (await history(both, run)).context == {"by": "new"}


async def test_a_definition_that_is_missing_or_unreadable_is_said_so(clock: VirtualClock) -> None:
    store = ShakyStore(clock=clock)
    registry = Registry(store)
    store._tables.definitions["odd"] = StoredDefinition(
        fingerprint="odd", workflow="w", version=None, document="{}"
    )

    for mark in ("missing", "odd"):
        with pytest.raises(JournalCorruptError):
            await registry.definition(mark, "run")


def test_nothing_can_be_run_that_nobody_has_declared() -> None:
    registry = Registry(MemoryStore(clock=SystemClock()))

    assert not registry.can_run("unheard of", "first")
    assert registry.lacking("unheard of") is None


async def test_a_definition_of_another_workflow_has_no_body_here(composed: OpenMesh) -> None:
    made = in_a_row("known", old)
    mesh = await composed(made)
    registry = (await mesh.engine()).registry
    mark = made.definition.fingerprint

    assert registry.body(mark, "first") is not None
    assert registry.body(mark, "nowhere") is None
    assert registry.body(mark, "compensate:nowhere") is None
    assert registry.body(mark, "compensate:first") is None
