"""Questions that are answered from the rows: states and the journal.

A state comes in one statement, and so from one snapshot. What belongs to a run in several rows
comes as arrays of JSON arrays beside the run's own columns.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Final

import attrs

from squidmesh.adapters.postgres.rows import READER
from squidmesh.adapters.postgres.statements import Query, Row, Steps, plain
from squidmesh.codec import DecodeProblem, decode
from squidmesh.domain.evolution import assemble
from squidmesh.domain.state import AttemptState, RunState
from squidmesh.ports.store import JournalRow
from squidmesh.records import RecordProblem
from squidmesh.rows import trusting

_RUN: Final = """
    runs.run_id::text, runs.revision, runs.begun, runs.cancelling, runs.error, runs.undoing,
    runs.updated_at, runs.status, runs.ended_at, runs.encoding,
    (
        select json_build_array(revision, at, format, cause, actor, data, encoding)::text
        from {schema}.entries
        where entries.run_id = runs.run_id
        order by revision
        limit 1
    )
"""

LATEST: Final = """
    step, visit, number, {queue}, attempt_status, coalesce(scheduled_at, since),
    coalesce(visible_at, since), wake_at,
    nullif(coalesce(claimed_at, case when claim_id is not null then since end), '-infinity'),
    ended_at, claim_id, token_hash, owner, lease, lease_until, fence, attempt_error,
    error_encoding
"""

_LATEST: Final = LATEST.replace("{queue}", "coalesce(step_runs.queue, runs.queue)")

# What is claimed or over keeps the reason of the deferral before it, since nothing is written there
# to no end; and an attempt before the latest one has nothing to prove any more.
_STATES: Final = f"""
select (select coalesce($1::timestamptz, clock_timestamp())), {_RUN},
    array(
        select json_build_array(
            json_build_array(
                step, visit, status, output, under, error, transition, ended, applied,
                coalesce(failures, 0), coalesce(lost, 0), coalesce(deferrals, 0),
                case when attempt_status = 'scheduled' then deferred end,
                coalesce(carried, false), manual, since, output_encoding | error_encoding
            ),
            case when number is not null then json_build_array({_LATEST}) end
        )::text
        from {{schema}}.step_runs
        where step_runs.run_id = runs.run_id
        order by position, step
    ),
    array(
        select json_build_array(
            step, visit, number, queue, status, scheduled_at, visible_at, null, claimed_at,
            ended_at, claim_id, null, owner, lease, lease_until, fence, error, error_encoding
        )::text
        from {{schema}}.attempts
        where attempts.run_id = runs.run_id
        order by step, visit, number
    ),
    array(
        select json_build_array(key, command)::text
        from {{schema}}.receipts
        where receipts.run_id = runs.run_id
    )
from {{schema}}.runs
where runs.run_id = any($2::uuid[])
"""

_SUMMARIES: Final = f"""
select {_RUN}
from {{schema}}.runs
where runs.run_id = any($1::uuid[])
"""

_NOW: Final = "select coalesce($1::timestamptz, clock_timestamp())"

_JOURNAL: Final = """
select revision, at, format, cause, actor, data, encoding
from {schema}.entries
where run_id = $1::uuid and revision > $2::integer
order by revision
"""

_WIDTH: Final = 10


def load(run_ids: Collection[str], now: str | None) -> Steps[tuple[Row, dict[str, RunState]]]:
    """Put together the states of those runs that exist, and the store's time.

    Raises:
        JournalCorruptError: something that is stored about one of them cannot be read.

    """
    rows = yield Query(_STATES, (now, plain(dict.fromkeys(run_ids))))
    if not rows:
        rows = yield Query(_NOW, (now,))
        return rows[0], {}
    return rows[0][:1], {row[1]: _state(row[1:]) for row in rows}


def _state(row: Row) -> RunState:
    run_id: str = row[0]
    steps, attempts, receipts = row[_WIDTH + 1 :]
    with trusting(run_id):
        run = _run(row)
        before = _before(attempts)
        reached = []
        for text in steps:
            step, latest = _decoded(text)
            tried = list(before[step[0], step[1]])
            if latest is not None:
                tried.append(READER.attempt_state(latest))
            reached.append(READER.step_state(step, tried))
        given: dict[str, str] = dict(_decoded(text) for text in receipts)
    return assemble(attrs.evolve(run, receipts=given), reached)


def _run(row: Row) -> RunState:
    first = row[_WIDTH]
    return READER.run_state(row[:_WIDTH], None if first is None else _decoded(first))


def _before(texts: Sequence[str]) -> defaultdict[tuple[str, int], list[AttemptState]]:
    """The attempts before the latest ones, by step and visit."""
    found: defaultdict[tuple[str, int], list[AttemptState]] = defaultdict(list)
    for text in texts:
        attempt = READER.attempt_state(_decoded(text))
        found[attempt.step, attempt.visit].append(attempt)
    return found


def _decoded(text: str) -> Row:
    try:
        found = decode(text)
    except DecodeProblem:
        raise RecordProblem("a row is not JSON") from None
    assert isinstance(found, list)
    return tuple(found)


def load_runs(run_ids: Collection[str]) -> Steps[dict[str, RunState]]:
    """Read the rows of those runs that exist, and what they were started with."""
    rows = yield Query(_SUMMARIES, (plain(dict.fromkeys(run_ids)),))
    states: dict[str, RunState] = {}
    for row in rows:
        with trusting(row[0]):
            states[row[0]] = _run(row)
    return states


def read_journal(run_id: str, *, after: int) -> Steps[tuple[JournalRow, ...]]:
    """Read the rows that hold entries behind revision *after*; the first may begin before it.

    Raises:
        JournalCorruptError: a row cannot be read, or an entry is missing or stands there twice.

    """
    rows = yield Query(_JOURNAL, (run_id, after))
    return READER.journal(run_id, rows, after=after)
