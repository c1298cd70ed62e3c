"""Where decisions become durable: commands in, one transaction for all that are ready.

Commands queue up while the previous commit is on its way to the disk, and then go out together:
one answer of the store serves them all, and nobody waits for company. Each is decided here, last
thing before the commit, on the newest state that this process knows, so several commands about
one run follow one another in one change. What loses a race is decided again on what it had not
seen; one run's conflict is its own.

Whatever happens behind a commit (wake-ups, events) is told to observers, in plain calls.
"""

import asyncio
import contextvars
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Final

import attrs
from returns.pipeline import is_successful
from returns.result import Failure, Result

from squidmesh.domain.commands import (
    AlreadyStarted,
    Command,
    Refusal,
    StartRun,
)
from squidmesh.domain.decide import decide
from squidmesh.domain.definition import WorkflowDefinition
from squidmesh.domain.dispatch import Anomaly
from squidmesh.domain.state import RunState
from squidmesh.errors import (
    JournalCorruptError,
    RunNotFoundError,
    StoreConflictError,
    StoreUnavailableError,
)
from squidmesh.logs import logger
from squidmesh.ports.store import (
    Change,
    CommitFailure,
    GuardFailed,
    KeyRecord,
    KeyTaken,
    RevisionConflict,
    RunChange,
    RunHeld,
    RunTaken,
    Store,
)
from squidmesh.runtime.asks import (
    Answer,
    Ask,
    Observer,
    Settled,
    anomaly_in,
    asks_about,
    refusal_of,
    refuse,
    starts,
)
from squidmesh.runtime.batches import (
    Decided,
    RunBatch,
    answer_known_key,
    decide_start,
    next_batch,
    settle,
)
from squidmesh.runtime.changes import WakeAt, owing_wakeups, run_change
from squidmesh.runtime.known_states import KnownStates
from squidmesh.runtime.registry import Registry
from squidmesh.runtime.rehearsing import Rehearsed, rehearse
from squidmesh.runtime.store_time import StoreTime

MOST_TRIES: Final = 100
HELD_PAUSE: Final = 0.005
LONGEST_HELD_PAUSE: Final = 0.25
LONGEST_HELD: Final = 30.0
"""How many seconds somebody else's transaction may hold a run before those who wait hear of it."""

log = logger("committer")


