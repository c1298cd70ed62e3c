"""Commands that come twice: under one key they are given once, and a key is one command's."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import permutations
from typing import Any

import pytest

from squidmesh import (
    IdempotencyConflictError,
    NotPausedError,
    Run,
    SquidMesh,
    Workflow,
    approval,
    log,
    manual,
    path,
    pause,
    step,
)
from tests.mesh.support import (
    Deploy,
    Gate,
    OpenMesh,
    Order,
    at_work,
    audit_types,
    contents,
    entries_of,
    event_of,
    history,
)

pytestmark = pytest.mark.anyio


class Paused(Workflow[Order]):
    name = "paused"
    by_hand = manual()
    hold = pause()
    behind = log("behind")
    transitions = path(hold, behind)


class Reviewed(Workflow[Order]):
    name = "reviewed"
    by_hand = manual()
    review = approval()
    behind = log("behind")
    transitions = (path(review, behind), review.on_error(Workflow.complete))


COMMANDS: dict[str, dict[str, Any]] = {
    "cancel_run": {},
    "resume_run": {},
    "approve_run": {"actor": "ada"},
    "reject_run": {"actor": "ada"},
    "replay_run": {},
}


async def give(mesh: SquidMesh, command: str, run: Run, **said: Any) -> Run:
    found: Run = await getattr(mesh, command)(run.id, **{**COMMANDS[command], **said})
    return found


@asynccontextmanager
async def in_real_time(deploy: Deploy) -> AsyncIterator[tuple[SquidMesh, SquidMesh]]:
    """Two processes that may be in each other's way: whoever has to wait waits a real moment."""
    both = (Paused, Reviewed)
    async with deploy(*both, clock=None) as one, deploy(*both, clock=None) as other:
        yield one, other


def workflow_for(command: str) -> type[Workflow[Order]]:
    return Paused if command == "resume_run" else Reviewed


@pytest.mark.parametrize(("command", "other"), [*permutations(COMMANDS, 2)])
async def test_the_key_of_one_command_is_a_conflict_for_each_of_the_others(
    open_mesh: OpenMesh, command: str, other: str
) -> None:
    mesh = await open_mesh(Paused, Reviewed)
    run = await mesh.start_run(workflow_for(command))
    await give(mesh, command, run, idempotency_key="once")
    before = await contents(mesh)

    with pytest.raises(IdempotencyConflictError) as refused:
        await give(mesh, other, run, idempotency_key="once")

    assert refused.value.code == "idempotency_conflict"
    assert await contents(mesh) == before


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_command_repeated_by_another_process_writes_nothing(
    deploy: Deploy, command: str
) -> None:
    async with deploy(Paused, Reviewed) as one:
        run = await one.start_run(workflow_for(command))
        first = await give(one, command, run, idempotency_key="once")
    async with deploy(Paused, Reviewed) as other:
        before = await contents(other)

        again = await give(other, command, run, idempotency_key="once", actor="eve")

        assert again == first
        assert await contents(other) == before


@pytest.mark.parametrize("command", COMMANDS)
async def test_of_one_command_given_by_many_at_once_under_one_key_one_is_written(
    deploy: Deploy, command: str
) -> None:
    async with in_real_time(deploy) as (one, other):
        run = await one.start_run(workflow_for(command))

        answers = await asyncio.gather(
            *(give(mesh, command, run, idempotency_key="once") for mesh in [one, other] * 5)
        )
        after = await history(one, run)
        found = await one.list_runs()

    asked = {
        "cancel_run": "cancel_requested",
        "replay_run": "run_replayed",
    }.get(command, "manual_step_resolved")
    assert len({answer.id for answer in answers}) == 1
    assert len(entries_of(after, asked)) == 1
    assert len(found.runs) == (2 if command == "replay_run" else 1)


async def test_of_two_decisions_given_at_once_under_one_key_one_is_a_conflict(
    deploy: Deploy,
) -> None:
    async with in_real_time(deploy) as (one, other):
        run = await one.start_run(Reviewed)

        answers = await asyncio.gather(
            give(one, "approve_run", run, idempotency_key="once"),
            give(other, "reject_run", run, idempotency_key="once"),
            return_exceptions=True,
        )
        after = await history(one, run)

    kinds = sorted(type(answer).__name__ for answer in answers)
    assert kinds == ["IdempotencyConflictError", "Run"]
    assert len(entries_of(after, "manual_step_resolved")) == 1


async def test_of_many_decisions_at_once_one_counts_and_the_others_find_nothing_open(
    deploy: Deploy,
) -> None:
    async with in_real_time(deploy) as (one, other):
        run = await one.start_run(Reviewed)

        answers = await asyncio.gather(
            *(
                give(mesh, command, run, actor=f"person {number}")
                for number, (mesh, command) in enumerate(
                    [(one, "approve_run"), (other, "reject_run")] * 4
                )
            ),
            return_exceptions=True,
        )
        after = await history(one, run)

    refused = [answer for answer in answers if isinstance(answer, NotPausedError)]
    (counted,) = [number for number, answer in enumerate(answers) if isinstance(answer, Run)]
    (decided,) = [event for event in after.audit_events or () if event.type != "paused"]
    assert len(refused) == 7
    assert decided.actor == f"person {counted}"


async def test_a_cancel_repeated_while_the_run_is_cancelling_writes_nothing(
    open_mesh: OpenMesh,
) -> None:
    gate = Gate()

    async def hold() -> None:
        await gate.wait()

    class Busy(Workflow[Order]):
        name = "busy"
        by_hand = manual()
        only = step(hold)

    mesh = await open_mesh(Busy)
    run = await mesh.start_run(Busy)
    async with at_work(mesh, gate):
        first = await mesh.cancel_run(run.id, actor="ada", idempotency_key="once")
        before = await contents(mesh)
        again = await mesh.cancel_run(run.id, actor="ada", idempotency_key="once")
        left = await contents(mesh)

    over = await mesh.cancel_run(run.id, actor="ada", idempotency_key="once")
    assert (first.status, again.status, over.status) == ("cancelling", "cancelling", "cancelled")
    assert left == before
    assert audit_types(await history(mesh, run)) == ["cancel_requested"]


class PausedLater(Workflow[Order]):
    name = "paused_later"
    by_hand = manual()
    begin = log("begin")
    hold = pause()
    transitions = path(begin, hold)


class ReviewedLater(Workflow[Order]):
    name = "reviewed_later"
    by_hand = manual()
    begin = log("begin")
    review = approval()
    transitions = (path(begin, review), review.on_error(Workflow.complete))


@pytest.mark.parametrize(
    ("command", "workflow", "decision"),
    [
        ("resume_run", PausedLater, "resumed"),
        ("approve_run", ReviewedLater, "approved"),
        ("reject_run", ReviewedLater, "rejected"),
    ],
)
async def test_a_command_that_was_refused_has_not_used_up_its_key(
    open_mesh: OpenMesh, command: str, workflow: type[Workflow[Order]], decision: str
) -> None:
    mesh = await open_mesh(workflow)
    run = await mesh.start_run(workflow)
    before = await contents(mesh)
    with pytest.raises(NotPausedError):
        await give(mesh, command, run, idempotency_key="once")
    left = await contents(mesh)
    await mesh.run_until_idle()

    decided = await give(mesh, command, run, actor="bob", idempotency_key="once")

    assert left == before
    assert decided.status == "completed"
    assert event_of(await history(mesh, run), decision).actor == "bob"
