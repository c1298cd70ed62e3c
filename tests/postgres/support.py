"""What the tests about servers share: a workflow, ears for the log, and a look at the tables."""

import asyncio
import logging
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import attrs
import psycopg

from squidmesh import Workflow, manual, path, step

SHORT = 15.0
"""No test here waits longer for anything than so many seconds."""


class Greeting(Workflow[None]):
    """Two steps, which nobody has to think about."""

    name = "greeting"
    by_hand = manual()
    think = step(lambda: "hello", output="words")
    say = step(lambda words: {"said": words})
    transitions = path(think, say)


@attrs.define(eq=False)
class Ears(logging.Handler):
    """Everything that is logged, and a way to wait for an event of ours."""

    records: list[logging.LogRecord] = attrs.field(factory=list)
    _loop: asyncio.AbstractEventLoop = attrs.field(factory=asyncio.get_running_loop)
    _changed: asyncio.Event = attrs.field(factory=asyncio.Event)

    def __attrs_pre_init__(self) -> None:
        super().__init__()

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self._loop.call_soon_threadsafe(self._changed.set)

    @property
    def warnings(self) -> list[str]:
        """Whatever is a warning or worse: the event if it is ours, else the logger and the text."""
        grave = [record for record in self.records if record.levelno >= logging.WARNING]
        return [self._event(record) or f"{record.name}: {record.msg}" for record in grave]

    @property
    def text(self) -> str:
        """All of it, with tracebacks."""
        lines = [record.getMessage() for record in self.records]
        lines += [str(vars(record).get("squidmesh")) for record in self.records]
        for record in self.records:
            if record.exc_info:
                lines += traceback.format_exception(*record.exc_info)
        return "\n".join(lines)

    async def hear(self, event: str, *, times: int = 1) -> None:
        """Return when *event* was logged so often."""
        await self.until(lambda: self._count(event) >= times)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(SHORT):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    def _count(self, event: str) -> int:
        return sum(self._event(record) == event for record in self.records)

    @staticmethod
    def _event(record: logging.LogRecord) -> str | None:
        facts = vars(record).get("squidmesh")
        return str(facts["event"]) if isinstance(facts, dict) else None


@contextmanager
def ears() -> Iterator[Ears]:
    """Hear everything that any library logs, however much it is."""
    root, heard = logging.getLogger(), Ears()
    level = root.level
    root.addHandler(heard)
    root.setLevel(logging.DEBUG)
    try:
        yield heard
    finally:
        root.setLevel(level)
        root.removeHandler(heard)


def name_of(url: str) -> str:
    """The name of the database at *url*."""
    return urlsplit(url).path[1:]


def count(url: str, table: str) -> int:
    """How many rows there are in one of our tables."""
    with psycopg.connect(url) as connection:
        row = connection.execute(f"select count(*) from squidmesh.{table}".encode()).fetchone()  # noqa: S608
    assert row is not None
    found: int = row[0]
    return found


def shown(problem: BaseException) -> str:
    """All that anybody prints, logs or collects of an exception."""
    parts = [str(problem), repr(problem), repr(problem.args), repr(vars(problem))]
    return "\n".join([*parts, *traceback.format_exception(problem)])
