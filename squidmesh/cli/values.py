"""Values of payloads, errors and details, as short as a line allows."""

import json
from collections.abc import Mapping
from typing import Final

from squidmesh.cli.moments import from_text, stamp

LONGEST: Final = 600
LONGEST_INNER: Final = 120


def compact(value: object, longest: int = LONGEST) -> str:
    """A JSON value on one line, cut where it is too long to be read there."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text):,} characters)"


def told(value: object) -> str:
    """A value in words: texts as they are, times short, errors by code and message."""
    moment = from_text(value)
    if moment is not None:
        return stamp(moment)
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return error_told(value) if "code" in value else pairs(value)
    if isinstance(value, list | tuple):
        return ("; " if any(isinstance(item, Mapping) for item in value) else ", ").join(
            told(item) for item in value
        )
    return compact(value)


def pairs(values: Mapping[str, object]) -> str:
    """The entries of a mapping that say something; what is nested stays JSON."""
    return ", ".join(
        f"{key}={_inner(value)}" for key, value in values.items() if value not in (None, {}, [], "")
    )


def _inner(value: object) -> str:
    is_error = isinstance(value, Mapping) and "code" in value and "message" in value
    return compact(value, LONGEST_INNER) if _is_nested(value) and not is_error else told(value)


def _is_nested(value: object) -> bool:
    if isinstance(value, list | tuple):
        return any(isinstance(item, Mapping | list) for item in value)
    return isinstance(value, Mapping)


def error_told(error: Mapping[str, object]) -> str:
    """An error record: its code, the type that was raised, and what it says."""
    kind = f" ({error['type']})" if error.get("type") else ""
    message = error.get("message")
    said = f": {message}" if message else ""
    details = error.get("details")
    more = f" {compact(details, 200)}" if details else ""
    return f"{error.get('code')}{kind}{said}{more}"
