"""`squidmesh migrate`: the tables, or the SQL that would make them."""

import sqlite3
from pathlib import Path

from tests.cli.support import Shop, ask


def test_tables_are_made_once_and_their_version_is_told(tmp_path: Path) -> None:
    shop = Shop(tmp_path)

    first = shop.ask("migrate")
    again = shop.ask("migrate", "--json")

    assert first.out == f"The tables stand at version {again.json['version']}.\n"
    assert shop.ask("runs", "list").status == 0


def test_the_statements_are_printed_and_nothing_is_made(tmp_path: Path) -> None:
    shop = Shop(tmp_path)

    reply = shop.ask("migrate", "--sql")
    in_json = shop.ask("migrate", "--sql", "--json")

    assert reply.status == 0
    assert in_json.json["sql"].strip() == reply.out.strip()
    assert list(tmp_path.iterdir()) == []


def test_the_statements_make_the_tables_that_migrate_makes(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    with sqlite3.connect(shop.path) as connection:
        connection.executescript(shop.ask("migrate", "--sql").out)
    connection.close()

    assert shop.ask("runs", "list").status == 0


def test_a_folder_that_does_not_exist_is_reported(tmp_path: Path) -> None:
    reply = ask("migrate", "--url", f"sqlite:///{tmp_path}/none/app.db")

    assert reply.status == 1
    assert "its folder has to exist. [store_unavailable]" in reply.err
