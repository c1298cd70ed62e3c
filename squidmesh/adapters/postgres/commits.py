"""Commits: the common ones in one statement, all others judged in a transaction.

A change of one run without idempotency keys fences itself in the statement that writes it. Changes
of several runs, with keys, or of a run that the batch changes twice are judged before, on locked
rows. Whatever was not written is looked into afterwards, to say why.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Final

import attrs
from returns.pipeline import is_successful
from returns.result import Failure, Result, Success

from squidmesh.adapters.postgres.facts import lock, read_facts
from squidmesh.adapters.postgres.hints import notify
from squidmesh.adapters.postgres.reading import read_journal
from squidmesh.adapters.postgres.statements import Query, Steps, arrays, columns, given
from squidmesh.adapters.postgres.writing import Manner, write
from squidmesh.domain.state import AttemptStatus
from squidmesh.errors import JournalCorruptError, StoreConflictError
from squidmesh.judging import (
    Behind,
    Facts,
    Refused,
    Unguarded,
    holder_before,
    judge,
    unseen_entries,
)
from squidmesh.ports.store import (
    Change,
    CommitFailure,
    Committed,
    GuardFailed,
    KeyTaken,
    RevisionConflict,
    RunChange,
    RunHeld,
    RunTaken,
)
from squidmesh.records import instant
from squidmesh.rows import key_row

_WRITTEN: Final[Result[None, CommitFailure]] = Success(None)
_TRIES: Final = 3

_HOLDER: Final = """
select owner, attempt_status
from {schema}.step_runs
where run_id = $1::uuid and step = $2::text
order by visit desc
limit 1
"""

_KEY: Final = columns(
    scope="text",
    key="text",
    run_id="uuid",
    command="text",
    digest="text",
)

_KEYS: Final = f"""
insert into {{schema}}.idempotency_keys (scope, key, run_id, command, digest, created_at)
select scope, key, run_id, command, digest, $1::timestamptz
from {given(_KEY, 2)}
on conflict (scope, key) do update
set run_id = excluded.run_id,
    command = excluded.command,
    digest = excluded.digest,
    created_at = excluded.created_at,
    expires_at = null
where idempotency_keys.expires_at <= excluded.created_at
returning 1
"""


def is_plain(change: Change) -> bool:
    """Whether one statement can judge and write the change."""
    return len(change.runs) == 1 and not change.runs[0].keys


def plain_ones(changes: Sequence[Change]) -> list[Change]:
    """Those that can be written in one statement, each about a run that no other change names."""
    counts = Counter(run.run_id for change in changes for run in change.runs)
    return [change for change in changes if is_plain(change) and counts[change.runs[0].run_id] == 1]


def commit_plain(changes: Sequence[Change], now: datetime | None) -> Steps[Committed]:
    """Commit *changes* of one run each in one statement; say what stood in others' way."""
    runs = [change.runs[0] for change in changes]
    written = yield from write(runs, now, Manner.CAREFUL)
    left = [run for run in runs if run.run_id not in written.run_ids]
    failures = (yield from why_not(left, now)) if left else {}
    return committed(runs, written.at, failures)


def committed(
    runs: Sequence[RunChange], at: datetime, failures: Mapping[str, CommitFailure]
) -> Committed:
    """The answer for *runs*, of which those without a failure are written."""
    return Committed(
        at=at,
        results=tuple(
            Failure(failures[run.run_id]) if run.run_id in failures else _WRITTEN for run in runs
        ),
    )


def why_not(left: Sequence[RunChange], now: datetime | None) -> Steps[dict[str, CommitFailure]]:
    """Say what stood in the way of changes that were not written; if nothing does, it was held."""
    facts = yield from read_facts(left, now)
    failures: dict[str, CommitFailure] = {}
    for run in left:
        objection = facts.objection_to(run)
        if objection is None:
            failures[run.run_id] = RunHeld(run_id=run.run_id)
        else:
            failures[run.run_id] = yield from _failure(Refused(objection, ()))
    return failures


def commit_judged(
    changes: Sequence[Change], now: datetime | None, *, wait: bool
) -> Steps[Committed]:
    """Commit *changes* in the transaction at hand, which is at its own savepoint on each try.

    With *wait* rows that others hold are waited for; else their runs are said to be held.
    """
    yield Query("savepoint squidmesh")
    for _ in range(_TRIES):
        committed = yield from _commit_once(changes, now, wait=wait)
        if committed is not None:
            yield Query("release savepoint squidmesh")
            return committed
        # Somebody was faster with a key or a run id, and is committed now: that can be read.
        yield Query("rollback to savepoint squidmesh")
    raise StoreConflictError("others took the same keys or run ids, again and again")


