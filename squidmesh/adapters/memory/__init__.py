"""A store in this process's memory: the reference for all others, and the one for test suites."""

from squidmesh.adapters.memory.store import MemoryStore

__all__ = ["MemoryStore"]
