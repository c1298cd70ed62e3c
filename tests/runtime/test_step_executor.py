"""What becomes of whatever a body returns, raises or does not do."""

import asyncio
import contextvars
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import attrs
import pytest

from squidmesh import Deferred, Errored, Retry, StepContext, path, step
from squidmesh.system import SystemClock
from squidmesh.testing.clock import VirtualClock
from tests.runtime.conftest import OpenMesh
from tests.runtime.support import (
    SECOND,
    Door,
    Gate,
    attempts_of,
    ended,
    error_of,
    history,
    in_a_row,
    only,
    step_of,
    turns,
    until,
    workflow,
)

pytestmark = pytest.mark.anyio


def giving(value: object) -> Callable[[], object]:
    def give() -> object:
        return value

    return give


def raising(problem: BaseException) -> Callable[[], object]:
    def fail() -> object:
        raise problem

    return fail


def raising_later(problem: BaseException) -> Callable[[], object]:
    async def fail() -> object:
        await asyncio.sleep(0)  # noqa: TID251  it only yields
        raise problem

    return fail


@attrs.frozen
class Receipt:
    number: str
    on: date


class Lazy(Mapping[str, object]):
    """A mapping that breaks when it is looked into."""

    def __getitem__(self, key: str) -> object:
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        raise ZeroDivisionError("no")

    def __len__(self) -> int:
        return 1


async def never() -> None:
    raise AssertionError("nobody awaits this")


# -- results ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (None, None),
        (0, 0),
        (False, False),
        ("", ""),
        ([], []),
        ((1, "two"), [1, "two"]),
        ({"a": {"b": None}}, {"a": {"b": None}}),
        (Receipt("r1", date(2030, 1, 2)), {"number": "r1", "on": "2030-01-02"}),
        (Decimal("1.50"), "1.50"),
        (UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (datetime(2030, 1, 2, tzinfo=UTC), "2030-01-02T00:00:00+00:00"),
        (2**63 - 1, 2**63 - 1),
    ],
    ids=str,
)
async def test_with_an_output_key_any_json_value_is_kept_under_it(
    composed: OpenMesh, value: object, stored: object
) -> None:
    made = only(giving(value), output="said")
    mesh = await composed(made)

    run = await ended(mesh, made)

    assert run.status == "completed"
    assert run.context == {"said": stored}
    assert step_of(run, "first").output == stored


@pytest.mark.parametrize(
    ("value", "context"),
    [
        (None, {}),
        ({}, {}),
        ({"a": 1, "b": [2]}, {"a": 1, "b": [2]}),
        (Receipt("r1", date(2030, 1, 2)), {"number": "r1", "on": "2030-01-02"}),
    ],
    ids=str,
)
async def test_without_an_output_key_a_mapping_is_merged_and_none_adds_nothing(
    composed: OpenMesh, value: object, context: object
) -> None:
    made = only(giving(value))
    mesh = await composed(made)

    run = await ended(mesh, made)

    assert run.status == "completed"
    assert run.context == context


@pytest.mark.parametrize("value", [1, True, "text", [1], ("a", 1), date(2030, 1, 2)], ids=repr)
async def test_without_an_output_key_anything_else_is_an_invalid_result(
    composed: OpenMesh, value: object
) -> None:
    made = only(giving(value), retry=Retry(3))
    mesh = await composed(made)

    run = await ended(mesh, made)

    assert error_of(run)["code"] == "invalid_result"
    assert error_of(run)["retryable"] is False
    assert attempts_of(run) == ["failed"]


class Flag:
    pass


UNSERIALIZABLE: Final[dict[str, object]] = {
    "nan": math.nan,
    "infinity": -math.inf,
    "bytes": b"abc",
    "set": {1},
    "object": Flag(),
    "function": giving(1),
    "integer key": {1: 2},
    "integer of 65 bits": 2**64,
    "nul": "a\0b",
    "half a character": "\ud800",
    "half a character as a key": {"\udfff": 1},
    "deep down": {"a": [{"b": [math.nan]}]},
    "a class": Receipt,
    "an exception": ValueError("no"),
    "a broken mapping": Lazy(),
    "an iterator": iter([1]),
}


