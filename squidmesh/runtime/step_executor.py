"""The only place where foreign code runs, and what is made of what it does.

A body may return anything, raise anything and hang. Whatever it does becomes an outcome with a
stable code, the worker lives, and no value of the caller's ends up in an error message of ours.
"""

import asyncio
import functools
import logging
from collections.abc import Awaitable, Mapping
from datetime import timedelta
from typing import Final, cast

import attrs
from returns.pipeline import is_successful

from squidmesh import codec
from squidmesh.context import StepContext
from squidmesh.domain.commands import Failed, Outcome, PutOff, Succeeded
from squidmesh.domain.definition import (
    SCHEDULE_KEY,
    Action,
    Approval,
    Log,
    Pause,
    Wait,
    WorkflowDefinition,
)
from squidmesh.domain.entries import ErrorRecord
from squidmesh.domain.planning import inputs_of
from squidmesh.domain.recovery import undo_inputs
from squidmesh.domain.state import RunState, is_compensation
from squidmesh.domain.values import Json
from squidmesh.errors import (
    PayloadTooLargeError,
    SquidMeshError,
    UnserializableValueError,
)
from squidmesh.logs import logger
from squidmesh.outcomes import Deferred, Errored
from squidmesh.ports.clock import Clock
from squidmesh.runtime.body import BoundBody, InputProblem
from squidmesh.runtime.threads import Threads

MOST_ERROR_TEXT: Final = 8 * 1024
DEFAULT_MOST_BYTES: Final = 2 * 1024 * 1024

log = logger("workflow")


@attrs.frozen(kw_only=True, eq=False)
class Execution:
    """A claimed attempt with all that it takes to run it."""

    definition: WorkflowDefinition
    state: RunState
    context: StepContext
    body: BoundBody | None

    @property
    def owner(self) -> str | None:
        """Who holds the attempt."""
        step = self.state.steps[self.context.step]
        return step.attempts[self.context.attempt - 1].owner


