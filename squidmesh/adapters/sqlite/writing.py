"""The rows of changes that nothing stands in the way of, table by table.

What several changes of a batch do to one row is written once, as the last of them leaves it.
"""

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from itertools import takewhile
from typing import Final

from squidmesh.adapters.sqlite.bulk import Row, Statement
from squidmesh.adapters.sqlite.rows import (
    attempt_row,
    moved_row,
    started_row,
    step_row,
    turned_row,
)
from squidmesh.domain.state import AttemptState
from squidmesh.judging import Facts, lease_until
from squidmesh.ports.store import RunChange
from squidmesh.records import instant
from squidmesh.rows import definition_row, entries_row, key_row, receipt_rows

_START: Final = Statement(
    """
    insert into squidmesh_runs (
        run_id, revision, current_step, begun, cancelling, error, undoing, updated_at,
        status, ended_at,
        workflow, version, definition, trigger_name, queue, priority, concurrency_key, tags,
        replayed_from, started_at
    )
    values ?
    """,
    width=20,
)

# The status is part of an index: it is named only where it changes.
_MOVE: Final = Statement(
    """
    with moved (
        run_id, revision, current_step, begun, cancelling, error, undoing, updated_at
    ) as (values ?)
    update squidmesh_runs
    set revision = moved.revision,
        current_step = moved.current_step,
        begun = moved.begun,
        cancelling = moved.cancelling,
        error = moved.error,
        undoing = moved.undoing,
        updated_at = moved.updated_at
    from moved
    where squidmesh_runs.run_id = moved.run_id
    """,
    width=8,
)

_TURN: Final = Statement(
    """
    with moved (
        run_id, revision, current_step, begun, cancelling, error, undoing, updated_at,
        status, ended_at
    ) as (values ?)
    update squidmesh_runs
    set revision = moved.revision,
        current_step = moved.current_step,
        begun = moved.begun,
        cancelling = moved.cancelling,
        error = moved.error,
        undoing = moved.undoing,
        updated_at = moved.updated_at,
        status = moved.status,
        ended_at = moved.ended_at
    from moved
    where squidmesh_runs.run_id = moved.run_id
    """,
    width=10,
)

_STEPS: Final = Statement(
    """
    insert into squidmesh_step_runs (
        run_id, step, visit, position, status, output, under, error, transition, ended, applied,
        failures, lost, deferrals, deferred, carried, manual, since
    )
    values ?
    on conflict (run_id, step, visit) do update
    set status = excluded.status,
        output = excluded.output,
        under = excluded.under,
        error = excluded.error,
        transition = excluded.transition,
        ended = excluded.ended,
        applied = excluded.applied,
        failures = excluded.failures,
        lost = excluded.lost,
        deferrals = excluded.deferrals,
        deferred = excluded.deferred,
        carried = excluded.carried,
        manual = excluded.manual
    """,
    width=18,
)

# A claim that stands keeps its lease, which heartbeats may have moved.
_ATTEMPTS: Final = Statement(
    """
    insert into squidmesh_attempts (
        run_id, step, visit, number, definition, queue, priority, concurrency_key, status,
        scheduled_at, visible_at, wake_at, claimed_at, ended_at, claim_id, token_hash, owner,
        lease, lease_until, fence, error
    )
    values ?
    on conflict (run_id, step, visit, number) do update
    set status = excluded.status,
        visible_at = excluded.visible_at,
        wake_at = excluded.wake_at,
        claimed_at = excluded.claimed_at,
        ended_at = excluded.ended_at,
        lease_until = case
            when excluded.status = 'claimed' and excluded.claim_id is squidmesh_attempts.claim_id
            then squidmesh_attempts.lease_until
            else excluded.lease_until
        end,
        claim_id = excluded.claim_id,
        token_hash = excluded.token_hash,
        owner = excluded.owner,
        lease = excluded.lease,
        fence = excluded.fence,
        error = excluded.error
    """,
    width=21,
)

