"""A `Script` plays commands against `decide` and keeps what comes of them.

It owns the clock and the journal of one run. After every command it checks the promise that
everything else rests on: the state that a decision claims is the one that its entries lead to.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import reduce
from itertools import count
from typing import TypeVar

import attrs
from returns.pipeline import is_successful

from squidmesh.domain.commands import (
    DEFAULT_MAX_DELIVERIES,
    NO_OFFERS,
    ApproveRun,
    CancelRun,
    ClaimAttempt,
    ClaimOffer,
    Command,
    Failed,
    LoseAttempt,
    Offers,
    Outcome,
    PutOff,
    Refusal,
    RejectRun,
    ReplayRun,
    ReportOutcome,
    ResumeRun,
    StartRun,
    Succeeded,
)
from squidmesh.domain.decide import decide
from squidmesh.domain.definition import WorkflowDefinition
from squidmesh.domain.entries import (
    AttemptClaimed,
    AttemptId,
    Carried,
    Entry,
    ErrorRecord,
    Issuer,
)
from squidmesh.domain.evolution import evolve
from squidmesh.domain.state import RunState, RunStatus, StepState, StepStatus, compensation_of
from squidmesh.domain.values import Json
from tests.domain.builders import ANNA, BROKEN, LEASE, RUN, T0

E = TypeVar("E", bound=Entry)


@attrs.frozen
class Claim:
    """What a worker remembers of an attempt that it took."""

    attempt: AttemptId
    claim_id: str
    token_hash: str
    owner: str


def offer_of(claim: Claim) -> ClaimOffer:
    """The offer that leads to *claim*."""
    return ClaimOffer(
        claim_id=claim.claim_id, token_hash=claim.token_hash, owner=claim.owner, lease=LEASE
    )


@attrs.define
class Script:
    """One run, driven command by command."""

    definition: WorkflowDefinition
    now: datetime = T0
    state: RunState = attrs.field(factory=lambda: RunState(run_id=RUN))
    entries: list[Entry] = attrs.field(factory=list[Entry])
    _serial: "count[int]" = attrs.field(factory=lambda: count(1))

    def do(self, command: Command) -> tuple[Entry, ...]:
        """Carry out *command*, which must not be refused; its entries come back."""
        answer = decide(self.definition, self.state, command, self.now)
        assert is_successful(answer), answer
        decision = answer.unwrap()
        self.entries.extend(decision.entries)
        self.state = reduce(evolve, decision.entries, self.state)
        assert self.state == decision.state
        return decision.entries

    def refused(self, command: Command) -> Refusal:
        """Ask for what must be refused; the reason comes back."""
        answer = decide(self.definition, self.state, command, self.now)
        assert not is_successful(answer), answer
        return answer.failure()

    def pass_time(self, duration: timedelta) -> None:
        """Let time pass."""
        self.now += duration

    def start(
        self,
        payload: Mapping[str, Json] | None = None,
        *,
        schedule: Mapping[str, Json] | None = None,
        from_step: str | None = None,
        carried: tuple[Carried, ...] = (),
        queue: str = "default",
    ) -> "Script":
        """Begin the run."""
        self.do(
            StartRun(
                run_id=self.state.run_id,
                workflow=self.definition.name,
                trigger="by_hand",
                fingerprint="f1",
                payload=payload or {},
                schedule=schedule,
                from_step=from_step,
                carried=carried,
                queue=queue,
            )
        )
        return self

    def a_claim(self, step: str, *, number: int | None = None, owner: str = "worker-1") -> Claim:
        """Fresh papers for the step's latest attempt, not handed in yet."""
        serial = next(self._serial)
        known = self.state.steps.get(step)
        latest = len(known.attempts) if known is not None else 1
        attempt = AttemptId(step, number if number is not None else latest)
        return Claim(attempt, f"claim-{serial}", f"hash-{serial}", owner)

    def claim(self, step: str, *, owner: str = "worker-1") -> Claim:
        """Let a worker take the step's latest attempt."""
        claim = self.a_claim(step, owner=owner)
        self.do(ClaimAttempt(attempt=claim.attempt, offer=offer_of(claim)))
        return claim

    def report(
        self, claim: Claim, outcome: Outcome, *, offers: Offers = NO_OFFERS, draw: float = 0.0
    ) -> tuple[Entry, ...]:
        """Let the holder say how it ended."""
        return self.do(report_of(claim, outcome, offers=offers, draw=draw))

    def ok(self, step: str, output: Json = None) -> tuple[Entry, ...]:
        """Claim the step's attempt and let it succeed."""
        return self.report(self.claim(step), Succeeded(output))

    def fail(
        self, step: str, error: ErrorRecord = BROKEN, *, retry_after: timedelta | None = None
    ) -> tuple[Entry, ...]:
        """Claim the step's attempt and let it fail."""
        return self.report(self.claim(step), Failed(error=error, retry_after=retry_after))

    def defer(
        self, step: str, delay: timedelta = timedelta(0), *, reason: str | None = None
    ) -> tuple[Entry, ...]:
        """Claim the step's attempt and let the body ask to come back later."""
        return self.report(self.claim(step), PutOff(delay=delay, reason=reason))

    def lose(
        self, claim: Claim, *, max_deliveries: int = DEFAULT_MAX_DELIVERIES
    ) -> tuple[Entry, ...]:
        """Let the lease of *claim* run out."""
        return self.do(loss_of(claim, max_deliveries=max_deliveries))

    def cancel(self, issuer: Issuer = ANNA) -> tuple[Entry, ...]:
        """Ask the run to stop."""
        return self.do(CancelRun(issuer=issuer))

    def resume(self, issuer: Issuer = ANNA) -> tuple[Entry, ...]:
        """End the open pause."""
        return self.do(ResumeRun(issuer=issuer))

    def approve(self, issuer: Issuer = ANNA) -> tuple[Entry, ...]:
        """Say yes."""
        return self.do(ApproveRun(issuer=issuer))

    def reject(self, issuer: Issuer = ANNA) -> tuple[Entry, ...]:
        """Say no."""
        return self.do(RejectRun(issuer=issuer))

    def replay(self, new_run_id: str = "run-2", issuer: Issuer = ANNA) -> tuple[Entry, ...]:
        """Note a replay on this run."""
        return self.do(ReplayRun(new_run_id=new_run_id, issuer=issuer))

    def step(self, name: str) -> StepState:
        """What is known of the step."""
        return self.state.steps[name]

    def undo(self, name: str) -> StepState:
        """What is known of the step's compensation."""
        return self.state.steps[compensation_of(name)]

    def said(self, kind: type[E]) -> list[E]:
        """The journal's entries of one kind."""
        return [entry for entry in self.entries if isinstance(entry, kind)]

    @property
    def status(self) -> RunStatus:
        """Where the run stands."""
        return self.state.status

    @property
    def statuses(self) -> dict[str, StepStatus]:
        """Where each step stands that was reached."""
        return {name: step.status for name, step in self.state.steps.items()}

    @property
    def claimed(self) -> list[str]:
        """The steps that were ever claimed, in order."""
        return [entry.step for entry in self.said(AttemptClaimed)]


def report_of(
    claim: Claim, outcome: Outcome, *, offers: Offers = NO_OFFERS, draw: float = 0.0
) -> ReportOutcome:
    """The holder's report."""
    return ReportOutcome(
        attempt=claim.attempt,
        token_hash=claim.token_hash,
        outcome=outcome,
        offers=offers,
        draw=draw,
    )


def loss_of(claim: Claim, *, max_deliveries: int = DEFAULT_MAX_DELIVERIES) -> LoseAttempt:
    """What anybody may say of a claim whose lease is over."""
    return LoseAttempt(
        attempt=claim.attempt, claim_id=claim.claim_id, max_deliveries=max_deliveries
    )


def types(entries: tuple[Entry, ...]) -> list[str]:
    """The names of the entries' classes."""
    return [type(entry).__name__ for entry in entries]
