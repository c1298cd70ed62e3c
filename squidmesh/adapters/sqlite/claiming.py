"""Claims: which attempts are due for a worker, in order, at a cost that no backlog changes.

The index of scheduled attempts is walked per queue and definition, from the highest priority
down. In one priority the attempts stand by the time at which they are due, so the first that is
not ends the walk through it, and the next begins below. What is read is what can be taken, and
one more attempt for each priority in which something waits.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice, product
from typing import Final, NamedTuple, TypeAlias

from squidmesh.adapters.sqlite.bulk import Row, Statement
from squidmesh.adapters.sqlite.writing import ENTRIES
from squidmesh.codec import encode
from squidmesh.domain.entries import AttemptClaimed, AttemptId
from squidmesh.domain.state import RunStatus
from squidmesh.ports.store import (
    ClaimedAttempt,
    ClaimRequest,
    Claims,
    ClaimTicket,
    ExpiredClaim,
    JournalRow,
)
from squidmesh.records import instant, microseconds, moment
from squidmesh.rows import entries_row

Pairs: TypeAlias = Sequence[tuple[str, str]]
"""Queues and definitions."""

_HIGHEST: Final = 2**63 - 1
_LOWEST: Final = -(2**63)
_MOST_EXPIRED: Final = 1000

# A run that is over or being cancelled has no scheduled attempts; it is asked nevertheless.
_WAITING: Final = """
select attempts.priority, attempts.visible_at, attempts.run_id, attempts.number,
    attempts.step, attempts.visit, attempts.definition, runs.revision, runs.status
from squidmesh_attempts as attempts indexed by squidmesh_attempts_due
cross join squidmesh_runs as runs
where attempts.status = 'scheduled'
    and attempts.queue = ?
    and attempts.definition = ?
    and attempts.priority <= ?{but}
    and runs.run_id = attempts.run_id
    and runs.status in ('pending', 'running', 'retrying', 'paused', 'compensating')
order by attempts.priority desc, attempts.visible_at, attempts.run_id, attempts.number,
    attempts.step
