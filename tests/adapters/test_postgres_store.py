"""What is special about the store in PostgreSQL: schemas of any name, and sessions of any kind."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final

import psycopg
import pytest

from squidmesh.adapters.postgres import Options, PostgresStore, migration_sql, schema
from squidmesh.domain.entries import AttemptId
from squidmesh.domain.evolution import rebuild
from squidmesh.domain.values import Json
from squidmesh.errors import InvalidOptionError, SchemaNotMigratedError, StoreUnavailableError
from squidmesh.ports.store import RunQuery
from squidmesh.testing.builders import (
    FIRST,
    SECOND,
    alone,
    complete,
    key,
    request,
    start,
)
from squidmesh.testing.clock import VirtualClock

pytestmark = pytest.mark.anyio

DAY: Final = timedelta(days=1)

ODD_NAMES: Final = [
    "Mesh",
    "two words",
    'a "quoted" one',
    "it's",
    "häßlich 🦑",
    "select",
    "a.b",
    "per%cent %s {schema} $1",
    "back\\slash",
    "x" * 63,
]

Call = Callable[[PostgresStore], Awaitable[object]]


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@asynccontextmanager
async def opened(url: str, clock: VirtualClock, name: str = "squidmesh") -> AsyncIterator[Any]:
    """A store in the schema of this name."""
    store = await PostgresStore.open(url, clock=clock, options=Options(schema=name))
    try:
        yield store
    finally:
        await store.close()


def execute(url: str, *statements: str) -> list[tuple[Any, ...]]:
    """Run statements as the host's administrator would; the rows are the last one's."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def for_all_sessions(url: str, setting: str) -> None:
    """Have every new session in this database begin with a setting."""
    execute(url, f"alter database {url.rpartition('/')[2]} set {setting}")


async def live(store: PostgresStore, clock: VirtualClock) -> None:
    """Take a run through its life, and find it as it was written."""
    await store.commit(
        alone(start(at=clock.now(), payload=HOSTILE, tags={"a": "b"}, keys=(key("k"),)))
    )
    (claimed,) = (await store.claim(request())).claimed
    state = (await store.load([FIRST])).states[FIRST]
    assert state.steps["load"].attempts[-1].claimed_at == clock.now()
    assert state.steps["load"].attempts[-1].lease_until == clock.now() + claimed.entry.lease
    done = complete(state, "load", at=clock.now(), output=HOSTILE, then="next")
    await store.commit(alone(done))

    rows = await store.read(FIRST)
    assert (await store.load([FIRST])).states[FIRST] == done.state
    assert rebuild(FIRST, [entry for row in rows for entry in row.entries]) == done.state
    assert [row.at for row in rows] == [clock.now()] * 3
    (summary,) = await store.list_runs(RunQuery(tags={"a": "b"}))
    assert summary.state.run_id == FIRST


HOSTILE: Final[dict[str, Json]] = {
    "separators": "\u2028\u2029\u0085\x7f\x1f",
    "emoji": "🦑👩‍👩‍👧‍👦",
    "quotes": '"\'\\"\\\'\\\\ {a,"b"} NULL null $1 %s {schema}',
    "numbers": [0, -0.0, 1e-300, 2**63, 0.1],
    "": {"nested": [[], {}, None, True]},
    "padding": "  spaces \t\r\n ",
}


@pytest.mark.parametrize("name", ODD_NAMES)
async def test_a_schema_may_have_any_name(
    postgres_empty_database: str, clock: VirtualClock, name: str
) -> None:
    async with opened(postgres_empty_database, clock, name) as store:
        await store.migrate()

        await live(store, clock)

    named = execute(
        postgres_empty_database, "select distinct schemaname from pg_tables where tablename='runs'"
    )
    assert named == [(name,)]


@pytest.mark.parametrize(
    "name", ["", "x" * 64, "é" * 32, "pg_mine", "nul\0", "line\nbreak", 7, None]
)
async def test_a_name_that_no_schema_can_have_is_refused(clock: VirtualClock, name: Any) -> None:
    with pytest.raises(InvalidOptionError, match="schema"):
        await PostgresStore.open(
            "postgresql://nowhere/none", clock=clock, options=Options(schema=name)
        )


async def test_two_schemas_in_one_database_know_nothing_of_each_other(
    postgres_empty_database: str, clock: VirtualClock
) -> None:
    async with (
        opened(postgres_empty_database, clock, "Blue") as blue,
        opened(postgres_empty_database, clock, "blue") as other,
    ):
        await blue.migrate()
        await other.migrate()
        await blue.commit(alone(start(at=clock.now(), keys=(key("k"),))))
        await other.commit(alone(start(SECOND, at=clock.now())))

        seen = (await other.load([FIRST, SECOND])).states
        claims = await other.claim(request(tickets=5))

        assert set(seen) == {SECOND}
        assert [claimed.run_id for claimed in claims.claimed] == [SECOND]
        assert await other.find_key("orders:by_hand", "k") is None
        assert len((await blue.claim(request(tickets=5))).claimed) == 1


