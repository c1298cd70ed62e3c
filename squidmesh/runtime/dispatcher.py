"""Behind the commit: tells whoever can work that there is work.

Workers of this process are woken by an event, those of others by hints of the store, and the
host's job system through the executor port. A wake-up is only ever a nudge: it says what the store
says anyway, so one that fails is logged, and repeated by the sweep.
"""

import asyncio
import contextvars
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

import attrs

from squidmesh.domain.dispatch import first_wakeup, next_wakeup, runnable_key
from squidmesh.domain.entries import (
    AttemptDeferred,
    AttemptScheduled,
    CancelRequested,
    ManualStepResolved,
    RunStarted,
)
from squidmesh.domain.state import AttemptState, AttemptStatus, RunState, is_compensation
from squidmesh.domain.values import Json
from squidmesh.errors import StoreUnavailableError
from squidmesh.logs import logger
from squidmesh.ports.executor import EnqueueOptions, Executor
from squidmesh.ports.store import AttemptStore
from squidmesh.runtime.asks import Settled
from squidmesh.runtime.hinting import Hinting
from squidmesh.runtime.known_states import KnownStates
from squidmesh.runtime.registry import Registry
from squidmesh.runtime.store_time import StoreTime
from squidmesh.runtime.telemetry import Telemetry

MOST_TOGETHER: Final = 100
LONGEST_ENQUEUE: Final = 10.0
"""How many seconds an engine may take to hear of a wake-up before it counts as deaf."""

# What a command from outside begins with, as against what a worker reports.
_BY_COMMAND: Final = (RunStarted, ManualStepResolved, CancelRequested)

log = logger("dispatch")


