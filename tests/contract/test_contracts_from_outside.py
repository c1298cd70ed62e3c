"""The contracts in the hands of a stranger: a test file and a plain pytest, nothing of ours."""

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

import squidmesh

ROOT = Path(squidmesh.__file__).parents[1]


def run_pytest(folder: Path, source: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_mine.py").write_text(dedent(source), encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", "."],
        capture_output=True,
        check=False,
        cwd=folder,
        env={"PYTHONPATH": str(ROOT)},
        text=True,
    )


@pytest.fixture
def binding() -> str:
    return """
        import pytest

        from squidmesh.adapters.memory import MemoryStore
        from squidmesh.testing.contracts import PresenceContract

        class TestMine(PresenceContract):
            @pytest.fixture
            def store(self, clock):
                return MemoryStore(clock=clock)

            @pytest.fixture
            def peer(self, store):
                return store
    """


def test_a_contract_runs_with_nothing_but_the_plugin_that_anyio_brings(
    tmp_path: Path, binding: str
) -> None:
    finished = run_pytest(tmp_path, binding)

    assert finished.returncode == 0, finished.stdout
    assert "9 passed" in finished.stdout


def test_a_fixture_that_was_forgotten_turns_every_test_red_and_says_what_is_missing(
    tmp_path: Path,
) -> None:
    finished = run_pytest(
        tmp_path,
        """
        from squidmesh.testing.contracts import PresenceContract

        class TestMine(PresenceContract):
            pass
        """,
    )

    assert finished.returncode == 1
    assert "9 errors" in finished.stdout
    assert "TestMine provides no `store` fixture" in finished.stdout


def test_a_promise_that_is_not_kept_is_shown_with_the_values_that_differ(
    tmp_path: Path, binding: str
) -> None:
    kept = "return MemoryStore(clock=clock)"
    broken = dedent(binding).replace(kept, "return Mine(clock=clock)")
    mine = """
class Mine(MemoryStore):
    async def take_lease(self, name, owner, length):
        return True
"""

    finished = run_pytest(tmp_path, broken + mine)

    assert finished.returncode == 1
    assert "assert (True, True, True) == (True, False, True)" in finished.stdout
