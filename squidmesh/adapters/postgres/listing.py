"""Lists of runs, newest first, a page at a time, each along the index that narrows most.

A list of final statuses is one walk per status along the index of what is over, and a list of
others walks those that are not; the walks are merged, so history costs the living nothing.

No index has the status of a run that goes on. Where such runs are many, the newest runs have enough
of them, and no more is looked at; else they are put together from the steps that are open.

No statistics, nor the want of them, may lead the server to another walk than the one that is
written down. So whole rows are compared, of which it expects a third to be less and a third to be
more, whatever it knows of the columns: enough to follow an index rather than to sort. And joins are
lateral ones behind a fence.
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

_TAGGED: Final = "($5::jsonb is null or tags @> $5::jsonb)"

_WALK: Final = """
select {columns}
from {schema}.runs
where (workflow, started_at) >= ({workflow}, $1::timestamptz)
    and (workflow, started_at, run_id) < ({workflow}, $2::timestamptz, $3::uuid)
    and {filter}
order by workflow desc, started_at desc, run_id desc
limit {most}
"""

# The index of runs begins with the workflow, so the walk through all of them leaps from one to the
# next; in an array of its own, which the planner does not take for a thousand rows.
_WALKS: Final = """
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
    where workflow is not null and $4::text is null
)) as known (known_workflow)
cross join lateral ({walk}) as found
"""

_NEWEST_FIRST: Final = "order by started_at desc, run_id desc limit {most}"
_WANTED: Final = "$6::integer"

# So many runs are looked through for each that is wanted, before those that go on are looked up.
_NEAR: Final = "4 * $6::bigint"

_LIVE: Final = f"""
with near as materialized (
    {{near}} {_NEWEST_FIRST.replace("{most}", _NEAR)}
), fit as materialized (
    select started_at, run_id, current_step
    from near
    where status = any($7::text[]) and {_TAGGED}
)
select *
from fit
where (select count(*) from fit) >= $6::integer
union all
select started_at, run_id, current_step
from unnest(array({{candidates}})) as candidates (candidate)
cross join lateral (
    select *
    from {{schema}}.runs
    where run_id = candidate
    offset 0
) as runs
where (select count(*) from fit) < $6::integer
    and started_at >= $1::timestamptz
    and (started_at, run_id) < ($2::timestamptz, $3::uuid)
    and ($4::text is null or workflow = $4::text)
    and {_TAGGED}
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

_FINAL: Final = f"""
select ended.started_at, ended.run_id, found.current_step
from {{schema}}.ended_runs as ended
cross join lateral (
    select current_step
    from {{schema}}.runs
    where runs.run_id = ended.run_id
        and ($4::text is null or workflow = $4::text)
        and {_TAGGED}
    offset 0
) as found
where (ended.status, ended.started_at) >= ('{{status}}', $1::timestamptz)
    and (ended.status, ended.started_at, ended.run_id)
        < ('{{status}}', $2::timestamptz, $3::uuid)
order by ended.status desc, ended.started_at desc, ended.run_id desc
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
    statuses = sorted(query.statuses or (), key=lambda status: status.value)
    live = [status for status in statuses if not status.is_final]
    walks = [_FINAL.replace("{status}", status.value) for status in statuses if status.is_final]
    if query.statuses is None:
        walks.append(_walk(query, "started_at, run_id, current_step", _TAGGED, _WANTED))
    if live:
        walks.append(_live(query, live))
    if not walks:
        return "", ()
    newest_first = _NEWEST_FIRST.replace("{most}", _WANTED)
    walks = [f"(select * from ({walk}) as walk {newest_first})" for walk in walks]
    page = f"select * from ({' union all '.join(walks)}) as found {newest_first}"
    asked_for = (quoted([status.value for status in live]),) if live else ()
    return f"select run_id::text, current_step from ({page}) as page", _values(query) + asked_for


def _walk(query: RunQuery, columns: str, condition: str, most: str) -> str:
    """Through the runs of the workflow, or of each, and so far that *most* are found in it."""
    walk = _WALK.replace("{columns}", columns).replace("{filter}", condition)
    walk = walk.replace("{most}", most)
    if query.workflow is not None:
        return f"select * from ({walk.replace('{workflow}', '$4::text')}) as found"
    return _WALKS.replace("{walk}", walk.replace("{workflow}", "known_workflow"))


def _live(query: RunQuery, statuses: Iterable[RunStatus]) -> str:
    """What is asked of a run besides its workflow and time does not prolong the walk."""
    near = _walk(query, "started_at, run_id, current_step, status, tags", "true", _NEAR)
    places = dict.fromkeys(place for status in statuses for place in _CANDIDATES[status])
    return _LIVE.replace("{near}", near).replace("{candidates}", " union ".join(places))


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
