"""A stage for scripts that are played on every store alike, and what they leave behind as text.

A script decides everything: the clock, ids and chance are its own, and where two bodies run at the
same time it says which of them reports first. So whatever differs between two stores afterwards is
a difference between the stores.
"""

import asyncio
import enum
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Final

import aiosqlite
import attrs
import psycopg

from squidmesh import Run, Runner, SquidMesh
from squidmesh.domain.evolution import rebuild
from squidmesh.domain.state import is_compensation
from squidmesh.domain.values import Json
from squidmesh.opening import path_of
from squidmesh.runtime.engine import Engine
from squidmesh.runtime.telemetry import Event
from squidmesh.testing.clock import DEFAULT_START, VirtualClock
from squidmesh.testing.ids import SeededRandom, SequentialIds
from tests.mesh.support import LEASE, Gate, die_at, history


class Told:
    """Hears what is told behind each commit, so that a script can wait for one."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._more = asyncio.Event()

    def emit(self, event: Event) -> None:
        self._events.append(event)
        self._more.set()

    async def of(self, name: str, step: str) -> None:
        """Return when *name* has been told of *step*; each telling is waited for once."""
        while True:
            for event in self._events:
                if event.name == f"squidmesh.{name}" and event.metadata.get("step") == step:
                    self._events.remove(event)
                    return
            self._more.clear()
            await self._more.wait()


@attrs.frozen(kw_only=True)
class Stage:
    """A mesh on one store, and everything that a script may do to it."""

    mesh: SquidMesh
    clock: VirtualClock
    told: Told
    runner: Runner
    host: Any

    async def work(self) -> None:
        """Let a worker do all that is due."""
        await self.mesh.run_until_idle()

    async def pass_time(self, by: timedelta) -> None:
        """Let time pass while nobody works, and then do what has become due."""
        self.clock.advance(by)
        await self.work()

    async def lose(self, gate: Gate) -> None:
        """Let a worker claim what is due, die at *gate*, and be missed when its lease is over."""
        await die_at(self.mesh, gate)
        self.clock.advance(LEASE)

    async def deliver(self) -> list[str]:
        """Perform whatever is due, one delivery after the other, and return what that was."""
        performed = []
        while due := await self._due():
            report = await self.runner.perform(due)
            assert report.status == "performed"
            performed.append(f"{report.step} {report.attempt}")
        return performed

    async def _due(self) -> dict[str, Json] | None:
        """What an executor would have been told of, and delivers next."""
        for listed in reversed((await self.mesh.list_runs()).runs):
            for attempt in (await self.show(listed)).attempts or ():
                if attempt.status == "scheduled" and attempt.visible_at <= self.clock.now():
                    kind = "compensation" if is_compensation(attempt.step) else "step"
                    told: dict[str, Json] = {"step": attempt.step, "attempt": attempt.number}
                    return {"kind": kind, "run_id": listed.id, **told}
        return None

    async def commit(self) -> None:
        """Commit what was done on the host's connection, if the store has such a thing."""
        if self.host is not None:
            await self.host.commit()

    async def roll_back(self, *commands: Callable[[], Awaitable[object]]) -> None:
        """Give *commands* and take them back; where that is impossible they are not given."""
        if self.host is not None:
            for give in commands:
                await give()
            await self.host.rollback()

    @asynccontextmanager
    async def other(self, *workflows: Any) -> AsyncIterator[SquidMesh]:
        """Another process with the same store, whose ids are its own."""
        store = (await self.mesh.engine()).store
        async with SquidMesh(
            store=store,
            workflows=workflows,
            clock=self.clock,
            ids=SequentialIds("other-"),
            random=SeededRandom(8),
            lease=LEASE,
        ) as mesh:
            yield mesh

    async def show(self, run: Run | str) -> Run:
        """The run with its history."""
        return await history(self.mesh, run)


Script = Callable[[Stage], Awaitable[None]]


@attrs.frozen(kw_only=True)
class Play:
    """The workflows of a script and what happens to them; *options* are those of the mesh."""

    workflows: tuple[Any, ...]
    script: Script
    told: Told = attrs.field(factory=Told)
    options: Mapping[str, Any] = attrs.field(factory=dict[str, Any])


