"""Threads for plain bodies: daemons of ours, so that a stuck body cannot hold up the exit."""

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable

import attrs


@attrs.frozen(eq=False)
class _Job:
    call: Callable[[], object]
    context: contextvars.Context
    loop: asyncio.AbstractEventLoop
    done: "asyncio.Future[object]"

    def run(self) -> None:
        try:
            value = self.context.run(self.call)
        except BaseException as problem:  # noqa: BLE001  whatever a body raises is its caller's
            self._tell(_fail, problem)
        else:
            self._tell(_succeed, value)

    def _tell(self, how: Callable[..., None], what: object) -> None:
        try:
            self.loop.call_soon_threadsafe(how, self.done, what)
        except RuntimeError:
            # The loop is closed: nobody waits for this body any more.
            return


def _succeed(done: "asyncio.Future[object]", value: object) -> None:
    if not done.done():
        done.set_result(value)


def _fail(done: "asyncio.Future[object]", problem: BaseException) -> None:
    if done.done():
        return
    if isinstance(problem, StopIteration):
        # A future cannot carry it; it would end whoever awaits.
        problem = RuntimeError("the body raised StopIteration")
    done.set_exception(problem)


@attrs.define(eq=False)
class Threads:
    """As many daemon threads as jobs run at once; they are kept for the next ones until `close`."""

    _jobs: "queue.SimpleQueue[_Job | None]" = attrs.field(factory=queue.SimpleQueue)
    _idle: int = 0
    _closed: bool = False
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def run(self, call: Callable[[], object]) -> "asyncio.Future[object]":
        """Start *call* in a thread, with the caller's context variables; the future is its end."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[object] = loop.create_future()
        with self._lock:
            starts = self._idle == 0
            if not starts:
                self._idle -= 1
        if starts:
            # First the thread: if there is none to be had, nothing is left behind to be run later.
            threading.Thread(target=self._work, name="squidmesh-body", daemon=True).start()
        self._jobs.put(_Job(call, contextvars.copy_context(), loop, done))
        return done

    def close(self) -> None:
        """Let the idle threads end, and the busy ones as soon as their jobs have."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, 0
        for _ in range(idle):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.run()
            # What a job holds must not live until the next one comes.
            del job
            with self._lock:
                if self._closed:
                    return
                self._idle += 1
