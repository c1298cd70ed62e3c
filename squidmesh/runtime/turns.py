"""Whose turn it is: what a worker may go on with, without asking the store for the order again."""

from typing import Final

import attrs

from squidmesh.ports.clock import Clock
from squidmesh.ports.store import Claims

LOOK_AGAIN: Final = 0.1
"""How many seconds the order that the last claim saw is relied on, if nobody tells of more."""


@attrs.define(eq=False)
class Turn:
    """What the last claim of a worker tells of the attempts that are due behind it.

    Claims come in order. So what is due next belongs to the run that a claim ended with, or, if it
    brought all that was due, to no run before others. Whatever becomes due later stands behind
    that, but for a higher priority: those who hear of something new forget the turn.
    """

    clock: Clock
    _asked_at: float | None = None
    _run_id: str | None = None

    def ask(self) -> None:
        """Note that the store is being asked now."""
        self._asked_at = self.clock.monotonic()

    def learn(self, claims: Claims, *, more: bool) -> None:
        """Note what it answered, and whether *more* may be due."""
        self._run_id = claims.claimed[-1].run_id if more else None

    def forget(self) -> None:
        """Rely on nothing until the store has been asked again."""
        self._asked_at = None

    def is_of(self, run_id: str) -> bool:
        """Whether the run's next attempt is what the store would give out next."""
        if self._asked_at is None or self._run_id not in (None, run_id):
            return False
        return self.clock.monotonic() - self._asked_at < LOOK_AGAIN