def commit_with_host(
    changes: Sequence[Change], now: datetime | None, schema: str | None
) -> Steps[Committed]:
    """Commit *changes* in the host's transaction, and tell those who use *schema* with it.

    The same mesh is told as well: behind the host's commit it cannot tell itself.
    """
    committed = yield from commit_judged(changes, now, wait=True)
    if schema is not None:
        queues = {
            attempt.queue
            for change, result in zip(changes, committed.results, strict=True)
            if is_successful(result)
            for run in change.runs
            for attempt in run.attempts
            if attempt.status is AttemptStatus.SCHEDULED and attempt.visible_at <= committed.at
        }
        if queues:
            yield from notify(schema, queues, "")
    return committed


def _commit_once(
    changes: Sequence[Change], now: datetime | None, *, wait: bool
) -> Steps[Committed | None]:
    """Commit what may be; None if something that was free has been taken meanwhile."""
    runs = [run for change in changes for run in change.runs]
    existing = [run for run in runs if run.expected]
    locked = (yield from lock(existing, wait=wait)) if existing else frozenset()
    facts = yield from read_facts(runs, now, wait=wait)
    free, held = _free(changes, facts, locked)
    passed, verdicts = judge(facts, free)
    results: dict[int, Result[None, CommitFailure]] = dict(held)
    for change, refused in zip(free, verdicts, strict=True):
        if refused is None:
            results[id(change)] = _WRITTEN
        else:
            results[id(change)] = Failure((yield from _failure(refused)))
    if passed:
        whole = _merged(passed)
        written = yield from write(whole, now, Manner.TOGETHER)
        taken = len(written.run_ids) < len(whole)
        if taken or not (yield from _keep_keys(passed, facts)):
            return None
    return Committed(at=facts.at, results=tuple(results[id(change)] for change in changes))


def _free(
    changes: Sequence[Change], facts: Facts, locked: Collection[str]
) -> tuple[list[Change], dict[int, Result[None, CommitFailure]]]:
    """Set aside the changes of runs that somebody else holds at this moment."""
    free: list[Change] = []
    held: dict[int, Result[None, CommitFailure]] = {}
    for change in changes:
        busy = [
            run.run_id
            for run in change.runs
            if run.expected and run.run_id in facts.revisions and run.run_id not in locked
        ]
        if busy:
            held[id(change)] = Failure(RunHeld(run_id=busy[0]))
        else:
            free.append(change)
    return free, held


def _merged(changes: Sequence[RunChange]) -> list[RunChange]:
    """One change per run: what several do to one row is written once, as the last leaves it."""
    merged: dict[str, RunChange] = {}
    for change in changes:
        before = merged.get(change.run_id)
        merged[change.run_id] = change if before is None else _following(before, change)
    return list(merged.values())


def _following(first: RunChange, then: RunChange) -> RunChange:
    steps = {(step.step, step.visit): step for step in (*first.steps, *then.steps)}
    attempts = {attempt.id: attempt for attempt in (*first.attempts, *then.attempts)}
    return attrs.evolve(
        then,
        expected=first.expected,
        steps=tuple(steps.values()),
        attempts=tuple(attempts.values()),
        journal=(*first.journal, *then.journal),
        definition=first.definition or then.definition,
        # They were judged one by one; the rows that they would be judged by now are the last one's.
        guards=(),
    )


def _keep_keys(changes: Sequence[RunChange], facts: Facts) -> Steps[bool]:
    """Write the keys of *changes*; False if somebody else has just used one of them."""
    rows = {(key.scope, key.key): key_row(key) for change in changes for key in change.keys}
    if not rows:
        return True
    values = (instant(facts.at), *arrays(_KEY, rows.values()))
    kept = yield Query(_KEYS, values)
    return len(kept) == len(rows)


def _failure(refused: Refused) -> Steps[CommitFailure]:
    """Say what its author should know; changes of the batch that passed before it count."""
    match refused.objection:
        case KeyTaken() | RunTaken() as objection:
            return objection
        case Unguarded(run_id=run_id, guard=guard):
            step = guard.attempt.step
            is_known, holder = holder_before(refused.before, step)
            if not is_known:
                holder = yield from _holder(run_id, step)
            return GuardFailed(run_id=run_id, guard=guard, holder=holder)
        case Behind() as objection:
            return (yield from conflict(objection, refused.before))


def _holder(run_id: str, step: str) -> Steps[str | None]:
    """Return who holds the step's latest attempt."""
    rows = yield Query(_HOLDER, (run_id, step))
    return str(rows[0][0]) if rows and rows[0][1] == "claimed" else None


def conflict(behind: Behind, unwritten: Sequence[RunChange] = ()) -> Steps[RevisionConflict]:
    """Say what a change has not seen: in the store, and of what is about to get there.

    Where the journal cannot be read, nothing is said: loading the run will tell, and the other
    changes of the batch are not to suffer from it.
    """
    try:
        rows = yield from read_journal(behind.run_id, after=behind.expected)
    except JournalCorruptError:
        return RevisionConflict(run_id=behind.run_id, unseen=())
    later = [row for change in unwritten for row in change.journal]
    unseen = unseen_entries((*rows, *later), behind.expected)
    return RevisionConflict(run_id=behind.run_id, unseen=unseen)
