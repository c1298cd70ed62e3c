"""The journal beside commits: what is only noted, and checkpoints."""

import sqlite3
from typing import Final

from returns.result import Failure, Result, Success

from squidmesh.adapters.sqlite.commits import conflict
from squidmesh.adapters.sqlite.reading import load
from squidmesh.adapters.sqlite.writing import ENTRIES, RECEIPTS
from squidmesh.domain.evolution import evolve
from squidmesh.domain.state import RunState
from squidmesh.judging import Behind
from squidmesh.ports.store import JournalRow, RevisionConflict
from squidmesh.records import instant
from squidmesh.rows import checkpoint_row, entries_row, receipt_rows, usable_checkpoint

_MOVE: Final = """
update squidmesh_runs
set revision = ?,
    updated_at = ?
where run_id = ?
"""

_SAVE_CHECKPOINT: Final = """
insert into squidmesh_checkpoints (run_id, revision, format, data)
values (?, ?, ?, ?)
on conflict (run_id) do update
set revision = excluded.revision,
    format = excluded.format,
    data = excluded.data,
    encoding = excluded.encoding
"""

_CHECKPOINT: Final = """
select checkpoints.format, checkpoints.data, checkpoints.encoding, runs.revision
from squidmesh_checkpoints as checkpoints
cross join squidmesh_runs as runs
where checkpoints.run_id = ? and runs.run_id = checkpoints.run_id
"""


def append(
    connection: sqlite3.Connection, run_id: str, expected: int, row: JournalRow
) -> Result[None, RevisionConflict]:
    """Append *row* behind revision *expected*, if that is where the run stands."""
    state = load(connection, [run_id]).get(run_id)
    if state is None or state.revision != expected:
        return Failure(conflict(connection, Behind(run_id, expected)))
    for entry in row.entries:
        state = evolve(state, entry)
    assert state.updated_at is not None, "a run has had an entry"
    connection.execute(_MOVE, (state.revision, instant(state.updated_at), run_id))
    RECEIPTS.run(connection, receipt_rows(state, row.entries))
    ENTRIES.run(connection, [entries_row(run_id, row)])
    return Success(None)


def save_checkpoint(connection: sqlite3.Connection, state: RunState) -> None:
    """Keep *state* in place of an older one."""
    connection.execute(_SAVE_CHECKPOINT, checkpoint_row(state))


def checkpoint(connection: sqlite3.Connection, run_id: str) -> RunState | None:
    """Return the kept state, unless it cannot be of use."""
    row = connection.execute(_CHECKPOINT, (run_id,)).fetchone()
    return None if row is None else usable_checkpoint(row, run_id)
