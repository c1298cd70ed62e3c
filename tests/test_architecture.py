"""The house rules that a reader should be able to rely on: a pure domain and a light import.

`PURE_MODULES` and `PURE_NAMES` are the published allow-list of the domain.
What is not on it is not imported there, whatever it would be used for: the list is the promise
that the same facts lead to the same decision on every machine, at every time.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

import pytest

import squidmesh

PACKAGE: Final = Path(squidmesh.__file__).parent
DOMAIN: Final = sorted((PACKAGE / "domain").rglob("*.py"))

PURE_MODULES: Final = frozenset(
    {
        "attrs",
        "base64",
        "collections",
        "collections.abc",
        "datetime",
        "decimal",
        "enum",
        "functools",
        "graphlib",
        "hashlib",
        "itertools",
        "json",
        "math",
        "operator",
        "re",
        "types",
        "typing",
    }
)

# Of these, only the names listed.
PURE_NAMES: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "returns.pipeline": frozenset({"is_successful"}),
        "returns.result": frozenset({"Failure", "Result", "Success"}),
    }
)

# Methods that read the clock or draw by chance, whatever they hang on.
IMPURE_METHODS: Final = frozenset({"now", "today", "utcnow", "uuid1", "uuid4"})

# Methods that fall back to the time zone of the machine below this number of arguments.
ZONED_METHODS: Final[Mapping[str, int]] = MappingProxyType({"astimezone": 1, "fromtimestamp": 2})

# Builtins that do I/O, run text as code, or answer differently in another process.
IMPURE_BUILTINS: Final = frozenset(
    {"__import__", "breakpoint", "compile", "eval", "exec", "hash", "id", "input", "open", "print"}
)

# What `import squidmesh` leaves to those who use it.
HEAVY: Final = (
    "aiosqlite",
    "click",
    "httpx",
    "psycopg",
    "pytest",
    "sqlite3",
    "squidmesh.adapters",
    "squidmesh.cli",
    "squidmesh.testing",
)


def impurities(source: str) -> list[str]:
    """Everything in *source* that a domain module may not say."""
    tree = ast.parse(source)
    return [problem for node in ast.walk(tree) for problem in (*_imports(node), *_uses(node))]


def _imports(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            if not _may_import(alias.name):
                yield f"imports {alias.name}"
    if isinstance(node, ast.ImportFrom):
        module = "." * node.level + (node.module or "")
        for alias in node.names:
            if not _may_import(module) and alias.name not in PURE_NAMES.get(module, ()):
                yield f"imports {alias.name} from {module}"


def _may_import(module: str) -> bool:
    of_the_domain = module == "squidmesh.domain" or module.startswith("squidmesh.domain.")
    return of_the_domain or module in PURE_MODULES


def _uses(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in IMPURE_BUILTINS:
        yield f"uses {node.id}"
    if isinstance(node, ast.Attribute) and _reads_the_clock(node):
        yield f"refers to {ast.unparse(node)}"
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        yield from _calls(node.func, arguments=len(node.args) + len(node.keywords))


def _reads_the_clock(node: ast.Attribute) -> bool:
    owner = ast.unparse(node.value).rpartition(".")[2]
    return node.attr in IMPURE_METHODS and owner in {"date", "datetime"}


def _calls(method: ast.Attribute, *, arguments: int) -> Iterator[str]:
    if method.attr in IMPURE_METHODS:
        yield f"calls {ast.unparse(method)}"
    if method.attr in ZONED_METHODS and arguments < ZONED_METHODS[method.attr]:
        yield f"calls {ast.unparse(method)} in the time zone of the machine"


def loaded_by(statement: str, *, unimportable: str = "") -> set[str]:
    """The modules that a fresh interpreter has loaded after *statement*."""
    script = (
        "import sys\n"
        f"for name in {unimportable!r}.split(): sys.modules[name] = None\n"
        f"{statement}\n"
        "print(*(name for name, module in sys.modules.items() if module is not None))"
    )
    finished = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        check=False,
        cwd=PACKAGE.parent,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    return set(finished.stdout.split())


@pytest.mark.parametrize("module", DOMAIN, ids=lambda path: path.stem)
def test_the_domain_says_only_what_is_pure(module: Path) -> None:
    source = module.read_text(encoding="utf-8")

    assert impurities(source) == []


def test_the_domain_has_modules_to_look_at() -> None:
    assert {"decide", "definition", "entries", "state"} <= {path.stem for path in DOMAIN}


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "import random as chance",
        "import returns.future",
        "import returns.result",
        "from os import environ",
        "from uuid import UUID",
        "from returns.pipeline import flow",
        "from returns.result import safe",
        "from squidmesh.ports.store import Store",
        "from squidmesh import errors",
        "from . import state",
        "def f():\n    import logging",
        "at = datetime.now(UTC)",
        "at = datetime.datetime.utcnow()",
        "at = clock.now()",
        "at = attrs.field(factory=date.today)",
        "at = moment.astimezone()",
        "at = datetime.fromtimestamp(seconds)",
        "key = uuid4.uuid4()",
        "print('done')",
        "text = open('rules').read()",
        "order = sorted(names, key=hash)",
        "same = id(a) == id(b)",
        "rule = eval('1 + 1')",
    ],
)
def test_an_impure_line_is_found(source: str) -> None:
    assert impurities(source) != []


@pytest.mark.parametrize(
    "source",
    [
        "import attrs",
        "import hashlib",
        "from collections.abc import Mapping",
        "from datetime import UTC, datetime, timedelta",
        "from json import dumps",
        "from returns.pipeline import is_successful",
        "from returns.result import Failure, Result, Success",
        "from squidmesh.domain.state import RunState",
        "def decide(state, now):\n    return state.evolve(now)",
        "later = command.now + delay",
        "moment = moment.astimezone(UTC)",
        "name = step.id",
    ],
)
def test_a_pure_line_passes(source: str) -> None:
    assert impurities(source) == []


def test_importing_squidmesh_loads_no_adapter_no_client_and_no_command_line() -> None:
    loaded = loaded_by("import squidmesh")

    assert sorted(loaded.intersection(HEAVY)) == []


def test_importing_squidmesh_works_without_the_extras() -> None:
    extras = "jinja2 prometheus_client psycopg pydantic rich starlette"

    loaded = loaded_by("import squidmesh", unimportable=extras)

    assert "squidmesh" in loaded


def test_the_package_tells_type_checkers_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()