@attrs.define(eq=False)
class Dispatcher:
    """Nudges, for attempts that were scheduled and that nobody holds yet."""

    executor: Executor | None
    store: AttemptStore
    states: KnownStates
    registry: Registry
    time: StoreTime
    telemetry: Telemetry
    hinting: Hinting
    listeners: "list[Callable[[], None]]" = attrs.field(factory=list)
    _sending: "set[asyncio.Task[None]]" = attrs.field(factory=set)

    def wake_at(self, attempt: AttemptState, now: datetime) -> datetime | None:
        """When somebody must be told about a freshly scheduled attempt, if nobody claims it."""
        if self.executor is None:
            return None
        return first_wakeup(attempt.visible_at, now, self.executor.capabilities.max_delay)

    def settled(self, commits: Sequence[Settled]) -> None:
        """Nudge for everything that these commits scheduled."""
        if self.executor is None and not self.listeners and not self.hinting.hears:
            return
        scheduled: list[tuple[Settled, AttemptState]] = []
        for commit in commits:
            for entry in commit.entries:
                if isinstance(entry, AttemptScheduled | AttemptDeferred):
                    attempt = commit.state.steps[entry.step].attempts[-1]
                    if attempt.status is AttemptStatus.SCHEDULED:
                        scheduled.append((commit, attempt))
        if not scheduled:
            return
        for listener in self.listeners:
            listener()
        if self.hinting.hears:
            self.hinting.say(self._queues_to_hint_at(scheduled))
        if self.executor is not None:
            self._send_soon(self.executor, scheduled)

    def _queues_to_hint_at(self, scheduled: Iterable[tuple[Settled, AttemptState]]) -> set[str]:
        """The queues of what others may take up at once.

        That is what people and hosts have made due, and steps that nobody here has a body for:
        workers see to the rest of their own work.
        """
        return {
            attempt.queue
            for commit, attempt in scheduled
            if attempt.visible_at <= commit.at
            and (
                isinstance(commit.entries[0], _BY_COMMAND)
                or not self.registry.can_run(commit.state.facts.fingerprint, attempt.step)
            )
        }

    def _send_soon(
        self, executor: Executor, scheduled: Iterable[tuple[Settled, AttemptState]]
    ) -> None:
        now = self.time.now()
        wakeups = [
            (commit.state, attempt)
            for commit, attempt in scheduled
            if _can_hold(executor, attempt.visible_at, now)
        ]
        if wakeups:
            task = asyncio.get_running_loop().create_task(
                self._send(executor, wakeups), context=contextvars.Context()
            )
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _send(
        self, executor: Executor, wakeups: Sequence[tuple[RunState, AttemptState]]
    ) -> None:
        states = {state.run_id: state for state, _ in wakeups}
        owed = [(state.run_id, attempt) for state, attempt in wakeups]
        for start in range(0, len(owed), MOST_TOGETHER):
            chunk = owed[start : start + MOST_TOGETHER]
            told = await self._announce(executor, chunk)
            if told is not None:
                for run_id, _ in chunk:
                    self.telemetry.dispatched(states[run_id], run_id, told)

    async def _announce(
        self, executor: Executor, wakeups: Sequence[tuple[str, AttemptState]]
    ) -> "dict[str, Json] | None":
        """Tell the executor, in one call where it can be one; None if it would not hear."""
        items = [self._item(run_id, attempt) for run_id, attempt in wakeups]
        try:
            async with asyncio.timeout(LONGEST_ENQUEUE):
                if len(items) > 1:
                    return dict(await executor.enqueue_steps(items))
                payload, options = items[0]
                if payload["kind"] == "compensation":
                    return dict(await executor.enqueue_compensation(payload, options))
                return dict(await executor.enqueue_step(payload, options))
        except Exception as problem:  # noqa: BLE001  a host's engine may raise anything
            runs = sorted({run_id for run_id, _ in wakeups})
            log.warning("wakeup.failed", runs=runs, error=type(problem).__name__)
            return None

    def _item(self, run_id: str, attempt: AttemptState) -> tuple[dict[str, Json], EnqueueOptions]:
        payload: dict[str, Json] = {
            "kind": "compensation" if is_compensation(attempt.step) else "step",
            "run_id": run_id,
            "step": attempt.step,
            "attempt": attempt.number,
        }
        later = attempt.visible_at if attempt.visible_at > self.time.now() else None
        return payload, EnqueueOptions(
            key=runnable_key(run_id, attempt.id), queue=attempt.queue, not_before=later
        )

    async def emit(
        self, owed: Sequence[tuple[str, AttemptState]], *, within: float | None = None
    ) -> int:
        """Tell the executor about attempts again, and note when the next time is; count them.

        One by one: what an engine refuses must not keep the others from being told. Behind
        *within* seconds no further one is begun: the rest stay owed.
        """
        if self.executor is None:
            return 0
        clock = self.time.clock
        until = None if within is None else clock.monotonic() + within
        emitted = tried = 0
        states: Mapping[str, RunState] = {}
        for run_id, attempt in owed:
            if until is not None and clock.monotonic() >= until:
                break
            if tried % MOST_TOGETHER == 0:
                states = await self._states(owed[tried : tried + MOST_TOGETHER])
            tried += 1
            told = await self._announce(self.executor, [(run_id, attempt)])
            if told is not None:
                emitted += 1
                self.telemetry.dispatched(states.get(run_id), run_id, told)
        now = self.time.now()
        await self.store.woken(
            [(run_id, attempt.id, next_wakeup(attempt, now)) for run_id, attempt in owed[:tried]]
        )
        return emitted

    async def _states(self, owed: Sequence[tuple[str, AttemptState]]) -> Mapping[str, RunState]:
        """The runs that sinks are to be told of; whom nobody can tell of is woken all the same."""
        if not self.telemetry.sinks:
            return {}
        try:
            return await self.states.readable([run_id for run_id, _ in owed])
        except StoreUnavailableError:
            return {}

    async def close(self) -> None:
        """Wait for the wake-ups that are on their way."""
        await self.hinting.close()
        await asyncio.gather(*self._sending, return_exceptions=True)


def _can_hold(executor: Executor, visible_at: datetime, now: datetime) -> bool:
    longest = executor.capabilities.max_delay
    return longest is None or visible_at - now <= longest
