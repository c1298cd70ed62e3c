"""The facts that a batch is judged by, read from the tables in a few statements."""

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from squidmesh.adapters.sqlite.bulk import Statement
from squidmesh.judging import Claim, Facts, repeated_runs, wanted_claims
from squidmesh.ports.store import RunChange
from squidmesh.records import instant
from squidmesh.rows import key_record

_RUNS: Final = Statement(
    """
    with wanted (run_id) as (values ?)
    select runs.run_id, runs.revision, runs.status
    from wanted
    cross join squidmesh_runs as runs
    where runs.run_id = wanted.run_id
    """,
    width=1,
)

_CLAIMS: Final = Statement(
    """
    with wanted (run_id, step, visit, number) as (values ?)
    select held.run_id, held.step, held.visit, held.number,
        held.status, held.token_hash, held.claim_id, held.visible_at, held.lease_until
    from wanted
    cross join squidmesh_attempts as held
    where held.run_id = wanted.run_id
        and held.step = wanted.step
        and held.visit = wanted.visit
        and held.number = wanted.number
    """,
    width=4,
)

KEYS: Final = Statement(
    """
    with wanted (scope, key, now) as (values ?)
    select used.scope, used.key, used.run_id, used.command, used.digest
    from wanted
    cross join squidmesh_idempotency_keys as used
    where used.scope = wanted.scope
        and used.key = wanted.key
        and (used.expires_at is null or used.expires_at > wanted.now)
    """,
    width=3,
)


def read_facts(connection: sqlite3.Connection, changes: Sequence[RunChange], at: datetime) -> Facts:
    """Read what *changes* are judged by, at the store's time *at*."""
    now = instant(at)
    runs = _RUNS.run(connection, [(run_id,) for run_id in {change.run_id for change in changes}])
    claims = wanted_claims(changes)
    for row in _CLAIMS.run(connection, list(claims)):
        claims[row[:4]] = Claim(*row[4:])
    keys = {(key.scope, key.key, now): None for change in changes for key in change.keys}
    used = [key_record(row) for row in KEYS.run(connection, list(keys))]
    return Facts(
        at=at,
        now=now,
        revisions={run_id: revision for run_id, revision, _ in runs},
        statuses={run_id: status for run_id, _, status in runs},
        keys={(record.scope, record.key): record for record in used},
        claims=claims,
        repeated=repeated_runs(changes),
    )
