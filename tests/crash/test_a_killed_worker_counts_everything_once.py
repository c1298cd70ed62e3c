"""Workers that count in transactions of their steps are killed, and nothing is counted twice."""

import asyncio
import contextlib
import os
import random
import secrets
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import psycopg
import pytest

from tests.crash.counting import COUNTERS, READ, TABLE, Counting, open_mesh

KILLS: Final = 12
RUNS_PER_ROUND: Final = 40
AT_MOST: Final = 60.0
PROJECT: Final = Path(__file__).parents[2]
MAIN: Final = "import sys; from tests.crash.counting import main; main(sys.argv[1])"

Counted = Callable[[], dict[str, int]]


@contextlib.contextmanager
def a_worker(url: str) -> Iterator[subprocess.Popen[bytes]]:
    """A fresh process that works on the database, as soon as it says so."""
    victim = subprocess.Popen(
        [sys.executable, "-c", MAIN, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )
    with victim:
        try:
            assert victim.stdout is not None
            victim.stdout.readline()
            yield victim
        finally:
            if victim.poll() is None:
                victim.kill()


def until(happened: Callable[[], bool], *, every: float = 0.001) -> None:
    """Return when something has happened; that it never does is a failure of the test."""
    limit = time.monotonic() + AT_MOST
    while not happened():
        assert time.monotonic() < limit, f"it has not happened within {AT_MOST:g} s"
        time.sleep(every)  # noqa: TID251  another process's doing cannot be awaited otherwise


async def start_runs(url: str) -> list[str]:
    async with open_mesh(url) as mesh:
        return await mesh.start_runs(Counting, [None] * RUNS_PER_ROUND)


async def statuses(url: str, ids: list[str]) -> set[str]:
    async with open_mesh(url) as mesh:
        return {(await mesh.inspect_run(run_id)).status for run_id in ids}


def killed_and_counted(url: str, counted: Counted) -> tuple[int, dict[str, int], set[str]]:
    """Let workers be killed amid their work; how many runs there were, and what was counted."""
    seed = secrets.randbits(32)
    sys.stdout.write(f"the moments of the kills follow from seed {seed}\n")
    chance = random.Random(seed)
    ids: list[str] = []
    for _ in range(KILLS):
        ids += asyncio.run(start_runs(url))
        before = counted()
        with a_worker(url) as victim:
            until(lambda then=before: counted() != then)  # type: ignore[misc]
            moment = time.monotonic() + chance.uniform(0.0, 0.03)
            until(lambda at=moment: time.monotonic() >= at)  # type: ignore[misc]
            victim.kill()
    with a_worker(url) as last:
        until(lambda: asyncio.run(statuses(url, ids)) == {"completed"}, every=0.3)
        last.communicate(timeout=10)
    return len(ids), counted(), asyncio.run(statuses(url, ids))


@pytest.mark.slow
def test_every_step_has_counted_once_on_postgres(postgres_database: str) -> None:
    with psycopg.connect(postgres_database, autocommit=True) as connection:
        for statement in (TABLE, COUNTERS):
            connection.execute(statement.encode())

        runs, counted, ends = killed_and_counted(
            postgres_database, lambda: dict(connection.execute(READ).fetchall())
        )

    assert counted == {"async": runs, "plain": runs}
    assert ends == {"completed"}


@pytest.mark.slow
def test_every_step_has_counted_once_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "app.db"
    with contextlib.closing(sqlite3.connect(file)) as connection:
        for statement in (TABLE, COUNTERS):
            connection.execute(statement)
        connection.commit()

        runs, counted, ends = killed_and_counted(
            f"sqlite:///{file}", lambda: dict(connection.execute(READ).fetchall())
        )

    assert counted == {"async": runs, "plain": runs}
    assert ends == {"completed"}
