"""What follows from the way in which a step ended."""

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import attrs
import pytest

from squidmesh import (
    Deferred,
    Errored,
    Retry,
    Run,
    SquidMesh,
    StepContext,
    Workflow,
    WorkflowDefinition,
    log,
    manual,
    path,
    step,
    when,
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
    context_of,
    die_at,
    error_of,
    history,
    step_of,
    step_statuses,
)

pytestmark = pytest.mark.anyio


def only(body: Callable[..., object], **options: Any) -> WorkflowDefinition:
    """A workflow of one step."""

    class Only(Workflow[Order]):
        name = "only"
        by_hand = manual()
        one = step(body, **options)
        transitions = path(one)

    return Only.definition


async def finished(mesh: SquidMesh, workflow: Any = "only") -> Run:
    run = await mesh.start_run(workflow)
    await mesh.run_until_idle()
    return await history(mesh, run)


async def test_a_mapping_without_an_output_key_is_merged(open_mesh: OpenMesh) -> None:
    def more() -> dict[str, Any]:
        return {"a": 1, "b": {"c": [2]}}

    mesh = await open_mesh(only(more))

    assert (await finished(mesh)).context == {"a": 1, "b": {"c": [2]}}


async def test_an_object_without_an_output_key_is_merged_field_by_field(
    open_mesh: OpenMesh,
) -> None:
    @attrs.frozen
    class Found:
        price: int = 7

    def look() -> Found:
        return Found()

    mesh = await open_mesh(only(look))

    assert (await finished(mesh)).context == {"price": 7}


async def test_none_adds_nothing_to_the_context(open_mesh: OpenMesh) -> None:
    def nothing() -> None: ...

    mesh = await open_mesh(only(nothing))

    done = await finished(mesh)
    assert (done.status, done.context) == ("completed", {})


async def test_none_under_an_output_key_is_kept_there(open_mesh: OpenMesh) -> None:
    def nothing() -> None: ...

    mesh = await open_mesh(only(nothing, output="found"))

    assert (await finished(mesh)).context == {"found": None}


async def test_whatever_json_holds_is_kept_under_an_output_key(open_mesh: OpenMesh) -> None:
    def look() -> list[Any]:
        return [1, None, {"a": [True]}, "x"]

    mesh = await open_mesh(only(look, output="found"))

    assert (await finished(mesh)).context == {"found": [1, None, {"a": [True]}, "x"]}


def recursive() -> object:
    found: dict[str, object] = {}
    found["self"] = found
    return found


BAD_RESULTS: list[tuple[Callable[[], object], str | None, str]] = [
    (lambda: 5, None, "invalid_result"),
    (lambda: "text", None, "invalid_result"),
    (lambda: [1], None, "invalid_result"),
    (lambda: {"schedule": 1}, None, "invalid_result"),
    (object, "found", "unserializable_result"),
    (lambda: {"x": {1, 2}}, None, "unserializable_result"),
    (lambda: b"raw", "found", "unserializable_result"),
    (lambda: float("nan"), "found", "unserializable_result"),
    (lambda: {1: 2}, "found", "unserializable_result"),
    (lambda: "a\x00", "found", "unserializable_result"),
    (lambda: "\ud800", "found", "unserializable_result"),
    (lambda: 2**70, "found", "unserializable_result"),
    (recursive, "found", "unserializable_result"),
    (lambda: (number for number in range(3)), "found", "unserializable_result"),
    (lambda: "x" * 3000, "found", "result_too_large"),
]


@pytest.mark.parametrize(("body", "output", "code"), BAD_RESULTS, ids=range(len(BAD_RESULTS)))
async def test_a_result_that_cannot_be_kept_fails_the_step_for_good_and_the_worker_lives(
    open_mesh: OpenMesh, body: Callable[[], object], output: str | None, code: str
) -> None:
    def call() -> object:
        return body()

    def fine() -> None: ...

    class Fine(Workflow[Order]):
        name = "fine"
        by_hand = manual()
        one = step(fine)
        transitions = path(one)

    mesh = await open_mesh(only(call, output=output, retry=Retry(5)), Fine, max_payload_bytes=2048)

    failed = await finished(mesh)

    assert failed.status == "failed"
    assert error_of(failed)["code"] == code
    assert error_of(failed)["retryable"] is False
    assert attempt_statuses(failed, "one") == ["failed"]
    assert failed.context == {}
    assert (await finished(mesh, "fine")).status == "completed"


