"""What costs the same however much is stored: claims, commits and lists, by the server's plans.

The statements are the adapter's own, planned as the server plans them for a store: without a look
at the values. Each is tried on 100,000 runs that wait and 100,000 that are over.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

import attrs
import psycopg
import pytest
from psycopg import sql

from benchmarks.postgres.cloning import Original
from squidmesh import SquidMesh, Workflow, manual, path, step
from squidmesh.adapters.postgres import PostgresStore, claiming, commits, listing
from squidmesh.adapters.postgres.statements import Query, Steps
from squidmesh.domain.state import RunStatus
from squidmesh.ports.store import RunQuery
from squidmesh.records import instant
from squidmesh.testing.builders import (
    alone,
    complete,
    finish,
    request,
    run_id,
    start,
    take,
)
from squidmesh.testing.clock import VirtualClock
from squidmesh.testing.postgres import TemporaryServer
from tests.postgres.template import fresh_database

pytestmark = pytest.mark.anyio

MANY: Final = 100_000
DAY: Final = timedelta(days=1)
AFFORDABLE: Final = 400
"""How many pages a statement may touch; a look at every run would take thousands."""

SESSION: Final = (
    "-c jit=off -c plan_cache_mode=force_generic_plan -c enable_seqscan=off"
    " -c statement_timeout=20s"
)
EXPLAIN: Final = sql.SQL("explain (analyze, buffers, format json) execute ours")
KEYS: Final = {"*": ("run_id",)}

TABLES: Final = ("runs", "step_runs", "ended_runs", "stuck_runs")
STATISTICS: Final = ("fresh", "none", "of ten rows")
FORGET: Final = """
delete from pg_statistic
where starelid = any(%s::text[]::regclass[])
"""
COUNT_AS: Final = """
update pg_class
set relpages = %s, reltuples = %s, relallvisible = 0
where oid = any(%s::text[]::regclass[])
"""
LIVE: Final = frozenset(status for status in RunStatus if not status.is_final)

LATER: Final = {"step_runs": {"visible_at": "t.visible_at + g * interval '10 ms'"}}


@attrs.frozen
class Plan:
    """What the server did for a statement."""

    root: dict[str, Any]

    @property
    def nodes(self) -> Iterator[dict[str, Any]]:
        waiting = [self.root]
        while waiting:
            node = waiting.pop()
            yield node
            waiting += node.get("Plans", [])

    @property
    def indexes(self) -> set[str]:
        """The indexes that were used."""
        return {node["Index Name"] for node in self.nodes if "Index Name" in node}

    @property
    def walked_through(self) -> list[str]:
        """The tables that were read from end to end."""
        return [node["Relation Name"] for node in self.nodes if node["Node Type"] == "Seq Scan"]

    @property
    def sorted_rows(self) -> int:
        """How many rows were put in order, which an index would have saved."""
        sorts = [node for node in self.nodes if node["Node Type"] == "Sort"]
        return sum(node["Actual Rows"] * node["Actual Loops"] for node in sorts)

    @property
    def compared_rows(self) -> int:
        """How many rows were thrown away one by one because they did not fit together."""
        return sum(
            node.get("Rows Removed by Join Filter", 0) * node["Actual Loops"] for node in self.nodes
        )

    @property
    def pages(self) -> int:
        """How many pages were touched."""
        return int(self.root["Shared Hit Blocks"] + self.root["Shared Read Blocks"])


@attrs.frozen
class Planner:
    """Runs the adapter's statements as a store does, and has the server tell how."""

    connection: "psycopg.Connection[Any]"

    def plans_of(self, steps: Steps[object]) -> list[Plan]:
        """How the statements of *steps* go, each after those before it."""
        plans: list[Plan] = []
        cursor = psycopg.RawCursor(self.connection)
        try:
            query = next(steps)
            while True:
                text = query.text.replace("{schema}", '"squidmesh"').encode()
                plans.append(self._plan(text, query))
                cursor.execute(text, query.values)
                query = steps.send(cursor.fetchall() if cursor.description else [])
        except StopIteration:
            return plans

    def _plan(self, text: bytes, query: Query) -> Plan:
        """Do it and take it back; only a prepared statement is planned without its values."""
        values = sql.SQL(", ").join(sql.Literal(value) for value in query.values)
        given = sql.SQL(" ({})").format(values) if query.values else sql.SQL("")
        self.connection.execute(b"prepare ours as " + text)
        try:
            with self.connection.transaction(force_rollback=True):
                explained = self.connection.execute(EXPLAIN + given).fetchone()
        finally:
            self.connection.execute("deallocate ours")
        assert explained is not None
        return Plan(explained[0][0]["Plan"])


