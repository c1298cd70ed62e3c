"""Claims: which attempts are due for a worker, in order, at a cost that no backlog changes.

The index of scheduled attempts is walked per queue, definition and priority, each walk bounded by
the time, so what is not due yet is never looked at. Rows that somebody else is writing are passed
over. All of it is one statement, which writes nothing if nothing is due.
"""

from datetime import UTC, datetime
from itertools import product
from typing import Any, Final

from squidmesh.adapters.postgres.rows import in_utc
from squidmesh.adapters.postgres.statements import Query, Steps, quoted
from squidmesh.codec import decode
from squidmesh.domain.entries import AttemptClaimed, AttemptId
from squidmesh.domain.state import RunStatus
from squidmesh.ports.store import (
    ClaimedAttempt,
    ClaimRequest,
    Claims,
    ClaimTicket,
    ExpiredClaim,
)
from squidmesh.records import FORMAT, microseconds, rows_to_text

_MOST_EXPIRED: Final = 1000
_ANY_TIME: Final = datetime.min.replace(tzinfo=UTC)

_NOBODY: Final = '[["attempt_claimed","",0,"",""'
"""How a claim of nothing begins in the journal's text: the statement writes what it chose."""

# Without an index of queues alone the walk leaps from one queue to the next.
_QUEUES: Final = """
with recursive queues (queue) as (
    (
        select queue
        from {schema}.step_runs
        where attempt_status = 'scheduled'
        order by queue
        limit 1
    )
    union all
    select (
        select step_runs.queue
        from {schema}.step_runs
        where step_runs.attempt_status = 'scheduled' and step_runs.queue > queues.queue
        order by step_runs.queue
        limit 1
    )
    from queues
    where queues.queue is not null
)
select queue
from queues
where queue is not null
"""

# The priorities are walked in an array of their own, because the planner thinks of a recursion as
# of a thousand rows, and would go to great lengths for them.
_LANES: Final = """lanes (queue, definition, priority) as materialized (
    select pairs.queue, pairs.definition, walked.priority
    from unnest($2::text[], $3::text[]) as pairs (queue, definition)
    cross join lateral unnest(array(
        with recursive walk (priority) as (
            (
                select step_runs.priority
                from {schema}.step_runs
                where step_runs.attempt_status = 'scheduled'
                    and step_runs.queue = pairs.queue
                    and step_runs.definition = pairs.definition
                order by step_runs.priority desc
                limit 1
            )
            union all
            select (
                select step_runs.priority
                from {schema}.step_runs
                where step_runs.attempt_status = 'scheduled'
                    and step_runs.queue = pairs.queue
                    and step_runs.definition = pairs.definition
                    and step_runs.priority < walk.priority
                order by step_runs.priority desc
                limit 1
            )
            from walk
            where walk.priority is not null
        )
        select priority
        from walk
        where priority is not null
    )) as walked (priority)
)"""

# A run that is over or being cancelled has no scheduled attempts; it is asked nevertheless.
_DUE: Final = """due as materialized (
    select lanes.priority, found.*
    from lanes
    cross join lateral (
        select steps.run_id, steps.step, steps.visit, steps.number, steps.visible_at,
            runs.revision, runs.definition, runs.status
        from {schema}.step_runs as steps
        join {schema}.runs on runs.run_id = steps.run_id
        where steps.attempt_status = 'scheduled'
            and steps.queue = lanes.queue
            and steps.definition = lanes.definition
            and steps.priority = lanes.priority
            and steps.visible_at <= (select at from clock)
            and steps.definition || ' ' || steps.step <> all ($11::text[])
            and runs.status in ('pending', 'running', 'retrying', 'paused', 'compensating')
        order by steps.visible_at, steps.run_id, steps.number, steps.step
        limit cardinality($6::text[])
        for update of steps, runs skip locked
    ) as found
), chosen as materialized (
    select due.run_id, due.step, due.visit, due.number, due.definition, due.status, place,
        ticket.claim_id, ticket.token_hash,
        due.revision + (row_number() over (partition by due.run_id order by place))::integer
            as fence
    from (
        select *, row_number() over (
            order by priority desc, visible_at, run_id, number, step
        ) as place
        from due
    ) as due
    join unnest($6::text[], $7::text[])
        with ordinality as ticket (claim_id, token_hash, place) using (place)
)"""

_WRITES: Final = """claimed_runs as (
    update {schema}.runs
    set revision = last.revision,
        status = case
            when runs.status in ('pending', 'retrying') then 'running'
            else runs.status
        end,
        updated_at = (select at from clock),
        begun = true
    from (select run_id, max(fence) as revision from chosen group by run_id) as last
    where runs.run_id = last.run_id
), claimed_steps as (
    update {schema}.step_runs
    set status = 'running',
        attempt_status = 'claimed',
        wake_at = null,
        definition = null,
        priority = null,
        concurrency_key = null,
        claimed_at = (select at from clock),
        claim_id = chosen.claim_id,
        token_hash = chosen.token_hash,
        owner = $4::text,
        lease = $5::bigint,
        lease_until = (select at from clock) + $5::bigint * interval '1 microsecond',
        fence = chosen.fence
    from chosen
    where step_runs.run_id = chosen.run_id
        and step_runs.step = chosen.step
        and step_runs.visit = chosen.visit
), new_entries as (
    insert into {schema}.entries (run_id, revision, at, format, cause, data)
    select run_id, fence, (select at from clock), $9::smallint, 'claim',
        '[["attempt_claimed",' || to_json(step)::text || ',' || number
            || ',' || to_json(claim_id)::text || ',' || to_json(token_hash)::text
            || $8::text || case when visit = 1 then '' else ',' || visit end || ']]'
    from chosen
)"""