async def test_a_raised_exception_is_tried_again_with_doubling_delays_up_to_the_most(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    def fail() -> None:
        raise ConnectionError("busy")

    policy = Retry(5, backoff_min=timedelta(seconds=2), backoff_max=timedelta(seconds=10))
    mesh = await open_mesh(only(fail, retry=policy))
    run = await mesh.start_run("only")
    await mesh.run_until_idle()

    for _ in range(4):
        clock.advance(10)
        await mesh.run_until_idle()

    failed = await history(mesh, run)
    attempts = step_of(failed, "one").attempts
    delays = [
        (attempt.visible_at - attempt.scheduled_at).total_seconds() for attempt in attempts[1:]
    ]
    assert failed.status == "failed"
    assert delays == [2, 4, 8, 10]
    assert [attempt.number for attempt in attempts] == [1, 2, 3, 4, 5]
    assert error_of(failed)["code"] == "step_exception"


async def test_a_retry_is_not_claimed_before_its_time(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    calls: list[int] = []

    def fail(context: StepContext) -> None:
        calls.append(context.attempt)
        raise ConnectionError

    mesh = await open_mesh(only(fail, retry=Retry(2, backoff_min=MINUTE)))
    await mesh.start_run("only")
    await mesh.run_until_idle()

    clock.advance(MINUTE - timedelta(seconds=1))
    await mesh.run_until_idle()
    early = list(calls)
    clock.advance(SECOND)
    await mesh.run_until_idle()

    assert early == [1]
    assert calls == [1, 2]


async def test_delays_of_less_than_a_poll_are_timers_like_any_other(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    def fail() -> None:
        raise ConnectionError

    mesh = await open_mesh(only(fail, retry=Retry(2, backoff_min=timedelta(milliseconds=10))))
    run = await mesh.start_run("only")

    async with asyncio.timeout(5):
        await mesh.run_until_idle()

    assert (await mesh.inspect_run(run.id)).status == "retrying"


async def test_without_a_policy_there_is_one_attempt(open_mesh: OpenMesh) -> None:
    def fail() -> None:
        raise ConnectionError

    mesh = await open_mesh(only(fail))

    failed = await finished(mesh)
    assert failed.status == "failed"
    assert attempt_statuses(failed, "one") == ["failed"]


async def test_without_a_backoff_all_attempts_follow_at_once(open_mesh: OpenMesh) -> None:
    def fail(context: StepContext) -> str:
        if context.attempt < 3:
            raise ConnectionError
        return f"attempt {context.attempt}"

    mesh = await open_mesh(only(fail, output="said", retry=Retry(3)))

    done = await finished(mesh)
    assert done.context == {"said": "attempt 3"}
    assert attempt_statuses(done, "one") == ["failed", "failed", "completed"]
    assert done.error is None


async def test_an_error_is_final_unless_it_says_otherwise(open_mesh: OpenMesh) -> None:
    def refuse() -> Errored:
        return Errored("no")

    mesh = await open_mesh(only(refuse, retry=Retry(5)))

    failed = await finished(mesh)
    assert error_of(failed)["code"] == "step_error"
    assert error_of(failed)["message"] == "no"
    assert attempt_statuses(failed, "one") == ["failed"]


async def test_a_retryable_error_follows_the_policy_and_retry_after_overrides_its_delay(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    def busy(context: StepContext) -> Errored:
        after = timedelta(minutes=5) if context.attempt == 1 else None
        return Errored("busy", retryable=True, retry_after=after)

    mesh = await open_mesh(only(busy, retry=Retry(3, backoff_min=SECOND)))
    run = await mesh.start_run("only")
    await mesh.run_until_idle()
    clock.advance(timedelta(minutes=5))
    await mesh.run_until_idle()

    seen = await history(mesh, run)
    first, second, third = step_of(seen, "one").attempts
    assert second.visible_at - second.scheduled_at == timedelta(minutes=5)
    assert third.visible_at - third.scheduled_at == timedelta(seconds=2)
    assert first.error is not None
    assert first.error["retryable"] is True


async def test_jitter_moves_a_delay_by_no_more_than_its_fraction(open_mesh: OpenMesh) -> None:
    def fail() -> None:
        raise ConnectionError

    policy = Retry(2, backoff_min=timedelta(seconds=100), jitter=0.5)
    mesh = await open_mesh(only(fail, retry=policy))
    ids = await mesh.start_runs("only", [{}] * 30)
    await mesh.run_until_idle()

    delays = []
    for run_id in ids:
        latest = step_of(await history(mesh, run_id), "one").attempts[-1]
        delays.append((latest.visible_at - latest.scheduled_at).total_seconds())
    assert 50 <= min(delays) < max(delays) <= 150


class Routed(Workflow[Order]):
    name = "routed"
    by_hand = manual()
    ask = step(lambda: Errored("no answer"), output="answer")
    tell = log("told")
    page = log("paged")
    transitions = (path(ask, tell), path(page), ask.on_error(page))


async def test_an_error_route_is_taken_and_the_run_goes_on_without_an_error(
    open_mesh: OpenMesh,
) -> None:
    mesh = await open_mesh(Routed)

    done = await finished(mesh, Routed)

    assert (done.status, done.error) == ("completed", None)
    assert step_statuses(done) == {"ask": "failed", "tell": "skipped", "page": "completed"}
    assert error_of(step_of(done, "ask"))["message"] == "no answer"


async def test_an_error_route_waits_until_the_attempts_are_used_up(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    def fail() -> None:
        raise ConnectionError

    class Later(Workflow[Order]):
        name = "later"
        by_hand = manual()
        ask = step(fail, retry=Retry(2, backoff_min=SECOND))
        page = log("paged")
        transitions = (path(ask), path(page), ask.on_error(page))

    mesh = await open_mesh(Later)
    early = await finished(mesh, Later)
    clock.advance(2)
    await mesh.run_until_idle()

    assert step_statuses(early) == {"ask": "retrying", "page": "waiting"}
    assert step_statuses(await history(mesh, early)) == {"ask": "failed", "page": "completed"}


async def test_an_error_route_may_lead_to_the_end(open_mesh: OpenMesh) -> None:
    class Ended(Workflow[Order]):
        name = "ended"
        by_hand = manual()
        ask = step(lambda: Errored("no"), output="answer")
        tell = log("told")
        transitions = (path(ask, tell), ask.on_error(Workflow.complete))

    mesh = await open_mesh(Ended)

    done = await finished(mesh, Ended)
    assert (done.status, done.error) == ("completed", None)
    assert step_statuses(done) == {"ask": "failed", "tell": "skipped"}


async def test_an_outcome_that_no_route_fits_fails_the_run_and_leaves_the_step_completed(
    open_mesh: OpenMesh,
) -> None:
    def do_judge() -> dict[str, str]:
        return {"verdict": "odd"}

    class Narrow(Workflow[Order]):
        name = "narrow"
        by_hand = manual()
        judge = step(do_judge)
        good = log("good")
        bad = log("bad")
        transitions = (
            judge.on_ok(good, when=when("verdict", equals="good")),
            judge.on_ok(bad, when=when("verdict", equals="bad")),
            path(good),
            path(bad),
        )

    mesh = await open_mesh(Narrow)

    failed = await finished(mesh, Narrow)
    assert failed.status == "failed"
    assert error_of(failed)["code"] == "no_matching_transition"
    assert error_of(failed)["step"] == "judge"
    assert step_statuses(failed) == {"judge": "completed", "good": "skipped", "bad": "skipped"}
    assert failed.context == {"verdict": "odd"}


async def test_an_error_that_no_error_route_fits_fails_the_run_with_the_step_failed(
    open_mesh: OpenMesh,
) -> None:
    class Narrow(Workflow[Order]):
        name = "narrow"
        by_hand = manual()
        ask = step(lambda: Errored("no", code="declined"), output="answer")
        page = log("paged")
        transitions = (
            path(ask),
            path(page),
            ask.on_error(page, when=when("amount", greater_than=1_000)),
        )

    mesh = await open_mesh(Narrow)

    failed = await finished(mesh, Narrow)
    assert error_of(failed)["code"] == "no_matching_transition"
    assert step_statuses(failed) == {"ask": "failed", "page": "skipped"}
    assert error_of(step_of(failed, "ask"))["code"] == "declined"


async def test_deferrals_use_up_no_attempt_and_the_thousand_and_first_is_too_much(
    deploy: Deploy, clock: VirtualClock
) -> None:
    calls: list[int] = []

    async def later(context: StepContext) -> Deferred:
        calls.append(context.attempt)
        return Deferred(MINUTE if len(calls) == 500 else timedelta(0))

    # In two processes, so that what is counted is what is stored.
    definition = only(later, output="x", retry=Retry(5))
    async with deploy(definition) as first:
        half_way = await finished(first)
    clock.advance(MINUTE)
    async with deploy(definition) as second:
        await second.run_until_idle()
        failed = await history(second, half_way)

    assert half_way.status == "running"
    assert error_of(failed)["code"] == "deferred_too_often"
    assert error_of(failed)["retryable"] is False
    assert calls == [1] * 1_001
    assert attempt_statuses(failed, "one") == ["failed"]


async def test_losses_count_as_deliveries_and_neither_as_attempts_nor_in_the_backoff(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    gate, calls = Gate(), [0]

    async def work() -> None:
        calls[0] += 1
        if calls[0] <= 2:
            await gate.wait()
        raise ConnectionError

    mesh = await open_mesh(only(work, retry=Retry(2, backoff_min=timedelta(seconds=10))))
    run = await mesh.start_run("only")
    for _ in range(2):
        await die_at(mesh, gate)
        clock.advance(LEASE + SECOND)
        await mesh.recover()
    await mesh.run_until_idle()
    waiting = await history(mesh, run)
    clock.advance(10)
    await mesh.run_until_idle()

    failed = await history(mesh, run)
    latest = step_of(waiting, "one").attempts[-1]
    assert attempt_statuses(waiting, "one") == ["lost", "lost", "failed", "scheduled"]
    assert latest.visible_at - latest.scheduled_at == timedelta(seconds=10)
    assert step_of(waiting, "one").deliveries == 2
    assert failed.status == "failed"
    assert attempt_statuses(failed, "one") == ["lost", "lost", "failed", "failed"]


@pytest.mark.parametrize("most", [1, 5])
async def test_a_step_that_keeps_killing_its_worker_is_poisoned(
    open_mesh: OpenMesh, clock: VirtualClock, most: int
) -> None:
    gate = Gate()

    async def kill() -> None:
        await gate.wait()

    options = {} if most == 5 else {"max_deliveries": most}
    mesh = await open_mesh(only(kill, retry=Retry(9)), **options)
    run = await mesh.start_run("only")

    for _ in range(most):
        await die_at(mesh, gate)
        clock.advance(LEASE + SECOND)
        await mesh.recover()

    failed = await history(mesh, run)
    assert failed.status == "failed"
    assert error_of(failed)["code"] == "poisoned"
    assert attempt_statuses(failed, "one") == ["lost"] * most
    assert step_of(failed, "one").deliveries == most


async def test_a_poisoned_step_takes_its_error_route(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    gate = Gate()

    async def kill() -> None:
        await gate.wait()

    class Routed(Workflow[Order]):
        name = "routed"
        by_hand = manual()
        work = step(kill)
        page = log("paged")
        transitions = (path(work), path(page), work.on_error(page))

    mesh = await open_mesh(Routed, max_deliveries=1)
    run = await mesh.start_run(Routed)
    await die_at(mesh, gate)
    clock.advance(LEASE)

    await mesh.recover()
    await mesh.run_until_idle()

    assert step_statuses(await history(mesh, run)) == {"work": "failed", "page": "completed"}


async def test_the_limit_of_an_async_body_cancels_it_and_may_be_tried_again(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    gate, ends = Gate(), []

    async def slow(context: StepContext) -> str:
        if context.attempt == 2:
            return "quick"
        try:
            await gate.wait()
        except asyncio.CancelledError:
            ends.append(context.cancelled)
            raise
        return "slow"

    mesh = await open_mesh(only(slow, output="said", timeout=SECOND * 30, retry=Retry(2)))
    run = await mesh.start_run("only")
    worker = asyncio.create_task(mesh.run_until_idle())
    await gate.entered.wait()

    clock.advance(30)
    await worker

    done = await history(mesh, run)
    assert ends == [True]
    assert context_of(done) == {"said": "quick"}
    assert attempt_statuses(done, "one") == ["failed", "completed"]
    first = step_of(done, "one").attempts[0].error
    assert first is not None
    assert (first["code"], first["retryable"]) == ("timeout", True)


async def test_the_limit_of_a_plain_body_leaves_it_to_its_thread_which_learns_of_it(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    loop = asyncio.get_running_loop()
    entered, may_end, ended = asyncio.Event(), threading.Event(), asyncio.Event()
    told: list[bool] = []

    def slow(context: StepContext) -> None:
        loop.call_soon_threadsafe(entered.set)
        may_end.wait(10)
        told.append(context.cancelled)
        loop.call_soon_threadsafe(ended.set)

    mesh = await open_mesh(only(slow, timeout=SECOND))
    run = await mesh.start_run("only")
    worker = asyncio.create_task(mesh.run_until_idle())
    await entered.wait()
    clock.advance(1)
    await worker
    failed = await history(mesh, run)
    may_end.set()
    await ended.wait()

    assert error_of(failed)["code"] == "timeout"
    assert told == [True]
    assert await history(mesh, run) == failed


async def test_a_body_within_its_limit_is_not_disturbed_by_it(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(only(lambda: {"a": 1}, timeout=SECOND))

    assert (await finished(mesh)).context == {"a": 1}


@pytest.mark.parametrize("problem", [SystemExit(3), asyncio.CancelledError(), StopIteration()])
async def test_a_body_may_raise_what_it_likes_and_the_worker_lives(
    open_mesh: OpenMesh, problem: BaseException
) -> None:
    async def fail() -> None:
        raise problem

    mesh = await open_mesh(only(fail))

    failed = await finished(mesh)
    assert failed.status == "failed"
    assert error_of(failed)["code"] == "step_exception"


async def test_a_plain_body_may_raise_what_it_likes_and_the_worker_lives(
    open_mesh: OpenMesh,
) -> None:
    def leave() -> None:
        raise SystemExit(3)

    mesh = await open_mesh(only(leave))

    failed = await finished(mesh)
    assert error_of(failed)["code"] == "step_exception"
    assert error_of(failed)["type"] == "SystemExit"


async def test_a_message_that_no_store_takes_is_cleaned(open_mesh: OpenMesh) -> None:
    class OddError(Exception):
        def __str__(self) -> str:
            return "a\x00b \ud800"

    def fail() -> None:
        raise OddError

    mesh = await open_mesh(only(fail))

    message = error_of(await finished(mesh))["message"]
    assert "\x00" not in message
    assert message.encode()


async def test_details_that_json_cannot_hold_do_not_hide_the_error(open_mesh: OpenMesh) -> None:
    def fail() -> Errored:
        return Errored("no", code="declined", details={"when": object()})

    mesh = await open_mesh(only(fail, output="x"))

    error = error_of(await finished(mesh))
    assert (error["code"], error["message"]) == ("declined", "no")


async def test_a_parameter_that_nothing_provided_fails_the_attempt_before_the_body_runs(
    open_mesh: OpenMesh,
) -> None:
    called: list[str] = []

    def merge() -> dict[str, Any]:
        return {"other": 1}

    def do_use(price: int) -> None:
        called.append(str(price))

    class Gap(Workflow[Order]):
        name = "gap"
        by_hand = manual()
        look = step(merge)
        use = step(do_use, retry=Retry(5))
        transitions = path(look, use)

    mesh = await open_mesh(Gap)

    failed = await finished(mesh, Gap)
    assert called == []
    assert error_of(failed)["code"] == "missing_input"
    assert error_of(failed)["retryable"] is False
    assert attempt_statuses(failed, "use") == ["failed"]


async def test_a_value_that_does_not_fit_its_parameter_fails_the_attempt_for_good(
    open_mesh: OpenMesh,
) -> None:
    def say() -> dict[str, Any]:
        return {"price": "much"}

    def do_use(price: int) -> None: ...

    class Misfit(Workflow[Order]):
        name = "misfit"
        by_hand = manual()
        look = step(say)
        use = step(do_use, retry=Retry(5))
        transitions = path(look, use)

    mesh = await open_mesh(Misfit)

    failed = await finished(mesh, Misfit)
    assert error_of(failed)["code"] == "invalid_input"
    assert "much" not in error_of(failed)["message"]
    assert attempt_statuses(failed, "use") == ["failed"]
