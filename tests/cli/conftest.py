"""A store on disk that holds nothing yet, but has its tables."""

from pathlib import Path

import pytest

from tests.cli.support import Shop


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    found = Shop(tmp_path)
    assert found.ask("migrate").status == 0
    return found
