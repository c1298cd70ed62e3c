"""Which scheduled attempts somebody should be told about, and when that is owed again."""

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from squidmesh.adapters.sqlite.bulk import Statement
from squidmesh.adapters.sqlite.rows import READER
from squidmesh.domain.entries import AttemptId
from squidmesh.domain.state import AttemptState
from squidmesh.records import instant
from squidmesh.rows import wakeup_rows

_SCHEDULED: Final = """
select run_id, step, visit, number, queue, status, scheduled_at, visible_at, wake_at, claimed_at,
    ended_at, claim_id, token_hash, owner, lease, lease_until, fence, error, error_encoding
from squidmesh_attempts
"""

_DUE: Final = """
where status = 'scheduled' and visible_at <= ?
order by visible_at, run_id, number
limit ?
"""

_OWED: Final = """
where status = 'scheduled' and wake_at is not null and wake_at <= ?
order by wake_at, run_id, number
limit ?
"""

_WOKEN: Final = Statement(
    """
    with woken (run_id, step, visit, number, wake_at) as (values ?)
    update squidmesh_attempts
    set wake_at = woken.wake_at
    from woken
    where squidmesh_attempts.run_id = woken.run_id
        and squidmesh_attempts.step = woken.step
        and squidmesh_attempts.visit = woken.visit
        and squidmesh_attempts.number = woken.number
        and squidmesh_attempts.status = 'scheduled'
    """,
    width=5,
)


def owed_wakeups(
    connection: sqlite3.Connection, due_before: datetime | None, now: datetime, limit: int
) -> tuple[tuple[str, AttemptState], ...]:
    """Return the attempts that are due at *due_before*, or else those owed a wake-up *now*."""
    if due_before is not None:
        rows = connection.execute(_SCHEDULED + _DUE, (instant(due_before), limit))
    else:
        rows = connection.execute(_SCHEDULED + _OWED, (instant(now), limit))
    return READER.attempts_of_runs(rows)


def woken(
    connection: sqlite3.Connection, wakeups: Sequence[tuple[str, AttemptId, datetime]]
) -> None:
    """Note when each wake-up is owed; the last of several for one attempt counts."""
    _WOKEN.run(connection, wakeup_rows(wakeups))