_ANSWER: Final = """
select clock.at,
    (
        select min(waiting.visible_at)
        from lanes
        cross join lateral (
            select steps.visible_at
            from {schema}.step_runs as steps
            where steps.attempt_status = 'scheduled'
                and steps.queue = lanes.queue
                and steps.definition = lanes.definition
                and steps.priority = lanes.priority
                and steps.definition || ' ' || steps.step <> all ($11::text[])
                and not exists (
                    select
                    from chosen
                    where chosen.run_id = steps.run_id
                        and chosen.step = steps.step
                        and chosen.visit = steps.visit
                )
            order by steps.visible_at, steps.run_id
            limit 1
        ) as waiting
    ),
    array(
        select json_build_array(run_id, step, visit, number, definition, fence, status)::text
        from chosen
        order by place
    ),
    array(
        select json_build_array(
            steps.run_id, steps.step, steps.visit, steps.number, runs.definition, steps.claim_id
        )::text
        from {schema}.step_runs as steps
        join {schema}.runs using (run_id)
        where steps.attempt_status = 'claimed' and steps.lease_until <= (select at from clock)
        order by steps.lease_until
        limit $10::integer
    )
from clock
"""

CLAIM: Final = f"""/* squidmesh:claim */ with clock as materialized (
    select coalesce($1::timestamptz, clock_timestamp()) as at
), {_LANES}, {_DUE}, {_WRITES}{_ANSWER}"""


def claim(request: ClaimRequest, now: str | None) -> Steps[Claims]:
    """Claim what *request* asks for, and say what else a worker should know."""
    queues = request.queues
    if queues is None:
        queues = tuple(queue for (queue,) in (yield Query(_QUEUES)))
    pairs = list(product(dict.fromkeys(queues), dict.fromkeys(request.definitions)))
    values = (
        now,
        quoted([queue for queue, _ in pairs]),
        quoted([definition for _, definition in pairs]),
        request.owner,
        microseconds(request.lease),
        quoted([ticket.claim_id for ticket in request.tickets]),
        quoted([ticket.token_hash for ticket in request.tickets]),
        _same_for_all(request),
        FORMAT,
        _MOST_EXPIRED,
        quoted([f"{definition} {step}" for definition, step in sorted(request.lacking)]),
    )
    ((at, next_visible_at, chosen, expired),) = yield Query(CLAIM, values)
    at = in_utc(at)
    before: dict[str, RunStatus] = {}
    tickets = zip(chosen, request.tickets, strict=False)
    return Claims(
        at=at,
        claimed=tuple(_claimed(text, ticket, request, at, before) for text, ticket in tickets),
        expired=tuple(_expired(text) for text in expired),
        next_visible_at=None if next_visible_at is None else in_utc(next_visible_at),
    )


def _same_for_all(request: ClaimRequest) -> str:
    """What the journal says of each of these claims alike, behind what the statement chooses."""
    nothing = ClaimTicket(claim_id="", token_hash="")
    entry = _claim_of(request, nothing, AttemptId("", 0), _ANY_TIME)
    text = rows_to_text([entry], _ANY_TIME)
    assert text.startswith(_NOBODY), "the statement knows how a claim begins"
    return text[len(_NOBODY) : -len("]]")]


def _claim_of(
    request: ClaimRequest, ticket: ClaimTicket, attempt: AttemptId, at: datetime
) -> AttemptClaimed:
    return AttemptClaimed(
        at=at,
        step=attempt.step,
        number=attempt.number,
        claim_id=ticket.claim_id,
        token_hash=ticket.token_hash,
        owner=request.owner,
        lease=request.lease,
        visit=attempt.visit,
    )


def _claimed(
    text: str,
    ticket: ClaimTicket,
    request: ClaimRequest,
    at: datetime,
    before: dict[str, RunStatus],
) -> ClaimedAttempt:
    """The claim of one attempt; *before* is what the claims in front have made of each run."""
    run_id, step, visit, number, definition, fence, status = _row(text)
    found = before.get(run_id) or RunStatus(status)
    before[run_id] = found.once_claimed
    return ClaimedAttempt(
        run_id=run_id,
        fingerprint=definition,
        entry=_claim_of(request, ticket, AttemptId(step, number, visit), at),
        revision=fence,
        found=found,
    )


def _expired(text: str) -> ExpiredClaim:
    run_id, step, visit, number, definition, claim_id = _row(text)
    return ExpiredClaim(
        run_id=run_id,
        fingerprint=definition,
        attempt=AttemptId(step, number, visit),
        claim_id=claim_id,
    )


def _row(text: str) -> tuple[Any, ...]:
    found = decode(text)
    assert isinstance(found, list)
    return tuple(found)
