"""Lists of runs, newest first, a page at a time, each along the index that narrows most.

A list of final statuses is one walk per status along the index of what is over, and a list of
others walks those that are not; the walks are merged, so history costs the living nothing.
"""

from collections.abc import Iterable
from typing import Final

from squidmesh.adapters.postgres.reading import load_runs
from squidmesh.adapters.postgres.statements import Query, Steps, quoted
from squidmesh.codec import encode
from squidmesh.domain.state import RunStatus
from squidmesh.ports.store import RunQuery, RunSummary
from squidmesh.records import instant

_EARLIEST: Final = "-infinity"
_LATEST: Final = "infinity"
_LEAST_ID: Final = "00000000-0000-0000-0000-000000000000"

_RUNS: Final = """
select started_at, run_id, current_step
from {schema}.runs
where started_at >= $1::timestamptz
    and (started_at, run_id) < ($2::timestamptz, $3::uuid)
    and ($4::text is null or workflow = $4::text)
    and ($5::jsonb is null or tags @> $5::jsonb)
"""

# The index of runs begins with the workflow, so the walk through all of them leaps from one to the
# next; in an array of its own, which the planner does not take for a thousand rows.
_ALL: Final = """
select found.*
from unnest(array(
    with recursive known (workflow) as (
        (
            select workflow
            from {schema}.runs
            order by workflow
            limit 1
        )
        union all
        select (
            select runs.workflow
            from {schema}.runs
            where runs.workflow > known.workflow
            order by runs.workflow
            limit 1
        )
        from known
        where known.workflow is not null
    )
    select workflow
    from known
    where workflow is not null
)) as known (workflow)
cross join lateral (
    select started_at, run_id, current_step
    from {schema}.runs
    where runs.workflow = known.workflow
        and started_at >= $1::timestamptz
        and (started_at, run_id) < ($2::timestamptz, $3::uuid)
        and ($4::text is null or runs.workflow = $4::text)
        and ($5::jsonb is null or tags @> $5::jsonb)
    order by started_at desc, run_id desc
    limit $6::integer
) as found
"""

_OF_WORKFLOW: Final = _RUNS.replace(
    "($4::text is null or workflow = $4::text)", "workflow = $4::text"
)

_LIVE: Final = f"""{_RUNS}
    and run_id in ({{candidates}})
    and status = any($7::text[])
"""

_SCHEDULED: Final = "select run_id from {schema}.step_runs where attempt_status = 'scheduled'"
_CLAIMED: Final = "select run_id from {schema}.step_runs where attempt_status = 'claimed'"
_PAUSED: Final = "select run_id from {schema}.step_runs where status = 'paused'"
_STUCK: Final = "select run_id from {schema}.stuck_runs"

# Where runs of a status are found that is not final: by a step that is open, or else as stuck.
_CANDIDATES: Final = {
    RunStatus.PENDING: (_SCHEDULED, _STUCK),
    RunStatus.RUNNING: (_SCHEDULED, _CLAIMED, _STUCK),
    RunStatus.RETRYING: (_SCHEDULED, _STUCK),
    RunStatus.PAUSED: (_PAUSED, _STUCK),
    RunStatus.CANCELLING: (_CLAIMED, _STUCK),
    RunStatus.COMPENSATING: (_SCHEDULED, _CLAIMED, _STUCK),
}

_FINAL: Final = """
select ended_runs.started_at, ended_runs.run_id, runs.current_step
from {schema}.ended_runs
join {schema}.runs on runs.run_id = ended_runs.run_id
where ended_runs.status = '{status}'
    and ended_runs.started_at >= $1::timestamptz
    and (ended_runs.started_at, ended_runs.run_id) < ($2::timestamptz, $3::uuid)
    and ($4::text is null or runs.workflow = $4::text)
    and ($5::jsonb is null or runs.tags @> $5::jsonb)
"""

_NEWEST_FIRST: Final = """
order by started_at desc, run_id desc
limit $6::integer
"""


def list_runs(query: RunQuery) -> Steps[tuple[RunSummary, ...]]:
    """Return the page that *query* asks for."""
    text, values = statement(query)
    rows = (yield Query(text, values)) if text else []
    states = yield from load_runs([run_id for run_id, _ in rows])
    return tuple(
        RunSummary(state=states[run_id], current_step=current_step)
        for run_id, current_step in rows
        if run_id in states
    )


def statement(query: RunQuery) -> tuple[str, tuple[object, ...]]:
    """The statement that *query* takes, and its values; no text if nothing can be found."""
    walks = _walks(query)
    if not walks:
        return "", ()
    values: tuple[object, ...] = _values(query)
    if query.statuses is not None and any(not status.is_final for status in query.statuses):
        values = (*values, quoted([status.value for status in _sorted(query.statuses)]))
    text = " union all ".join(f"({walk}{_NEWEST_FIRST})" for walk in walks)
    return f"select run_id::text, current_step from ({text}) as found{_NEWEST_FIRST}", values


def _walks(query: RunQuery) -> list[str]:
    if query.statuses is None:
        return [_ALL if query.workflow is None else _OF_WORKFLOW]
    final = [status for status in _sorted(query.statuses) if status.is_final]
    walks = [_FINAL.replace("{status}", status.value) for status in final]
    places = dict.fromkeys(
        place
        for status in _sorted(query.statuses)
        if not status.is_final
        for place in _CANDIDATES[status]
    )
    return [*walks, _LIVE.replace("{candidates}", " union ".join(places))] if places else walks


def _sorted(statuses: Iterable[RunStatus]) -> list[RunStatus]:
    return sorted(statuses, key=lambda status: status.value)


def _values(query: RunQuery) -> tuple[object, ...]:
    """Bounds become one pair to be behind of: nothing at a time sorts before the least id."""
    bounds = [(_LATEST, _LEAST_ID)]
    if query.started_before is not None:
        bounds.append((instant(query.started_before), _LEAST_ID))
    if query.behind is not None:
        bounds.append((instant(query.behind[0]), query.behind[1]))
    # Digits sort before letters: infinity is the greatest of these texts, as it is of instants.
    behind_at, behind_id = min(bounds)
    return (
        _EARLIEST if query.started_after is None else instant(query.started_after),
        behind_at,
        behind_id,
        query.workflow,
        encode(dict(query.tags)) if query.tags else None,
        query.limit,
    )