ENTRIES: Final = Statement(
    """
    insert into squidmesh_entries (run_id, revision, at, format, cause, actor, data)
    values ?
    """,
    width=7,
)

_KEYS: Final = Statement(
    """
    insert into squidmesh_idempotency_keys (scope, key, run_id, command, digest, created_at)
    values ?
    on conflict (scope, key) do update
    set run_id = excluded.run_id,
        command = excluded.command,
        digest = excluded.digest,
        created_at = excluded.created_at,
        expires_at = null
    """,
    width=6,
)

RECEIPTS: Final = Statement(
    """
    insert into squidmesh_receipts (run_id, key, command)
    values ?
    on conflict (run_id, key) do update
    set command = excluded.command
    """,
    width=3,
)

_DEFINITIONS: Final = Statement(
    """
    insert into squidmesh_definitions (fingerprint, workflow, version, format, document)
    values ?
    on conflict (fingerprint) do nothing
    """,
    width=5,
)


def write(connection: sqlite3.Connection, changes: Sequence[RunChange], facts: Facts) -> None:
    """Write all rows of *changes*, which *facts* have been found to allow."""
    _write_once(connection, changes, facts)
    _write_runs(connection, changes, facts)
    _STEPS.run(connection, _steps(changes))
    attempts = {
        (change.run_id, attempt.step, attempt.visit, attempt.number): attempt_row(
            change.run_id, change.state.facts, attempt, _until(attempt, facts.at)
        )
        for change in changes
        for attempt in change.attempts
    }
    _ATTEMPTS.run(connection, list(attempts.values()))
    ENTRIES.run(
        connection,
        [entries_row(change.run_id, row) for change in changes for row in change.journal],
    )


def _until(attempt: AttemptState, at: datetime) -> str | None:
    until = lease_until(attempt, at)
    return None if until is None else instant(until)


def _write_once(connection: sqlite3.Connection, changes: Sequence[RunChange], facts: Facts) -> None:
    """Write what is never changed again."""
    definitions = {
        found.fingerprint: definition_row(found)
        for change in changes
        if (found := change.definition) is not None
    }
    _DEFINITIONS.run(connection, list(definitions.values()))
    keys = [(*key_row(key), facts.now) for change in changes for key in change.keys]
    _KEYS.run(connection, keys)
    for change in changes:
        if change.state.receipts:
            entries = [entry for row in change.journal for entry in row.entries]
            RECEIPTS.run(connection, receipt_rows(change.state, entries))


def _write_runs(connection: sqlite3.Connection, changes: Sequence[RunChange], facts: Facts) -> None:
    started: list[Row] = []
    moved: list[Row] = []
    turned: list[Row] = []
    for change in {change.run_id: change for change in changes}.values():
        status = facts.statuses.get(change.run_id)
        if status is None:
            started.append(started_row(change))
        elif status == change.state.status.value:
            moved.append(moved_row(change))
        else:
            turned.append(turned_row(change))
    _START.run(connection, started)
    _MOVE.run(connection, moved)
    _TURN.run(connection, turned)


def _steps(changes: Sequence[RunChange]) -> list[Row]:
    """The rows of steps; a step's position is how many stood before it when it first appeared."""
    rows: dict[tuple[str, str, int], Row] = {}
    for change in changes:
        positions = _positions(change)
        for step in change.steps:
            key = (change.run_id, step.step, step.visit)
            known = rows.get(key)
            position = positions.get(step.step, 0) if known is None else known[3]
            rows[key] = step_row(change.run_id, step, position)
    return list(rows.values())


def _positions(change: RunChange) -> dict[str, int]:
    """The positions of the steps at the end of the state: that is where new ones stand.

    Other steps have their rows, and with them their positions, already.
    """
    changed = {step.step for step in change.steps}
    last = len(change.state.steps) - 1
    behind = takewhile(changed.__contains__, reversed(list(change.state.steps)))
    return {step: last - index for index, step in enumerate(behind)}