@pytest.mark.parametrize("value", UNSERIALIZABLE.values(), ids=UNSERIALIZABLE.keys())
@pytest.mark.parametrize("output", ["said", None], ids=["kept", "merged"])
async def test_what_json_cannot_hold_is_an_unserializable_result(
    composed: OpenMesh, value: object, output: str | None
) -> None:
    made = only(giving(value), output=output, retry=Retry(3))
    mesh = await composed(made)

    run = await ended(mesh, made)

    assert run.status == "failed"
    assert error_of(run)["code"] == "unserializable_result"
    assert error_of(run)["retryable"] is False
    assert attempts_of(run) == ["failed"]


async def test_a_structure_that_contains_itself_or_is_too_deep_is_unserializable(
    composed: OpenMesh,
) -> None:
    circle: list[object] = []
    circle.append(circle)
    deep: list[object] = []
    for _ in range(100):
        deep = [deep]
    one, other = only(giving(circle), output="said"), in_a_row("deep", giving(deep), output="said")
    mesh = await composed(one, other)

    runs = [await ended(mesh, one), await ended(mesh, other)]

    assert [error_of(run)["code"] for run in runs] == ["unserializable_result"] * 2


async def test_a_result_over_the_limit_is_too_large_and_names_no_value(
    composed: OpenMesh,
) -> None:
    made = only(giving({"text": "x" * 1000}), retry=Retry(3))
    mesh = await composed(made, max_payload_bytes=1000)

    run = await ended(mesh, made)

    assert error_of(run)["code"] == "result_too_large"
    assert "xxx" not in str(error_of(run))
    assert attempts_of(run) == ["failed"]


async def test_a_result_at_the_limit_is_kept(composed: OpenMesh) -> None:
    made = only(giving("x" * 998), output="said")
    mesh = await composed(made, max_payload_bytes=1000)

    run = await ended(mesh, made)

    assert run.status == "completed"


async def test_a_coroutine_that_a_plain_function_returns_is_closed_and_refused(
    composed: OpenMesh,
) -> None:
    made_coroutines: list[Any] = []

    def forget_to_await() -> object:
        made_coroutines.append(never())
        return made_coroutines[-1]

    made = only(forget_to_await, output="said")
    mesh = await composed(made)

    run = await ended(mesh, made)

    assert error_of(run)["code"] == "unserializable_result"
    assert made_coroutines[0].cr_frame is None


@pytest.mark.parametrize("value", [{"schedule": 1}, {"schedule": None, "other": 2}])
async def test_no_step_may_merge_the_reserved_key_schedule(
    composed: OpenMesh, value: object
) -> None:
    made = only(giving(value))
    mesh = await composed(made)

    run = await ended(mesh, made)

    assert error_of(run)["code"] == "invalid_result"
    assert run.context == {}


# -- Errored and Deferred --------------------------------------------------------------------


async def test_errored_is_final_and_keeps_its_code_message_and_details(
    composed: OpenMesh,
) -> None:
    said = Errored("card declined", code="declined", details={"reason": ["funds"]})
    made = only(giving(said), retry=Retry(3))
    mesh = await composed(made)

    run = await ended(mesh, made)

    assert error_of(run) == {
        "code": "declined",
        "message": "card declined",
        "type": None,
        "details": {"reason": ["funds"]},
        "retryable": False,
        "step": "first",
    }
    assert attempts_of(run) == ["failed"]


async def test_a_retryable_errored_follows_the_policy(
    composed: OpenMesh, clock: VirtualClock
) -> None:
    made = only(
        giving(Errored("busy", retryable=True)), retry=Retry(3, backoff_min=timedelta(seconds=10))
    )
    mesh = await composed(made)

    run = await ended(mesh, made)
    waits = []
    while run.status == "retrying":
        due = step_of(run, "first").attempts[-1].visible_at
        waits.append(due - clock.now())
        clock.advance(due - clock.now())
        await mesh.run_until_idle()
        run = await history(mesh, run)

    assert waits == [10 * SECOND, 20 * SECOND]
    assert run.status == "failed"
    assert error_of(run)["retryable"] is True


