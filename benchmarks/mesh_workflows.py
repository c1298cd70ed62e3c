"""The workflows that squidmesh is measured with, and how their ends are heard of."""

import asyncio
from collections.abc import Callable, Sequence
from types import new_class
from typing import Any, TypeAlias

import attrs

from benchmarks.contender import StepBody
from squidmesh import Workflow, manual, path, step
from squidmesh.runtime.telemetry import Event

AnyWorkflow: TypeAlias = type[Workflow[Any]]


@attrs.frozen(kw_only=True)
class Seed:
    """What every run starts with: its number."""

    seed: int


@attrs.define(eq=False)
class Ends:
    """A telemetry sink that calls somebody at each end of a run."""

    _call: Callable[[], None]

    def emit(self, event: Event) -> None:
        """Take an event; what it tells of is durable already."""
        if event.metadata.get("to_status") == "completed":
            self._call()


@attrs.define(eq=False)
class NextEnd:
    """Lets one wait for one run's end."""

    _end: "asyncio.Future[None] | None" = None

    def expect(self) -> "asyncio.Future[None]":
        """Return what is done when the next run ends."""
        self._end = asyncio.get_running_loop().create_future()
        return self._end

    def happen(self) -> None:
        """Tell who waits."""
        if self._end is not None:
            self._end.set_result(None)


def chain_of(length: int, body: StepBody) -> AnyWorkflow:
    """A workflow of *length* steps, one behind the other; each keeps what it returned."""
    return chain_through([body] * length)


def chain_through(bodies: Sequence[StepBody]) -> AnyWorkflow:
    """The same workflow, with a body for each step."""
    length = len(bodies)
    steps = [step(body, output=f"output_{number}") for number, body in enumerate(bodies)]
    return _workflow(f"chain_{length}", steps, transitions=path(*steps))


def fan_of(width: int, body: StepBody) -> AnyWorkflow:
    """A workflow of *width* steps that wait for nothing, and one that waits for all of them."""
    branches = [step(body, output=f"output_{number}") for number in range(width)]
    joined = step(body, output="joined", after=tuple(branches))
    return _workflow(f"fan_{width}", [*branches, joined])


def _workflow(name: str, steps: list[Any], **options: object) -> AnyWorkflow:
    """The class that somebody with much patience would have written out."""
    attributes = {
        "name": name,
        "__doc__": f"The workflow {name}.",
        "by_hand": manual(),
        **{f"step_{number}": one for number, one in enumerate(steps)},
        **options,
    }
    return new_class(name, (Workflow[Seed],), exec_body=lambda space: space.update(attributes))
