"""When a failed attempt is tried again: stored times, to the microsecond, and what is counted."""

from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from squidmesh import (
    Deferred,
    Errored,
    Retry,
    RetryPolicy,
    Run,
    StepContext,
    Workflow,
    log,
    manual,
    path,
    step,
)
from squidmesh.testing.clock import VirtualClock
from tests.mesh.support import (
    LEASE,
    MINUTE,
    SECOND,
    Deploy,
    Gate,
    OpenMesh,
    Order,
    attempt_statuses,
    die_at,
    error_of,
    history,
    step_of,
    step_statuses,
)

pytestmark = pytest.mark.anyio


class Chance:
    """Draws what the test has put there."""

    def __init__(self, drawn: float = 0.0) -> None:
        self.drawn = drawn

    def draw(self) -> float:
        return self.drawn


def only(body: Any, **options: Any) -> type[Workflow[Order]]:
    """A workflow of one step."""

    class Only(Workflow[Order]):
        name = "only"
        by_hand = manual()
        one = step(body, output="said", **options)
        transitions = path(one)

    return Only


def seconds(*delays: float) -> list[timedelta]:
    return [timedelta(seconds=delay) for delay in delays]


def delays_of(run: Run) -> list[timedelta]:
    """How long each attempt but the first was to wait."""
    return [
        attempt.visible_at - attempt.scheduled_at for attempt in step_of(run, "one").attempts[1:]
    ]


MOMENT = timedelta(microseconds=1)

POLICIES: list[tuple[RetryPolicy, list[float], list[float]]] = [
    (Retry(1, backoff_min=SECOND), [], []),
    (Retry(2, backoff_min=SECOND), [0], [1]),
    (Retry(6, backoff_min=SECOND), [0] * 5, [1, 2, 4, 8, 16]),
    (Retry(6, backoff_min=SECOND, backoff_max=5 * SECOND), [0] * 5, [1, 2, 4, 5, 5]),
    (Retry(4, backoff_min=5 * SECOND, backoff_max=5 * SECOND), [0] * 3, [5, 5, 5]),
    (Retry(4, backoff_min=SECOND / 4), [0] * 3, [0.25, 0.5, 1]),
    (Retry(4, backoff_min=timedelta(microseconds=1)), [0] * 3, [0.000001, 0.000002, 0.000004]),
    (Retry(3), [0, 0], [0, 0]),
    (Retry(3, backoff_max=5 * SECOND), [0, 0], [0, 0]),
    (Retry(5, backoff_min=8 * SECOND, jitter=0.5), [-1, 0, 1, 0.5], [4, 16, 48, 80]),
    (Retry(3, backoff_min=8 * SECOND, jitter=1), [-1, 1], [0, 32]),
    (Retry(3, backoff_min=8 * SECOND, jitter=0.0), [-1, 1], [8, 16]),
    (
        Retry(4, backoff_min=8 * SECOND, backoff_max=10 * SECOND, jitter=0.5),
        [-1, -1, 0],
        [4, 5, 10],
    ),
]


@pytest.mark.parametrize(("policy", "drawn", "delays"), POLICIES, ids=range(len(POLICIES)))
async def test_the_delay_doubles_from_the_least_to_the_most_and_is_moved_by_what_chance_draws(
    open_mesh: OpenMesh,
    clock: VirtualClock,
    policy: RetryPolicy,
    drawn: list[float],
    delays: list[float],
) -> None:
    chance = Chance()

    def fail(context: StepContext) -> None:
        if context.attempt <= len(drawn):
            chance.drawn = drawn[context.attempt - 1]
        raise ConnectionError

    mesh = await open_mesh(only(fail, retry=policy), random=chance)
    run = await mesh.start_run("only")
    await mesh.run_until_idle()
    for delay in seconds(*delays):
        clock.advance(delay)
        await mesh.run_until_idle()

    failed = await history(mesh, run)
    attempts = step_of(failed, "one").attempts
    assert failed.status == "failed"
    assert delays_of(failed) == seconds(*delays)
    assert [attempt.number for attempt in attempts] == list(range(1, len(delays) + 2))
    for before, after in pairwise(attempts):
        assert after.scheduled_at == before.ended_at
        assert after.claimed_at == after.visible_at


