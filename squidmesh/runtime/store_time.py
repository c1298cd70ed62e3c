"""The store's clock, as the shell follows it between two answers."""

from datetime import datetime, timedelta

import attrs

from squidmesh.ports.clock import Clock


@attrs.define
class StoreTime:
    """What time it is at the store: its last word, plus what has passed here since.

    Only differences of the local monotonic clock are used, so a worker whose wall clock is wrong
    decides with the same time as all others.
    """

    clock: Clock
    _at: datetime | None = None
    _heard: float = 0.0

    def observe(self, at: datetime) -> None:
        """Take the time that an answer of the store carried."""
        self._at = at
        self._heard = self.clock.monotonic()

    def now(self) -> datetime:
        """Return the store's time, as well as it can be known."""
        if self._at is None:
            return self.clock.now()
        return self._at + timedelta(seconds=self.clock.monotonic() - self._heard)
