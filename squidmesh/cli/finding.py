"""Which run is meant: a whole id, the beginning of one, or the last run.

Ids of version 7 begin with the time they were made at, so a beginning is looked for among the
runs of that time first, and then among the newest. Both searches read a bounded number of pages:
where that is not enough to be sure, the command asks for more of the id instead of guessing.
"""

import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import Final

import attrs

from squidmesh import SquidMesh
from squidmesh.cli.failures import CommandError, Exit
from squidmesh.cli.settings import Settings
from squidmesh.cli.terminal import Terminal

LAST: Final = "last"
SHORTEST: Final = 4
PAGE: Final = 1000
MOST_PAGES: Final = 10

_DIGITS_OF_ID: Final = 32
_DIGITS_OF_TIME: Final = 12
_CLOCKS_DIFFER: Final = timedelta(minutes=10)
_SHOWN: Final = 5
_LONGEST_SHOWN: Final = 120


@attrs.frozen
class _Found:
    """The ids that begin as asked, and whether all runs in question were looked at."""

    ids: tuple[str, ...]
    is_all: bool


async def find_run(mesh: SquidMesh, given: str, settings: Settings, *, page: int = PAGE) -> str:
    """Return the whole id of the run that *given* stands for, and note it in the settings.

    A search reads at most `MOST_PAGES` pages of *page* runs.

    Raises:
        CommandError: No run, several runs, or perhaps several begin like that; or no run can.
    """
    settings.run_id = await _found(mesh, given, settings.terminal, page)
    return settings.run_id


async def _found(mesh: SquidMesh, given: str, terminal: Terminal, page: int) -> str:
    if given == LAST:
        return await _last(mesh)
    digits = given.replace("-", "").lower()
    if len(digits) >= _DIGITS_OF_ID:
        return _whole(given)
    if not re.fullmatch(r"[0-9a-f]+", digits):
        raise _misnamed(given, "names no run")
    if len(digits) < SHORTEST:
        raise _misnamed(given, "is too short")
    return await _beginning_with(mesh, digits, given, terminal, page)


def _whole(given: str) -> str:
    try:
        return str(uuid.UUID(given))
    except ValueError:
        raise _misnamed(given, "names no run") from None


def _misnamed(given: str, problem: str) -> CommandError:
    shown = given if len(given) <= _LONGEST_SHOWN else f"{given[:_LONGEST_SHOWN]}…"
    return CommandError(
        f"{shown!r} {problem}: give a run id, {SHORTEST} characters or more of its beginning, or "
        f"`{LAST}`.",
        code="invalid_run_id",
        exit_code=Exit.USAGE,
        details={"run_id": shown},
    )


async def _last(mesh: SquidMesh) -> str:
    page = await mesh.list_runs(limit=1)
    if not page.runs:
        raise CommandError(
            "There is no run in this store yet.",
            code="run_not_found",
            exit_code=Exit.NOT_FOUND,
            advice="squidmesh demo",
            details={"run_id": LAST},
        )
    return page.runs[0].id


async def _beginning_with(
    mesh: SquidMesh, digits: str, given: str, terminal: Terminal, page: int
) -> str:
    window = _window(digits)
    found = _Found((), is_all=True)
    if window is not None:
        found = await _search(mesh, digits, window, terminal, page)
    if not found.ids:
        found = await _search(mesh, digits, (None, None), terminal, page)
    if not found.ids:
        raise _not_found(given, found, most=page * MOST_PAGES)
    if len(found.ids) > 1 or not found.is_all:
        raise _ambiguous(given, found)
    return found.ids[0]


def _window(digits: str) -> tuple[datetime, datetime] | None:
    """The time at which an id of version 7 that begins like this was made."""
    try:
        first, last = (
            datetime.fromtimestamp(
                int(digits[:_DIGITS_OF_TIME].ljust(_DIGITS_OF_TIME, fill), 16) / 1000, UTC
            )
            for fill in "0f"
        )
        return first - _CLOCKS_DIFFER, last + _CLOCKS_DIFFER
    except (OverflowError, ValueError, OSError):
        return None


async def _search(
    mesh: SquidMesh,
    digits: str,
    window: tuple[datetime | None, datetime | None],
    terminal: Terminal,
    size: int,
) -> _Found:
    ids: list[str] = []
    cursor: str | None = None
    with terminal.progress("Looking for the run", MOST_PAGES) as advance:
        for _ in range(MOST_PAGES):
            page = await mesh.list_runs(
                started_after=window[0], started_before=window[1], limit=size, cursor=cursor
            )
            ids += [run.id for run in page.runs if run.id.replace("-", "").startswith(digits)]
            cursor = page.next_cursor
            if cursor is None or len(ids) > _SHOWN:
                break
            advance()
    return _Found(tuple(ids), is_all=cursor is None)


def _not_found(given: str, found: _Found, *, most: int) -> CommandError:
    among = "" if found.is_all else f" among the newest {most:,}; give the whole id"
    return CommandError(
        f"No run begins with {given}{among}.",
        code="run_not_found",
        exit_code=Exit.NOT_FOUND,
        details={"run_id": given},
    )


def _ambiguous(given: str, found: _Found) -> CommandError:
    shown = found.ids[:_SHOWN]
    more = ", …" if len(found.ids) > _SHOWN else ""
    several = (
        f"Several runs begin with {given}: {', '.join(shown)}{more}; give more of the id."
        if len(shown) > 1
        else f"{given} is too short to tell which of very many runs is meant; give more of the id."
    )
    return CommandError(
        several,
        code="ambiguous_run_id",
        exit_code=Exit.USAGE,
        details={"run_id": given, "candidates": list(shown)},
    )
