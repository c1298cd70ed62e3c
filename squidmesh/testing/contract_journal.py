"""What `Journal` promises: nothing is lost, nothing is altered, nothing unreadable is passed."""

from itertools import chain
from typing import Protocol, get_args

import attrs
import pytest
from returns.pipeline import is_successful

from squidmesh.domain.entries import NOBODY, Entry, LiveWakeupEmitted, RunReplayed
from squidmesh.domain.evolution import rebuild
from squidmesh.domain.state import RunState
from squidmesh.domain.values import Json
from squidmesh.errors import JournalCorruptError
from squidmesh.ports.store import JournalRow, RevisionConflict
from squidmesh.testing.builders import (
    FIRST,
    SECOND,
    alone,
    complete,
    definition,
    following,
    run_id,
    start,
)
from squidmesh.testing.clock import VirtualClock
from squidmesh.testing.contract_base import (
    Storage,
    StorageContract,
    begin,
    begin_claimed,
    note,
    promises,
    state_of,
)
from squidmesh.testing.every_entry import every_entry


class Damage(Protocol):
    """Ways to spoil what is stored, behind the store's back."""

    async def journal(self, run_id: str) -> None:
        """Make the text of the run's last journal row unreadable."""

    async def checkpoint(self, run_id: str) -> None:
        """Make the text of the run's checkpoint unreadable."""


