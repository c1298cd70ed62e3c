"""The append-only history of each run."""

from abc import abstractmethod
from typing import Protocol

from returns.result import Result

from squidmesh.domain.state import RunState
from squidmesh.ports.store import JournalRow, RevisionConflict


class Journal(Protocol):
    """One ordered strand of facts per run, written in the same transactions as the rows."""

    @abstractmethod
    async def append(
        self, run_id: str, expected: int, row: JournalRow
    ) -> Result[None, RevisionConflict]:
        """Append entries that change no row but the run's revision (a noted replay, a wake-up).

        1. Appending behind a revision that no longer stands conflicts and writes nothing.
        """

    @abstractmethod
    async def read(self, run_id: str, *, after: int = 0) -> tuple[JournalRow, ...]:
        """Return the rows with entries behind revision *after*, in order; none for no run.

        1. Revisions rise without gap; entries come back equal to what was committed.
        2. A row that cannot be read raises JournalCorruptError; it is never passed over.
        """

    @abstractmethod
    async def save_checkpoint(self, state: RunState) -> None:
        """Keep *state* to shorten a later rebuild; an older one is replaced."""

    @abstractmethod
    async def checkpoint(self, run_id: str) -> RunState | None:
        """Return the kept state.

        1. One that is ahead of the journal, of another run or unreadable counts as none.
        """
