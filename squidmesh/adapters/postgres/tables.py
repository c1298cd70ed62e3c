"""What one commit writes, table by table: the parts that its one statement is put together from.

In a part, ``{given}`` stands for its rows, one array per column, and ``{passed}`` for the condition
that their run is one that the commit has written.
"""

from typing import Final

import attrs

from squidmesh.adapters.postgres.statements import Column, columns

_RUN: Final = columns(
    run_id="uuid",
    expected="integer",
    revision="integer",
    current_step="text",
    begun="boolean",
    cancelling="boolean",
    error="text",
    undoing="text",
    updated_at="timestamptz",
    status="word",
    ended_at="timestamptz",
)

_START: Final = columns(
    workflow="text",
    version="text",
    definition="text",
    trigger_name="text",
    queue="text",
    priority="integer",
    concurrency_key="text",
    tags="jsonb",
    replayed_from="uuid",
    started_at="timestamptz",
)

_STEP: Final = columns(
    run_id="uuid",
    step="text",
    visit="integer",
    status="word",
    transition="integer",
    ended="integer",
    applied="integer",
    failures="integer",
    lost="integer",
    deferrals="integer",
    carried="boolean",
    output="text",
    under="text",
    error="text",
    manual="text",
)

_NEW: Final = columns(position="integer", since="timestamptz")

_LATEST: Final = columns(
    number="integer",
    attempt_status="word",
    ended_at="timestamptz",
    scheduled_at="timestamptz",
    visible_at="timestamptz",
    claimed_at="timestamptz",
    wake_at="timestamptz",
    lease="bigint",
    fence="integer",
    priority="integer",
    claim_id="text",
    token_hash="text",
    owner="text",
    queue="text",
    definition="text",
    concurrency_key="text",
    deferred="text",
    attempt_error="text",
)

_ENDED: Final = columns(attempt_status="word", ended_at="timestamptz", attempt_error="text")

_ATTEMPT: Final = columns(
    run_id="uuid",
    step="text",
    visit="integer",
    number="integer",
    status="word",
    ended_at="timestamptz",
    scheduled_at="timestamptz",
    visible_at="timestamptz",
    claimed_at="timestamptz",
    lease="bigint",
    fence="integer",
    claim_id="text",
    owner="text",
    queue="text",
    error="text",
)

_ENTRIES: Final = columns(
    run_id="uuid",
    revision="integer",
    at="timestamptz",
    format="smallint",
    cause="text",
    actor="text",
    data="text",
)

_DEFINITION: Final = columns(
    run_id="uuid",
    fingerprint="text",
    workflow="text",
    version="text",
    format="smallint",
    document="text",
)

_RECEIPT: Final = columns(run_id="uuid", key="text", command="text")

_END: Final = columns(
    run_id="uuid", status="word", started_at="timestamptz", ended_at="timestamptz"
)

_STUCK: Final = columns(run_id="uuid")

_GUARD: Final = columns(
    run_id="uuid",
    step="text",
    visit="integer",
    number="integer",
    kind="word",
    proof="text",
)


@attrs.frozen(eq=False)
class Part:
    """What a commit does to one table, as a common table expression with rows of its own."""

    name: str
    columns: tuple[Column, ...]
    body: str


def _names(of: tuple[Column, ...], prefix: str = "") -> str:
    return ", ".join(prefix + column.name for column in of)


def _assignments(of: tuple[Column, ...]) -> str:
    return ", ".join(f"{column.name} = given.{column.name}" for column in of)


def _key_aside(of: tuple[Column, ...], width: int = 3) -> tuple[Column, ...]:
    return of[width:]


_SAME_VISIT: Final = """
            step_runs.run_id = given.run_id
            and step_runs.step = given.step
            and step_runs.visit = given.visit
"""

_LEASE_UNTIL: Final = """
            case when given.attempt_status = 'claimed'
                then (select at from clock) + given.lease * interval '1 microsecond'
            end
"""

GUARDS: Final = Part(
    "unguarded",
    _GUARD,
    """
        select given.run_id
        from {given}
        left join {schema}.step_runs as held
            on held.run_id = given.run_id
            and held.step = given.step
            and held.visit = given.visit
            and held.number = given.number
        where not coalesce(
            case given.kind
                when 'held' then held.attempt_status = 'claimed'
                    and held.token_hash = given.proof
                    and held.lease_until > (select at from clock)
                when 'due' then held.attempt_status = 'scheduled'
                    and held.visible_at <= (select at from clock)
                else held.attempt_status = 'claimed'
                    and held.claim_id = given.proof
                    and held.lease_until <= (select at from clock)
            end,
            false
        )
    """,
)

