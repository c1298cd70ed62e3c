"""What the pages say is true: examples run and print what they say, and no link leads nowhere.

Fenced blocks of a page are run in order, in a folder of their own:

* ``python`` runs in one namespace per page, with ``await`` allowed at the top, as in
  ``python -m asyncio``. A ``text`` block right behind it is what it prints.
* ``python`` whose first line is a comment that names a file, such as ``# app.py``, is written to
  that file instead; some ``console`` block of the page has to use it.
* ``console`` holds commands behind ``$`` and what each of them prints.

A page that speaks of the database `EXAMPLE` gets an empty one on a real server in its place.

Ids, times, numbers of tests and names of workers are alike in comparisons, and so is the width of
a gap. A line of three dots stands for any lines. Everything else (``sh``, ...) is for readers.
"""

import ast
import asyncio
import contextlib
import inspect
import io
import itertools
import os
import re
import shlex
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Final, get_args

import attrs
import pytest

import squidmesh
from squidmesh import errors
from squidmesh.cli.failures import Exit
from squidmesh.domain.audit import AuditEvent
from squidmesh.domain.commands import SkipReason
from squidmesh.domain.entries import Entry
from squidmesh.domain.reasons import Reason
from squidmesh.domain.state import AttemptStatus, RunStatus, StepStatus
from squidmesh.records import type_name
from squidmesh.testing.postgres import TemporaryServer, embedded_binaries
from tests.postgres.template import fresh_database

ROOT: Final = Path(__file__).parent.parent
DOCS: Final = ROOT / "docs"
PAGES: Final = (ROOT / "README.md", *sorted(DOCS.glob("*.md")))
TOP_LEVEL: Final = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT

EXAMPLE: Final = "postgresql://shop:secret@db.example/shop"

_FENCE: Final = re.compile(r"```(\w*)\s*")
_FILE: Final = re.compile(r"# ([\w/]+\.py)\n")
_LINK: Final = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_ANY_LINES: Final = r"(?:.*\n)*?"
_ALIKE: Final = (
    (re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "<id>"),
    (re.compile(r"\b[0-9a-f]{24}\b"), "<digest>"),
    (re.compile(r"\b[\w.-]+-\d+-(?:[0-9a-f]{16}|[\w-]{6})(?![\w-])"), "<worker>"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)?"), "<time>"),
    (re.compile(r"\b\d\d:\d\d:\d\d(?:\.\d+)?"), "<time>"),
    (re.compile(r"\b\d+(?:\.\d+)?\s?(?:ms|s|m|min|h)\b(?: \d+ (?:s|m|min)\b)?"), "<span>"),
    (re.compile(r"\b\d+ passed"), "<some> passed"),
    (re.compile(r"[ \t]+"), " "),
    (re.compile(r" $", re.MULTILINE), ""),
)

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@attrs.frozen
class Block:
    """A fenced block: its language, what it holds, and the line of the page that it begins at."""

    language: str
    text: str
    line: int


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    blocks, lines = [], iter(enumerate(page.read_text("utf-8").splitlines(), start=1))
    for number, line in lines:
        opening = _FENCE.fullmatch(line)
        if opening:
            held = itertools.takewhile(lambda one: one[1] != "```", lines)
            text = "".join(f"{inside}\n" for _, inside in held)
            blocks.append(Block(opening[1], text, number))
    return blocks


