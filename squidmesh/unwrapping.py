"""The driver's connection in what a host lends: that itself, or what its library puts around it."""

from typing import Any


async def driver_connection(given: object) -> Any:  # noqa: ANN401  a connection of any driver
    """Return the connection in a Session or Connection of SQLAlchemy, of either kind, or *given*.

    SQLAlchemy knows then that there is a transaction: without one its commit would do nothing.
    """
    found: Any = given
    if callable(getattr(found, "get_bind", None)) and callable(getattr(found, "connection", None)):
        # A Session gives the connection of its transaction; an AsyncSession's is awaited.
        found = await _awaited(found.connection())
    begin = getattr(found, "begin", None)
    if (
        callable(begin)
        and callable(is_in := getattr(found, "in_transaction", None))
        and not is_in()
    ):
        await _awaited(begin())
    if callable(getattr(found, "get_raw_connection", None)):
        found = await _awaited(found.get_raw_connection())
    else:
        # A Connection's is the one that its pool has lent, and psycopg's and SQLite's have none.
        found = getattr(found, "connection", found)
    return getattr(found, "driver_connection", found)


def name_of(given: object, found: object) -> str:
    """What was *given*, and what was *found* in it if that is something else, for a message."""
    named = [
        f"{kind.__module__.partition('.')[0]}.{kind.__qualname__}"
        for kind in dict.fromkeys((type(given), type(found)))
    ]
    return " over ".join(named)


async def _awaited(found: Any) -> Any:  # noqa: ANN401  whatever the host's library gives
    return await found if hasattr(found, "__await__") else found