@pytest.mark.parametrize(
    ("wish", "wait"),
    [
        (timedelta(minutes=7), timedelta(minutes=7)),
        (timedelta(0), timedelta(0)),
        (timedelta(seconds=-5), timedelta(0)),
    ],
    ids=str,
)
async def test_retry_after_overrides_the_policys_delay(
    composed: OpenMesh, clock: VirtualClock, wish: timedelta, wait: timedelta
) -> None:
    calls: list[int] = []

    def busy_once(context: StepContext) -> Errored | None:
        calls.append(context.attempt)
        return Errored("busy", retryable=True, retry_after=wish) if context.attempt == 1 else None

    made = only(busy_once, retry=Retry(2, backoff_min=SECOND))
    mesh = await composed(made)

    run = await ended(mesh, made)

    _, second = step_of(run, "first").attempts
    assert second.visible_at - second.scheduled_at == wait
    assert calls == ([1, 2] if not wait else [1])


class Unprintable:
    def __repr__(self) -> str:
        raise SystemExit("not even this")


HOSTILE: Final[dict[str, Errored]] = {
    "details that json cannot hold": Errored("no", details={"at": {1, 2}}),
    "details with a broken mapping": Errored("no", details=Lazy()),
    "details that are no mapping": Errored("no", details="abc"),  # type: ignore[arg-type]
    "details that are pairs of too many": Errored("no", details=[1, 2]),  # type: ignore[arg-type]
    "details that are too large": Errored("no", details={"text": "x" * 3_000_000}),
    "a message with nul and half a character": Errored("a\0b\ud800c"),
    "a message that is no text": Errored(Flag()),  # type: ignore[arg-type]
    "a message that cannot be shown": Errored(Unprintable()),  # type: ignore[arg-type]
    "a code that is no text": Errored("no", code=7),  # type: ignore[arg-type]
    "an endless message": Errored("x" * 50_000_000),
    "a retry_after that is no time": Errored("no", retryable=True, retry_after=5),  # type: ignore[arg-type]
    "a retry_after beyond all calendars": Errored("no", retryable=True, retry_after=timedelta.max),
    "a retryable that is no truth": Errored("no", retryable="perhaps"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("said", HOSTILE.values(), ids=HOSTILE.keys())
async def test_a_hostile_errored_still_ends_its_attempt_as_a_failure(
    composed: OpenMesh, said: Errored
) -> None:
    made = only(giving(said), retry=Retry(2, backoff_min=SECOND))
    mesh = await composed(made)

    run = await ended(mesh, made)

    assert run.status in ("failed", "retrying")
    error = step_of(run, "first").attempts[0].error
    assert error is not None
    assert len(str(error["message"])) <= 8192
    assert "\0" not in str(error["message"])
    assert type(error["retryable"]) is bool


async def test_deferred_brings_the_same_attempt_back_later(
    composed: OpenMesh, clock: VirtualClock
) -> None:
    seen: list[tuple[int, str]] = []

    def too_early_twice(context: StepContext) -> Deferred | None:
        seen.append((context.attempt, context.runnable_key))
        return Deferred(SECOND, reason="too early") if len(seen) < 3 else None

    made = only(too_early_twice)
    mesh = await composed(made)

    run = await ended(mesh, made)
    for _ in range(2):
        clock.advance(1)
        await mesh.run_until_idle()

    run = await history(mesh, run)
    assert run.status == "completed"
    assert len(set(seen)) == 1
    assert attempts_of(run) == ["completed"]


@pytest.mark.parametrize(
    "said",
    [
        Deferred(5),  # type: ignore[arg-type]
        Deferred(None),  # type: ignore[arg-type]
        Deferred(timedelta.max),
        Deferred(SECOND, reason="a\0b\ud800"),
        Deferred(SECOND, reason=7),  # type: ignore[arg-type]
        Deferred(SECOND, reason="x" * 50_000_000),
        Deferred(SECOND, reason=Unprintable()),  # type: ignore[arg-type]
    ],
    ids=["a number", "none", "for ever", "half a character", "no text", "endless", "unprintable"],
)
async def test_a_hostile_deferral_is_put_off_or_refused_and_never_abandoned(
    composed: OpenMesh, said: Deferred
) -> None:
    made = only(giving(said))
    mesh = await composed(made)

    run = await ended(mesh, made)

    (attempt,) = step_of(run, "first").attempts
    if isinstance(said.delay, timedelta):
        assert attempt.status == "scheduled"
    else:
        assert error_of(run)["code"] == "invalid_result"


# -- what a body may raise -------------------------------------------------------------------


class Broken(Exception):  # noqa: N818
    def __str__(self) -> str:
        raise SystemExit("not even this")


class Custom(ValueError):  # noqa: N818
    pass


ACCIDENTS: Final[dict[str, tuple[BaseException, str, str]]] = {
    "exception": (ValueError("no"), "ValueError", "no"),
    "a class of one's own": (Custom("no"), "Custom", "no"),
    "empty": (Custom(), "Custom", ""),
    "a group": (
        ExceptionGroup("many", [ValueError("a"), KeyError("b")]),
        "ExceptionGroup",
        "many (2 sub-exceptions)",
    ),
    "a base group": (
        BaseExceptionGroup("all", [SystemExit(1)]),
        "BaseExceptionGroup",
        "all (1 sub-exception)",
    ),
    "SystemExit": (SystemExit(3), "SystemExit", "3"),
    "CancelledError": (asyncio.CancelledError("mine"), "CancelledError", "mine"),
    "TimeoutError": (TimeoutError("mine"), "TimeoutError", "mine"),
    "StopAsyncIteration": (StopAsyncIteration("x"), "StopAsyncIteration", "x"),
    "RecursionError": (RecursionError("deep"), "RecursionError", "deep"),
    "MemoryError": (MemoryError("full"), "MemoryError", "full"),
    "nul": (KeyError("a\0b"), "KeyError", "'a\\x00b'"),
    "a real nul": (ValueError("a\0b"), "ValueError", "a\N{REPLACEMENT CHARACTER}b"),
    "half a character": (ValueError("a\ud800b"), "ValueError", "a?b"),
    "50 MB": (ValueError("x" * 50_000_000), "ValueError", "x" * 8192),
    "no text": (Broken(), "Broken", "(the Broken cannot be shown as text)"),
}


@pytest.mark.parametrize(("problem", "kind", "message"), ACCIDENTS.values(), ids=ACCIDENTS.keys())
@pytest.mark.parametrize("timeout", [None, 10 * SECOND], ids=["unbounded", "bounded"])
@pytest.mark.parametrize("how", [raising, raising_later], ids=["plain", "async"])
async def test_whatever_is_raised_fails_the_attempt_and_the_worker_lives(  # noqa: PLR0917
    composed: OpenMesh,
    how: Callable[[BaseException], Callable[[], object]],
    timeout: timedelta | None,
    problem: BaseException,
    kind: str,
    message: str,
) -> None:
    def fine() -> None: ...

    made, other = only(how(problem), timeout=timeout), in_a_row("other", fine)
    mesh = await composed(made, other)

    run = await ended(mesh, made)

    error = error_of(run)
    assert (error["code"], error["type"], error["retryable"]) == ("step_exception", kind, True)
    assert message in error["message"]
    assert len(error["message"]) <= 8192
    assert (await ended(mesh, other)).status == "completed"


@pytest.mark.parametrize("kind", [KeyboardInterrupt, GeneratorExit])
async def test_a_plain_body_in_its_thread_cannot_interrupt_the_worker(
    composed: OpenMesh, kind: type[BaseException]
) -> None:
    made = only(raising(kind("not from the keyboard")))
    mesh = await composed(made)

    run = await ended(mesh, made)

    assert run.status == "failed"
    assert error_of(run)["type"] == kind.__name__


async def test_raising_is_retried_as_the_policy_says(composed: OpenMesh) -> None:
    def second_time_lucky(context: StepContext) -> dict[str, int]:
        if context.attempt == 1:
            raise OSError("gone")
        return {"attempt": context.attempt}

    made = only(second_time_lucky, retry=Retry(2))
    mesh = await composed(made)

    run = await ended(mesh, made)

    assert run.status == "completed"
    assert run.context == {"attempt": 2}
    assert attempts_of(run) == ["failed", "completed"]
    assert step_of(run, "first").error is None


# -- timeouts --------------------------------------------------------------------------------


async def test_an_async_body_is_cancelled_at_its_timeout(
    composed: OpenMesh, clock: VirtualClock
) -> None:
    gate, seen = Gate(), []

    async def slow(context: StepContext) -> None:
        try:
            await gate.wait()
        except asyncio.CancelledError:
            seen.append(context.cancelled)
            raise

    made = only(slow, timeout=5 * SECOND)
    mesh = await composed(made)
    run = await mesh.start_run(made)
    working = asyncio.create_task(mesh.run_until_idle())
    await gate.reached()

    clock.advance(5)
    await working

    run = await history(mesh, run)
    assert error_of(run)["code"] == "timeout"
    assert error_of(run)["retryable"] is True
    assert "5 s" in error_of(run)["message"]
    assert seen == [True]


async def test_a_plain_body_is_left_to_end_and_told_so_and_its_late_result_is_dropped(
    composed: OpenMesh, clock: VirtualClock
) -> None:
    door, contexts = Door(), []

    def slow(context: StepContext) -> dict[str, int]:
        contexts.append(context)
        if context.attempt == 1:
            door.wait()
        return {"attempt": context.attempt}

    made = only(slow, timeout=5 * SECOND, retry=Retry(2))
    mesh = await composed(made)
    run = await mesh.start_run(made)
    working = asyncio.create_task(mesh.run_until_idle())
    await door.entered()

    clock.advance(5)
    await working

    engine = await mesh.engine()
    assert contexts[0].cancelled
    assert len(engine.bodies.leftovers) == 1
    run = await history(mesh, run)
    assert attempts_of(run) == ["failed", "completed"]
    door.open()
    await until(lambda: not engine.bodies.leftovers)
    assert (await mesh.inspect_run(run.id)).context == {"attempt": 2}


async def test_a_body_that_swallows_its_cancellation_fails_at_the_timeout_all_the_same(
    composed: OpenMesh, clock: VirtualClock
) -> None:
    gate, again = Gate(), Gate()

    async def stubborn() -> dict[str, int]:
        try:
            await gate.wait()
        except asyncio.CancelledError:
            await again.wait()
        raise ValueError("far too late")

    made = only(stubborn, timeout=5 * SECOND)
    mesh = await composed(made)
    run = await mesh.start_run(made)
    working = asyncio.create_task(mesh.run_until_idle())
    await gate.reached()

    clock.advance(5)
    await working

    run = await history(mesh, run)
    assert error_of(run)["code"] == "timeout"
    engine = await mesh.engine()
    assert len(engine.bodies.leftovers) == 1
    again.opened.set()
    await until(lambda: not engine.bodies.leftovers)


async def test_a_body_that_is_faster_than_its_timeout_is_not_bothered(
    composed: OpenMesh, clock: VirtualClock
) -> None:
    async def quick(context: StepContext) -> dict[str, bool]:
        return {"cancelled": context.cancelled}

    def plain(context: StepContext) -> dict[str, bool]:
        return {"too": context.cancelled}

    made = in_a_row("quick", quick, plain, timeout=5 * SECOND)
    mesh = await composed(made)

    run = await ended(mesh, made)

    assert run.context == {"cancelled": False, "too": False}
    await turns()
    assert clock.sleepers <= 1  # the heart's


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "plain"])
async def test_a_timeout_counts_real_time_under_the_real_clock(
    composed: OpenMesh, is_async: bool
) -> None:
    gate, door = Gate(), Door()

    async def slow() -> None:
        await gate.wait()

    made = only(slow if is_async else door.wait, timeout=timedelta(milliseconds=20))
    clock = SystemClock()
    from tests.runtime.support import ShakyStore

    mesh = await composed(made, clock=clock, store=ShakyStore(clock=clock))

    run = await ended(mesh, made)

    door.open()
    assert error_of(run)["code"] == "timeout"


