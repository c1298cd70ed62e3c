"""Moves of a run from status to status: all that it makes, and all that a person may not ask."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs
import pytest

from squidmesh import (
    Errored,
    InvalidTransitionError,
    Retry,
    Run,
    SquidMesh,
    Workflow,
    approval,
    log,
    manual,
    path,
    pause,
    step,
    wait,
    when,
)
from squidmesh.testing.clock import VirtualClock
from tests.mesh.support import (
    MINUTE,
    Gate,
    OpenMesh,
    Order,
    at_work,
    contents,
    entry_types,
    history,
    step_statuses,
    turn,
)

pytestmark = pytest.mark.anyio

FINAL: Final = ("completed", "failed", "cancelled")
COMMANDS: Final[dict[str, dict[str, Any]]] = {
    "cancel_run": {},
    "resume_run": {},
    "approve_run": {"actor": "ada"},
    "reject_run": {"actor": "ada"},
}
ALLOWED: Final[dict[str, tuple[str, ...]]] = {
    "pending": ("cancel_run",),
    "running": ("cancel_run",),
    "running on a timer": ("cancel_run",),
    "retrying": ("cancel_run",),
    "paused at a pause": ("cancel_run", "resume_run"),
    "paused at an approval": ("cancel_run", "approve_run", "reject_run"),
    "cancelling": (),
    "compensating": (),
    **dict.fromkeys(FINAL, ()),
}
"""What a person may do to a run of each status; everything else is refused."""


def busy() -> None:
    raise ConnectionError


def refuse() -> Errored:
    return Errored("no", code="declined")


class Plain(Workflow[Order]):
    name = "plain"
    by_hand = manual()
    first = log("first")
    transitions = path(first)


class Failing(Workflow[Order]):
    name = "failing"
    by_hand = manual()
    first = step(refuse)
    transitions = path(first)


class Shaky(Workflow[Order]):
    name = "shaky"
    by_hand = manual()
    first = step(busy, retry=Retry(2, backoff_min=MINUTE))
    transitions = path(first)


class Timed(Workflow[Order]):
    name = "timed"
    by_hand = manual()
    first = wait(MINUTE)
    transitions = path(first)


class Paused(Workflow[Order]):
    name = "paused"
    by_hand = manual()
    first = pause()
    behind = log("behind")
    transitions = path(first, behind)


class Reviewed(Workflow[Order]):
    name = "reviewed"
    by_hand = manual()
    first = approval()
    behind = log("behind")
    transitions = (path(first, behind), first.on_error(Workflow.complete))


@attrs.define
class Stage:
    """A mesh of workflows in which a body stands at a gate, and its clock."""

    mesh: SquidMesh
    clock: VirtualClock
    gate: Gate

    async def status(self, run: Run) -> str:
        return (await self.mesh.inspect_run(run.id)).status


@pytest.fixture
async def stage(open_mesh: OpenMesh, clock: VirtualClock) -> Stage:
    gate = Gate()

    async def stand() -> None:
        await gate.wait()

    class Held(Workflow[Order]):
        name = "held"
        by_hand = manual()
        first = step(stand)
        transitions = path(first)

    class Undone(Workflow[Order]):
        name = "undone"
        by_hand = manual()
        first = step(lambda: None, compensate=stand)
        second = step(refuse)
        transitions = path(first, second)

    mesh = await open_mesh(Plain, Failing, Shaky, Timed, Paused, Reviewed, Held, Undone)
    return Stage(mesh, clock, gate)


WORKFLOW_FOR: Final = {
    "pending": "plain",
    "running": "held",
    "running on a timer": "timed",
    "retrying": "shaky",
    "paused at a pause": "paused",
    "paused at an approval": "reviewed",
    "cancelling": "held",
    "compensating": "undone",
    "completed": "plain",
    "failed": "failing",
    "cancelled": "plain",
}


@asynccontextmanager
async def standing(stage: Stage, status: str) -> AsyncIterator[Run]:
    """Inside, there is a run of this *status*; behind it all work is done."""
    mesh = stage.mesh
    run = await mesh.start_run(WORKFLOW_FOR[status])
    if status in ("running", "cancelling", "compensating"):
        async with at_work(mesh, stage.gate):
            if status == "cancelling":
                await mesh.cancel_run(run.id)
            yield run
        return
    if status == "cancelled":
        await mesh.cancel_run(run.id)
    elif status != "pending":
        await mesh.run_until_idle()
    yield run
    await mesh.run_until_idle()


@pytest.mark.parametrize("status", ALLOWED)
async def test_a_command_that_would_be_an_illegal_move_is_refused_and_writes_nothing(
    stage: Stage, status: str
) -> None:
    mesh = stage.mesh
    async with standing(stage, status) as run:
        before, shown = await history(mesh, run), await contents(mesh)
        for command in COMMANDS.keys() - ALLOWED[status]:
            with pytest.raises(InvalidTransitionError) as refused:
                await getattr(mesh, command)(run.id, **COMMANDS[command])

            target = "cancelling" if command == "cancel_run" else "running"
            moved = {name: refused.value.details[name] for name in ("from", "to")}
            assert moved == {"from": before.status, "to": target}
        after = await contents(mesh)

    assert before.status == status.partition(" ")[0]
    assert after == shown


@pytest.mark.parametrize("status", FINAL)
async def test_nothing_moves_a_run_that_is_over(stage: Stage, status: str) -> None:
    async with standing(stage, status) as run:
        over = await history(stage.mesh, run)

    stage.clock.advance(MINUTE * 100)
    await stage.mesh.recover()
    await stage.mesh.run_until_idle()

    assert over.status == status
    assert await history(stage.mesh, run) == over


@pytest.mark.parametrize(
    ("status", "command", "target"),
    [
        ("pending", "cancel_run", "cancelled"),
        ("running", "cancel_run", "cancelling"),
        ("running on a timer", "cancel_run", "cancelled"),
        ("retrying", "cancel_run", "cancelled"),
        ("paused at a pause", "cancel_run", "cancelled"),
        ("paused at a pause", "resume_run", "running"),
        ("paused at an approval", "cancel_run", "cancelled"),
        ("paused at an approval", "approve_run", "running"),
        ("paused at an approval", "reject_run", "completed"),
    ],
)
async def test_a_command_makes_its_legal_move_at_once(
    stage: Stage, status: str, command: str, target: str
) -> None:
    async with standing(stage, status) as run:
        before = await stage.status(run)
        moved = await getattr(stage.mesh, command)(run.id, **COMMANDS[command])
        after = await stage.status(run)

    assert (before, moved.status, after) == (status.partition(" ")[0], target, target)


async def test_the_first_claim_takes_a_run_from_pending_to_running(stage: Stage) -> None:
    run = await stage.mesh.start_run("held")
    before = await stage.status(run)

    async with at_work(stage.mesh, stage.gate):
        claimed = await stage.status(run)

    assert (before, claimed) == ("pending", "running")


@pytest.mark.parametrize(
    ("workflow", "status"), [("timed", "running"), ("paused", "paused"), ("reviewed", "paused")]
)
async def test_a_first_step_without_a_claim_leaves_pending_in_the_commit_of_the_start(
    stage: Stage, workflow: str, status: str
) -> None:
    started = await stage.mesh.start_run(workflow)

    seen = await history(stage.mesh, started)
    assert (started.status, seen.status) == (status, status)
    assert seen.revision == started.revision
    assert entry_types(seen)[:3] == ["run_started", "run_indexed", "runnables_planned"]


ENDINGS: Final[dict[str, Callable[[], object]]] = {
    "retrying": busy,
    "paused": lambda: {"next": "person"},
    "compensating": refuse,
    "failed": refuse,
    "completed": lambda: None,
}


@pytest.mark.parametrize("status", ENDINGS)
async def test_a_running_run_moves_as_its_claimed_step_ends(
    open_mesh: OpenMesh, status: str
) -> None:
    gate = Gate()

    async def end() -> object:
        await gate.wait()
        return ENDINGS[status]()

    class Ending(Workflow[Order]):
        name = "ending"
        by_hand = manual()
        book = step(lambda: None, compensate=busy if status == "compensating" else None)
        claimed = step(end, retry=Retry(2, backoff_min=MINUTE))
        person = pause()
        transitions = (
            path(book, claimed),
            claimed.on_ok(person, when=when("next", equals="person")),
            path(person, Workflow.complete),
        )

    mesh = await open_mesh(Ending)
    run = await mesh.start_run(Ending)
    async with at_work(mesh, gate):
        claimed = await mesh.inspect_run(run.id)

    assert claimed.status == "running"
    assert (await mesh.inspect_run(run.id)).status == status


async def test_a_claimed_step_beside_a_retry_keeps_the_run_running_and_its_end_does_not(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    gate = Gate()

    async def stand() -> None:
        await gate.wait()

    class Beside(Workflow[Order]):
        name = "beside"
        by_hand = manual()
        shaky = step(busy, retry=Retry(3, backoff_min=MINUTE))
        slow = step(stand)
        joined = log("joined", after=(shaky, slow))

    mesh = await open_mesh(Beside)
    run = await mesh.start_run(Beside)
    async with at_work(mesh, gate):
        while step_statuses(beside := await history(mesh, run))["shaky"] != "retrying":
            await turn()
    behind = await history(mesh, run)
    clock.advance(MINUTE)
    due = await mesh.inspect_run(run.id)

    assert step_statuses(beside) == {"shaky": "retrying", "slow": "running", "joined": "waiting"}
    assert beside.status == "running"
    assert (behind.status, due.status) == ("retrying", "retrying")


@pytest.mark.parametrize(
    ("status", "target"),
    [("cancelling", "cancelled"), ("compensating", "failed"), ("running", "completed")],
)
async def test_what_is_ending_has_ended_when_the_last_claim_lets_go(
    stage: Stage, status: str, target: str
) -> None:
    async with standing(stage, status) as run:
        before = await stage.status(run)

    assert (before, await stage.status(run)) == (status, target)