async def test_a_retry_is_due_at_its_stored_time_and_not_a_microsecond_before(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    def fail() -> None:
        raise ConnectionError

    mesh = await open_mesh(only(fail, retry=Retry(2, backoff_min=MINUTE)))
    run = await mesh.start_run("only")
    await mesh.run_until_idle()

    clock.advance(MINUTE - MOMENT)
    await mesh.run_until_idle()
    early = await history(mesh, run)
    clock.advance(MOMENT)
    await mesh.run_until_idle()

    assert (early.status, attempt_statuses(early, "one")) == ("retrying", ["failed", "scheduled"])
    assert attempt_statuses(await history(mesh, run), "one") == ["failed", "failed"]


@pytest.mark.parametrize(("wish", "delay"), [(900, 900), (0.5, 0.5), (0, 0), (-5, 0)], ids=str)
async def test_the_wish_of_a_body_overrides_least_most_and_chance(
    open_mesh: OpenMesh, wish: float, delay: float
) -> None:
    def wait_for_it() -> Errored:
        return Errored("busy", retryable=True, retry_after=timedelta(seconds=wish))

    policy = Retry(2, backoff_min=SECOND, backoff_max=SECOND * 8, jitter=1.0)
    mesh = await open_mesh(only(wait_for_it, retry=policy), random=Chance(1.0))
    run = await mesh.start_run("only")

    await mesh.run_until_idle()

    assert delays_of(await history(mesh, run)) == seconds(delay)


async def test_the_wish_of_a_body_gives_it_no_further_attempt(open_mesh: OpenMesh) -> None:
    def wish() -> Errored:
        return Errored("busy", code="busy", retryable=True, retry_after=SECOND)

    mesh = await open_mesh(only(wish, retry=Retry(1)))
    run = await mesh.start_run("only")
    await mesh.run_until_idle()

    failed = await history(mesh, run)
    assert (failed.status, error_of(failed)["code"]) == ("failed", "busy")
    assert attempt_statuses(failed, "one") == ["failed"]


async def test_a_terminal_error_is_not_tried_again_whatever_it_wishes(open_mesh: OpenMesh) -> None:
    def wish() -> Errored:
        return Errored("no", retry_after=SECOND)

    mesh = await open_mesh(only(wish, retry=Retry(9)))
    run = await mesh.start_run("only")
    await mesh.run_until_idle()

    assert attempt_statuses(await history(mesh, run), "one") == ["failed"]


async def test_deferrals_count_neither_as_attempts_nor_in_the_backoff_nor_as_deliveries(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    said = iter([Deferred(SECOND), Deferred(SECOND), None, Deferred(SECOND), None])

    def say() -> object:
        found = next(said)
        if found is None:
            raise ConnectionError
        return found

    mesh = await open_mesh(only(say, retry=Retry(2, backoff_min=SECOND * 10)))
    run = await mesh.start_run("only")
    await mesh.run_until_idle()
    for _ in range(30):
        clock.advance(1)
        await mesh.run_until_idle()

    failed = await history(mesh, run)
    one = step_of(failed, "one")
    assert failed.status == "failed"
    assert [(each.number, each.status) for each in one.attempts] == [(1, "failed"), (2, "failed")]
    assert one.attempts[1].scheduled_at == run.started_at + SECOND * 2
    assert one.attempts[1].claimed_at == run.started_at + SECOND * (2 + 10 + 1)
    assert one.deliveries == 0


async def test_a_loss_between_failures_is_followed_at_once_and_leaves_the_backoff_alone(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    gate = Gate()

    async def struggle(context: StepContext) -> None:
        if context.attempt == 2:
            await gate.wait()
        raise ConnectionError

    # Were failures deliveries too, the loss would be the second one.
    policy = Retry(3, backoff_min=SECOND * 10)
    mesh = await open_mesh(only(struggle, retry=policy), max_deliveries=2)
    run = await mesh.start_run("only")
    await mesh.run_until_idle()
    clock.advance(10)
    await die_at(mesh, gate)
    clock.advance(LEASE)
    await mesh.run_until_idle()
    clock.advance(20)
    await mesh.run_until_idle()

    failed = await history(mesh, run)
    one = step_of(failed, "one")
    assert failed.status == "failed"
    assert attempt_statuses(failed, "one") == ["failed", "lost", "failed", "failed"]
    assert [each.number for each in one.attempts] == [1, 2, 3, 4]
    assert delays_of(failed) == seconds(10, 0, 20)
    assert one.deliveries == 1


async def test_failures_and_losses_of_earlier_processes_count_too(
    deploy: Deploy, clock: VirtualClock
) -> None:
    gate = Gate()

    async def struggle(context: StepContext) -> None:
        if context.attempt > 3:
            await gate.wait()
        raise ConnectionError

    workflow = only(struggle, retry=Retry(5, backoff_min=SECOND))
    async with deploy(workflow) as mesh:
        run = await mesh.start_run(workflow)
    for delay in (1, 2, 4):
        async with deploy(workflow) as mesh:
            await mesh.run_until_idle()
            clock.advance(delay)
    for _ in range(2):
        async with deploy(workflow, max_deliveries=2) as mesh:
            await die_at(mesh, gate)
            clock.advance(LEASE)
    async with deploy(workflow, max_deliveries=2) as mesh:
        await mesh.recover()
        failed = await history(mesh, run)

    assert delays_of(failed) == seconds(1, 2, 4, 0)
    assert attempt_statuses(failed, "one") == ["failed"] * 3 + ["lost"] * 2
    assert error_of(failed)["code"] == "poisoned"
    assert step_of(failed, "one").deliveries == 2


@pytest.mark.parametrize("most", [2, 5])
async def test_a_step_may_be_lost_one_time_less_than_the_bound(
    open_mesh: OpenMesh, clock: VirtualClock, most: int
) -> None:
    gate = Gate()

    async def kill(context: StepContext) -> str:
        if context.attempt < most:
            await gate.wait()
        return "alive"

    options = {} if most == 5 else {"max_deliveries": most}
    mesh = await open_mesh(only(kill), **options)
    run = await mesh.start_run("only")
    for _ in range(most - 1):
        await die_at(mesh, gate)
        clock.advance(LEASE)
    await mesh.run_until_idle()

    done = await history(mesh, run)
    assert (done.status, done.context) == ("completed", {"said": "alive"})
    assert attempt_statuses(done, "one") == ["lost"] * (most - 1) + ["completed"]
    assert step_of(done, "one").deliveries == most - 1


async def test_losses_are_counted_for_each_step_by_itself(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    gate = Gate()

    async def kill(context: StepContext) -> None:
        if context.attempt == 1:
            await gate.wait()

    class Two(Workflow[Order]):
        name = "two"
        by_hand = manual()
        one = step(kill)
        two = step(kill)
        transitions = path(one, two)

    mesh = await open_mesh(Two, max_deliveries=2)
    run = await mesh.start_run(Two)
    for _ in range(2):
        await die_at(mesh, gate)
        clock.advance(LEASE)
    await mesh.run_until_idle()

    done = await history(mesh, run)
    assert done.status == "completed"
    assert [step_of(done, name).deliveries for name in ("one", "two")] == [1, 1]


def do_fail() -> None:
    raise ConnectionError


TERMINAL: list[tuple[Any, str]] = [
    (lambda: Errored("no"), "step_error"),
    (do_fail, "step_exception"),
    (lambda: 7, "invalid_result"),
    (lambda: {"schedule": 1}, "invalid_result"),
    (lambda: Deferred("soon"), "invalid_result"),  # type: ignore[arg-type]
    (lambda: {"x": object()}, "unserializable_result"),
    (lambda: {"x": "x" * 4000}, "result_too_large"),
    (lambda price: price, "missing_input"),
]


@pytest.mark.parametrize(("body", "code"), TERMINAL, ids=range(len(TERMINAL)))
async def test_whatever_ends_a_step_for_good_takes_its_error_route(
    open_mesh: OpenMesh, body: Any, code: str
) -> None:
    def merge() -> dict[str, Any]:
        return {}

    class Routed(Workflow[Order]):
        name = "routed"
        by_hand = manual()
        look = step(merge)
        work = step(body)
        page = log("paged")
        transitions = (path(look, work), path(page), work.on_error(page))

    mesh = await open_mesh(Routed, max_payload_bytes=2048)
    run = await mesh.start_run(Routed)
    await mesh.run_until_idle()

    done = await history(mesh, run)
    assert (done.status, done.error) == ("completed", None)
    assert step_statuses(done) == {"look": "completed", "work": "failed", "page": "completed"}
    assert error_of(step_of(done, "work"))["code"] == code
