"""PostgreSQL: the store that a company runs on."""

from squidmesh.adapters.postgres.connection import Options, options_from
from squidmesh.adapters.postgres.store import PostgresStore, migration_sql

__all__ = ["Options", "PostgresStore", "migration_sql", "options_from"]
