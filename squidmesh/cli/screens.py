"""Where a watched run is shown: a tree that is drawn over itself, a log, or a stream of JSON."""

import contextlib
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Final, Protocol

import attrs

from squidmesh import Entry, Explanation, Run, RunGraph
from squidmesh.cli.explain import next_rows, reason_told
from squidmesh.cli.failures import Exit
from squidmesh.cli.layout import Sheet, Span, words
from squidmesh.cli.moments import clock_time, shortened, span_of
from squidmesh.cli.pictures import OVER, picture, title
from squidmesh.cli.settings import Settings
from squidmesh.cli.styles import dim, style_of
from squidmesh.cli.telling import sentence_of
from squidmesh.cli.terminal import Terminal

if TYPE_CHECKING:
    from squidmesh.cli.drawing import LiveScreen

_LINES_AROUND_THE_TREE: Final = 14

_OUTCOMES: Final = {
    Exit.OK: "completed",
    Exit.RUN_FAILED: "failed",
    Exit.STILL_WAITING: "still_waiting",
}


@attrs.frozen(kw_only=True)
class Look:
    """A run at one moment; *run* carries its history."""

    run: Run
    graph: RunGraph
    explanation: Explanation
    at: datetime

    @property
    def is_over(self) -> bool:
        """Whether nothing changes any more."""
        return self.run.status in OVER


class Screen(Protocol):
    """Where looks are shown."""

    def saw(self, look: Look, entries: tuple[Entry, ...]) -> None:
        """Show a look, and the entries that the looks before it did not have."""

    def ended(self, look: Look, outcome: Exit) -> None:
        """Say what came of it."""


@contextlib.contextmanager
def screen_for(settings: Settings) -> Iterator[Screen]:
    """The screen that suits where stdout leads, until this is left."""
    terminal = settings.terminal
    if terminal.json:
        yield EventScreen(terminal)
    elif not terminal.rich:
        yield LogScreen(settings, terminal)
    else:
        from squidmesh.cli.drawing import LiveScreen

        with LiveScreen(color=terminal.color) as live:
            yield TreeScreen(settings, live)


@attrs.define
class EventScreen:
    """One JSON object per line: each entry as it appears, and how the run stands after it."""

    terminal: Terminal
    _revision: int | None = None

    def saw(self, look: Look, entries: tuple[Entry, ...]) -> None:
        """Print what is new, if anything is."""
        if self._revision is not None:
            for entry in entries:
                self.terminal.event(
                    {
                        "type": entry.type,
                        "run_id": look.run.id,
                        "seq": entry.seq,
                        "at": entry.at.isoformat(),
                        "data": dict(entry.data),
                    }
                )
        if look.run.revision != self._revision:
            self.terminal.event(_state_of(look))
        self._revision = look.run.revision

    def ended(self, look: Look, outcome: Exit) -> None:
        """Print the end, which has the exit status in it."""
        end = {"type": "watch_ended", "outcome": _OUTCOMES[outcome], "exit_code": int(outcome)}
        self.terminal.event({**end, "run_id": look.run.id, "status": look.run.status})


def _state_of(look: Look) -> dict[str, object]:
    return {
        "type": "run",
        "run_id": look.run.id,
        "workflow": look.run.workflow,
        "status": look.run.status,
        "current_step": look.run.current_step,
        "revision": look.run.revision,
        "reason": look.explanation.reason,
        "summary": look.explanation.summary,
    }


@attrs.define
class LogScreen:
    """A line for what has happened, and one whenever the run waits for something else."""

    settings: Settings
    terminal: Terminal
    _said: str | None = None

    def saw(self, look: Look, entries: tuple[Entry, ...]) -> None:
        """Print what is new, if anything is; what came before the first look is left out."""
        if self._said is None:
            self.terminal.show(title(look.run))
            entries = ()
        for entry in entries:
            sentence = sentence_of(entry)
            if sentence is not None:
                self.terminal.show(
                    words(clock_time(entry.at), "  ", Span(sentence.text, sentence.style))
                )
        summary = look.explanation.summary
        if look.explanation.reason != self._said and not look.is_over:
            self.terminal.show(words(clock_time(look.at), "  ", shortened(summary)))
        self._said = look.explanation.reason

    def ended(self, look: Look, outcome: Exit) -> None:
        """Print the end, and what may be done now."""
        self.terminal.show(words(clock_time(look.at), "  ", *_ending(look, outcome)))
        rows = tuple(next_rows(self.settings, look.run.id, look.explanation, look.run.steps or ()))
        if rows:
            self.terminal.show(Sheet(rows))


@attrs.define
class TreeScreen:
    """The run as a tree, drawn anew at every look."""

    settings: Settings
    live: "LiveScreen"

    def saw(self, look: Look, entries: tuple[Entry, ...]) -> None:
        """Draw the tree, how much is done, why it waits, and what may be done."""
        del entries
        self._draw(look)

    def ended(self, look: Look, outcome: Exit) -> None:
        """Draw the last picture, which stays."""
        self._draw(look, outcome)

    def _draw(self, look: Look, outcome: Exit | None = None) -> None:
        steps = look.run.steps or ()
        most = max(self.live.height - _LINES_AROUND_THE_TREE, 3)
        rows = [] if outcome is None else [("End", words(*_ending(look, outcome)))]
        if look.run.status not in ("completed", "cancelled"):
            rows.append(("Why", words(shortened(look.explanation.summary))))
        rows += next_rows(
            self.settings, look.run.id, look.explanation, steps, watching=outcome is None
        )
        self.live.draw(
            (picture(look.run, look.graph, look.at, most=most), Sheet(tuple(rows))),
            done=sum(step.status in OVER for step in steps),
            total=sum(step.status != "skipped" for step in steps),
        )


def _ending(look: Look, outcome: Exit) -> tuple[Span, ...]:
    run = look.run
    if outcome is Exit.STILL_WAITING:
        return words(
            Span("still going on", "yellow"), dim(f"  {reason_told(look.explanation.reason)}")
        )
    took = span_of(run.ended_at - run.started_at) if run.ended_at is not None else "?"
    error = f"  {run.error['code']}" if run.error is not None else ""
    return words(Span(f"the run is {run.status}", style_of(run.status)), f" after {took}{error}")
