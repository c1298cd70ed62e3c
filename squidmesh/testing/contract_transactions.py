"""What `Transactions` promises: the store's writes and somebody else's happen together, or not."""

import asyncio
from contextlib import suppress
from typing import Any, Protocol

import pytest
from returns.pipeline import is_successful

from squidmesh.errors import InvalidOptionError
from squidmesh.ports.store import RunTaken
from squidmesh.testing.builders import FIRST, SECOND, alone, run_id, start
from squidmesh.testing.clock import VirtualClock
from squidmesh.testing.contract_base import (
    Storage,
    StorageContract,
    attempt,
    begin,
    note,
    outcomes,
    promises,
    state_of,
)

TURNS = 50

in_both_kinds = pytest.mark.parametrize("body", ["async", "plain"])


class Host(Protocol):
    """An application with a connection to the store's database, and a table of its own in it."""

    @property
    def connection(self) -> Any:  # noqa: ANN401  whatever connection the store's driver has
        """Its open connection, on which no transaction has been begun."""

    async def write(self, text: str, *, on: Any = None) -> None:  # noqa: ANN401
        """Write a row of its own, over its connection or the one of a step."""

    async def commit(self) -> None:
        """End its transaction with a commit."""

    async def rollback(self) -> None:
        """End its transaction by taking it back."""

    async def read(self) -> list[str]:
        """Return what everybody else sees of its rows."""


class NoHost:
    """The `Host` of a technology in which there are no connections."""

    connection = object()

    async def write(self, text: str, *, on: Any = None) -> None:  # noqa: ANN401
        """There is nowhere to write."""

    async def commit(self) -> None:
        """There is nothing to commit."""

    async def rollback(self) -> None:
        """There is nothing to take back."""

    async def read(self) -> list[str]:
        """There is nothing to read."""
        return []


class _Slip(Exception):  # noqa: N818  it is raised and caught here
    """What a body may raise."""


