"""Where time, ids and chance come from, so that a test or a simulation can own them."""

from abc import abstractmethod
from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Time as the shell sees it."""

    @property
    @abstractmethod
    def is_virtual(self) -> bool:
        """Whether time passes only when somebody says so; threads cannot wait on such a clock."""

    @abstractmethod
    def now(self) -> datetime:
        """Return the present instant, aware, in UTC, with microseconds."""

    @abstractmethod
    def monotonic(self) -> float:
        """Return seconds that never run backwards."""

    @abstractmethod
    async def sleep(self, seconds: float) -> None:
        """Return when at least *seconds* have passed on this clock; 0 only yields."""


class Ids(Protocol):
    """Fresh identities."""

    @abstractmethod
    def run_id(self) -> str:
        """Return a new UUIDv7 as text; later ids sort behind earlier ones of one process."""

    @abstractmethod
    def claim_id(self) -> str:
        """Return a new id for a claim, unique among all claims ever."""

    @abstractmethod
    def claim_token(self) -> str:
        """Return an unguessable secret of at least 128 bits that proves a claim."""

    @abstractmethod
    def owner(self) -> str:
        """Return a new identity for a worker; never one that was used before."""


class Random(Protocol):
    """Chance."""

    @abstractmethod
    def draw(self) -> float:
        """Return a number between -1 and 1, for the jitter of a delay."""
