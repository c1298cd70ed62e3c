"""The embedded executor: claims what is due, runs it, reports it, and goes on with what follows.

One commit reports a step and claims its successor, so a worker carries a run from step to step
without asking the store in between. A free slot is filled by a claim; when nothing is due the
worker waits for a wake-up of its own process, for a hint of another one, for the time at which
something becomes due, or for the next poll, whichever comes first.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

import attrs
from structlog.contextvars import bind_contextvars

from squidmesh.domain.commands import NO_OFFERS, Offers, Outcome
from squidmesh.domain.state import RunState
from squidmesh.errors import StoreUnavailableError
from squidmesh.logs import logger
from squidmesh.ports.store import (
    ClaimedAttempt,
    ClaimRequest,
    Claims,
    ClaimTicket,
    ExpiredClaim,
)
from squidmesh.runtime.claims import Claimant, HeldAttempt, held_from
from squidmesh.runtime.engine import Engine
from squidmesh.runtime.heart import BEATS_PER_LEASE
from squidmesh.runtime.turns import Turn
from squidmesh.runtime.within import perform, shares_transaction

SHORTEST_POLL: Final = 0.02
LONGEST_POLL: Final = 0.5
"""How long an idle worker looks away where only looking tells it of others' starts."""
LONGEST_HINTED_POLL: Final = 1.5
"""How long where it hears of them: with all else that it asks, one statement a second at most."""
PRESENCE_INTERVAL: Final = 20.0
DEFINITIONS_INTERVAL: Final = 5.0
HINTED_INTERVAL: Final = 0.25
"""How old what can be run may be when somebody says that there is something new."""
PASSING_OVER_PAUSE: Final = 19.0
"""How many times as long as such a claim takes none is made that has to pass over attempts.

Between them the worker claims of the definitions of which it lacks nothing: a backlog that it
cannot run takes a twentieth of its time at most."""
NEARLY_DUE: Final = timedelta(milliseconds=5)
"""How far the store's clock may be from what this process takes it for."""


log = logger("worker")


