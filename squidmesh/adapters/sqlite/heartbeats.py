"""Leases that are prolonged from a thread of their own, over a connection of its own."""

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import attrs

from squidmesh.adapters.sqlite.bulk import Row, Statement
from squidmesh.adapters.sqlite.connection import Database, accidents, connect, transact
from squidmesh.domain.state import RunStatus
from squidmesh.errors import StoreUnavailableError
from squidmesh.ports.store import BeatReport, Heartbeats, HeldClaim
from squidmesh.records import instant

_STANDING: Final = Statement(
    """
    with wanted (run_id, step, visit, number, claim_id, token_hash, now) as (values ?)
    select runs.run_id, runs.status, held.claim_id
    from wanted
    cross join squidmesh_runs as runs
    left join squidmesh_attempts as held
        on held.run_id = wanted.run_id
        and held.step = wanted.step
        and held.visit = wanted.visit
        and held.number = wanted.number
        and held.status = 'claimed'
        and held.claim_id = wanted.claim_id
        and held.token_hash = wanted.token_hash
        and held.lease_until > wanted.now
    where runs.run_id = wanted.run_id
    """,
    width=7,
)

_PROLONG: Final = Statement(
    """
    with held (run_id, step, visit, number, lease_until) as (values ?)
    update squidmesh_attempts
    set lease_until = max(squidmesh_attempts.lease_until, held.lease_until)
    from held
    where squidmesh_attempts.run_id = held.run_id
        and squidmesh_attempts.step = held.step
        and squidmesh_attempts.visit = held.visit
        and squidmesh_attempts.number = held.number
    """,
    width=5,
)


@attrs.define(eq=False)
class SQLiteHeartbeats(Heartbeats):
    """Heartbeats over a connection that belongs to the thread that opened it."""

    _database: Database
    _connection: sqlite3.Connection | None

    @classmethod
    def open(cls, database: Database) -> "SQLiteHeartbeats":
        """Connect in the calling thread."""
        database.check_is_there()
        with accidents():
            return cls(database, connect(database.path))

    def beat(self, claims: Sequence[HeldClaim]) -> BeatReport:
        connection = self._connection
        if connection is None:
            raise StoreUnavailableError("the heartbeats were closed")
        self._database.check_is_there()
        with accidents():
            return transact(
                connection,
                self._database.clock,
                lambda connection, now: _beat(connection, claims, now),
            )

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _beat(connection: sqlite3.Connection, claims: Sequence[HeldClaim], now: datetime) -> BeatReport:
    """Prolong what is held, in a transaction that nobody can commit into."""
    at = instant(now)
    standing = _STANDING.run(connection, [_wanted(claim, at) for claim in claims])
    held = frozenset(claim_id for _, _, claim_id in standing)
    prolonged = [_prolonged(claim, now) for claim in claims if claim.claim_id in held]
    _PROLONG.run(connection, prolonged)
    return BeatReport(
        at=now,
        lost=frozenset(claim.claim_id for claim in claims) - held,
        cancelling=frozenset(
            run_id for run_id, status, _ in standing if status == RunStatus.CANCELLING.value
        ),
    )


def _wanted(claim: HeldClaim, at: str) -> Row:
    attempt = claim.attempt
    return (
        claim.run_id,
        attempt.step,
        attempt.visit,
        attempt.number,
        claim.claim_id,
        claim.token_hash,
        at,
    )


def _prolonged(claim: HeldClaim, now: datetime) -> Row:
    attempt = claim.attempt
    until = instant(now + claim.lease)
    return (claim.run_id, attempt.step, attempt.visit, attempt.number, until)
