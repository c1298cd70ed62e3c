"""The facts that a batch is judged by, read from the tables in a few statements."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from squidmesh.adapters.postgres.rows import in_utc
from squidmesh.adapters.postgres.statements import Query, Row, Steps, arrays, columns, given, plain
from squidmesh.judging import AttemptKey, Claim, Facts, repeated_runs, wanted_claims
from squidmesh.ports.store import KeyRecord, RunChange
from squidmesh.records import instant
from squidmesh.rows import key_record

_NOW: Final = "select coalesce($1::timestamptz, clock_timestamp())"

# A key, or a run's id, that somebody has taken and not committed yet cannot be passed over: who
# takes it too has to wait for what becomes of it, and all that is committed with it waits as well.
_NOW_AND_PATIENCE: Final = f"{_NOW}, set_config('lock_timeout', '100ms', true)"

_RUNS: Final = """
select run_id::text, revision, status
from {schema}.runs
where run_id = any($1::uuid[])
"""

_LOCK: Final = """
select run_id::text
from {schema}.runs
where run_id = any($1::uuid[])
order by run_id
for update"""

_LOCK_FREE: Final = f"{_LOCK} skip locked"

_ATTEMPT: Final = columns(run_id="uuid", step="text", visit="integer", number="integer")

_CLAIMS: Final = f"""
select held.run_id::text, held.step, held.visit, held.number,
    held.attempt_status, held.token_hash, held.claim_id, held.visible_at, held.lease_until
from {given(_ATTEMPT, 1)}
join {{schema}}.step_runs as held using (run_id, step, visit, number)
"""

_KEY: Final = columns(scope="text", key="text")

_KEYS: Final = f"""
select used.scope, used.key, used.run_id::text, used.command, used.digest
from {given(_KEY, 2)}
join {{schema}}.idempotency_keys as used using (scope, key)
where used.expires_at is null
    or used.expires_at > coalesce($1::timestamptz, clock_timestamp())
"""


def lock(changes: Sequence[RunChange], *, wait: bool) -> Steps[frozenset[str]]:
    """Lock the rows of the runs that exist, in the order of their ids; return which those are.

    Without *wait* the ones that somebody else's transaction holds are passed over.
    """
    wanted = plain(dict.fromkeys(change.run_id for change in changes))
    rows = yield Query(_LOCK if wait else _LOCK_FREE, (wanted,))
    return frozenset(run_id for (run_id,) in rows)


def read_facts(
    changes: Sequence[RunChange], now: datetime | None, *, wait: bool = True
) -> Steps[Facts]:
    """Read what *changes* are judged by; without *wait* the transaction waits for nobody long."""
    text = _NOW if wait else _NOW_AND_PATIENCE
    ((at, *_),) = yield Query(text, (None if now is None else instant(now),))
    at = in_utc(at)
    runs = yield Query(_RUNS, (plain(dict.fromkeys(change.run_id for change in changes)),))
    claims = wanted_claims(changes)
    if claims:
        for row in (yield Query(_CLAIMS, arrays(_ATTEMPT, claims))):
            claims[_attempt_key(row)] = _claim(row)
    keys = dict.fromkeys((key.scope, key.key) for change in changes for key in change.keys)
    used = (yield from find_keys(list(keys), now)) if keys else []
    return Facts(
        at=at,
        now=instant(at),
        revisions={run_id: revision for run_id, revision, _ in runs},
        statuses={run_id: status for run_id, _, status in runs},
        keys={(record.scope, record.key): record for record in used},
        claims=claims,
        repeated=repeated_runs(changes),
    )


def find_keys(keys: Sequence[tuple[str, str]], now: datetime | None) -> Steps[list[KeyRecord]]:
    """Read the records of those (scope, key) that were used and have not expired."""
    at = None if now is None else instant(now)
    rows = yield Query(_KEYS, (at, *arrays(_KEY, keys)))
    return [key_record(row) for row in rows]


def _attempt_key(row: Row) -> AttemptKey:
    run_id, step, visit, number = row[:4]
    return (run_id, step, visit, number)


def _claim(row: Row) -> Claim:
    # When it became visible is only kept for one that waits, which nobody else asks about.
    status, token_hash, claim_id, visible_at, lease_until = row[4:]
    return Claim(
        status,
        token_hash,
        claim_id,
        "" if visible_at is None else instant(in_utc(visible_at)),
        None if lease_until is None else instant(in_utc(lease_until)),
    )
