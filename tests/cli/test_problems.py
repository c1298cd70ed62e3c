"""What goes wrong: one line with a code, the exit status that means it, and no trace left."""

import ast
import inspect
import re
from pathlib import Path

import pytest

from squidmesh import errors
from squidmesh.cli.problems import complaint_of
from squidmesh.cli.settings import Settings
from squidmesh.domain.definition import Problem
from tests.cli.support import APP, ROOT, Shop, ask

READING = [
    ("runs", "list"),
    ("runs", "show", "last"),
    ("runs", "explain", "last"),
    ("runs", "graph", "last"),
    ("runs", "watch", "last"),
    ("runs", "cancel", "last"),
    ("runs", "approve", "last"),
]


@pytest.mark.parametrize("command", READING)
def test_a_typo_in_the_url_is_named_and_makes_no_file(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    url = f"sqlite:///{tmp_path}/typo.db"

    reply = ask(*command, "--url", url)

    assert reply.status == 3
    assert reply.err == (
        f"error: There is no database at {url}: no such file. [no_such_database] "
        f"Try: squidmesh migrate --url {url}\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_database_of_somebody_else_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    path.touch()

    reply = ask("runs", "list", "--url", f"sqlite:///{path}")

    assert reply.status == 5
    assert "[schema_not_migrated]" in reply.err
    assert path.read_bytes() == b""
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_no_database_is_reported_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but rather longer than a header would be", "utf-8")

    reply = ask("runs", "list", "--url", f"sqlite:///{path}")

    assert reply.status == 1
    assert "the file is not an SQLite database. [store_unavailable]" in reply.err
    assert path.read_text("utf-8").startswith("not a database")


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("mysql://host/db", "invalid_option"),
        ("app.db", "invalid_option"),
        ("sqlite://app.db", "invalid_option"),
    ],
)
def test_a_url_that_names_no_store_is_a_misunderstanding(url: str, code: str) -> None:
    reply = ask("runs", "list", "--url", url)

    assert reply.status == 2
    assert f"[{code}] Try: squidmesh runs list --help" in reply.err


def test_without_a_url_the_line_says_how_to_give_one() -> None:
    reply = ask("runs", "list")

    assert reply.status == 2
    assert reply.err.endswith("Try: squidmesh runs list --url sqlite:///app.db\n")


def test_in_json_an_error_is_the_one_document_on_stdout_and_still_a_line_on_stderr(
    shop: Shop,
) -> None:
    reply = shop.ask("runs", "show", "00000000-0000-7000-8000-000000000000", "--json")

    assert reply.status == 3
    assert reply.json["error"]["code"] == "run_not_found"
    assert reply.json["error"]["details"] == {"run_id": "00000000-0000-7000-8000-000000000000"}
    assert reply.json["error"]["try"] == "squidmesh runs list"
    assert reply.err.count("\n") == 1


def test_arguments_that_make_no_sense_are_an_error_of_the_same_kind() -> None:
    option = ask("runs", "list", "--colour", "red", "--json")
    command = ask("runs", "lst")

    assert option.status == command.status == 2
    assert option.json["error"]["code"] == "usage"
    assert command.err.endswith("[usage] Try: squidmesh runs --help\n")


def test_a_group_without_a_command_lists_its_commands_in_the_order_one_meets_them() -> None:
    reply = ask("runs")

    named = [line.split()[0] for line in reply.err.partition("Commands:")[2].splitlines() if line]
    assert reply.status == 2
    assert named[:5] == ["list", "show", "explain", "graph", "watch"]


