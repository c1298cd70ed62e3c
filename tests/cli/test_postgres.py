"""The command line over PostgreSQL: any schema, poolers, grants, and no password anywhere."""

import signal
from pathlib import Path
from typing import Final

import psycopg
import pytest

from squidmesh.cli.settings import Settings, shown_url
from squidmesh.testing.postgres import TemporaryServer
from tests.cli.support import APP, ask, start
from tests.postgres.pooler import Pooler
from tests.postgres.support import name_of

CANARY: Final = "canary-4711"


def test_tables_are_made_and_asked_about(postgres_empty_database: str) -> None:
    env = {"SQUIDMESH_URL": postgres_empty_database}

    before = ask("runs", "list", env=env)
    migrated = ask("migrate", env=env)
    after = ask("runs", "list", "--json", env=env)

    assert (before.status, before.err.count("[schema_not_migrated]")) == (5, 1)
    assert "Try: squidmesh migrate" in before.err
    assert migrated.out == "The tables stand at version 1.\n"
    assert after.json["runs"] == []


def test_the_statements_make_the_tables_in_the_schema_that_is_named(
    postgres_empty_database: str,
) -> None:
    env = {"SQUIDMESH_URL": postgres_empty_database, "SQUIDMESH_SCHEMA": 'the "mesh"'}
    with psycopg.connect(postgres_empty_database) as connection:
        connection.execute(ask("migrate", "--sql", env=env).out.encode())

    in_schema = ask("runs", "list", env=env)
    typed = ask("runs", "list", "--schema", 'the "mesh"', env={**env, "SQUIDMESH_SCHEMA": None})
    elsewhere = ask("runs", "list", "--schema", "other", env=env)

    assert (in_schema.status, typed.status) == (0, 0)
    assert elsewhere.status == 5
    assert "Try: squidmesh migrate --schema other" in elsewhere.err


def test_a_schema_that_makes_no_sense_is_refused_before_anything_is_opened() -> None:
    reply = ask("migrate", "--url", "postgresql://nowhere.invalid/shop", "--schema", "pg_shop")

    assert reply.status == 2
    assert "[invalid_option]" in reply.err


def test_a_worker_works_in_the_schema_that_is_named(
    postgres_empty_database: str, tmp_path: Path
) -> None:
    env = {"SQUIDMESH_URL": postgres_empty_database, "SQUIDMESH_SCHEMA": "shop"}
    assert ask("migrate", env=env).status == 0

    process = start("worker", "--app", APP, "--log-json", cwd=tmp_path, **env)
    assert process.stderr is not None
    ready = process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate(timeout=30)

    assert process.returncode == 0, rest
    assert name_of(postgres_empty_database) in ready
    assert "@" not in ready
    assert password_of(postgres_empty_database) not in ready + rest


def password_of(url: str) -> str:
    return url.partition("@")[0].rpartition(":")[2]


def test_a_pooler_is_talked_to_without_prepared_statements(postgres_database: str) -> None:
    with Pooler.start(postgres_database, ignored={"options"}) as pooler:
        reply = ask("runs", "list", "--no-prepare", "--url", pooler.url)
        by_environment = ask(
            "runs", "list", env={"SQUIDMESH_URL": pooler.url} | {"SQUIDMESH_NO_PREPARE": "1"}
        )

    assert (reply.status, by_environment.status) == (0, 0)


@pytest.mark.parametrize("command", [("runs", "list"), ("migrate",), ("runs", "replay", "last")])
def test_no_complaint_shows_a_password(
    postgres_server: TemporaryServer, command: tuple[str, ...]
) -> None:
    url = postgres_server.url(password=CANARY)

    for given in (("--url", url), (f"--url={url}",)):
        for form in ((), ("--json",)):
            reply = ask(*command, *given, *form)

            assert reply.status != 0
            assert CANARY not in reply.out + reply.err


def test_what_a_role_needs_is_printed() -> None:
    url = f"postgresql://ida:{CANARY}@nowhere.invalid/shop"

    reply = ask("grants", "shop worker", "--url", url, "--schema", "shop")
    reading = ask("grants", "reader", "--read-only", "--json", "--url", url)

    assert 'grant select on "shop".schema_version to "shop worker";' in reply.out
    assert 'grant select on all tables in schema "squidmesh" to "reader";' in reading.json["sql"]


def test_a_file_has_no_roles() -> None:
    reply = ask("grants", "ida", "--url", "sqlite:///app.db")

    assert reply.status == 2
    assert "has no roles" in reply.err


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:///app.db", "sqlite:///app.db"),
        ("postgresql://db.example/shop", "postgresql://db.example/shop"),
        (f"postgresql://ida:{CANARY}@db.example:5432/shop", "postgresql://db.example:5432/shop"),
        (f"postgresql://db.example/shop?password={CANARY}", "postgresql://db.example/shop"),
        (f"postgresql://ida:{CANARY}@one:1,two:2/shop", "postgresql://…"),
        (f"postgresql://ida:{CANARY}@[::1]:5432/shop", "postgresql://[::1]:5432/shop"),
        (f"postgresql://ida:{CANARY}/more@db.example/shop", "postgresql://…"),
        (f"postgresql://ida:more/{CANARY}@db.example/shop", "postgresql://…"),
        (f"postgresql://ida:more@{CANARY}@db.example/shop", "postgresql://db.example/shop"),
    ],
)
def test_a_url_is_shown_without_what_is_nobodys_business(url: str, shown: str) -> None:
    told = shown_url(url)
    advice = Settings(arguments=("runs", "list", "--url", url), url=url, url_is_typed=True)

    assert told == shown
    assert CANARY not in advice.typed(without=()) + advice.command("migrate")