@contextmanager
def a_planner(url: str) -> Iterator[Planner]:
    with psycopg.connect(url, autocommit=True, options=SESSION) as connection:
        yield Planner(connection)


async def fill(url: str, clock: VirtualClock) -> None:
    """Put as many runs that are over as runs that wait until tomorrow, and four that are due."""
    now, tomorrow = clock.now(), clock.now() + DAY
    store = await PostgresStore.open(url, clock=clock)
    ended, waiting = run_id(1), run_id(2)
    original = Original.before(url)
    await store.commit(alone(start(ended, at=now)))
    taken = take((await store.load([ended])).states[ended], "load", at=now)
    await store.commit(alone(taken))
    done = complete(taken.state, "load", at=now)
    await store.commit(alone(done))
    await store.commit(alone(finish(done.state, at=now)))
    # It was stuck, as it seemed, between the last two commits; nobody else need be.
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("delete from squidmesh.stuck_runs")
    original.copy(MANY, KEYS)
    original = Original.before(url)
    await store.commit(alone(start(waiting, at=now, visible_at=tomorrow)))
    original.copy(MANY, KEYS, LATER)
    await store.commit(alone(*(start(run_id(number), at=now) for number in range(11, 15))))
    await store.close()


@pytest.fixture(scope="module")
async def full_database(
    postgres_server: TemporaryServer, postgres_template: str
) -> AsyncIterator[str]:
    with fresh_database(postgres_server, template=postgres_template) as url:
        await fill(url, VirtualClock())
        yield url


@pytest.fixture
def planner(full_database: str) -> Iterator[Planner]:
    with a_planner(full_database) as planner:
        yield planner


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


def assert_affordable(plans: list[Plan]) -> None:
    assert plans != []
    assert [plan.walked_through for plan in plans if plan.walked_through] == []
    assert [plan.pages for plan in plans if plan.pages > AFFORDABLE] == []
    assert [plan.sorted_rows for plan in plans if plan.sorted_rows > AFFORDABLE] == []


@pytest.mark.parametrize("queues", [("default",), ("default", "other"), None])
async def test_a_claim_walks_the_index_of_what_is_due(
    planner: Planner, clock: VirtualClock, queues: tuple[str, ...] | None
) -> None:
    with planner.connection.transaction(force_rollback=True):
        plans = planner.plans_of(
            claiming.claim(request(tickets=3, queues=queues), instant(clock.now()))
        )

    assert_affordable(plans)
    assert "step_runs_due" in plans[-1].indexes
    assert "step_runs_leased" in plans[-1].indexes


async def test_a_claim_of_nothing_touches_no_run(planner: Planner, clock: VirtualClock) -> None:
    yesterday = instant(clock.now() - DAY)

    (plan,) = planner.plans_of(claiming.claim(request(tickets=64), yesterday))

    assert plan.pages <= 50
    assert plan.walked_through == []


async def test_commits_find_their_rows_by_their_keys(
    planner: Planner, full_database: str, clock: VirtualClock
) -> None:
    store = await PostgresStore.open(full_database, clock=clock)
    states = (await store.load([run_id(number) for number in range(11, 15)])).states.values()
    await store.close()
    taking = [take(state, "load", at=clock.now()) for state in states]
    ending = [complete(each.state, "load", at=clock.now(), then="next") for each in taking]

    with planner.connection.transaction(force_rollback=True):
        begun = planner.plans_of(commits.commit_plain(alone(*taking), clock.now()))
        ended = planner.plans_of(commits.commit_plain(alone(*ending), clock.now()))

    assert (len(begun), len(ended)) == (1, 1)
    assert_affordable([*begun, *ended])
    assert {"runs_pkey", "step_runs_pkey"} <= begun[0].indexes & ended[0].indexes


