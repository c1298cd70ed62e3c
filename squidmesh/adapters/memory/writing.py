"""The journal as text: what this store keeps of a row, and how it is read again.

The text is that of every other store, so that what one of them could not keep fails here too, and
what is read is never the object that was written.
"""

from datetime import datetime

import attrs

from squidmesh.codec import decode, encode
from squidmesh.domain.entries import Entry
from squidmesh.errors import JournalCorruptError
from squidmesh.ports.store import JournalRow
from squidmesh.records import RecordProblem, rows_to_text, text_to_entries


@attrs.frozen
class Written:
    """A journal row as it is kept; *entries* and *actor* are JSON text."""

    revision: int
    at: datetime
    cause: str
    entries: str
    actor: str | None


def write(row: JournalRow) -> Written:
    """Return the text form of *row*."""
    return Written(
        row.revision,
        row.at,
        row.cause,
        rows_to_text(row.entries, row.at),
        None if row.actor is None else encode(row.actor),
    )


def read(run_id: str, written: Written) -> JournalRow:
    """Return the row that was *written* about a run, or say that it cannot be read."""
    return JournalRow(
        revision=written.revision,
        at=written.at,
        cause=written.cause,
        entries=read_entries(run_id, written),
        actor=None if written.actor is None else decode(written.actor),
    )


def read_entries(run_id: str, written: Written) -> tuple[Entry, ...]:
    """Return the entries of the row, or say that they cannot be read."""
    try:
        return text_to_entries(written.entries, written.at)
    except RecordProblem as problem:
        raise JournalCorruptError(run_id, f"revision {written.revision}: {problem}") from problem
