"""What a store of this technology may be told: options by name, and the URL."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs
import psycopg
from psycopg.conninfo import conninfo_to_dict

from squidmesh.errors import InvalidOptionError

_LONGEST_NAME: Final = 63

# A server that went away without a word is noticed, unless the host's own URL says when.
_PATIENCE: Final[Mapping[str, str | int]] = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
    "application_name": "squidmesh",
}

# Whatever the environment says: texts go to the server and come from it in this encoding.
_ENCODING: Final = {"client_encoding": "UTF8"}

_SHAPE: Final = (
    "A Postgres URL is postgresql://user:password@host:port/database, and what is special in a "
    "password, such as @ or /, is written as in %40 or %2F."
)


@attrs.frozen(kw_only=True)
class Options:
    """How to use a server.

    *prepare_threshold* is how often a statement runs before the server keeps it prepared; None
    prepares nothing, which poolers without support for it need. *deadline* is how many seconds a
    call may take, waiting for a connection included. *listen* has starts and commands announced,
    and workers hear of them at once rather than with their next poll.
    """

    schema: str = "squidmesh"
    min_connections: int = 1
    max_connections: int = 8
    prepare_threshold: int | None = 0
    deadline: float = 30.0
    listen: bool = True

    def checked(self) -> "Options":
        """Return the options if all of them make sense.

        Raises:
            InvalidOptionError: One does not; it names the first.
        """
        name: object = self.schema
        if (
            not isinstance(name, str)
            or not 0 < len(name.encode("utf-8", "replace")) <= _LONGEST_NAME
            or not name.isprintable()
            or name.startswith("pg_")
        ):
            raise InvalidOptionError(
                "schema", f"A schema's name has 1 to {_LONGEST_NAME} bytes, and not pg_ in front."
            )
        for option, least in (("min_connections", 0), ("max_connections", 1)):
            value = getattr(self, option)
            if type(value) is not int or value < least:
                raise InvalidOptionError(option, f"{option} is an integer from {least} on.")
        if self.min_connections > self.max_connections:
            raise InvalidOptionError(
                "min_connections", "min_connections is not above max_connections."
            )
        threshold = self.prepare_threshold
        if threshold is not None and (type(threshold) is not int or threshold < 0):
            raise InvalidOptionError(
                "prepare_threshold", "prepare_threshold is an integer from 0 on, or None for never."
            )
        if isinstance(self.deadline, bool) or not isinstance(self.deadline, int | float):
            raise InvalidOptionError("deadline", "deadline is a number of seconds.")
        if not self.deadline > 0:
            raise InvalidOptionError("deadline", "deadline is a positive number of seconds.")
        if type(self.listen) is not bool:
            raise InvalidOptionError("listen", "listen is True or False.")
        return self


def options_from(given: Mapping[str, object]) -> Options:
    """Return the options that are *given* by name.

    Raises:
        InvalidOptionError: There is no such option, or one makes no sense.
    """
    known = [field.name for field in attrs.fields(Options)]
    for name in given:
        if name not in known:
            listed = ", ".join(known)
            raise InvalidOptionError(name, f"A Postgres store has no option {name} ({listed}).")
    options: Callable[..., Options] = Options
    return options(**given).checked()


def quoted_name(name: str) -> str:
    """An identifier as it stands in SQL, whatever characters it has."""
    return '"' + name.replace('"', '""') + '"'


def read_url(url: str) -> dict[str, Any]:
    """The connection's parameters, completed by ours.

    Raises:
        InvalidOptionError: It is no URL of a server.
    """
    scheme, _, rest = url.partition("://")
    try:
        given = conninfo_to_dict(f"postgresql://{rest}" if scheme else url)
    except (psycopg.Error, UnicodeError, ValueError):
        given = None
    # A password with a character that ends it would go on in the host, the port or the database,
    # which errors name.
    if given is None or "@" in f"{given.get('host', '')}{given.get('dbname', '')}":
        raise InvalidOptionError("url", _SHAPE)
    ports = str(given.get("port") or "")
    if not all(port.strip().isdecimal() for port in ports.split(",") if port):
        raise InvalidOptionError("url", _SHAPE)
    return {**_PATIENCE, **given, **_ENCODING}
