"""The worker process that the crash test kills, and the workflows that it is killed in.

Every step writes one line to a file that several processes append to, and syncs it before it
returns: what is in that file has happened, whatever became of the process.
"""

import asyncio
import os
import sys
import threading
from datetime import timedelta
from pathlib import Path
from typing import Final

import attrs

from squidmesh import (
    Errored,
    Retry,
    SquidMesh,
    StepContext,
    Worker,
    Workflow,
    manual,
    path,
    step,
    wait,
)

LEASE: Final = timedelta(seconds=1)
CONCURRENCY: Final = 16
FOR_EVER: Final = 10_000
"""No step may be set aside for losing its worker too often: here that is not its fault."""


@attrs.frozen(kw_only=True)
class Effect:
    """What a step's body leaves behind in the file."""

    key: str
    attempt: int


@attrs.frozen(kw_only=True)
class Journey:
    """What every workflow here starts with."""

    effects: str


def write_effect(effects: str, context: StepContext) -> dict[str, int]:
    """Append a line and sync it; one write, so that lines of two processes do not mix."""
    line = f"{context.idempotency_key} {context.attempt}\n".encode()
    file = os.open(effects, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, line)
        os.fsync(file)
    finally:
        os.close(file)
    return {"attempt": context.attempt}


def read_effects(effects: Path) -> list[Effect]:
    """Every effect so far; the last line may be cut off by a kill, but none is."""
    lines = effects.read_text(encoding="utf-8").splitlines() if effects.exists() else []
    pairs = (line.split(" ") for line in lines)
    return [Effect(key=key, attempt=int(attempt)) for key, attempt in pairs]


async def note(effects: str, context: StepContext) -> dict[str, int]:
    """Have the effect on the event loop."""
    return write_effect(effects, context)


def note_in_thread(effects: str, context: StepContext) -> dict[str, int]:
    """Have the effect in a thread."""
    return write_effect(effects, context)


async def note_at_second_try(effects: str, context: StepContext) -> dict[str, int] | Errored:
    """Have the effect each time, and fail until one attempt was followed by another."""
    noted = write_effect(effects, context)
    if context.attempt == 1:
        return Errored("not the first time", retryable=True)
    return noted


async def note_and_fail(effects: str, context: StepContext) -> Errored:
    """Have the effect, and fail for good."""
    write_effect(effects, context)
    return Errored("never")


class Chain(Workflow[Journey]):
    """One step after the other: in a thread, after a while, at the second try."""

    by_hand = manual()

    begin = step(note_in_thread, output="began")
    rest = wait(timedelta(milliseconds=30))
    again = step(note_at_second_try, output="again", retry=Retry(3))
    end = step(note, output="ended")

    transitions = path(begin, rest, again, end)


class Fan(Workflow[Journey]):
    """Two steps beside each other, and one that waits for both."""

    by_hand = manual()

    begin = step(note, output="began")
    left = step(note, output="left", after=begin)
    right = step(note_in_thread, output="right", after=begin)
    end = step(note, output="ended", after=(left, right))


class Undone(Workflow[Journey]):
    """Two things that are done, and undone because the next step fails."""

    by_hand = manual()

    do = step(note, output="done", compensate=note)
    do_more = step(note, output="more", compensate=note_in_thread)
    fail = step(note_and_fail)

    transitions = path(do, do_more, fail)


ENDINGS: Final = {Chain: "completed", Fan: "completed", Undone: "failed"}
"""How the runs of each workflow end, however often their workers are killed."""


def open_mesh(url: str) -> SquidMesh:
    """The mesh that test and victims share a database through."""
    return SquidMesh.open(url, workflows=ENDINGS, lease=LEASE, max_deliveries=FOR_EVER)


async def work(url: str) -> None:
    """Say that work begins, and work until standard input closes."""
    async with open_mesh(url) as mesh:
        worker = Worker(mesh, concurrency=CONCURRENCY)
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
