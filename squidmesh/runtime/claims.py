"""A claim as its holder has it: the token, the attempt, and the run that knows both."""

import asyncio
import base64
import hashlib
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

import attrs

from squidmesh import codec
from squidmesh.context import StepContext
from squidmesh.domain.commands import ClaimOffer
from squidmesh.domain.dispatch import idempotency_key, runnable_key
from squidmesh.domain.entries import AttemptClaimed, AttemptId
from squidmesh.domain.state import AttemptState, RunState
from squidmesh.domain.values import Json
from squidmesh.ports.clock import Ids
from squidmesh.ports.store import ClaimTicket, HeldClaim
from squidmesh.runtime.heart import Heart


def hash_of(token: str) -> str:
    """The hash under which a claim token is known to the store.

    The beginning of its SHA-256 as url-safe text: nobody finds another token for 96 bits before the
    lease is over, and the text stands in every claim and in the journal.
    """
    return base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()[:12]).decode()


@attrs.frozen(kw_only=True)
class HeldAttempt:
    """An attempt that this process holds."""

    state: RunState
    attempt: AttemptId
    claim_id: str
    token_hash: str
    lease: timedelta

    @property
    def run_id(self) -> str:
        """The run that the attempt belongs to."""
        return self.state.run_id

    @property
    def fingerprint(self) -> str:
        """The definition that the run carries."""
        return self.state.facts.fingerprint

    def log_fields(self) -> dict[str, object]:
        """What the host's own log lines carry while the body runs."""
        return {
            "run_id": self.run_id,
            "workflow": self.state.facts.workflow,
            "step": self.attempt.step,
            "attempt": self.attempt.number,
        }

    def to_keep(self) -> HeldClaim:
        """The claim as heartbeats name it."""
        return HeldClaim(
            run_id=self.run_id,
            attempt=self.attempt,
            claim_id=self.claim_id,
            token_hash=self.token_hash,
            lease=self.lease,
        )


@attrs.define(eq=False)
class Claimant:
    """Makes fresh claims for one owner; tickets that a store gave back unused serve again."""

    ids: Ids
    owner: str
    lease: timedelta
    _unused: list[ClaimTicket] = attrs.field(factory=list[ClaimTicket])

    def take(self, count: int) -> tuple[ClaimTicket, ...]:
        """Take *count* tickets, which are this caller's until it gives some of them back."""
        taken, self._unused = self._unused[:count], self._unused[count:]
        return (*taken, *(self.ticket() for _ in range(count - len(taken))))

    def give_back(self, tickets: Iterable[ClaimTicket]) -> None:
        """Take back tickets that are certain not to have become claims."""
        self._unused.extend(tickets)

    def ticket(self) -> ClaimTicket:
        """A fresh claim for the store to hand an attempt to."""
        return ClaimTicket(claim_id=self.ids.claim_id(), token_hash=hash_of(self.ids.claim_token()))

    def offer(self) -> ClaimOffer:
        """A fresh claim for the core to hand a successor to."""
        return ClaimOffer(
            claim_id=self.ids.claim_id(),
            token_hash=hash_of(self.ids.claim_token()),
            owner=self.owner,
            lease=self.lease,
        )


def held_from(state: RunState, entry: AttemptClaimed) -> HeldAttempt:
    """The claim that an entry speaks of."""
    return HeldAttempt(
        state=state,
        attempt=AttemptId(entry.step, entry.number, entry.visit),
        claim_id=entry.claim_id,
        token_hash=entry.token_hash,
        lease=entry.lease,
    )


def held_again(state: RunState, attempt: AttemptState) -> HeldAttempt:
    """The claim that an attempt carries, as its holder reads it back."""
    assert attempt.claim_id is not None
    assert attempt.token_hash is not None
    assert attempt.lease is not None
    return HeldAttempt(
        state=state,
        attempt=attempt.id,
        claim_id=attempt.claim_id,
        token_hash=attempt.token_hash,
        lease=attempt.lease,
    )


def context_of(held: HeldAttempt, heart: Heart, connection: Any = None) -> StepContext:  # noqa: ANN401
    """What the attempt's body may ask."""
    state, attempt = held.state, held.attempt
    facts = state.facts
    fence = state.steps[attempt.step].attempts[attempt.number - 1].fence

    def read_state() -> Mapping[str, Json]:
        known = {"payload": dict(facts.payload), "context": dict(state.context)}
        copied = codec.decode(codec.encode(known))  # type: ignore[arg-type]  # plain already
        assert isinstance(copied, dict)
        return copied

    return StepContext(
        run_id=state.run_id,
        workflow=facts.workflow,
        step=attempt.step,
        attempt=attempt.number,
        runnable_key=runnable_key(state.run_id, attempt),
        idempotency_key=idempotency_key(state.run_id, attempt.step, attempt.visit),
        claim_id=held.claim_id,
        fence=fence if fence is not None else 0,
        trigger=facts.trigger,
        schedule=dict(facts.schedule) if facts.schedule is not None else None,
        read_state=read_state,
        beat=lambda: heart.beat_now(held.to_keep()),
        loop=asyncio.get_running_loop(),
        connection=connection,
    )
