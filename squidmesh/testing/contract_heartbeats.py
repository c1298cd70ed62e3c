"""What heartbeats promise: leases that last, and the news that one is lost."""

from datetime import timedelta

import anyio.to_thread
import attrs

from squidmesh.ports.store import BeatReport
from squidmesh.testing.builders import (
    FIRST,
    LEASE,
    SECOND,
    cancel,
    complete,
    request,
    retry,
)
from squidmesh.testing.clock import VirtualClock
from squidmesh.testing.contract_base import (
    MICROSECOND,
    Storage,
    StorageContract,
    beat,
    begin,
    begin_claimed,
    holding,
    promises,
    state_of,
)


class HeartbeatContract(StorageContract):
    """The promises that `Heartbeats` make."""

    @promises("Heartbeats.beat", 1)
    async def test_a_heartbeat_prolongs_the_lease_and_writes_neither_entry_nor_revision(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        state = await begin_claimed(store, clock)
        journal = await store.read(FIRST)

        clock.advance(20)
        report = beat(store, holding(state, "load"))

        after = await state_of(store)
        assert report == BeatReport(at=clock.now(), lost=frozenset(), cancelling=frozenset())
        assert after.steps["load"].attempts[0].lease_until == clock.now() + LEASE
        assert (after, await store.read(FIRST)) == (state, journal)

    @promises("Heartbeats.beat", 1)
    async def test_a_heartbeat_never_shortens_a_lease(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        state = await begin_claimed(store, clock)
        until = clock.now() + LEASE

        beat(store, holding(state, "load", lease=timedelta(seconds=1)))

        assert (await state_of(store)).steps["load"].attempts[0].lease_until == until

    @promises("Heartbeats.beat", 1)
    async def test_a_prolonged_claim_is_not_expired_at_its_first_end_but_at_its_last(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        state = await begin_claimed(store, clock)
        clock.advance(LEASE - MICROSECOND)
        beat(store, holding(state, "load"))

        clock.advance(LEASE - MICROSECOND)
        held = await store.claim(request())
        clock.advance(MICROSECOND)
        over = await store.claim(request())

        assert held.expired == ()
        assert [expired.attempt.step for expired in over.expired] == ["load"]

    @promises("Heartbeats.beat", 1)
    async def test_one_heartbeat_prolongs_many_claims_of_many_runs(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        first = await begin_claimed(store, clock, "load", "ship", run_id=FIRST)
        second = await begin_claimed(store, clock, run_id=SECOND)
        claims = [holding(first, "load"), holding(first, "ship"), holding(second, "load")]
        clock.advance(20)

        report = beat(store, *claims)

        states = (await store.load([FIRST, SECOND])).states
        assert report.lost == frozenset()
        assert [
            states[claim.run_id].steps[claim.attempt.step].attempts[0].lease_until
            for claim in claims
        ] == [clock.now() + LEASE] * 3

    @promises("Heartbeats.beat", 1)
    async def test_heartbeats_work_in_a_thread_of_their_own(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        state = await begin_claimed(store, clock)
        clock.advance(20)

        report = await anyio.to_thread.run_sync(beat, store, holding(state, "load"))

        assert report.lost == frozenset()
        prolonged = (await state_of(store)).steps["load"].attempts[0]
        assert prolonged.lease_until == clock.now() + LEASE

    @promises("Heartbeats.beat", 2)
    async def test_a_claim_is_lost_at_the_very_end_of_its_lease_and_stays_lost(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        claim = holding(await begin_claimed(store, clock), "load")
        until = clock.now() + LEASE

        clock.advance(LEASE)
        reports = [beat(store, claim), beat(store, claim)]

        assert [report.lost for report in reports] == [{claim.claim_id}] * 2
        assert (await state_of(store)).steps["load"].attempts[0].lease_until == until

    @promises("Heartbeats.beat", 2)
    async def test_a_claim_that_is_over_or_superseded_is_lost(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        state = await begin_claimed(store, clock, "load", "ship", "bill")
        claims = [holding(state, step) for step in ("load", "ship", "bill")]
        done = complete(state, "load", at=clock.now())
        failed = retry(done.state, "ship", at=clock.now())
        await begin(store, done, failed)
        await store.claim(request(owner="bob"))

        report = beat(store, *claims)

        assert report.lost == {claim.claim_id for claim in claims[:2]}

    @promises("Heartbeats.beat", 2)
    async def test_a_claim_with_another_token_id_or_run_is_lost_and_prolongs_nothing(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        claim = holding(await begin_claimed(store, clock), "load")
        until = clock.now() + LEASE
        clock.advance(1)

        reports = [
            beat(store, attrs.evolve(claim, token_hash="guessed")),  # noqa: S106  no secret
            beat(store, attrs.evolve(claim, claim_id="guessed")),
            beat(store, attrs.evolve(claim, run_id=SECOND)),
        ]

        assert [len(report.lost) for report in reports] == [1, 1, 1]
        assert (await state_of(store)).steps["load"].attempts[0].lease_until == until

    @promises("Heartbeats.beat", 3)
    async def test_runs_that_are_being_cancelled_are_named(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        cancelled = await begin_claimed(store, clock, run_id=FIRST)
        running = await begin_claimed(store, clock, run_id=SECOND)
        await begin(store, cancel(cancelled, at=clock.now()))

        report = beat(store, holding(cancelled, "load"), holding(running, "load"))

        assert report.cancelling == {FIRST}
        assert report.lost == frozenset()

    @promises("Store.heartbeats")
    @promises("Heartbeats.close")
    async def test_two_heartbeats_of_one_store_do_not_disturb_each_other(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        claim = holding(await begin_claimed(store, clock), "load")
        first, second = store.heartbeats(), store.heartbeats()

        first.close()
        report = second.beat([claim])
        second.close()

        assert report.lost == frozenset()