@contextmanager
def knowing(planner: Planner, statistics: str) -> Iterator[None]:
    """Let the server know of our tables what it would if nobody had analyzed them, or too early."""
    tables = [f"squidmesh.{table}" for table in TABLES]
    with planner.connection.transaction(force_rollback=True):
        if statistics != "fresh":
            planner.connection.execute(FORGET, (tables,))
            pages, rows = (0, -1) if statistics == "none" else (1, 10)
            planner.connection.execute(COUNT_AS, (pages, rows, tables))
        yield


@pytest.mark.parametrize("statistics", STATISTICS)
@pytest.mark.parametrize(
    "query",
    [
        RunQuery(),
        RunQuery(workflow="orders"),
        RunQuery(statuses=frozenset({RunStatus.COMPLETED})),
        RunQuery(statuses=frozenset({RunStatus.COMPLETED, RunStatus.FAILED})),
        RunQuery(statuses=frozenset({RunStatus.COMPLETED}), workflow="orders"),
        RunQuery(statuses=LIVE),
        RunQuery(statuses=LIVE, workflow="orders"),
        RunQuery(statuses=LIVE, behind=(VirtualClock().now() - timedelta(minutes=5), run_id(9))),
        RunQuery(statuses=frozenset({RunStatus.RUNNING})),
        RunQuery(
            statuses=frozenset({RunStatus.RUNNING, RunStatus.COMPLETED}),
            workflow="orders",
            limit=40,
        ),
    ],
    ids=[
        "all",
        "workflow",
        "over",
        "over or failed",
        "workflow and over",
        "open",
        "workflow and open",
        "open, a later page",
        "running",
        "workflow and running or over",
    ],
)
async def test_a_page_of_runs_is_found_along_an_index_whatever_the_statistics_say(
    planner: Planner, query: RunQuery, statistics: str
) -> None:
    with knowing(planner, statistics):
        found, shown = planner.plans_of(listing.list_runs(query))

    assert_affordable([found, shown])
    assert found.root["Actual Rows"] == query.limit


@pytest.mark.parametrize("statistics", STATISTICS)
@pytest.mark.parametrize(
    ("query", "most"),
    [
        (RunQuery(statuses=frozenset({RunStatus.PAUSED})), AFFORDABLE),
        (RunQuery(statuses=frozenset({RunStatus.CANCELLING})), AFFORDABLE),
        (RunQuery(statuses=LIVE, workflow="unknown"), 10 * MANY),
        (RunQuery(statuses=LIVE, tags={"team": "blue"}), 10 * MANY),
        (RunQuery(statuses=frozenset({RunStatus.PENDING})), 10 * MANY),
    ],
    ids=["paused", "cancelling", "workflow", "tags", "pending"],
)
async def test_runs_that_are_few_are_looked_for_among_what_is_open_once_each(
    planner: Planner, query: RunQuery, most: int, statistics: str
) -> None:
    with knowing(planner, statistics):
        found, _ = planner.plans_of(listing.list_runs(query))

    assert found.walked_through == []
    assert found.compared_rows == 0
    assert found.pages <= most


async def quick() -> None: ...


def chain(length: int) -> type[Workflow[None]]:
    """A workflow of steps in a row."""
    steps = [step(quick) for _ in range(length)]

    class Chain(Workflow[None]):
        by_hand = manual()
        locals().update({f"step_{number}": one for number, one in enumerate(steps)})
        transitions = path(*steps)

    return Chain


async def test_the_row_of_a_run_stays_on_its_page_and_out_of_the_indexes(
    postgres_database: str,
) -> None:
    workflow = chain(20)
    async with SquidMesh.open(postgres_database, workflows=[workflow]) as mesh:
        await mesh.start_run(workflow)
        await mesh.run_until_idle()

    with psycopg.connect(postgres_database) as connection:
        found = connection.execute(
            "select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relname = 'runs'"
        ).fetchone()

    assert found is not None
    updated, hot = found
    assert updated > 20
    assert hot == updated