async def test_many_may_migrate_an_empty_database_at_once(
    postgres_empty_database: str, clock: VirtualClock
) -> None:
    stores = [await PostgresStore.open(postgres_empty_database, clock=clock) for _ in range(8)]

    versions = await asyncio.gather(*(store.migrate() for store in stores))

    assert versions == [schema.VERSION] * 8
    found = execute(postgres_empty_database, "select version from squidmesh.schema_version")
    assert found == [(schema.VERSION,)]
    for store in stores:
        await store.close()


async def test_the_printed_migration_makes_the_tables_that_migrating_makes(
    postgres_empty_database: str, postgres_database: str, clock: VirtualClock
) -> None:
    columns = """
        select table_name, column_name, data_type, is_nullable, column_default
        from information_schema.columns
        where table_schema = 'squidmesh'
        order by 1, ordinal_position
    """
    indexes = "select indexdef from pg_indexes where schemaname = 'squidmesh' order by 1"

    execute(postgres_empty_database, migration_sql(Options()))

    for question in (columns, indexes):
        printed = execute(postgres_empty_database, question)
        assert printed == execute(postgres_database, question)
        assert printed != []
    async with opened(postgres_empty_database, clock) as store:
        await live(store, clock)


async def test_the_tables_of_the_host_are_left_alone(
    postgres_empty_database: str, clock: VirtualClock
) -> None:
    execute(
        postgres_empty_database,
        "create table runs (distance integer)",
        "insert into runs values (42)",
        "create table definitions (word text)",
        "create schema squidmesh",
        "create table squidmesh.hosts_own (number integer)",
    )

    async with opened(postgres_empty_database, clock) as store:
        await store.migrate()
        await live(store, clock)

    assert execute(postgres_empty_database, "select distance from runs") == [(42,)]
    assert execute(postgres_empty_database, "select word from definitions") == []
    assert execute(postgres_empty_database, "select number from squidmesh.hosts_own") == []


CALLS: Final[dict[str, Call]] = {
    "commit": lambda store: store.commit(alone(start(at=VirtualClock().now()))),
    "commit with a key": lambda store: store.commit(
        alone(start(at=VirtualClock().now(), keys=(key("k"),)))
    ),
    "claim": lambda store: store.claim(request()),
    "load": lambda store: store.load([FIRST]),
    "list_runs": lambda store: store.list_runs(RunQuery()),
    "find_key": lambda store: store.find_key("a", "b"),
    "definitions": lambda store: store.definitions(),
    "definition": lambda store: store.definition("f"),
    "owed_wakeups": lambda store: store.owed_wakeups(due_before=None, limit=1),
    "woken": lambda store: store.woken([(FIRST, AttemptId("load", 1), VirtualClock().now())]),
    "take_lease": lambda store: store.take_lease("sweep", "me", DAY),
    "worker_seen": lambda store: store.worker_seen("me", [], {}),
    "workers_for": lambda store: store.workers_for("f", within=DAY),
    "read": lambda store: store.read(FIRST),
    "checkpoint": lambda store: store.checkpoint(FIRST),
}


async def details_of_refusals(store: PostgresStore) -> dict[str, object]:
    """What every call says of the tables that it finds."""
    found: dict[str, object] = {}
    for name, call in CALLS.items():
        with pytest.raises(SchemaNotMigratedError, match="squidmesh") as caught:
            await call(store)
        found[name] = caught.value.details
    return found


async def test_a_database_without_our_tables_is_named_by_every_call(
    postgres_empty_database: str, clock: VirtualClock
) -> None:
    async with opened(postgres_empty_database, clock) as store:
        refusals = await details_of_refusals(store)

    assert refusals == {call: {"found": None, "needed": schema.VERSION} for call in CALLS}


async def test_the_tables_of_a_newer_release_are_refused_by_every_call(
    postgres_database: str, clock: VirtualClock
) -> None:
    execute(postgres_database, "update squidmesh.schema_version set version = 99")

    async with opened(postgres_database, clock) as store:
        refusals = await details_of_refusals(store)

    assert refusals == {call: {"found": 99, "needed": schema.VERSION} for call in CALLS}


async def test_a_newer_release_s_tables_are_not_migrated_back(
    postgres_database: str, clock: VirtualClock
) -> None:
    execute(postgres_database, "update squidmesh.schema_version set version = 99")

    async with opened(postgres_database, clock) as store:
        with pytest.raises(SchemaNotMigratedError):
            await store.migrate()

    assert execute(postgres_database, "select version from squidmesh.schema_version") == [(99,)]


async def test_a_store_works_as_soon_as_somebody_has_migrated(
    postgres_empty_database: str, clock: VirtualClock
) -> None:
    async with (
        opened(postgres_empty_database, clock) as early,
        opened(postgres_empty_database, clock) as other,
    ):
        with pytest.raises(SchemaNotMigratedError):
            await early.load([FIRST])

        await other.migrate()

        await live(early, clock)


