"""Threads for plain bodies: daemons that are kept for the next one."""

import asyncio
import contextvars
import threading

import pytest

from squidmesh.runtime.threads import Threads
from tests.runtime.support import PATIENCE, Door, a_moment, turns, until

pytestmark = pytest.mark.anyio


async def test_a_call_returns_its_value_from_a_daemon_thread() -> None:
    thread = await Threads().run(threading.current_thread)

    assert isinstance(thread, threading.Thread)
    assert thread.daemon
    assert thread is not threading.current_thread()


async def test_a_thread_is_kept_for_the_next_call() -> None:
    threads = Threads()

    first = await threads.run(threading.get_ident)
    async with asyncio.timeout(PATIENCE):
        while not threads._idle:
            await a_moment()
    second = await threads.run(threading.get_ident)

    assert first == second


async def test_as_many_threads_run_as_calls_do() -> None:
    threads, doors = Threads(), [Door() for _ in range(5)]
    calls = [threads.run(door.wait) for door in doors]

    for door in doors:
        await door.entered()
        door.open()
    await asyncio.gather(*calls)


@pytest.mark.parametrize("problem", [ValueError("no"), asyncio.CancelledError()])
async def test_what_a_call_raises_is_raised_to_who_waits(problem: BaseException) -> None:
    def fail() -> None:
        raise problem

    with pytest.raises(type(problem)):
        await Threads().run(fail)


async def test_what_no_future_can_carry_is_raised_as_something_else() -> None:
    def fail() -> None:
        raise StopIteration

    with pytest.raises(RuntimeError):
        await Threads().run(fail)


async def test_a_call_runs_in_a_copy_of_the_callers_context() -> None:
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("outside")

    def change() -> str:
        before = variable.get()
        variable.set("inside")
        return before

    assert await Threads().run(change) == "outside"
    assert variable.get() == "outside"


@pytest.mark.parametrize("fails", [False, True])
async def test_who_has_stopped_waiting_is_not_bothered(fails: bool) -> None:
    threads, door = Threads(), Door()

    def late() -> None:
        door.wait()
        if fails:
            raise ValueError("late")

    call = threads.run(late)
    await door.entered()

    call.cancel()
    door.open()
    await until(lambda: threads._idle == 1)
    await turns()

    assert call.cancelled()


def test_a_call_outlives_its_event_loop_without_a_word() -> None:
    threads, door = Threads(), Door()

    async def begin() -> None:
        call = threads.run(door.wait)
        await door.entered()
        call.cancel()

    asyncio.run(begin())
    door.open()

    async def again() -> None:
        assert await threads.run(lambda: "still here") == "still here"

    asyncio.run(again())


async def test_a_call_for_which_there_is_no_thread_is_never_made_later() -> None:
    calls: list[str] = []
    threads = Threads()
    start = threading.Thread.start
    try:
        # The machine is out of threads: there is no other way to make it so in a test.
        threading.Thread.start = _no_more  # type: ignore[assignment, method-assign]
        with pytest.raises(RuntimeError):
            threads.run(lambda: calls.append("never"))
    finally:
        threading.Thread.start = start  # type: ignore[method-assign]

    await threads.run(lambda: calls.append("now"))

    assert calls == ["now"]


def _no_more(_thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")
