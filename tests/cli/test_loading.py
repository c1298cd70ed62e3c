"""`--app module:attribute`: what may stand there, and what is said of everything else."""

from collections.abc import Callable
from pathlib import Path

import pytest

from squidmesh import DefinitionError
from squidmesh.cli.failures import CommandError
from squidmesh.cli.loading import workflows_at
from squidmesh.cli.settings import Settings

WORKFLOW = """
from squidmesh import Workflow, manual, path, step

def act() -> None: ...

class {name}(Workflow):
    name = "{name}"
    by_hand = manual()
    act = step(act)
    transitions = path(act)
"""

Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Put a module into the current folder, under a name that no other test uses."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)

    def written(name: str, text: str) -> None:
        (tmp_path / f"{name}.py").write_text(text, "utf-8")

    return written


def names_at(app: str) -> list[str]:
    return [getattr(workflow, "__name__", "") for workflow in workflows_at(Settings(app=app))]


def test_an_attribute_is_one_workflow_or_a_sequence_or_a_module_of_them(write: Write) -> None:
    write("shop_a", WORKFLOW.format(name="One") + "several = [One]\nworkflows = (One,)\n")
    write("shop_b", "import shop_a as inner\n")

    found = [names_at(app) for app in ("shop_a:One", "shop_a:several", "shop_a", "shop_b:inner")]

    assert found == [["One"]] * 4


@pytest.mark.parametrize(
    ("app", "code", "said"),
    [
        ("nowhere_at_all:workflows", "app_module_not_found", "no module nowhere_at_all"),
        ("shop_c.py:One", "app_module_not_found", "Name it without .py."),
        ("shop_c:missing", "app_attribute_not_found", "Workflows there: One"),
        ("shop_c", "app_attribute_not_found", "--app shop_c means shop_c:workflows, which is not"),
        ("shop_c:number", "app_not_a_workflow", "it is of type int"),
        ("shop_c:mixed", "app_not_a_workflow", "one in it is of type str"),
        ("shop_c:nothing", "app_not_a_workflow", "shop_c:nothing is empty"),
        ("shop_c:Path", "app_not_a_workflow", "it is the class Path"),
        (":workflows", "app_format", "MODULE:WORKFLOWS"),
        (".", "app_format", "MODULE:WORKFLOWS"),
        ("shop c:x", "app_format", "MODULE:WORKFLOWS"),
    ],
)
def test_what_is_no_workflow_is_named(write: Write, app: str, code: str, said: str) -> None:
    write(
        "shop_c",
        "from pathlib import Path\n"
        + WORKFLOW.format(name="One")
        + "number, mixed, nothing = 7, [One, 'two'], []\n",
    )

    with pytest.raises(CommandError) as caught:
        workflows_at(Settings(app=app))

    assert caught.value.code == code
    assert caught.value.exit_code == 2
    assert said in str(caught.value)


def test_where_the_usual_attribute_is_missing_a_workflow_of_the_module_is_suggested(
    write: Write,
) -> None:
    write("shop_h", WORKFLOW.format(name="One"))

    with pytest.raises(CommandError) as caught:
        workflows_at(Settings(app="shop_h", arguments=("worker", "--app", "shop_h")))

    assert str(caught.value) == (
        "--app shop_h means shop_h:workflows, which is not there. Workflows there: One."
    )
    assert caught.value.advice == "squidmesh worker --app shop_h:One"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("shop_d", "x = 1\nraise ValueError('no database')\n", "ValueError: no database"),
        ("shop_e", "def (:\n", "SyntaxError"),
        ("shop_f", "import not_installed_anywhere\n", "No module named"),
    ],
)
def test_a_module_that_breaks_on_import_is_told_with_its_line(
    write: Write, name: str, text: str, said: str
) -> None:
    write(name, text)

    with pytest.raises(CommandError) as caught:
        workflows_at(Settings(app=f"{name}:workflows"))

    assert (caught.value.code, caught.value.exit_code) == ("app_import_failed", 1)
    assert said in str(caught.value)
    assert f"({name}.py, line " in str(caught.value)


def test_a_workflow_that_cannot_work_is_refused_with_all_its_problems(write: Write) -> None:
    write("shop_g", "from squidmesh import Workflow\nclass Bad(Workflow):\n    pass\n")

    with pytest.raises(DefinitionError) as caught:
        workflows_at(Settings(app="shop_g:Bad"))

    assert len(caught.value.problems) == 2
