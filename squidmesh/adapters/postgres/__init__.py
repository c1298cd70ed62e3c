"""PostgreSQL: the store that a company runs on."""

from squidmesh.adapters.postgres.options import Options, options_from, read_url
from squidmesh.adapters.postgres.roles import grants_sql
from squidmesh.adapters.postgres.store import PostgresStore, migration_sql

__all__ = [
    "Options",
    "PostgresStore",
    "grants_sql",
    "migration_sql",
    "options_from",
    "read_url",
]
