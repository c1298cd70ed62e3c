"""How a heartbeat prolongs leases."""

from collections.abc import Sequence
from typing import Final

from squidmesh.adapters.postgres.rows import in_utc
from squidmesh.adapters.postgres.statements import Query, Steps, arrays, columns, given
from squidmesh.ports.store import BeatReport, HeldClaim
from squidmesh.records import microseconds

_CLAIM: Final = columns(
    run_id="uuid",
    step="text",
    visit="integer",
    number="integer",
    claim_id="text",
    token_hash="text",
    lease="bigint",
)

# A row that somebody is writing at this moment is passed over: it is being reported, or lost.
_BEAT: Final = f"""
with clock as materialized (
    select coalesce($1::timestamptz, clock_timestamp()) as at
), given as materialized (
    select *
    from {given(_CLAIM, 2, alias="rows")}
), held as materialized (
    select step_runs.run_id, step_runs.step, step_runs.visit, given.claim_id, given.lease
    from given
    join {{schema}}.step_runs using (run_id, step, visit, number, claim_id, token_hash)
    where step_runs.attempt_status = 'claimed'
        and step_runs.lease_until > (select at from clock)
), free as (
    select step_runs.run_id, step_runs.step, step_runs.visit, held.lease
    from held
    join {{schema}}.step_runs using (run_id, step, visit, claim_id)
    where step_runs.attempt_status = 'claimed'
        and step_runs.lease_until > (select at from clock)
    order by step_runs.run_id, step_runs.step
    for update of step_runs skip locked
), prolonged as (
    update {{schema}}.step_runs
    set lease_until = greatest(
        step_runs.lease_until,
        (select at from clock) + free.lease * interval '1 microsecond'
    )
    from free
    where step_runs.run_id = free.run_id
        and step_runs.step = free.step
        and step_runs.visit = free.visit
)
select clock.at,
    array(select claim_id from held),
    array(
        select distinct runs.run_id::text
        from given
        join {{schema}}.runs using (run_id)
        where runs.status = 'cancelling'
    )
from clock
"""


def beat(claims: Sequence[HeldClaim], now: str | None) -> Steps[BeatReport]:
    """Prolong those of *claims* that are held, in one statement."""
    rows = [
        (
            claim.run_id,
            claim.attempt.step,
            claim.attempt.visit,
            claim.attempt.number,
            claim.claim_id,
            claim.token_hash,
            microseconds(claim.lease),
        )
        for claim in claims
    ]
    ((at, held, cancelling),) = yield Query(_BEAT, (now, *arrays(_CLAIM, rows)))
    return BeatReport(
        at=in_utc(at),
        lost=frozenset(claim.claim_id for claim in claims) - frozenset(held),
        cancelling=frozenset(cancelling),
    )
