"""What one batch does to one run, decided and not committed yet."""

from datetime import datetime

import attrs
from returns.result import Failure, Success

from squidmesh.domain.commands import Command, KeyAlreadyUsed, StartRun
from squidmesh.domain.entries import Entry
from squidmesh.domain.state import RunState
from squidmesh.ports.store import KeyRecord
from squidmesh.runtime.asks import Ask, Settled


@attrs.frozen
class Decided:
    """An ask and what was decided about it, not yet committed."""

    ask: Ask
    command: Command
    before: RunState
    state: RunState
    entries: tuple[Entry, ...]


@attrs.define(eq=False)
class RunBatch:
    """All that one batch does to one run: *base* is the state that is committed already."""

    base: RunState
    decided: list[Decided] = attrs.field(factory=list[Decided])
    spawned: list[Decided] = attrs.field(factory=list[Decided])

    @property
    def head(self) -> RunState:
        """Where the run stands behind everything decided so far."""
        return self.decided[-1].state if self.decided else self.base


def settle(run: RunBatch, at: datetime) -> None:
    """Tell all who asked about the run what their commands led to."""
    for item in run.decided:
        item.ask.settle(Success(Settled(item.entries, item.before, item.state, at)))


def answer_known_key(run: RunBatch, record: KeyRecord, now: datetime) -> None:
    """Answer a start whose key exists; a control command is decided again on the new receipts."""
    for item in run.decided:
        key = item.ask.key
        if key is None or key.key != record.key or not isinstance(item.ask.command, StartRun):
            continue
        if key.digest == record.digest:
            item.ask.settle(Success(Settled((), item.before, item.before, now, record.run_id)))
        else:
            item.ask.settle(Failure(KeyAlreadyUsed(key=record.key)))
