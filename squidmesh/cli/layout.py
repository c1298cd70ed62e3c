"""What is shown, before it is decided how: lines of styled words, tables, trees and sheets.

Everything here can be printed as plain text. What comes out of a store is made harmless first:
a control character in the name of a step never reaches the terminal.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeAlias

import attrs

INDENT: Final = "  "


def printable(text: str) -> str:
    """Return *text* on one line, with whatever would steer a terminal spelled out."""
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text
    )


@attrs.frozen
class Span:
    """Some words in one style; the style is a name that rich knows, or empty."""

    text: str = attrs.field(converter=printable)
    style: str = ""


Line: TypeAlias = tuple[Span, ...]


@attrs.frozen
class Table:
    """Rows below a head.

    Where a terminal is too narrow, the columns named in *dispensable* go, the first one first,
    and then the last column breaks.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[Line, ...], ...]
    dispensable: tuple[str, ...] = ()

    def columns(self) -> list[int]:
        """How wide each column is."""
        head = tuple(words(title) for title in self.head)
        return [
            max(width(cell) for cell in column) for column in zip(head, *self.rows, strict=True)
        ]

    def without(self, title: str) -> "Table":
        """The table less one column."""
        at = self.head.index(title)
        rows = tuple((*row[:at], *row[at + 1 :]) for row in self.rows)
        return Table((*self.head[:at], *self.head[at + 1 :]), rows, self.dispensable)

    def fitted(self, columns: int) -> "Table":
        """The table less what does not fit into so many columns."""
        table = self
        for title in self.dispensable:
            if sum(table.columns()) + len(INDENT) * len(table.head) <= columns:
                break
            if title in table.head:
                table = table.without(title)
        return table


@attrs.frozen
class Branch:
    """A tree: what stands at its root, and what hangs below."""

    label: Line
    children: "tuple[Branch, ...]" = ()


@attrs.frozen
class Sheet:
    """Facts, each beside its label; an empty label continues the fact above."""

    rows: tuple[tuple[str, Line], ...]


Block: TypeAlias = Line | Table | Branch | Sheet


def words(*parts: str | Span) -> Line:
    """Put a line together."""
    return tuple(Span(part) if isinstance(part, str) else part for part in parts)


def width(line: Line) -> int:
    """How many columns a line takes."""
    return sum(len(span.text) for span in line)


def padded(line: Line, columns: int) -> Line:
    """The line, filled up with blanks."""
    return (*line, Span(" " * max(columns - width(line), 0)))


def plain(block: Block) -> Iterator[str]:
    """The lines of a block without any style."""
    match block:
        case Table():
            yield from _plain_table(block)
        case Branch():
            yield from _plain_tree(block)
        case Sheet():
            yield from _plain_sheet(block)
        case tuple():
            yield _text(block)


def _text(line: Line) -> str:
    return "".join(span.text for span in line).rstrip()


def _plain_table(table: Table) -> Iterator[str]:
    head = tuple(words(title.upper()) for title in table.head)
    columns = table.columns()
    for row in (head, *table.rows):
        yield _text(_joined(row, columns))


def _joined(row: Sequence[Line], columns: Iterable[int]) -> Line:
    cells = [padded(cell, columns) for cell, columns in zip(row, columns, strict=False)]
    return tuple(span for cell in cells for span in (*cell, Span(INDENT)))


def _plain_tree(branch: Branch) -> Iterator[str]:
    yield _text(branch.label)
    yield from _below(branch, "")


def _below(branch: Branch, margin: str) -> Iterator[str]:
    for child in branch.children:
        is_last = child is branch.children[-1]
        yield _text(words(f"{margin}{'└── ' if is_last else '├── '}", *child.label))
        yield from _below(child, f"{margin}{'    ' if is_last else '│   '}")


def _plain_sheet(sheet: Sheet) -> Iterator[str]:
    columns = max((len(label) for label, _ in sheet.rows), default=0)
    for label, line in sheet.rows:
        yield _text(words(label.ljust(columns), INDENT, *line))
