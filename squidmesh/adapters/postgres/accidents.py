"""What can happen to any database, under the names that the library has for it.

Reasons are the server's own words, which name hosts, users and tables but never values; a password
is struck out wherever it might stand.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
from psycopg import errors

from squidmesh.adapters.postgres.schema import VERSION
from squidmesh.errors import (
    InvalidOptionError,
    SchemaNotMigratedError,
    SquidMeshError,
    StoreConflictError,
    StoreUnavailableError,
)

RACES: Final = (errors.SerializationFailure, errors.DeadlockDetected)
"""What goes away when the same is done again."""


class HeldError(StoreUnavailableError):
    """A transaction of somebody else holds what a statement needs, and did not let go of it."""

    def __init__(self) -> None:
        SquidMeshError.__init__(
            self,
            "Another transaction holds what this needs, and has not let go of it in time; "
            "the same call may be made again.",
            code="store_unavailable",
            details={"reason": "held by another transaction"},
        )


class ForbiddenError(StoreUnavailableError):
    """The role lacks a privilege."""

    def __init__(self, reason: str) -> None:
        SquidMeshError.__init__(
            self,
            f"The database's role may not do this: {reason}. `squidmesh grants ROLE` prints what a "
            "role needs, and the owner of the schema runs that, as well as migrations.",
            code="store_unavailable",
            details={"reason": reason},
        )


_UNPREPARED: Final = (
    "A pooler stands between, and does not keep prepared statements: open the store with "
    "prepare_threshold=None."
)


@contextmanager
def accidents(password: str | None = None) -> Iterator[None]:
    """Turn what can happen to any database into its named error; mistakes stay as they are.

    Raises:
        StoreUnavailableError: unreachable, refused, read-only, without privileges, too slow.
        StoreConflictError: a race was lost that the server itself resolves by an error.
        SchemaNotMigratedError: the tables are not there.
        InvalidOptionError: a pooler does not keep prepared statements.

    """
    try:
        yield
    except (psycopg.Error, TimeoutError) as problem:
        raise named(problem, password) from None


def named(problem: psycopg.Error | TimeoutError, password: str | None = None) -> Exception:
    """The error that stands for *problem*; *problem* itself if it is a mistake of somebody's."""
    match problem:
        case TimeoutError():
            return StoreUnavailableError("it took too long to answer")
        case errors.LockNotAvailable():
            return HeldError()
        case errors.SerializationFailure() | errors.DeadlockDetected():
            return StoreConflictError(reason_of(problem, password))
        case errors.UndefinedTable() | errors.UndefinedColumn() | errors.InvalidSchemaName():
            return SchemaNotMigratedError(None, VERSION)
        case errors.InsufficientPrivilege():
            return ForbiddenError(reason_of(problem, password))
        case errors.DuplicateTable():
            return StoreUnavailableError(
                "a migration has broken off, or other tables have the names of ours: "
                f"{reason_of(problem, password)}; drop the schema, or name another"
            )
        case errors.InvalidSqlStatementName() | errors.DuplicatePreparedStatement():
            return InvalidOptionError("prepare_threshold", _UNPREPARED)
        case (
            psycopg.DataError()
            | psycopg.IntegrityError()
            | psycopg.NotSupportedError()
            | psycopg.ProgrammingError()
        ):
            # Only a mistake of ours, or of whoever changed the tables, can bring that about.
            return problem
        case _:
            return StoreUnavailableError(reason_of(problem, password))


def reason_of(problem: psycopg.Error, password: str | None = None) -> str:
    """The first line of what went wrong, without the password."""
    said = problem.diag.message_primary or str(problem).strip().partition("\n")[0]
    said = said.removeprefix("connection failed: ") or type(problem).__name__
    return said.replace(password, "***") if password else said
