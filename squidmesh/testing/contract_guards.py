"""What a commit's guards promise: nobody writes about a claim that does not count any more."""

from datetime import timedelta

import attrs
from returns.pipeline import is_successful

from squidmesh.domain.entries import AttemptId
from squidmesh.ports.store import (
    Guard,
    GuardFailed,
    LeaseOver,
    RunChange,
    StillDue,
    StillHeld,
)
from squidmesh.testing.builders import (
    FIRST,
    LEASE,
    SECOND,
    complete,
    first_attempt,
    held,
    lose,
    put_off,
    request,
    start,
    take,
    together,
)
from squidmesh.testing.clock import VirtualClock
from squidmesh.testing.contract_base import (
    MICROSECOND,
    Storage,
    StorageContract,
    attempt,
    beat,
    begin,
    begin_claimed,
    holding,
    promises,
    state_of,
)


def refused(guard: Guard, holder: str | None) -> GuardFailed:
    """The answer to a change of the first run whose *guard* does not hold."""
    return GuardFailed(run_id=FIRST, guard=guard, holder=holder)


class GuardContract(StorageContract):
    """Guards as `StoreContract` asks for them."""

    @promises("Store.commit", 4)
    async def test_a_report_counts_until_just_before_the_lease_is_over(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        state = await begin_claimed(store, clock)

        clock.advance(LEASE - MICROSECOND)
        result = await attempt(store, complete(state, "load", at=clock.now()))

        assert is_successful(result)

    @promises("Store.commit", 4)
    async def test_a_report_at_the_very_end_of_the_lease_is_refused(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        state = await begin_claimed(store, clock, owner="alice")

        clock.advance(LEASE)
        result = await attempt(store, complete(state, "load", at=clock.now()))

        assert result.failure() == refused(held(state, "load"), "alice")
        assert await state_of(store) == state

    @promises("Store.commit", 4)
    async def test_a_report_with_another_token_is_refused_and_names_the_holder(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        state = await begin_claimed(store, clock, owner="alice")
        forged = StillHeld(attempt=first_attempt("load"), token_hash="guessed")  # noqa: S106  no secret
        report = complete(state, "load", at=clock.now())

        result = await attempt(store, _guarded_by(report, forged))

        assert result.failure() == refused(forged, "alice")

    @promises("Store.commit", 4)
    async def test_a_second_report_of_one_claim_is_refused(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        state = await begin_claimed(store, clock)
        report = complete(state, "load", at=clock.now())
        await begin(store, report)

        result = await attempt(store, report)

        assert result.failure() == refused(held(state, "load"), None)

    @promises("Store.commit", 4)
    async def test_a_report_of_an_attempt_that_was_put_off_is_refused(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        state = await begin_claimed(store, clock)
        later = clock.now() + timedelta(seconds=5)
        await begin(store, put_off(state, "load", at=clock.now(), visible_at=later))

        result = await attempt(store, complete(state, "load", at=clock.now()))

        assert result.failure() == refused(held(state, "load"), None)

    @promises("Store.commit", 4)
    async def test_a_report_counts_after_heartbeats_have_prolonged_the_lease(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        state = await begin_claimed(store, clock)
        clock.advance(LEASE - MICROSECOND)
        beat(store, holding(state, "load"))

        clock.advance(LEASE - MICROSECOND)
        result = await attempt(store, complete(state, "load", at=clock.now()))

        assert is_successful(result)

    @promises("Store.commit", 4)
    async def test_an_attempt_may_be_taken_at_the_moment_at_which_it_becomes_visible(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        visible_at = clock.now() + timedelta(seconds=5)
        await begin(store, start(at=clock.now(), visible_at=visible_at))
        state = await state_of(store)

        clock.advance(timedelta(seconds=5))
        result = await attempt(store, take(state, "load", at=clock.now()))

        assert is_successful(result)

    @promises("Store.commit", 4)
    async def test_an_attempt_may_not_be_taken_just_before_it_is_visible(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        visible_at = clock.now() + timedelta(seconds=5)
        await begin(store, start(at=clock.now(), visible_at=visible_at))
        state = await state_of(store)

        clock.advance(timedelta(seconds=5) - MICROSECOND)
        result = await attempt(store, take(state, "load", at=clock.now()))

        assert result.failure() == refused(StillDue(attempt=first_attempt("load")), None)

    @promises("Store.commit", 4)
    async def test_an_attempt_that_is_claimed_may_not_be_taken_and_its_holder_is_named(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await begin(store, start(at=clock.now()))
        state = await state_of(store)
        await begin(store, take(state, "load", at=clock.now(), owner="alice"))

        result = await attempt(store, take(state, "load", at=clock.now(), owner="bob"))

        assert result.failure() == refused(StillDue(attempt=first_attempt("load")), "alice")

    @promises("Store.commit", 4)
    async def test_an_attempt_that_never_was_may_not_be_taken(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await begin(store, start(at=clock.now()))
        unknown = StillDue(attempt=AttemptId("elsewhere", 1))
        taking = take(await state_of(store), "load", at=clock.now())

        result = await attempt(store, _guarded_by(taking, unknown))

        assert result.failure() == refused(unknown, None)

    @promises("Store.commit", 4)
    async def test_a_claim_is_lost_at_the_very_end_of_its_lease(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        state = await begin_claimed(store, clock)

        clock.advance(LEASE)
        result = await attempt(store, lose(state, "load", at=clock.now()))

        assert is_successful(result)

    @promises("Store.commit", 4)
    async def test_a_claim_is_not_lost_while_its_lease_lasts(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        state = await begin_claimed(store, clock, owner="alice")
        losing = lose(state, "load", at=clock.now())

        clock.advance(LEASE - MICROSECOND)
        result = await attempt(store, losing)

        assert result.failure() == refused(losing.guards[0], "alice")

    @promises("Store.commit", 4)
    async def test_the_loss_of_another_claim_is_refused(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        state = await begin_claimed(store, clock, owner="alice")
        another = LeaseOver(attempt=first_attempt("load"), claim_id="another")

        clock.advance(LEASE)
        result = await attempt(store, _guarded_by(lose(state, "load", at=clock.now()), another))

        assert result.failure() == refused(another, "alice")

    @promises("Store.commit", 4)
    async def test_a_failed_guard_of_one_run_keeps_the_others_of_its_change_from_being_written(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        state = await begin_claimed(store, clock)
        clock.advance(LEASE)
        late = complete(state, "load", at=clock.now())

        committed = await store.commit(together(start(SECOND, at=clock.now()), late))

        assert committed.results[0].failure() == refused(held(state, "load"), "alice")
        assert (await store.load([SECOND])).states == {}

    @promises("Store.commit", 4)
    async def test_a_guard_on_a_run_that_does_not_exist_fails(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        elsewhere = take(start(at=clock.now()).state, "load", at=clock.now())

        result = await attempt(store, elsewhere)

        assert result.failure() == refused(elsewhere.guards[0], None)

    @promises("Store.commit", 4)
    @promises("Heartbeats.beat", 2)
    async def test_a_worker_that_comes_back_too_late_is_refused_and_told_who_has_its_work_now(
        self, store: Storage, peer: Storage, clock: VirtualClock
    ) -> None:
        """The zombie: alice stalls, her lease runs out, bob takes over, alice wakes up."""
        await begin(store, start(at=clock.now()))
        alice = (await store.claim(request(owner="alice"))).claimed[0]
        known_to_alice = await state_of(store)

        clock.advance(LEASE)
        (expired,) = (await peer.claim(request(owner="bob"))).expired
        assert expired.claim_id == alice.entry.claim_id
        await begin(peer, lose(await state_of(peer), "load", at=clock.now()))
        (bob,) = (await peer.claim(request(owner="bob"))).claimed
        held_by_bob = await state_of(peer)

        late = complete(known_to_alice, "load", at=clock.now())
        result = await attempt(store, late)
        up_to_date = _guarded_by(complete(held_by_bob, "load", at=clock.now()), late.guards[0])
        again = await attempt(store, up_to_date)
        beaten = beat(store, holding(known_to_alice, "load"))

        assert result.failure() == refused(late.guards[0], "bob")
        assert again.failure() == refused(late.guards[0], "bob")
        assert beaten.lost == {alice.entry.claim_id}
        assert await state_of(store) == held_by_bob
        assert bob.entry.number == 2


def _guarded_by(change: RunChange, guard: Guard) -> RunChange:
    return attrs.evolve(change, guards=(guard,))
