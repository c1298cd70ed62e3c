"""What a host's job calls with a payload that was enqueued for it.

A delivery is claimed first, so a second, late, early or foreign one does nothing and says why.
Accidents of the store raise, so that the host's queue delivers again.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Literal, TypeAlias

import attrs
from returns.pipeline import is_successful
from structlog.contextvars import bound_contextvars

from squidmesh import codec
from squidmesh.domain.commands import (
    NO_OFFERS,
    ClaimAttempt,
    NotClaimable,
    Offers,
    Outcome,
    SkipReason,
)
from squidmesh.domain.definition import WorkflowDefinition
from squidmesh.domain.entries import AttemptId
from squidmesh.domain.state import (
    AttemptStatus,
    RunState,
    compensated_step,
    compensation_of,
    is_compensation,
)
from squidmesh.domain.values import Json
from squidmesh.errors import (
    InvalidPayloadForExecutorError,
    RunNotFoundError,
    UnserializableValueError,
)
from squidmesh.runtime.claims import Claimant, HeldAttempt
from squidmesh.runtime.engine import Engine
from squidmesh.runtime.within import perform, shares_transaction

ReportStatus: TypeAlias = Literal["performed", "skipped", "started"]
StartCron: TypeAlias = "Callable[[Mapping[str, Json]], Awaitable[PerformReport]]"

_KEYS: Final = (
    "kind",
    "run_id",
    "step",
    "attempt",
    "workflow",
    "trigger",
    "signal_id",
    "intended_window",
)


@attrs.frozen(kw_only=True)
class PerformReport:
    """What a delivery came to; *reason* says why it was skipped."""

    status: ReportStatus
    reason: str | None = None
    run_id: str | None = None
    step: str | None = None
    attempt: int | None = None


@attrs.define(eq=False)
class Deliveries:
    """Performs deliveries over an engine; *start_cron* is what an activation does."""

    engine: Engine
    start_cron: StartCron
    claimant: Claimant

    async def perform(self, payload: object) -> PerformReport:
        """Perform exactly what was delivered, if it is still there to do.

        Raises:
            InvalidPayloadForExecutorError: The payload is not one that this library enqueues.
            StoreUnavailableError: The store could not be reached; deliver again.
        """
        payload = _known_part(payload)
        kind = payload.get("kind")
        if kind == "cron":
            return await self.start_cron(payload)
        if kind not in ("step", "compensation"):
            raise InvalidPayloadForExecutorError(
                "A payload has the kind step, compensation or cron.", code="unknown_kind"
            )
        run_id = _text(payload, "run_id")
        step, number = _target(payload, required=kind == "step")
        if kind == "compensation" and step is not None and not is_compensation(step):
            step = compensation_of(step)
        return await self._perform(run_id, step, number)

    async def _perform(self, run_id: str, step: str | None, number: int | None) -> PerformReport:
        loaded = await self.engine.store.load([run_id])
        self.engine.time.observe(loaded.at)
        state = loaded.states.get(run_id)
        if state is not None:
            # What others have done meanwhile decides why a delivery is skipped.
            self.engine.committer.states.remember(state)
        if state is None:
            return self._skipped(SkipReason.UNKNOWN_RUN, run_id, step, number)
        if step is None:
            step = _open_compensation(state)
        if step is None:
            nothing = SkipReason.RUN_OVER if state.status.is_final else SkipReason.NOT_SCHEDULED
            return self._skipped(nothing, run_id, step, number, state)
        if number is None:
            known = state.steps.get(step)
            number = len(known.attempts) if known is not None else 1
        reason = await self._unknown(state, step)
        if reason is not None:
            return self._skipped(reason, run_id, step, number, state)
        held = await self._claim(run_id, AttemptId(step, number))
        if isinstance(held, SkipReason):
            return self._skipped(held, run_id, step, number, state)
        return await self._run(held)

    async def _unknown(self, state: RunState, step: str) -> SkipReason | None:
        definition = await self.engine.registry.definition(state.facts.fingerprint, state.run_id)
        if not _declares(definition, step) and step not in state.steps:
            return SkipReason.UNKNOWN_STEP
        if state.status.is_final:
            return SkipReason.RUN_OVER
        if not self.engine.registry.can_run(state.facts.fingerprint, step):
            return SkipReason.UNKNOWN_WORKFLOW
        return None

    async def _claim(self, run_id: str, attempt: AttemptId) -> HeldAttempt | SkipReason:
        offer = self.claimant.offer()
        try:
            answer = await self.engine.committer.submit(
                run_id, ClaimAttempt(attempt=attempt, offer=offer)
            )
        except RunNotFoundError:
            return SkipReason.UNKNOWN_RUN
        if not is_successful(answer):
            refusal = answer.failure()
            return (
                refusal.reason if isinstance(refusal, NotClaimable) else SkipReason.ALREADY_CLAIMED
            )
        return HeldAttempt(
            state=answer.unwrap().state,
            attempt=attempt,
            claim_id=offer.claim_id,
            token_hash=offer.token_hash,
            lease=offer.lease,
        )

    async def _run(self, held: HeldAttempt) -> PerformReport:
        try:
            with bound_contextvars(**held.log_fields()):
                if shares_transaction(self.engine, held):
                    settled, _ = await perform(self.engine, held, _no_offers)
                else:
                    settled = await self.engine.report(held, await self.engine.execute(held))
        finally:
            self.engine.heart.let_go(held.claim_id)
        if settled is None:
            step, number = held.attempt.step, held.attempt.number
            return self._skipped(SkipReason.STALE_ATTEMPT, held.run_id, step, number, held.state)
        return PerformReport(
            status="performed",
            run_id=held.run_id,
            step=held.attempt.step,
            attempt=held.attempt.number,
        )

    def _skipped(
        self,
        reason: SkipReason,
        run_id: str,
        step: str | None,
        number: int | None,
        state: RunState | None = None,
    ) -> PerformReport:
        self.engine.telemetry.skipped(state, run_id, step, number, reason)
        return PerformReport(
            status="skipped", reason=reason.value, run_id=run_id, step=step, attempt=number
        )


def _no_offers(_: Outcome) -> Offers:
    """A runner performs exactly what was delivered; the executor brings what follows."""
    return NO_OFFERS


def _known_part(payload: object) -> Mapping[str, Json]:
    """What this library puts into a payload, as plain JSON; whatever else is there is ignored."""
    if not isinstance(payload, Mapping):
        raise InvalidPayloadForExecutorError("A payload is a mapping.", code="invalid_payload")
    try:
        known = codec.plain({key: payload[key] for key in _KEYS if key in payload})
    except UnserializableValueError as problem:
        raise InvalidPayloadForExecutorError(
            f"A payload is JSON: {problem}", code="invalid_payload"
        ) from None
    assert isinstance(known, dict)
    return known


def _text(payload: Mapping[str, Json], key: str) -> str:
    value = payload.get(key)
    if not isinstance(value, str) or not value:
        raise InvalidPayloadForExecutorError(
            f"The payload needs {key!r}, a text.", code="invalid_payload"
        )
    return value


def _target(payload: Mapping[str, Json], *, required: bool) -> tuple[str | None, int | None]:
    """The step and attempt that a payload names; a compensation's may be left to the run."""
    if not required and payload.get("step") is None:
        return None, None
    step, number = _text(payload, "step"), payload.get("attempt")
    if number is None and not required:
        return step, None
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise InvalidPayloadForExecutorError(
            "The payload needs 'attempt', a number from 1 on.", code="invalid_payload"
        )
    return step, number


def _declares(definition: WorkflowDefinition, step: str) -> bool:
    if not is_compensation(step):
        return step in definition.by_name
    undone = definition.by_name.get(compensated_step(step))
    return undone is not None and undone.compensation is not None


def _open_compensation(state: RunState) -> str | None:
    for step in reversed(tuple(state.steps.values())):
        current = step.current
        if (
            is_compensation(step.step)
            and current is not None
            and current.status in (AttemptStatus.SCHEDULED, AttemptStatus.CLAIMED)
        ):
            return step.step
    return None
