"""Counts from outside what is done to a database: statements, commits, log bytes and CPU time.

It looks from another database of the same server, so that its own questions are not among what
it counts; the contender must be alone on the server meanwhile.
"""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Final

import attrs
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from benchmarks.contender import Count, Server, Written

WAITING: Final = "/* benchmarks: waiting */"

_PROCESSES: Final = Path("/proc")
_WRITTEN: Final = """
select txid_snapshot_xmax(txid_current_snapshot()), pg_current_wal_insert_lsn() - '0/0'
"""
_STATEMENTS: Final = """
select coalesce(sum(s.calls), 0)
from pg_stat_statements s join pg_database d on d.oid = s.dbid
where d.datname = %s and s.query not like %s
"""
_TABLES: Final = """
select coalesce(sum(pg_total_relation_size(c.oid)), 0)
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'm') and n.nspname not in ('pg_catalog', 'information_schema')
  and n.nspname not like 'pg_%'
"""


@asynccontextmanager
async def counting_writes(url: str) -> AsyncIterator[Count]:
    """Count what is done to the database at *url*; what waits for an end is left out.

    A commit counts if it got a transaction id, which is when it wrote something.
    """
    name = conninfo_to_dict(url)["dbname"]
    with _beside(url) as connection:

        def read() -> Written:
            found = connection.execute(_WRITTEN).fetchone()
            assert found is not None
            return Written(int(str(found[0])), int(str(found[1])), _statements(connection, name))

        before = read()
        yield lambda: read().since(before)


def _statements(connection: "psycopg.Connection[tuple[object, ...]]", name: object) -> int | None:
    try:
        found = connection.execute(_STATEMENTS, (name, f"%{WAITING}%")).fetchone()
    except (psycopg.errors.UndefinedTable, psycopg.errors.ObjectNotInPrerequisiteState):
        return None
    return int(str(found[0])) if found is not None else None


@attrs.define(eq=False)
class LocalServer(Server):
    """The server behind a URL, with its processes if they run on this machine."""

    _url: str
    _parent: int | None

    @classmethod
    def behind(cls, url: str) -> "LocalServer":
        """Find the process that is the parent of all the server's others."""
        with _beside(url) as connection:
            backend = _process(connection.info.backend_pid)
        mine = backend is not None and backend.name.startswith("postgres")
        return cls(url, backend.parent if backend is not None and mine else None)

    def cpu(self) -> float | None:
        if self._parent is None:
            return None
        parent = _process(self._parent)
        if parent is None:
            return None
        children = [
            _precisely(process.number) or process.cpu
            for process in _processes()
            if process.parent == self._parent
        ]
        return parent.cpu + parent.cpu_of_the_dead + sum(children)

    def table_bytes(self) -> int:
        with closing(psycopg.connect(self._url, autocommit=True)) as connection:
            found = connection.execute(_TABLES).fetchone()
            assert found is not None
            return int(found[0])


@contextmanager
def _beside(url: str) -> Iterator["psycopg.Connection[tuple[object, ...]]"]:
    """A connection to the same server, but to another database."""
    elsewhere = make_conninfo(url, dbname="postgres")
    with closing(psycopg.connect(elsewhere, autocommit=True)) as connection:
        yield connection


@attrs.frozen
class _Process:
    """What the kernel says of a process; times in seconds, in steps of a hundredth."""

    number: int
    name: str
    parent: int
    cpu: float
    cpu_of_the_dead: float


def _processes() -> Iterator[_Process]:
    for entry in _PROCESSES.iterdir():
        if entry.name.isdigit():
            found = _process(int(entry.name))
            if found is not None:
                yield found


def _process(number: int) -> _Process | None:
    try:
        text = (_PROCESSES / str(number) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    name, _, rest = text.partition("(")[2].rpartition(")")
    fields = rest.split()
    tick = 1 / os.sysconf("SC_CLK_TCK")
    user, system, dead_user, dead_system = (int(field) * tick for field in fields[11:15])
    return _Process(number, name, int(fields[1]), user + system, dead_user + dead_system)


def _precisely(number: int) -> float | None:
    """The same in nanoseconds, where the kernel counts them."""
    try:
        return int((_PROCESSES / str(number) / "schedstat").read_text().split()[0]) / 1e9
    except (OSError, ValueError, IndexError):
        return None
