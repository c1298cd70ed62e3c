"""Where a list of runs goes on: opaque text that only the question it came from understands.

A cursor holds the start and the id of the last run seen, and a digest of the filters it was
given under. It is neither a secret nor a permission; the check at its end tells that it has been
cut or altered on its way.
"""

import base64
import binascii
import hashlib
from datetime import UTC, datetime
from typing import Final

from squidmesh.codec import DecodeProblem, canonical, decode, encode
from squidmesh.domain.values import Json
from squidmesh.errors import InvalidOptionError
from squidmesh.ports.store import RunQuery

_VERSION: Final = 1
_CHECK: Final = 6
_LONGEST: Final = 1000


def write_cursor(behind: tuple[datetime, str], query: RunQuery) -> str:
    """The cursor behind the run with this start and id, in the list that answers *query*."""
    started_at, run_id = behind
    place: Json = [_VERSION, _instant(started_at), run_id, _filters(query)]
    body = encode(place).encode()
    return base64.urlsafe_b64encode(body + _check(body)).decode().rstrip("=")


def read_cursor(cursor: object, query: RunQuery) -> tuple[datetime, str]:
    """The start and id of the last run seen, for `RunQuery.behind`.

    Raises:
        InvalidOptionError: *cursor* is none, or comes from a list with other filters; the code is
            ``invalid_cursor``.

    """
    match _opened(cursor):
        case [int(version), str(started_at), str(run_id), str(filters)] if version == _VERSION:
            if filters != _filters(query):
                raise _refusal("it comes from a list with other filters")
            return _read_instant(started_at), run_id
        case _:
            raise _refusal("it is not one that list_runs() gave")


def _opened(cursor: object) -> Json:
    """What is in the text; None if it is not text of ours."""
    if not isinstance(cursor, str) or len(cursor) > _LONGEST or not cursor.isascii():
        return None
    padded = cursor + "=" * (-len(cursor) % 4)
    try:
        sealed = base64.b64decode(padded, altchars=b"-_", validate=True)
        body, check = sealed[:-_CHECK], sealed[-_CHECK:]
        return decode(body.decode()) if check == _check(body) else None
    except (binascii.Error, UnicodeDecodeError, DecodeProblem):
        return None


def _read_instant(started_at: str) -> datetime:
    try:
        return datetime.fromisoformat(started_at)
    except ValueError:
        raise _refusal("it is not one that list_runs() gave") from None


def _refusal(reason: str) -> InvalidOptionError:
    return InvalidOptionError(
        "cursor",
        f"The cursor cannot be used: {reason}; begin again without one.",
        code="invalid_cursor",
    )


def _filters(query: RunQuery) -> str:
    """A digest of what decides which runs are in the list; how many a page holds does not."""
    statuses: list[Json] = [*sorted(status.value for status in query.statuses or ())]
    filters: Json = {
        "workflow": query.workflow,
        "statuses": None if query.statuses is None else statuses,
        "tags": dict(query.tags),
        "started_after": _instant(query.started_after),
        "started_before": _instant(query.started_before),
    }
    return hashlib.sha256(canonical(filters).encode()).hexdigest()[:16]


def _instant(moment: datetime | None) -> str | None:
    """A moment in the one form that equal moments share, whatever zone they were written in."""
    return None if moment is None else moment.astimezone(UTC).isoformat(timespec="microseconds")


def _check(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()[:_CHECK]
