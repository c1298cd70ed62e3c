"""Failures are told to the log as loudly as the host has asked for, and no louder.

Found with logging as most hosts set it up, at WARNING: failed attempts were not told at all, and
at no level was there a traceback.
"""

import logging

import pytest

from squidmesh import SquidMesh, Workflow, manual, path, step

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
    assert "step=only attempt=1" in record.getMessage()
    assert 'raise LookupError("a secret")' in caplog.text
