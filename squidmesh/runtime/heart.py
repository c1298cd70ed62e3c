"""Keeps claims alive while bodies run, from a thread that no body can silence.

A body that blocks the event loop, or a plain one that never yields, must not look dead to the
other workers. So the heart beats in a thread of its own, with its own way to the store. Under a
virtual clock it beats in a task instead: such time only passes when the test lets it.
"""

import asyncio
import contextlib
import contextvars
import functools
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final

import attrs

from squidmesh.context import StepContext
from squidmesh.errors import ClaimLostError
from squidmesh.logs import logger
from squidmesh.ports.clock import Clock
from squidmesh.ports.store import BeatReport, Heartbeats, HeldClaim, Store

BEATS_PER_LEASE: Final = 3

log = logger("worker")


@attrs.frozen(eq=False)
class _Held:
    claim: HeldClaim
    context: StepContext


@attrs.define(eq=False)
class Heart:
    """All claims that this process holds, and the beat that prolongs them."""

    store: Store
    clock: Clock
    lease: timedelta
    _held: dict[str, _Held] = attrs.field(factory=dict[str, _Held])
    _lock: threading.Lock = attrs.field(factory=threading.Lock)
    _wake: threading.Event = attrs.field(factory=threading.Event)
    _asked: "list[Callable[[BeatReport | None], None]]" = attrs.field(factory=list)
    _thread: threading.Thread | None = None
    _task: "asyncio.Task[None] | None" = None
    _loop: asyncio.AbstractEventLoop | None = None
    _stopping: bool = False
    _is_failing: bool = False
    _shortest: timedelta = timedelta.max

    def hold(self, claim: HeldClaim, context: StepContext) -> None:
        """Keep *claim* alive until it is let go."""
        with self._lock:
            self._held[claim.claim_id] = _Held(claim, context)
            hurries = claim.lease < self._shortest
        if self._loop is None:
            self._start()
        elif hurries:
            self._hurry()

    def _in_task(self, loop: asyncio.AbstractEventLoop) -> "asyncio.Task[None]":
        # A context of its own: the heart is not the body that happened to be held first.
        return loop.create_task(self._beat_in_task(), name="heart", context=contextvars.Context())

    def _interval(self) -> float:
        """Seconds until the next beat, by the shortest lease that is held."""
        with self._lock:
            leases = (held.claim.lease for held in self._held.values())
            self._shortest = min(leases, default=self.lease)
            return self._shortest.total_seconds() / BEATS_PER_LEASE

    def _hurry(self) -> None:
        """Beat sooner than was thought: a claim with a shorter lease has come."""
        if self._task is not None and self._loop is not None:
            self._task.cancel()
            self._task = self._in_task(self._loop)
        self._wake.set()

    def let_go(self, claim_id: str) -> None:
        """Stop prolonging a claim."""
        with self._lock:
            self._held.pop(claim_id, None)

    def tell_cancelled(self, run_id: str) -> None:
        """Tell the bodies of a run, at once, that it is being cancelled."""
        for held in self._snapshot():
            if held.claim.run_id == run_id:
                held.context.tell_cancelled()

    async def beat_now(self, claim: HeldClaim) -> None:
        """Beat at once, and raise ClaimLostError if this claim is gone."""
        report = await self._next_report()
        with self._lock:
            is_held = claim.claim_id in self._held
        if not is_held or (report is not None and claim.claim_id in report.lost):
            raise ClaimLostError(claim.run_id, claim.attempt.step, claim.attempt.number)

    async def close(self) -> None:
        """Stop beating, and give back the way to the store."""
        with self._lock:
            self._stopping = True
        self._wake.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._thread is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._thread.join)
        self._loop = self._thread = self._task = None

    def _start(self) -> None:
        loop = asyncio.get_running_loop()
        self._stopping = False
        if self.clock.is_virtual:
            self._task = self._in_task(loop)
        else:
            thread = threading.Thread(
                target=self._beat_in_thread, name="squidmesh-heart", daemon=True
            )
            thread.start()
            self._thread = thread
        # Only now: a machine without a thread to spare is asked again with the next claim.
        self._loop = loop

    def _snapshot(self) -> Sequence[_Held]:
        with self._lock:
            return tuple(self._held.values())

    async def _next_report(self) -> BeatReport | None:
        loop = asyncio.get_running_loop()
        told: asyncio.Future[BeatReport | None] = loop.create_future()

        def tell(report: BeatReport | None) -> None:
            if not told.done():
                told.set_result(report)

        if self.clock.is_virtual:
            beats, report = self._try_beat(None)
            if beats is not None:
                beats.close()
            return report
        with self._lock:
            if self._stopping:
                return None
            self._asked.append(functools.partial(_answer_from_thread, loop, tell))
        self._wake.set()
        return await told

    async def _beat_in_task(self) -> None:
        beats: Heartbeats | None = None
        try:
            while not self._stopping:
                await self.clock.sleep(self._interval())
                beats, _ = self._try_beat(beats)
        finally:
            if beats is not None:
                beats.close()

    def _beat_in_thread(self) -> None:
        beats: Heartbeats | None = None
        while not self._stopping:
            self._wake.wait(self._interval())
            self._wake.clear()
            beats, report = self._try_beat(beats)
            self._answer(report)
        if beats is not None:
            beats.close()
        self._answer(None)

    def _answer(self, report: BeatReport | None) -> None:
        with self._lock:
            asked, self._asked = self._asked, []
        for answer in asked:
            answer(report)

    def _try_beat(self, beats: Heartbeats | None) -> tuple[Heartbeats | None, BeatReport | None]:
        """Beat if the store answers; a way to it that led nowhere is given up for a new one.

        Nothing may end the heart: a worker whose leases nobody prolongs looks well and is deaf.
        """
        try:
            beats = beats or self.store.heartbeats()
            report = self._beat(beats)
        except Exception as problem:  # noqa: BLE001  drivers have accidents of their own
            # The lease may hold until the next beat; if not, the fence refuses what is late.
            if not self._is_failing:
                log.warning("heartbeat.failed", error=type(problem).__name__)
            self._is_failing = True
            if beats is not None:
                with contextlib.suppress(Exception):
                    beats.close()
            return None, None
        self._is_failing = False
        return beats, report

    def _beat(self, beats: Heartbeats) -> BeatReport | None:
        held = self._snapshot()
        if not held:
            return None
        report = beats.beat([item.claim for item in held])
        for item in held:
            if item.claim.claim_id in report.lost or item.claim.run_id in report.cancelling:
                item.context.tell_cancelled()
        return report


def _answer_from_thread(
    loop: asyncio.AbstractEventLoop,
    tell: Callable[[BeatReport | None], None],
    report: BeatReport | None,
) -> None:
    with contextlib.suppress(RuntimeError):
        # The loop is closed: nobody waits any more.
        loop.call_soon_threadsafe(tell, report)
