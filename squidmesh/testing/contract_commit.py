"""What `Store.commit` promises: fences and atomicity."""

import asyncio

from returns.result import Success

from squidmesh.ports.store import (
    Committed,
    RevisionConflict,
)
from squidmesh.testing.builders import (
    FIRST,
    SECOND,
    alone,
    complete,
    key,
    request,
    run_id,
    start,
    take,
    together,
)
from squidmesh.testing.clock import VirtualClock
from squidmesh.testing.contract_base import (
    Storage,
    StorageContract,
    attempt,
    begin,
    begin_claimed,
    note,
    outcomes,
    promises,
    state_of,
)


class CommitContract(StorageContract):
    """Commits as `StoreContract` asks for them."""

    @promises("Store.commit", 1)
    async def test_the_second_commit_on_a_revision_conflicts_and_carries_what_it_has_not_seen(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await begin(store, start(at=clock.now()))
        state = await state_of(store)
        first, second = note(state, clock, 2), note(state, clock, 3)

        await begin(store, first)
        result = await attempt(store, second)

        assert result.failure() == RevisionConflict(run_id=FIRST, unseen=first.journal[0].entries)

    @promises("Store.commit", 1)
    async def test_a_conflict_carries_every_entry_behind_the_expected_revision(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await begin(store, start(at=clock.now()))
        old = await state_of(store)
        taking = take(old, "load", at=clock.now())
        completing = complete(taking.state, "load", at=clock.now())

        await begin(store, taking, completing)
        result = await attempt(store, note(old, clock))

        unseen = (*taking.journal[0].entries, *completing.journal[0].entries)
        assert result.failure() == RevisionConflict(run_id=FIRST, unseen=unseen)

    @promises("Store.commit", 1)
    async def test_a_conflicting_commit_writes_nothing(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        old = await begin_claimed(store, clock)
        await begin(store, note(old, clock))
        before, journal = await state_of(store), await store.read(FIRST)

        await attempt(store, complete(old, "load", at=clock.now(), then="next"))

        assert await state_of(store) == before
        assert await store.read(FIRST) == journal

    @promises("Store.commit", 1)
    async def test_a_commit_on_a_revision_that_is_still_to_come_conflicts(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await begin(store, start(at=clock.now()))
        ahead = note(await state_of(store), clock).state

        result = await attempt(store, note(ahead, clock))

        assert result.failure() == RevisionConflict(run_id=FIRST, unseen=())

    @promises("Store.commit", 1)
    async def test_a_commit_on_a_run_that_does_not_exist_conflicts(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        elsewhere = start(at=clock.now()).state

        result = await attempt(store, note(elsewhere, clock))

        assert result.failure() == RevisionConflict(run_id=FIRST, unseen=())
        assert (await store.load([FIRST])).states == {}

    @promises("Store.commit", 1)
    async def test_of_eight_racing_commits_exactly_one_wins(
        self, store: Storage, peer: Storage, clock: VirtualClock
    ) -> None:
        await begin(store, start(at=clock.now()))
        state = await state_of(store)
        changes = [note(state, clock, number) for number in range(8)]

        committed = await asyncio.gather(
            *((store, peer)[index % 2].commit(alone(each)) for index, each in enumerate(changes))
        )

        won = [outcomes(each) == [True] for each in committed]
        assert won.count(True) == 1
        winner = changes[won.index(True)]
        assert (await state_of(store)).revision == winner.state.revision
        assert (await store.read(FIRST))[-1] == winner.journal[0]

    @promises("Store.commit", 1)
    async def test_of_eight_racing_starts_of_one_run_exactly_one_wins(
        self, store: Storage, peer: Storage, clock: VirtualClock
    ) -> None:
        starts = [start(at=clock.now(), payload={"by": number}) for number in range(8)]

        committed = await asyncio.gather(
            *((store, peer)[index % 2].commit(alone(each)) for index, each in enumerate(starts))
        )

        won = [outcomes(each) == [True] for each in committed]
        assert won.count(True) == 1
        assert await state_of(store) == starts[won.index(True)].state

    @promises("Store.commit", 2)
    async def test_a_commit_writes_rows_entries_keys_and_definition_together(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        change = start(at=clock.now(), keys=(key("k"),))

        committed = await store.commit(alone(change))

        assert committed == Committed(at=clock.now(), results=(Success(None),))
        assert await state_of(store) == change.state
        assert await store.read(FIRST) == change.journal
        assert await store.find_key("orders:by_hand", "k") == key("k")
        assert change.definition is not None
        assert await store.definition(change.definition.fingerprint) == change.definition

    @promises("Store.commit", 2)
    async def test_a_refused_start_leaves_neither_key_nor_definition_nor_attempts(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await begin(store, start(at=clock.now()))

        await attempt(store, start(at=clock.now(), keys=(key("k"),), fingerprint="other"))

        assert await store.find_key("orders:by_hand", "k") is None
        assert await store.definition("other") is None
        assert (await store.claim(request(definitions=("other",)))).claimed == ()

    @promises("Store.commit", 2)
    async def test_a_change_of_several_runs_is_all_or_nothing(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await begin(store, start(FIRST, at=clock.now()))
        before = await state_of(store, FIRST)
        stale = note(note(before, clock).state, clock)

        committed = await store.commit(
            together(start(SECOND, at=clock.now(), keys=(key("k", SECOND),)), stale)
        )

        assert outcomes(committed) == [False]
        assert committed.results[0].failure() == RevisionConflict(run_id=FIRST, unseen=())
        assert (await store.load([FIRST, SECOND])).states == {FIRST: before}
        assert await store.find_key("orders:by_hand", "k") is None
        assert await store.read(SECOND) == ()

    @promises("Store.commit", 2)
    async def test_a_change_of_several_runs_writes_all_of_them(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await begin(store, start(FIRST, at=clock.now()))
        noted = note(await state_of(store, FIRST), clock)
        started = start(SECOND, at=clock.now())

        committed = await store.commit(together(noted, started))

        assert outcomes(committed) == [True]
        states = (await store.load([FIRST, SECOND])).states
        assert states == {FIRST: noted.state, SECOND: started.state}

    @promises("Store.commit", 3)
    async def test_a_failed_change_does_not_hinder_the_others_of_its_batch(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await begin(store, start(FIRST, at=clock.now()))
        fresh = [start(run_id(number), at=clock.now()) for number in (2, 3)]

        committed = await store.commit(alone(fresh[0], start(FIRST, at=clock.now()), fresh[1]))

        assert outcomes(committed) == [True, False, True]
        states = (await store.load([change.run_id for change in fresh])).states
        assert states == {change.run_id: change.state for change in fresh}

    @promises("Store.commit", 3)
    async def test_a_batch_of_nothing_has_no_results(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        committed = await store.commit([])

        assert committed == Committed(at=clock.now(), results=())
