"""Commits: each change is judged, and what passes is written, all in the transaction at hand."""

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from returns.result import Failure, Result, Success

from squidmesh.adapters.sqlite.facts import read_facts
from squidmesh.adapters.sqlite.reading import read_journal
from squidmesh.adapters.sqlite.writing import write
from squidmesh.errors import JournalCorruptError
from squidmesh.judging import (
    Behind,
    Refused,
    Unguarded,
    holder_before,
    judge,
    unseen_entries,
)
from squidmesh.ports.store import (
    Change,
    CommitFailure,
    Committed,
    GuardFailed,
    KeyTaken,
    RevisionConflict,
    RunChange,
    RunTaken,
)

_WRITTEN: Final[Result[None, CommitFailure]] = Success(None)

_HOLDER: Final = """
select owner, status
from squidmesh_attempts
where run_id = ? and step = ?
order by visit desc, number desc
limit 1
"""


def commit(connection: sqlite3.Connection, changes: Sequence[Change], now: datetime) -> Committed:
    """Commit those of *changes* that nothing stands in the way of."""
    facts = read_facts(connection, [run for change in changes for run in change.runs], now)
    passed, verdicts = judge(facts, changes)
    results: list[Result[None, CommitFailure]] = [
        _WRITTEN if refused is None else Failure(_failure(connection, refused))
        for refused in verdicts
    ]
    write(connection, passed, facts)
    return Committed(at=now, results=tuple(results))


def _failure(connection: sqlite3.Connection, refused: Refused) -> CommitFailure:
    """Say what its author should know; changes of the batch that passed before it count."""
    match refused.objection:
        case KeyTaken() | RunTaken() as objection:
            return objection
        case Unguarded(run_id=run_id, guard=guard):
            step = guard.attempt.step
            is_known, holder = holder_before(refused.before, step)
            if not is_known:
                holder = _holder(connection, run_id, step)
            return GuardFailed(run_id=run_id, guard=guard, holder=holder)
        case Behind() as objection:
            return conflict(connection, objection, refused.before)


def _holder(connection: sqlite3.Connection, run_id: str, step: str) -> str | None:
    """Return who holds the step's latest attempt."""
    row = connection.execute(_HOLDER, (run_id, step)).fetchone()
    return str(row[0]) if row is not None and row[1] == "claimed" else None


def conflict(
    connection: sqlite3.Connection, behind: Behind, unwritten: Sequence[RunChange] = ()
) -> RevisionConflict:
    """Say what a change has not seen: in the store, and of what is about to get there.

    Where the journal cannot be read, nothing is said: loading the run will tell, and the other
    changes of the batch are not to suffer from it.
    """
    try:
        rows = read_journal(connection, behind.run_id, after=behind.expected)
    except JournalCorruptError:
        return RevisionConflict(run_id=behind.run_id, unseen=())
    later = [row for change in unwritten for row in change.journal]
    unseen = unseen_entries((*rows, *later), behind.expected)
    return RevisionConflict(run_id=behind.run_id, unseen=unseen)
