"""One run for each reason that an explanation can give, brought there as a user would."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final, TypeAlias

import attrs

from squidmesh import (
    Deferred,
    Errored,
    Retry,
    SquidMesh,
    StepContext,
    Workflow,
    approval,
    compensation,
    log,
    manual,
    path,
    pause,
    step,
    wait,
)
from squidmesh.testing.clock import VirtualClock
from tests.mesh.support import LEASE, MINUTE, Gate, OpenMesh, Order, die_at


@attrs.define
class Place:
    """Where a run is brought to: it opens the meshes, and lets bodies stand at its gate."""

    open_mesh: OpenMesh
    clock: VirtualClock
    gate: Gate = attrs.field(factory=Gate)

    async def started(self, workflow: Any, **options: Any) -> "Situation":
        mesh = await self.open_mesh(workflow, **options)
        run = await mesh.start_run(workflow)
        return Situation(mesh=mesh, run_id=run.id, workflow=workflow, place=self)

    async def worked(self, workflow: Any) -> "Situation":
        found = await self.started(workflow)
        await found.mesh.run_until_idle()
        return found

    async def abandoned(self, workflow: Any, **options: Any) -> "Situation":
        """A worker has got as far as the gate, and is not heard of again."""
        found = await self.started(workflow, **options)
        await die_at(found.mesh, self.gate)
        return found


@attrs.frozen(kw_only=True)
class Situation:
    """A run, the mesh that was used, and the step to ask about if it is not the run itself."""

    mesh: SquidMesh
    run_id: str
    workflow: Any
    place: Place
    step: str | None = None


Arrange: TypeAlias = Callable[[Place], Awaitable[Situation]]


def fail() -> None:
    raise ConnectionError("the line of o1 is dead")


def fail_once(context: StepContext) -> None:
    if context.attempt == 1:
        fail()


class Plain(Workflow[Order]):
    """A step and a timer."""

    name = "plain"
    by_hand = manual()
    a = log("a")
    b = wait(MINUTE)
    transitions = path(a, b)


class Judged(Workflow[Order]):
    """A person decides."""

    name = "judged"
    by_hand = manual()
    review = approval(output="review")
    yes = log("yes")
    no = log("no")
    transitions = (path(review, yes), review.on_error(no), path(no))


class Halted(Workflow[Order]):
    """A person lets it go on."""

    name = "halted"
    by_hand = manual()
    hold = pause()
    then = log("then")
    transitions = path(hold, then)


class Shaky(Workflow[Order]):
    """It fails once, and then not any more."""

    name = "shaky"
    by_hand = manual()
    a = step(fail_once, retry=Retry(3, backoff_min=MINUTE))


class Declined(Workflow[Order]):
    """It fails for good at once."""

    name = "declined"
    by_hand = manual()
    a = step(lambda: Errored("no", code="declined"), output="x")


class Exhausted(Workflow[Order]):
    """It fails as often as it may."""

    name = "exhausted"
    by_hand = manual()
    a = step(fail, output="x", retry=Retry(2))


class Joined(Workflow[Order]):
    """A step waits for two others, one of which takes its time."""

    name = "joined"
    by_hand = manual()
    quick = log("quick")
    slow = wait(MINUTE)
    join = log("join", after=(quick, slow))


def deferring_once() -> Any:
    answers = iter([Deferred(MINUTE, reason="not open yet")])

    class Later(Workflow[Order]):
        name = "later"
        by_hand = manual()
        a = step(lambda: next(answers, None))

    return Later


def held_at(gate: Gate) -> Any:
    async def hold() -> None:
        await gate.wait()

    class Held(Workflow[Order]):
        name = "held"
        by_hand = manual()
        a = step(hold)

    return Held


def undone_at(gate: Gate, *, succeeds: bool = True) -> Any:
    async def undo() -> Errored | None:
        await gate.wait()
        return None if succeeds else Errored("closed", code="closed")

    class Undone(Workflow[Order]):
        name = "undone"
        by_hand = manual()
        a = step(lambda: None, compensate=compensation(undo, Retry(1)))
        b = step(lambda: Errored("no", code="declined"), output="x")
        transitions = path(a, b)

    return Undone


async def completed(place: Place) -> Situation:
    found = await place.worked(Plain)
    place.clock.advance(MINUTE)
    await found.mesh.run_until_idle()
    return found


async def cancelled(place: Place) -> Situation:
    found = await place.started(Plain)
    await found.mesh.cancel_run(found.run_id)
    return found


async def compensation_failed(place: Place) -> Situation:
    place.gate.opened.set()
    return await place.worked(undone_at(place.gate, succeeds=False))


async def poisoned(place: Place) -> Situation:
    found = await place.abandoned(held_at(place.gate), max_deliveries=1)
    place.clock.advance(LEASE)
    await found.mesh.recover()
    return found


async def retry_exhausted(place: Place) -> Situation:
    found = await place.worked(Exhausted)
    place.clock.advance(MINUTE)
    await found.mesh.run_until_idle()
    return found


async def step_failed(place: Place) -> Situation:
    return await place.worked(Declined)


async def cancelling(place: Place) -> Situation:
    found = await place.abandoned(held_at(place.gate))
    await found.mesh.cancel_run(found.run_id)
    return found


async def compensating(place: Place) -> Situation:
    return await place.abandoned(undone_at(place.gate))


async def paused_for_approval(place: Place) -> Situation:
    return await place.started(Judged)


async def paused_for_manual_action(place: Place) -> Situation:
    return await place.started(Halted)


async def lease_expired(place: Place) -> Situation:
    found = await step_running(place)
    place.clock.advance(LEASE)
    return found


async def step_running(place: Place) -> Situation:
    return await place.abandoned(held_at(place.gate))


async def waiting_for_retry(place: Place) -> Situation:
    return await place.worked(Shaky)


async def waiting_until(place: Place) -> Situation:
    return await place.worked(Plain)


async def deferred(place: Place) -> Situation:
    return await place.worked(deferring_once())


async def pending_dispatch(place: Place) -> Situation:
    return await place.started(Plain)


async def overlooked(place: Place) -> Situation:
    """Due for so long that its wake-up must have been lost."""
    found = await place.started(Plain)
    place.clock.advance(timedelta(seconds=30))
    return found


async def step_scheduled(place: Place) -> Situation:
    found = await place.worked(Plain)
    place.clock.advance(MINUTE)
    return found


async def waiting_for_dependencies(place: Place) -> Situation:
    found = await place.worked(Joined)
    return attrs.evolve(found, step="join")


SITUATIONS: Final[dict[str, Arrange]] = {
    arrange.__name__: arrange
    for arrange in (
        completed,
        cancelled,
        compensation_failed,
        poisoned,
        retry_exhausted,
        step_failed,
        cancelling,
        compensating,
        paused_for_approval,
        paused_for_manual_action,
        lease_expired,
        step_running,
        waiting_for_retry,
        waiting_until,
        deferred,
        pending_dispatch,
        overlooked,
        step_scheduled,
        waiting_for_dependencies,
    )
}
