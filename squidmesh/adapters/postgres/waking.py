"""Which scheduled attempts somebody should be told about, and when that is owed again."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from squidmesh.adapters.postgres.reading import LATEST
from squidmesh.adapters.postgres.rows import READER
from squidmesh.adapters.postgres.statements import Query, Steps, arrays, columns, given
from squidmesh.domain.entries import AttemptId
from squidmesh.domain.state import AttemptState
from squidmesh.records import instant
from squidmesh.rows import wakeup_rows

_SCHEDULED: Final = f"""
select run_id::text, {LATEST.replace("{queue}", "queue")}
from {{schema}}.step_runs
"""

_DUE: Final = f"""{_SCHEDULED}
where attempt_status = 'scheduled' and visible_at <= $1::timestamptz
order by visible_at, run_id, number
limit $2::integer
"""

_OWED: Final = f"""{_SCHEDULED}
where attempt_status = 'scheduled'
    and wake_at is not null
    and wake_at <= (select coalesce($1::timestamptz, clock_timestamp()))
order by wake_at, run_id, number
limit $2::integer
"""

_WOKEN: Final = columns(
    run_id="uuid",
    step="text",
    visit="integer",
    number="integer",
    wake_at="timestamptz",
)

# Whoever holds one of these rows is about to change it: the attempt is no longer owed anything.
_NOTE: Final = f"""
with free as (
    select step_runs.run_id, step_runs.step, step_runs.visit, given.wake_at
    from {given(_WOKEN, 1)}
    join {{schema}}.step_runs using (run_id, step, visit, number)
    where step_runs.attempt_status = 'scheduled'
    order by step_runs.run_id, step_runs.step
    for update of step_runs skip locked
)
update {{schema}}.step_runs
set wake_at = free.wake_at
from free
where step_runs.run_id = free.run_id
    and step_runs.step = free.step
    and step_runs.visit = free.visit
"""


def owed_wakeups(
    due_before: datetime | None, now: str | None, limit: int
) -> Steps[tuple[tuple[str, AttemptState], ...]]:
    """Return the attempts that are due at *due_before*, or else those owed a wake-up *now*."""
    if due_before is not None:
        rows = yield Query(_DUE, (instant(due_before), limit))
    else:
        rows = yield Query(_OWED, (now, limit))
    return READER.attempts_of_runs(rows)


def woken(wakeups: Sequence[tuple[str, AttemptId, datetime]]) -> Steps[None]:
    """Note when each wake-up is owed; the last of several for one attempt counts."""
    rows = wakeup_rows(wakeups)
    if rows:
        yield Query(_NOTE, arrays(_WOKEN, rows))
