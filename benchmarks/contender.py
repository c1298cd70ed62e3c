"""What a contender must be able to do, so that the same workloads can be put to all of them."""

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from enum import Enum
from pathlib import Path
from typing import Protocol, TypeAlias

import attrs

StepBody: TypeAlias = Callable[[int], Awaitable[int]]
"""What every step does: it takes the run's number, and returns it."""

Serve: TypeAlias = Callable[[int], Awaitable[None]]
"""Starts one run of so many steps, and returns when it has ended and its end is durable."""


class NotOffered(Exception):  # noqa: N818  it is an answer
    """A contender has no such thing; nothing is wrong with it, and nothing is measured."""


class Backlog(Enum):
    """What lies about in a database that has been in use for long."""

    ENDED = "ended"
    NOT_DUE = "not due"


@attrs.frozen
class Written:
    """What has become durable: how many commits that wrote something, and their bytes.

    And how many statements were sent to a server, if there is one that counts them.
    """

    commits: int
    size: int
    statements: int | None = None

    def since(self, earlier: "Written") -> "Written":
        """What was added to *earlier*."""
        counted = self.statements is not None and earlier.statements is not None
        return Written(
            self.commits - earlier.commits,
            self.size - earlier.size,
            (self.statements or 0) - (earlier.statements or 0) if counted else None,
        )


Count: TypeAlias = Callable[[], Written]
"""Tells what was written since counting began."""


class Server(Protocol):
    """A database server as it is seen from outside."""

    @abstractmethod
    def cpu(self) -> float | None:
        """How many seconds all of its processes have computed; None if they cannot be seen."""

    @abstractmethod
    def table_bytes(self) -> int:
        """How big the tables of the contender's database are, with their indexes."""


@attrs.frozen
class Crowd:
    """What several processes did together: how long it took, and whose bodies ran."""

    seconds: float
    bodies: Sequence[str]


class Contender(Protocol):
    """A way to do durable work; made for one workload in a process of its own.

    A step's result is durable before the run's next step starts, and a run's end is durable
    before a method returns. A step's body is called with the run's number and its result is kept.
    What a contender has no way to do raises `NotOffered`.
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

    def server(self) -> Server | None:
        """The server that it works on; None if there is none."""
        return None

    async def pile_up(self, backlog: Backlog, runs: int) -> None:
        """Have so many runs more in the database, as if they had been made one by one."""
        raise NotOffered(backlog, runs)

    async def crowd(self, processes: int, runs: int, steps: int) -> Crowd:
        """Have so many processes work off so many runs of so many steps together."""
        raise NotOffered(processes, runs, steps)
