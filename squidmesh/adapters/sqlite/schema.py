"""The tables, their version, and the way there.

Each file brings the schema from one version to the next; an empty database takes all of them.
The version stands in a table of our own, because the file may be the host's, and so is its
``user_version``.
"""

import sqlite3
from collections.abc import Iterator
from importlib import resources
from typing import Final

from squidmesh.errors import SchemaNotMigratedError

_FILES: Final = ("schema.sql",)
VERSION: Final = len(_FILES)

_HAS_TABLES: Final = """
select count(*)
from sqlite_schema
where type = 'table' and name = 'squidmesh_schema'
"""

_VERSION: Final = """
select version
from squidmesh_schema
"""


def migrate(connection: sqlite3.Connection) -> int:
    """Create or upgrade the tables in the open transaction, and return their version.

    Raises:
        SchemaNotMigratedError: a newer release has already brought them further.

    """
    found = version_of(connection)
    if found is not None and found > VERSION:
        raise SchemaNotMigratedError(found, VERSION)
    for name in _FILES[found or 0 :]:
        for statement in _statements(_text(name)):
            connection.execute(statement)
    return VERSION


def version_of(connection: sqlite3.Connection) -> int | None:
    """Return the version that the tables stand at, None if there are none."""
    (count,) = connection.execute(_HAS_TABLES).fetchone()
    if not count:
        return None
    (version,) = connection.execute(_VERSION).fetchone()
    return int(version)


def sql() -> str:
    """Return everything that an empty database needs."""
    return "\n".join(_text(name) for name in _FILES)


def _text(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _statements(text: str) -> Iterator[str]:
    """Cut a script where statements end; executescript would commit before it begins."""
    statement = ""
    for line in text.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
