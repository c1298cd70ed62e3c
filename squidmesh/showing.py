"""What an entry does not say itself, because the entries around it or the definition do.

Nothing is stored twice: the claim of an attempt names the holder's papers and the report behind
it does not, and what a body was given follows from what was applied before. Whoever reads a single
entry wants all of it. It is put together here in one pass over the facts, in addition to what
`squidmesh.records.full_data` shows of each; nothing is decided, and nothing of it is stored.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import attrs

from squidmesh.domain.definition import StepSpec, WorkflowDefinition
from squidmesh.domain.dispatch import find_attempt, idempotency_key, runnable_key
from squidmesh.domain.entries import (
    AfterFailure,
    AttemptCancelled,
    AttemptClaimed,
    AttemptCompleted,
    AttemptDeferred,
    AttemptFailed,
    AttemptHeartbeat,
    AttemptId,
    AttemptLost,
    AttemptScheduled,
    CancelRequested,
    CompensationPlanned,
    DispatchEntry,
    Entry,
    LiveWakeupEmitted,
    ManualStepPaused,
    ManualStepResolved,
    RunIndexed,
    RunnableApplied,
    RunnablesPlanned,
    RunReplayed,
    RunStarted,
    RunTerminal,
    StepRouted,
)
from squidmesh.domain.state import RunState
from squidmesh.domain.values import Json, JsonMapping, JsonObject
from squidmesh.records import full_data, instant


def shown_data(
    definition: WorkflowDefinition | None,
    before: RunState,
    facts: Sequence[Entry],
    given: Mapping[str, JsonMapping],
) -> Iterator[JsonObject]:
    """Yield for each of *facts* all that the protocol has to say of it; values are the run's own.

    *facts* follow upon the state *before*, which knows of no step if they are all of the run's.
    *given* is what each step was given, by its name. What cannot be known is None.
    """
    scheduled = {_attempt(fact): fact for fact in facts if isinstance(fact, AttemptScheduled)}
    around = _Around(definition=definition, before=before, given=given, scheduled=scheduled)
    for fact in facts:
        yield full_data(fact, before.run_id) | around.tell(fact)


def policy_of(spec: StepSpec) -> JsonObject:
    """What a step's declaration allows after it is completed."""
    return {
        "irreversible": spec.irreversible,
        "compensatable": spec.compensatable and not spec.irreversible,
        "replay": "manual_review_required" if spec.blocks_replay else "allowed",
    }


def _attempt(fact: DispatchEntry) -> AttemptId:
    return AttemptId(fact.step, fact.number, fact.visit)