@attrs.define(eq=False)
class StepExecutor:
    """Runs attempts and says how they ended.

    *leftovers* are bodies that go on behind their time limit, and whose slot each still takes.
    """

    clock: Clock
    threads: Threads = attrs.field(factory=Threads)
    most_bytes: int = DEFAULT_MOST_BYTES
    leftovers: "dict[asyncio.Future[object], str | None]" = attrs.field(factory=dict)

    async def run(self, execution: Execution, *, most: timedelta | None = None) -> Outcome:
        """Run the attempt to its end, or for *most* at the longest.

        Never raises but for the worker's own cancellation.
        """
        step = execution.context.step
        if is_compensation(step):
            return await self._undo(execution)
        spec = execution.definition.by_name[step]
        match spec.kind:
            case Wait():
                return Succeeded()
            case Log(message=message, level=level):
                log.log(_LEVELS[level.value], message)
                return Succeeded()
            case Pause() | Approval():
                return _failed("invalid_action", "A manual step has nothing to run.")
            case Action():
                limits = [limit for limit in (spec.timeout, most) if limit is not None]
                return await self._act(execution, min(limits, default=None), spec.output)

    async def _act(
        self, execution: Execution, timeout: timedelta | None, output: str | None
    ) -> Outcome:
        body, step = execution.body, execution.context.step
        assert body is not None
        values = inputs_of(execution.definition, execution.state, step, body.parameters)
        if not is_successful(values):
            return Failed(error=values.failure())
        said = await self._call(body, values.unwrap(), execution, timeout)
        return said if isinstance(said, Failed) else self._outcome(said, output)

    async def _undo(self, execution: Execution) -> Outcome:
        body, step = execution.body, execution.context.step
        assert body is not None
        values = undo_inputs(execution.definition, execution.state, step, body.parameters)
        if not is_successful(values):
            return Failed(error=values.failure())
        said = await self._call(body, values.unwrap(), execution, None)
        return said if isinstance(said, Failed) else self._outcome(said, "output")

    async def _call(
        self,
        body: BoundBody,
        values: Mapping[str, Json],
        execution: Execution,
        timeout: timedelta | None,
    ) -> object:
        """Return what the body returned, or Failed for whatever else it did."""
        try:
            positional, named = body.bind(values, execution.context)
        except InputProblem as problem:
            return Failed(error=problem.record)
        except KeyboardInterrupt:
            raise
        except BaseException as problem:  # noqa: BLE001  validators may raise anything
            return Failed(error=_raised(problem))
        try:
            if timeout is not None:
                return await self._within(body, positional, named, execution, timeout)
            if body.is_async:
                return await _awaited(body, positional, named)
            return await self._in_thread(body, positional, named)
        except asyncio.CancelledError:
            # A body in a thread goes on; it should know that nobody waits for it.
            execution.context.tell_cancelled()
            raise
        except Exception as problem:  # noqa: BLE001  the machine may have no thread left
            return Failed(error=_raised(problem))

    def _in_thread(
        self, body: BoundBody, positional: list[object], named: dict[str, object]
    ) -> "asyncio.Future[object]":
        return self.threads.run(functools.partial(_called, body, positional, named))

    async def _within(
        self,
        body: BoundBody,
        positional: list[object],
        named: dict[str, object],
        execution: Execution,
        timeout: timedelta,
    ) -> object:
        """Run the body for at most *timeout*; then an async one is cancelled, a plain one left."""
        if body.is_async:
            running: asyncio.Future[object] = asyncio.ensure_future(
                _awaited(body, positional, named)
            )
        else:
            running = self._in_thread(body, positional, named)
        alarm = asyncio.ensure_future(self.clock.sleep(timeout.total_seconds()))
        try:
            await asyncio.wait((running, alarm), return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                return await running
        finally:
            alarm.cancel()
            if not running.done():
                self._abandon(running, execution, is_async=body.is_async)
        return _failed(
            "timeout",
            f"The step took longer than its limit of {timeout.total_seconds():g} s.",
            retryable=True,
        )

    def _abandon(
        self, running: "asyncio.Future[object]", execution: Execution, *, is_async: bool
    ) -> None:
        execution.context.tell_cancelled()
        if is_async:
            running.cancel()
        self.leftovers[running] = execution.owner
        running.add_done_callback(self._left)

    def _left(self, ended: "asyncio.Future[object]") -> None:
        self.leftovers.pop(ended, None)
        if not ended.cancelled():
            ended.exception()

    def _outcome(self, said: object, output: str | None) -> Outcome:
        try:
            return self._read(said, output)
        except Exception as problem:  # noqa: BLE001  what bodies return may be anybody's classes
            kind = type(problem).__qualname__
            return _failed(
                "unserializable_result", f"What the step returned cannot be read: {kind}."
            )

    def _read(self, said: object, output: str | None) -> Outcome:
        match said:
            case Errored():
                return self._errored(said)
            case Deferred():
                return _deferred(said)
            case None:
                return Succeeded()
            case _:
                return self._result(said, output)

    def _errored(self, said: Errored) -> Outcome:
        """A failure in the body's own words, as far as they can be stored."""
        try:
            details = codec.plain(dict(said.details or {}), max_bytes=self.most_bytes)
        except SquidMeshError as problem:
            details = {"details_problem": problem.code}
        except Exception as problem:  # noqa: BLE001  details may be anybody's classes
            details = {"details_problem": _clean(type(problem).__qualname__)}
        assert isinstance(details, dict)
        error = ErrorRecord(
            code=_clean(said.code),
            message=_clean(said.message),
            details=details,
            retryable=bool(said.retryable),
        )
        if not isinstance(said.retry_after, timedelta | None):
            kind = _kind(said.retry_after)
            return _failed("invalid_result", f"retry_after is a timedelta, and not {kind}.")
        return Failed(error=error, retry_after=said.retry_after)

    def _result(self, said: object, output: str | None) -> Outcome:
        try:
            value = codec.plain(said, max_bytes=self.most_bytes)
        except PayloadTooLargeError as problem:
            return _failed("result_too_large", str(problem))
        except UnserializableValueError as problem:
            if asyncio.iscoroutine(said):
                said.close()  # or it would complain that nobody has awaited it
            return _failed("unserializable_result", f"What the step returned: {problem}")
        if output is not None:
            return Succeeded(value)
        if not isinstance(value, dict):
            return _failed(
                "invalid_result",
                f"A step without an output key may return a mapping or None, not {_kind(said)}.",
            )
        if SCHEDULE_KEY in value:
            return _failed("invalid_result", f"No step may return the key {SCHEDULE_KEY!r}.")
        return Succeeded(value)


_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


def _failed(code: str, message: str, *, retryable: bool = False) -> Failed:
    return Failed(error=ErrorRecord(code=code, message=message, retryable=retryable))


async def _awaited(body: BoundBody, positional: list[object], named: dict[str, object]) -> object:
    """Return what an async body returned, or Failed for what it raised of its own accord.

    It must not raise: what a task raises may end the whole event loop.
    """
    try:
        return await cast("Awaitable[object]", body.function(*positional, **named))
    except asyncio.CancelledError as problem:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        return Failed(error=_raised(problem))
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as problem:  # noqa: BLE001  the step boundary: bodies may raise anything
        return Failed(error=_raised(problem))


def _called(body: BoundBody, positional: list[object], named: dict[str, object]) -> object:
    """Return what a plain body returned, or Failed; its thread is none that gets interrupted."""
    try:
        return body.function(*positional, **named)
    except BaseException as problem:  # noqa: BLE001  the step boundary: bodies may raise anything
        return Failed(error=_raised(problem))


def _deferred(said: Deferred) -> Outcome:
    if not isinstance(said.delay, timedelta):
        return _failed("invalid_result", f"Deferred takes a timedelta, not {_kind(said.delay)}.")
    return PutOff(delay=said.delay, reason=None if said.reason is None else _clean(said.reason))


def _raised(problem: BaseException) -> ErrorRecord:
    """The record of an exception: its class and its text, cleaned and capped.

    The traceback is for whoever turns DEBUG on: it may show what nobody wants in a log.
    """
    log.debug("body.raised", type=type(problem).__qualname__, exc_info=problem)
    return ErrorRecord(
        code="step_exception",
        message=_clean(problem),
        type=_clean(type(problem).__qualname__),
        retryable=True,
    )


def _clean(said: object) -> str:
    """Text that every store takes: no NUL, no halves of characters, not too long."""
    try:
        shown = said if isinstance(said, str) else str(said)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001  a broken __str__ must not hide the failure
        return f"(the {_kind(said)} cannot be shown as text)"
    shown = shown[:MOST_ERROR_TEXT].replace("\x00", "\ufffd")
    return shown.encode("utf-8", "replace").decode("utf-8")


def _kind(said: object) -> str:
    return type(said).__qualname__
