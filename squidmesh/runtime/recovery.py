"""Finds what was scheduled and never delivered, and claims whose lease ran out.

Every open mesh with an executor sweeps once a second, one of them at a time under a lease in the
store; workers take up expired claims with each of their own. Nothing here is keyed by who was
working, and nothing happens only at start-up.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import attrs
from returns.pipeline import is_successful

from squidmesh.domain.commands import LoseAttempt
from squidmesh.domain.state import RunStatus
from squidmesh.errors import StoreUnavailableError
from squidmesh.logs import logger
from squidmesh.ports.clock import Clock
from squidmesh.ports.store import (
    AttemptStore,
    ClaimRequest,
    ExpiredClaim,
    Presence,
    Store,
)
from squidmesh.runtime.asks import Ask
from squidmesh.runtime.committer import Committer
from squidmesh.runtime.dispatcher import Dispatcher
from squidmesh.runtime.store_time import StoreTime

SWEEP_INTERVAL: Final = 1.0
SWEEP_LEASE: Final = timedelta(seconds=5)
BATCH: Final = 500

log = logger("recovery")


@attrs.frozen(kw_only=True)
class RecoveryReport:
    """How many wake-ups were emitted, claims reclaimed, and runs brought to their end by that."""

    emitted: int = 0
    reclaimed: int = 0
    converged: int = 0

    def __add__(self, other: "RecoveryReport") -> "RecoveryReport":
        return RecoveryReport(
            emitted=self.emitted + other.emitted,
            reclaimed=self.reclaimed + other.reclaimed,
            converged=self.converged + other.converged,
        )


@attrs.define(eq=False)
class Recovery:
    """Takes up what others left lying."""

    store: Store
    attempts: AttemptStore
    presence: Presence
    committer: Committer
    dispatcher: Dispatcher
    time: StoreTime
    clock: Clock
    owner: str
    max_deliveries: int
    _sweeping: "asyncio.Task[None] | None" = None

    async def recover(self, older_than: timedelta) -> RecoveryReport:
        """Reclaim every expired lease, then announce everything due for *older_than* or longer."""
        reclaimed = await self.reclaim_expired()
        before = self.time.now() - older_than
        emitted = 0
        if self.dispatcher.executor is not None:
            owed = await self.attempts.owed_wakeups(due_before=before, limit=1_000_000)
            emitted = await self.dispatcher.emit(owed)
        return reclaimed + RecoveryReport(emitted=emitted)

    async def reclaim_expired(self) -> RecoveryReport:
        """Take up expired claims until there are none."""
        total = RecoveryReport()
        while True:
            claims = await self.store.claim(_looking_only(self.owner))
            self.time.observe(claims.at)
            report = await self.reclaim(claims.expired)
            total = total + report
            if not report.reclaimed:
                return total

    async def reclaim(self, expired: Sequence[ExpiredClaim]) -> RecoveryReport:
        """Decide what follows from lost claims: the next attempt, or the end."""
        asks = [
            Ask(
                claim.run_id,
                LoseAttempt(
                    attempt=claim.attempt,
                    claim_id=claim.claim_id,
                    max_deliveries=self.max_deliveries,
                ),
            )
            for claim in expired
        ]
        self.committer.queue(asks)
        await asyncio.gather(*(ask.answer for ask in asks), return_exceptions=True)
        reclaimed = converged = 0
        for ask in asks:
            accident = ask.answer.exception()
            if isinstance(accident, StoreUnavailableError):
                raise accident
            if accident is not None:
                # One run that cannot be read must not keep the others lying.
                log.warning("reclaim.failed", run_id=ask.run_id, error=type(accident).__name__)
                continue
            answer = ask.answer.result()
            if is_successful(answer):
                settled = answer.unwrap()
                reclaimed += 1
                was_ending = settled.before.status is RunStatus.CANCELLING
                converged += was_ending and settled.state.status.is_final
        return RecoveryReport(reclaimed=reclaimed, converged=converged)

    def start_sweeping(self) -> None:
        """Sweep from now on, once a second, while no other mesh does."""
        self._sweeping = asyncio.get_running_loop().create_task(self._sweep(), name="sweep")

    async def close(self) -> None:
        """Stop sweeping."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.gather(self._sweeping, return_exceptions=True)
            self._sweeping = None

    async def _sweep(self) -> None:
        failing = False
        while True:
            try:
                if await self.presence.take_lease("sweep", self.owner, SWEEP_LEASE):
                    await self._sweep_once()
                failing = False
            except Exception as problem:  # noqa: BLE001  whatever it is, the next sweep may do
                if not failing:
                    log.warning("sweep.failed", error=type(problem).__name__)
                failing = True
            await self.clock.sleep(SWEEP_INTERVAL)

    async def _sweep_once(self) -> None:
        await self.reclaim_expired()
        owed = await self.attempts.owed_wakeups(due_before=None, limit=BATCH)
        if owed:
            # A deaf engine must not keep expired claims waiting: they are looked at between.
            await self.dispatcher.emit(owed, within=SWEEP_LEASE.total_seconds())


def _looking_only(owner: str) -> ClaimRequest:
    """A claim without tickets takes nothing; it only says what has expired."""
    return ClaimRequest(
        owner=owner, queues=(), definitions=(), tickets=(), lease=timedelta(seconds=1)
    )
