"""Where answers go: JSON for programs, tables and trees for people, notes to stderr."""

import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Final

import attrs
import click

from squidmesh.cli.layout import Block, plain

_ASCII: Final = str.maketrans(
    {
        "─": "-", "│": "|", "├": "|", "└": "`", "→": ">", "·": "-", "…": "~", "✓": "+", "✗": "x",
        "●": "*", "○": "o", "◌": "o", "◆": "#", "↻": "~", "↩": "<", "⊘": "/",
    }
)  # fmt: skip
_DRAWN: Final = "".join(map(chr, _ASCII))


@attrs.frozen(kw_only=True)
class Terminal:
    """How this process answers.

    *json* leaves stdout to documents. *rich* says that stdout is a terminal and that the library
    to draw on it is there; without it everything is plain, aligned text.
    """

    json: bool = False
    rich: bool = False
    color: bool = False

    @classmethod
    def for_stdout(cls, *, as_json: bool, color: bool) -> "Terminal":
        """Look at where stdout leads."""
        drawn = not as_json and is_drawable(sys.stdout)
        return cls(
            json=as_json, rich=drawn, color=color and drawn and not os.environ.get("NO_COLOR")
        )

    def show(self, *blocks: Block) -> None:
        """Print blocks for a person."""
        if self.rich:
            from squidmesh.cli.drawing import draw

            draw(blocks, color=self.color)
            return
        for block in blocks:
            for line in plain(block):
                click.echo(_encodable(line, sys.stdout))

    def text(self, text: str) -> None:
        """Print text as it is, which a pipe may take up."""
        click.echo(text, nl=not text.endswith("\n"))

    def document(self, document: Mapping[str, object]) -> None:
        """Print the one JSON document that is the answer."""
        click.echo(_json(document, indent=2))

    def event(self, event: Mapping[str, object]) -> None:
        """Print one of several JSON objects, on a line of its own."""
        click.echo(_json(event, indent=None))

    def note(self, text: str) -> None:
        """Say something on stderr that is not the answer."""
        click.echo(_encodable(text, sys.stderr), err=True)

    @contextmanager
    def progress(self, description: str, total: int) -> Iterator[Callable[[], None]]:
        """Show a bar on stderr while something long goes on; call what is given at each step."""
        if not self.rich or not is_drawable(sys.stderr):
            yield _nothing
            return
        from squidmesh.cli.drawing import progress_bar

        with progress_bar(description, total, color=self.color) as advance:
            yield advance


def is_drawable(stream: IO[str]) -> bool:
    """Whether *stream* is a terminal that can be drawn on, with the library to do so."""
    if not stream.isatty() or os.environ.get("TERM") == "dumb":
        return False
    return importlib.util.find_spec("rich") is not None and _can_encode(stream)


def _can_encode(stream: IO[str]) -> bool:
    try:
        _DRAWN.encode(getattr(stream, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _encodable(line: str, stream: IO[str]) -> str:
    return line if _can_encode(stream) else line.translate(_ASCII)


def _json(document: Mapping[str, object], *, indent: int | None) -> str:
    # Where stdout cannot hold every character, JSON can still spell it out.
    return json.dumps(document, indent=indent, ensure_ascii=not _can_encode(sys.stdout))


def _nothing() -> None:
    """Advance no bar."""
