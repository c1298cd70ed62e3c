"""How the demo talks: with rich if it is installed and somebody is looking, else in plain text."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol, TypeAlias

Progress: TypeAlias = Callable[[int, str], None]
"""Takes how much is done, and a note about it."""

Rows: TypeAlias = Sequence[Sequence[str]]

_EVERY: Final = 2.0


class Screen(Protocol):
    """Where the demo's words go."""

    def say(self, text: str = "") -> None:
        """Write a paragraph."""

    def title(self, text: str) -> None:
        """Begin a part."""

    def table(self, rows: Rows, *, header: Sequence[str] = (), right: Sequence[int] = ()) -> None:
        """Write rows in columns; those numbered in *right* are aligned to the right."""

    def progress(self, total: int) -> AbstractContextManager[Progress]:
        """Show how far something has come, until the context ends."""


class Plain(Screen):
    """Text only, for pipes, logs and machines without rich."""

    def say(self, text: str = "") -> None:
        print(text, flush=True)

    def title(self, text: str) -> None:
        self.say(f"\n{text}\n{'-' * len(text)}")

    def table(self, rows: Rows, *, header: Sequence[str] = (), right: Sequence[int] = ()) -> None:
        lines = [header, *rows] if header else list(rows)
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            cells = [
                cell.rjust(width) if number in right else cell.ljust(width)
                for number, (cell, width) in enumerate(zip(line, widths, strict=True))
            ]
            self.say(f"  {'  '.join(cells)}".rstrip())

    @contextlib.contextmanager
    def progress(self, total: int) -> Iterator[Progress]:
        said_at = float("-inf")

        def show(done: int, note: str) -> None:
            nonlocal said_at
            if time.monotonic() - said_at >= _EVERY:
                said_at = time.monotonic()
                self.say(f"  {done:>4} of {total} have ended; {note}")

        yield show


class Silent(Plain):
    """Nothing, for when a program reads the one document at the end."""

    def say(self, text: str = "") -> None:
        """Keep it."""


class Rich(Screen):
    """Colours, and a bar that moves."""

    def __init__(self, console: Any) -> None:  # noqa: ANN401  rich may not be installed
        self._console = console

    def say(self, text: str = "") -> None:
        self._console.print(text, soft_wrap=True)

    def title(self, text: str) -> None:
        self._console.print()
        self._console.rule(text, align="left", style="dim")

    def table(self, rows: Rows, *, header: Sequence[str] = (), right: Sequence[int] = ()) -> None:
        from rich.padding import Padding  # noqa: PLC0415  rich may not be installed
        from rich.table import Table  # noqa: PLC0415  rich may not be installed

        table = Table(box=None, show_header=bool(header), header_style="dim", padding=(0, 2, 0, 0))
        for number in range(len(rows[0]) if rows else 0):
            table.add_column(
                header[number] if header else "", justify="right" if number in right else "left"
            )
        for row in rows:
            table.add_row(*row)
        self._console.print(Padding(table, (0, 0, 0, 2)))

    @contextlib.contextmanager
    def progress(self, total: int) -> Iterator[Progress]:
        from rich import progress as parts  # noqa: PLC0415  rich may not be installed

        with parts.Progress(
            parts.TextColumn("  "),
            parts.BarColumn(bar_width=24),
            parts.MofNCompleteColumn(),
            parts.TextColumn("ended  {task.fields[note]}", style="dim"),
            console=self._console,
        ) as bar:
            task = bar.add_task("runs", total=total, note="")
            yield lambda done, note: bar.update(task, completed=done, note=note)


def screen_for(*, silent: bool) -> Screen:
    """Return the best screen that there is."""
    if silent:
        return Silent()
    if not sys.stdout.isatty():
        return Plain()
    try:
        from rich.console import Console  # noqa: PLC0415  rich may not be installed
    except ImportError:
        return Plain()
    return Rich(Console(highlight=False, markup=False, emoji=False))
