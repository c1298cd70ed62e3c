"""A worker process that counts in the host's own table, and is killed while it does."""

import asyncio
import sys
import threading
from datetime import timedelta
from typing import Final

from squidmesh import SquidMesh, StepContext, Worker, Workflow, manual, path, step

LEASE: Final = timedelta(seconds=1)
FOR_EVER: Final = 10_000
"""No step may be set aside for losing its worker too often: here that is not its fault."""

TABLE: Final = "create table counters (name text primary key, value integer not null)"
COUNTERS: Final = "insert into counters values ('async', 0), ('plain', 0)"
COUNT: Final = "update counters set value = value + 1 where name = '{}'"
READ: Final = "select name, value from counters order by name"


async def count(context: StepContext) -> None:
    await context.connection.execute(COUNT.format("async"))


def count_in_thread(context: StepContext) -> None:
    context.connection.execute(COUNT.format("plain"))


class Counting(Workflow[None]):
    """Counts twice, once in each kind of body."""

    name = "counting"
    by_hand = manual()
    first = step(count, transaction=True)
    second = step(count_in_thread, transaction=True)
    transitions = path(first, second)


def open_mesh(url: str) -> SquidMesh:
    """The mesh that test and victims share a database through."""
    return SquidMesh.open(url, workflows=[Counting], lease=LEASE, max_deliveries=FOR_EVER)


async def work(url: str) -> None:
    """Say that work begins, and work until standard input closes."""
    async with open_mesh(url) as mesh:
        worker = Worker(mesh, concurrency=8)
        loop = asyncio.get_running_loop()

        def stop_at_end_of_input() -> None:
            sys.stdin.buffer.read()
            loop.call_soon_threadsafe(worker.stop)

        threading.Thread(target=stop_at_end_of_input, daemon=True).start()
        sys.stdout.write("working\n")
        sys.stdout.flush()
        await worker.run()


def main(url: str) -> None:
    """Be a worker process."""
    asyncio.run(work(url))
