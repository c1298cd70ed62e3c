"""What `AttemptStore` promises: nobody waits for a wake-up that is never given."""

from datetime import timedelta

from squidmesh.testing.builders import (
    FIRST,
    SECOND,
    cancel,
    first_attempt,
    run_id,
    start,
    take,
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

HOUR = timedelta(hours=1)
SOON = timedelta(seconds=5)


class AttemptStoreContract(StorageContract):
    """The promises an `AttemptStore` makes."""

    @promises("AttemptStore.owed_wakeups", 1)
    async def test_a_wakeup_is_owed_from_its_time_on(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await begin(store, start(at=clock.now(), wake_at=clock.now() + SOON))

        clock.advance(SOON - MICROSECOND)
        early = await store.owed_wakeups(due_before=None, limit=10)
        clock.advance(MICROSECOND)
        owed = await store.owed_wakeups(due_before=None, limit=10)

        assert early == ()
        ((found_run, attempt),) = owed
        assert (found_run, attempt) == (FIRST, (await state_of(store)).steps["load"].current)
        assert attempt.wake_at == clock.now()

    @promises("AttemptStore.owed_wakeups", 1)
    async def test_a_wakeup_is_owed_until_it_is_noted_that_it_was_given(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await begin(store, start(at=clock.now(), wake_at=clock.now()))

        once = await store.owed_wakeups(due_before=None, limit=10)
        twice = await store.owed_wakeups(due_before=None, limit=10)

        assert len(once) == 1
        assert once == twice

    @promises("AttemptStore.owed_wakeups", 1)
    async def test_no_wakeup_is_owed_for_what_asked_for_none_or_is_not_scheduled(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        silent = start(run_id(1), at=clock.now())
        claimed = start(run_id(2), at=clock.now(), wake_at=clock.now())
        cancelled = start(run_id(3), at=clock.now(), wake_at=clock.now())
        await begin(
            store,
            silent,
            claimed,
            cancelled,
            take(claimed.state, "load", at=clock.now()),
            cancel(cancelled.state, at=clock.now()),
        )

        assert await store.owed_wakeups(due_before=None, limit=10) == ()

    @promises("AttemptStore.owed_wakeups", 1)
    async def test_with_a_time_everything_visible_then_is_owed_oldest_first(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        now = clock.now()
        for number, seconds in ((1, 3), (2, 1), (3, 2), (4, 4)):
            visible_at = now + timedelta(seconds=seconds)
            change = start(run_id(number), at=now, visible_at=visible_at, wake_at=now + HOUR)
            await begin(store, change)

        due = now + timedelta(seconds=3)
        owed = await store.owed_wakeups(due_before=due, limit=10)
        two = await store.owed_wakeups(due_before=due, limit=2)

        assert [each for each, _ in owed] == [run_id(2), run_id(3), run_id(1)]
        assert two == owed[:2]

    @promises("AttemptStore.owed_wakeups", 1)
    async def test_with_a_time_attempts_that_are_claimed_are_not_owed(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await begin_claimed(store, clock)
        await begin(store, start(SECOND, at=clock.now()))

        owed = await store.owed_wakeups(due_before=clock.now(), limit=10)

        assert [each for each, _ in owed] == [SECOND]

    @promises("AttemptStore.owed_wakeups", 1)
    async def test_as_many_wakeups_are_returned_as_were_asked_for(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        for number in range(5):
            await begin(store, start(run_id(number), at=clock.now(), wake_at=clock.now()))

        owed = await store.owed_wakeups(due_before=None, limit=3)

        assert len({each for each, _ in owed}) == 3

    @promises("AttemptStore.woken")
    async def test_a_wakeup_that_was_given_is_owed_again_at_the_noted_time(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await begin(store, start(at=clock.now(), wake_at=clock.now()))

        await store.woken([(FIRST, first_attempt("load"), clock.now() + SOON)])
        quiet = await store.owed_wakeups(due_before=None, limit=10)
        clock.advance(SOON)
        owed = await store.owed_wakeups(due_before=None, limit=10)

        assert quiet == ()
        assert [each for each, _ in owed] == [FIRST]

    @promises("AttemptStore.woken")
    async def test_a_wakeup_that_is_noted_twice_is_owed_once(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await begin(store, start(at=clock.now(), wake_at=clock.now()))

        for delay in (timedelta(0), SOON, timedelta(0)):
            await store.woken([(FIRST, first_attempt("load"), clock.now() + delay)])

        assert len(await store.owed_wakeups(due_before=None, limit=10)) == 1

    @promises("AttemptStore.woken")
    async def test_noting_wakeups_writes_neither_entry_nor_revision(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        change = start(at=clock.now(), steps=("load", "ship"), wake_at=clock.now())
        await begin(store, change)

        later = clock.now() + SOON
        await store.woken([(FIRST, first_attempt(step), later) for step in ("load", "ship")])

        assert await state_of(store) == change.state
        assert len(await store.read(FIRST)) == 1
        assert await store.owed_wakeups(due_before=None, limit=10) == ()

    @promises("AttemptStore.woken")
    async def test_what_is_not_scheduled_is_passed_over(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        state = await begin_claimed(store, clock)

        await store.woken(
            [
                (FIRST, first_attempt("load"), clock.now()),
                (FIRST, first_attempt("unknown"), clock.now()),
                (SECOND, first_attempt("load"), clock.now()),
            ]
        )

        assert await store.owed_wakeups(due_before=None, limit=10) == ()
        assert await state_of(store) == state
