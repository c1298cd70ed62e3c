"""Many runs that begin together, in one short statement: what they share is sent once.

Those of a bulk begin alike, with nothing but first steps that wait to be claimed; they differ in
their ids and in what their journals begin with. The general statement would be given sixty arrays
for that, most of them of nulls, and to read those takes the server as long as to write the rows.
It fences itself: an id that is taken is an error, and nothing is written.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any, Final

import attrs

from squidmesh.adapters.postgres.rows import in_utc, latest_row, started_row, step_row
from squidmesh.adapters.postgres.statements import Query, Row, Steps, arrays, columns, plain, quoted
from squidmesh.adapters.postgres.writing import course_of, may_be_stuck
from squidmesh.domain.entries import Entry
from squidmesh.domain.state import AttemptStatus, RunStatus, StepStatus
from squidmesh.ports.store import Change, RunChange
from squidmesh.records import FORMAT, instant, rows_to_text

_NULLS: Final = (None,) * 11

_STEP: Final = columns(
    step="text",
    position="integer",
    visible_at="timestamptz",
    wake_at="timestamptz",
    queue="text",
)

_BEGIN: Final = """
with begun as (
    insert into {schema}.runs (
        run_id, revision, started_at, updated_at, current_step, begun, cancelling, status,
        workflow, version, definition, trigger_name, queue, priority, concurrency_key, tags,
        replayed_from
    )
    select run_id, $4::integer, $5::timestamptz, $5, $8::text, false, false, 'pending',
        $9::text, $10::text, $11::text, $12::text, $13::text, $14::integer, $15::text, $16::jsonb,
        $17::uuid
    from unnest($2::uuid[]) as given (run_id)
    where (select set_config('lock_timeout', '100ms', true)) is not null
), new_steps as (
    insert into {schema}.step_runs (
        run_id, step, visit, status, position, since, number, attempt_status, visible_at, wake_at,
        queue, priority, definition, concurrency_key
    )
    select run_id, step, 1, 'scheduled', position, $5, 1, 'scheduled', visible_at, wake_at,
        first.queue, $14, $11, $15
    from unnest($2::uuid[]) as given (run_id)
    cross join unnest($18::text[], $19::integer[], $20::timestamptz[], $21::timestamptz[],
        $22::text[]) as first (step, position, visible_at, wake_at, queue)
), new_entries as (
    insert into {schema}.entries (run_id, revision, at, format, cause, data)
    select run_id, $4, $5, $6::smallint, $7::text, data
    from unnest($2::uuid[], $3::text[]) as given (run_id, data)
)
select coalesce($1::timestamptz, clock_timestamp())
"""

# What the statement is told once has to be the same in all runs.
_SHARED_IN_JOURNAL: Final = attrgetter("revision", "at", "cause", "actor")
_SHARED_IN_STATE: Final = attrgetter(
    "revision",
    "status",
    "begun",
    "cancelling",
    "error",
    "undoing",
    "updated_at",
    "ended_at",
    "receipts",
)
_SHARED_IN_FACTS: Final = attrgetter(
    "at",
    "workflow",
    "version",
    "fingerprint",
    "trigger",
    "queue",
    "priority",
    "concurrency_key",
    "tags",
    "replayed_from",
)


@attrs.frozen
class Beginning:
    """Runs that begin alike, and the values that say how."""

    runs: tuple[RunChange, ...]
    shared: tuple[str | None, ...]


def beginning_of(changes: Sequence[Change]) -> Beginning | None:
    """Return *changes* as the one beginning of several runs if that is all they are, else None."""
    if len(changes) != 1 or len(changes[0].runs) == 1:
        return None
    runs = changes[0].runs
    model = runs[0]
    if not (_is_bare(model) and all(_is_like(model, run) for run in runs)):
        return None
    shared = _shared(model)
    return None if shared is None else Beginning(runs, shared)


def begin(beginning: Beginning, now: datetime | None) -> Steps[datetime]:
    """Write the runs, all of them, and return the store's time; an id that is taken is an error."""
    # In one order everywhere, as in all other commits.
    runs = sorted(beginning.runs, key=_run_id)
    values = (
        None if now is None else instant(now),
        plain([run.run_id for run in runs]),
        quoted(list(_journals(runs))),
        *beginning.shared,
    )
    ((at,),) = yield Query(_BEGIN, values)
    return in_utc(at)