def test_the_version_is_told() -> None:
    reply = ask("--version")

    assert reply.status == 0
    assert reply.out.startswith("squidmesh ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--tag", "north"),
        ("--tag", "=north"),
        ("--started-after", "yesterday"),
        ("--limit", "0"),
        ("--limit", "1001"),
        ("--status", "lost"),
        ("--cursor", "zz"),
    ],
)
def test_a_value_that_an_option_cannot_take_is_named(
    shop: Shop, arguments: tuple[str, str]
) -> None:
    reply = shop.ask("runs", "list", *arguments)

    assert reply.status == 2
    assert arguments[0].lstrip("-") in reply.err


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("worker", "--lease", "0"), "--lease is a positive duration of at most a year. ["),
        (("worker", "--queue", ""), "--queue is a text of 1 to 200 characters"),
        (("runs", "list", "--tag", "a="), "--tag is a text of 1 to 200 characters"),
        (("runs", "list", "--workflow", ""), "--workflow is a text of 1 to 200 characters"),
    ],
)
def test_an_argument_that_the_library_refuses_is_named_as_it_was_typed(
    shop: Shop, command: tuple[str, ...], said: str
) -> None:
    reply = shop.ask(*command, env={"SQUIDMESH_APP": APP})

    assert reply.status == 2
    assert reply.err.startswith(f"error: {said}")


def test_a_typed_url_wins_over_the_environment_wherever_it_stands(
    shop: Shop, tmp_path: Path
) -> None:
    shop.sell()
    nowhere = f"sqlite:///{tmp_path}/nowhere.db"

    before = ask("--url", shop.url, "runs", "list", env={"SQUIDMESH_URL": nowhere})
    behind = ask("runs", "list", "--url", shop.url, env={"SQUIDMESH_URL": nowhere})

    assert before.status == behind.status == 0


def test_a_store_in_memory_is_shown_as_empty_with_the_reason() -> None:
    reply = ask("runs", "list", "--url", "memory://")

    assert reply.status == 0
    assert reply.err.startswith("note: memory:// is private to a process")


@pytest.mark.parametrize(
    ("problem", "status"),
    [
        (errors.InvalidOptionError("limit", "limit is an integer."), 2),
        (errors.InvalidReviewError("actor", "it is missing"), 2),
        (errors.RunNotFoundError("r1"), 3),
        (errors.UnknownWorkflowError("selling", ["holding"]), 3),
        (errors.InvalidTransitionError("completed", "cancelling"), 4),
        (errors.NotPausedError("pause", "approval"), 4),
        (errors.UnsafeReplayError(["ship"]), 4),
        (errors.IdempotencyConflictError("k1"), 4),
        (errors.InvalidPayloadError(missing=["item"]), 4),
        (errors.StoreConflictError(), 4),
        (errors.SchemaNotMigratedError(None, 1), 5),
        (errors.StoreUnavailableError("the disk is full"), 1),
        (errors.JournalCorruptError("r1", "an entry is missing"), 1),
        (errors.DefinitionError("selling", [Problem((), "no_steps", "it has no steps")]), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_every_error_has_its_exit_status_and_a_command_that_helps(
    problem: errors.SquidMeshError, status: int
) -> None:
    complaint = complaint_of(problem, Settings())

    assert complaint.exit_code == status
    assert complaint.as_line().startswith("error: ")
    assert f"[{problem.code}]" in complaint.as_line()
    assert "Try: " in complaint.as_line()
    assert "()" not in complaint.message
    assert "=True" not in complaint.message


def test_every_code_of_the_command_line_is_listed() -> None:
    folder = Path(inspect.getfile(complaint_of)).parent
    page = (ROOT / "docs" / "errors.md").read_text("utf-8")
    sources = "".join(path.read_text("utf-8") for path in folder.glob("*.py"))

    codes = set(re.findall(r'code="(\w+)"', sources))

    assert "no_app" in codes
    assert [code for code in sorted(codes) if f"`{code}` |" not in page] == []


def test_the_command_line_imports_nothing_but_the_public_interface() -> None:
    folder = Path(inspect.getfile(complaint_of)).parent
    imported = {
        node.module
        for path in folder.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module is not None
    }

    private = ("adapters", "domain", "ports", "runtime")
    assert not [name for name in imported if name.split(".")[1:2] and name.split(".")[1] in private]
