"""What `Presence` and `Schema` promise: one owner per lease, who is there, and the tables."""

import asyncio
from datetime import timedelta

from squidmesh.testing.builders import start
from squidmesh.testing.clock import VirtualClock
from squidmesh.testing.contract_base import (
    MICROSECOND,
    Storage,
    StorageContract,
    begin,
    promises,
    state_of,
)

LENGTH = timedelta(seconds=10)
MINUTE = timedelta(minutes=1)


class PresenceContract(StorageContract):
    """The promises a `Presence` makes."""

    @promises("Presence.take_lease", 1)
    async def test_a_lease_is_refused_to_others_until_it_is_over(
        self, store: Storage, peer: Storage, clock: VirtualClock
    ) -> None:
        taken = await store.take_lease("sweep", "alice", LENGTH)

        clock.advance(LENGTH - MICROSECOND)
        early = await peer.take_lease("sweep", "bob", LENGTH)
        clock.advance(MICROSECOND)
        due = await peer.take_lease("sweep", "bob", LENGTH)

        assert (taken, early, due) == (True, False, True)

    @promises("Presence.take_lease", 1)
    async def test_its_owner_renews_a_lease_from_the_time_of_asking(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await store.take_lease("sweep", "alice", LENGTH)

        clock.advance(LENGTH / 2)
        renewed = await store.take_lease("sweep", "alice", LENGTH)
        clock.advance(LENGTH - MICROSECOND)
        refused = await store.take_lease("sweep", "bob", LENGTH)

        assert (renewed, refused) == (True, False)

    @promises("Presence.take_lease", 1)
    async def test_who_lost_a_lease_does_not_get_it_back_while_another_has_it(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await store.take_lease("sweep", "alice", LENGTH)
        clock.advance(LENGTH)

        bob = await store.take_lease("sweep", "bob", LENGTH)
        alice = await store.take_lease("sweep", "alice", LENGTH)

        assert (bob, alice) == (True, False)

    @promises("Presence.take_lease", 1)
    async def test_leases_of_different_names_do_not_touch(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await store.take_lease("sweep", "alice", LENGTH)

        assert await store.take_lease("cron", "bob", LENGTH)

    @promises("Presence.take_lease", 2)
    async def test_of_eight_racing_owners_exactly_one_gets_a_free_lease(
        self, store: Storage, peer: Storage, clock: VirtualClock
    ) -> None:
        answers = await asyncio.gather(
            *(
                (store, peer)[number % 2].take_lease("sweep", f"owner-{number}", LENGTH)
                for number in range(8)
            )
        )

        assert answers.count(True) == 1

    @promises("Presence.take_lease", 2)
    async def test_of_two_racing_owners_exactly_one_gets_a_lease_that_is_over(
        self, store: Storage, peer: Storage, clock: VirtualClock
    ) -> None:
        await store.take_lease("sweep", "carol", LENGTH)
        clock.advance(LENGTH)

        answers = await asyncio.gather(
            store.take_lease("sweep", "alice", LENGTH), peer.take_lease("sweep", "bob", LENGTH)
        )

        assert sorted(answers) == [False, True]

    @promises("Presence.worker_seen")
    @promises("Presence.workers_for")
    async def test_the_workers_that_know_a_definition_are_named_with_what_they_lack(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await store.worker_seen("alice", ["default"], {"a": (), "b": ("load", "tell")})
        await store.worker_seen("bob", ["default", "mail"], {"b": ()})
        await store.worker_seen("idle", [], {})

        found = [await store.workers_for(name, within=MINUTE) for name in ("a", "b", "c")]

        assert found == [
            {"alice": frozenset()},
            {"alice": frozenset({"load", "tell"}), "bob": frozenset()},
            {},
        ]

    @promises("Presence.workers_for")
    async def test_a_worker_is_forgotten_when_it_was_not_seen_for_too_long(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await store.worker_seen("alice", ["default"], {"a": ()})
        clock.advance(MINUTE - MICROSECOND)
        still_there = await store.workers_for("a", within=MINUTE)

        clock.advance(2 * MICROSECOND)
        gone = await store.workers_for("a", within=MINUTE)

        assert (still_there, gone) == ({"alice": frozenset()}, {})

    @promises("Presence.worker_seen")
    async def test_what_a_worker_can_run_is_what_it_said_last(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await store.worker_seen("alice", ["default"], {"a": ()})
        clock.advance(MINUTE)

        await store.worker_seen("alice", ["default"], {"b": ()})

        assert await store.workers_for("a", within=MINUTE) == {}
        assert await store.workers_for("b", within=MICROSECOND) == {"alice": frozenset()}


class SchemaContract(StorageContract):
    """The promises a `Schema` makes."""

    @promises("Schema.migrate")
    async def test_migrating_again_changes_nothing(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        change = start(at=clock.now())
        await begin(store, change)

        first, second = await store.migrate(), await store.migrate()

        assert first == second
        assert first >= 1
        assert await state_of(store) == change.state

    @promises("Schema.migrate")
    async def test_two_processes_may_migrate_at_once(
        self, store: Storage, peer: Storage, clock: VirtualClock
    ) -> None:
        versions = await asyncio.gather(store.migrate(), peer.migrate())

        assert len(set(versions)) == 1

    @promises("Schema.migration_sql")
    async def test_the_statements_of_a_migration_are_the_same_before_and_after_it(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        before = store.migration_sql()

        await store.migrate()

        assert store.migration_sql() == before
