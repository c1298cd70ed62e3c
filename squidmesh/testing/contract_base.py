"""What all contracts share: how a promise is named, and the fixtures of a storage."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import Final, Protocol, TypeVar

import attrs
import pytest
from returns.pipeline import is_successful
from returns.result import Result

from squidmesh.domain.entries import NOBODY, RunReplayed
from squidmesh.domain.state import RunState
from squidmesh.ports.journal import Journal
from squidmesh.ports.store import (
    AttemptStore,
    BeatReport,
    CommitFailure,
    Committed,
    HeldClaim,
    Hints,
    Presence,
    RunChange,
    RunStore,
    Schema,
    Store,
)
from squidmesh.ports.transactions import Transactions
from squidmesh.testing.builders import FIRST, LEASE, alone, following, run_id, start, take
from squidmesh.testing.clock import VirtualClock

MICROSECOND: Final = timedelta(microseconds=1)

Function = TypeVar("Function", bound=Callable[..., object])

_PROMISES: Final = "__promises__"


@attrs.frozen(order=True)
class Promise:
    """One obligation of a port: the method as ``Port.method``, and its number in the docstring.

    The number is None for what a method promises in prose.
    """

    method: str
    number: int | None = None


def promises(method: str, number: int | None = None) -> Callable[[Function], Function]:
    """Say which obligation of a port a test of a contract holds an adapter to."""

    def note(test: Function) -> Function:
        kept: tuple[Promise, ...] = getattr(test, _PROMISES, ())
        test.__dict__[_PROMISES] = (Promise(method, number), *kept)
        return test

    return note


def promises_of(test: object) -> tuple[Promise, ...]:
    """The obligations that a test was marked with."""
    kept: tuple[Promise, ...] = getattr(test, _PROMISES, ())
    return kept


class Storage(
    Store, RunStore, AttemptStore, Presence, Hints, Schema, Journal, Transactions, Protocol
):
    """A storage technology as one object: the store with all its facets, and the journal."""


class Hold(Protocol):
    """A way to have a transaction of somebody else hold the row of a run."""

    def __call__(self, run_id: str) -> AbstractAsyncContextManager[bool]:
        """Hold the run for as long as one is inside; the value says whether it is held."""


@asynccontextmanager
async def holding_nothing(run_id: str) -> AsyncIterator[bool]:
    """The `Hold` of a technology in which nobody can hold a single row."""
    yield False


@pytest.mark.anyio
class StorageContract:
    """The fixtures that an adapter's tests provide, and those that they are given.

    A subclass overrides `store`, and `peer` as well. It judges time by the `clock` it is given::

        class TestMyStore(StoreContract):
            @pytest.fixture
            async def store(self, tmp_path: Path, clock: VirtualClock) -> AsyncIterator[MyStore]:
                store = await MyStore.open(tmp_path / "data", clock=clock)
                yield store
                await store.close()
    """

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture
    def clock(self) -> VirtualClock:
        """The store's time, which stands still unless a test advances it."""
        return VirtualClock()

    @pytest.fixture
    def store(self) -> Storage:
        """A fresh, empty, migrated store whose time is `clock`."""
        raise NotImplementedError(f"{type(self).__name__} provides no `store` fixture")

    @pytest.fixture
    def peer(self) -> Storage:
        """The same data once more, as another process would open it beside `store`.

        A technology that cannot be opened twice returns `store` itself.
        """
        raise NotImplementedError(f"{type(self).__name__} provides no `peer` fixture")

    @pytest.fixture
    def hold(self) -> Hold:
        """What holds the row of a run from outside, where the technology has locks on rows.

        As it stands it holds nothing: then nothing may keep a commit from being made.
        """
        return holding_nothing


async def begin(store: Storage, *changes: RunChange) -> None:
    """Commit each change for itself, all in one batch; none of them may fail."""
    committed = await store.commit(alone(*changes))
    assert [result for result in committed.results if not is_successful(result)] == []


async def attempt(store: Storage, change: RunChange) -> Result[None, CommitFailure]:
    """Commit one change, and return what became of it."""
    committed = await store.commit(alone(change))
    assert len(committed.results) == 1
    return committed.results[0]


async def state_of(store: Storage, run_id: str = FIRST) -> RunState:
    """The state of a run that exists."""
    return (await store.load([run_id])).states[run_id]


async def begin_claimed(
    store: Storage,
    clock: VirtualClock,
    *steps: str,
    run_id: str = FIRST,
    lease: timedelta = LEASE,
    owner: str = "alice",
) -> RunState:
    """Start a run, claim all its steps for *owner*, and return the state then."""
    names = steps or ("load",)
    await begin(store, start(run_id, at=clock.now(), steps=names))
    for step in names:
        state = await state_of(store, run_id)
        await begin(store, take(state, step, at=clock.now(), owner=owner, lease=lease))
    return await state_of(store, run_id)


def note(state: RunState, clock: VirtualClock, new_run: int = 9) -> RunChange:
    """A change that any state may undergo: one entry and no rows but the run's."""
    return following(state, RunReplayed(at=clock.now(), new_run_id=run_id(new_run), issuer=NOBODY))


def outcomes(committed: Committed) -> list[bool]:
    """For each change of a batch, whether it was committed."""
    return [is_successful(result) for result in committed.results]


def beat(store: Storage, *claims: HeldClaim) -> BeatReport:
    """One heartbeat for *claims*, from the calling thread."""
    heartbeats = store.heartbeats()
    try:
        return heartbeats.beat(claims)
    finally:
        heartbeats.close()


def holding(state: RunState, step: str, *, lease: timedelta = LEASE) -> HeldClaim:
    """The claim on a step's latest attempt, as its holder would prolong it."""
    claimed = state.steps[step].attempts[-1]
    return HeldClaim(
        run_id=state.run_id,
        attempt=claimed.id,
        claim_id=claimed.claim_id or "",
        token_hash=claimed.token_hash or "",
        lease=lease,
    )
