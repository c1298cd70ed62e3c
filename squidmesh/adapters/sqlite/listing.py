"""Lists of runs, newest first, a page at a time, each along the index that narrows most.

With statuses there is one walk per status, and the walks are merged.
"""

import sqlite3
from heapq import merge
from itertools import islice
from typing import Final

from squidmesh.adapters.sqlite.bulk import Row
from squidmesh.adapters.sqlite.reading import load_runs
from squidmesh.codec import encode
from squidmesh.ports.store import RunQuery, RunSummary
from squidmesh.records import instant

_EARLIEST: Final = ""
_LATEST: Final = "~"

_RUNS: Final = """
select started_at, run_id, current_step
from squidmesh_runs
where started_at >= :after
    and (started_at, run_id) < (:behind_at, :behind_id)
"""

_OF_STATUS: Final = """
    and status = :status
    and (:workflow is null or workflow = :workflow)
"""

_OF_WORKFLOW: Final = """
    and workflow = :workflow
"""

_TAGGED: Final = """
    and not exists (
        select 1
        from json_each(:tags) as wanted
        where not exists (
            select 1
            from json_each(squidmesh_runs.tags) as carried
            where carried.key = wanted.key and carried.value = wanted.value
        )
    )
"""

_NEWEST_FIRST: Final = """
order by started_at desc, run_id desc
limit :limit
"""


def list_runs(connection: sqlite3.Connection, query: RunQuery) -> tuple[RunSummary, ...]:
    """Return the page that *query* asks for."""
    walks = [connection.execute(*walk) for walk in statements(query)]
    rows: list[Row] = list(islice(merge(*walks, reverse=True), query.limit))
    states = load_runs(connection, [run_id for _, run_id, _ in rows])
    return tuple(
        RunSummary(state=states[run_id], current_step=current_step)
        for _, run_id, current_step in rows
    )


def statements(query: RunQuery) -> list[tuple[str, dict[str, str | int | None]]]:
    """Return the walks that *query* takes, each as SQL and its values."""
    values = _values(query)
    rest = (_TAGGED if query.tags else "") + _NEWEST_FIRST
    if query.statuses is not None:
        statuses = sorted(status.value for status in query.statuses)
        return [(_RUNS + _OF_STATUS + rest, values | {"status": status}) for status in statuses]
    if query.workflow is not None:
        return [(_RUNS + _OF_WORKFLOW + rest, values)]
    return [(_RUNS + rest, values)]


def _values(query: RunQuery) -> dict[str, str | int | None]:
    """Bounds become one pair to be behind of: nothing at a time sorts before an empty run id."""
    bounds = [(_LATEST, "")]
    if query.started_before is not None:
        bounds.append((instant(query.started_before), ""))
    if query.behind is not None:
        bounds.append((instant(query.behind[0]), query.behind[1]))
    behind_at, behind_id = min(bounds)
    return {
        "after": _EARLIEST if query.started_after is None else instant(query.started_after),
        "behind_at": behind_at,
        "behind_id": behind_id,
        "workflow": query.workflow,
        "tags": encode(dict(query.tags)),
        "limit": query.limit,
    }
