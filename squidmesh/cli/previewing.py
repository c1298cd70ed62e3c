"""What a command would do, shown instead of done."""

from collections.abc import Iterator, Mapping, Sequence

from squidmesh import Entry, Preview
from squidmesh.cli.documents import preview_document
from squidmesh.cli.layout import Block, Line, Sheet, Table, words
from squidmesh.cli.settings import Settings
from squidmesh.cli.styles import bold, dim

_NO_EFFECT = "nothing that is declared irreversible, not compensatable or compensated"
_NOTHING = "Nothing was written; the same command without --preview does it."


def show_preview(settings: Settings, shown: Preview) -> None:
    """Answer a command that was given with --preview."""
    terminal = settings.terminal
    if terminal.json:
        terminal.document(preview_document(shown))
    elif shown.entries:
        terminal.show(*_blocks(settings, shown))
    else:
        said = "There is nothing left to do: this key was used for the same command before."
        terminal.show(words(bold(said)))


def _blocks(settings: Settings, shown: Preview) -> Iterator[Block]:
    runs = tuple(dict.fromkeys(str(entry.data["run_id"]) for entry in shown.entries))
    yield words(bold("This would be written"), "  ·  ", settings.run_id or runs[0])
    yield _table(shown.entries, runs)
    if len(runs) > 1:
        yield words()
        yield Sheet(tuple(_repeated(shown)))
    yield words()
    yield words(dim(_NOTHING))


def _table(entries: Sequence[Entry], runs: Sequence[str]) -> Table:
    """The entries; which run they are about only matters where there are two."""
    names = dict(zip(runs, ("this run", "new run"), strict=False))
    table = Table(
        ("about", "seq", "entry", "step"),
        tuple(
            (
                words(names[str(entry.data["run_id"])]),
                words(str(entry.seq)),
                words(entry.type),
                words(_steps(entry.data)),
            )
            for entry in entries
        ),
    )
    return table if len(runs) > 1 else table.without("about")


def _steps(data: Mapping[str, object]) -> str:
    steps = data.get("steps")
    if isinstance(steps, list):
        return ", ".join(str(step) for step in steps)
    return str(data.get("step") or data.get("from_step") or "")


def _repeated(shown: Preview) -> Iterator[tuple[str, Line]]:
    yield "Runs again", words(", ".join(shown.reruns) or "nothing that has run")
    told = ", ".join(shown.effects)
    yield "Repeats", words(f"what {told} did outside" if told else _NO_EFFECT)
    if shown.undone:
        yield "Builds on", words(f"what {', '.join(shown.undone)} left, though it was undone")
