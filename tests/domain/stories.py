"""Three workflows, and the runs of them that the tests of the readers look at."""

from datetime import timedelta
from typing import Final

from squidmesh.domain.commands import Succeeded
from squidmesh.domain.definition import (
    CompensationSpec,
    RecoveryMarker,
    RetryPolicy,
    WorkflowDefinition,
)
from squidmesh.domain.entries import ErrorRecord, Issuer
from squidmesh.domain.values import Json
from squidmesh.ports.store import JournalRow
from tests.domain.builders import (
    a_body,
    a_log,
    a_path,
    a_pause,
    a_wait,
    a_workflow,
    an_action,
    an_approval,
    on_error,
    on_ok,
)
from tests.domain.script import Claim, Script

ADA: Final = Issuer(actor="ada", comment="looks right", metadata={"ticket": ["T-1"]})
RETRIES: Final = RetryPolicy(max_attempts=3, backoff_min=timedelta(seconds=10))
UNDO: Final = CompensationSpec(
    body=a_body("withdraw", "output", "failure"),
    retry=RetryPolicy(max_attempts=2, backoff_min=timedelta(seconds=10)),
)
PAYLOAD: Final[dict[str, Json]] = {"invoice_id": "i7", "account": "a1"}

PAYMENT: Final = a_workflow(
    an_action("load", "invoice_id", output="invoice"),
    a_wait("settle", timedelta(minutes=5)),
    an_action("ask", "invoice", "account", output="verdict", retry=RETRIES),
    an_approval("review", output="review"),
    an_action("credit", "verdict", output="credit", undone_by=UNDO),
    an_action("tell", "credit", irreversible=True),
    an_action("page"),
    transitions=(
        *a_path("load", "settle", "ask", "review", "credit", "tell"),
        on_ok("page", None),
        on_error("ask", "page", recovery=RecoveryMarker.COMPENSATION),
        on_error("review", "page", recovery=RecoveryMarker.UNDO),
    ),
    takes=("invoice_id", "account"),
)
"""A path with a timer, retries, a decision, something to undo and something that cannot be."""

FEAST: Final = a_workflow(
    an_action("march", retry=RETRIES, output="north"),
    an_action("sneak", queue="night", output="south", undone_by=UNDO),
    a_wait("rest", timedelta(minutes=5)),
    an_action("feast", "north", "south", after=("march", "sneak")),
    a_log("note", after=("feast", "rest")),
)
"""Three branches and two joins, on two queues."""

BREAK: Final = a_workflow(
    a_pause("hold"), an_action("work"), transitions=(on_ok("hold", "work"), on_ok("work", None))
)
"""A pause first of all."""


def a_run(definition: WorkflowDefinition) -> Script:
    """A fresh run."""
    return Script(definition).start(PAYLOAD if definition is PAYMENT else None)


def at_ask() -> Script:
    """A payment behind its timer."""
    script = a_run(PAYMENT)
    script.ok("load", {"id": "i7", "lines": [1, 2]})
    script.pass_time(timedelta(minutes=5))
    script.ok("settle")
    return script


def at_review() -> Script:
    """A payment that waits for a person."""
    script = at_ask()
    script.ok("ask", "yes")
    return script


def at_tell() -> Script:
    """A payment that is approved and credited."""
    script = at_review()
    script.approve(ADA)
    script.ok("credit", {"number": 1})
    return script


def undoing() -> Script:
    """A payment that failed at its last step, so that the credit is to be withdrawn."""
    script = at_tell()
    script.fail("tell", ErrorRecord(code="unreachable", message="secret-42 did not answer"))
    return script


def exhausted() -> Script:
    """A feast whose march failed for good at its third attempt, with nothing to undo."""
    script = a_run(FEAST)
    for _ in range(3):
        script.fail("march", ErrorRecord(code="lost_way", message="north?", retryable=True))
        script.pass_time(timedelta(minutes=1))
    return script


def poisoned() -> Script:
    """A feast whose march lost both its workers."""
    script = a_run(FEAST)
    for _ in range(2):
        script.lose(script.claim("march"), max_deliveries=2)
    return script


def feasted() -> Script:
    """A feast that went well."""
    script = a_run(FEAST)
    script.ok("sneak", "behind")
    script.ok("march", "ahead")
    script.pass_time(timedelta(minutes=5))
    for step in ("rest", "feast", "note"):
        script.ok(step)
    return script


def not_undone() -> Script:
    """A payment whose credit could not be withdrawn."""
    script = undoing()
    for _ in range(2):
        script.fail("compensate:credit", ErrorRecord(code="no", message="no", retryable=True))
        script.pass_time(timedelta(seconds=10))
    return script


def doomed() -> tuple[Script, Claim]:
    """A feast that has failed while the march still runs."""
    script = a_run(FEAST)
    claim = script.claim("march")
    script.fail("sneak")
    return script, claim


def finish(script: Script, claim: Claim) -> None:
    """Let a claimed attempt succeed."""
    script.report(claim, Succeeded(None))


def rows_of(script: Script) -> tuple[JournalRow, ...]:
    """The journal of the run, a row for each entry."""
    return tuple(
        JournalRow(revision=number, at=entry.at, cause="test", entries=(entry,))
        for number, entry in enumerate(script.entries, start=1)
    )