async def test_a_payload_of_two_megabytes_comes_back_byte_for_byte(
    postgres_database: str, clock: VirtualClock
) -> None:
    large: dict[str, Json] = {"text": '🦑\\"\u2028' * 300_000}
    begun = start(at=clock.now(), payload=large)

    async with opened(postgres_database, clock) as store:
        await store.commit(alone(begun))
        (claimed,) = (await store.claim(request())).claimed
        state = (await store.load([FIRST])).states[FIRST]
        done = complete(state, "load", at=clock.now(), output=large)
        await store.commit(alone(done))

        loaded = (await store.load([FIRST])).states[FIRST]

    assert loaded.facts.payload == large
    assert loaded.steps["load"].output == large
    assert claimed.run_id == FIRST


@pytest.mark.parametrize(
    "setting",
    [
        "timezone = 'Asia/Kathmandu'",
        "datestyle = 'German, DMY'",
        "intervalstyle = 'sql_standard'",
        "standard_conforming_strings = off",
        "default_transaction_isolation = 'repeatable read'",
        "default_transaction_isolation = 'serializable'",
        "search_path = 'pg_temp'",
        "bytea_output = 'escape'",
        "extra_float_digits = 0",
        "client_encoding = 'SQL_ASCII'",
        "plan_cache_mode = 'force_custom_plan'",
        "transform_null_equals = on",
        "array_nulls = on",
        "row_security = off",
    ],
)
async def test_what_sessions_begin_with_does_not_matter(
    postgres_database: str, clock: VirtualClock, setting: str
) -> None:
    for_all_sessions(postgres_database, setting)

    async with opened(postgres_database, clock) as store:
        await live(store, clock)


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
async def test_races_in_stricter_sessions_have_one_winner_and_nobody_fails(
    postgres_database: str, clock: VirtualClock, isolation: str
) -> None:
    for_all_sessions(postgres_database, f"default_transaction_isolation = '{isolation}'")

    async with (
        opened(postgres_database, clock) as store,
        opened(postgres_database, clock) as other,
    ):
        await store.commit(alone(start(at=clock.now())))
        claims = await asyncio.gather(*((store, other)[n % 2].claim(request()) for n in range(8)))
        state = (await store.load([FIRST])).states[FIRST]
        report = complete(state, "load", at=clock.now(), then="next")
        reported = await asyncio.gather(
            *((store, other)[n % 2].commit(alone(report)) for n in range(8))
        )
        loaded = (await other.load([FIRST])).states[FIRST]

    assert sum(len(claim.claimed) for claim in claims) == 1
    assert sum(one.results[0].value_or("failed") is None for one in reported) == 1
    assert loaded == report.state


@pytest.mark.parametrize("call", ["commit", "commit with a key", "worker_seen", "take_lease"])
async def test_a_database_that_only_reads_is_a_store_that_is_not_available_for_writing(
    postgres_database: str, clock: VirtualClock, call: str
) -> None:
    for_all_sessions(postgres_database, "default_transaction_read_only = on")

    async with opened(postgres_database, clock) as store:
        assert (await store.load([FIRST])).states == {}
        with pytest.raises(StoreUnavailableError, match="read-only"):
            await CALLS[call](store)


async def test_a_worker_that_was_not_seen_for_a_week_is_forgotten(
    postgres_database: str, clock: VirtualClock
) -> None:
    async with opened(postgres_database, clock) as store:
        await store.worker_seen("alice", ["default"], {"a": ()})
        clock.advance(8 * DAY)

        await store.worker_seen("bob", ["default"], {"a": ()})

    assert execute(postgres_database, "select owner from squidmesh.workers") == [("bob",)]


async def test_a_key_that_has_expired_is_free_again(
    postgres_database: str, clock: VirtualClock
) -> None:
    async with opened(postgres_database, clock) as store:
        await store.commit(alone(start(FIRST, at=clock.now(), keys=(key("k", FIRST),))))
        execute(
            postgres_database,
            "update squidmesh.idempotency_keys set expires_at = '2030-01-01T00:00:00Z'",
        )

        await store.commit(alone(start(SECOND, at=clock.now(), keys=(key("k", SECOND),))))

        assert await store.find_key("orders:by_hand", "k") == key("k", SECOND)


async def test_priorities_of_any_size_that_a_run_may_have_are_claimed_in_order(
    postgres_database: str, clock: VirtualClock
) -> None:
    low, high = -(2**31), 2**31 - 1

    async with opened(postgres_database, clock) as store:
        await store.commit(
            alone(
                start(FIRST, at=clock.now(), priority=low),
                start(SECOND, at=clock.now(), priority=high),
            )
        )
        claims = await store.claim(request(tickets=2))

    assert [claimed.run_id for claimed in claims.claimed] == [SECOND, FIRST]