def _run_id(run: RunChange) -> str:
    return run.run_id


def _journals(runs: Sequence[RunChange]) -> Iterator[str]:
    """The first journal row of each run; they share all entries but the first, and their texts."""
    at, rest = runs[0].journal[0].at, _rest(runs[0])
    tail = f",{rows_to_text(rest, at)[1:]}" if rest else "]"
    for run in runs:
        yield rows_to_text(run.journal[0].entries[:1], at)[:-1] + tail


def _rest(run: RunChange) -> tuple[Entry, ...]:
    return run.journal[0].entries[1:]


def _is_bare(run: RunChange) -> bool:
    """Whether there is nothing about the start that only the general statement writes."""
    state = run.state
    return (
        not (run.expected or run.keys or run.guards or state.receipts)
        and run.definition is None
        and len(run.journal) == 1
        and run.journal[0].actor is None
        and run.journal[0].at == state.facts.at
        and not may_be_stuck(run)
    )


def _is_like(model: RunChange, run: RunChange) -> bool:
    """Whether the rows of *run* are those of the bare *model*, but for its id and first entry."""
    return run is model or (
        run.steps is model.steps
        and run.attempts is model.attempts
        and run.current_step == model.current_step
        and not (run.expected or run.keys or run.guards)
        and run.definition is None
        and len(run.journal) == 1
        and _SHARED_IN_JOURNAL(run.journal[0]) == _SHARED_IN_JOURNAL(model.journal[0])
        and _rest(run) == _rest(model)
        and _SHARED_IN_STATE(run.state) == _SHARED_IN_STATE(model.state)
        and _SHARED_IN_FACTS(run.state.facts) == _SHARED_IN_FACTS(model.state.facts)
    )


def _shared(model: RunChange) -> tuple[str | None, ...] | None:
    """The values from the fourth on, or None if the rows of the *model* say anything else."""
    row = started_row(model)
    revision, current_step, at = row[2], row[3], row[-1]
    facts = row[11:-1]
    nothing_yet = (False, False, None, None, at, RunStatus.PENDING.value, None)
    steps = _first_steps(model, at)
    if row[4:11] != nothing_yet or steps is None:
        return None
    (journal,) = model.journal
    given = (revision, at, FORMAT, journal.cause, current_step, *facts)
    # As texts, whatever they are: the types of values are part of what is prepared.
    return (*(None if value is None else str(value) for value in given), *arrays(_STEP, steps))


def _first_steps(model: RunChange, at: str) -> list[Row] | None:
    """What differs between the steps, or None if one does not simply wait for its first claim."""
    facts, attempts = model.state.facts, {attempt.id: attempt for attempt in model.attempts}
    positions, _ = course_of(model)
    waits = (1, AttemptStatus.SCHEDULED.value, None, None)
    found: list[Row] = []
    for step in model.steps:
        position = positions.get(step.step)
        attempt = attempts.get(step.attempts[-1].id) if len(step.attempts) == 1 else None
        if position is None or attempt is None:
            return None
        latest: tuple[Any, ...] = latest_row(facts, step, attempt)
        visible_at, wake_at, queue = latest[4], latest[6], latest[13]
        if (
            instant(step.since) != at
            or step_row("", step)[2:] != (1, StepStatus.SCHEDULED.value, *_NULLS)
            or latest[:4] != waits
            or any(latest[place] is not None for place in (5, 7, 8, 10, 11, 12, 16))
        ):
            return None
        found.append((step.step, position, visible_at, wake_at, queue))
    return found
