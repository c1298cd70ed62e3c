"""The store's clock, as the shell follows it between two answers."""

from datetime import datetime, timedelta
from typing import Final

import attrs

from squidmesh.ports.clock import Clock

WINDOW: Final = 5.0
"""For how many seconds an answer may speak for the store's clock."""


@attrs.define
class StoreTime:
    """What time it is at the store: what its answers said, plus what has passed here since.

    Only differences of the local monotonic clock are used, so a worker whose wall clock is wrong
    decides with the same time as all others. An answer is always older than it is when it is
    read, by the way back and by whatever kept the event loop busy: so each one says what time it
    is *at least*, and the latest of them counts. They are forgotten after a while, for the clocks
    drift, and the store's may be set.
    """

    clock: Clock
    _since: float = 0.0
    _latest: datetime | None = None
    _before: datetime | None = None

    def observe(self, at: datetime) -> None:
        """Take the time that an answer of the store carried."""
        heard = self.clock.monotonic()
        start = at - timedelta(seconds=heard)
        if self._latest is None or heard - self._since >= WINDOW:
            self._before, self._latest, self._since = self._latest, start, heard
        elif start > self._latest:
            self._latest = start

    def now(self) -> datetime:
        """Return the store's time, as well as it can be known."""
        if self._latest is None:
            return self.clock.now()
        start = self._latest if self._before is None else max(self._before, self._latest)
        return start + timedelta(seconds=self.clock.monotonic())
