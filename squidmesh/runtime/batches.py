"""What one batch does to one run, decided and not committed yet."""

from collections import Counter
from datetime import datetime
from typing import Final

import attrs
from returns.result import Failure, Result, Success

from squidmesh.domain.commands import Command, KeyAlreadyUsed, Refusal, StartRun
from squidmesh.domain.decide import decide
from squidmesh.domain.definition import WorkflowDefinition
from squidmesh.domain.entries import Entry
from squidmesh.domain.state import RunState
from squidmesh.domain.unfolding import Decision
from squidmesh.ports.store import KeyRecord
from squidmesh.runtime.asks import Ask, Settled
from squidmesh.runtime.registry import Registry

MOST_IN_ONE_COMMIT: Final = 512
MOST_OF_ONE_RUN: Final = 32


def next_batch(waiting: list[Ask]) -> list[Ask]:
    """Take from *waiting* what is to be committed together.

    Of a wide run that is about half: while the store writes it, the bodies of the other half have
    the processor. All of them at once would only ever wait for one another.
    """
    batch = waiting[:MOST_IN_ONE_COMMIT]
    del waiting[:MOST_IN_ONE_COMMIT]
    if len(batch) <= MOST_OF_ONE_RUN:
        return batch
    counts = Counter([ask.run_id for ask in batch])
    wide = {
        run_id: max(count // 2, MOST_OF_ONE_RUN)
        for run_id, count in counts.items()
        if count > MOST_OF_ONE_RUN
    }
    if not wide:
        return batch
    taken: list[Ask] = []
    left: list[Ask] = []
    for ask in batch:
        room = wide.get(ask.run_id)
        if room is None:
            taken.append(ask)
        elif room > 0:
            wide[ask.run_id] = room - 1
            taken.append(ask)
        else:
            left.append(ask)
    waiting[:0] = left
    return taken


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


def decide_start(
    registry: Registry, start: StartRun, now: datetime
) -> Result[tuple[WorkflowDefinition, Decision], Refusal]:
    """Decide the start of a run that comes with a command, under its registered definition."""
    definition = registry.known(start.fingerprint)
    assert definition is not None
    decided = decide(definition, RunState(run_id=start.run_id), start, now)
    return decided.map(lambda decision: (definition, decision))


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
