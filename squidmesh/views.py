"""What readers get: a run, its steps, attempts and history as plain values that are theirs.

The state that the core works on never leaves the library. Every value here is a copy, down to
the last list, so that nothing a reader does to it changes what is known of the run.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import reduce
from typing import Any, Final, TypeVar

import attrs

from squidmesh.codec import StructureProblem, structure
from squidmesh.domain.audit import AuditEvent, audit_events
from squidmesh.domain.definition import SCHEDULE_KEY, StepSpec, WorkflowDefinition
from squidmesh.domain.dispatch import runnable_key
from squidmesh.domain.entries import AttemptScheduled, ErrorRecord
from squidmesh.domain.entries import Entry as Fact
from squidmesh.domain.evolution import evolve
from squidmesh.domain.inspection import (
    current_step,
    inputs_given,
    kind_of,
    shown_steps,
    step_status,
)
from squidmesh.domain.recovery import error_data
from squidmesh.domain.state import AttemptState, RunState, StepState, StepStatus, compensation_of
from squidmesh.domain.values import Json, JsonMapping, JsonObject
from squidmesh.errors import InvalidPayloadError
from squidmesh.ports.store import JournalRow, RunSummary
from squidmesh.records import name_of, thread_of
from squidmesh.showing import policy_of, shown_data

P = TypeVar("P")


@attrs.frozen(kw_only=True)
class Attempt:
    """One try of a step."""

    step: str
    number: int
    status: str
    runnable_key: str
    scheduled_at: datetime
    visible_at: datetime
    claimed_at: datetime | None
    lease_until: datetime | None
    ended_at: datetime | None
    owner: str | None
    error: JsonMapping | None


@attrs.frozen(kw_only=True)
class Step:
    """A declared step, reached or not, or the undoing of one.

    *input* is what its body was given, None before it was scheduled; *output* what the body
    returned; *deliveries* counts lost attempts; *recovery* says what may be undone and repeated.
    """

    name: str
    kind: str
    status: str
    depends_on: tuple[str, ...]
    input: JsonMapping | None
    output: Json
    error: JsonMapping | None
    recovery: JsonMapping | None
    deliveries: int
    attempts: tuple[Attempt, ...]


@attrs.frozen(kw_only=True)
class Entry:
    """A fact in the run's journal; *seq* is the revision that it led to.

    *data* has all that the durable protocol says of it, what other entries say in its place
    included: docs/durable_dispatch_protocol.md lists the fields.
    """

    seq: int
    thread: str
    type: str
    at: datetime
    data: JsonMapping


@attrs.frozen(kw_only=True)
class Run:
    """A run as it stands.

    *steps*, *attempts*, *audit_events* and *entries* are None where history was not asked for,
    and so is *context* in a list of runs.
    """

    id: str
    workflow: str
    trigger: str
    status: str
    payload: JsonMapping
    context: JsonMapping | None
    current_step: str | None
    error: JsonMapping | None
    version: str | None
    fingerprint: str
    revision: int
    queue: str
    replayed_from: str | None
    parent: str | None
    tags: Mapping[str, str]
    priority: int
    started_at: datetime
    updated_at: datetime
    ended_at: datetime | None
    steps: tuple[Step, ...] | None = None
    attempts: tuple[Attempt, ...] | None = None
    audit_events: tuple[AuditEvent, ...] | None = None
    entries: tuple[Entry, ...] | None = None

    def payload_as(self, cls: type[P]) -> P:
        """Return the payload as an instance of *cls*.

        Raises:
            InvalidPayloadError: it does not fit the class.

        """
        try:
            found: P = structure(dict(self.payload), cls)
        except StructureProblem as problem:
            reason = f"{problem.reason} {problem.detail}".strip()
            raise InvalidPayloadError(invalid={problem.path: reason}) from None
        return found


@attrs.frozen(kw_only=True)
class Preview:
    """What a command would do if it were given now; nothing of it has happened.

    *entries* is what it would write, in order; a replay writes about its source first and then
    about the new run, and each entry's ``data["run_id"]`` tells which. Only a replay has the
    others: *reruns* are the steps that ran and would run again, *effects* those among them whose
    completed effect reaches outside and would be repeated, and *undone* the steps that were undone
    and whose outputs it would bring along all the same.
    """

    entries: tuple[Entry, ...] = ()
    reruns: tuple[str, ...] = ()
    effects: tuple[str, ...] = ()
    undone: tuple[str, ...] = ()


@attrs.frozen
class RunPage:
    """One page of a list; *next_cursor* asks for the next one, None if this was the last."""

    runs: tuple[Run, ...]
    next_cursor: str | None


def summary_view(summary: RunSummary) -> Run:
    """A run as a list shows it."""
    return _run(summary.state, current=summary.current_step, context=None)


def run_view(
    definition: WorkflowDefinition | None,
    state: RunState,
    *,
    rows: Sequence[JournalRow] | None,
) -> Run:
    """A run as it stands, with its history if the journal's *rows* are given.

    *definition* is the one that the run carries; without it, steps are told from what they did.
    Rows newer than *state* are left out, so that all parts tell of the same moment.
    """
    context = _copy(state.context)
    if state.facts.schedule is not None:
        context[SCHEDULE_KEY] = _copy(state.facts.schedule)
    run = _run(state, current=current_step(state), context=context)
    if rows is None:
        return run
    known = [row for row in rows if row.revision <= state.revision]
    facts = [fact for row in known for fact in row.entries]
    given = {} if definition is None else inputs_given(definition, state, facts)
    steps = tuple(
        _step(definition, state, name, given.get(name)) for name in shown_steps(definition, state)
    )
    return attrs.evolve(
        run,
        steps=steps,
        attempts=_in_order((attempt for step in steps for attempt in step.attempts), facts),
        audit_events=audit_events(facts),
        entries=tuple(_entries(definition, RunState(run_id=state.run_id), facts, given)),
    )


def _run(state: RunState, *, current: str | None, context: JsonObject | None) -> Run:
    facts = state.facts
    return Run(
        id=state.run_id,
        workflow=facts.workflow,
        trigger=facts.trigger,
        status=state.status.value,
        payload=_copy(facts.payload),
        context=context,
        current_step=current,
        error=_error(state.error),
        version=facts.version,
        fingerprint=facts.fingerprint,
        revision=state.revision,
        queue=facts.queue,
        replayed_from=facts.replayed_from,
        parent=None,
        tags=dict(facts.tags),
        priority=facts.priority,
        started_at=facts.at,
        updated_at=state.updated_at if state.updated_at is not None else facts.at,
        ended_at=state.ended_at,
    )


def _step(
    definition: WorkflowDefinition | None, state: RunState, name: str, given: JsonMapping | None
) -> Step:
    spec = definition.by_name.get(name) if definition is not None else None
    known = state.steps.get(name)
    return Step(
        name=name,
        kind=kind_of(definition, state, name),
        status=step_status(state, name).value,
        depends_on=(spec.after or ()) if spec is not None else (),
        input=None if given is None else _copy(given),
        output=None if known is None else _copied(known.output),
        error=None if known is None else _error(known.error),
        recovery=None if spec is None else _recovery(state, spec),
        deliveries=0 if known is None else known.lost,
        attempts=() if known is None else tuple(_attempts(state.run_id, known)),
    )


def _attempts(run_id: str, step: StepState) -> Iterator[Attempt]:
    for attempt in step.attempts:
        yield Attempt(
            step=attempt.step,
            number=attempt.number,
            status=attempt.status.value,
            runnable_key=runnable_key(run_id, attempt.id),
            scheduled_at=attempt.scheduled_at,
            visible_at=attempt.visible_at,
            claimed_at=attempt.claimed_at,
            lease_until=attempt.lease_until,
            ended_at=attempt.ended_at,
            owner=attempt.owner,
            error=_error(attempt.error),
        )


def _in_order(attempts: Iterable[Attempt], facts: Iterable[Fact]) -> tuple[Attempt, ...]:
    """*attempts* as they were scheduled; several of one instant are told apart by the journal."""
    scheduled = (fact for fact in facts if isinstance(fact, AttemptScheduled))
    order = {(fact.step, fact.number): place for place, fact in enumerate(scheduled)}
    last = len(order)
    return tuple(sorted(attempts, key=lambda one: order.get((one.step, one.number), last)))


def entry_views(
    definition: WorkflowDefinition, before: RunState, facts: Sequence[Fact]
) -> Iterator[Entry]:
    """The *facts* about a run that follow upon the state *before*, as readers see them."""
    after = reduce(evolve, facts, before)
    given = inputs_given(definition, after, facts, first=before.revision + 1)
    return _entries(definition, before, facts, given)


def _entries(
    definition: WorkflowDefinition | None,
    before: RunState,
    facts: Sequence[Fact],
    given: Mapping[str, JsonMapping],
) -> Iterator[Entry]:
    shown = zip(facts, shown_data(definition, before, facts, given), strict=True)
    for seq, (fact, data) in enumerate(shown, start=before.revision + 1):
        yield Entry(
            seq=seq,
            thread=thread_of(fact).value,
            type=name_of(fact),
            at=fact.at,
            data=_copy(data),
        )


def _recovery(state: RunState, spec: StepSpec) -> JsonObject:
    """What a step's declaration allows after it is completed, and what became of its undoing."""
    undoing = None if spec.compensation is None else _compensation(state, spec.name)
    return policy_of(spec) | {"compensation": undoing}


_ENDED: Final[Mapping[StepStatus, str]] = {
    StepStatus.COMPLETED: "completed",
    StepStatus.FAILED: "failed",
}


def _compensation(state: RunState, step: str) -> JsonObject:
    visit = state.steps.get(compensation_of(step))
    if visit is None:
        return {"status": "available"}
    latest: AttemptState | None = visit.current
    ended_at = latest.ended_at if latest is not None else None
    return {
        "status": _ENDED.get(visit.status, "running"),
        "step": visit.step,
        "attempts": len(visit.attempts),
        "started_at": visit.since.isoformat(),
        "ended_at": ended_at.isoformat() if visit.status in _ENDED and ended_at else None,
        "error": _error(visit.error),
    }


def _error(error: ErrorRecord | None) -> JsonObject | None:
    data = error_data(error)
    return _copy(data) if isinstance(data, dict) else None


def _copy(value: JsonMapping) -> JsonObject:
    copied: JsonObject = structure(dict(value), Any)
    return copied


def _copied(value: Json) -> Json:
    copied: Json = structure(value, Any)
    return copied
