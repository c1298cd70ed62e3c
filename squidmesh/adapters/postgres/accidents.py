"""What can happen to any database, under the names that the library has for it.

Reasons are the server's own words, which name hosts, users and tables but never values; a password
is struck out wherever it might stand.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
from psycopg import errors
from psycopg_pool import PoolTimeout

from squidmesh.adapters.postgres.schema import VERSION
from squidmesh.errors import SchemaNotMigratedError, StoreConflictError, StoreUnavailableError

RACES: Final = (errors.SerializationFailure, errors.DeadlockDetected)
"""What goes away when the same is done again."""

_MISSING: Final = (errors.UndefinedTable, errors.UndefinedColumn, errors.InvalidSchemaName)

_DEFECTS: Final = (
    psycopg.DataError,
    psycopg.IntegrityError,
    psycopg.NotSupportedError,
    psycopg.ProgrammingError,
)
"""What only a mistake of ours, or of whoever changed the tables, can bring about."""


@contextmanager
def accidents(password: str | None = None) -> Iterator[None]:
    """Turn what can happen to any database into its named error; mistakes stay as they are.

    Raises:
        StoreUnavailableError: unreachable, refused, read-only, without privileges, too slow.
        StoreConflictError: a race was lost that the server itself resolves by an error.
        SchemaNotMigratedError: the tables are not there.

    """
    try:
        yield
    except RACES as error:
        raise StoreConflictError(reason_of(error, password)) from None
    except _MISSING:
        raise SchemaNotMigratedError(None, VERSION) from None
    except errors.InsufficientPrivilege as error:
        reason = f"the role may not do this: {reason_of(error, password)}"
        raise StoreUnavailableError(reason) from None
    except PoolTimeout:
        raise StoreUnavailableError("all connections are in use") from None
    except TimeoutError:
        raise StoreUnavailableError("it took too long to answer") from None
    except _DEFECTS:
        raise
    except psycopg.Error as error:
        raise StoreUnavailableError(reason_of(error, password)) from None


def reason_of(error: psycopg.Error, password: str | None = None) -> str:
    """The first line of what went wrong, without the password."""
    said = error.diag.message_primary or str(error).strip().partition("\n")[0]
    said = said or type(error).__name__
    return said.replace(password, "***") if password else said
