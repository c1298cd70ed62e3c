"""A run of which every command is put to two machines and told to a ledger."""

from datetime import datetime

import attrs
from returns.pipeline import is_successful

from squidmesh.domain.commands import (
    ApproveRun,
    ClaimAttempt,
    ClaimOffer,
    Command,
    Refusal,
    ResumeRun,
    StartRun,
    Succeeded,
)
from squidmesh.domain.decide import decide
from squidmesh.domain.entries import AttemptClaimed, AttemptId, Entry, Issuer
from squidmesh.domain.evolution import assemble, rebuild
from squidmesh.domain.state import OPEN, AttemptState, AttemptStatus, RunState, RunStatus
from squidmesh.domain.values import Json
from tests.domain.builders import LEASE, RUN, T0
from tests.domain.ledger import LEGAL, Ledger
from tests.domain.script import Claim, report_of
from tests.domain.workflows import MAX_DELIVERIES, Beginning


def row_of(state: RunState) -> RunState:
    """What a store keeps of a run beside its steps."""
    return attrs.evolve(state, steps={}, context={}, open={}, applied=0)


@attrs.define
class WatchedRun:
    """The machine under test, its double, its ledger, and every claim that was ever given."""

    beginning: Beginning
    ledger: Ledger = attrs.field(init=False)
    now: datetime = T0
    state: RunState = attrs.field(factory=lambda: RunState(run_id=RUN))
    entries: list[Entry] = attrs.field(factory=list[Entry])
    claims: list[Claim] = attrs.field(factory=list[Claim])

    def __attrs_post_init__(self) -> None:
        self.ledger = Ledger(self.beginning.definition, MAX_DELIVERIES)

    def start_command(self, *, urgent: bool) -> StartRun:
        """The command that begins this run."""
        return StartRun(
            run_id=RUN,
            workflow=self.beginning.definition.name,
            trigger="by_hand",
            fingerprint="f1",
            payload={"urgent": urgent},
            from_step=self.beginning.from_step,
            carried=self.beginning.carried,
        )

    def ask(self, command: Command) -> Refusal | None:
        """Put the command to both machines; None if it was carried out, else why not."""
        definition, before = self.beginning.definition, self.state
        again = assemble(row_of(before), reversed(list(before.steps.values())))
        answer = decide(definition, before, command, self.now)
        other = decide(definition, again, command, self.now)

        assert before == again == rebuild(RUN, self.entries)
        if not is_successful(answer):
            assert other.failure() == answer.failure()
            return answer.failure()
        decision = answer.unwrap()
        assert other.unwrap().entries == decision.entries
        assert other.unwrap().state == decision.state
        self.entries.extend(decision.entries)
        self.state = decision.state
        for entry in decision.entries:
            self.ledger.note(entry)
            if isinstance(entry, AttemptClaimed):
                self._remember(entry)
        self._check_move(before)
        return None

    def accepted(self, command: Command) -> None:
        """Ask for what cannot be refused."""
        refusal = self.ask(command)
        assert refusal is None, refusal

    def refused(self, command: Command) -> Refusal:
        """Ask for what must be refused, and leave everything as it was."""
        before = self.state
        refusal = self.ask(command)
        assert refusal is not None, command
        assert self.state is before
        return refusal

    def _remember(self, entry: AttemptClaimed) -> None:
        attempt = AttemptId(entry.step, entry.number)
        self.claims.append(Claim(attempt, entry.claim_id, entry.token_hash, entry.owner))

    def _check_move(self, before: RunState) -> None:
        """Each command moves the status as it may; running may be passed through."""
        old, new = before.status, self.state.status
        if before.revision == 0 or old is new:
            return
        through_running = RunStatus.RUNNING in LEGAL[old] and new in LEGAL[RunStatus.RUNNING]
        assert new in LEGAL[old] or through_running, (old, new)

    def check(self) -> None:
        """What holds after every command, whatever it was."""
        assert rebuild(RUN, self.entries) == self.state
        assert self.state.revision == len(self.entries)
        assert self.state.status is self.ledger.status
        attempts = {name: step.attempts for name, step in self.state.steps.items()}
        claimed = {
            name: tries[-1]
            for name, tries in attempts.items()
            if tries and tries[-1].status is AttemptStatus.CLAIMED
        }
        assert {name: one.claim_id for name, one in claimed.items()} == self.ledger.holders
        assert {name: one.fence for name, one in claimed.items()} == self.ledger.fences
        assert self.state.running == len(claimed)
        numbers = {name: [one.number for one in tries] for name, tries in attempts.items() if tries}
        assert numbers == {
            name: list(range(1, len(tries) + 1)) for name, tries in self.ledger.tries.items()
        }
        self._check_progress()

    def _check_progress(self) -> None:
        """A run that is not over has somewhere to go, and one that is over has not."""
        goes_on = bool(self.ledger.open_tries) or self.ledger.manual is not None
        still_open = any(step.status in OPEN for step in self.state.steps.values())
        assert still_open == bool(self.state.open) == (not self.is_over)
        assert goes_on or self.is_over
        assert (self.state.ended_at is not None) == self.is_over

    @property
    def is_over(self) -> bool:
        """Whether the run has ended."""
        return self.state.status.is_final

    @property
    def scheduled(self) -> list[AttemptState]:
        """The attempts that nobody holds, the first due one first."""
        latest = (step.current for step in self.state.steps.values())
        waiting = [
            one for one in latest if one is not None and one.status is AttemptStatus.SCHEDULED
        ]
        return sorted(waiting, key=lambda attempt: attempt.visible_at)

    @property
    def due(self) -> list[AttemptState]:
        """The attempts that may be claimed now."""
        return [attempt for attempt in self.scheduled if attempt.visible_at <= self.now]

    @property
    def current(self) -> list[Claim]:
        """The claims that count."""
        held = set(self.ledger.holders.values())
        return [claim for claim in self.claims if claim.claim_id in held]

    @property
    def outdated(self) -> list[Claim]:
        """The claims that do not count any more."""
        held = set(self.ledger.holders.values())
        return [claim for claim in self.claims if claim.claim_id not in held]

    def owner_of(self, step: str) -> str | None:
        """Who holds the step, by the ledger."""
        holder = self.ledger.holders.get(step)
        return next((claim.owner for claim in self.claims if claim.claim_id == holder), None)

    def fresh_offer(self, owner: str) -> ClaimOffer:
        """An offer with papers that no other has."""
        serial = f"{len(self.entries)}-{owner}"
        return ClaimOffer(
            claim_id=f"claim-{serial}", token_hash=f"hash-{serial}", owner=owner, lease=LEASE
        )

    def take(self, attempt: AttemptState, owner: str) -> None:
        """Claim an attempt."""
        self.accepted(ClaimAttempt(attempt=attempt.id, offer=self.fresh_offer(owner)))

    def go_on(self, output: Json = None) -> None:
        """Do the next thing that leads to a good end."""
        manual = self.ledger.manual
        if manual is not None:
            issuer = Issuer(actor="ben")
            self.accepted(
                ResumeRun(issuer=issuer) if manual == "hold" else ApproveRun(issuer=issuer)
            )
        elif self.current:
            self.accepted(report_of(self.current[0], Succeeded(output)))
        else:
            first = self.scheduled[0]
            self.now = max(self.now, first.visible_at)
            self.take(first, "w9")
