"""What `Store.load` promises: the state as the journal tells it, whatever is in it."""

import random
from datetime import UTC, datetime, timedelta
from itertools import chain

import pytest

from squidmesh.domain.evolution import rebuild
from squidmesh.domain.state import RunState
from squidmesh.domain.values import Json
from squidmesh.errors import StoreUnavailableError
from squidmesh.ports.store import HeldClaim, RunChange, RunQuery
from squidmesh.testing.builders import (
    FIRST,
    LEASE,
    SECOND,
    cancel,
    complete,
    put_off,
    request,
    run_id,
    start,
    take,
)
from squidmesh.testing.clock import VirtualClock
from squidmesh.testing.contract_base import (
    Storage,
    StorageContract,
    beat,
    begin,
    holding,
    promises,
    state_of,
)
from squidmesh.testing.moves import LATER, moves
from squidmesh.testing.samples import NUMBERS, TEXTS


class StateContract(StorageContract):
    """States as `StoreContract` asks for them."""

    @promises("Store.load", 1)
    async def test_runs_that_do_not_exist_are_left_out(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        await begin(store, start(FIRST, at=clock.now()))

        loaded = await store.load([FIRST, SECOND])

        assert loaded.at == clock.now()
        assert set(loaded.states) == {FIRST}
        assert (await store.load([])).states == {}

    @promises("Store.load", 1)
    @pytest.mark.parametrize("seed", range(6))
    async def test_whatever_happens_the_state_is_what_the_journal_rebuilds(
        self, store: Storage, clock: VirtualClock, seed: int
    ) -> None:
        chance = random.Random(seed)  # noqa: S311  the same walk every time
        runs = [run_id(number) for number in (1, 2, 3)]
        await begin(
            store, *(start(each, at=clock.now(), steps=("load", "ship", "bill")) for each in runs)
        )

        for _ in range(40):
            await _wander(store, clock, chance, runs)

        states = (await store.load(runs)).states
        assert states == {each: await _rebuilt(store, each) for each in runs}

    @promises("Store.load", 1)
    async def test_hostile_texts_come_back_as_they_were(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        payload: dict[str, Json] = {**TEXTS, **{text: name for name, text in TEXTS.items()}}
        tags = {name: text for name, text in TEXTS.items() if name != "long"}
        started = start(at=clock.now(), payload=payload, tags=tags)
        taken = take(started.state, "load", at=clock.now(), owner=TEXTS["emoji"])
        report = complete(taken.state, "load", at=clock.now(), output=list(TEXTS.values()))

        await begin(store, started, taken, report)

        assert await state_of(store) == report.state
        assert await _rebuilt(store, FIRST) == report.state

    @promises("Store.load", 1)
    async def test_the_reason_of_a_deferral_stands_until_somebody_takes_the_step_up_again(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        reasons = [await _reason(store, started := start(at=clock.now()))]
        taken = take(started.state, "load", at=clock.now())
        await begin(store, taken)
        soon = clock.now() + LATER
        deferred = put_off(
            taken.state, "load", at=clock.now(), visible_at=soon, reason=TEXTS["quotes"]
        )

        reasons.append(await _reason(store, deferred))
        clock.advance(LATER)
        (claimed,) = (await store.claim(request())).claimed
        held, rebuilt = await state_of(store), await _rebuilt(store, FIRST)
        again = put_off(held, "load", at=clock.now(), visible_at=soon, reason="the second time")
        silent = take(again.state, "load", at=clock.now())
        unsaid = put_off(silent.state, "load", at=clock.now(), visible_at=soon)
        reasons += [await _reason(store, each) for each in (again, silent, unsaid)]

        assert reasons == [None, TEXTS["quotes"], "the second time", None, None]
        assert (claimed.entry.number, held.steps["load"].deferred) == (1, None)
        assert held == rebuilt

    @promises("Store.load", 1)
    async def test_a_deferral_that_is_taken_back_gives_no_reason_any_more(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        started = start(at=clock.now())
        taken = take(started.state, "load", at=clock.now())
        deferred = put_off(
            taken.state, "load", at=clock.now(), visible_at=clock.now(), reason="not yet"
        )
        cancelled = cancel(deferred.state, at=clock.now())

        await begin(store, started, taken, deferred, cancelled)

        assert await state_of(store) == cancelled.state == await _rebuilt(store, FIRST)
        assert cancelled.state.steps["load"].deferred is None

    @promises("Store.load", 1)
    async def test_numbers_come_back_as_they_were_and_of_the_same_kind(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        started = start(at=clock.now(), payload={"numbers": NUMBERS})
        taken = take(started.state, "load", at=clock.now())
        report = complete(taken.state, "load", at=clock.now(), output=NUMBERS)

        await begin(store, started, taken, report)

        state = await state_of(store)
        assert repr(state.facts.payload["numbers"]) == repr(NUMBERS)
        assert repr(state.steps["load"].output) == repr(NUMBERS)

    @promises("Store.load", 1)
    async def test_instants_come_back_in_utc_to_the_microsecond(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        clock.advance(timedelta(microseconds=1))
        earliest, latest = (datetime(year, 1, 1, tzinfo=UTC) for year in (1970, 9999))
        long_ago = start(FIRST, at=clock.now(), visible_at=earliest)
        some_day = start(SECOND, at=clock.now(), visible_at=latest)

        await begin(store, long_ago, some_day)

        states = (await store.load([FIRST, SECOND])).states
        assert states == {FIRST: long_ago.state, SECOND: some_day.state}
        assert states[FIRST].facts.at.isoformat() == "2030-01-01T00:00:00.000001+00:00"

    @promises("Store.load", 1)
    async def test_steps_named_alike_but_for_case_accents_or_spaces_are_different_steps(
        self, store: Storage, clock: VirtualClock
    ) -> None:
        steps = ("load", "Load", "load ", "lo\u00e0d", "loa\u0300d", "compensate:load", "%", "_")
        change = start(at=clock.now(), steps=steps)

        await begin(store, change)

        assert set((await state_of(store)).steps) == set(steps)
        assert await state_of(store) == change.state

    @promises("Store.close")
    async def test_a_closed_store_is_unavailable(self, store: Storage, clock: VirtualClock) -> None:
        await store.close()

        with pytest.raises(StoreUnavailableError):
            await store.load([FIRST])
        with pytest.raises(StoreUnavailableError):
            await store.list_runs(RunQuery())
        with pytest.raises(StoreUnavailableError):
            await store.claim(request())

    @promises("Store.close")
    async def test_closing_twice_is_closing_once(self, store: Storage) -> None:
        await store.close()
        await store.close()

        with pytest.raises(StoreUnavailableError):
            await store.load([FIRST])


async def _reason(store: Storage, change: RunChange) -> str | None:
    """Why the step is put off once *change* is written, by the rows and by the journal."""
    await begin(store, change)
    state = await state_of(store)
    assert state == change.state == await _rebuilt(store, change.run_id)
    return state.steps["load"].deferred


async def _rebuilt(store: Storage, run_id: str) -> RunState:
    rows = await store.read(run_id)
    return rebuild(run_id, chain.from_iterable(row.entries for row in rows))


async def _wander(
    store: Storage, clock: VirtualClock, chance: random.Random, runs: list[str]
) -> None:
    """Let something happen: time, a claim, heartbeats, or one change of one run."""
    kind = chance.randrange(20)
    states = list((await store.load(runs)).states.values())
    state = chance.choice(states)
    possible = moves(state, now=clock.now())
    if kind < 4:
        clock.advance(chance.choice((LATER, LATER, LATER, LEASE)))
    elif kind < 7:
        await store.claim(request(tickets=2))
    elif kind < 10:
        beat(store, *_claims_of(states))
    elif kind == 10 and not state.status.is_final and not state.cancelling:
        await begin(store, cancel(state, at=clock.now()))
    elif possible:
        await begin(store, chance.choice(possible)())


def _claims_of(states: list[RunState]) -> list[HeldClaim]:
    return [
        holding(state, step.step)
        for state in states
        for step in state.steps.values()
        if step.current is not None and step.current.claim_id is not None
    ]
