"""Parts of a state as rows of SQLite's tables; what the tables share with others is in `rows`.

The values of a row stand in the order of the columns in the statement that takes it.
"""

from typing import Final

from squidmesh.codec import encode
from squidmesh.domain.entries import RunStarted
from squidmesh.domain.state import AttemptState, StepState
from squidmesh.ports.store import RunChange
from squidmesh.records import instant, microseconds, moment
from squidmesh.rows import (
    Row,
    RowReader,
    document_or_null,
    instant_or_null,
    moved_values,
    started_values,
    turned_values,
)

READER: Final = RowReader(moment)
"""Instants are kept as the texts that they are written as."""


def started_row(change: RunChange) -> Row:
    """The row of a run that begins."""
    return (*turned_row(change), *started_values(change.state.facts))


def turned_row(change: RunChange) -> Row:
    """What changes about a run when its status does."""
    return (*moved_row(change), *turned_values(change.state))


def moved_row(change: RunChange) -> Row:
    """What changes about a run with every commit."""
    return (change.run_id, *moved_values(change))


def step_row(run_id: str, step: StepState, position: int) -> Row:
    """The row of one visit of a step."""
    return (
        run_id,
        step.step,
        step.visit,
        position,
        step.status.value,
        None if step.output is None else encode(step.output),
        step.under,
        document_or_null(step.error),
        step.transition,
        step.ended,
        step.applied,
        step.failures,
        step.lost,
        step.deferrals,
        step.deferred,
        step.carried,
        document_or_null(step.manual),
        instant(step.since),
    )


def attempt_row(
    run_id: str, facts: RunStarted, attempt: AttemptState, lease_until: str | None
) -> Row:
    """The row of one attempt; what a claim looks for is repeated from its run."""
    return (
        run_id,
        attempt.step,
        attempt.visit,
        attempt.number,
        facts.fingerprint,
        attempt.queue,
        facts.priority,
        facts.concurrency_key,
        attempt.status.value,
        instant(attempt.scheduled_at),
        instant(attempt.visible_at),
        instant_or_null(attempt.wake_at),
        instant_or_null(attempt.claimed_at),
        instant_or_null(attempt.ended_at),
        attempt.claim_id,
        attempt.token_hash,
        attempt.owner,
        None if attempt.lease is None else microseconds(attempt.lease),
        lease_until,
        attempt.fence,
        document_or_null(attempt.error),
    )
