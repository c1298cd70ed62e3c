"""Inside somebody's transaction: the host's, for one command, or a step's, for its completion."""

import contextvars
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import attrs
from returns.pipeline import is_successful

from squidmesh.domain.commands import NO_OFFERS, Failed, Offers, Outcome, PutOff, Succeeded
from squidmesh.domain.entries import ErrorRecord
from squidmesh.domain.state import AttemptState
from squidmesh.errors import StoreConflictError, StoreUnavailableError
from squidmesh.logs import logger
from squidmesh.runtime.asks import Settled
from squidmesh.runtime.changes import WakeAt
from squidmesh.runtime.claims import HeldAttempt, context_of
from squidmesh.runtime.committer import Committer
from squidmesh.runtime.engine import Engine, Storage
from squidmesh.runtime.known_states import KnownStates
from squidmesh.runtime.step_executor import MOST_ERROR_TEXT

RETRY_DELAY: Final = timedelta(seconds=1)
LEASE_PARTS: Final = 4
"""Into how many parts a lease is cut: for one of them a body may keep everybody else out.

They are shorter than the time between two heartbeats, one of which can so be waiting at most."""

_PASSING: Final = (StoreUnavailableError, StoreConflictError)

Reported = tuple[Settled | None, Offers]
"""What a report led to, None if the claim did not count any more, and what it offered."""

_UNSUPPORTED = ErrorRecord(
    code="transaction_unsupported",
    message="The step has transaction=True, and this store has no transactions to share.",
)

log = logger("worker")


class _TakenBack(Exception):  # noqa: N818  it never leaves this module
    """The transaction is to be rolled back: the body did not succeed, or its claim is gone."""


async def joined(engine: Engine, connection: object) -> Engine:
    """Return the engine as it is inside the host's transaction.

    Nothing that it does is told or remembered, because it may never have happened.

    Raises:
        InvalidOptionError: The store cannot join that connection.
    """
    store = await engine.store.joined(connection)
    has_executor = engine.dispatcher.executor is not None
    # Nobody is told behind the host's commit, so the sweep owes it the wake-up at once.
    return _inside(engine, store, wake_at=_at_once if has_executor else None)


def _at_once(attempt: AttemptState, _: datetime) -> datetime:
    return attempt.visible_at


def _inside(engine: Engine, store: Storage, *, wake_at: WakeAt | None) -> Engine:
    states = KnownStates(store, engine.time)
    committer = Committer(store, engine.registry, engine.time, states, wake_at=wake_at, inside=True)
    return attrs.evolve(engine, store=store, committer=committer)


def shares_transaction(engine: Engine, held: HeldAttempt) -> bool:
    """Whether the attempt's body writes in the transaction of its own completion."""
    definition = engine.registry.known(held.fingerprint)
    spec = definition.by_name.get(held.attempt.step) if definition is not None else None
    return spec is not None and spec.transaction


@attrs.define
class _Course:
    """How far a step has come in its transaction: body, completion, commit."""

    outcome: Outcome | None = None
    offers: Offers = NO_OFFERS
    settled: Settled | None = None

    @property
    def is_refused(self) -> bool:
        """Whether the body succeeded, and its claim did not count any more."""
        return isinstance(self.outcome, Succeeded) and self.settled is None


async def perform(
    engine: Engine, held: HeldAttempt, offer: Callable[[Outcome], Offers]
) -> Reported:
    """Run a held attempt's body and report it, all in one transaction of the store.

    A body that fails takes its writes back, and so does a claim that is gone by then. Where the
    commit's answer is lost, what was committed is read back.
    """
    if not engine.store.is_transactional:
        return await _report(engine, held, Failed(error=_UNSUPPORTED), offer)
    course = _Course()
    # Its transaction may be long in coming, and the claim has to live until then.
    engine.heart.hold(held.to_keep(), context_of(held, engine.heart))
    try:
        await _run(engine, held, offer, course)
    except _TakenBack:
        if course.is_refused:
            engine.heart.let_go(held.claim_id)
            return None, course.offers
    except Exception as problem:
        if course.outcome is None and not isinstance(problem, _PASSING):
            raise
        log.warning("transaction.failed", error=type(problem).__name__, reason=_text(problem))
        log.debug("transaction.failed", exc_info=problem)
        if course.outcome is None or isinstance(course.outcome, Succeeded):
            return await _after_accident(engine, held, offer, course, problem)
    if course.settled is not None:
        engine.heart.let_go(held.claim_id)
        engine.committer.states.remember(course.settled.state)
        # As from the committer's own task, which knows nothing of the body's log fields.
        contextvars.Context().run(engine.committer.committed, [course.settled])
        return course.settled, course.offers
    assert course.outcome is not None
    return await _report(engine, held, course.outcome, offer)


async def _run(
    engine: Engine, held: HeldAttempt, offer: Callable[[Outcome], Offers], course: _Course
) -> None:
    """Go as far as there is nothing in the way; whatever there is leaves by an exception."""
    body = engine.registry.body(held.fingerprint, held.attempt.step)
    assert body is not None
    most = held.lease / LEASE_PARTS if engine.store.excludes_others else None
    async with engine.store.transaction(in_thread=not body.is_async) as opened:
        course.outcome = await engine.execute(held, connection=opened.connection, most=most)
        if not isinstance(course.outcome, Succeeded):
            raise _TakenBack
        course.offers = offer(course.outcome)
        inside = _inside(engine, opened.store, wake_at=engine.committer.wake_at)
        inside.committer.on_anomaly = engine.committer.on_anomaly
        command = engine.report_of(held, course.outcome, course.offers)
        answer = await inside.committer.submit(held.run_id, command)
        if not is_successful(answer):
            raise _TakenBack
        course.settled = answer.unwrap()


async def _report(
    engine: Engine, held: HeldAttempt, outcome: Outcome, offer: Callable[[Outcome], Offers]
) -> Reported:
    """Report in a commit of the store's own, as for any other step."""
    offers = offer(outcome)
    return await engine.report(held, outcome, offers), offers


async def _after_accident(
    engine: Engine,
    held: HeldAttempt,
    offer: Callable[[Outcome], Offers],
    course: _Course,
    problem: Exception,
) -> Reported:
    """Report that the transaction came to nothing, unless it did come to something.

    What was offered with a commit whose answer is lost may have been claimed, so that is offered
    again: what is read back is recognised by it.
    """
    outcome = _not_committed(problem, began=course.outcome is not None)
    if course.settled is None:
        return await _report(engine, held, outcome, offer)
    return await engine.report(held, outcome, course.offers, uncertain=True), course.offers


def _not_committed(problem: Exception, *, began: bool) -> Outcome:
    """The transaction came to nothing: the body may be run again, which counts if it had begun."""
    if not began:
        return PutOff(delay=RETRY_DELAY, reason="no transaction could be begun")
    return Failed(
        error=ErrorRecord(
            code="transaction_failed",
            message=_text(problem),
            type=type(problem).__name__,
            retryable=True,
        )
    )


def _text(problem: Exception) -> str:
    """What a store or its driver says first; further lines may show what was written."""
    return str(problem).partition("\n")[0].replace("\x00", "\ufffd")[:MOST_ERROR_TEXT]
