"""Commits: each change is judged, and what passes is written, all in the transaction at hand."""

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from returns.result import Failure, Result, Success

from squidmesh.adapters.sqlite.facts import Behind, Facts, Objection, Unguarded, read_facts
from squidmesh.adapters.sqlite.reading import read_journal
from squidmesh.adapters.sqlite.writing import write
from squidmesh.domain.dispatch import holder_of
from squidmesh.errors import JournalCorruptError
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
    passed: list[RunChange] = []
    results: list[Result[None, CommitFailure]] = []
    for change in changes:
        # What is included cannot be taken out again: with several runs it takes a draft.
        draft = facts if len(change.runs) == 1 else facts.draft()
        objection = _include(draft, change)
        if objection is None:
            facts = draft
            passed += change.runs
            results.append(_WRITTEN)
        else:
            results.append(Failure(_failure(connection, objection, passed)))
    write(connection, passed, facts)
    return Committed(at=now, results=tuple(results))


def _include(facts: Facts, change: Change) -> Objection | None:
    """Include the runs of *change* in *facts*, up to the first to which there is an objection."""
    for run in change.runs:
        objection = facts.objection_to(run)
        if objection is not None:
            return objection
        facts.include(run)
    return None


def _failure(
    connection: sqlite3.Connection, objection: Objection, passed: Sequence[RunChange]
) -> CommitFailure:
    """Say what its author should know; changes of the batch that have *passed* count."""
    match objection:
        case KeyTaken() | RunTaken():
            return objection
        case Unguarded(run_id=run_id, guard=guard):
            before = [change for change in passed if change.run_id == run_id]
            step = guard.attempt.step
            if before and step in before[-1].state.steps:
                holder = holder_of(before[-1].state, step)
            else:
                holder = _holder(connection, run_id, step)
            return GuardFailed(run_id=run_id, guard=guard, holder=holder)
        case Behind(run_id=run_id):
            before = [change for change in passed if change.run_id == run_id]
            return conflict(connection, objection, before)


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
    unseen = (
        entry
        for row in (*rows, *(row for change in unwritten for row in change.journal))
        for revision, entry in enumerate(row.entries, row.revision - len(row.entries) + 1)
        if revision > behind.expected
    )
    return RevisionConflict(run_id=behind.run_id, unseen=tuple(unseen))
