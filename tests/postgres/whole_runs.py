"""A workflow that goes through everything a store is asked for, and somebody who drives it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TypedDict

from squidmesh import (
    Errored,
    Retry,
    Run,
    SquidMesh,
    StepContext,
    Worker,
    Workflow,
    approval,
    log,
    manual,
    path,
    step,
    wait,
)
from squidmesh.system import SystemClock
from tests.postgres.support import SHORT

LEASE = timedelta(milliseconds=600)


class Order(TypedDict):
    bank: str


async def hold() -> str:
    return "shelf 7"


def charge(bank: str, context: StepContext) -> str | Errored:
    if context.attempt == 1:
        raise ConnectionError("the bank is asleep")
    if bank == "declines":
        return Errored("declined", code="declined")
    return "receipt"


async def pack() -> None:
    # Longer than a lease: without heartbeats somebody else would take it up.
    await SystemClock().sleep(1.5 * LEASE.total_seconds())


class Fulfilment(Workflow[Order]):
    """A retry, a timer, a decision, a step that outlasts its lease, and something to undo."""

    name = "fulfilment"
    by_hand = manual()
    hold = step(hold, output="shelf", compensate=lambda: None)
    settle = wait(timedelta(milliseconds=20))
    review = approval(output="review")
    pack = step(pack)
    charge = step(charge, output="receipt", retry=Retry(3, backoff_min=timedelta(milliseconds=10)))
    refuse = log("refused")
    transitions = (path(hold, settle, review, pack, charge), review.on_error(refuse))


@asynccontextmanager
async def working(mesh: SquidMesh) -> AsyncIterator[None]:
    """Let a worker do what is due inside the block."""
    worker = Worker(mesh)
    work = asyncio.create_task(worker.run())
    try:
        yield
    finally:
        worker.stop()
        await work


async def stands(mesh: SquidMesh, run_id: str, status: str) -> Run:
    """The run, as soon as it has come to *status*."""
    clock = SystemClock()
    async with asyncio.timeout(SHORT):
        while True:
            run = await mesh.inspect_run(run_id, include_history=True)
            if run.status == status:
                return run
            await clock.sleep(0.02)


async def fulfil(mesh: SquidMesh, bank: str, status: str) -> Run:
    """Start a run, approve it, and return it when it stands as it is meant to."""
    run = await mesh.start_run(Fulfilment, {"bank": bank}, idempotency_key=f"at {bank}")
    await stands(mesh, run.id, "paused")
    await mesh.approve_run(run.id, actor="ana", idempotency_key="yes")
    return await stands(mesh, run.id, status)