MOVES: Final = Part(
    "moved",
    _RUN,
    f"""
        update {{schema}}.runs
        set {_assignments(_key_aside(_RUN, 2))}
        from {{given}}
        {{locked}}
        where runs.run_id = given.run_id
            and runs.revision = given.expected
            and {{patiently}}
            and {{guarded}}
        returning runs.run_id
    """,
)

STARTS: Final = Part(
    "begun",
    (*_RUN, *_START),
    f"""
        insert into {{schema}}.runs ({_names((_RUN[0], *_RUN[2:], *_START))})
        select {_names((_RUN[0], *_RUN[2:], *_START))}
        from {{given}}
        where {{patiently}}
        {{unless_taken}}
        returning run_id
    """,
)

NEW_STEPS: Final = Part(
    "new_steps",
    (*_STEP, *_NEW, *_LATEST),
    f"""
        insert into {{schema}}.step_runs ({_names((*_STEP, *_NEW, *_LATEST))}, lease_until)
        select {_names((*_STEP, *_NEW, *_LATEST))}, {_LEASE_UNTIL}
        from {{given}}
        where {{passed}}
    """,
)

# A claim that stands keeps its lease, which heartbeats may have moved.
TURNED_STEPS: Final = Part(
    "turned_steps",
    (*_STEP, *_LATEST),
    f"""
        update {{schema}}.step_runs
        set {_assignments(_key_aside((*_STEP, *_LATEST)))},
            lease_until = case
                when step_runs.attempt_status = 'claimed'
                    and given.attempt_status = 'claimed'
                    and step_runs.claim_id = given.claim_id
                then step_runs.lease_until
                else {_LEASE_UNTIL}
            end
        from {{given}}
        where {_SAME_VISIT} and {{passed}}
    """,
)

ENDED_STEPS: Final = Part(
    "ended_steps",
    (*_STEP, *_ENDED),
    f"""
        update {{schema}}.step_runs
        set {_assignments(_key_aside(_STEP))},
            attempt_status = coalesce(given.attempt_status, step_runs.attempt_status),
            ended_at = coalesce(given.ended_at, step_runs.ended_at),
            attempt_error = coalesce(given.attempt_error, step_runs.attempt_error),
            lease_until = case
                when given.attempt_status is null then step_runs.lease_until
            end,
            token_hash = case
                when given.attempt_status is null then step_runs.token_hash
            end
        from {{given}}
        where {_SAME_VISIT} and {{passed}}
    """,
)

ATTEMPTS: Final = Part(
    "attempts_before",
    _ATTEMPT,
    f"""
        insert into {{schema}}.attempts ({_names(_ATTEMPT)})
        select {_names(_ATTEMPT)}
        from {{given}}
        where {{passed}}
        on conflict (run_id, step, visit, number) do update
        set {", ".join(f"{column.name} = excluded.{column.name}" for column in _ATTEMPT[4:])}
    """,
)

ENTRIES: Final = Part(
    "new_entries",
    _ENTRIES,
    f"""
        insert into {{schema}}.entries ({_names(_ENTRIES)})
        select {_names(_ENTRIES)}
        from {{given}}
        where {{passed}}
    """,
)

DEFINITIONS: Final = Part(
    "new_definitions",
    _DEFINITION,
    f"""
        insert into {{schema}}.definitions ({_names(_DEFINITION[1:])})
        select {_names(_DEFINITION[1:])}
        from {{given}}
        where {{passed}}
        on conflict (fingerprint) do nothing
    """,
)

RECEIPTS: Final = Part(
    "new_receipts",
    _RECEIPT,
    f"""
        insert into {{schema}}.receipts ({_names(_RECEIPT)})
        select {_names(_RECEIPT)}
        from {{given}}
        where {{passed}}
        on conflict (run_id, key) do update
        set command = excluded.command
    """,
)

# Nothing but the end of a run is written here, and a run ends once.
ENDED_RUNS: Final = Part(
    "new_ended_runs",
    _END,
    f"""
        insert into {{schema}}.ended_runs ({_names(_END)})
        select {_names(_END)}
        from {{given}}
        where {{passed}}
    """,
)

STUCK_RUNS: Final = Part(
    "new_stuck_runs",
    _STUCK,
    """
        insert into {schema}.stuck_runs (run_id)
        select run_id
        from {given}
        where {passed}
        on conflict (run_id) do nothing
    """,
)

PARTS: Final = (
    GUARDS,
    MOVES,
    STARTS,
    NEW_STEPS,
    TURNED_STEPS,
    ENDED_STEPS,
    ATTEMPTS,
    ENTRIES,
    DEFINITIONS,
    RECEIPTS,
    ENDED_RUNS,
    STUCK_RUNS,
)
