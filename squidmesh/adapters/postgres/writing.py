"""The rows of changes: one statement for all that a batch does to all tables.

The statement is put together from the parts that the batch needs, so a commit that only moves a
run on asks the server for nothing else; each combination is prepared once. It fences itself: the
rows of runs are written only where the expected revision still stands and every guard holds, and
all other rows follow those runs.
"""

import enum
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Final

import attrs

from squidmesh.adapters.postgres import tables
from squidmesh.adapters.postgres.rows import (
    attempt_row,
    ended_row,
    ended_run_row,
    in_utc,
    latest_row,
    moved_row,
    started_row,
    step_row,
)
from squidmesh.adapters.postgres.statements import (
    Query,
    Row,
    Shape,
    Steps,
    arrays,
    given,
    one_given,
    plain,
    shape_of,
    values_of,
)
from squidmesh.adapters.postgres.tables import PARTS, Part
from squidmesh.domain.entries import (
    AttemptClaimed,
    AttemptDeferred,
    AttemptScheduled,
    ManualStepPaused,
    RunStarted,
    RunTerminal,
)
from squidmesh.domain.state import StepStatus
from squidmesh.ports.store import Guard, LeaseOver, RunChange, StillDue, StillHeld
from squidmesh.records import instant
from squidmesh.rows import definition_row, entries_row, receipt_rows

_LOCKED: Final = """
    locked as materialized (
        select run_id, revision
        from {schema}.runs
        where run_id = any($2::uuid[])
        order by run_id
        for update skip locked
    )"""

# How long rows that others hold are waited for is not a setting of the session, which may be a
# pooler's. What may have to wait asks this table first, so it is set by then.
_CLOCK: Final = """
    clock as materialized (
        select coalesce($1::timestamptz, clock_timestamp()) as at{patience}
    )"""

_MOST_TEXTS: Final = 512
_PATIENCE: Final = ", set_config('lock_timeout', '50ms', true) as patience"
_PATIENTLY: Final = "(select patience from clock) is not null"
_IF_LOCKED: Final = "join locked on locked.run_id = given.run_id"
_UNLESS_TAKEN: Final = "on conflict (run_id) do nothing"
_GUARDED: Final = "given.run_id <> all (array(select run_id from unguarded))"
_PASSED: Final = "given.run_id = any (array(select run_id from written))"


_WITH_ATTEMPT: Final = frozenset({StepStatus.SCHEDULED, StepStatus.RUNNING, StepStatus.RETRYING})


class Manner(enum.Enum):
    """How a batch is written.

    HASTY: rows that others hold are waited for a moment, and an id that is taken is an error: the
    cheapest, where both are rare. CAREFUL: rows are locked first, in the order of their ids, and
    those that others hold passed over; only an id that is being taken is waited for. TOGETHER: the
    rows are locked already, and everything is taken back unless all of it is written.
    """

    HASTY = "hasty"
    CAREFUL = "careful"
    TOGETHER = "together"


Batch = dict[Part, list[Row]]
"""The rows of each part of a commit."""


@attrs.frozen
class Written:
    """The store's time at a commit, and the runs that it has written."""

    at: datetime
    run_ids: frozenset[str]


def write(changes: Sequence[RunChange], now: datetime | None, manner: Manner) -> Steps[Written]:
    """Write all rows of those of *changes* that still may be; each is about another run.

    *now* is the store's time where a test owns it; else the server's counts.
    """
    # In one order everywhere: whoever waits for a row waits for nobody who waits for them.
    batch = _batch(sorted(changes, key=_run_id))
    if manner is Manner.TOGETHER and tables.DEFINITIONS in batch:
        once = {row[1]: row for row in batch[tables.DEFINITIONS]}
        batch[tables.DEFINITIONS] = list(once.values())
    parts = tuple(part for part in PARTS if part in batch)
    values: list[object] = [None if now is None else instant(now)]
    if manner is Manner.CAREFUL and tables.MOVES in batch:
        values.append(plain(change.run_id for change in changes if change.expected))
    # What stands alone is sent as plain values, and without the many that are null.
    shapes = tuple(shape_of(batch[part]) if len(changes) == 1 else None for part in parts)
    for part, shape in zip(parts, shapes, strict=True):
        rows = batch[part]
        values += arrays(part.columns, rows) if shape is None else values_of(rows)
    ((at, written),) = yield Query(_text(parts, shapes, manner), values)
    return Written(in_utc(at), frozenset(written))


def _run_id(change: RunChange) -> str:
    return change.run_id


