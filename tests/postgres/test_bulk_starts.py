"""Many starts on a server: the rows of each are those of a run that is started alone."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import attrs
import psycopg
import pytest

from squidmesh import RunExistsError, SquidMesh, Workflow, approval, manual, path, pause, step, wait
from squidmesh.ports.executor import Executor
from squidmesh.testing.clock import VirtualClock
from squidmesh.testing.executors import RecordingExecutor
from squidmesh.testing.ids import SequentialIds

pytestmark = pytest.mark.anyio

TABLES = ("runs", "step_runs", "attempts", "entries", "stuck_runs", "ended_runs", "definitions")


@attrs.frozen(kw_only=True)
class Words:
    """What a run starts with; texts are written as they are."""

    said: str = "hello"
    times: int = 1


async def body() -> None: ...


class Chain(Workflow[Words]):
    """A step behind the other."""

    version = "7"
    by_hand = manual()
    first, second = step(body), step(body)
    transitions = path(first, second)


class Wide(Workflow[Words]):
    """Two steps to begin with, one of them in a queue of its own."""

    by_hand = manual()
    here, there = step(body), step(body, queue="elsewhere")
    both = step(body, after=(here, there))


class Later(Workflow[Words]):
    """A step that is not due for a while."""

    by_hand = manual()
    rest, then = wait(timedelta(hours=1)), step(body)
    transitions = path(rest, then)


class Asking(Workflow[Words]):
    """Somebody has to say yes before anything is done."""

    by_hand = manual()
    review, accept, refuse = approval(), step(body), step(body)
    transitions = (path(review, accept), review.on_error(refuse), path(refuse))


class Stopping(Workflow[Words]):
    """Somebody has to be there before anything is done."""

    by_hand = manual()
    hold, then = pause(), step(body)
    transitions = path(hold, then)


WORKFLOWS: Sequence[type[Workflow[Words]]] = (Chain, Wide, Later, Asking, Stopping)
PAYLOADS: Sequence[Any] = (
    {"said": 'a "quoted" \\ {curly}, comma'},
    {"said": "ünïcödé\n\t", "times": 2},
    Words(),
    {},
)


async def opened(url: str, schema: str, made: Any, executor: Executor | None) -> SquidMesh:
    mesh = SquidMesh.open(
        url,
        workflows=[made],
        clock=VirtualClock(),
        ids=SequentialIds(),
        executor=executor,
        schema=schema,
    )
    await mesh.migrate()
    return mesh


def rows_in(url: str, schema: str) -> dict[str, list[Any]]:
    with psycopg.connect(url) as connection:
        return {
            table: connection.execute(
                f"select to_jsonb(t) from {schema}.{table} as t order by to_jsonb(t)::text"  # noqa: S608
            ).fetchall()
            for table in TABLES
        }


@pytest.mark.parametrize("has_executor", [False, True], ids=["polled", "woken"])
@pytest.mark.parametrize("made", WORKFLOWS, ids=lambda made: made.__name__)
async def test_runs_that_are_started_together_have_the_rows_of_runs_that_are_started_alone(
    postgres_database: str, made: type[Workflow[Words]], has_executor: bool
) -> None:
    executors = [RecordingExecutor() if has_executor else None for _ in range(2)]
    alone = await opened(postgres_database, "alone", made, executors[0])
    together = await opened(postgres_database, "together", made, executors[1])

    async with alone, together:
        for mesh in (alone, together):
            # What is stored of a workflow comes with its first run.
            await mesh.start_run(made)
        for payload in PAYLOADS:
            await alone.start_run(made, payload, queue="bulk")
        await together.start_runs(made, PAYLOADS, queue="bulk")

    assert rows_in(postgres_database, "together") == rows_in(postgres_database, "alone")


async def test_a_bulk_that_brings_its_definition_leaves_the_same_rows(
    postgres_database: str,
) -> None:
    alone = await opened(postgres_database, "alone", Chain, None)
    together = await opened(postgres_database, "together", Chain, None)

    async with alone, together:
        for payload in PAYLOADS:
            await alone.start_run(Chain, payload)
        await together.start_runs(Chain, PAYLOADS)

    assert rows_in(postgres_database, "together") == rows_in(postgres_database, "alone")


async def test_an_id_that_is_taken_starts_nothing_and_is_named(postgres_database: str) -> None:
    async with SquidMesh.open(postgres_database, workflows=[Chain], ids=SequentialIds()) as here:
        await here.start_run(Chain)
        ids = SequentialIds()
        async with SquidMesh.open(postgres_database, workflows=[Chain], ids=ids) as there:
            await there.start_run(Chain, run_id=SequentialIds("other").run_id())

            with pytest.raises(RunExistsError):
                await there.start_runs(Chain, PAYLOADS)

            assert len((await there.list_runs()).runs) == 2


@pytest.mark.parametrize("is_known", [False, True], ids=["new", "known"])
async def test_bulks_that_meet_in_their_ids_are_started_once(
    postgres_database: str, is_known: bool
) -> None:
    first = SquidMesh.open(postgres_database, workflows=[Chain], ids=SequentialIds())
    second = SquidMesh.open(postgres_database, workflows=[Chain], ids=SequentialIds())

    async with first, second:
        for name, mesh in {"first": first, "second": second}.items():
            if is_known:
                await mesh.start_run(Chain, run_id=SequentialIds(name).run_id(), queue="before")
        answers = await asyncio.gather(
            first.start_runs(Chain, [{}] * 300),
            second.start_runs(Chain, [{}] * 300),
            return_exceptions=True,
        )
        page = await first.list_runs(limit=500)

    assert sorted(type(answer).__name__ for answer in answers) == ["RunExistsError", "list"]
    assert sum(run.queue == "default" for run in page.runs) == 300


async def test_runs_of_a_large_bulk_come_in_the_order_of_their_payloads(
    postgres_database: str,
) -> None:
    async with SquidMesh.open(postgres_database, workflows=[Chain]) as mesh:
        ids = await mesh.start_runs(Chain, [{"times": number} for number in range(4_500)])

    with psycopg.connect(postgres_database) as connection:
        rows = connection.execute(
            "select run_id::text, (data::jsonb -> 0 -> 4 ->> 'times')::int from squidmesh.entries"
        ).fetchall()
    assert ids == [run_id for run_id, _ in sorted(rows, key=lambda row: row[1])]
    assert len(set(ids)) == 4_500
