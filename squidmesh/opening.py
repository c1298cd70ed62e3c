"""The one place that knows which adapter belongs to which URL."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import attrs

from squidmesh.errors import InvalidOptionError
from squidmesh.ports.clock import Clock

if TYPE_CHECKING:
    from squidmesh.runtime.engine import Storage

SCHEMES = ("memory://", "sqlite:///path.db", "postgresql://user@host/database")
_POSTGRES = ("postgres", "postgresql", "postgresql+psycopg")


@attrs.frozen
class StoreAt:
    """A store that is named by a URL and not open yet."""

    url: str
    options: Mapping[str, object]

    async def open(self, clock: Clock) -> "Storage":
        """Open it."""
        return await open_store(self.url, clock, self.options)


def check_store(url: object, options: Mapping[str, object]) -> str:
    """Return the URL's scheme if it names a store that has these options; connects to nothing.

    Raises:
        InvalidOptionError: It does not, or an option makes no sense.
    """
    scheme = check_url(url)
    if scheme == "postgresql":
        from squidmesh.adapters.postgres import options_from, read_url

        read_url(str(url))
        options_from(options)
    elif options:
        unknown = ", ".join(sorted(options))
        raise InvalidOptionError(unknown, f"A {scheme} store has no option {unknown}.")
    return scheme


async def open_store(url: str, clock: Clock, options: Mapping[str, object]) -> "Storage":
    """Open the store that *url* names; adapters are imported only here, and only when asked for.

    Raises:
        InvalidOptionError: The URL names no store, or the store has no such option.
        StoreUnavailableError: The store cannot be opened.
    """
    scheme = check_store(url, options)
    if scheme == "postgresql":
        from squidmesh.adapters.postgres import PostgresStore, options_from

        return await PostgresStore.open(url, clock=clock, options=options_from(options))
    if scheme == "memory":
        from squidmesh.adapters.memory import MemoryStore

        return MemoryStore(clock=clock)
    from squidmesh.adapters.sqlite import SQLiteStore

    return await SQLiteStore.open(path_of(url), clock=clock)


def migration_sql(url: str, options: Mapping[str, object]) -> str:
    """Return the statements that make the tables of the store that *url* names; opens nothing.

    Raises:
        InvalidOptionError: The URL names no store, or the store has no such option.
    """
    scheme = check_url(url)
    if scheme == "memory":
        return ""
    if scheme == "postgresql":
        from squidmesh.adapters.postgres import migration_sql, options_from

        return migration_sql(options_from(options))
    from squidmesh.adapters.sqlite import schema

    return schema.sql()


def grants_sql(
    url: str, role: str, options: Mapping[str, object], *, read_only: bool = False
) -> str:
    """Return the statements that let *role* use the tables, or read them alone; opens nothing.

    Raises:
        InvalidOptionError: The URL names a store without roles, or an option makes no sense.
    """
    scheme = check_url(url)
    if scheme != "postgresql":
        raise InvalidOptionError("url", f"A {scheme} store has no roles to grant anything to.")
    from squidmesh.adapters.postgres import grants_sql, options_from

    return grants_sql(options_from(options), role, read_only=read_only)


def check_url(url: object) -> str:
    """Return the URL's scheme, or say what is wrong with it.

    Raises:
        InvalidOptionError: The URL names no store that this version knows.
    """
    if not isinstance(url, str):
        raise InvalidOptionError("url", "A store URL is a text, such as sqlite:///app.db.")
    scheme = url.partition("://")[0].lower() if "://" in url else ""
    if scheme in _POSTGRES:
        if find_spec("psycopg") is None:
            raise InvalidOptionError(
                "url", "PostgreSQL needs psycopg: install squidmesh with its extra 'postgres'."
            )
        return "postgresql"
    if scheme not in ("memory", "sqlite"):
        known = " or ".join(SCHEMES)
        raise InvalidOptionError("url", f"A store URL looks like {known}; this one does not.")
    if scheme == "sqlite":
        path_of(url)
    return scheme


def path_of(url: str) -> str:
    """Return the path in an SQLite URL: relative behind three slashes, absolute behind four.

    Raises:
        InvalidOptionError: The URL has a host, or no path.
    """
    try:
        parts = urlsplit(url)
        path = unquote(parts.path[1:])
    except ValueError:
        parts, path = None, ""
    if parts is None or parts.netloc or not path or "\x00" in path:
        raise InvalidOptionError(
            "url", "An SQLite URL is sqlite:///relative.db or sqlite:////absolute/path.db."
        )
    return path