limit ?
"""

WAITING: Final = _WAITING.format(but="")
WAITING_BUT: Final = _WAITING.format(
    but="\n    and attempts.step not in (select value from json_each(?))"
)
"""Where the claim lacks steps of a definition: those are passed over."""

FIRST_QUEUE: Final = """
select min(queue)
from squidmesh_attempts indexed by squidmesh_attempts_due
where status = 'scheduled'
"""

NEXT_QUEUE: Final = """
select min(queue)
from squidmesh_attempts indexed by squidmesh_attempts_due
where status = 'scheduled' and queue > ?
"""

EXPIRED: Final = """
select run_id, step, visit, number, definition, claim_id
from squidmesh_attempts indexed by squidmesh_attempts_leased
where status = 'claimed' and lease_until <= ?
order by lease_until
limit ?
"""

_CLAIM_ATTEMPTS: Final = Statement(
    """
    with claimed (
        run_id, step, visit, number, claimed_at, claim_id, token_hash, owner, lease, lease_until,
        fence
    ) as (values ?)
    update squidmesh_attempts
    set status = 'claimed',
        wake_at = null,
        claimed_at = claimed.claimed_at,
        claim_id = claimed.claim_id,
        token_hash = claimed.token_hash,
        owner = claimed.owner,
        lease = claimed.lease,
        lease_until = claimed.lease_until,
        fence = claimed.fence
    from claimed
    where squidmesh_attempts.run_id = claimed.run_id
        and squidmesh_attempts.step = claimed.step
        and squidmesh_attempts.visit = claimed.visit
        and squidmesh_attempts.number = claimed.number
    """,
    width=11,
)

_RUN_STEPS: Final = Statement(
    """
    with claimed (run_id, step, visit) as (values ?)
    update squidmesh_step_runs
    set status = 'running'
    from claimed
    where squidmesh_step_runs.run_id = claimed.run_id
        and squidmesh_step_runs.step = claimed.step
        and squidmesh_step_runs.visit = claimed.visit
    """,
    width=3,
)

_RUN_RUNS: Final = Statement(
    """
    with claimed (run_id, revision, status, updated_at) as (values ?)
    update squidmesh_runs
    set revision = claimed.revision,
        status = claimed.status,
        updated_at = claimed.updated_at,
        begun = 1
    from claimed
    where squidmesh_runs.run_id = claimed.run_id
    """,
    width=4,
)


def claim(connection: sqlite3.Connection, request: ClaimRequest, now: datetime) -> Claims:
    """Claim what *request* asks for, and say what else a worker should know."""
    at = instant(now)
    pairs = _pairs(connection, request)
    due = _due(connection, pairs, request, at)
    tickets = zip(request.tickets, due, strict=False)
    before: dict[str, ClaimedAttempt] = {}
    claimed = [_claimed(row, ticket, request, now, before) for ticket, row in tickets]
    if claimed:
        _write(connection, claimed, at)
    expired = connection.execute(EXPIRED, (at, _MOST_EXPIRED)).fetchall()
    return Claims(
        at=now,
        claimed=tuple(claimed),
        expired=tuple(_expired(row) for row in expired),
        next_visible_at=_next_visible_at(connection, pairs, request, at),
    )


def _pairs(connection: sqlite3.Connection, request: ClaimRequest) -> Pairs:
    """The queues and definitions to walk through."""
    queues = _all_queues(connection) if request.queues is None else request.queues
    return list(product(dict.fromkeys(queues), dict.fromkeys(request.definitions)))


def _all_queues(connection: sqlite3.Connection) -> Iterator[str]:
    """The queues in which something is scheduled, found by leaping from one to the next."""
    (queue,) = connection.execute(FIRST_QUEUE).fetchone()
    while queue is not None:
        yield queue
        (queue,) = connection.execute(NEXT_QUEUE, (queue,)).fetchone()


def _due(
    connection: sqlite3.Connection, pairs: Pairs, request: ClaimRequest, now: str
) -> list[Row]:
    """The due attempts that come first, as many as there are tickets."""
    found: list[Row] = []
    most = len(request.tickets)
    for queue, definition in pairs:
        lane = _Lane(queue, definition, _lacking(request, definition))
        found += islice(_due_in(connection, lane, most, now), most)
    found.sort(key=_order)
    return found[:most]


def _order(row: Row) -> tuple[int, str, str, int, str]:
    priority, visible_at, run_id, number, step = row[:5]
    return (-priority, visible_at, run_id, number, step)


def _lacking(request: ClaimRequest, definition: str) -> tuple[str, ...]:
    """The steps of the definition that are not to be claimed."""
    return tuple(sorted(step for mark, step in request.lacking if mark == definition))


class _Lane(NamedTuple):
    """Where attempts stand by priority and time; *lacking* are the steps to be passed over."""

    queue: str
    definition: str
    lacking: tuple[str, ...]

    def waiting(self, connection: sqlite3.Connection, below: int, most: int) -> sqlite3.Cursor:
        """Look for *most* attempts of at most the priority *below*."""
        if not self.lacking:
            return connection.execute(WAITING, (self.queue, self.definition, below, most))
        passed_over = encode(list(self.lacking))
        values = (self.queue, self.definition, below, passed_over, most)
        return connection.execute(WAITING_BUT, values)


def _due_in(connection: sqlite3.Connection, lane: _Lane, most: int, now: str) -> Iterator[Row]:
    """The due attempts of one queue and definition in order, of which *most* are enough."""
    below = _HIGHEST
    while below >= _LOWEST:
        bottom = _LOWEST - 1
        for row in lane.waiting(connection, below, most):
            if row[1] > now:
                bottom = row[0] - 1
                break
            yield row
        below = bottom


def _next_visible_at(
    connection: sqlite3.Connection, pairs: Pairs, request: ClaimRequest, now: str
) -> datetime | None:
    """When the first attempt of those that are left is due; one that is due *now* is early enough.

    A backlog in which each run has a priority of its own must not be walked to its end.
    """
    earliest: list[str] = []
    for queue, definition in pairs:
        lane = _Lane(queue, definition, _lacking(request, definition))
        below = _HIGHEST
        while below >= _LOWEST:
            row = lane.waiting(connection, below, 1).fetchone()
            if row is None:
                break
            if row[1] <= now:
                return moment(row[1])
            earliest.append(row[1])
            below = row[0] - 1
    return moment(min(earliest)) if earliest else None


def _claimed(
    row: Row,
    ticket: ClaimTicket,
    request: ClaimRequest,
    now: datetime,
    before: dict[str, ClaimedAttempt],
) -> ClaimedAttempt:
    """The claim of one attempt; *before* is the latest one of each run, by run id."""
    _, _, run_id, number, step, visit, definition, revision, status = row
    found = RunStatus(status)
    if run_id in before:
        revision, found = before[run_id].revision, before[run_id].found.once_claimed
    entry = AttemptClaimed(
        at=now,
        step=step,
        number=number,
        claim_id=ticket.claim_id,
        token_hash=ticket.token_hash,
        owner=request.owner,
        lease=request.lease,
        visit=visit,
    )
    claimed = before[run_id] = ClaimedAttempt(
        run_id=run_id, fingerprint=definition, entry=entry, revision=revision + 1, found=found
    )
    return claimed


def _write(connection: sqlite3.Connection, claimed: list[ClaimedAttempt], at: str) -> None:
    """Write what `evolve` makes of the claims; the fence is the revision of each."""
    _CLAIM_ATTEMPTS.run(connection, [_attempt_row(claim, at) for claim in claimed])
    _RUN_STEPS.run(
        connection, [(claim.run_id, claim.entry.step, claim.entry.visit) for claim in claimed]
    )
    runs = {
        claim.run_id: (claim.run_id, claim.revision, claim.found.once_claimed.value, at)
        for claim in claimed
    }
    _RUN_RUNS.run(connection, list(runs.values()))
    ENTRIES.run(connection, [entries_row(claim.run_id, _journal_row(claim)) for claim in claimed])


def _journal_row(claim: ClaimedAttempt) -> JournalRow:
    entry = claim.entry
    return JournalRow(revision=claim.revision, at=entry.at, cause="claim", entries=(entry,))


def _attempt_row(claim: ClaimedAttempt, at: str) -> Row:
    entry = claim.entry
    return (
        claim.run_id,
        entry.step,
        entry.visit,
        entry.number,
        at,
        entry.claim_id,
        entry.token_hash,
        entry.owner,
        microseconds(entry.lease),
        instant(entry.at + entry.lease),
        claim.revision,
    )


def _expired(row: Row) -> ExpiredClaim:
    run_id, step, visit, number, definition, claim_id = row
    return ExpiredClaim(
        run_id=run_id,
        fingerprint=definition,
        attempt=AttemptId(step, number, visit),
        claim_id=claim_id,
    )
