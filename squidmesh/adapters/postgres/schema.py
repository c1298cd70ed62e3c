"""The tables, their version, and the way there.

Each file brings the schema from one version to the next; an empty database takes all of them. One
transaction does it, under a lock that only migrations take, so that several processes may try.
"""

from importlib import resources
from typing import Final

from squidmesh.adapters.postgres.statements import Query, Steps
from squidmesh.errors import SchemaNotMigratedError

_FILES: Final = ("schema.sql",)
VERSION: Final = len(_FILES)

_LOCK: Final = "select pg_advisory_xact_lock(hashtextextended($1::text, 0))"

_HAS_TABLES: Final = "select to_regclass($1::text) is not null"

_VERSION: Final = "select version from {schema}.schema_version"

_ALL_OR_NOTHING: Final = """-- Run it in one transaction, which stops at the first error:
-- psql --single-transaction --set=ON_ERROR_STOP=1

"""

_HAS_SCHEMA: Final = "select to_regnamespace($1::text) is not null"


def migrate(schema: str) -> Steps[int]:
    """Create or upgrade the tables in the transaction at hand, and return their version.

    A schema that exists is used as it is: who may not create one has somebody else do it.

    Raises:
        SchemaNotMigratedError: a newer release has already brought them further.

    """
    yield Query("set local lock_timeout = 0")
    yield Query(_LOCK, (f"squidmesh:{schema}",))
    found = yield from version_of(schema)
    if found is not None and found > VERSION:
        raise SchemaNotMigratedError(found, VERSION)
    if found is None:
        ((exists,),) = yield Query(_HAS_SCHEMA, (schema,))
        if not exists:
            yield Query("create schema if not exists {schema}")
    for name in _FILES[found or 0 :]:
        for statement in _statements(_text(name)):
            yield Query(statement)
    return VERSION


def version_of(schema: str) -> Steps[int | None]:
    """Return the version that the tables stand at, None if there are none."""
    ((exists,),) = yield Query(_HAS_TABLES, (f"{schema}.schema_version",))
    if not exists:
        return None
    rows = yield Query(_VERSION)
    return int(rows[0][0]) if rows else None


def sql(schema: str) -> str:
    """Return everything that an empty database needs; *schema* is quoted already."""
    files = "\n".join(_text(name) for name in _FILES)
    tables = files.replace("{schema}", schema)
    return f"{_ALL_OR_NOTHING}create schema if not exists {schema};\n\n{tables}"


def _text(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _statements(text: str) -> list[str]:
    """Cut a script where statements end: no text in ours holds a semicolon."""
    lines = [line for line in text.splitlines() if not line.startswith("--")]
    return [part.strip() for part in "\n".join(lines).split(";") if part.strip()]
