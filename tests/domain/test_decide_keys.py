"""Commands that arrive twice."""

import pytest

from squidmesh.domain.commands import (
    ApproveRun,
    CancelRun,
    Command,
    KeyAlreadyUsed,
    NotPaused,
    RejectRun,
    ReplayRun,
    ResumeRun,
)
from squidmesh.domain.entries import Issuer, ManualKind
from squidmesh.domain.state import RunStatus
from tests.domain.builders import (
    a_chain,
    a_path,
    a_pause,
    a_workflow,
    an_action,
    an_approval,
    on_error,
    on_ok,
)
from tests.domain.script import Script

KEYED = Issuer(actor="anna", idempotency_key="k1")


def a_wait_for_anna(*, approval: bool = False) -> Script:
    """A run that anybody may be asked about."""
    if not approval:
        return Script(a_chain(a_pause("hold"), an_action("tell"))).start()
    workflow = a_workflow(
        an_approval("hold"),
        an_action("tell"),
        transitions=(on_ok("hold", "tell"), on_error("hold", None), *a_path("tell")),
    )
    return Script(workflow).start()


@pytest.mark.parametrize(
    ("command", "approval"),
    [
        (CancelRun(issuer=KEYED), False),
        (ResumeRun(issuer=KEYED), False),
        (ApproveRun(issuer=KEYED), True),
        (RejectRun(issuer=KEYED), True),
        (ReplayRun(new_run_id="run-2", issuer=KEYED), False),
    ],
    ids=["cancel", "resume", "approve", "reject", "replay"],
)
def test_a_command_repeated_under_its_key_writes_nothing(
    command: Command, *, approval: bool
) -> None:
    run = a_wait_for_anna(approval=approval)
    run.do(command)
    before = run.state

    said = run.do(command)

    assert said == ()
    assert run.state is before


def test_a_repeated_command_is_answered_after_the_end_of_the_run_as_well() -> None:
    run = a_wait_for_anna()
    run.resume(KEYED)
    run.ok("tell")

    said = run.resume(KEYED)

    assert said == ()
    assert run.status is RunStatus.COMPLETED


@pytest.mark.parametrize(
    "command",
    [
        CancelRun(issuer=KEYED),
        ApproveRun(issuer=KEYED),
        RejectRun(issuer=KEYED),
        ReplayRun(new_run_id="run-2", issuer=KEYED),
    ],
    ids=["cancel", "approve", "reject", "replay"],
)
def test_a_key_belongs_to_one_command(command: Command) -> None:
    run = a_wait_for_anna()
    run.resume(KEYED)

    refusal = run.refused(command)

    assert refusal == KeyAlreadyUsed(key="k1")


def test_a_yes_is_not_repeated_as_a_no() -> None:
    run = a_wait_for_anna(approval=True)
    run.approve(KEYED)

    refusal = run.refused(RejectRun(issuer=KEYED))

    assert refusal == KeyAlreadyUsed(key="k1")


def test_the_same_command_under_another_key_is_another_command() -> None:
    run = a_wait_for_anna()
    run.resume(KEYED)

    refusal = run.refused(ResumeRun(issuer=Issuer(actor="anna", idempotency_key="k2")))

    assert refusal == NotPaused(status=RunStatus.RUNNING, expected=ManualKind.PAUSE, found=None)


def test_a_refused_command_does_not_use_up_its_key() -> None:
    run = a_wait_for_anna()
    run.refused(ApproveRun(issuer=KEYED))

    said = run.resume(KEYED)

    assert said != ()


def test_commands_without_keys_leave_no_receipt() -> None:
    run = a_wait_for_anna()

    run.resume(Issuer(actor="anna"))

    assert run.state.receipts == {}
