"""Runs under every command in any order, watched by a ledger that knows only the laws.

After each command: the journal rebuilds the state, rows put it together again, the ledger agrees
about who holds what and where the run stands, the status moved as it may, and a run that is not
over has somewhere to go. Every command is also put to a second machine, whose state was read from
rows in another order: both say the same. At the end every run is led to its own.
"""

from datetime import timedelta
from typing import Final

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from squidmesh.domain.commands import (
    NO_OFFERS,
    AlreadyStarted,
    ApproveRun,
    CancelRun,
    ClaimAttempt,
    ClaimIsStale,
    Command,
    Failed,
    KeyAlreadyUsed,
    MoveIsIllegal,
    NotClaimable,
    NotPaused,
    Offers,
    Outcome,
    PutOff,
    Refusal,
    RejectRun,
    ReplayIsUnsafe,
    ReplayRun,
    ResumeRun,
    Succeeded,
)
from squidmesh.domain.entries import AttemptId, Issuer
from squidmesh.domain.state import RunStatus
from squidmesh.domain.values import Json
from tests.domain.builders import BROKEN, BUSY, seconds
from tests.domain.ledger import NO_WISH
from tests.domain.script import Claim, loss_of, report_of
from tests.domain.watched import WatchedRun
from tests.domain.workflows import MAX_DELIVERIES, WORKFLOWS, Beginning

CANCELLABLE: Final = {
    RunStatus.PENDING,
    RunStatus.RUNNING,
    RunStatus.RETRYING,
    RunStatus.PAUSED,
}

EARLY: Final = 10
MOST_REPLAYS: Final = 2
MOST_IN_VAIN: Final = 3

picks = st.integers(0, 99)
keys = st.sampled_from([None, None, "k1", "k2"])
issuers = st.builds(Issuer, actor=st.just("anna"), idempotency_key=keys)
LOSS: Final = "loss"
OUTCOMES: Final[tuple[Outcome, ...]] = (
    Succeeded(),
    Succeeded({"found": 1, "urgent": False}),
    Succeeded("large"),
    Failed(error=BROKEN),
    Failed(error=BUSY),
    Failed(error=BUSY),
    Failed(error=BUSY, retry_after=seconds(7)),
    PutOff(delay=seconds(0)),
    PutOff(delay=seconds(20)),
)
outcomes = st.sampled_from(OUTCOMES)
ways_to_end = st.sampled_from((*OUTCOMES, LOSS, LOSS, LOSS))


