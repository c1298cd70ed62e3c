"""The benchmarks run, and the counts that no mood of a machine can change are as promised."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path

import pytest

from benchmarks.bare_loop import BareLoop
from benchmarks.contender import Contender, Count, Written
from benchmarks.crowd import crowding
from benchmarks.environments import PINS
from benchmarks.mesh_workflows import Seed
from benchmarks.over_mesh import OverMesh
from benchmarks.registry import PEERS
from benchmarks.report import Report, Result
from benchmarks.wal import counting_commits

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parent.parent
SIZES = {"start": {"single_starts": 1, "bulk_starts": 1}}


async def _body(seed: int) -> int:
    return seed


@asynccontextmanager
async def _at_work(contender: Contender, folder: Path) -> AsyncIterator[Contender]:
    await contender.set_up(folder, _body)
    try:
        yield contender
    finally:
        await contender.tear_down()


def _counting(contender: Contender) -> AbstractAsyncContextManager[Count]:
    counting = contender.counting()
    assert counting is not None
    return counting


async def _written(contender: Contender, lengths: Sequence[int]) -> list[Written]:
    """What runs of these lengths write; each was done once before, and is warm."""
    for length in lengths:
        await contender.sequential(length)
    written = []
    async with _counting(contender) as count:
        for length in lengths:
            before = count()
            await contender.sequential(length)
            written.append(count().since(before))
    return written


def _benchmarks(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("make", [OverMesh.on_sqlite, BareLoop])
async def test_one_more_sequential_step_costs_exactly_one_commit_on_sqlite(
    make: Callable[[], Contender], tmp_path: Path
) -> None:
    async with _at_work(make(), tmp_path) as contender:
        short, long = await _written(contender, (10, 110))

    assert (long.commits - short.commits) / 100 == 1.0


async def test_a_run_costs_two_commits_besides_those_of_its_steps(tmp_path: Path) -> None:
    async with _at_work(OverMesh.on_sqlite(), tmp_path) as contender:
        (run,) = await _written(contender, (10,))

    # Its start, and its first claim.
    assert run.commits == 2 + 10


async def test_the_last_steps_of_a_long_run_write_no_more_than_the_first(tmp_path: Path) -> None:
    async with _at_work(OverMesh.on_sqlite(), tmp_path) as contender:
        few, some, many = await _written(contender, (50, 100, 200))

    first, last = some.size - few.size, (many.size - some.size) / 2
    assert last <= first * 1.1


async def test_runs_at_concurrency_64_share_their_commits(tmp_path: Path) -> None:
    async with _at_work(OverMesh.on_sqlite(), tmp_path) as contender:
        await (await contender.concurrent(64, 3))()

        async with _counting(contender) as count:
            await (await contender.concurrent(200, 3))()

            assert count().commits / 600 < 0.2


async def test_a_thousand_runs_are_started_in_one_commit(tmp_path: Path) -> None:
    async with _at_work(OverMesh.on_sqlite(), tmp_path) as contender:
        await contender.start_bulk(1)

        async with _counting(contender) as count:
            await contender.start_bulk(1000)

            assert count().commits == 1


async def test_commits_are_counted_through_checkpoints_and_only_if_they_wrote(
    tmp_path: Path,
) -> None:
    with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as connection:
        connection.execute("pragma journal_mode = wal")
        connection.execute("create table numbers (number integer)")
        connection.execute("pragma wal_checkpoint(restart)")

        async with counting_commits(tmp_path / "x.db") as count:
            for number in range(20):
                connection.execute("insert into numbers values (?)", (number,))
                connection.execute("pragma wal_checkpoint(passive)")
            connection.execute("begin immediate")
            connection.execute("commit")

            assert count().commits == 20


async def test_what_was_committed_before_counting_began_does_not_count(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as connection:
        connection.execute("pragma journal_mode = wal")
        connection.execute("create table numbers (number integer)")

        async with counting_commits(tmp_path / "x.db") as count:
            connection.execute("insert into numbers values (1)")

            assert count().commits == 1


def test_a_quick_run_prints_a_table_with_ratios_to_the_floor_and_writes_its_figures(
    tmp_path: Path,
) -> None:
    file = tmp_path / "figures.json"

    ran = _benchmarks("--quick", "--only", "start", "--stores", "memory", "--json", str(file))

    assert ran.returncode == 0, ran.stderr
    head, _, floor, mesh = ran.stdout.splitlines()[2:6]
    assert head.startswith("| contender | one by one, starts/s | x floor |")
    assert floor.startswith("| floor-sqlite |")
    assert mesh.startswith("| memory |")
    results = json.loads(file.read_text())["results"]
    assert [result["contender"] for result in results] == ["floor-sqlite", "memory"]
    assert all(result["figures"]["bulk_per_s"] > 0 for result in results)


def test_the_tables_are_put_where_a_page_has_a_place_for_them(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    begin, end = (
        "<!-- figures: python -m benchmarks --into this page -->",
        "<!-- end of figures -->",
    )
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")

    ran = _benchmarks("--quick", "--only", "start", "--stores", "memory", "--into", str(page))

    place = f"{begin}\n\n{ran.stdout}\n{end}"
    before, after = text.split(begin)[0], text.split(end)[1]
    assert page.read_text(encoding="utf-8") == f"{before}{place}{after}"


def test_a_contender_that_fails_is_named_and_the_others_are_measured() -> None:
    python = "memory=/there/is/no/such/python"

    ran = _benchmarks("--quick", "--only", "start", "--stores", "memory", "--python", python)

    assert ran.returncode == 1
    assert "memory failed in start:" in ran.stdout
    assert "| floor-sqlite |" in ran.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("--only", "nothing"),
        ("--stores", "oracle"),
        ("--peers", "nobody"),
        ("--python", "memory"),
    ],
)
def test_what_is_not_there_is_refused_by_name(arguments: Sequence[str]) -> None:
    ran = _benchmarks("--quick", *arguments)

    assert ran.returncode != 0
    assert arguments[-1] in ran.stderr


def test_a_ratio_is_taken_within_a_round_and_says_how_many_times_the_floor_it_costs() -> None:
    rounds = ((1000.0, 500.0), (100.0, 25.0), (1000.0, 250.0))
    results = [
        Result(contender=name, workload="start", repeat=repeat, figures={"single_per_s": value})
        for repeat, values in enumerate(rounds)
        for name, value in zip(("floor-sqlite", "sqlite"), values, strict=True)
    ]

    text = Report(results, SIZES).text()

    assert "| sqlite | 250 (25..500) | 4 |" in text


def test_a_ratio_is_to_the_floor_of_the_same_database() -> None:
    speeds = {"floor-sqlite": 900.0, "floor-postgres": 300.0, "postgres": 100.0, "sqlite": 100.0}
    results = [
        Result(contender=name, workload="start", repeat=0, figures={"single_per_s": value})
        for name, value in speeds.items()
    ]

    text = Report(results, SIZES).text()

    assert "| postgres | 100 | 3 |" in text
    assert "| sqlite | 100 | 9 |" in text


def test_who_has_no_such_thing_is_named_and_has_no_figures() -> None:
    measured = Result(
        contender="floor-postgres", workload="start", repeat=0, figures={"single_per_s": 300.0}
    )
    without = Result(contender="langgraph", workload="start", repeat=0, figures={})

    text = Report([measured, without], SIZES).text()

    assert "| langgraph | - | - |" in text


def test_a_workload_that_nobody_has_is_not_shown() -> None:
    without = Result(contender="memory", workload="backlog", repeat=0, figures={})

    assert "backlog" not in Report([without], SIZES).text()


def test_statements_are_counted_only_where_a_server_counts_them() -> None:
    assert Written(5, 500, 7).since(Written(2, 100, 3)) == Written(3, 400, 4)
    assert Written(5, 500).since(Written(2, 100)) == Written(3, 400, None)


async def test_several_processes_on_one_database_tell_of_every_body_they_ran(
    tmp_path: Path,
) -> None:
    contender = OverMesh.on_sqlite()
    async with _at_work(contender, tmp_path):
        found = await contender.chain(3)

        async with crowding(contender.url, 2, 3) as members:
            await found.mesh.start_runs(found.workflow, [Seed(seed=seed) for seed in range(20)])
            crowd = await members.see_through(20)

    ran = [f"{step} {seed}" for step in range(3) for seed in range(20)]
    assert sorted(crowd.bodies) == sorted(ran)


@pytest.mark.parametrize("peer", PEERS)
def test_every_peer_has_its_versions_pinned(peer: str) -> None:
    assert all("==" in requirement for requirement in PINS[peer])