async def test_a_timeout_ends_the_attempt_of_a_worker_that_is_cancelled_too(
    composed: OpenMesh, clock: VirtualClock
) -> None:
    gate, seen = Gate(), []

    async def slow(context: StepContext) -> None:
        try:
            await gate.wait()
        finally:
            seen.append(context.cancelled)

    made = only(slow, timeout=5 * SECOND)
    mesh = await composed(made)
    run = await mesh.start_run(made)
    working = asyncio.create_task(mesh.run_until_idle())
    await gate.reached()

    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    await turns()

    assert seen == [True]
    assert attempts_of(await history(mesh, run)) == ["claimed"]


# -- threads and contexts --------------------------------------------------------------------


async def test_plain_bodies_run_in_daemon_threads_with_the_callers_context_variables(
    composed: OpenMesh,
) -> None:
    variable = contextvars.ContextVar("variable", default="unset")
    seen: list[tuple[bool, bool, str]] = []

    def look() -> None:
        here = threading.current_thread()
        seen.append((here.daemon, here is threading.main_thread(), variable.get()))
        variable.set("changed inside")

    made = only(look)
    mesh = await composed(made)

    variable.set("of the worker")
    await ended(mesh, made)

    assert seen == [(True, False, "of the worker")]
    assert variable.get() == "of the worker"


