"""The real clock, identities and chance: what a mesh uses unless it is given others."""

import asyncio
import base64
import os
import random
import secrets
import socket
import sys
import time
from datetime import UTC, datetime
from typing import Final

from squidmesh.errors import InvalidOptionError
from squidmesh.ports.clock import Clock, Ids, Random

if sys.version_info >= (3, 14):
    from uuid import uuid7
else:
    from uuid_utils import uuid7


class SystemClock(Clock):
    """The time of this machine."""

    @property
    def is_virtual(self) -> bool:
        return False

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)  # noqa: TID251  everybody else waits through this line


class GivenClock(Clock):
    """A host's clock that does not say whether it is virtual: no thread is left to wait on it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    @property
    def is_virtual(self) -> bool:
        return True

    def now(self) -> datetime:
        return self._clock.now()

    def monotonic(self) -> float:
        return self._clock.monotonic()

    async def sleep(self, seconds: float) -> None:
        await self._clock.sleep(seconds)


def whole_clock(clock: Clock) -> Clock:
    """Return *clock* with all that the runtime asks of one.

    Raises:
        InvalidOptionError: It lacks now, monotonic or sleep.
    """
    if not all(callable(getattr(clock, name, None)) for name in ("now", "monotonic", "sleep")):
        raise InvalidOptionError("clock", "A clock has now(), monotonic() and sleep().")
    return clock if hasattr(clock, "is_virtual") else GivenClock(clock)


_PIECE: Final = 22
"""So many url-safe characters hold 132 random bits, more than a UUID does."""

_CLAIM_ID: Final = 12
"""A claim's name is no secret, and stands beside its run's: 72 bits never meet another there."""

_OWNER: Final = 6

_PIECES_AT_ONCE: Final = 128

_pieces: Final[list[str]] = []
"""Random texts that nobody has had yet. Every step takes three: one call of the operating system
brings many, and taking one off a list is a single act, whichever thread does it."""

if hasattr(os, "register_at_fork"):
    # A forked child must not hand out what its parent hands out as well.
    os.register_at_fork(after_in_child=_pieces.clear)


def _random_text() -> str:
    """Return `_PIECE` characters that cannot be guessed."""
    try:
        return _pieces.pop()
    except IndexError:
        length = _PIECE * _PIECES_AT_ONCE
        text = base64.urlsafe_b64encode(secrets.token_bytes(length // 4 * 3)).decode()
        _pieces.extend(text[start : start + _PIECE] for start in range(_PIECE, length, _PIECE))
        return text[:_PIECE]


class SystemIds(Ids):
    """Identities that nobody else has: UUIDs of version 7, and secrets of the operating system.

    UUIDs of one process rise from one to the next, also within a millisecond. What names a claim
    stands in every attempt and in the journal, so it is as short as it can be.
    """

    def run_id(self) -> str:
        return str(uuid7())

    def claim_id(self) -> str:
        return _random_text()[:_CLAIM_ID]

    def claim_token(self) -> str:
        return _random_text() + _random_text()

    def owner(self) -> str:
        # Host and process are for the reader; only the random part makes the name new.
        return f"{socket.gethostname()}-{os.getpid()}-{_random_text()[:_OWNER]}"


class SystemRandom(Random):
    """Chance, as even as it comes."""

    def draw(self) -> float:
        return random.uniform(-1, 1)  # noqa: S311  it spreads retries, it keeps no secret
