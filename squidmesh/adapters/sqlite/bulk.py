"""Statements over many rows at once.

A statement that runs once for sixty-four rows takes the interpreter's lock once, and not sixty-four
times: a writer beside busy threads stays fast. SQLite wants as many placeholders as there are
values, so a statement is prepared in a few sizes, and rows are cut into those.
"""

import sqlite3
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final, TypeAlias

Row: TypeAlias = tuple[Any, ...]
"""A row as sqlite3 takes and gives it."""

_SIZES: Final = (64, 32, 16, 8, 4, 2, 1)
_PLACE: Final = "values ?"


class Statement:
    """SQL in which ``values ?`` stands for all rows of *width* values."""

    def __init__(self, sql: str, *, width: int) -> None:
        row = f"({', '.join('?' * width)})"
        self._texts = [
            (size, sql.replace(_PLACE, f"values {', '.join([row] * size)}")) for size in _SIZES
        ]

    def run(self, connection: sqlite3.Connection, rows: Sequence[Row]) -> list[Row]:
        """Execute for all *rows*, in order, and return what comes back."""
        found: list[Row] = []
        done, count = 0, len(rows)
        for size, text in self._texts:
            while count - done >= size:
                values = list(chain.from_iterable(rows[done : done + size]))
                found += connection.execute(text, values)
                done += size
        return found
