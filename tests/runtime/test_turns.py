"""What a worker may go on with, without asking the store for the order again."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from squidmesh import SquidMesh, StepContext, Worker, step
from squidmesh.domain.entries import AttemptClaimed
from squidmesh.domain.state import RunStatus
from squidmesh.ports.store import ClaimedAttempt, Claims
from squidmesh.runtime.turns import LOOK_AGAIN, Turn
from squidmesh.testing.clock import VirtualClock
from tests.runtime.conftest import OpenMesh
from tests.runtime.support import ShakyStore, only, until, workflow

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def claims_of(*run_ids: str) -> Claims:
    return Claims(
        at=NOW,
        claimed=tuple(
            ClaimedAttempt(
                found=RunStatus.RUNNING,
                run_id=run_id,
                fingerprint="f1",
                entry=AttemptClaimed(
                    at=NOW,
                    step="work",
                    number=1,
                    claim_id=f"claim-{number}",
                    token_hash="hash",
                    owner="worker-1",
                    lease=timedelta(seconds=30),
                ),
                revision=4,
            )
            for number, run_id in enumerate(run_ids)
        ),
    )


def asked(clock: VirtualClock, *run_ids: str, more: bool) -> Turn:
    turn = Turn(clock)
    turn.ask()
    turn.learn(claims_of(*run_ids), more=more)
    return turn


def test_it_is_nobodys_turn_before_the_store_was_asked(clock: VirtualClock) -> None:
    assert not Turn(clock).is_of("a")


def test_it_is_the_turn_of_the_run_that_the_last_claim_ended_with(clock: VirtualClock) -> None:
    turn = asked(clock, "a", "b", more=True)

    assert [turn.is_of(run_id) for run_id in ("a", "b", "c")] == [False, True, False]


def test_it_is_anybodys_turn_where_nothing_more_was_due(clock: VirtualClock) -> None:
    turn = asked(clock, "a", more=False)

    assert turn.is_of("a")
    assert turn.is_of("b")


def test_whoever_hears_of_more_asks_the_store_again(clock: VirtualClock) -> None:
    turn = asked(clock, "a", more=True)

    turn.forget()

    assert not turn.is_of("a")


def test_what_was_said_while_the_store_was_asked_counts_as_well(clock: VirtualClock) -> None:
    turn = Turn(clock)
    turn.ask()
    turn.forget()
    turn.learn(claims_of("a"), more=True)

    assert not turn.is_of("a")


def test_the_order_is_relied_on_for_a_moment_only(clock: VirtualClock) -> None:
    turn = asked(clock, "a", more=True)

    clock.advance(LOOK_AGAIN)

    assert not turn.is_of("a")


async def working_until(mesh: SquidMesh, said: list[str], count: int) -> None:
    """Let a worker with one slot work until *count* bodies have said something."""
    worker = Worker(mesh, concurrency=1)
    working = asyncio.create_task(worker.run())
    await until(lambda: len(said) == count)
    worker.stop()
    await working


@pytest.mark.anyio
async def test_a_wide_run_goes_on_without_asking_the_store_for_each_step(
    composed: OpenMesh, store: ShakyStore
) -> None:
    said: list[str] = []

    async def work(context: StepContext) -> None:
        said.append(context.step)

    wide = workflow("wide", c=step(work), b=step(work), a=step(work))
    mesh = await composed(wide)
    await mesh.start_run(wide)

    await working_until(mesh, said, 3)

    assert said == ["a", "b", "c"]
    # One before the first of them, and one when the run is over.
    assert len([request for request in store.requests if request.tickets]) <= 2


@pytest.mark.anyio
async def test_a_higher_priority_comes_first_also_in_the_middle_of_a_wide_run(
    composed: OpenMesh,
) -> None:
    said: list[str] = []
    meshes: list[SquidMesh] = []

    async def hurry() -> None:
        said.append("hurry")

    async def work(context: StepContext) -> None:
        said.append(context.step)
        if context.step == "a":
            await meshes[0].start_run(urgent, priority=1)

    urgent, wide = only(hurry), workflow("wide", a=step(work), b=step(work), c=step(work))
    meshes.append(await composed(wide, urgent))
    await meshes[0].start_run(wide)

    await working_until(meshes[0], said, 4)

    assert said == ["a", "hurry", "b", "c"]
