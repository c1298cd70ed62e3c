"""A pooler that punishes whoever relies on a session."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg.errors import InvalidSqlStatementName
from psycopg_pool import AsyncConnectionPool

from squidmesh.testing.postgres import TemporaryServer
from tests.postgres.pooler import Pooler


@pytest.fixture
def pooler(postgres_empty_database: str) -> Iterator[Pooler]:
    with Pooler.start(postgres_empty_database) as pooler:
        yield pooler


def connected(pooler: Pooler) -> psycopg.Connection:
    return psycopg.connect(pooler.url, autocommit=True, prepare_threshold=None)


def value(connection: psycopg.Connection, sql: str) -> object:
    row = connection.execute(sql.encode()).fetchone()
    assert row is not None
    return row[0]


def test_many_transactions_work_without_prepared_statements(pooler: Pooler) -> None:
    with connected(pooler) as connection:
        connection.execute("create table fish (name text)")
        for number in range(20):
            with connection.transaction():
                connection.execute("insert into fish values (%s)", (f"fish {number}",))
                connection.execute("update fish set name = upper(name)")

        count = value(connection, "select count(*) from fish where name like 'FISH %'")

    assert count == 20
    assert pooler.transactions == 22
    assert pooler.swaps == 21


@pytest.mark.anyio
async def test_many_transactions_of_an_asynchronous_pool_work_at_once(pooler: Pooler) -> None:
    options = {"prepare_threshold": None}

    async with AsyncConnectionPool(
        pooler.url, kwargs=options, min_size=6, max_size=6, open=False
    ) as pool:
        for _ in range(20):
            async with pool.connection() as connection, connection.pipeline():
                first = await connection.execute("select %s::int", (1,))
                second = await connection.execute("select %s::int", (2,))
                assert (await first.fetchone(), await second.fetchone()) == ((1,), (2,))

    assert pooler.transactions >= 20


def test_a_statement_that_was_prepared_is_unknown_in_the_next_transaction(pooler: Pooler) -> None:
    with (
        psycopg.connect(pooler.url, autocommit=True, prepare_threshold=0) as connection,
        pytest.raises(InvalidSqlStatementName, match="does not exist"),
    ):
        # Preparing is a transaction, executing the next one.
        connection.execute("select %s::int", (1,))


def test_a_setting_of_the_session_does_not_last(pooler: Pooler) -> None:
    with connected(pooler) as connection:
        connection.execute("set lock_timeout = '7s'")

        later = value(connection, "show lock_timeout")

    assert later == "0"


def test_a_setting_of_the_session_meets_whoever_comes_next(pooler: Pooler) -> None:
    with connected(pooler) as connection, connected(pooler) as another:
        connection.execute("set lock_timeout = '7s'")

        met = {value(another, "show lock_timeout") for _ in range(3)}

    assert met == {"0", "7s"}


def test_a_lock_of_the_session_stays_behind_on_its_connection(pooler: Pooler) -> None:
    with connected(pooler) as connection:
        connection.execute("select pg_advisory_lock(7)")

        released = value(connection, "select pg_advisory_unlock(7)")

    assert released is False


def test_notifications_do_not_arrive(
    pooler: Pooler, postgres_empty_database: str, postgres_server: TemporaryServer
) -> None:
    with connected(pooler) as connection:
        connection.execute("listen fish")
        with psycopg.connect(postgres_empty_database, autocommit=True) as caller:
            caller.execute("notify fish")

        heard = list(connection.notifies(timeout=0.05))

    assert heard == []


def test_two_transactions_of_one_client_run_on_different_backends(pooler: Pooler) -> None:
    with connected(pooler) as connection:
        first = value(connection, "select pg_backend_pid()")
        second = value(connection, "select pg_backend_pid()")

    assert first != second
    assert (pooler.transactions, pooler.swaps) == (2, 1)


def test_one_transaction_stays_on_one_backend(pooler: Pooler) -> None:
    with connected(pooler) as connection, connection.transaction():
        pids = {value(connection, "select pg_backend_pid()") for _ in range(5)}

    assert len(pids) == 1
    assert pooler.transactions == 1


def test_a_failed_transaction_stays_on_its_backend_until_it_is_rolled_back(
    pooler: Pooler,
) -> None:
    with connected(pooler) as connection:
        with pytest.raises(psycopg.errors.DivisionByZero), connection.transaction():
            connection.execute("select 1/0")
        after = value(connection, "select 1")

    assert after == 1
    assert pooler.transactions == 2


def test_a_pipeline_is_one_transaction(pooler: Pooler) -> None:
    with connected(pooler) as connection, connection.pipeline():
        cursors = [connection.execute("select %s::int", (number,)) for number in range(5)]
        rows = [cursor.fetchone() for cursor in cursors]

    assert rows == [(number,) for number in range(5)]


def test_a_copy_goes_in_and_out(pooler: Pooler) -> None:
    with connected(pooler) as connection:
        connection.execute("create table fish (name text)")
        with connection.cursor().copy("copy fish from stdin") as copy:
            copy.write_row(("squid",))
        with connection.cursor().copy("copy fish to stdout") as copy:
            rows = list(copy.rows())

    assert rows == [("squid",)]
    assert pooler.transactions == 3


def test_more_clients_than_connections_take_turns(pooler: Pooler) -> None:
    def work(number: int) -> object:
        with connected(pooler) as connection, connection.transaction():
            connection.execute("select pg_sleep(0.001)")
            return value(connection, f"select {number:d}")

    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(work, range(24)))

    assert results == list(range(24))


def test_a_client_that_leaves_inside_a_transaction_leaves_nothing_behind(
    pooler: Pooler,
) -> None:
    with connected(pooler) as other:
        other.execute("create table fish (name text)")
        leaver = connected(pooler)
        leaver.execute("begin")
        leaver.execute("insert into fish values ('squid')")
        leaver.close()

        # It waits for the lock of whoever left, if that is not gone by then.
        other.execute("lock table fish; select 1")
        counts = {value(other, "select count(*) from fish") for _ in range(6)}

    assert counts == {0}


def test_a_lost_connection_to_the_server_is_replaced(
    pooler: Pooler, postgres_empty_database: str
) -> None:
    with (
        psycopg.connect(postgres_empty_database, autocommit=True) as killer,
        connected(pooler) as victim,
    ):
        victim.execute("begin")
        pid = value(victim, "select pg_backend_pid()")
        killer.execute("select pg_terminate_backend(%s, 5000)", (pid,))
        with pytest.raises(psycopg.OperationalError):
            victim.execute("select 1")

    with connected(pooler) as connection:
        pids = [value(connection, "select pg_backend_pid()") for _ in range(6)]

    assert pid not in pids
    assert len(set(pids)) == 3


def test_startup_options_are_refused(pooler: Pooler) -> None:
    with pytest.raises(psycopg.OperationalError, match="unsupported startup parameter: options"):
        psycopg.connect(pooler.url, options="-c statement_timeout=1000")


def test_names_of_the_application_and_of_the_encoding_are_allowed(pooler: Pooler) -> None:
    with psycopg.connect(
        pooler.url, application_name="fish", client_encoding="utf-8"
    ) as connection:
        told = connection.info.parameter_status("server_version")

    assert told is not None


def test_another_database_is_refused(pooler: Pooler) -> None:
    with pytest.raises(psycopg.OperationalError, match="no such database"):
        psycopg.connect(pooler.url, dbname="elsewhere")


def test_a_pooler_that_cannot_log_in_says_so(postgres_server: TemporaryServer) -> None:
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        Pooler.start(postgres_server.url("nowhere"))


def test_a_stopped_pooler_hangs_up(postgres_empty_database: str) -> None:
    pooler = Pooler.start(postgres_empty_database, size=1)
    with connected(pooler) as connection:
        connection.execute("begin")

        pooler.stop()

        with pytest.raises(psycopg.OperationalError):
            connection.execute("select 1")
