"""Blocks on a terminal, drawn by rich; imported only where that is installed."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.progress_bar import ProgressBar
from rich.table import Table as RichTable
from rich.text import Text
from rich.tree import Tree

from squidmesh.cli.layout import Block, Branch, Line, Sheet, Table


def console(*, color: bool, stderr: bool = False) -> Console:
    """A console on stdout, or stderr, that marks up nothing by itself."""
    return Console(
        file=sys.stderr if stderr else sys.stdout,
        no_color=not color,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=False,
    )


def draw(blocks: Iterable[Block], *, color: bool) -> None:
    """Print blocks on stdout."""
    out = console(color=color)
    for block in blocks:
        out.print(renderable(block.fitted(out.width) if isinstance(block, Table) else block))


def renderable(block: Block) -> RenderableType:
    """A block as rich draws it."""
    match block:
        case Table():
            return _table(block)
        case Branch():
            return _tree(block)
        case Sheet():
            return _sheet(block)
        case tuple():
            return _text(block)


def _text(line: Line) -> Text:
    text = Text(overflow="fold")
    for span in line:
        text.append(span.text, style=span.style or None)
    return text


def _table(table: Table) -> RichTable:
    drawn = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold dim")
    for number, title in enumerate(table.head):
        drawn.add_column(title, no_wrap=number < len(table.head) - 1, overflow="fold")
    for row in table.rows:
        drawn.add_row(*(_text(cell) for cell in row))
    return drawn


def _tree(branch: Branch) -> Tree:
    tree = Tree(_text(branch.label), guide_style="dim")
    _hang(tree, branch)
    return tree


def _hang(tree: Tree, branch: Branch) -> None:
    for child in branch.children:
        _hang(tree.add(_text(child.label)), child)


def _sheet(sheet: Sheet) -> RichTable:
    grid = RichTable.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, style="bold dim")
    grid.add_column(overflow="fold")
    for label, line in sheet.rows:
        grid.add_row(label, _text(line))
    return grid


@contextmanager
def progress_bar(description: str, total: int, *, color: bool) -> Iterator[Callable[[], None]]:
    """A bar on stderr that goes away when it is done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    bar = Progress(*columns, console=console(color=color, stderr=True), transient=True)
    with bar:
        task = bar.add_task(description, total=total)
        yield lambda: bar.advance(task)


class LiveScreen:
    """A screen that is drawn over itself again and again, until it is left."""

    def __init__(self, *, color: bool) -> None:
        self._console = console(color=color)
        self._live = Live(console=self._console, auto_refresh=False, vertical_overflow="crop")

    @property
    def height(self) -> int:
        """How many lines fit."""
        return self._console.size.height

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def draw(self, blocks: Iterable[Block], *, done: int, total: int) -> None:
        """Show *blocks*, with a bar of how much is done below the first of them."""
        first, *rest = [renderable(block) for block in blocks]
        bar = RichTable.grid(padding=(0, 1, 0, 0))
        bar.add_row(
            ProgressBar(total=max(total, 1), completed=done, width=24), f"{done} of {total}"
        )
        self._live.update(Group(first, bar, *rest), refresh=True)
