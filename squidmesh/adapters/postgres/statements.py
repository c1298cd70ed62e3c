"""Statements and their values, written down by functions that do no input or output.

A function of this adapter yields `Query` after `Query` and is given the rows of each; whoever has a
connection, asynchronous or not, ours or the host's, runs it (`connection.run`, `connection.drive`).

Many rows go into a statement as one array per column, because the number of a statement's values
must not depend on the number of rows: the server prepares it once.
"""

from collections.abc import Generator, Iterable, Sequence
from typing import Any, Final, TypeAlias, TypeVar

import attrs

Row: TypeAlias = tuple[Any, ...]
"""A row as psycopg gives it, or one that is about to become array elements."""

Rows: TypeAlias = list[Row]

_Answer = TypeVar("_Answer")


@attrs.frozen
class Query:
    """One statement: SQL with ``{schema}`` and ``$1``, and its values."""

    text: str
    values: Sequence[object] = ()


Steps: TypeAlias = Generator[Query, Rows, _Answer]
"""Queries to run one after the other, and what comes of their rows in the end."""


@attrs.frozen
class Column:
    """A column of given rows: its name, its type, and whether its texts may hold any character."""

    name: str
    kind: str
    quoted: bool = False


def columns(**kinds: str) -> tuple[Column, ...]:
    """Columns by name; ``text`` may hold anything, ``word`` is a text of plain characters."""
    return tuple(
        Column(name, "text" if kind == "word" else kind, quoted=kind in _QUOTED)
        for name, kind in kinds.items()
    )


_QUOTED: Final = frozenset({"text", "jsonb"})


def given(of: Sequence[Column], first: int, *, alias: str = "given") -> str:
    """A table of the rows whose arrays begin with value number *first*."""
    arrays = ", ".join(f"${number}::{column.kind}[]" for number, column in enumerate(of, first))
    names = ", ".join(column.name for column in of)
    return f"unnest({arrays}) as {alias} ({names})"


Shape: TypeAlias = tuple[bool, ...] | None
"""Which values of a single row are not null; None for several rows."""


def shape_of(rows: Sequence[Row]) -> Shape:
    """The shape of *rows*."""
    return tuple([value is not None for value in rows[0]]) if len(rows) == 1 else None


def one_given(of: Sequence[Column], shape: Sequence[bool], first: int) -> str:
    """A table of the one row whose values begin with number *first*; nulls are not among them."""
    number, written = first, list[str]()
    for column, is_there in zip(of, shape, strict=True):
        written.append(f"{f'${number}' if is_there else 'null'}::{column.kind} as {column.name}")
        number += is_there
    return f"(select {', '.join(written)}) as given"


def values_of(rows: Sequence[Row]) -> list[str]:
    """The values of the one row that are not null, as the server reads them."""
    return [str(value) for value in rows[0] if value is not None]


def arrays(of: Sequence[Column], rows: Iterable[Row]) -> list[str]:
    """The array of each column, as the server reads it.

    psycopg would make them too, element by element; writing them as a whole is many times faster.
    """
    by_column = list(zip(*rows, strict=True)) or [()] * len(of)
    return [
        (quoted if column.quoted else plain)(values)
        for column, values in zip(of, by_column, strict=True)
    ]


def plain(values: Iterable[object]) -> str:
    """An array of numbers, instants, ids or words, none of which needs quotes."""
    return f"{{{','.join(['NULL' if value is None else str(value) for value in values])}}}"


def quoted(values: Sequence[str | None]) -> str:
    """An array of texts that may hold any character; NUL is refused long before."""
    if not values:
        return "{}"
    if None in values:
        return f"{{{','.join(['NULL' if text is None else _quote(text) for text in values])}}}"
    # No text holds NUL, so all of them can be escaped at once.
    texts = "\0".join(values)  # type: ignore[arg-type]  # none of them is None
    if "\\" in texts:
        texts = texts.replace("\\", "\\\\")
    return '{"' + texts.replace('"', '\\"').replace("\0", '","') + '"}'


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
