"""What `Store.commit` promises of keys, leases and batches."""

import asyncio
from datetime import timedelta

import attrs
from returns.result import Failure, Result, Success

from squidmesh.ports.store import (
    Change,
    CommitFailure,
    GuardFailed,
    KeyTaken,
    RevisionConflict,
    RunChange,
    RunHeld,
    RunTaken,
)
from squidmesh.testing.builders import (
    FIRST,
    LEASE,
    SECOND,
    alone,
    complete,
    key,
    run_id,
    start,
    take,
    together,
)
from squidmesh.testing.clock import VirtualClock
from squidmesh.testing.contract_base import (
    Hold,
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


async def two_runs(store: Storage, clock: VirtualClock) -> tuple[RunChange, RunChange]:
    """Start two runs, and return a change that each of them may undergo."""
    await begin(store, start(FIRST, at=clock.now()), start(SECOND, at=clock.now()))
    return note(await state_of(store, FIRST), clock), note(await state_of(store, SECOND), clock)


def not_waited_for(is_held: bool) -> Result[None, CommitFailure]:  # noqa: FBT001
    """What becomes of a change of the first run while it is, or cannot be, held."""
    return Failure(RunHeld(run_id=FIRST)) if is_held else Success(None)


class BatchContract(StorageContract):
    """Keys, leases and batches as `StoreContract` asks for them."""

    @promises("Store.commit", 5)
    async def test_a_start_of_a_run_that_exists_is_refused_and_changes_nothing(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        first = start(at=clock.now(), payload={"given": "first"})
        await begin(store, first)

        result = await attempt(store, start(at=clock.now(), payload={"given": "second"}))

        assert result.failure() == RunTaken(run_id=FIRST)
        assert await state_of(store) == first.state

    @promises("Store.commit", 6)
    async def test_a_key_that_was_used_is_refused_with_its_record(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await begin(store, start(FIRST, at=clock.now(), keys=(key("k", FIRST),)))

        result = await attempt(
            store, start(SECOND, at=clock.now(), keys=(key("k", SECOND, digest="other"),))
        )

        assert result.failure() == KeyTaken(record=key("k", FIRST))
        assert (await store.load([SECOND])).states == {}

    @promises("Store.commit", 6)
    async def test_a_used_key_is_noticed_before_the_run_that_exists(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await begin(store, start(at=clock.now(), keys=(key("k"),)))

        result = await attempt(store, start(at=clock.now(), keys=(key("k"),)))

        assert result.failure() == KeyTaken(record=key("k"))

    @promises("Store.commit", 6)
    async def test_a_key_is_free_in_another_scope(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        elsewhere = key("k", SECOND, scope="orders:every_morning")
        await begin(store, start(FIRST, at=clock.now(), keys=(key("k", FIRST),)))

        await begin(store, start(SECOND, at=clock.now(), keys=(elsewhere,)))

        assert await store.find_key("orders:by_hand", "k") == key("k", FIRST)
        assert await store.find_key("orders:every_morning", "k") == elsewhere

    @promises("Store.commit", 6)
    async def test_one_key_twice_in_one_change_is_refused(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        runs = [start(each, at=clock.now(), keys=(key("k", each),)) for each in (FIRST, SECOND)]

        committed = await store.commit(together(*runs))

        assert committed.results[0].failure() == KeyTaken(record=key("k", FIRST))
        assert (await store.load([FIRST, SECOND])).states == {}

    @promises("Store.commit", 6)
    async def test_of_eight_starts_racing_with_one_key_exactly_one_wins(
        self, store: Storage, peer: Storage, clock: VirtualClock
    ) -> None:
        ids = [run_id(number) for number in range(1, 9)]
        starts = [start(each, at=clock.now(), keys=(key("k", each),)) for each in ids]

        committed = await asyncio.gather(
            *((store, peer)[index % 2].commit(alone(each)) for index, each in enumerate(starts))
        )

        won = [outcomes(each) == [True] for each in committed]
        assert won.count(True) == 1
        winner = ids[won.index(True)]
        assert await store.find_key("orders:by_hand", "k") == key("k", winner)
        assert set((await store.load(ids)).states) == {winner}

    @promises("Store.commit", 7)
    async def test_a_newly_claimed_attempt_is_leased_from_the_time_of_the_commit(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await begin(store, start(at=clock.now()))
        taking = take(await state_of(store), "load", at=clock.now(), lease=LEASE)

        clock.advance(1)
        await begin(store, taking)

        (claimed,) = (await state_of(store)).steps["load"].attempts
        assert claimed.lease_until == clock.now() + LEASE

    @promises("Store.commit", 7)
    async def test_a_commit_about_another_step_leaves_a_lease_as_it_is(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await begin_claimed(store, clock, "load", "ship", lease=LEASE)
        started_at = clock.now()

        clock.advance(timedelta(seconds=5))
        state = await state_of(store)
        await begin(store, complete(state, "load", at=clock.now(), then="bill"))

        (untouched,) = (await state_of(store)).steps["ship"].attempts
        assert untouched.lease_until == started_at + LEASE

    @promises("Store.commit", 8)
    async def test_changes_of_one_batch_may_follow_one_another(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        started = start(at=clock.now())
        taken = take(started.state, "load", at=clock.now())
        completed = complete(taken.state, "load", at=clock.now(), then="next")

        committed = await store.commit(alone(started, taken, completed))

        assert outcomes(committed) == [True, True, True]
        assert await state_of(store) == completed.state
        assert len(await store.read(FIRST)) == 3

    @promises("Store.commit", 8)
    async def test_what_follows_a_failed_change_of_its_batch_fails_too(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        state = await begin_claimed(store, clock)
        completed = complete(state, "load", at=clock.now(), then="next")
        taken = take(completed.state, "next", at=clock.now())
        clock.advance(LEASE)

        committed = await store.commit(alone(completed, taken))

        assert [type(result.failure()) for result in committed.results] == [
            GuardFailed,
            GuardFailed,
        ]
        assert await state_of(store) == state

    @promises("Store.commit", 8)
    async def test_two_changes_of_one_batch_that_exclude_each_other_are_judged_in_order(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await begin(store, start(at=clock.now()))
        state = await state_of(store)
        first, second = note(state, clock, 2), note(state, clock, 3)

        committed = await store.commit([Change((first,)), Change((second,))])

        assert outcomes(committed) == [True, False]
        assert committed.results[1].failure() == RevisionConflict(
            run_id=FIRST, unseen=first.journal[0].entries
        )

    @promises("Store.commit", 9)
    async def test_a_run_that_is_held_is_not_waited_for_and_the_others_are_committed(
        self, store: Storage, hold: Hold, clock: VirtualClock
    ) -> None:
        first, second = await two_runs(store, clock)

        async with hold(FIRST) as is_held:
            committed = await store.commit(alone(first, second))

        assert committed.results == (not_waited_for(is_held), Success(None))
        assert (await state_of(store, FIRST) == first.state) is not is_held
        assert await state_of(store, SECOND) == second.state

    @promises("Store.commit", 9)
    async def test_a_change_with_a_key_does_not_wait_for_a_run_that_is_held(
        self, store: Storage, hold: Hold, clock: VirtualClock
    ) -> None:
        first, second = await two_runs(store, clock)
        keyed = attrs.evolve(first, keys=(key("k", FIRST),))

        async with hold(FIRST) as is_held:
            committed = await store.commit(alone(keyed, second))

        assert committed.results == (not_waited_for(is_held), Success(None))
        found = await store.find_key("orders:by_hand", "k")
        assert found == (None if is_held else key("k", FIRST))

    @promises("Store.commit", 9)
    async def test_a_change_of_several_runs_writes_none_of_them_while_one_is_held(
        self, store: Storage, hold: Hold, clock: VirtualClock
    ) -> None:
        first, second = await two_runs(store, clock)

        async with hold(FIRST) as is_held:
            committed = await store.commit(together(second, first))

        assert committed.results == (not_waited_for(is_held),)
        assert (await state_of(store, SECOND) == second.state) is not is_held

    @promises("Store.commit", 9)
    async def test_a_run_that_is_let_go_unchanged_takes_the_commit_that_was_put_off(
        self, store: Storage, hold: Hold, clock: VirtualClock
    ) -> None:
        first, _ = await two_runs(store, clock)

        async with hold(FIRST) as is_held:
            early = await attempt(store, first)
        late = await attempt(store, first)

        assert early == not_waited_for(is_held)
        # Where nobody could hold it, the early one was written, and the late one comes second.
        second = RevisionConflict(run_id=FIRST, unseen=first.journal[0].entries)
        assert late == (Success(None) if is_held else Failure(second))
        assert await state_of(store, FIRST) == first.state
