"""Failures are told to the log as loudly as the host has asked for, and no louder.

Found with logging as most hosts set it up, at WARNING: failed attempts were not told at all, and
at no level was there a traceback. In the log of a worker tracebacks showed local variables.
"""

import io
import logging
from collections.abc import Iterator

import pytest
import structlog

from squidmesh import SquidMesh, Workflow, manual, path, step
from squidmesh.cli.logs import configure

pytestmark = pytest.mark.anyio


def plain() -> None:
    raise LookupError("a secret")


async def later() -> None:
    raise LookupError("a secret")


class Fail(Workflow[None]):
    name = "fail"
    by_hand = manual()
    only = step(plain)
    transitions = path(only)


class FailLater(Workflow[None]):
    name = "fail_later"
    by_hand = manual()
    only = step(later)
    transitions = path(only)


@pytest.fixture
def worker_log() -> Iterator[io.StringIO]:
    """What a worker prints at DEBUG; the process logs as before when the test has ended."""
    root, stream = logging.getLogger(), io.StringIO()
    handlers, level = list(root.handlers), root.level
    root.handlers.clear()
    try:
        configure(as_json=False, stream=stream, level="debug", color=False)
        yield stream
    finally:
        structlog.reset_defaults()
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.getLogger("aiosqlite").setLevel(logging.NOTSET)


async def failed(workflow: type[Workflow[None]]) -> None:
    async with SquidMesh.open("memory://", workflows=[workflow]) as mesh:
        await mesh.start_run(workflow)
        await mesh.run_until_idle()


@pytest.mark.parametrize("workflow", [Fail, FailLater])
async def test_a_failed_attempt_is_told_at_warning_with_its_type_and_without_its_text(
    workflow: type[Workflow[None]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="squidmesh")

    await failed(workflow)

    (record,) = caplog.records
    assert record.getMessage().startswith("attempt.failed ")
    assert "error=step_exception type=LookupError then=fail" in record.getMessage()
    assert "a secret" not in caplog.text


@pytest.mark.parametrize("workflow", [Fail, FailLater])
async def test_a_traceback_is_there_for_whoever_turns_debug_on(
    workflow: type[Workflow[None]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="squidmesh.workflow")

    await failed(workflow)

    (record,) = [one for one in caplog.records if one.name == "squidmesh.workflow"]
    assert record.getMessage().startswith("body.raised type=LookupError ")
    assert {"step=only", "attempt=1"} <= set(record.getMessage().split())
    assert 'raise LookupError("a secret")' in caplog.text


async def test_a_workers_traceback_shows_lines_of_code_and_no_local_variables(
    worker_log: io.StringIO,
) -> None:
    async def pay(token: str = "hunter" + "2") -> None:
        raise LookupError(len(token))

    class Pay(Workflow[None]):
        name = "pay"
        by_hand = manual()
        pay_it = step(pay)
        transitions = path(pay_it)

    await failed(Pay)

    assert "raise LookupError(len(token))" in worker_log.getvalue()
    assert "hunter2" not in worker_log.getvalue()


async def test_a_workers_log_is_not_buried_under_the_statements_of_its_store(
    worker_log: io.StringIO,
) -> None:
    logging.getLogger("aiosqlite").debug("executing %s", "a statement")

    await failed(FailLater)

    assert "attempt.failed" in worker_log.getvalue()
    assert "a statement" not in worker_log.getvalue()
