"""What `Store.claim` promises of its answer: what it wrote, what has expired, what is next."""

from datetime import timedelta

from squidmesh.domain.evolution import evolve
from squidmesh.domain.state import AttemptStatus, RunStatus, StepStatus
from squidmesh.ports.store import Claims, ExpiredClaim, JournalRow
from squidmesh.testing.builders import (
    FINGERPRINT,
    FIRST,
    LEASE,
    first_attempt,
    lose,
    request,
    run_id,
    start,
)
from squidmesh.testing.clock import VirtualClock
from squidmesh.testing.contract_base import (
    MICROSECOND,
    Storage,
    StorageContract,
    begin,
    begin_claimed,
    promises,
    state_of,
)

SOON = timedelta(seconds=5)


def names(claims: Claims) -> list[tuple[str, str]]:
    """Run and step of each claimed attempt, in the order of the answer."""
    return [(claimed.run_id, claimed.entry.step) for claimed in claims.claimed]


class ClaimedContract(StorageContract):
    """The answers to claims as `StoreContract` asks for them."""

    @promises("Store.claim", 4)
    async def test_a_claim_takes_attempt_step_and_run_to_running_with_one_entry(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await begin(store, start(at=clock.now()))
        before = await state_of(store)

        (claimed,) = (await store.claim(request(owner="alice"))).claimed

        state = await state_of(store)
        (attempt,) = state.steps["load"].attempts
        assert state == evolve(before, claimed.entry)
        assert (state.status, state.steps["load"].status, attempt.status) == (
            RunStatus.RUNNING,
            StepStatus.RUNNING,
            AttemptStatus.CLAIMED,
        )
        assert (attempt.owner, attempt.fence) == ("alice", claimed.revision)
        assert attempt.lease_until == clock.now() + LEASE
        assert (await store.read(FIRST))[-1] == JournalRow(
            revision=claimed.revision, at=clock.now(), cause="claim", entries=(claimed.entry,)
        )

    @promises("Store.claim", 4)
    async def test_two_attempts_of_one_run_in_one_claim_raise_its_revision_twice(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await begin(store, start(at=clock.now(), steps=("load", "ship")))
        before = await state_of(store)

        claims = await store.claim(request(tickets=2))

        state = await state_of(store)
        assert [claimed.revision for claimed in claims.claimed] == [
            before.revision + 1,
            before.revision + 2,
        ]
        found = [claimed.found for claimed in claims.claimed]
        assert found == [RunStatus.PENDING, RunStatus.RUNNING]
        assert state.revision == before.revision + 2
        assert state.running == 2

    @promises("Store.claim", 4)
    async def test_a_claim_that_finds_nothing_writes_nothing(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await begin_claimed(store, clock)
        journal = await store.read(FIRST)

        await store.claim(request(tickets=5))

        assert await store.read(FIRST) == journal

    @promises("Store.claim", 5)
    async def test_a_claim_is_returned_as_expired_at_the_very_end_of_its_lease(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        state = await begin_claimed(store, clock)

        clock.advance(LEASE - MICROSECOND)
        held = await store.claim(request(owner="bob"))
        clock.advance(MICROSECOND)
        over = await store.claim(request(owner="bob"))

        assert held.expired == ()
        assert over.expired == (
            ExpiredClaim(
                run_id=FIRST,
                fingerprint=FINGERPRINT,
                attempt=first_attempt("load"),
                claim_id=state.steps["load"].attempts[0].claim_id or "",
            ),
        )
        assert over.claimed == ()

    @promises("Store.claim", 5)
    async def test_an_expired_claim_stays_as_it_is_and_is_returned_until_somebody_ends_it(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        state = await begin_claimed(store, clock)
        journal = await store.read(FIRST)
        clock.advance(LEASE)

        first = await store.claim(request())
        second = await store.claim(request())
        untouched = await state_of(store)
        unwritten = await store.read(FIRST)
        await begin(store, lose(untouched, "load", at=clock.now()))
        third = await store.claim(request(tickets=0))

        assert len(first.expired) == 1
        assert first.expired == second.expired
        assert (untouched, unwritten) == (state, journal)
        assert third.expired == ()

    @promises("Store.claim", 5)
    async def test_expired_claims_are_returned_whatever_the_request_can_run(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await begin_claimed(store, clock, "load", "ship")
        clock.advance(LEASE)

        claims = await store.claim(request(tickets=0, queues=("other",), definitions=("other",)))

        assert {expired.attempt.step for expired in claims.expired} == {"load", "ship"}

    @promises("Store.claim", 6)
    async def test_the_next_time_is_that_of_the_earliest_attempt_that_is_still_to_come(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        now = clock.now()
        await begin(store, start(run_id(1), at=now, visible_at=now + 2 * SOON))
        await begin(store, start(run_id(2), at=now, visible_at=now + SOON))

        claims = await store.claim(request())

        assert claims.next_visible_at == now + SOON

    @promises("Store.claim", 6)
    async def test_there_is_no_next_time_when_nothing_is_scheduled(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await begin(store, start(at=clock.now()))

        claims = await store.claim(request(tickets=5))

        assert claims.next_visible_at is None

    @promises("Store.claim", 6)
    async def test_the_next_time_looks_only_at_what_the_request_may_claim(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        later = clock.now() + SOON
        await begin(store, start(run_id(1), at=clock.now(), visible_at=later, queue="mail"))
        await begin(store, start(run_id(2), at=clock.now(), visible_at=later, fingerprint="b"))

        claims = await store.claim(request())

        assert claims.next_visible_at is None

    @promises("Store.claim", 6)
    async def test_the_next_time_has_come_when_more_is_due_than_there_were_tickets(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await begin(store, *(start(run_id(number), at=clock.now()) for number in (1, 2)))
        clock.advance(SOON)

        claims = await store.claim(request())

        assert claims.next_visible_at is not None
        assert claims.next_visible_at <= claims.at
