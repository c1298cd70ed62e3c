"""Time that passes when a test says so, and not before."""

import asyncio
import heapq
import threading
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Final

import attrs

from squidmesh.ports.clock import Clock

DEFAULT_START: Final = datetime(2030, 1, 1, tzinfo=UTC)
_FOREVER: Final = timedelta(days=365_000)


@attrs.frozen(order=True)
class _Sleeper:
    until: timedelta
    number: int
    woken: "asyncio.Future[None]" = attrs.field(order=False)
    loop: asyncio.AbstractEventLoop = attrs.field(order=False)

    def wake(self) -> None:
        self.loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        if not self.woken.done():
            self.woken.set_result(None)


class VirtualClock(Clock):
    """A clock that a test owns: it stands still until `advance` moves it.

    Whoever sleeps wakes when the time has come, in the order of the times slept until, and among
    equals in the order of falling asleep: the same script gives the same interleaving every time.
    It may be read and advanced from any thread.
    """

    def __init__(self, start: datetime = DEFAULT_START) -> None:
        self._start = start.astimezone(UTC)
        self._passed = timedelta(0)
        self._sleepers: list[_Sleeper] = []
        self._numbers = count()
        self._lock = threading.Lock()

    @property
    def is_virtual(self) -> bool:
        return True

    def now(self) -> datetime:
        return self._start + self._passed

    def monotonic(self) -> float:
        return self._passed.total_seconds()

    async def sleep(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[None] = loop.create_future()
        with self._lock:
            sleeper = _Sleeper(self._passed + _duration(seconds), next(self._numbers), woken, loop)
            heapq.heappush(self._sleepers, sleeper)
            self._wake_those_due()
        try:
            await woken
        finally:
            if woken.cancelled():
                self._forget(sleeper)

    def advance(self, by: float | timedelta) -> datetime:
        """Let time pass, a number being seconds, and return what time it is then.

        Sleepers are woken but have not run yet when this returns: that takes an await. One who
        sleeps again does so from the new time on, so a big step wakes a periodic sleeper once;
        `next_wake_at` helps to go from one to the next.
        """
        step = by if isinstance(by, timedelta) else timedelta(seconds=by)
        if step < timedelta(0):
            raise ValueError("time does not run backwards")
        with self._lock:
            self._passed += step
            self._wake_those_due()
        return self.now()

    @property
    def sleepers(self) -> int:
        """How many sleep at this moment."""
        return len(self._sleepers)

    @property
    def next_wake_at(self) -> datetime | None:
        """Until when the next one to wake sleeps; None if nobody does."""
        with self._lock:
            return self._start + self._sleepers[0].until if self._sleepers else None

    def _wake_those_due(self) -> None:
        while self._sleepers and self._sleepers[0].until <= self._passed:
            heapq.heappop(self._sleepers).wake()

    def _forget(self, sleeper: _Sleeper) -> None:
        with self._lock:
            if sleeper in self._sleepers:
                self._sleepers.remove(sleeper)
                heapq.heapify(self._sleepers)


def _duration(seconds: float) -> timedelta:
    """A time to sleep, never so long that the clock could not tell when it ends."""
    if seconds > _FOREVER.total_seconds():
        return _FOREVER
    return max(timedelta(seconds=seconds), timedelta(0))