@attrs.define(kw_only=True)
class _Around:
    """What is known at one fact after the other: the claims in force, and results to be applied."""

    definition: WorkflowDefinition | None
    before: RunState
    given: Mapping[str, JsonMapping]
    scheduled: Mapping[AttemptId, AttemptScheduled]
    _claims: dict[AttemptId, AttemptClaimed] = attrs.field(factory=dict[AttemptId, AttemptClaimed])
    _results: dict[tuple[str, int], AttemptCompleted] = attrs.field(
        factory=dict[tuple[str, int], AttemptCompleted]
    )

    def tell(self, fact: Entry) -> JsonObject:
        """What is to be said of the next *fact* besides its own fields."""
        if isinstance(fact, DispatchEntry):
            return self._of_attempt(fact, _attempt(fact))
        match fact:
            case RunnablesPlanned():
                return {"runnables": [self._runnable(step) for step in fact.steps]}
            case RunnableApplied():
                return self._applied(fact)
            case (
                RunStarted()
                | StepRouted()
                | ManualStepPaused()
                | ManualStepResolved()
                | CancelRequested()
                | CompensationPlanned()
                | RunReplayed()
                | RunTerminal()
                | RunIndexed()
            ):
                return {}

    def _of_attempt(self, fact: DispatchEntry, attempt: AttemptId) -> JsonObject:
        match fact:
            case AttemptScheduled():
                return {"input": self._input(fact.step)}
            case AttemptClaimed():
                self._claims[attempt] = fact
                return {"queue": self._queue(attempt)} | _lease(fact)
            case AttemptHeartbeat():
                return self._held(attempt) | {"claim_id": fact.claim_id} | _lease(fact)
            case AttemptCompleted():
                self._results[fact.step, fact.visit] = fact
                return self._let_go(attempt)
            case AttemptDeferred() | AttemptCancelled():
                return self._let_go(attempt)
            case AttemptFailed() | AttemptLost():
                return self._let_go(attempt) | self._retry(fact)
            case LiveWakeupEmitted():
                return {"queue": self._queue(attempt)}

    def _input(self, step: str) -> Json:
        given = self.given.get(step)
        return None if given is None else dict(given)

    def _queue(self, attempt: AttemptId) -> str | None:
        known = self.scheduled.get(attempt) or find_attempt(self.before, attempt)
        return None if known is None else known.queue

    def _held(self, attempt: AttemptId) -> JsonObject:
        """What proves the claim that the attempt is under; a scheduled one is under none."""
        claim = self._claims.get(attempt) or find_attempt(self.before, attempt)
        return {
            "queue": self._queue(attempt),
            "claim_id": None if claim is None else claim.claim_id,
            "claim_token_hash": None if claim is None else claim.token_hash,
        }

    def _let_go(self, attempt: AttemptId) -> JsonObject:
        """The claim that ends here."""
        held = self._held(attempt)
        self._claims.pop(attempt, None)
        return held

    def _retry(self, fact: AttemptFailed | AttemptLost) -> JsonObject:
        """The attempt that follows, if one does."""
        following = AttemptId(fact.step, fact.number + 1, fact.visit)
        retry = self.scheduled.get(following) if fact.then is AfterFailure.RETRY else None
        if retry is None:
            return {"retry_runnable_key": None, "retry_visible_at": None}
        return {
            "retry_runnable_key": runnable_key(self.before.run_id, following),
            "retry_visible_at": instant(retry.visible_at),
        }

    def _runnable(self, step: str) -> JsonObject:
        """A step that is planned."""
        attempt, run_id = AttemptId(step, 1), self.before.run_id
        first = self.scheduled.get(attempt)
        return {
            "run_id": run_id,
            "idempotency_key": idempotency_key(run_id, step, attempt.visit),
            "step": step,
            "input": self._input(step),
            "recovery": self._recovery(step),
            **(_WITHOUT_ATTEMPT if first is None else _first_attempt(run_id, first)),
        }

    def _recovery(self, step: str) -> JsonObject | None:
        """The same as `Step.recovery` was when the step was planned."""
        spec = self.definition.by_name.get(step) if self.definition is not None else None
        if spec is None:
            return None
        undoing: Json = None if spec.compensation is None else {"status": "available"}
        return policy_of(spec) | {"compensation": undoing}

    def _applied(self, fact: RunnableApplied) -> JsonObject:
        done, run_id = self._results.pop((fact.step, fact.visit), None), self.before.run_id
        return {
            "runnable_key": None if done is None else runnable_key(run_id, _attempt(done)),
            "idempotency_key": idempotency_key(run_id, fact.step, fact.visit),
            "result": None if done is None else done.output,
            "applied_at": instant(fact.at),
        }


def _lease(fact: AttemptClaimed | AttemptHeartbeat) -> JsonObject:
    return {"lease_until": instant(fact.at + fact.lease)}


_WITHOUT_ATTEMPT: Final[JsonMapping] = {
    "runnable_key": None,
    "attempt_number": None,
    "queue": None,
    "visible_at": None,
}
"""What there is not of a manual step, which a person is waited for and nobody claims."""


def _first_attempt(run_id: str, first: AttemptScheduled) -> JsonObject:
    return {
        "runnable_key": runnable_key(run_id, _attempt(first)),
        "attempt_number": first.number,
        "queue": first.queue,
        "visible_at": instant(first.visible_at),
    }