def prose_of(page: Path) -> str:
    """What a page says between its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def code_in(page: Path) -> str:
    """What a page shows as code, in blocks and between words."""
    inline = re.findall(r"`([^`\n]+)`", prose_of(page))
    return "\n".join([*(block.text for block in blocks_of(page)), *inline])


def alike(text: str) -> list[str]:
    """The lines of *text* without what differs from one time to the next."""
    for pattern, stand_in in _ALIKE:
        text = pattern.sub(stand_in, text)
    return text.strip().splitlines()


def check(printed: str, expected: str, where: str) -> None:
    """Hold what was printed against what the page says."""
    lines = (_ANY_LINES if line == "..." else re.escape(line) + "\n" for line in alike(expected))
    fits = re.fullmatch("".join(lines), "".join(f"{line}\n" for line in alike(printed)))
    assert fits, f"{where} says:\n{expected}\nand this was printed:\n{printed}"


class Session:
    """One reading of a page, by somebody who tries everything."""

    def __init__(
        self, page: Path, folder: Path, runner: asyncio.Runner, database: str = EXAMPLE
    ) -> None:
        self.page = page
        self.database = database
        self.folder = folder
        self.runner = runner
        self.module = types.ModuleType(f"docs_{page.stem}")
        self.files: set[str] = set()
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("SQUIDMESH_", "PYTEST_"))
        } | {"PYTHONPATH": str(ROOT), "COLUMNS": "100", "NO_COLOR": "1", "PYTHONUTF8": "1"}

    def read(self) -> None:
        blocks = [
            attrs.evolve(block, text=block.text.replace(EXAMPLE, self.database))
            for block in blocks_of(self.page)
        ]
        for block, behind in itertools.zip_longest(blocks, blocks[1:]):
            where = f"{self.page.name}, line {block.line},"
            if block.language == "console":
                self.type_in(block, where)
            elif block.language == "python" and (named := _FILE.match(block.text)):
                self.files.add(named[1])
                (self.folder / named[1]).write_text(block.text, "utf-8")
            elif block.language == "python":
                printed = self.execute(block)
                if behind is not None and behind.language == "text":
                    check(printed, behind.text, where)
        assert not self.files, f"{self.page.name} does not use its files {self.files}"

    def execute(self, block: Block) -> str:
        """Run a block in the page's namespace, and return what it prints."""
        source = "\n" * block.line + block.text  # so that a traceback names the line of the page
        code = compile(source, self.page.name, "exec", flags=TOP_LEVEL)
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            awaited = eval(code, vars(self.module))  # noqa: S307  it is what is tested
            if inspect.iscoroutine(awaited):
                self.runner.run(awaited)
        return said.getvalue()

    def type_in(self, block: Block, where: str) -> None:
        """Run the commands of a block, one after the other."""
        for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
            line, _, expected = part.partition("\n")
            command, *arguments = shlex.split(line, comments=True)
            self.files -= {name for name in self.files if re.search(Path(name).stem, line)}
            if command == "export":
                self.environment |= dict(one.split("=", 1) for one in arguments)
            else:
                check(self.run(command, arguments), expected, where)

    def run(self, command: str, arguments: list[str]) -> str:
        before = {
            "python": [],
            "squidmesh": ["-m", "squidmesh"],
            "pytest": ["-m", "pytest", "-p", "no:cacheprovider"],
        }[command]
        ran = subprocess.run(
            [sys.executable, *before, *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=60,
            check=False,
        )
        return ran.stdout


@contextlib.contextmanager
def session(page: Path, folder: Path, database: str = EXAMPLE) -> Iterator[Session]:
    """A session in *folder*, whose module can be imported while it lasts."""
    with contextlib.chdir(folder), asyncio.Runner() as runner:
        opened = Session(page, folder, runner, database)
        sys.modules[opened.module.__name__] = opened.module
        try:
            yield opened
        finally:
            del sys.modules[opened.module.__name__]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TemporaryServer]:
    binaries = embedded_binaries()
    assert binaries is not None
    with TemporaryServer.start(tmp_path_factory.mktemp("docs"), binaries=binaries) as server:
        yield server


