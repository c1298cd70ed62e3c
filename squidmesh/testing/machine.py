"""The second half of the contract for stores: hypothesis against the store in memory.

A contract asks what its author thought of. The machine lets starts, claims, reports, heartbeats,
stale commits, batches and time come in any order, gives the same to a store and to `MemoryStore`,
and compares every answer and every state. In your own test suite::

    @asynccontextmanager
    async def open_store(clock: VirtualClock) -> AsyncIterator[MyStore]:
        ...

    TestMyStoreLikeMemory = store_machine(open_store).TestCase
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from functools import partial
from itertools import chain
from typing import Final, TypeAlias, TypeVar

import attrs
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from squidmesh.adapters.memory import MemoryStore
from squidmesh.domain.entries import NOBODY, AttemptId, RunReplayed
from squidmesh.domain.evolution import rebuild
from squidmesh.domain.state import AttemptStatus, RunState
from squidmesh.ports.store import (
    BeatReport,
    Change,
    Claims,
    HeldClaim,
    JournalRow,
    KeyRecord,
    RunChange,
    RunQuery,
    RunSummary,
)
from squidmesh.testing.builders import alone, cancel, request, run_id, together
from squidmesh.testing.chances import (
    CHOICES,
    DEFINITIONS,
    LENGTHS,
    MOMENTS,
    NUMBERS,
    OWNERS,
    QUERIES,
    RUNS,
    TIMES,
    WISHES,
    Wish,
)
from squidmesh.testing.clock import VirtualClock
from squidmesh.testing.contract_base import Storage, holding
from squidmesh.testing.moves import moves

OpenStore: TypeAlias = Callable[[VirtualClock], AbstractAsyncContextManager[Storage]]
"""Opens a fresh, empty store that lives by the given clock, and disposes of it."""

Answer = TypeVar("Answer")

EVERYTHING: Final = 1000


def store_machine(open_store: OpenStore) -> type["StoreMachine"]:
    """A state machine that compares the store that *open_store* opens with `MemoryStore`."""

    class Machine(StoreMachine):
        def open(self) -> AbstractAsyncContextManager[Storage]:
            return open_store(self.clock)

    return Machine


class StoreMachine(RuleBasedStateMachine):
    """The rules; `store_machine` says which store they are played on."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = VirtualClock()
        self.loop = asyncio.Runner()
        self.model = MemoryStore(clock=self.clock)
        self.opened = self.open()
        self.store = self.run(self.opened.__aenter__())
        self.past: list[RunState] = []
        self.claims: list[HeldClaim] = []

    def open(self) -> AbstractAsyncContextManager[Storage]:
        """Open the store that is compared."""
        raise NotImplementedError("store_machine(open_store) makes a machine that can be run")

    def teardown(self) -> None:
        try:
            for number in range(1, RUNS + 1):
                self.compare_history(run_id(number))
        finally:
            self.run(self.opened.__aexit__(None, None, None))
            self.loop.close()

    def run(self, waiting: Awaitable[Answer]) -> Answer:
        """Wait for one thing, in the machine's own event loop."""
        return self.loop.run(_as_coroutine(waiting))

    def same(
        self, ask: Callable[[Storage], Awaitable[Answer]], seen: Callable[[Answer], object]
    ) -> Answer:
        """Ask both stores, compare what can be *seen* of their answers, and return the model's."""
        expected, found = self.run(ask(self.model)), self.run(ask(self.store))
        assert seen(found) == seen(expected)
        return expected

    def commit(self, changes: Sequence[Change]) -> None:
        self.same(lambda store: store.commit(changes), _itself)

    def states(self) -> dict[str, RunState]:
        """The runs that there are, as the model knows them."""
        everything = [run_id(number) for number in range(1, RUNS + 1)]
        return dict(self.run(self.model.load(everything)).states)

    def pick(self, states: Sequence[RunState], choice: int) -> RunState:
        return states[choice % len(states)]

    @initialize(wishes=st.lists(WISHES, min_size=2, max_size=RUNS))
    def start_the_first_runs(self, wishes: list[Wish]) -> None:
        self.commit(alone(*(wish.as_change(self.clock.now()) for wish in wishes)))

    @rule(wish=WISHES)
    def start_a_run(self, wish: Wish) -> None:
        self.commit(alone(wish.as_change(self.clock.now())))

    @precondition(lambda self: self.states())
    @rule(which=CHOICES, choice=CHOICES)
    def move_a_run(self, which: int, choice: int) -> None:
        state = self.pick(list(self.states().values()), which)
        self.commit(alone(*self.chosen(state, choice)))

    @precondition(lambda self: self.past)
    @rule(which=CHOICES, choice=CHOICES)
    def move_a_run_as_it_once_was(self, which: int, choice: int) -> None:
        self.commit(alone(*self.chosen(self.pick(self.past, which), choice)))

    @precondition(lambda self: self.states())
    @rule(picks=st.lists(st.tuples(CHOICES, CHOICES), min_size=2, max_size=4))
    def move_several_runs_in_one_batch(self, picks: list[tuple[int, int]]) -> None:
        known, changes = self.states(), list[RunChange]()
        for which, choice in picks:
            state = self.pick(list(known.values()), which)
            for change in self.chosen(state, choice):
                changes.append(change)
                known[state.run_id] = change.state
        self.commit(alone(*changes))

    @precondition(lambda self: self.states())
    @rule(choice=CHOICES, others=st.booleans())
    def move_all_runs_together_or_not_at_all(self, choice: int, others: bool) -> None:  # noqa: FBT001
        states = [*self.states().values(), *(self.past[-1:] if others else ())]
        chosen = {state.run_id: self.chosen(state, choice) for state in states}
        changes = list(chain.from_iterable(chosen.values()))
        if changes:
            self.commit(together(*changes))

    @precondition(lambda self: self.states())
    @rule(which=CHOICES)
    def cancel_a_run(self, which: int) -> None:
        state = self.pick(list(self.states().values()), which)
        if not state.status.is_final:
            self.commit(alone(cancel(state, at=self.clock.now())))

    def chosen(self, state: RunState, choice: int) -> list[RunChange]:
        """One of the changes that the run may undergo, or none if it is over."""
        self.past.append(state)
        possible = moves(state, now=self.clock.now())
        return [possible[choice % len(possible)]()] if possible else []

    @rule(lease=LENGTHS)
    def claim_everything(self, lease: timedelta) -> None:
        self.claim("carol", None, DEFINITIONS, EVERYTHING, lease)

    @rule(
        owner=st.sampled_from(OWNERS),
        queues=st.sampled_from([("mail", "default"), None, ("default",), ()]),
        definitions=st.sampled_from([("b", "a"), ("b", "a"), ("a",)]),
        tickets=st.sampled_from([1, 1, 2, 3, 0]),
        lease=LENGTHS,
    )
    def claim(
        self,
        owner: str,
        queues: tuple[str, ...] | None,
        definitions: tuple[str, ...],
        tickets: int,
        lease: timedelta,
    ) -> None:
        wish = request(
            owner=owner, queues=queues, definitions=definitions, tickets=tickets, lease=lease
        )
        self.same(lambda store: store.claim(wish), _seen_of_claims)

    @precondition(lambda self: self.claims)
    @rule(lease=LENGTHS, first=CHOICES)
    def beat(self, lease: timedelta, first: int) -> None:
        claims = self.claims[first % len(self.claims) :]
        wished = [attrs.evolve(claim, lease=lease) for claim in claims]

        async def beaten(store: Storage) -> BeatReport:
            heartbeats = store.heartbeats()
            report = heartbeats.beat(wished)
            heartbeats.close()
            return report

        self.same(beaten, _itself)

    @rule(seconds=TIMES)
    def let_time_pass(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.claim("dave", None, DEFINITIONS, 0, timedelta(seconds=10))

    @precondition(lambda self: self.past)
    @rule(which=CHOICES)
    def append(self, which: int) -> None:
        state = self.pick([*self.past, *self.states().values()], which)
        row = JournalRow(
            revision=state.revision + 1,
            at=self.clock.now(),
            cause="ReplayRun",
            entries=(RunReplayed(at=self.clock.now(), new_run_id=run_id(9), issuer=NOBODY),),
        )
        self.same(lambda store: store.append(state.run_id, state.revision, row), _itself)

    @rule(number=NUMBERS, step=st.sampled_from(["load", "ship"]), delay=MOMENTS)
    def note_a_wakeup(self, number: int, step: str, delay: timedelta) -> None:
        wakeup = (run_id(number), AttemptId(step, 1), self.clock.now() + delay)
        self.same(lambda store: store.woken([wakeup]), _itself)

    @rule(due_before=st.none() | MOMENTS, query=QUERIES)
    def ask(self, due_before: timedelta | None, query: RunQuery) -> None:
        due = None if due_before is None else self.clock.now() + due_before
        self.same(
            lambda store: store.owed_wakeups(due_before=due, limit=EVERYTHING),
            lambda owed: sorted((attempt.visible_at, each, attempt.step) for each, attempt in owed),
        )
        self.same(
            lambda store: store.list_runs(query),
            lambda runs: [_seen_of_summary(summary) for summary in runs],
        )
        for name in ("k", "l"):
            self.same(partial(_find_key, name), _itself)
        self.same(lambda store: store.definitions(), sorted)

    @rule(owner=st.sampled_from(OWNERS), length=LENGTHS)
    def take_a_lease(self, owner: str, length: timedelta) -> None:
        self.same(lambda store: store.take_lease("sweep", owner, length), _itself)

    @precondition(lambda self: self.past)
    @rule(which=CHOICES)
    def keep_a_checkpoint(self, which: int) -> None:
        state = self.pick(self.past, which)
        self.same(lambda store: store.save_checkpoint(state), _itself)
        self.same(lambda store: store.checkpoint(state.run_id), _itself)

    @invariant()
    def both_know_the_same(self) -> None:
        expected = self.states()
        found = self.run(self.store.load([run_id(number) for number in range(1, RUNS + 1)])).states
        assert found == expected
        assert _timings(found.values()) == _timings(expected.values())
        self.claims = _claims_of(expected.values(), self.claims)

    def compare_history(self, of: str) -> None:
        """Compare the journals, and what they rebuild with what is loaded."""
        rows = self.same(lambda store: store.read(of), _itself)
        states = self.run(self.store.load([of])).states
        rebuilt = rebuild(of, chain.from_iterable(row.entries for row in rows))
        assert states == ({of: rebuilt} if rows else {})


def _itself(answer: object) -> object:
    return answer


async def _find_key(name: str, store: Storage) -> KeyRecord | None:
    return await store.find_key("orders:by_hand", name)


async def _as_coroutine(waiting: Awaitable[Answer]) -> Answer:
    return await waiting


def _seen_of_claims(claims: Claims) -> object:
    """What of a claim's answer does not depend on the adapter's taste."""
    next_at = claims.next_visible_at
    expired = {(each.run_id, each.attempt, each.claim_id) for each in claims.expired}
    return claims.at, claims.claimed, expired, next_at and max(next_at, claims.at)


def _seen_of_summary(summary: RunSummary) -> object:
    state = summary.state
    return (
        state.run_id,
        state.started,
        state.status,
        state.revision,
        state.error,
        state.updated_at,
        state.ended_at,
        summary.current_step,
    )


def _timings(states: Iterable[RunState]) -> dict[tuple[str, AttemptId], datetime | None]:
    """What the store alone knows of open attempts: when leases end and wake-ups are owed."""
    return {
        (state.run_id, attempt.id): attempt.lease_until or attempt.wake_at
        for state in states
        for step in state.steps.values()
        for attempt in step.attempts
        if attempt.status in {AttemptStatus.SCHEDULED, AttemptStatus.CLAIMED}
    }


def _claims_of(states: Iterable[RunState], known: Sequence[HeldClaim]) -> list[HeldClaim]:
    """The claims that there are, behind those that there were."""
    found = {claim.claim_id: claim for claim in known}
    for state in states:
        for step in state.steps.values():
            current = step.current
            if current is not None and current.claim_id is not None:
                found[current.claim_id] = holding(state, step.step)
    return list(found.values())
