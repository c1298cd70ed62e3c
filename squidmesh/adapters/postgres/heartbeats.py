"""Leases that are prolonged from a thread of their own, over a connection of its own."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import attrs
import psycopg

from squidmesh.adapters.postgres.accidents import RACES, accidents
from squidmesh.adapters.postgres.beating import beat
from squidmesh.adapters.postgres.connection import MOST_RACES, Database
from squidmesh.adapters.postgres.limits import limited_here
from squidmesh.errors import StoreUnavailableError
from squidmesh.ports.store import BeatReport, Heartbeats, HeldClaim

_SHORTEST: Final = 1.0


@attrs.define(eq=False)
class PostgresHeartbeats(Heartbeats):
    """Heartbeats over a connection that belongs to the thread that opened it."""

    _database: Database
    _connection: "psycopg.Connection[Any] | None"

    @classmethod
    def open(cls, database: Database) -> "PostgresHeartbeats":
        """Connect in the calling thread."""
        database.check_is_open()
        with accidents(database.password):
            return cls(database, database.connect_here())

    def beat(self, claims: Sequence[HeldClaim]) -> BeatReport:
        if self._connection is None:
            raise StoreUnavailableError("the heartbeats were closed")
        self._database.check_is_open()
        with accidents(self._database.password), limited_here(self._connection, self._most(claims)):
            for _ in range(MOST_RACES):
                with suppress(*RACES):
                    return self._beat(self._connection, claims)
            return self._beat(self._connection, claims)

    def _beat(
        self, connection: "psycopg.Connection[Any]", claims: Sequence[HeldClaim]
    ) -> BeatReport:
        return self._database.drive_here(connection, beat(claims, self._database.now))

    def _most(self, claims: Sequence[HeldClaim]) -> float:
        """How many seconds a beat may take: one that is later than its leases is of no use."""
        shortest = min((claim.lease.total_seconds() for claim in claims), default=0.0)
        return min(self._database.options.deadline, max(shortest, _SHORTEST))

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
