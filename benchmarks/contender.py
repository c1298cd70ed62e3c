"""What a contender must be able to do, so that the same workloads can be put to all of them."""

from abc import abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol, TypeAlias

import attrs

StepBody: TypeAlias = Callable[[int], Awaitable[int]]
"""What every step does: it takes the run's number, and returns it."""

Serve: TypeAlias = Callable[[int], Awaitable[None]]
"""Starts one run of so many steps, and returns when it has ended and its end is durable."""


@attrs.frozen
class Written:
    """What has become durable: how many commits that wrote something, and their bytes."""

    commits: int
    size: int

    def since(self, earlier: "Written") -> "Written":
        """What was added to *earlier*."""
        return Written(self.commits - earlier.commits, self.size - earlier.size)


Count: TypeAlias = Callable[[], Written]
"""Tells what was written since counting began."""


class Contender(Protocol):
    """A way to do durable work; made for one workload in a process of its own.

    A step's result is durable before the run's next step starts, and a run's end is durable
    before a method returns. A step's body is called with the run's number and its result is kept.
    """

    @abstractmethod
    async def set_up(self, folder: Path, body: StepBody) -> None:
        """Get ready to work in *folder*, with *body* as every step's body."""

    @abstractmethod
    async def sequential(self, steps: int) -> None:
        """Start one run of *steps* steps, each behind the other, and see it through."""

    @abstractmethod
    async def concurrent(self, runs: int, steps: int) -> Callable[[], Awaitable[None]]:
        """Start so many runs of so many steps; what is returned sees them through, 64 at once."""

    @abstractmethod
    async def long(self, steps: int) -> None:
        """Start one run of very many steps, and see it through."""

    @abstractmethod
    async def fanout(self, width: int) -> None:
        """Start one run of *width* steps that wait for nothing, and one that waits for them."""

    @abstractmethod
    async def start(self, runs: int) -> None:
        """Start so many runs one by one, and leave them alone."""

    @abstractmethod
    async def start_bulk(self, runs: int) -> None:
        """Start so many runs in the fastest way there is, and leave them alone."""

    @abstractmethod
    def serving(self) -> AbstractAsyncContextManager[Serve] | None:
        """Keep a worker waiting, if there is such a thing: None if there is not."""

    @abstractmethod
    def counting(self) -> AbstractAsyncContextManager[Count] | None:
        """Count exactly what is written, if there is something to count: None if there is not.

        Counting may slow the contender down; nothing is timed meanwhile.
        """

    @abstractmethod
    async def tear_down(self) -> None:
        """Give back what was taken."""
