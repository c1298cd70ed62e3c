"""What `Hints` promises: who listens hears of others, or it is said that nothing can be heard."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Final, Self

import pytest

from squidmesh.ports.store import RunQuery
from squidmesh.testing.contract_base import Storage, StorageContract, promises
from squidmesh.testing.samples import TEXTS

ANY: Final = frozenset[str]()
PATIENCE: Final = 10.0


class Ear:
    """One who listens to a store, and what is still to be heard."""

    def __init__(self, store: Storage, source: str) -> None:
        self._hints: asyncio.Queue[frozenset[str]] = asyncio.Queue()
        self._hears = store.hears
        self.listening = asyncio.create_task(store.listen(self._heard, source=source))

    @classmethod
    @asynccontextmanager
    async def at(cls, store: Storage, source: str = "listener") -> AsyncIterator[Self]:
        """Listen around the block, from when it is sure that hints are heard."""
        ear = cls(store, source)
        try:
            assert await ear.next() == (ANY if store.hears else None)
            yield ear
        finally:
            ear.listening.cancel()
            await asyncio.wait((ear.listening,))

    async def next(self) -> frozenset[str] | None:
        """The queues that are heard of next; None where nothing can be heard."""
        async with asyncio.timeout(PATIENCE):
            if self._hears:
                return await self._hints.get()
            await self.listening
        assert self._hints.empty()
        return None

    def _heard(self, queues: Collection[str]) -> None:
        self._hints.put_nowait(frozenset(queues))


class HintsContract(StorageContract):
    """The promises of `Hints`.

    All of them hold for a store that hears nothing, too: they are about what `hears` says.
    """

    @promises("Hints.hears")
    async def test_whoever_opens_a_store_hears_or_nobody_does(
        self, store: Storage, peer: Storage
    ) -> None:
        assert store.hears == peer.hears

    @promises("Hints.hint", 1)
    async def test_who_listens_hears_of_the_queues(self, store: Storage, peer: Storage) -> None:
        async with Ear.at(peer) as ear, Ear.at(peer, "another") as another:
            await store.hint({"mail", "default"}, source="starter")

            heard = [await ear.next(), await another.next()]

        assert heard == [{"mail", "default"} if store.hears else None] * 2

    @promises("Hints.hint", 2)
    @pytest.mark.parametrize("name", sorted(TEXTS.keys() - {"long"}))
    async def test_queues_may_be_called_anything(
        self, store: Storage, peer: Storage, name: str
    ) -> None:
        async with Ear.at(peer) as ear:
            await store.hint([TEXTS[name]], source="starter")

            heard = await ear.next()

        assert heard == ({TEXTS[name]} if store.hears else None)

    @promises("Hints.hint", 2)
    async def test_more_queues_than_can_be_named_are_told_by_name_or_as_any(
        self, store: Storage, peer: Storage
    ) -> None:
        names = frozenset(f"queue-{number}" for number in range(10_000))
        async with Ear.at(peer) as ear:
            await store.hint(names, source="starter")

            heard = await ear.next()

        assert heard in ((names, ANY) if store.hears else (None,))

    @promises("Hints.hint", 3)
    async def test_a_hint_that_nobody_hears_is_no_trouble(self, store: Storage) -> None:
        await store.hint(["mail"], source="starter")

        assert await store.list_runs(RunQuery()) == ()

    @promises("Hints.listen", 1)
    async def test_who_gave_a_hint_does_not_hear_it(self, store: Storage, peer: Storage) -> None:
        async with Ear.at(peer, "alice") as there, Ear.at(store, "alice") as here:
            await store.hint(["of-alice"], source="alice")
            await store.hint(["of-bob"], source="bob")

            heard = [await there.next(), await here.next()]

        assert heard == [{"of-bob"} if store.hears else None] * 2

    @promises("Hints.listen", 2)
    async def test_what_was_said_before_it_listened_is_looked_for(
        self, store: Storage, peer: Storage
    ) -> None:
        await store.hint(["missed"], source="starter")

        async with Ear.at(peer) as ear:
            await store.hint(["heard"], source="starter")

            assert await ear.next() == ({"heard"} if store.hears else None)

    @promises("Hints.listen", 2)
    async def test_one_who_stops_listening_does_not_keep_others_from_it(
        self, store: Storage, peer: Storage
    ) -> None:
        async with Ear.at(peer) as ear:
            async with Ear.at(peer, "another") as leaving:
                pass
            await store.hint(["mail"], source="starter")

            heard = await ear.next()

        assert leaving.listening.done()
        assert heard == ({"mail"} if store.hears else None)

    @promises("Hints.listen", 3)
    async def test_listening_goes_on_for_as_long_as_something_can_be_heard(
        self, store: Storage
    ) -> None:
        async with Ear.at(store) as ear:
            is_over = ear.listening.done()

        assert is_over != store.hears
