"""Identities and chance that come out the same every time."""

import random
import zlib
from itertools import count
from typing import Final
from uuid import UUID

from squidmesh.ports.clock import Ids, Random

_COUNTER: Final = 80
_VERSION_7: Final = 0x7 << 76 | 0b10 << 62


class SequentialIds(Ids):
    """Identities that count from 1, each kind for itself; run ids are UUIDs of version 7.

    Two workers on one store need different *prefix*es, or they would take each other for one.
    """

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self._node = _VERSION_7 | zlib.crc32(prefix.encode())
        self._runs = count(1)
        self._claims = count(1)
        self._tokens = count(1)
        self._owners = count(1)

    def run_id(self) -> str:
        # The counter stands where a real one has its milliseconds, so that later ids sort behind.
        return str(UUID(int=next(self._runs) << _COUNTER | self._node))

    def claim_id(self) -> str:
        return f"{self._prefix}claim-{next(self._claims)}"

    def claim_token(self) -> str:
        return f"{self._prefix}token-{next(self._tokens)}"

    def owner(self) -> str:
        return f"{self._prefix}worker-{next(self._owners)}"


class SeededRandom(Random):
    """Chance that repeats itself: the same *seed* draws the same numbers."""

    def __init__(self, seed: int = 0) -> None:
        self._source = random.Random(seed)  # noqa: S311  it keeps no secret

    def draw(self) -> float:
        return self._source.uniform(-1, 1)