COMMANDS: Final = ("cancel_run", "resume_run", "approve_run", "reject_run", "replay_run")


class Cautious:
    """A mesh whose user asks for a preview of each command first, and then gives it."""

    def __init__(self, mesh: SquidMesh) -> None:
        self._mesh = mesh

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._mesh, name)
        if name not in COMMANDS:
            return method

        async def ask_and_give(*given: Any, **options: Any) -> Run:
            await method(*given, preview=True, **options)
            run: Run = await method(*given, **options)
            return run

        return ask_and_give


@asynccontextmanager
async def staged(url: str, play: Play, *, is_cautious: bool = False) -> AsyncIterator[Stage]:
    """A stage on the store at *url*, in which there is nothing yet."""
    clock = VirtualClock()
    async with AsyncExitStack() as opened:
        mesh = await opened.enter_async_context(
            SquidMesh.open(
                url,
                workflows=play.workflows,
                clock=clock,
                ids=SequentialIds(),
                random=SeededRandom(7),
                telemetry=play.told,
                lease=LEASE,
                **play.options,
            )
        )
        host = await opened.enter_async_context(_host(url))
        used: Any = Cautious(mesh) if is_cautious else mesh
        yield Stage(mesh=used, clock=clock, told=play.told, runner=Runner(mesh), host=host)


@asynccontextmanager
async def _host(url: str) -> AsyncIterator[Any]:
    """The connection of an application that keeps its own data in the same database."""
    if url.startswith("memory"):
        yield None
    elif url.startswith("sqlite"):
        async with aiosqlite.connect(path_of(url)) as to_file:
            yield to_file
    else:
        async with await psycopg.AsyncConnection.connect(url) as to_server:
            yield to_server


async def left_behind(stage: Stage) -> str:
    """Everything that the store knows of its runs, as text in which ids and times are mapped."""
    page = await stage.mesh.list_runs(limit=1000)
    engine = await stage.mesh.engine()
    told = [await _told_of(stage, engine, listed) for listed in reversed(page.runs)]
    text = json.dumps(_plain(told), indent=1, ensure_ascii=False)
    return mapped(text)


async def _told_of(stage: Stage, engine: Engine, listed: Run) -> dict[str, object]:
    run = await stage.show(listed.id)
    rows = await engine.store.read(run.id)
    stored = (await engine.store.load([run.id])).states[run.id]
    entries = [entry for row in rows for entry in row.entries]
    assert stored == rebuild(run.id, entries)
    definition = await engine.store.definition(run.fingerprint)
    return {
        "listed": listed,
        "run": run,
        "journal": rows,
        "state": stored,
        "definition": definition,
        "explanation": await stage.mesh.explain_run(run.id),
        "graph": (await stage.mesh.graph(run.id)).to_dict(),
    }


_NOT_A_FACT: Final = "unclaimed"
"""The field of a run's state that only saves looking, and may be short of what it could hold."""


def _plain(value: object) -> object:
    """JSON that keeps every field, every type's name and every order."""
    kind: type[Any] = type(value)
    if attrs.has(kind):
        fields = (field.name for field in attrs.fields(kind) if field.name != _NOT_A_FACT)
        named = {name: _plain(getattr(value, name)) for name in fields}
        return {"is": kind.__name__, **named}
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    return value.total_seconds() if isinstance(value, timedelta) else value


_IDS: Final = {
    "run": re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    "claim": re.compile(r"\bclaim-\d+"),
    "worker": re.compile(r"\bworker-\d+"),
    "hash": re.compile(r'(?<=token_hash": ")[^"]+'),
}
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)")


def mapped(text: str) -> str:
    """*text* with ids numbered in the order in which they appear, and times from the start on."""
    for kind, pattern in _IDS.items():
        text = pattern.sub(_Numbering(kind), text)
    return _TIME.sub(_offset, text)


class _Numbering:
    """Names each id by its kind and place."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._names: dict[str, str] = {}

    def __call__(self, found: "re.Match[str]") -> str:
        return self._names.setdefault(found[0], f"<{self._kind} {len(self._names) + 1}>")


def _offset(found: "re.Match[str]") -> str:
    since = datetime.fromisoformat(found[0]) - DEFAULT_START
    return f"<start + {since.total_seconds():g} s>"
