"""The parts of a running mesh, wired together once, and what a claimed attempt goes through."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Protocol

import attrs
from returns.pipeline import is_successful

from squidmesh.domain.commands import (
    NO_OFFERS,
    Offers,
    Outcome,
    PutOff,
    ReportOutcome,
    Succeeded,
)
from squidmesh.domain.definition import Action
from squidmesh.domain.dispatch import find_attempt
from squidmesh.domain.entries import AttemptClaimed, CancelRequested
from squidmesh.domain.state import AttemptStatus, RunState, is_compensation
from squidmesh.errors import StoreUnavailableError
from squidmesh.logs import logger
from squidmesh.ports.clock import Clock, Ids, Random
from squidmesh.ports.journal import Journal
from squidmesh.ports.store import AttemptStore, Hints, Presence, RunStore, Schema, Store
from squidmesh.ports.transactions import Transactions
from squidmesh.runtime.asks import Settled
from squidmesh.runtime.claims import HeldAttempt, context_of, held_again, held_from
from squidmesh.runtime.committer import Committer
from squidmesh.runtime.dispatcher import Dispatcher
from squidmesh.runtime.heart import Heart
from squidmesh.runtime.recovery import Recovery
from squidmesh.runtime.registry import Registry
from squidmesh.runtime.step_executor import Execution, StepExecutor
from squidmesh.runtime.store_time import StoreTime
from squidmesh.runtime.telemetry import Telemetry

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 2.0

log = logger("worker")


class Storage(
    Store, RunStore, AttemptStore, Presence, Hints, Schema, Journal, Transactions, Protocol
):
    """Everything that one storage technology implements over the same transactions."""


@attrs.define(eq=False, kw_only=True)
class Engine:
    """What a mesh, its workers and its runners share."""

    store: Storage
    clock: Clock
    ids: Ids
    random: Random
    time: StoreTime
    registry: Registry
    committer: Committer
    dispatcher: Dispatcher
    recovery: Recovery
    heart: Heart
    bodies: StepExecutor
    telemetry: Telemetry
    lease: timedelta
    owner: str
    is_closed: bool = False

    def check_is_open(self) -> None:
        """Refuse to work for a mesh that is closed, or its workers would wait for ever.

        Raises:
            StoreUnavailableError: The mesh is closed.
        """
        if self.is_closed:
            raise StoreUnavailableError("the mesh is closed")

    async def close(self) -> None:
        """Stop everything that runs for this engine, committing what was asked for."""
        self.is_closed = True
        await self.recovery.close()
        await self.committer.close()
        await self.dispatcher.close()
        await self.heart.close()
        self.bodies.threads.close()

    async def execute(
        self,
        held: HeldAttempt,
        *,
        connection: Any = None,  # noqa: ANN401  of whatever driver the store has
        most: timedelta | None = None,
    ) -> Outcome:
        """Run a held attempt's body, with its claim kept alive until the outcome is known.

        *connection* is what the body may write with, and *most* how long it may take whatever its
        step says.

        A body whose run was cancelled between the claim and now does not begin: it is put off,
        which in a run that is ending means that it will not run any more.
        """
        if self._is_cancelling(held):
            return PutOff(delay=timedelta(0), reason="the run is being cancelled")
        mark, step = held.fingerprint, held.attempt.step
        definition = self.registry.known(mark)
        if definition is None:
            definition = await self.registry.definition(mark, held.run_id)
        spec = definition.by_name.get(step)
        context = context_of(held, self.heart, connection)
        execution = Execution(
            definition=definition,
            state=held.state,
            context=context,
            body=self.registry.body(mark, step),
        )
        if spec is None or isinstance(spec.kind, Action):
            self.heart.hold(held.to_keep(), context)
        return await self.bodies.run(execution, most=most)

    def _is_cancelling(self, held: HeldAttempt) -> bool:
        """Whether the run was cancelled already, perhaps between the claim and now."""
        newest = self.committer.states.get(held.run_id)
        return held.state.cancelling or (newest is not None and newest.cancelling)

    def report_of(self, held: HeldAttempt, outcome: Outcome, offers: Offers) -> ReportOutcome:
        """The command that reports what became of a held attempt."""
        return ReportOutcome(
            attempt=held.attempt,
            token_hash=held.token_hash,
            outcome=outcome,
            offers=offers,
            draw=0.0 if isinstance(outcome, Succeeded) else self.random.draw(),
        )

    async def report(
        self,
        held: HeldAttempt,
        outcome: Outcome,
        offers: Offers = NO_OFFERS,
        *,
        uncertain: bool = False,
    ) -> Settled | None:
        """Make an outcome durable; None if the claim does not count any more.

        *uncertain* says that something may have been reported already, and its answer was lost.

        While the store is away this keeps trying: the lease is kept alive, and if it cannot be,
        the fence refuses the late report. A commit whose answer was lost is read back, not
        repeated blindly.
        """
        command = self.report_of(held, outcome, offers)
        pause = FIRST_PAUSE
        try:
            while True:
                try:
                    answer = await self.committer.report(held.run_id, command)
                except StoreUnavailableError as problem:
                    self.check_is_open()
                    if not uncertain:
                        log.warning("report.delayed", reason=str(problem))
                    uncertain = True
                    await self.clock.sleep(pause)
                    pause = min(pause * 2, LONGEST_PAUSE)
                    continue
                if is_successful(answer):
                    return answer.unwrap()
                return await self._read_back(held) if uncertain else None
        finally:
            self.heart.let_go(held.claim_id)

    async def _read_back(self, held: HeldAttempt) -> Settled | None:
        """After a lost answer: whether the report was committed all the same."""
        loaded = await self.store.load([held.run_id])
        state = loaded.states.get(held.run_id)
        attempt = find_attempt(state, held.attempt) if state is not None else None
        if state is None or attempt is None or attempt.claim_id != held.claim_id:
            return None
        if attempt.status in (AttemptStatus.CLAIMED, AttemptStatus.LOST):
            return None
        return Settled((), state, state, loaded.at)

    def claimed_by(self, settled: Settled, offers: Offers) -> Sequence[HeldAttempt]:
        """The successors that a report has claimed for its worker."""
        if not offers.claims:
            return ()
        offered = {offer.claim_id for offer in offers.claims}
        if settled.entries:
            return [
                held_from(settled.state, entry)
                for entry in settled.entries
                if isinstance(entry, AttemptClaimed) and entry.claim_id in offered
            ]
        # The report's answer was lost, and what was read back knows only how things stand.
        return [
            held_again(settled.state, step.current)
            for step in settled.state.steps.values()
            if step.current is not None
            and step.current.status is AttemptStatus.CLAIMED
            and step.current.claim_id in offered
        ]

    def settled(self, commits: Sequence[Settled]) -> None:
        """Tell bodies of this process at once that their run is being cancelled."""
        for commit in commits:
            if commit.state.cancelling and any(
                isinstance(entry, CancelRequested) for entry in commit.entries
            ):
                self.heart.tell_cancelled(commit.state.run_id)

    def successors(self, state: RunState, step: str, outcome: Outcome) -> int:
        """How many attempts can become ready behind this one, at most.

        Behind a last step that succeeds there is none, unless the run is about to undo something;
        a step that fails may be tried again at once.
        """
        definition = self.registry.known(state.facts.fingerprint)
        if definition is None or is_compensation(step):
            return 1
        if step in definition.last_steps and isinstance(outcome, Succeeded):
            return 0 if state.error is None else 1
        return 1 if definition.follows_transitions else max(len(definition.dependents[step]), 1)
