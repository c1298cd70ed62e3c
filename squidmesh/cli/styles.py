"""The sign and the style of each status, of runs and of steps."""

from typing import Final

from squidmesh.cli.layout import Line, Span, words

_SIGNS: Final = {
    "pending": ("◌", "cyan"),
    "waiting": ("○", "dim"),
    "scheduled": ("◌", "cyan"),
    "running": ("●", "blue"),
    "retrying": ("↻", "yellow"),
    "paused": ("◆", "magenta"),
    "cancelling": ("⊘", "yellow"),
    "compensating": ("↩", "yellow"),
    "completed": ("✓", "green"),
    "failed": ("✗", "red"),
    "cancelled": ("⊘", "dim"),
    "skipped": ("-", "dim"),
    "claimed": ("●", "blue"),
    "lost": ("✗", "red"),
    "deferred": ("◌", "cyan"),
}


def style_of(status: str) -> str:
    """The style of whatever has this status."""
    return _SIGNS.get(status, ("", ""))[1]


def marked(status: str) -> Line:
    """A status behind its sign."""
    sign, style = _SIGNS.get(status, ("·", ""))
    return words(Span(f"{sign} {status}", style))


def dim(text: str) -> Span:
    """Words of less weight."""
    return Span(text, "dim")


def bold(text: str) -> Span:
    """Words of more weight."""
    return Span(text, "bold")