@attrs.define(eq=False, kw_only=True)
class WorkerLoop:
    """One worker over an engine: slots, polls and the attempts that it holds."""

    engine: Engine
    queues: tuple[str, ...] | None
    concurrency: int
    lease: timedelta
    owner: str
    longest_poll: float = attrs.field()
    _claimant: Claimant = attrs.field(init=False)
    _wake: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)
    _running: "set[asyncio.Task[None]]" = attrs.field(factory=set, init=False)
    _held: set[str] = attrs.field(factory=set[str], init=False)
    _reclaiming: "set[asyncio.Task[object]]" = attrs.field(factory=set, init=False)
    _marks: dict[str, frozenset[str]] = attrs.field(factory=dict[str, frozenset[str]], init=False)
    _pass_over_at: float = attrs.field(default=0.0, init=False)
    _asked_for_all: bool = attrs.field(default=True, init=False)
    _marks_at: float | None = attrs.field(default=None, init=False)
    _hinted: bool = attrs.field(default=False, init=False)
    _seen_at: float | None = attrs.field(default=None, init=False)
    _asked: int = attrs.field(default=0, init=False)
    _more: bool = attrs.field(default=False, init=False)
    _turn: Turn = attrs.field(init=False)
    _taken_up: set[str] = attrs.field(factory=set[str], init=False)
    _stopping: bool = attrs.field(default=False, init=False)
    _promised: int = attrs.field(default=0, init=False)
    _queue_names: frozenset[str] | None = attrs.field(default=None, init=False)
    _poll: float = attrs.field(default=SHORTEST_POLL, init=False)

    @longest_poll.default
    def _longest_poll(self) -> float:
        return LONGEST_HINTED_POLL if self.engine.store.hears else LONGEST_POLL

    def __attrs_post_init__(self) -> None:
        self._claimant = Claimant(self.engine.ids, self.owner, self.lease)
        self._turn = Turn(self.engine.clock)
        self._queue_names = None if self.queues is None else frozenset(self.queues)

    def stop(self) -> None:
        """Claim nothing more; `run` returns when what is held has been reported."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Work until stopped or cancelled."""
        hinting = self.engine.dispatcher.hinting
        self.engine.dispatcher.listeners.append(self._told)
        hinting.hearers.append(self._heard)
        hinting.listen()
        try:
            while not self._stopping:
                claims = await self._claim_or_none()
                if claims is not None and not (self._more and self._free > 0):
                    await self._rest(claims)
            await self._finish()
        finally:
            hinting.hearers.remove(self._heard)
            self.engine.dispatcher.listeners.remove(self._told)
            await self._drop()

    async def drain(self) -> None:
        """Work until nothing is due now and nothing runs; do not wait for timers."""
        self._marks_at, self._stopping = None, False
        self.engine.dispatcher.listeners.append(self._told)
        try:
            while True:
                self._wake.clear()
                claims = await self._claim()
                busy = self._running or self._reclaiming
                if not claims.claimed and not busy and not self._wake.is_set():
                    # What is due at once may seem due in a moment, if the clocks are apart;
                    # time that a test owns is exact, and does not pass by waiting for it.
                    if self.engine.clock.is_virtual or not _nearly_due(claims):
                        return
                    await self.engine.clock.sleep(SHORTEST_POLL)
                elif busy and not (self._more and self._free > 0):
                    await self._rest(claims)
        finally:
            self.engine.dispatcher.listeners.remove(self._told)
            await self._drop()

    def _heard(self, queues: Collection[str]) -> None:
        """Wake up for a hint from elsewhere about *queues*, or about any if none is named."""
        if self._queue_names is None or not queues or not self._queue_names.isdisjoint(queues):
            # It may be about a definition that nobody here has seen yet.
            self._hinted = True
            self._told()

    def _told(self) -> None:
        """Wake up for what has become due, and may have a higher priority than all else."""
        self._turn.forget()
        self._wake.set()

    @property
    def _free(self) -> int:
        left = sum(owner == self.owner for owner in self.engine.bodies.leftovers.values())
        return self.concurrency - len(self._running) - self._promised - left

    async def _claim_or_none(self) -> Claims | None:
        """Claim, or wait a while if the store is away; it says so once, not each time."""
        pause, said = SHORTEST_POLL, False
        while not self._stopping:
            try:
                return await self._claim(patient=True)
            except StoreUnavailableError as problem:
                if self.engine.is_closed:
                    raise
                if not said:
                    log.warning("claim.failed", reason=str(problem))
                    said = True
                await self._wait(pause)
                pause = min(pause * 2, 30.0)
        return None

    async def _claim(self, *, patient: bool = False) -> Claims:
        engine = self.engine
        engine.check_is_open()
        await self._announce()
        tickets = self._claimant.take(max(self._free, 0))
        self._asked = len(tickets)
        if tickets:
            self._turn.ask()
        claims = await self._ask_for(tickets, patient=patient)
        engine.time.observe(claims.at)
        used = {claimed.entry.claim_id for claimed in claims.claimed}
        self._claimant.give_back(ticket for ticket in tickets if ticket.claim_id not in used)
        # With tickets left over there was nothing more to have: asking again can wait.
        self._more = bool(used) and len(used) == len(tickets)
        if tickets:
            self._turn.learn(claims, more=self._more)
        # What could not be reclaimed at once is not tried again with each claim, but in a while.
        expired = [claim for claim in claims.expired if claim.claim_id not in self._taken_up]
        if expired:
            self._reclaim(expired)
        if claims.claimed:
            self._poll = SHORTEST_POLL
            states = await self._states_after(claims.claimed, patient=patient)
            for claimed in claims.claimed:
                state = states.get(claimed.run_id)
                if state is not None:
                    engine.telemetry.claimed(state, claimed)
                    self._spawn(held_from(state, claimed.entry))
        return claims

    async def _ask_for(self, tickets: tuple[ClaimTicket, ...], *, patient: bool) -> Claims:
        """Ask the store; a *patient* one does not pass over what is lacking with every claim."""
        clock = self.engine.clock
        began = clock.monotonic()
        self._asked_for_all = began >= self._pass_over_at or not patient
        marks = {
            mark: steps for mark, steps in self._marks.items() if self._asked_for_all or not steps
        }
        lacking = frozenset((mark, step) for mark, steps in marks.items() for step in steps)
        claims = await self.engine.store.claim(
            ClaimRequest(
                owner=self.owner,
                queues=self.queues,
                definitions=tuple(marks),
                tickets=tickets,
                lease=self.lease,
                lacking=lacking,
            )
        )
        if lacking:
            ended = clock.monotonic()
            self._pass_over_at = ended + PASSING_OVER_PAUSE * (ended - began)
        return claims

    async def _states_after(
        self, claimed: Sequence[ClaimedAttempt], *, patient: bool
    ) -> Mapping[str, RunState]:
        """The states that know these claims; a *patient* one asks again while they are of use.

        Without them nobody would work on what this worker has claimed until its leases are over.
        """
        engine, pause = self.engine, SHORTEST_POLL
        until = engine.clock.monotonic() + self.lease.total_seconds() / BEATS_PER_LEASE
        while True:
            try:
                return await engine.committer.states.after(claimed)
            except StoreUnavailableError:
                if not patient or engine.is_closed or engine.clock.monotonic() + pause > until:
                    raise
                await engine.clock.sleep(pause)
                pause *= 2

    async def _announce(self) -> None:
        """Say who is here and what it can run, and learn what can be run, every so often."""
        now = self.engine.clock.monotonic()
        interval = HINTED_INTERVAL if self._hinted else DEFINITIONS_INTERVAL
        if self._marks_at is None or now - self._marks_at >= interval:
            self._hinted = False
            self._marks = await self.engine.registry.runnable()
            self._marks_at = now
            self._taken_up.clear()
        if self._seen_at is None or now - self._seen_at >= PRESENCE_INTERVAL:
            await self.engine.store.worker_seen(self.owner, self.queues or (), self._marks)
            self._seen_at = now

    def _reclaim(self, expired: Sequence[ExpiredClaim]) -> None:
        task: asyncio.Task[object] = asyncio.get_running_loop().create_task(
            self.engine.recovery.reclaim(expired), name="reclaim"
        )
        self._reclaiming.add(task)
        self._taken_up.update(claim.claim_id for claim in expired)
        task.add_done_callback(self._reclaimed)

    def _reclaimed(self, task: "asyncio.Task[object]") -> None:
        self._reclaiming.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.warning("reclaim.failed", error=type(task.exception()).__name__)
        self._wake.set()

    def _spawn(self, held: HeldAttempt) -> None:
        task = asyncio.get_running_loop().create_task(self._work(held))
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("attempt.abandoned", exc_info=task.exception())
        elif task.cancelled() and not self._stopping:
            # We have not cancelled it: the body has cancelled the task that it ran in.
            log.error("attempt.abandoned", reason="its body has cancelled the worker's task")
        self._wake.set()

    async def _work(self, held: HeldAttempt) -> None:
        """Run an attempt, and whatever its report claims for us, one after the other."""
        engine = self.engine
        current: HeldAttempt | None = held
        while current is not None:
            self._held.add(current.claim_id)
            try:
                # The task is the attempt's own, so the fields need not be taken back.
                bind_contextvars(**current.log_fields())
                if shares_transaction(engine, current):
                    settled, offers = await perform(engine, current, partial(self._offers, current))
                else:
                    outcome = await engine.execute(current)
                    offers = self._offers(current, outcome)
                    # Slots that a report may fill are spoken for until its answer is here.
                    spare = max(len(offers.claims) - 1, 0)
                    self._promised += spare
                    try:
                        settled = await engine.report(current, outcome, offers)
                    finally:
                        self._promised -= spare
            finally:
                engine.heart.let_go(current.claim_id)
                self._held.discard(current.claim_id)
            current = None
            for successor in engine.claimed_by(settled, offers) if settled is not None else ():
                if current is None:
                    current = successor
                else:
                    self._spawn(successor)

    def _offers(self, held: HeldAttempt, outcome: Outcome) -> Offers:
        """Claims for what may become ready behind *held*: in its own slot, and in free ones."""
        if self._stopping:
            return NO_OFFERS
        most = self.engine.successors(held.state, held.attempt.step, outcome)
        newest = self.engine.committer.states.get(held.run_id)
        further = newest is not None and bool(newest.unclaimed) and self._turn.is_of(held.run_id)
        if most > 1:
            most = min(most, max(self._free, 0) + 1)
        elif not (most or further):
            return NO_OFFERS
        offers = [self._claimant.offer() for _ in range(max(most, 1))]
        return Offers(
            claims=tuple(offers),
            queues=self._queue_names,
            further=further,
            lacking=self.engine.registry.lacking(held.fingerprint) or frozenset(),
        )

    async def _rest(self, claims: Claims) -> None:
        """Wait until something may have changed; with all slots taken, what is due cannot be."""
        seconds = self._poll
        if claims.next_visible_at is not None and self._free > 0:
            left = _seconds(claims.at, claims.next_visible_at)
            # What is due and was asked for in vain is somebody else's at this moment.
            if left > 0 or not self._asked:
                seconds = min(seconds, max(left, 0.001))
        self._poll = min(self._poll * 2, self.longest_poll)
        if not self._asked_for_all:
            left = self._pass_over_at - self.engine.clock.monotonic()
            seconds = min(seconds, max(left, 0.001))
        await self._wait(seconds)

    async def _wait(self, seconds: float) -> None:
        """Wait for a wake-up, at most *seconds* on the mesh's clock."""
        alarm = asyncio.ensure_future(self.engine.clock.sleep(seconds))
        alarm.add_done_callback(self._rang)
        try:
            await self._wake.wait()
        finally:
            alarm.cancel()
        self._wake.clear()

    def _rang(self, alarm: "asyncio.Future[None]") -> None:
        # A cancelled alarm must not wake: it was cancelled because something else did.
        if not alarm.cancelled():
            self._wake.set()

    async def _finish(self) -> None:
        while self._running or self._reclaiming:
            await asyncio.wait((*self._running, *self._reclaiming))

    async def _drop(self) -> None:
        """Give up what is held; the leases run out, and others take it up.

        A body that does not heed its cancellation is left alone when its lease is over.
        """
        self._stopping = True
        for claim_id in self._held:
            self.engine.heart.let_go(claim_id)
        pending: set[asyncio.Task[Any]] = {*self._running, *self._reclaiming}
        for task in pending:
            task.cancel()
        alarm = asyncio.ensure_future(self.engine.clock.sleep(self.lease.total_seconds()))
        try:
            while pending and not alarm.done():
                await asyncio.wait({alarm, *pending}, return_when=asyncio.FIRST_COMPLETED)
                pending = {task for task in pending if not task.done()}
        finally:
            alarm.cancel()


def _seconds(start: datetime, end: datetime) -> float:
    return (end - start).total_seconds()


def _nearly_due(claims: Claims) -> bool:
    due = claims.next_visible_at
    return due is not None and due - claims.at <= NEARLY_DUE
