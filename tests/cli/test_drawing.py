"""What a terminal gets, and what a pipe gets: colour, trees, plain text, letters it can hold."""

import io
import os
import pty
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from rich.console import Console

from squidmesh.cli.drawing import LiveScreen, draw, progress_bar, renderable
from squidmesh.cli.layout import Block, Branch, Sheet, Span, Table, plain, words
from squidmesh.cli.moments import rough, span_of
from tests.cli.support import Shop, environment, run

WITHOUT_RICH = "import sys; sys.modules['rich'] = None; from squidmesh.cli import main; main()"


def on_a_terminal(*arguments: str, cwd: Path, code: str | None = None, **changes: str) -> str:
    """What a command writes to a terminal."""
    ours, theirs = pty.openpty()
    program = ["-c", code] if code is not None else ["-m", "squidmesh"]
    process = subprocess.Popen(
        [sys.executable, *program, *arguments],
        cwd=cwd,
        env=environment(TERM="xterm-256color", COLUMNS="200", **changes),
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # a terminal whose other side has closed
            break
        if not chunk:
            break
        written += chunk
    os.close(ours)
    assert process.wait(timeout=30) == 0
    return written.decode()


@pytest.mark.slow
def test_a_terminal_gets_colours_unless_it_does_not_want_them(shop: Shop) -> None:
    (run_id,) = shop.sell()
    command = ("runs", "show", run_id)

    coloured = on_a_terminal(*command, cwd=shop.folder, SQUIDMESH_URL=shop.url)
    refused = [
        on_a_terminal(*command, "--no-color", cwd=shop.folder, SQUIDMESH_URL=shop.url),
        on_a_terminal(*command, cwd=shop.folder, SQUIDMESH_URL=shop.url, NO_COLOR="1"),
    ]

    assert "\x1b[35m◆ paused" in coloured
    assert all("◆ paused" in text and "\x1b[3" not in text for text in refused)


@pytest.mark.slow
def test_without_rich_a_terminal_gets_the_same_plain_text_as_a_pipe(shop: Shop) -> None:
    (run_id,) = shop.sell()

    drawn = on_a_terminal(
        "runs", "graph", run_id, cwd=shop.folder, code=WITHOUT_RICH, SQUIDMESH_URL=shop.url
    )

    assert drawn.replace("\r\n", "\n") == shop.ask("runs", "graph", run_id).out


@pytest.mark.slow
def test_a_watch_on_a_terminal_draws_the_tree_and_stops_with_the_run(shop: Shop) -> None:
    (run_id,) = shop.sell()
    shop.ask("runs", "approve", run_id)
    shop.work()

    drawn = on_a_terminal("runs", "watch", run_id, cwd=shop.folder, SQUIDMESH_URL=shop.url)

    assert "4 of 4" in drawn
    assert "the run is completed" in drawn


@pytest.mark.slow
def test_letters_that_a_stream_cannot_hold_are_drawn_with_others(shop: Shop) -> None:
    (run_id,) = shop.sell(item="señor")

    reply = run(
        "runs", "show", run_id,
        cwd=shop.folder, SQUIDMESH_URL=shop.url, PYTHONIOENCODING="ascii", PYTHONUTF8="0",
    )  # fmt: skip
    document = run(
        "runs", "show", run_id, "--json",
        cwd=shop.folder, SQUIDMESH_URL=shop.url, PYTHONIOENCODING="ascii", PYTHONUTF8="0",
    )  # fmt: skip

    assert reply.status == 0
    assert "|-- find" in reply.out
    assert document.json["payload"]["item"] == "señor"


@pytest.mark.slow
def test_a_reader_that_goes_away_early_is_no_error_of_ours(shop: Shop) -> None:
    shop.sell(200, work=False)
    line = f"{sys.executable} -m squidmesh runs list --limit 200 | head -n 1"

    finished = subprocess.run(
        ["/bin/sh", "-c", line],
        check=False,
        capture_output=True,
        cwd=shop.folder,
        env=environment(SQUIDMESH_URL=shop.url),
        text=True,
        timeout=30,
    )

    assert finished.stdout.startswith("RUN")
    assert "Traceback" not in finished.stderr
    assert "BrokenPipe" not in finished.stderr


def painted(*blocks: Block, columns: int = 60) -> str:
    """What rich makes of blocks on a terminal of so many columns."""
    console = Console(file=io.StringIO(), force_terminal=True, width=columns, highlight=False)
    for block in blocks:
        console.print(renderable(block))
    written = console.file
    assert isinstance(written, io.StringIO)
    return re.sub(r"\x1b\[[0-9;]*m", "", written.getvalue())


def test_a_terminal_gets_the_same_words_as_a_pipe() -> None:
    blocks: tuple[Block, ...] = (
        words(Span("[bold]not markup[/bold]", "red")),
        Table(("id", "text"), ((words("a"), words("b")),)),
        Branch(words("root"), (Branch(words("leaf")),)),
        Sheet((("Why", words("because")),)),
    )

    text = painted(*blocks)

    for block in blocks:
        for line in plain(block):
            assert " ".join(line.split()).casefold() in " ".join(text.split()).casefold()


def test_what_names_a_row_is_not_cut_where_the_terminal_is_narrow() -> None:
    run_id = "01a20913-106d-704f-b228-e547afd5b65b"
    table = Table(("run", "data"), ((words(run_id), words("x" * 50)),))

    assert run_id in painted(table, columns=60)


def test_a_bar_counts_and_a_live_screen_draws(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("Looking", 2, color=False) as advance:
        advance()
    with LiveScreen(color=False) as screen:
        screen.draw((words("tree"), words("why")), done=1, total=2)
        height = screen.height
    draw((words("done"),), color=False)

    out = capsys.readouterr().out
    assert height > 0
    assert "1 of 2" in out
    assert out.endswith("done\n")


def test_a_plain_table_is_aligned_and_ends_no_line_with_blanks() -> None:
    rows = ((words("a"), words("long")), (words("longer"), words("")))

    assert list(plain(Table(("id", "text"), rows))) == ["ID      TEXT", "a       long", "longer"]


def test_a_table_gives_up_columns_that_do_not_fit() -> None:
    table = Table(("id", "took", "tags"), ((words("1234"), words("5 s"), words("x")),), ("took",))

    assert table.fitted(80).head == ("id", "took", "tags")
    assert table.fitted(10).head == ("id", "tags")


def test_a_plain_tree_shows_what_hangs_where() -> None:
    leaf = Branch(words("leaf"))

    drawn = list(plain(Branch(words("root"), (Branch(words("branch"), (leaf,)), leaf))))

    assert drawn == ["root", "├── branch", "│   └── leaf", "└── leaf"]


def test_a_plain_sheet_aligns_what_its_labels_say() -> None:
    sheet = Sheet((("Why", words("because")), ("", words("of that")), ("Facts", words("none"))))

    assert list(plain(sheet)) == ["Why    because", "       of that", "Facts  none"]


def test_words_from_outside_are_made_harmless() -> None:
    assert Span("a\x1b[2Jb\n").text == "a\\x1b[2Jb\\n"


@pytest.mark.parametrize(
    ("seconds", "exact", "about"),
    [
        (-1, "0 ms", "0 ms"),
        (0.2124, "212 ms", "212 ms"),
        (3.41, "3.4 s", "3.4 s"),
        (12.9, "12 s", "12 s"),
        (192, "3 m 12 s", "3 m"),
        (11_520, "3 h 12 m", "3 h"),
        (180_000, "2 d 2 h", "2 d"),
    ],
)
def test_a_duration_is_told_in_the_units_that_matter(
    seconds: float, exact: str, about: str
) -> None:
    assert span_of(timedelta(seconds=seconds)) == exact
    assert rough(timedelta(seconds=seconds)) == about
