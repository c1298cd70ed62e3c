"""The page that lists what a run is promised names tests that exist, and all kinds of promises."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent
PAGE: Final = ROOT / "docs" / "run_contract.md"

_SECTION: Final = re.compile(r"^## (\d+)\. ", re.MULTILINE)
_TEST: Final = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
_ROW: Final = re.compile(r"^\| (?!---|promise )(.+) \| (.+) \|$")

ITEMS: Final = range(1, 19)


def sections() -> dict[int, str]:
    """The text of each numbered section of the page."""
    parts = _SECTION.split(PAGE.read_text())
    return {int(number): text for number, text in zip(parts[1::2], parts[2::2], strict=True)}


@cache
def declared_in(path: str) -> frozenset[str]:
    """The tests of a module, those in its classes included."""
    tree = ast.parse((ROOT / path).read_text())
    return frozenset(
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
    )


def test_the_page_has_a_section_for_everything_that_is_promised() -> None:
    assert list(sections()) == list(ITEMS)


@pytest.mark.parametrize("item", ITEMS)
def test_every_promise_names_a_test_that_exists(item: int) -> None:
    rows = [match for line in sections()[item].splitlines() if (match := _ROW.match(line))]

    unshown = [row[1] for row in rows if not _TEST.search(row[2])]
    gone = [
        f"{path}::{name}"
        for row in rows
        for path, name in _TEST.findall(row[2])
        if not (ROOT / path).exists() or name not in declared_in(path)
    ]

    assert rows
    assert (unshown, gone) == ([], [])