class RunMachine(RuleBasedStateMachine):
    """One run of one workflow, and whoever has something to say about it."""

    run: WatchedRun
    vain: int

    @initialize(beginning=st.sampled_from(WORKFLOWS), urgent=st.booleans())
    def start(self, beginning: Beginning, *, urgent: bool) -> None:
        self.run, self.vain = WatchedRun(beginning), 0
        self.run.accepted(self.run.start_command(urgent=urgent))

    @precondition(lambda self: self.run.is_over)
    @rule(beginning=st.sampled_from(WORKFLOWS), urgent=st.booleans())
    def another_run_begins(self, beginning: Beginning, *, urgent: bool) -> None:
        self.start(beginning, urgent=urgent)

    @rule(urgent=st.booleans(), pick=picks, number=st.integers(0, 4))
    def somebody_asks_for_what_is_not_there(self, *, urgent: bool, pick: int, number: int) -> None:
        names = [*self.run.beginning.definition.by_name, "nowhere", "compensate:load"]
        wanted = AttemptId(names[pick % len(names)], number)

        again = self.run.refused(self.run.start_command(urgent=urgent))

        assert isinstance(again, AlreadyStarted)
        if wanted not in [attempt.id for attempt in self.run.scheduled]:
            claim = ClaimAttempt(attempt=wanted, offer=self.run.fresh_offer("w3"))
            assert isinstance(self.run.refused(claim), NotClaimable)

    @rule(duration=st.sampled_from([seconds(1), seconds(10), seconds(60)]))
    def time_passes(self, duration: timedelta) -> None:
        self.run.now += duration

    @precondition(lambda self: self.run.ledger.open_tries)
    @rule(output=st.sampled_from([None, "large", {"urgent": True}]))
    def all_goes_well(self, output: Json) -> None:
        self.run.go_on(output)

    @precondition(lambda self: self.run.due)
    @rule(pick=picks, count=st.integers(1, 3))
    def workers_claim(self, pick: int, count: int) -> None:
        for attempt in self.run.due[pick % len(self.run.due) :][:count]:
            self.run.take(attempt, "w1")

    @precondition(lambda self: self.run.current)
    @rule(pick=picks, way=ways_to_end, offered=st.integers(0, 2), further=st.booleans())
    def a_claim_ends(self, pick: int, way: Outcome | str, offered: int, further: bool) -> None:
        claim = self.run.current[pick % len(self.run.current)]
        offers = Offers(
            claims=tuple(self.run.fresh_offer(f"w{n}") for n in range(offered)),
            queues=frozenset({"default"}),
            further=further,
        )

        self._end(claim, way, offers if offered else NO_OFFERS)

    @precondition(lambda self: self.run.scheduled)
    @rule(pick=picks, ways=st.lists(ways_to_end, min_size=1, max_size=6))
    def a_step_struggles(self, pick: int, ways: list[Outcome | str]) -> None:
        step = self.run.scheduled[pick % len(self.run.scheduled)].step
        for way in ways:
            attempt = next((one for one in self.run.scheduled if one.step == step), None)
            if attempt is None:
                break
            self.run.now = max(self.run.now, attempt.visible_at)
            self.run.take(attempt, "w2")
            self._end(self.run.claims[-1], way, NO_OFFERS)
            self.run.check()

    def _end(self, claim: Claim, way: Outcome | str, offers: Offers) -> None:
        if isinstance(way, str):
            self.run.accepted(loss_of(claim, max_deliveries=MAX_DELIVERIES))
            return
        if isinstance(way, Failed) and way.error.retryable:
            wish = NO_WISH if way.retry_after is None else way.retry_after
            self.run.ledger.wishes[(claim.attempt.step, claim.attempt.number)] = wish
        self.run.accepted(report_of(claim, way, offers=offers))

    @precondition(lambda self: self.run.claims)
    @rule(pick=picks, outcome=outcomes)
    def somebody_speaks_out_of_turn(self, pick: int, outcome: Outcome) -> None:
        forged = [attrs.evolve(claim, token_hash="forged") for claim in self.run.current]
        liars = [*self.run.outdated, *forged]
        liar = liars[pick % len(liars)]
        holder = self.run.owner_of(liar.attempt.step)

        refusal = self.run.refused(report_of(liar, outcome))

        assert refusal == ClaimIsStale(attempt=liar.attempt, holder=holder)
        if liar in self.run.outdated:
            assert self.run.refused(loss_of(liar)) == refusal

    def _command(
        self, command: Command, issuer: Issuer, name: str, *, allowed: bool
    ) -> Refusal | None:
        """Give a person's command; a key that was used before answers before anything else."""
        key, before = issuer.idempotency_key, self.run.state
        used = before.receipts.get(key) if key is not None else None
        refusal = self.run.ask(command)
        if used is None:
            assert (refusal is None) == allowed, refusal
            assert refusal is not None or key is None or self.run.state.receipts[key] == name
            self.vain += refusal is not None
            return refusal
        assert self.run.state is before
        assert refusal == (None if used == name else KeyAlreadyUsed(key=key or ""))
        return None

    @precondition(lambda self: self.run.state.status in CANCELLABLE or self.vain < MOST_IN_VAIN)
    @precondition(lambda self: self.run.ledger.count > EARLY)
    @rule(issuer=issuers)
    def a_person_cancels(self, issuer: Issuer) -> None:
        allowed = self.run.state.status in CANCELLABLE

        refusal = self._command(CancelRun(issuer=issuer), issuer, "cancel", allowed=allowed)

        assert refusal is None or refusal == MoveIsIllegal(
            source=self.run.state.status, target=RunStatus.CANCELLING
        )

    @precondition(lambda self: self.run.ledger.manual or self.vain < MOST_IN_VAIN)
    @rule(issuer=issuers, name=st.sampled_from(["resumed", "approved", "rejected"]))
    def a_person_decides(self, issuer: Issuer, name: str) -> None:
        commands: dict[str, Command] = {
            "resumed": ResumeRun(issuer=issuer),
            "approved": ApproveRun(issuer=issuer),
            "rejected": RejectRun(issuer=issuer),
        }
        allowed = self.run.ledger.manual == ("hold" if name == "resumed" else "review")

        refusal = self._command(commands[name], issuer, name, allowed=allowed)

        assert refusal is None or isinstance(refusal, NotPaused)

    @precondition(lambda self: self.run.ledger.manual)
    @rule(says_yes=st.booleans())
    def a_person_ends_the_waiting(self, *, says_yes: bool) -> None:
        issuer = Issuer(actor="ben")
        if self.run.ledger.manual == "hold":
            self.run.accepted(ResumeRun(issuer=issuer))
        else:
            self.run.accepted(ApproveRun(issuer=issuer) if says_yes else RejectRun(issuer=issuer))

    @precondition(lambda self: self.run.ledger.replays < MOST_REPLAYS)
    @rule(issuer=issuers, override=st.booleans())
    def a_person_replays(self, issuer: Issuer, *, override: bool) -> None:
        blocking = tuple(
            spec.name
            for spec in self.run.beginning.definition.steps
            if spec.irreversible and spec.name in self.run.ledger.completed
        )
        command = ReplayRun(new_run_id="run-2", allow_irreversible=override, issuer=issuer)

        refusal = self._command(command, issuer, "replay", allowed=override or not blocking)

        assert refusal is None or refusal == ReplayIsUnsafe(steps=blocking)

    @invariant()
    def every_law_holds(self) -> None:
        self.run.check()

    def teardown(self) -> None:
        """Lead the run to its end: it takes no more than a few commands for each of its steps."""
        for _ in range(20 * len(self.run.beginning.definition.steps)):
            if self.run.is_over:
                break
            self.run.go_on()
            self.run.check()
        assert self.run.is_over


TestRunMachine = RunMachine.TestCase
TestRunMachine.settings = settings(max_examples=200, stateful_step_count=40)
