"""Tells other processes at once what they would find with their next poll, and hears it from them.

Only starts and commands are told: what follows from a step is mostly claimed by the worker that
reports it. The first hint goes out at once, those close behind it go out together; where starts
come in a stream, more of them do. Nobody waits for a hint, and one that fails costs no more than
the time until somebody polls.
"""

import asyncio
import contextvars
from collections.abc import Collection, Coroutine
from typing import Any, Final

import attrs

from squidmesh.logs import logger
from squidmesh.ports.clock import Clock
from squidmesh.ports.store import Heard, Hints

PAUSE: Final = 0.005
"""How many seconds there are between two hints at least."""

STREAM: Final = 5
"""How many times something is to be told between two hints where starts come in a stream."""

LONG_PAUSE: Final = 0.02
"""How many seconds there are between two hints then: whoever hears them has plenty to do."""

log = logger("hints")


@attrs.define(eq=False)
class Hinting:
    """The hints of one mesh; *source* is its name among those that share the store."""

    hints: Hints
    clock: Clock
    source: str
    hearers: list[Heard] = attrs.field(factory=list[Heard])
    _unsaid: set[str] = attrs.field(factory=set[str])
    _unsaid_times: int = 0
    _saying: "asyncio.Task[None] | None" = None
    _pausing: "asyncio.Future[None] | None" = None
    _listening: "asyncio.Task[None] | None" = None
    _is_failing: bool = False
    _is_closing: bool = False

    @property
    def hears(self) -> bool:
        """Whether hints can arrive at all."""
        return self.hints.hears

    def say(self, queues: Collection[str]) -> None:
        """Tell others soon that something in *queues* became due."""
        self._unsaid.update(queues)
        self._unsaid_times += bool(queues)
        if self._unsaid and (self._saying is None or self._saying.done()):
            self._saying = _begin(self._say_all())

    def listen(self) -> None:
        """Hear from others from now on, if they can be heard; asking again changes nothing."""
        if self.hears and (self._listening is None or self._listening.done()):
            self._listening = _begin(self._listen())

    async def close(self) -> None:
        """Stop listening, and say what is still to be said."""
        self._is_closing = True
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait((self._listening,))
        if self._pausing is not None:
            self._pausing.cancel()
        if self._saying is not None:
            await asyncio.wait((self._saying,))

    async def _say_all(self) -> None:
        while self._unsaid:
            queues, self._unsaid = self._unsaid, set()
            times, self._unsaid_times = self._unsaid_times, 0
            await self._say(queues)
            if not self._is_closing:
                pause = PAUSE if times < STREAM else LONG_PAUSE
                self._pausing = asyncio.ensure_future(self.clock.sleep(pause))
                await asyncio.wait((self._pausing,))
                self._pausing = None

    async def _say(self, queues: Collection[str]) -> None:
        try:
            await self.hints.hint(queues, source=self.source)
        except Exception as problem:  # noqa: BLE001  whatever it is, it must not harm the mesh
            if not self._is_failing:
                log.warning("hint.failed", error=type(problem).__name__)
            self._is_failing = True
        else:
            self._is_failing = False

    async def _listen(self) -> None:
        try:
            await self.hints.listen(self._heard, source=self.source)
        except Exception as problem:  # noqa: BLE001  workers poll all the same
            log.warning("hints.unheard", error=type(problem).__name__)

    def _heard(self, queues: Collection[str]) -> None:
        for hearer in self.hearers:
            hearer(queues)


def _begin(work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
    # A context of its own: whoever is the first must not lend its log fields to all others.
    return asyncio.get_running_loop().create_task(work, context=contextvars.Context())
