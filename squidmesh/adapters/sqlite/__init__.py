"""SQLite: a store in one file, for one machine, without a server."""

from squidmesh.adapters.sqlite.store import SQLiteStore

__all__ = ["SQLiteStore"]
