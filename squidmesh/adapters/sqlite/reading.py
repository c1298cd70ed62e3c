"""Questions that are answered from the rows: states, lists of runs, the journal."""

import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Final

import attrs

from squidmesh.adapters.sqlite.bulk import Row, Statement
from squidmesh.adapters.sqlite.rows import READER
from squidmesh.domain.evolution import assemble
from squidmesh.domain.state import RunState
from squidmesh.ports.store import JournalRow
from squidmesh.rows import trusting

_RUNS: Final = Statement(
    """
    with wanted (run_id) as (values ?)
    select runs.run_id, runs.revision, runs.begun, runs.cancelling, runs.error, runs.undoing,
        runs.updated_at, runs.status, runs.ended_at, runs.encoding
    from wanted
    cross join squidmesh_runs as runs
    where runs.run_id = wanted.run_id
    """,
    width=1,
)

_FIRST_ENTRIES: Final = Statement(
    """
    with wanted (run_id) as (values ?)
    select entries.run_id, entries.revision, entries.at, entries.format, entries.cause,
        entries.actor, entries.data, entries.encoding
    from wanted
    cross join squidmesh_entries as entries
    where entries.run_id = wanted.run_id
        and entries.revision = (
            select min(others.revision)
            from squidmesh_entries as others
            where others.run_id = wanted.run_id
        )
    """,
    width=1,
)

# A claim leaves the reason of the deferral before it: nothing but the status is written there.
_STEPS: Final = Statement(
    """
    with wanted (run_id) as (values ?)
    select steps.run_id, steps.step, steps.visit, steps.status, steps.output, steps.under,
        steps.error, steps.transition, steps.ended, steps.applied, steps.failures, steps.lost,
        steps.deferrals, case when steps.status <> 'running' then steps.deferred end,
        steps.carried, steps.manual, steps.since,
        steps.output_encoding | steps.error_encoding
    from wanted
    cross join squidmesh_step_runs as steps
    where steps.run_id = wanted.run_id
    order by steps.run_id, steps.position, steps.rowid
    """,
    width=1,
)

_ATTEMPTS: Final = Statement(
    """
    with wanted (run_id) as (values ?)
    select attempts.run_id, attempts.step, attempts.visit, attempts.number, attempts.queue,
        attempts.status, attempts.scheduled_at, attempts.visible_at, attempts.wake_at,
        attempts.claimed_at, attempts.ended_at, attempts.claim_id, attempts.token_hash,
        attempts.owner, attempts.lease, attempts.lease_until, attempts.fence, attempts.error,
        attempts.error_encoding
    from wanted
    cross join squidmesh_attempts as attempts
    where attempts.run_id = wanted.run_id
    order by attempts.run_id, attempts.step, attempts.visit, attempts.number
    """,
    width=1,
)

_RECEIPTS: Final = Statement(
    """
    with wanted (run_id) as (values ?)
    select receipts.run_id, receipts.key, receipts.command
    from wanted
    cross join squidmesh_receipts as receipts
    where receipts.run_id = wanted.run_id
    """,
    width=1,
)

_JOURNAL: Final = """
select revision, at, format, cause, actor, data, encoding
from squidmesh_entries
where run_id = ? and revision > ?
order by revision
"""


def load(connection: sqlite3.Connection, run_ids: Collection[str]) -> dict[str, RunState]:
    """Put together the states of those runs that exist.

    Raises:
        JournalCorruptError: something that is stored about one of them cannot be read.

    """
    runs = load_runs(connection, run_ids)
    wanted = [(run_id,) for run_id in runs]
    steps = _grouped(_STEPS.run(connection, wanted), 1)
    attempts = _grouped(_ATTEMPTS.run(connection, wanted), 3)
    receipts = _grouped(_RECEIPTS.run(connection, wanted), 1)
    states: dict[str, RunState] = {}
    for run_id, run in runs.items():
        with trusting(run_id):
            reached = [
                READER.step_state(
                    row[1:], [READER.attempt_state(tried[1:]) for tried in attempts[row[:3]]]
                )
                for row in steps[run_id,]
            ]
        given = {key: command for _, key, command in receipts[run_id,]}
        states[run_id] = assemble(attrs.evolve(run, receipts=given), reached)
    return states


def load_runs(connection: sqlite3.Connection, run_ids: Collection[str]) -> dict[str, RunState]:
    """Read the rows of those runs that exist, and what they were started with."""
    wanted = [(run_id,) for run_id in dict.fromkeys(run_ids)]
    first = {row[0]: row[1:] for row in _FIRST_ENTRIES.run(connection, wanted)}
    states: dict[str, RunState] = {}
    for row in _RUNS.run(connection, wanted):
        with trusting(row[0]):
            states[row[0]] = READER.run_state(row, first.get(row[0]))
    return states


def read_journal(
    connection: sqlite3.Connection, run_id: str, *, after: int
) -> tuple[JournalRow, ...]:
    """Read the rows that hold entries behind revision *after*; the first may begin before it.

    Raises:
        JournalCorruptError: a row cannot be read, or an entry is missing or stands there twice.

    """
    rows = connection.execute(_JOURNAL, (run_id, after))
    return READER.journal(run_id, rows, after=after)


def _grouped(rows: Iterable[Row], width: int) -> defaultdict[Row, list[Row]]:
    """Rows by their first *width* values."""
    groups: defaultdict[Row, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row[:width]].append(row)
    return groups
