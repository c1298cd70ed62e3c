"""The journal beside commits: what is only noted, and checkpoints."""

from typing import Final

from returns.result import Failure, Result, Success

from squidmesh.adapters.postgres.commits import commit_plain, conflict
from squidmesh.adapters.postgres.reading import load
from squidmesh.adapters.postgres.statements import Query, Steps
from squidmesh.domain.evolution import evolve
from squidmesh.domain.state import RunState
from squidmesh.judging import Behind
from squidmesh.ports.store import Change, JournalRow, RevisionConflict, RunChange
from squidmesh.rows import checkpoint_row, usable_checkpoint

_CURRENT_STEP: Final = "select current_step from {schema}.runs where run_id = $1::uuid"

_SAVE_CHECKPOINT: Final = """
insert into {schema}.checkpoints (run_id, revision, format, data)
values ($1::uuid, $2::integer, $3::smallint, $4::text)
on conflict (run_id) do update
set revision = excluded.revision,
    format = excluded.format,
    data = excluded.data,
    encoding = excluded.encoding
"""

_CHECKPOINT: Final = """
select checkpoints.format, checkpoints.data, checkpoints.encoding, runs.revision
from {schema}.checkpoints
join {schema}.runs using (run_id)
where run_id = $1::uuid
"""


def append(
    run_id: str, expected: int, row: JournalRow, now: str | None
) -> Steps[Result[None, RevisionConflict]]:
    """Append *row* behind revision *expected*, if that is where the run stands."""
    _, states = yield from load([run_id], now)
    state = states.get(run_id)
    if state is None or state.revision != expected:
        return Failure((yield from conflict(Behind(run_id, expected))))
    for entry in row.entries:
        state = evolve(state, entry)
    # What lists show stays as it is; a row that has moved on meanwhile is a conflict anyway.
    ((current_step,),) = yield Query(_CURRENT_STEP, (run_id,))
    change = RunChange(
        run_id=run_id,
        expected=expected,
        state=state,
        current_step=current_step,
        steps=(),
        attempts=(),
        journal=(row,),
    )
    committed = yield from commit_plain([Change((change,))], None)
    (result,) = committed.results
    if isinstance(result, Success):
        return Success(None)
    return Failure((yield from conflict(Behind(run_id, expected))))


def save_checkpoint(state: RunState) -> Steps[None]:
    """Keep *state* in place of an older one."""
    yield Query(_SAVE_CHECKPOINT, checkpoint_row(state))


def checkpoint(run_id: str) -> Steps[RunState | None]:
    """Return the kept state, unless it cannot be of use."""
    rows = yield Query(_CHECKPOINT, (run_id,))
    return usable_checkpoint(rows[0], run_id) if rows else None