@lru_cache(_MOST_TEXTS)
def _text(parts: tuple[Part, ...], shapes: tuple[Shape, ...], manner: Manner) -> str:
    """The statement that does what *parts* do."""
    writes = [part for part in (tables.MOVES, tables.STARTS) if part in parts]
    locks = manner is Manner.CAREFUL and tables.MOVES in parts
    written = " union all ".join(f"select run_id from {part.name}" for part in writes)
    alone = manner is not Manner.TOGETHER
    clock = _CLOCK.replace("{patience}", _PATIENCE if alone else "")
    expressions = [clock, *([_LOCKED] if locks else [])]
    # What exists is locked and was judged; only a start may still find that others were faster.
    follow_all = manner is Manner.TOGETHER and tables.STARTS not in parts
    meant = {
        "{locked}": _IF_LOCKED if locks else "",
        "{unless_taken}": "" if manner is Manner.HASTY else _UNLESS_TAKEN,
        "{patiently}": _PATIENTLY if alone else "true",
        "{guarded}": _GUARDED if tables.GUARDS in parts else "true",
        "{passed}": "true" if follow_all else _PASSED,
    }
    first = 3 if locks else 2
    for part, shape in zip(parts, shapes, strict=True):
        if shape is None:
            table, count = given(part.columns, first), len(part.columns)
        else:
            table, count = one_given(part.columns, shape, first), sum(shape)
        body = part.body.replace("{given}", table)
        for place, sql in meant.items():
            body = body.replace(place, sql)
        expressions.append(f"{part.name} as ({body})")
        first += count
        if part is writes[-1]:
            expressions.append(f"written as materialized ({written})")
    return (
        f"with {', '.join(expressions)}"
        " select clock.at, array(select run_id::text from written) from clock"
    )


def _batch(changes: Sequence[RunChange]) -> Batch:
    batch: Batch = defaultdict(list)
    for change in changes:
        if change.expected:
            batch[tables.MOVES].append(moved_row(change))
        else:
            batch[tables.STARTS].append(started_row(change))
        if change.guards:
            batch[tables.GUARDS] += [_guard_row(change.run_id, guard) for guard in change.guards]
        _add_steps(batch, change)
        batch[tables.ENTRIES] += [entries_row(change.run_id, row) for row in change.journal]
        if change.definition is not None:
            batch[tables.DEFINITIONS].append((change.run_id, *definition_row(change.definition)))
        if change.state.ended_at is not None and _ends(change):
            batch[tables.ENDED_RUNS].append(ended_run_row(change))
        elif change.state.ended_at is None and may_be_stuck(change):
            batch[tables.STUCK_RUNS].append((change.run_id,))
        if change.state.receipts:
            entries = (entry for row in change.journal for entry in row.entries)
            receipts = receipt_rows(change.state, entries)
            if receipts:
                batch[tables.RECEIPTS] += receipts
    return batch


def may_be_stuck(change: RunChange) -> bool:
    """Whether nothing might be found that goes on: one time too often does no harm."""
    return not any(change.state.open.values()) or any(
        step.status in _WITH_ATTEMPT and (step.current is None or step.current.ended_at is not None)
        for step in change.steps
    )


def _ends(change: RunChange) -> bool:
    return any(isinstance(entry, RunTerminal) for row in change.journal for entry in row.entries)


def _add_steps(batch: Batch, change: RunChange) -> None:
    """Add the rows of steps, each with its latest attempt, and of the attempts before those."""
    run_id, facts = change.run_id, change.state.facts
    changed = {attempt.id: attempt for attempt in change.attempts}
    positions, turned = course_of(change)
    for step in change.steps:
        row = step_row(run_id, step)
        latest = changed.pop(step.attempts[-1].id, None) if step.attempts else None
        position = positions.get(step.step)
        since = turned.get(step.step)
        if position is not None:
            batch[tables.NEW_STEPS].append(
                (*row, position, instant(step.since), *latest_row(facts, step, latest))
            )
        elif latest is not None and since is not None:
            batch[tables.TURNED_STEPS].append((*row, *latest_row(facts, step, latest)))
            if since > 1:
                # It takes the place of one that may have ended in an earlier commit.
                changed.setdefault(step.attempts[since - 2].id, step.attempts[since - 2])
        else:
            batch[tables.ENDED_STEPS].append((*row, *ended_row(latest)))
    if changed:
        batch[tables.ATTEMPTS] += [attempt_row(run_id, attempt) for attempt in changed.values()]


def course_of(change: RunChange) -> tuple[dict[str, int], dict[str, int]]:
    """What happens to steps: which begin, which turn to something new about their latest attempt.

    Those that begin have the revision of their first entry, which is their place among the run's;
    those that turn the number of the first attempt that is scheduled after others, or else 0.
    """
    positions: dict[str, int] = {}
    turned: dict[str, int] = {}
    for row in change.journal:
        for revision, entry in enumerate(row.entries, row.revision - len(row.entries) + 1):
            match entry:
                case AttemptScheduled(step=step, number=1) | ManualStepPaused(step=step):
                    positions[step] = revision
                case AttemptScheduled(step=step, number=number):
                    turned.setdefault(step, number)
                case AttemptClaimed(step=step) | AttemptDeferred(step=step):
                    turned.setdefault(step, 0)
                case RunStarted(carried=carried) if carried:
                    positions |= {
                        item.step: index - len(carried) for index, item in enumerate(carried)
                    }
                case _:
                    pass
    return positions, turned


def _guard_row(run_id: str, guard: Guard) -> Row:
    attempt = guard.attempt
    row = (run_id, attempt.step, attempt.visit, attempt.number)
    match guard:
        case StillHeld(token_hash=token_hash):
            return (*row, "held", token_hash)
        case StillDue():
            return (*row, "due", "")
        case LeaseOver(claim_id=claim_id):
            return (*row, "over", claim_id)