class TransactionsContract(StorageContract):
    """The promises of `Transactions`.

    All of them hold for a store without transactions, too: it refuses, and nothing is written.
    """

    @pytest.fixture
    def host(self) -> Host:
        """A host beside `store`; `NoHost` where there is nothing to connect to."""
        raise NotImplementedError(f"{type(self).__name__} provides no `host` fixture")

    @promises("Transactions.is_transactional")
    async def test_a_store_joins_a_transaction_or_says_that_it_cannot(
        self, store: Storage, host: Host
    ) -> None:
        assert await _is_transactional(store, host) is store.is_transactional

    @promises("Transactions.excludes_others")
    async def test_a_step_in_its_transaction_keeps_others_waiting_only_where_that_is_said(
        self, store: Storage, peer: Storage, host: Host, clock: VirtualClock
    ) -> None:
        if not await _is_transactional(store, host):
            assert not store.excludes_others
            return

        async with store.transaction(in_thread=False) as opened:
            await host.write("a", on=opened.connection)
            committing = asyncio.create_task(peer.commit(alone(start(at=clock.now()))))
            if not store.excludes_others:
                await committing
            for _ in range(TURNS):
                await asyncio.to_thread(int)
            was_done = committing.done()

        assert outcomes(await committing) == [True]
        assert was_done is not store.excludes_others

    @promises("Transactions.joined", 1)
    async def test_what_is_committed_with_the_host_is_there_when_the_host_has_committed(
        self, store: Storage, peer: Storage, host: Host, clock: VirtualClock
    ) -> None:
        if not await _is_transactional(store, host):
            return
        change = start(at=clock.now())

        await host.write("a")
        await begin(await store.joined(host.connection), change)
        before = (await peer.load([FIRST])).states
        await host.commit()

        assert before == {}
        assert await state_of(peer) == change.state
        assert await host.read() == ["a"]

    @promises("Transactions.joined", 1)
    async def test_what_is_committed_with_the_host_goes_when_the_host_rolls_back(
        self, store: Storage, peer: Storage, host: Host, clock: VirtualClock
    ) -> None:
        if not await _is_transactional(store, host):
            return
        await begin(store, start(FIRST, at=clock.now()))
        state = await state_of(store)

        await host.write("a")
        inside = await store.joined(host.connection)
        await begin(inside, note(state, clock), start(SECOND, at=clock.now()))
        await host.rollback()

        assert (await peer.load([FIRST, SECOND])).states == {FIRST: state}
        assert len(await peer.read(FIRST)) == 1
        assert await host.read() == []

    @promises("Transactions.joined", 2)
    async def test_what_is_committed_with_the_host_is_read_with_it(
        self, store: Storage, host: Host, clock: VirtualClock
    ) -> None:
        if not await _is_transactional(store, host):
            return
        change = start(at=clock.now())

        inside = await store.joined(host.connection)
        await begin(inside, change)
        again = await store.joined(host.connection)

        assert await state_of(inside) == await state_of(again) == change.state
        assert len(await again.read(FIRST)) == 1
        assert (await attempt(again, change)).failure() == RunTaken(run_id=FIRST)
        await host.rollback()

    @promises("Transactions.joined", 3)
    async def test_where_no_transaction_was_begun_one_is_left_open(
        self, store: Storage, peer: Storage, host: Host, clock: VirtualClock
    ) -> None:
        if not await _is_transactional(store, host):
            return

        await begin(await store.joined(host.connection), start(at=clock.now()))
        await host.write("a")
        before = (await peer.load([FIRST])).states, await host.read()
        await host.commit()

        assert before == ({}, [])
        assert set((await peer.load([FIRST])).states) == {FIRST}
        assert await host.read() == ["a"]

    @promises("Transactions.joined", 4)
    async def test_what_is_refused_leaves_the_host_its_own_writes(
        self, store: Storage, peer: Storage, host: Host, clock: VirtualClock
    ) -> None:
        if not await _is_transactional(store, host):
            return
        await begin(store, start(FIRST, at=clock.now()))
        state = await state_of(store)
        stale = note(state, clock)
        await begin(store, note(state, clock, 2))

        await host.write("a")
        inside = await store.joined(host.connection)
        committed = await inside.commit(
            alone(start(FIRST, at=clock.now()), stale, start(SECOND, at=clock.now()))
        )
        await host.write("b")
        await host.commit()

        assert outcomes(committed) == [False, False, True]
        assert set((await peer.load([FIRST, SECOND])).states) == {FIRST, SECOND}
        assert await host.read() == ["a", "b"]

    @promises("Transactions.joined", 5)
    async def test_what_is_no_connection_of_the_stores_technology_is_refused(
        self, store: Storage, host: Host
    ) -> None:
        with pytest.raises(InvalidOptionError) as problem:
            await store.joined(object())

        assert problem.value.details["option"] == "connection"

    @in_both_kinds
    @promises("Transactions.transaction", 1)
    async def test_a_transaction_is_committed_at_its_end(
        self, store: Storage, peer: Storage, host: Host, clock: VirtualClock, body: str
    ) -> None:
        if not await _is_transactional(store, host):
            return
        change = start(at=clock.now())

        async with store.transaction(in_thread=body == "plain") as opened:
            await host.write("a", on=opened.connection)
            result = await attempt(opened.store, change)
            before = (await peer.load([FIRST])).states, await host.read()

        assert is_successful(result)
        assert before == ({}, [])
        assert await state_of(peer) == change.state
        assert await host.read() == ["a"]

    @in_both_kinds
    @promises("Transactions.transaction", 1)
    async def test_an_exception_takes_the_whole_transaction_back(
        self, store: Storage, peer: Storage, host: Host, clock: VirtualClock, body: str
    ) -> None:
        if not await _is_transactional(store, host):
            return

        with suppress(_Slip):
            async with store.transaction(in_thread=body == "plain") as opened:
                await host.write("a", on=opened.connection)
                await begin(opened.store, start(at=clock.now()))
                raise _Slip

        assert (await peer.load([FIRST])).states == {}
        assert await host.read() == []

    @in_both_kinds
    @promises("Transactions.transaction", 2)
    async def test_a_body_that_was_given_up_can_write_nothing_any_more(
        self, store: Storage, host: Host, body: str
    ) -> None:
        if not await _is_transactional(store, host):
            return
        with suppress(_Slip):
            async with store.transaction(in_thread=body == "plain") as given_up:
                raise _Slip

        async with store.transaction(in_thread=body == "plain") as opened:
            with suppress(Exception):
                await host.write("late", on=given_up.connection)
            await host.write("in time", on=opened.connection)

        assert await host.read() == ["in time"]

    @in_both_kinds
    @promises("Transactions.transaction", 3)
    async def test_transactions_of_steps_take_nothing_that_others_need(
        self, store: Storage, host: Host, clock: VirtualClock, body: str
    ) -> None:
        if not await _is_transactional(store, host) or store.excludes_others:
            return
        ids = [run_id(number) for number in range(1, 4)]

        async with (
            store.transaction(in_thread=body == "plain") as first,
            store.transaction(in_thread=body == "plain") as second,
        ):
            await host.write("a", on=first.connection)
            await host.write("b", on=second.connection)
            await begin(store, *(start(each, at=clock.now()) for each in ids))
            found = (await store.load(ids)).states

        assert set(found) == set(ids)
        assert sorted(await host.read()) == ["a", "b"]


async def _is_transactional(store: Storage, host: Host) -> bool:
    """Whether there are transactions; where there are none, joining and beginning are refused."""
    if store.is_transactional:
        await store.joined(host.connection)
        return True
    with pytest.raises(InvalidOptionError):
        await store.joined(host.connection)
    with pytest.raises(InvalidOptionError):
        async with store.transaction(in_thread=False):
            pass
    return False