async def test_plain_bodies_run_side_by_side(composed: OpenMesh) -> None:
    meeting = threading.Barrier(3)

    def meet() -> None:
        meeting.wait(10)

    steps: dict[str, Any] = {name: step(meet) for name in ("one", "two", "three")}

    def close() -> None: ...

    made = workflow("meeting", **steps, last=step(close, after=tuple(steps.values())))
    mesh = await composed(made)

    run = await ended(mesh, made)

    assert run.status == "completed"


async def test_the_context_tells_who_and_where_a_body_is(composed: OpenMesh) -> None:
    contexts: list[StepContext] = []

    def fail_once(context: StepContext) -> None:
        contexts.append(context)
        if context.attempt == 1:
            raise OSError

    made = only(fail_once, retry=Retry(2))
    mesh = await composed(made)

    run = await ended(mesh, made, {"number": "o7"})

    first, second = contexts
    assert (first.run_id, first.workflow, first.step, first.trigger, first.schedule) == (
        run.id,
        "only",
        "first",
        "by_hand",
        None,
    )
    assert first.runnable_key == f"{run.id}:first:1"
    assert second.runnable_key == f"{run.id}:first:2"
    assert first.idempotency_key == second.idempotency_key
    assert first.fence < second.fence
    assert first.claim_id != second.claim_id
    assert first.state == {"payload": {"number": "o7", "amount": 100}, "context": {}}
    with pytest.raises(RuntimeError):
        _ = first.connection


async def test_a_plain_body_cannot_beat_and_is_told_so(composed: OpenMesh) -> None:
    seen: list[str] = []

    def beat(context: StepContext) -> None:
        try:
            context.heartbeat()
        except RuntimeError as problem:
            seen.append(str(problem))

    made = only(beat)
    mesh = await composed(made)

    run = await ended(mesh, made)

    assert run.status == "completed"
    assert "async bodies" in seen[0]


async def test_routes_follow_what_a_body_said(composed: OpenMesh) -> None:
    def decline() -> Errored:
        return Errored("declined", code="declined")

    def apologise() -> dict[str, bool]:
        return {"sorry": True}

    first, second = step(decline), step(apologise)
    made = workflow(
        "routed",
        first=first,
        second=second,
        transitions=(path(first), path(second), first.on_error(second)),
    )
    mesh = await composed(made)

    run = await ended(mesh, made)

    assert run.status == "completed"
    assert run.context == {"sorry": True}
    assert run.error is None
    assert error_of(step_of(run, "first"))["code"] == "declined"
