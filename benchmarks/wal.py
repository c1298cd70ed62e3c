"""Counts the commits of an SQLite database from outside, by reading its write-ahead log.

The last frame of each commit that wrote something is marked as such, so the log itself is the
witness, whoever writes and through whatever library. A reader that keeps an old snapshot open
meanwhile sees to it that the log only grows: a checkpoint must not start it anew.
"""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from struct import Struct
from typing import Final

from benchmarks.contender import Count, Written

_HEADER: Final = Struct(">4I8s8x")  # magic, version, page size, sequence; salt
_FRAME: Final = Struct(">2I8s8x")  # page, size of the database behind a commit or 0; salt
_NOTHING: Final = Written(0, 0)


@asynccontextmanager
async def counting_commits(path: Path) -> AsyncIterator[Count]:
    """Count what the database at *path* commits; it has to be in WAL mode."""
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("begin")
        reader.execute("select count(*) from sqlite_schema").fetchone()
        log = path.with_name(f"{path.name}-wal")
        began, before = read_log(log)

        def count() -> Written:
            # The first writer may still have started the log anew, if all of it was in the file.
            salt, now = read_log(log)
            return now.since(before if salt == began else _NOTHING)

        yield count


def read_log(log: Path) -> tuple[bytes, Written]:
    """What stands in a write-ahead log, and the salt that tells it from its predecessors."""
    data = log.read_bytes() if log.exists() else b""
    if len(data) < _HEADER.size:
        return b"", _NOTHING
    _, _, page_size, _, salt = _HEADER.unpack_from(data)
    commits = whole = 0
    step = _FRAME.size + page_size
    for position in range(_HEADER.size, len(data) - step + 1, step):
        _, size, own = _FRAME.unpack_from(data, position)
        if own != salt:
            break
        if size:
            commits += 1
            whole = position + step
    return salt, Written(commits, whole)
