"""A decision in the making: entries, and the state that they lead to so far.

Everything that follows from a command is said by adding entries; each is folded at once, so the
next question is asked of a state that already knows. The methods here are the moves of a run that
several commands share: planning steps, ending the run, undoing it.
"""

from datetime import datetime
from typing import Final

import attrs

from squidmesh.domain.commands import NO_OFFERS, ClaimOffer, Offers
from squidmesh.domain.definition import Action, Approval, Log, On, Pause, Wait, WorkflowDefinition
from squidmesh.domain.dispatch import visible_from
from squidmesh.domain.entries import (
    AttemptCancelled,
    AttemptClaimed,
    AttemptScheduled,
    CompensationPlanned,
    Entry,
    ErrorRecord,
    FinalStatus,
    ManualKind,
    ManualStepPaused,
    RunnablesPlanned,
    RunTerminal,
)
from squidmesh.domain.evolution import evolve
from squidmesh.domain.planning import delay_of, queue_of
from squidmesh.domain.recovery import error_after_undoing, steps_to_undo
from squidmesh.domain.state import AttemptStatus, RunState, Undoing, compensation_of

MOST_PASSED_OVER: Final = 64
"""How many steps that do not fit an offer are looked at, so that a report costs what it costs."""


@attrs.frozen
class Decision:
    """What follows from a command: its entries, in order, and the state behind the last one."""

    entries: tuple[Entry, ...]
    state: RunState


@attrs.define
class Unfolding:
    """The one mutable thing in the core; it lives only while `decide` runs."""

    definition: WorkflowDefinition
    state: RunState
    now: datetime
    offers: Offers = NO_OFFERS
    entries: list[Entry] = attrs.field(factory=list[Entry])
    _taken: int = 0

    def add(self, entry: Entry) -> None:
        """Say one more fact, and know it from here on."""
        self.entries.append(entry)
        self.state = evolve(self.state, entry)

    def decision(self) -> Decision:
        """The finished decision."""
        return Decision(tuple(self.entries), self.state)

    def plan(self, steps: tuple[str, ...]) -> None:
        """Make *steps* the next ones, each in the way of its kind."""
        if not steps:
            return
        self.add(RunnablesPlanned(at=self.now, steps=steps))
        for step in steps:
            self._begin(step)

    def _begin(self, step: str) -> None:
        spec = self.definition.by_name[step]
        match spec.kind:
            case Action() | Wait() | Log():
                self.schedule(step, number=1, visible_at=visible_from(self.now, delay_of(spec)))
            case Pause():
                self._open(step, ManualKind.PAUSE)
            case Approval():
                self._open(step, ManualKind.APPROVAL)

    def _open(self, step: str, kind: ManualKind) -> None:
        self.add(
            ManualStepPaused(
                at=self.now,
                step=step,
                kind=kind,
                on_ok=self._fixed_route(step, On.OK),
                on_error=self._fixed_route(step, On.ERROR),
                output=self.definition.by_name[step].output,
            )
        )

    def _fixed_route(self, step: str, on: On) -> int | None:
        routes = self.definition.routes.get((step, on), ())
        return routes[0][0] if routes else None

    def schedule(self, step: str, *, number: int, visible_at: datetime) -> None:
        """Put an attempt up for claiming, and claim it at once if an offer fits."""
        queue = queue_of(self.definition, self.state, step)
        self.add(
            AttemptScheduled(
                at=self.now, step=step, number=number, visible_at=visible_at, queue=queue
            )
        )
        if (
            visible_at <= self.now
            and self._taken < len(self.offers.claims)
            and self._is_wanted(step, queue)
        ):
            self.claim(step, number, self.offers.claims[self._taken])
            self._taken += 1

    def claim_further(self) -> None:
        """Claim, with what is left of the offers, what was planned before and waits for a claim.

        In the order of claims; what it does not come by soon is left to the claims themselves.
        """
        offers = self.offers
        if not offers.further or not self.state.unclaimed or self.is_ending:
            return
        most = len(offers.claims) + MOST_PASSED_OVER
        for step in map(self.state.steps.__getitem__, self.state.unclaimed[:most]):
            if self._taken >= len(offers.claims):
                return
            if (
                step.is_untried
                and step.attempts[0].visible_at <= self.now
                and self._is_wanted(step.step, step.attempts[0].queue)
            ):
                self.claim(step.step, 1, offers.claims[self._taken])
                self._taken += 1

    def _is_wanted(self, step: str, queue: str) -> bool:
        """Whether the one who offers claims takes them for this step."""
        offers = self.offers
        return (offers.queues is None or queue in offers.queues) and step not in offers.lacking

    def claim(self, step: str, number: int, offer: ClaimOffer) -> None:
        """Give the attempt to the one who offers."""
        self.add(
            AttemptClaimed(
                at=self.now,
                step=step,
                number=number,
                claim_id=offer.claim_id,
                token_hash=offer.token_hash,
                owner=offer.owner,
                lease=offer.lease,
            )
        )

    def go_to(self, target: str | None) -> None:
        """Follow a route: on to its target, or to the end."""
        if target is None:
            self.complete()
        else:
            self.plan((target,))

    def complete(self) -> None:
        """End the run well."""
        self.add(RunTerminal(at=self.now, status=FinalStatus.COMPLETED))

    def cancel_unclaimed(self) -> None:
        """Take back every attempt that nobody holds, in the order of the steps' declaration.

        A state put together from rows may know its steps in another order than one that evolved;
        both lead to the same entries.
        """
        for spec in self.definition.steps:
            step = self.state.steps.get(spec.name)
            current = step.current if step is not None else None
            if current is not None and current.status is AttemptStatus.SCHEDULED:
                self.add(AttemptCancelled(at=self.now, step=spec.name, number=current.number))

    def settle(self) -> None:
        """Carry a run that is ending as far as it can go while nothing is claimed any more."""
        if self.state.running:
            return
        if self.state.cancelling:
            # A failure that was waiting for others to finish is still worth knowing.
            self.add(RunTerminal(at=self.now, status=FinalStatus.CANCELLED, error=self.state.error))
            return
        # A run that is ending and was not cancelled has failed.
        assert self.state.error is not None
        if self.state.undoing is None:
            self.fail(self.state.error)
        else:
            self._undo_next(self.state.undoing, self.state.error)

    def fail(self, error: ErrorRecord) -> None:
        """Fail the run for good, with nothing in flight: undo what can be undone, then end."""
        steps = steps_to_undo(self.definition, self.state)
        if not steps:
            self.add(RunTerminal(at=self.now, status=FinalStatus.FAILED, error=error))
            return
        self.add(CompensationPlanned(at=self.now, steps=steps, error=error))
        self.schedule(compensation_of(steps[0]), number=1, visible_at=self.now)

    def _undo_next(self, undoing: Undoing, error: ErrorRecord) -> None:
        if undoing.remaining:
            name = compensation_of(undoing.remaining[0])
            self.schedule(name, number=1, visible_at=self.now)
        else:
            told = error_after_undoing(error, undoing.failures)
            self.add(RunTerminal(at=self.now, status=FinalStatus.FAILED, error=told))

    @property
    def is_ending(self) -> bool:
        """Whether the run only waits for what is in flight, so that nothing new may begin."""
        doomed = self.state.error is not None and self.state.undoing is None
        return self.state.cancelling or doomed or self.state.status.is_final
