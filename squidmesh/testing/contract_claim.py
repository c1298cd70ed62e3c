"""What `Store.claim` promises: who gets which attempt, when, and what is told besides."""

import asyncio
from collections import Counter
from datetime import timedelta
from itertools import chain

from squidmesh.domain.entries import AttemptClaimed
from squidmesh.domain.state import RunStatus
from squidmesh.ports.store import ClaimedAttempt, Claims
from squidmesh.testing.builders import (
    FINGERPRINT,
    FIRST,
    LEASE,
    SECOND,
    cancel,
    complete,
    put_off,
    request,
    retry,
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


class ClaimContract(StorageContract):
    """Claims as `StoreContract` asks for them."""

    @promises("Store.claim", 1)
    async def test_a_scheduled_attempt_is_claimed_for_the_one_who_asks(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await begin(store, start(at=clock.now()))
        state = await state_of(store)
        wish = request(owner="alice")

        claims = await store.claim(wish)

        entry = AttemptClaimed(
            at=clock.now(),
            step="load",
            number=1,
            claim_id=wish.tickets[0].claim_id,
            token_hash=wish.tickets[0].token_hash,
            owner="alice",
            lease=LEASE,
        )
        assert claims.at == clock.now()
        assert claims.claimed == (
            ClaimedAttempt(
                run_id=FIRST,
                fingerprint=FINGERPRINT,
                entry=entry,
                revision=state.revision + 1,
                found=RunStatus.PENDING,
            ),
        )

    @promises("Store.claim", 1)
    async def test_a_step_that_a_worker_lacks_is_left_to_others_with_its_time_and_place(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await begin(store, start(at=clock.now(), steps=("load", "send", "tell")))
        await begin(store, start(run_id(2), at=clock.now(), fingerprint="other", steps=("send",)))
        await begin(
            store, start(run_id(3), at=clock.now(), steps=("tell",), visible_at=clock.now() + SOON)
        )
        both = (FINGERPRINT, "other")
        lacking = frozenset({(FINGERPRINT, "send"), (FINGERPRINT, "load")})

        few = await store.claim(request(tickets=9, definitions=both, lacking=lacking))
        none = await store.claim(request(tickets=9, definitions=both, lacking=lacking))
        rest = await store.claim(request(tickets=9, definitions=both))

        assert names(few) == [(FIRST, "tell"), (run_id(2), "send")]
        assert (names(none), none.next_visible_at) == ([], clock.now() + SOON)
        assert names(rest) == [(FIRST, "load"), (FIRST, "send")]

    @promises("Store.claim", 1)
    async def test_an_attempt_is_not_claimed_just_before_it_is_visible(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await begin(store, start(at=clock.now(), visible_at=clock.now() + SOON))

        clock.advance(SOON - MICROSECOND)
        claims = await store.claim(request())

        assert claims.claimed == ()

    @promises("Store.claim", 1)
    async def test_an_attempt_is_claimed_at_the_moment_at_which_it_becomes_visible(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await begin(store, start(at=clock.now(), visible_at=clock.now() + SOON))

        clock.advance(SOON)
        claims = await store.claim(request())

        assert names(claims) == [(FIRST, "load")]

    @promises("Store.claim", 1)
    async def test_an_attempt_that_was_put_off_is_claimed_again_when_it_is_due(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        state = await begin_claimed(store, clock)
        later = clock.now() + SOON
        await begin(store, put_off(state, "load", at=clock.now(), visible_at=later))

        early = await store.claim(request())
        clock.advance(SOON)
        due = await store.claim(request())

        assert early.claimed == ()
        assert [claimed.entry.number for claimed in due.claimed] == [1]

    @promises("Store.claim", 1)
    async def test_a_retry_is_claimed_under_its_own_number(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        state = await begin_claimed(store, clock)
        await begin(store, retry(state, "load", at=clock.now()))

        claims = await store.claim(request(tickets=5))

        assert [claimed.entry.number for claimed in claims.claimed] == [2]

    @promises("Store.claim", 1)
    async def test_only_the_queues_that_are_asked_for_are_served(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        for number, queue in enumerate(("default", "mail", "reports"), 1):
            await begin(store, start(run_id(number), at=clock.now(), queue=queue))

        claims = await store.claim(request(tickets=5, queues=("mail", "reports", "mail")))

        assert names(claims) == [(run_id(2), "load"), (run_id(3), "load")]

    @promises("Store.claim", 1)
    async def test_every_queue_is_served_when_none_are_named(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        for number, queue in enumerate(("default", "mail", ""), 1):
            await begin(store, start(run_id(number), at=clock.now(), queue=queue))
        await begin(store, start(run_id(4), at=clock.now(), fingerprint="other"))

        claims = await store.claim(request(tickets=5, queues=None))

        assert names(claims) == [(run_id(number), "load") for number in (1, 2, 3)]

    @promises("Store.claim", 1)
    async def test_only_the_definitions_that_are_asked_for_are_served(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        for number, fingerprint in enumerate(("a", "b", "c"), 1):
            await begin(store, start(run_id(number), at=clock.now(), fingerprint=fingerprint))

        claims = await store.claim(request(tickets=5, definitions=("c", "a", "unknown")))

        assert [claimed.fingerprint for claimed in claims.claimed] == ["a", "c"]

    @promises("Store.claim", 1)
    async def test_nothing_is_claimed_without_queues_definitions_or_tickets(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await begin(store, start(at=clock.now()))

        answers = [
            await store.claim(request(queues=())),
            await store.claim(request(definitions=())),
            await store.claim(request(tickets=0)),
        ]

        assert [claims.claimed for claims in answers] == [(), (), ()]

    @promises("Store.claim", 1)
    async def test_each_ticket_is_good_for_one_attempt(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await begin(store, *(start(run_id(number), at=clock.now()) for number in range(1, 6)))
        wish = request(tickets=3)

        claims = await store.claim(wish)

        assert [claimed.entry.claim_id for claimed in claims.claimed] == [
            ticket.claim_id for ticket in wish.tickets
        ]

    @promises("Store.claim", 1)
    async def test_what_is_claimed_finished_or_taken_back_is_not_claimed(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        state = await begin_claimed(store, clock, "load", "ship")
        await begin(store, complete(state, "ship", at=clock.now()))
        started = start(SECOND, at=clock.now())
        await begin(store, started, cancel(started.state, at=clock.now()))

        claims = await store.claim(request(tickets=5))

        assert claims.claimed == ()

    @promises("Store.claim", 2)
    async def test_eight_workers_racing_for_a_hundred_attempts_get_each_of_them_once(
        self, store: Storage, peer: Storage, clock: VirtualClock
    ) -> None:
        await begin(store, *(start(run_id(number), at=clock.now()) for number in range(100)))
        wishes = [request(tickets=5, owner=f"worker-{number % 8}") for number in range(24)]

        answers = await asyncio.gather(
            *((store, peer)[index % 2].claim(wish) for index, wish in enumerate(wishes))
        )

        claimed = Counter(chain.from_iterable(names(claims) for claims in answers))
        assert claimed == {(run_id(number), "load"): 1 for number in range(100)}

    @promises("Store.claim", 2)
    async def test_two_steps_of_one_run_may_be_claimed_by_two_workers_at_once(
        self, store: Storage, peer: Storage, clock: VirtualClock
    ) -> None:
        await begin(store, start(at=clock.now(), steps=("load", "ship")))

        answers = await asyncio.gather(
            store.claim(request(owner="alice")), peer.claim(request(owner="bob"))
        )
        leftover = await store.claim(request(tickets=2))

        claimed = [name for claims in (*answers, leftover) for name in names(claims)]
        assert sorted(claimed) == [(FIRST, "load"), (FIRST, "ship")]
        assert (await state_of(store)).running == 2

    @promises("Store.claim", 3)
    async def test_a_higher_priority_comes_first_however_long_others_have_waited(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await begin(store, start(run_id(1), at=clock.now(), priority=-1))
        await begin(store, start(run_id(2), at=clock.now()))
        clock.advance(SOON)
        await begin(store, start(run_id(3), at=clock.now(), priority=10))

        claims = await store.claim(request(tickets=5))

        assert [claimed.run_id for claimed in claims.claimed] == [run_id(3), run_id(2), run_id(1)]

    @promises("Store.claim", 3)
    async def test_of_one_priority_the_one_that_was_visible_first_comes_first(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        now = clock.now()
        for number, seconds in ((1, 3), (2, 1), (3, 2)):
            visible_at = now + timedelta(seconds=seconds)
            queue = f"queue-{number}"
            await begin(store, start(run_id(number), at=now, visible_at=visible_at, queue=queue))

        clock.advance(SOON)
        claims = await store.claim(request(tickets=2, queues=("queue-1", "queue-2", "queue-3")))

        assert [claimed.run_id for claimed in claims.claimed] == [run_id(2), run_id(3)]

    @promises("Store.claim", 3)
    async def test_of_one_time_the_order_is_by_run_id_number_and_step(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        state = await begin_claimed(store, clock, "load", run_id=SECOND)
        await begin(store, retry(state, "load", at=clock.now()))
        await begin(store, start(run_id(3), at=clock.now(), steps=("zip", "ask", "mix")))
        await begin(store, start(FIRST, at=clock.now()))

        claims = await store.claim(request(tickets=9))

        assert names(claims) == [
            (FIRST, "load"),
            (SECOND, "load"),
            (run_id(3), "ask"),
            (run_id(3), "mix"),
            (run_id(3), "zip"),
        ]