class JournalContract(StorageContract):
    """The promises a `Journal` makes."""

    @pytest.fixture
    def damage(self, store: Storage) -> Damage:
        """What spoils the data of `store`."""
        raise NotImplementedError(f"{type(self).__name__} provides no `damage` fixture")

    @promises("Journal.append", 1)
    async def test_appended_entries_are_read_behind_the_others_and_raise_the_revision(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await begin(store, start(at=clock.now()))
        before = await state_of(store)
        clock.advance(1)
        row = _replayed(before, clock)

        result = await store.append(FIRST, before.revision, row)

        rows = await store.read(FIRST)
        state = await state_of(store)
        assert is_successful(result)
        assert rows[-1] == row
        assert state.revision == row.revision == before.revision + 2
        assert state == rebuild(FIRST, chain.from_iterable(each.entries for each in rows))

    @promises("Journal.append", 1)
    async def test_appending_behind_a_revision_that_no_longer_stands_writes_nothing(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await begin(store, start(at=clock.now()))
        old = await state_of(store)
        between = note(old, clock)
        await begin(store, between)
        journal = await store.read(FIRST)

        result = await store.append(FIRST, old.revision, _replayed(old, clock))

        assert result.failure() == RevisionConflict(run_id=FIRST, unseen=between.journal[0].entries)
        assert await store.read(FIRST) == journal
        assert await state_of(store) == between.state

    @promises("Journal.append", 1)
    async def test_appending_to_a_run_that_does_not_exist_conflicts(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        elsewhere = start(at=clock.now()).state

        result = await store.append(FIRST, elsewhere.revision, _replayed(elsewhere, clock))

        assert result.failure() == RevisionConflict(run_id=FIRST, unseen=())
        assert await store.read(FIRST) == ()

    @promises("Journal.append", 1)
    async def test_a_commit_that_has_not_seen_an_appended_entry_conflicts(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        state = await begin_claimed(store, clock)
        row = _replayed(state, clock)
        await store.append(FIRST, state.revision, row)

        committed = await store.commit(alone(complete(state, "load", at=clock.now())))

        assert committed.results[0].failure() == RevisionConflict(run_id=FIRST, unseen=row.entries)

    @promises("Journal.read", 1)
    async def test_the_history_of_a_run_that_does_not_exist_is_empty(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await begin(store, start(FIRST, at=clock.now()))

        assert await store.read(SECOND) == ()

    @promises("Journal.read", 1)
    async def test_revisions_rise_without_gap(self, store: Storage, clock: VirtualClock) -> None:
        state = await begin_claimed(store, clock, "load", "ship")
        await begin(store, complete(state, "load", at=clock.now(), then="bill"))

        rows = await store.read(FIRST)

        counted = 0
        for row in rows:
            counted += len(row.entries)
            assert row.revision == counted
        assert (await state_of(store)).revision == counted

    @promises("Journal.read", 1)
    async def test_reading_behind_a_revision_leaves_out_what_was_read_before(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        state = await begin_claimed(store, clock)
        await begin(store, complete(state, "load", at=clock.now()))
        rows = await store.read(FIRST)

        read = [await store.read(FIRST, after=row.revision) for row in rows]

        assert read == [rows[index + 1 :] for index in range(len(rows))]
        assert await store.read(FIRST, after=10_000) == ()

    @promises("Journal.read", 1)
    async def test_entries_of_every_kind_come_back_equal(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        entries = every_entry(clock.now())
        change = following(
            RunState(run_id=FIRST), *entries, kept=definition("fingerprint"), actor={"name": "Ada"}
        )

        await begin(store, change)

        assert {type(entry) for entry in entries} == set(get_args(Entry))
        assert await store.read(FIRST) == change.journal
        assert await state_of(store) == change.state

    @promises("Journal.read", 1)
    async def test_entries_of_every_kind_come_back_equal_when_they_were_committed_one_by_one(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        state, rows = RunState(run_id=FIRST), list[JournalRow]()

        for entry in every_entry(clock.now()):
            change = following(state, entry, kept=definition("fingerprint"), cause=str(len(rows)))
            await begin(store, change)
            state = change.state
            rows += change.journal
            assert await state_of(store) == state

        assert list(await store.read(FIRST)) == rows

    @promises("Journal.read", 1)
    async def test_a_row_keeps_its_time_cause_and_actor(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        started = start(at=clock.now())
        clock.advance(0.000001)
        actors: list[Json] = ["ada", {"name": "Ada"}, ["a", 1], 0, False, "", None]
        changes = [started]
        for actor in actors:
            entry = RunReplayed(at=clock.now(), new_run_id=SECOND, issuer=NOBODY)
            state = changes[-1].state
            changes.append(following(state, entry, cause="ReplayRun", actor=actor))

        await begin(store, *changes)

        rows = await store.read(FIRST, after=started.state.revision)
        assert [(row.at, row.cause) for row in rows] == [(clock.now(), "ReplayRun")] * len(actors)
        assert repr([row.actor for row in rows]) == repr(actors)

    @promises("Journal.read", 2)
    async def test_a_row_that_cannot_be_read_is_an_error_and_never_passed_over(
        self, store: Storage, clock: VirtualClock, damage: Damage
    ) -> None:
        await begin(store, start(FIRST, at=clock.now()), start(SECOND, at=clock.now()))
        await begin(store, note(await state_of(store, FIRST), clock))

        await damage.journal(FIRST)

        with pytest.raises(JournalCorruptError):
            await store.read(FIRST)
        assert len(await store.read(SECOND)) == 1

    @promises("Journal.save_checkpoint")
    @promises("Journal.checkpoint", 1)
    async def test_a_checkpoint_comes_back_equal(self, store: Storage, clock: VirtualClock) -> None:
        change = following(
            RunState(run_id=FIRST), *every_entry(clock.now()), kept=definition("fingerprint")
        )
        await begin(store, change)

        await store.save_checkpoint(change.state)

        assert await store.checkpoint(FIRST) == change.state
        assert await store.checkpoint(SECOND) is None

    @promises("Journal.save_checkpoint")
    async def test_a_newer_checkpoint_replaces_an_older_one(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await begin(store, start(at=clock.now()))
        older = await state_of(store)
        newer = note(older, clock)
        await begin(store, newer)

        await store.save_checkpoint(older)
        await store.save_checkpoint(newer.state)

        assert await store.checkpoint(FIRST) == newer.state

    @promises("Journal.checkpoint", 1)
    async def test_a_checkpoint_that_is_behind_the_journal_counts(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await begin(store, start(at=clock.now()))
        older = await state_of(store)
        await store.save_checkpoint(older)

        await begin(store, note(older, clock))

        assert await store.checkpoint(FIRST) == older

    @promises("Journal.checkpoint", 1)
    async def test_a_checkpoint_that_is_ahead_of_the_journal_counts_as_none(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await begin(store, start(at=clock.now()))
        ahead = note(await state_of(store), clock).state

        await store.save_checkpoint(ahead)

        assert await store.checkpoint(FIRST) is None

    @promises("Journal.checkpoint", 1)
    async def test_a_checkpoint_of_a_run_that_does_not_exist_counts_as_none(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await store.save_checkpoint(start(SECOND, at=clock.now()).state)

        assert await store.checkpoint(SECOND) is None

    @promises("Journal.checkpoint", 1)
    async def test_a_checkpoint_that_cannot_be_read_counts_as_none(
        self, store: Storage, clock: VirtualClock, damage: Damage
    ) -> None:
        change = start(at=clock.now())
        await begin(store, change)
        await store.save_checkpoint(change.state)

        await damage.checkpoint(FIRST)

        assert await store.checkpoint(FIRST) is None
        assert await state_of(store) == change.state


def _replayed(state: RunState, clock: VirtualClock) -> JournalRow:
    """A row of two entries behind *state* that concern the run as a whole."""
    return JournalRow(
        revision=state.revision + 2,
        at=clock.now(),
        cause="ReplayRun",
        entries=(
            RunReplayed(
                at=clock.now(),
                new_run_id=run_id(7),
                issuer=attrs.evolve(NOBODY, idempotency_key="once"),
            ),
            LiveWakeupEmitted(at=clock.now(), step="load", number=1),
        ),
        actor="ada",
    )