@pages
def test_every_example_runs_and_prints_what_the_page_says(
    page: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with contextlib.ExitStack() as opened:
        database = EXAMPLE
        if EXAMPLE in page.read_text("utf-8"):
            server = request.getfixturevalue("server")
            database = opened.enter_context(fresh_database(server))

        reader = opened.enter_context(session(page, tmp_path, database))
        reader.read()


def test_a_page_that_says_what_is_not_so_is_found_out(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nprint(1 + 1)\n```\n\n```text\n3\n```\n", "utf-8")

    with session(page, tmp_path) as reader, pytest.raises(AssertionError) as problem:
        reader.read()

    assert "page.md, line 1, says:" in str(problem.value)


@pages
def test_every_link_within_the_project_leads_somewhere(page: Path) -> None:
    links = [link for link in _LINK.findall(prose_of(page)) if "://" not in link]

    lost = [link for link in links if not _leads_somewhere(page, link)]

    assert lost == []


def _leads_somewhere(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not anchor:
        return target.exists()
    headings = re.findall(r"^#+ (.+)$", prose_of(target), flags=re.MULTILINE)
    return anchor in {re.sub(r"[^\w -]", "", one).lower().replace(" ", "-") for one in headings}


def test_every_page_can_be_reached_from_the_index() -> None:
    linked = set(_LINK.findall(prose_of(DOCS / "index.md")))

    assert {page.name for page in DOCS.glob("*.md")} - linked == {"index.md"}


@pytest.mark.parametrize("name", squidmesh.__all__)
def test_every_public_name_is_in_the_pages(name: str) -> None:
    shown = "\n".join(code_in(page) for page in PAGES)

    assert re.search(rf"\b{name}\b", shown)


def test_every_error_is_listed_with_its_code() -> None:
    page = (DOCS / "errors.md").read_text("utf-8")
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    public = [kind for kind in kinds if issubclass(kind, errors.SquidMeshError)]

    missing = [kind.__name__ for kind in public if not _is_listed(kind, page)]

    assert missing == []


def _is_listed(kind: type[errors.SquidMeshError], page: str) -> bool:
    return f"| `{kind.__name__}` | `{kind.code}` |" in page


CONSTRUCTS: Final = (
    *("step", "wait", "log", "pause", "approval", "manual", "cron", "when", "compensation"),
    *("Retry", "Errored", "Deferred"),
)


@pytest.mark.parametrize("name", CONSTRUCTS)
def test_the_authoring_page_runs_every_option_of_every_construct(name: str) -> None:
    page = blocks_of(DOCS / "workflow_authoring.md")
    run = "\n".join(block.text for block in page if block.language == "python")
    parameters = inspect.signature(getattr(squidmesh, name)).parameters.values()

    options = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY]

    assert f"{name}(" in run
    assert [option for option in options if f"{option}=" not in run] == []


def test_the_authoring_page_names_everything_that_a_body_may_ask() -> None:
    shown = code_in(DOCS / "workflow_authoring.md")
    asked = {name for name in dir(squidmesh.StepContext) if not name.startswith(("_", "tell_"))}

    assert [name for name in sorted(asked) if not re.search(rf"\b{name}\b", shown)] == []


def test_operators_are_told_every_status_reason_and_exit_status() -> None:
    page = (DOCS / "operating.md").read_text("utf-8")
    words = {one.value for kind in (RunStatus, StepStatus, AttemptStatus, Reason) for one in kind}
    numbers = {str(status.value) for status in Exit}

    assert [word for word in sorted(words | numbers) if f"| `{word}` |" not in page] == []


def test_the_protocol_page_names_every_entry_and_every_reason_to_skip() -> None:
    shown = code_in(DOCS / "durable_dispatch_protocol.md")
    words = {reason.value for reason in SkipReason} | {type_name(kind) for kind in get_args(Entry)}

    assert [word for word in sorted(words) if not re.search(rf"\b{word}\b", shown)] == []


def test_an_audit_event_has_the_fields_that_the_operators_are_told_of() -> None:
    shown = code_in(DOCS / "operating.md")

    assert [field.name for field in attrs.fields(AuditEvent) if field.name not in shown] == []
