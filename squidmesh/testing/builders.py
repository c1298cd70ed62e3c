"""Changes for tests of stores, made of entries and `evolve` alone, without asking `decide`.

A store keeps what it is given, whether or not a workflow would ever say it. So that a contract
does not depend on the rules, these functions say directly what happens to a run: each takes the
state before, adds entries, and derives the rows that differ.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from itertools import count
from typing import Final
from uuid import UUID

import attrs

from squidmesh.domain.entries import (
    NOBODY,
    AfterFailure,
    AttemptCancelled,
    AttemptClaimed,
    AttemptCompleted,
    AttemptDeferred,
    AttemptFailed,
    AttemptId,
    AttemptLost,
    AttemptScheduled,
    CancelRequested,
    Entry,
    ErrorRecord,
    FinalStatus,
    RunIndexed,
    RunnableApplied,
    RunnablesPlanned,
    RunStarted,
    RunTerminal,
)
from squidmesh.domain.evolution import evolve
from squidmesh.domain.state import (
    OPEN,
    AttemptState,
    AttemptStatus,
    RunState,
    StepState,
)
from squidmesh.domain.values import Json
from squidmesh.ports.store import (
    Change,
    ClaimRequest,
    ClaimTicket,
    Guard,
    JournalRow,
    KeyRecord,
    LeaseOver,
    RunChange,
    StillDue,
    StillHeld,
    StoredDefinition,
)

WORKFLOW: Final = "orders"
FINGERPRINT: Final = "fingerprint-of-orders"
LEASE: Final = timedelta(seconds=60)
BROKEN: Final = ErrorRecord(code="step_exception", message="it broke", type="RuntimeError")

_tickets = count(1)


def run_id(number: int) -> str:
    """The text of a UUID; ids of higher numbers sort behind."""
    return str(UUID(int=number << 80 | 0x7 << 76 | 0b10 << 62))


FIRST: Final = run_id(1)
SECOND: Final = run_id(2)


def definition(
    fingerprint: str = FINGERPRINT, *, workflow: str = WORKFLOW, document: str = "{}"
) -> StoredDefinition:
    """A definition as a store sees it: text under a fingerprint."""
    return StoredDefinition(
        fingerprint=fingerprint, workflow=workflow, version="1", document=document
    )


def following(
    state: RunState,
    *entries: Entry,
    guards: tuple[Guard, ...] = (),
    keys: tuple[KeyRecord, ...] = (),
    kept: StoredDefinition | None = None,
    wake_at: datetime | None = None,
    cause: str = "test",
    actor: Json = None,
) -> RunChange:
    """The change that *entries* make to a run that stands at *state*.

    Newly scheduled attempts are given *wake_at*; *kept* is a definition to store with them.
    """
    after = state
    for entry in entries:
        after = evolve(after, entry)
    at, revision = entries[-1].at, after.revision
    row = JournalRow(revision=revision, at=at, cause=cause, entries=entries, actor=actor)
    steps = tuple(step for name, step in after.steps.items() if state.steps.get(name) is not step)
    return RunChange(
        run_id=state.run_id,
        expected=state.revision,
        state=after,
        current_step=current_step(after),
        steps=steps,
        attempts=tuple(_changed_attempts(state, steps, wake_at)),
        journal=(row,),
        guards=guards,
        keys=keys,
        definition=kept,
    )


def _changed_attempts(
    before: RunState, steps: Iterable[StepState], wake_at: datetime | None
) -> Iterable[AttemptState]:
    for step in steps:
        known = before.steps.get(step.step)
        old = known.attempts if known is not None else ()
        for index, attempt in enumerate(step.attempts):
            if index < len(old) and old[index] is attempt:
                continue
            if attempt.status is AttemptStatus.SCHEDULED:
                yield attrs.evolve(attempt, wake_at=wake_at)
            else:
                yield attempt


def current_step(state: RunState) -> str | None:
    """The step that a list would show: the last one reached that is not at an end."""
    still_open = [step.step for step in state.steps.values() if step.status in OPEN]
    return still_open[-1] if still_open else None


def alone(*changes: RunChange) -> list[Change]:
    """Each run change as a change of its own."""
    return [Change((change,)) for change in changes]


def together(*changes: RunChange) -> list[Change]:
    """All of them as one change."""
    return [Change(changes)]


def start(
    run_id: str = FIRST,
    *,
    at: datetime,
    steps: tuple[str, ...] = ("load",),
    visible_at: datetime | None = None,
    queue: str = "default",
    priority: int = 0,
    workflow: str = WORKFLOW,
    fingerprint: str = FINGERPRINT,
    payload: Mapping[str, Json] | None = None,
    tags: Mapping[str, str] | None = None,
    keys: tuple[KeyRecord, ...] = (),
    wake_at: datetime | None = None,
) -> RunChange:
    """A fresh run whose *steps* are all scheduled."""
    started = RunStarted(
        at=at,
        workflow=workflow,
        trigger="by_hand",
        fingerprint=fingerprint,
        payload=payload or {},
        queue=queue,
        priority=priority,
        tags=tags or {},
    )
    return following(
        RunState(run_id=run_id),
        started,
        RunIndexed(at=at, workflow=workflow, queue=queue),
        RunnablesPlanned(at=at, steps=steps),
        *(scheduled(step, at=at, visible_at=visible_at, queue=queue) for step in steps),
        keys=keys,
        kept=definition(fingerprint, workflow=workflow),
        wake_at=wake_at,
        cause="StartRun",
    )


def scheduled(
    step: str,
    *,
    at: datetime,
    number: int = 1,
    visible_at: datetime | None = None,
    queue: str = "default",
) -> AttemptScheduled:
    """An attempt that may be claimed, at once unless *visible_at* says otherwise."""
    return AttemptScheduled(
        at=at, step=step, number=number, visible_at=visible_at or at, queue=queue
    )


def held(state: RunState, step: str) -> StillHeld:
    """The guard of whoever holds the step's latest attempt as *state* knows it."""
    attempt = state.steps[step].attempts[-1]
    return StillHeld(attempt=attempt.id, token_hash=attempt.token_hash or "")


