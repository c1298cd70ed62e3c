"""The machine finds two stores in memory alike, and finds out stores that err."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Final

import attrs
import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from squidmesh.adapters.memory import MemoryStore
from squidmesh.domain.entries import AttemptId
from squidmesh.ports.store import BeatReport, Change, ClaimRequest, Claims, Committed, HeldClaim
from squidmesh.testing.clock import VirtualClock
from squidmesh.testing.machine import store_machine

# The same examples every time, and none made smaller: what is asked is whether one is found.
HUNT: Final = settings(
    max_examples=500,
    stateful_step_count=30,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    print_blob=False,
    report_multiple_bugs=False,
)


@asynccontextmanager
async def another_memory(clock: VirtualClock) -> AsyncIterator[MemoryStore]:
    yield MemoryStore(clock=clock)


TestMemoryLikeMemory = store_machine(another_memory).TestCase
TestMemoryLikeMemory.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)


class Unguarded(MemoryStore):
    """Takes reports from whoever sends them."""

    async def commit(self, changes: Sequence[Change]) -> Committed:
        return await super().commit([_without_guards(change) for change in changes])


def _without_guards(change: Change) -> Change:
    return Change(tuple(attrs.evolve(run, guards=()) for run in change.runs))


class Careless(MemoryStore):
    """Never says whose lease has run out."""

    async def claim(self, request: ClaimRequest) -> Claims:
        return attrs.evolve(await super().claim(request), expired=())


class Generous(MemoryStore):
    """Prolongs every lease by a second more."""

    def beat(self, claims: Sequence[HeldClaim]) -> BeatReport:
        second = timedelta(seconds=1)
        return super().beat([attrs.evolve(claim, lease=claim.lease + second) for claim in claims])


class Piecemeal(MemoryStore):
    """Commits the runs of one change one by one."""

    async def commit(self, changes: Sequence[Change]) -> Committed:
        pieces = await super().commit([Change((run,)) for each in changes for run in each.runs])
        ends = accumulate(len(change.runs) for change in changes)
        return attrs.evolve(pieces, results=tuple(pieces.results[end - 1] for end in ends))


class Forgetful(MemoryStore):
    """Does not note when wake-ups are owed."""

    async def woken(self, wakeups: Sequence[tuple[str, AttemptId, datetime]]) -> None:
        """Nothing is noted."""


@pytest.mark.parametrize(
    "kind",
    [Unguarded, Careless, Generous, Piecemeal, Forgetful],
    ids=lambda kind: kind.__name__,
)
def test_a_store_that_errs_is_found_out(kind: type[MemoryStore]) -> None:
    @asynccontextmanager
    async def erring(clock: VirtualClock) -> AsyncIterator[MemoryStore]:
        yield kind(clock=clock)

    with pytest.raises(AssertionError):
        run_state_machine_as_test(store_machine(erring), settings=HUNT)
