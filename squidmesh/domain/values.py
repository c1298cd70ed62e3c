"""What a value of record is: JSON, and how to follow a path through it."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import attrs
from returns.result import Failure, Result, Success

Json: TypeAlias = bool | int | float | str | list["Json"] | dict[str, "Json"] | None
"""A plain JSON value: exactly these Python types, no subclasses of them."""

JsonObject: TypeAlias = dict[str, Json]
"""A JSON object that its holder may change."""

JsonMapping: TypeAlias = Mapping[str, Json]
"""A JSON object that its holder only reads."""


@attrs.frozen
class MissingPath:
    """*path* leads nowhere: *missing_at* is its first key that the value does not have."""

    path: tuple[str, ...]
    missing_at: str


def dig(value: Json | JsonMapping, path: Sequence[str]) -> Result[Json, MissingPath]:
    """Follow *path* through objects by key, and through lists by an index given as digits.

    An empty path is the value itself. Nothing is copied: what comes back is part of *value*.
    """
    found: Json = (
        value if isinstance(value, dict) or not isinstance(value, Mapping) else dict(value)
    )
    for key in path:
        if isinstance(found, dict) and key in found:
            found = found[key]
        elif isinstance(found, list) and _is_index(key, len(found)):
            found = found[int(key)]
        else:
            return Failure(MissingPath(tuple(path), key))
    return Success(found)


def _is_index(key: str, length: int) -> bool:
    # The length of the text is looked at first: int() of endless digits is slow, then an error.
    return len(key) <= len(str(length)) and key.isascii() and key.isdigit() and int(key) < length