def take(
    state: RunState,
    step: str,
    *,
    at: datetime,
    ticket: ClaimTicket | None = None,
    owner: str = "worker",
    lease: timedelta = LEASE,
) -> RunChange:
    """Claim exactly this step's scheduled attempt, in a commit rather than by `Store.claim`."""
    attempt = state.steps[step].attempts[-1].id
    ticket = ticket or fresh_ticket()
    entry = AttemptClaimed(
        at=at,
        step=step,
        number=attempt.number,
        claim_id=ticket.claim_id,
        token_hash=ticket.token_hash,
        owner=owner,
        lease=lease,
    )
    return following(state, entry, guards=(StillDue(attempt=attempt),), cause="ClaimAttempt")


def complete(
    state: RunState, step: str, *, at: datetime, output: Json = None, then: str | None = None
) -> RunChange:
    """The holder's good news: the output is applied, and *then* the next step is scheduled."""
    attempt = state.steps[step].attempts[-1]
    entries: list[Entry] = [
        AttemptCompleted(at=at, step=step, number=attempt.number, output=output),
        RunnableApplied(at=at, step=step, under=step),
    ]
    if then is not None:
        entries.append(scheduled(then, at=at, queue=attempt.queue))
    return following(state, *entries, guards=(held(state, step),), cause="ReportOutcome")


def retry(
    state: RunState, step: str, *, at: datetime, visible_at: datetime | None = None
) -> RunChange:
    """The holder's bad news: the attempt failed, and the next one is scheduled."""
    attempt = state.steps[step].attempts[-1]
    return following(
        state,
        AttemptFailed(
            at=at, step=step, number=attempt.number, error=BROKEN, then=AfterFailure.RETRY
        ),
        scheduled(
            step, at=at, number=attempt.number + 1, visible_at=visible_at, queue=attempt.queue
        ),
        guards=(held(state, step),),
        cause="ReportOutcome",
    )


def put_off(
    state: RunState, step: str, *, at: datetime, visible_at: datetime, reason: str | None = None
) -> RunChange:
    """The holder's wish to come back later with the same attempt."""
    number = state.steps[step].attempts[-1].number
    return following(
        state,
        AttemptDeferred(at=at, step=step, number=number, visible_at=visible_at, reason=reason),
        guards=(held(state, step),),
        cause="ReportOutcome",
    )


def lose(state: RunState, step: str, *, at: datetime) -> RunChange:
    """What anybody may say of a claim whose lease is over: lost, and scheduled again.

    A run that is being cancelled schedules nothing.
    """
    attempt = state.steps[step].attempts[-1]
    then = AfterFailure.RECORD if state.cancelling else AfterFailure.RETRY
    again = scheduled(step, at=at, number=attempt.number + 1, queue=attempt.queue)
    return following(
        state,
        AttemptLost(at=at, step=step, number=attempt.number, then=then),
        *(() if state.cancelling else (again,)),
        guards=(LeaseOver(attempt=attempt.id, claim_id=attempt.claim_id or ""),),
        cause="sweep",
    )


def cancel(state: RunState, *, at: datetime) -> RunChange:
    """Stop a run: what is scheduled is taken back, and if nothing is claimed it is over."""
    end = () if state.running else (RunTerminal(at=at, status=FinalStatus.CANCELLED),)
    requested = CancelRequested(at=at, issuer=NOBODY)
    return following(state, requested, *_taken_back(state, at), *end, cause="CancelRun")


def finish(state: RunState, *, at: datetime) -> RunChange:
    """End a run of which nothing is claimed any more."""
    end = RunTerminal(at=at, status=FinalStatus.COMPLETED)
    return following(state, *_taken_back(state, at), end)


def _taken_back(state: RunState, at: datetime) -> Iterable[AttemptCancelled]:
    for step in state.steps.values():
        current = step.current
        if current is not None and current.status is AttemptStatus.SCHEDULED:
            yield AttemptCancelled(at=at, step=step.step, number=current.number)


def fresh_ticket() -> ClaimTicket:
    """A ticket that no other call returns."""
    number = next(_tickets)
    return ClaimTicket(claim_id=f"claim-{number}", token_hash=f"hash-of-token-{number}")


def request(
    *,
    tickets: int = 1,
    owner: str = "worker",
    queues: tuple[str, ...] | None = ("default",),
    definitions: tuple[str, ...] = (FINGERPRINT,),
    lease: timedelta = LEASE,
    lacking: frozenset[tuple[str, str]] = frozenset(),
) -> ClaimRequest:
    """A worker's wish for up to *tickets* attempts."""
    return ClaimRequest(
        owner=owner,
        queues=queues,
        definitions=definitions,
        tickets=tuple(fresh_ticket() for _ in range(tickets)),
        lease=lease,
        lacking=lacking,
    )


def key(
    name: str, run_id: str = FIRST, *, scope: str = "orders:by_hand", digest: str = "d"
) -> KeyRecord:
    """An idempotency key as a start would use it."""
    return KeyRecord(scope=scope, key=name, run_id=run_id, command="StartRun", digest=digest)


def first_attempt(step: str) -> AttemptId:
    """The identity of a step's first attempt."""
    return AttemptId(step, 1)