@attrs.define(eq=False)
class Committer:
    """Takes commands, decides them, commits them in groups, and knows the newest states.

    One that is *inside* somebody's transaction works in the caller's own task, and what it did may
    never have happened: it keeps nothing.
    """

    store: Store
    registry: Registry
    time: StoreTime
    states: KnownStates
    wake_at: WakeAt | None = None
    observers: list[Observer] = attrs.field(factory=list[Observer])
    on_anomaly: Callable[[Anomaly], None] | None = None
    _waiting: list[Ask] = attrs.field(factory=list[Ask])
    _wake: asyncio.Event = attrs.field(factory=asyncio.Event)
    _task: "asyncio.Task[None] | None" = None
    _busy: bool = False
    inside: bool = False
    _held: "set[asyncio.Task[None]]" = attrs.field(factory=set)
    _closing: bool = False

    async def submit(
        self, run_id: str, command: Command, *, key: KeyRecord | None = None
    ) -> Answer:
        """Return what *command* led to once it is durable, or why it changes nothing.

        Raises:
            RunNotFoundError: There is no such run, and the command does not start one.
            StoreConflictError: Too many races were lost in a row.
            StoreUnavailableError: The store could not be reached; the command may be committed.
        """
        return await self.ask(Ask(run_id, command, key))

    async def report(self, run_id: str, command: Command) -> Answer:
        """Submit *command* for a worker, who gives up what it does if it is cancelled.

        Nobody is woken up for it if nothing else is being committed: a run that is alone goes from
        step to step in one task. Others have their turn in between, whatever the store is like.
        """
        ask = Ask(run_id, command)
        if self._busy or self._waiting or self.inside:
            return await self.ask(ask)
        self._busy = True
        try:
            await self._try_each([ask])
        finally:
            self._busy = False
            if not ask.answer.done():
                self.states.forget(run_id)
            if self._waiting:
                self.queue(())
        await self.time.clock.sleep(0)
        return await ask.answer

    async def ask(self, ask: Ask) -> Answer:
        """Queue a prepared ask and wait for its answer; cancelling the wait does not recall it."""
        if not self.inside:
            self.queue((ask,))
            return await ask.answer
        self._waiting.append(ask)
        while self._waiting:
            batch, self._waiting = self._waiting, []
            await self._try(batch)
        return await ask.answer

    async def rehearse(self, ask: Ask) -> Result[Rehearsed, Refusal]:
        """Return what a prepared ask would lead to now, or why it would change nothing.

        Nothing is committed, told or remembered, and the state is the store's.

        Raises:
            RunNotFoundError: There is no such run.
            StoreUnavailableError: The store could not be reached.
        """
        return await rehearse(self.store, self.registry, self.time, ask)

    def queue(self, asks: Iterable[Ask]) -> None:
        """Queue asks without waiting; each carries its answer."""
        self._waiting.extend(asks)
        if self._task is None or self._task.done():
            # A context of its own: whoever asks first must not lend its log fields to all others.
            self._task = asyncio.get_running_loop().create_task(
                self._work(), name="committer", context=contextvars.Context()
            )
        self._wake.set()

    async def close(self) -> None:
        """Commit what is queued, then stop."""
        self._closing = True
        for waiting in self._held:
            waiting.cancel()
        if self._task is not None:
            self._wake.set()
            await asyncio.shield(self._task)
            self._task = None

    async def _work(self) -> None:
        while not (self._closing and not self._waiting):
            if self._busy or not self._waiting:
                self._wake.clear()
                await self._wake.wait()
                continue
            batch = next_batch(self._waiting)
            self._busy = True
            try:
                await self._try_each(batch)
            finally:
                self._busy = False

    async def _try_each(self, batch: list[Ask]) -> None:
        try:
            await self._try(batch)
        except JournalCorruptError:
            # One run that cannot be read must not keep the others from being served.
            for ask in batch:
                await self._try_alone(ask)

    async def _try(self, batch: list[Ask]) -> None:
        try:
            await self._commit(batch)
        except JournalCorruptError:
            raise
        except Exception as accident:  # noqa: BLE001  the askers hear of it, each of them
            for ask in batch:
                self.states.forget(ask.run_id)
                ask.fail(accident)

    async def _try_alone(self, ask: Ask) -> None:
        try:
            await self._try([ask])
        except JournalCorruptError as problem:
            ask.fail(problem)

    async def _commit(self, batch: list[Ask]) -> None:
        runs = await self._bases(batch)
        definitions = await self._definitions(batch, runs)
        now = self.time.now()
        for ask in batch:
            if ask.run_id in runs:
                self._decide(runs[ask.run_id], definitions, ask, now)
        changed = [run for run in runs.values() if run.decided and run.head is not run.base]
        for run in runs.values():
            if run.head is run.base:
                settle(run, now)
            if run.base.status.is_final:
                self.states.forget(run.base.run_id)
        if not changed:
            return
        answer = await self.store.commit([self._change(run, now) for run in changed])
        self.time.observe(answer.at)
        results = list(zip(changed, answer.results, strict=True))
        self._done([run for run, result in results if is_successful(result)], answer.at)
        for run, result in results:
            if not is_successful(result):
                self._failed(run, result.failure(), now)

    async def _bases(self, batch: Sequence[Ask]) -> dict[str, RunBatch]:
        """The states to decide on; asks about runs that do not exist are answered at once."""
        wanted = dict.fromkeys(ask.run_id for ask in batch)
        starting = {ask.run_id for ask in batch if starts(ask)}
        # A run that is only started here need not be looked for: the commit finds it if it exists.
        existing = dict.fromkeys(ask.run_id for ask in batch if not starts(ask))
        for ask in batch:
            if ask.reloads:
                self.states.forget(ask.run_id)
        await self.states.load(id_ for id_ in existing if self.states.get(id_) is None)
        bases: dict[str, RunBatch] = {}
        for run_id in wanted:
            known = self.states.get(run_id)
            if known is not None:
                bases[run_id] = RunBatch(known)
            elif run_id in starting:
                bases[run_id] = RunBatch(RunState(run_id=run_id))
        for ask in batch:
            if ask.run_id not in bases:
                ask.fail(RunNotFoundError(ask.run_id))
        return bases

    async def _definitions(
        self, batch: Sequence[Ask], runs: dict[str, RunBatch]
    ) -> dict[str, WorkflowDefinition]:
        marks: dict[str, str] = {}
        for ask in batch:
            if isinstance(ask.command, StartRun):
                marks.setdefault(ask.command.fingerprint, ask.run_id)
        for run_id, run in runs.items():
            if run.base.started is not None:
                marks.setdefault(run.base.started.fingerprint, run_id)
        return {
            mark: await self.registry.definition(mark, run_id) for mark, run_id in marks.items()
        }

    def _decide(
        self,
        run: RunBatch,
        definitions: dict[str, WorkflowDefinition],
        ask: Ask,
        now: datetime,
    ) -> None:
        before, command = run.head, ask.command
        if before.started is None and not starts(ask):
            ask.fail(RunNotFoundError(ask.run_id))
            return
        mark = command.fingerprint if isinstance(command, StartRun) else before.facts.fingerprint
        try:
            decided = decide(definitions[mark], before, command, now)
            if not is_successful(decided):
                self._refused(ask, decided.failure(), before)
                return
            decision = decided.unwrap()
            if ask.spawn is not None and decision.entries:
                refusal = self._spawn(run, ask, ask.spawn(before), now)
                if refusal is not None:
                    ask.settle(Failure(refusal))
                    return
        except Exception as accident:  # noqa: BLE001  a defect must not take the others down
            ask.fail(accident)
            return
        run.decided.append(Decided(ask, command, before, decision.state, decision.entries))

    def _refused(self, ask: Ask, refusal: Refusal, state: RunState) -> None:
        """Answer with a refusal, but only once it was decided on what the store says today.

        Nothing fences a refusal: it writes nothing, so nobody notices that it was decided on a
        state that others have overtaken.
        """
        if not ask.reloads:
            ask.reloads = True
            self._waiting.append(ask)
            return
        ask.settle(Failure(refusal))
        anomaly = anomaly_in(ask, refusal, state)
        if anomaly is not None and self.on_anomaly is not None:
            self.on_anomaly(anomaly)

    def _spawn(self, run: RunBatch, ask: Ask, start: StartRun, now: datetime) -> Refusal | None:
        """Decide the run that comes with an ask, or say why there cannot be one."""
        decided = decide_start(self.registry, start, now)
        if not is_successful(decided):
            return decided.failure()
        _, started = decided.unwrap()
        blank = RunState(run_id=start.run_id)
        run.spawned.append(Decided(ask, start, blank, started.state, started.entries))
        return None

    def _change(self, run: RunBatch, now: datetime) -> Change:
        decided = tuple((item.ask.command, item.entries, item.ask.key) for item in run.decided)
        change = run_change(run.base, run.head, decided, now)
        spawned = (
            run_change(item.before, item.state, ((item.command, item.entries, None),), now)
            for item in run.spawned
        )
        return Change(tuple(self.complete(change, now) for change in (change, *spawned)))

    def complete(self, change: RunChange, now: datetime) -> RunChange:
        """Add what the run's own history does not say: its definition, and owed wake-ups."""
        definition = None
        if change.expected == 0:
            definition = self.registry.to_store(change.state.facts.fingerprint)
        attempts = change.attempts
        if self.wake_at is not None:
            attempts = owing_wakeups(attempts, now, self.wake_at)
        if definition is None and attempts is change.attempts:
            return change
        return attrs.evolve(change, definition=definition, attempts=attempts)

    def _done(self, runs: Sequence[RunBatch], at: datetime) -> None:
        for run in runs:
            self.states.remember(run.head)
            settle(run, at)
        self.committed(
            [
                Settled(item.entries, item.before, item.state, at)
                for run in runs
                for item in (*run.decided, *run.spawned)
            ]
        )

    def committed(self, settled: Sequence[Settled]) -> None:
        """Keep the states of new runs, and tell the observers."""
        for commit in settled:
            if commit.before.started is None and not self.inside:
                self.registry.was_stored(commit.state.facts.fingerprint)
                self.states.remember(commit.state)
        for observer in self.observers:
            try:
                # A context of their own: a worker's log fields are not those of all runs.
                contextvars.Context().run(observer, settled)
            except Exception:
                log.exception("observer.failed")

    def _failed(self, run: RunBatch, failure: CommitFailure, now: datetime) -> None:
        asks = [item.ask for item in run.decided]
        match failure:
            case RevisionConflict(unseen=unseen):
                self.states.catch_up(run.base, unseen)
            case RunTaken(run_id=run_id):
                self.states.forget(run_id)
                refuse(asks, starts, AlreadyStarted(run_id=run_id))
            case KeyTaken(record=record):
                self.states.forget(run.base.run_id)
                answer_known_key(run, record, now)
            case GuardFailed():
                # Guards are judged before the revision, so a state that others have overtaken
                # must not name the reason: it is decided once more on what the store says.
                for ask in filter(asks_about(failure), asks):
                    if ask.reloads:
                        self._refused(ask, refusal_of(failure), run.base)
                    ask.reloads = True
            case RunHeld(run_id=run_id):
                # Others go on; whoever holds the run may well be changing it.
                self.states.forget(run_id)
                self._later([ask for ask in asks if not ask.answer.done()])
                return
        self._again([ask for ask in asks if not ask.answer.done()])

    def _later(self, asks: Sequence[Ask]) -> None:
        """Queue *asks* again in a moment, less and less often, and not for ever."""
        for ask in asks:
            pause = min(HELD_PAUSE * 2**ask.holds, LONGEST_HELD_PAUSE)
            ask.holds += 1
            ask.held_for += pause
            if self._closing or ask.held_for > LONGEST_HELD:
                reason = f"another transaction has held the run for over {LONGEST_HELD:g} seconds"
                ask.fail(StoreUnavailableError(reason))
            else:
                waiting = asyncio.get_running_loop().create_task(self._queue_in(pause, ask))
                self._held.add(waiting)
                waiting.add_done_callback(self._held.discard)

    async def _queue_in(self, seconds: float, ask: Ask) -> None:
        try:
            await self.time.clock.sleep(seconds)
        except asyncio.CancelledError:
            ask.fail(StoreUnavailableError("it was closed while another transaction held the run"))
            raise
        self.queue((ask,))

    def _again(self, asks: Sequence[Ask]) -> None:
        for ask in asks:
            ask.tries += 1
            if ask.tries >= MOST_TRIES:
                ask.fail(StoreConflictError(run_id=ask.run_id))
        self._waiting[:0] = [ask for ask in asks if not ask.answer.done()]
