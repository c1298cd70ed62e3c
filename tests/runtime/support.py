"""What the tests of the runtime share: small workflows, gates, and a store with accidents."""

import asyncio
import threading
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

import attrs

from squidmesh import Run, SquidMesh, Step, Workflow, manual, path, step
from squidmesh.adapters.memory import MemoryStore
from squidmesh.errors import JournalCorruptError, StoreUnavailableError
from squidmesh.ports.clock import Clock
from squidmesh.ports.store import Change, ClaimRequest, Claims, Committed, Loaded
from squidmesh.runtime.telemetry import Event

SECOND: Final = timedelta(seconds=1)
LEASE: Final = timedelta(seconds=60)
PATIENCE: Final = 10.0

AnyWorkflow = type[Workflow[Any]]


@attrs.frozen(kw_only=True)
class Order:
    """What most workflows here start with."""

    number: str = "o1"
    amount: int = 100


def workflow(name: str, payload: Any = Order, /, **body: object) -> AnyWorkflow:
    """A workflow class with this *body*, started by hand unless the body says how."""
    members: dict[str, object] = {"by_hand": manual(), **body, "name": name}
    base: Any = Workflow[payload]
    made: AnyWorkflow = types.new_class(
        name.title(), (base,), exec_body=lambda space: space.update(members)
    )
    return made


def in_a_row(name: str, *functions: Callable[..., object], **options: Any) -> AnyWorkflow:
    """A workflow of steps called first, second and so on, each with the same *options*."""
    names = ("first", "second", "third", "fourth")
    steps: dict[str, Any] = {
        name: step(function, **options) for name, function in zip(names, functions, strict=False)
    }
    return workflow(name, **steps, transitions=path(*steps.values()))


def only(function: Callable[..., object], **options: Any) -> AnyWorkflow:
    """A workflow whose one step, called first, runs *function*."""
    return in_a_row("only", function, **options)


async def history(mesh: SquidMesh, run: Run | str) -> Run:
    run_id = run if isinstance(run, str) else run.id
    return await mesh.inspect_run(run_id, include_history=True)


def step_of(run: Run, name: str) -> Step:
    assert run.steps is not None
    (found,) = [one for one in run.steps if one.name == name]
    return found


def attempts_of(run: Run, name: str = "first") -> list[str]:
    return [attempt.status for attempt in step_of(run, name).attempts]


def error_of(run: Run | Step) -> Mapping[str, Any]:
    assert run.error is not None
    return run.error


async def ended(mesh: SquidMesh, made: AnyWorkflow, payload: object = None, **options: Any) -> Run:
    """Start a run, work until nothing is due, and tell everything about it."""
    run = await mesh.start_run(made, payload, **options)
    await mesh.run_until_idle(timeout=timedelta(seconds=PATIENCE))
    return await history(mesh, run)


async def until(condition: Callable[[], bool]) -> None:
    """Let others run until *condition* holds; for at most `PATIENCE` seconds."""
    async with asyncio.timeout(PATIENCE):
        await turns(200)
        while not condition():
            await a_moment()


async def a_moment() -> None:
    """Let the threads have a moment too: a loop that only yields keeps the interpreter busy."""
    await asyncio.sleep(0.002)  # noqa: TID251  a poll with a deadline, and not a wait for time


async def turns(count: int = 50) -> None:
    """Let everybody else have a few turns; no time passes for who sleeps."""
    for _ in range(count):
        await asyncio.sleep(0)  # noqa: TID251  it only yields


class Gate:
    """A place in an async body where it stands until the test lets it go on."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.opened = asyncio.Event()

    async def wait(self) -> None:
        self.entered.set()
        await self.opened.wait()

    async def reached(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await self.entered.wait()


class Door:
    """The same for a plain body, which stands in a thread."""

    def __init__(self) -> None:
        self._entered = threading.Event()
        self._opened = threading.Event()

    def wait(self) -> None:
        self._entered.set()
        assert self._opened.wait(PATIENCE)

    def open(self) -> None:
        self._opened.set()

    async def entered(self) -> None:
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(None, self._entered.wait, PATIENCE)


class Listener:
    """A telemetry sink that remembers."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)

    @property
    def names(self) -> list[str]:
        return [event.name.removeprefix("squidmesh.") for event in self.events]

    def of(self, name: str) -> list[Event]:
        return [event for event in self.events if event.name == f"squidmesh.{name}"]


class ShakyStore(MemoryStore):
    """A store in memory that has accidents when the test says so.

    *before* counts commits that are lost on the way, *after* those that happen and whose answer
    is lost; *claims*, *loads* and *beats* count calls that fail, *unreadable* are damaged runs.
    While *passable* is not set, commits are under way and do not arrive.
    """

    def __init__(self, *, clock: Clock) -> None:
        super().__init__(clock=clock)
        self.before = self.after = self.claims = self.loads = self.beats = 0
        self.commits: list[Sequence[Change]] = []
        self.requests: list[ClaimRequest] = []
        self.unreadable: Collection[str] = ()
        self.passable = asyncio.Event()
        self.passable.set()
        self.problem: Callable[[], Exception] = lambda: StoreUnavailableError("the line is cut")

    async def commit(self, changes: Sequence[Change]) -> Committed:
        await self.passable.wait()
        if self.before:
            self.before -= 1
            raise self.problem()
        answer = await super().commit(changes)
        self.commits.append(changes)
        if self.after:
            self.after -= 1
            raise self.problem()
        return answer

    async def claim(self, request: ClaimRequest) -> Claims:
        self.requests.append(request)
        if self.claims:
            self.claims -= 1
            raise self.problem()
        return await super().claim(request)

    async def load(self, run_ids: Collection[str]) -> Loaded:
        if self.loads:
            self.loads -= 1
            raise self.problem()
        for run_id in run_ids:
            if run_id in self.unreadable:
                raise JournalCorruptError(run_id, "it was scratched by a test")
        return await super().load(run_ids)

    def beat(self, claims: Any) -> Any:
        if self.beats:
            self.beats -= 1
            raise self.problem()
        return super().beat(claims)
