"""What is known of a run: the fold of its entries, and nothing else.

The stores' rows are these very values, so rows and journal cannot disagree; how entries are folded
into them stands in `squidmesh.domain.evolution`. The revision is the number of entries folded; it
fences every commit about the run. Two fields belong to the store alone and take no part in
comparisons: `AttemptState.lease_until`, which heartbeats move, and `AttemptState.wake_at`.

The status of a run is never set by hand while it lives: it follows from how many of its steps
are scheduled, running, retrying or paused (`RunState.open`), so parallel steps cannot hide each
other's condition.
"""

import enum
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

import attrs

from squidmesh.domain.definition import COMPENSATION_PREFIX
from squidmesh.domain.entries import AttemptId, ErrorRecord, ManualStepPaused, RunStarted
from squidmesh.domain.values import Json


class RunStatus(enum.Enum):
    """Where a run stands."""

    PENDING = "pending"
    RUNNING = "running"
    RETRYING = "retrying"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    COMPENSATING = "compensating"
    FAILED = "failed"
    COMPLETED = "completed"
    CANCELLED = "cancelled"

    # Statuses are looked up on every step; enum's own hash is a Python call, this one is not.
    __hash__ = object.__hash__

    @property
    def is_final(self) -> bool:
        """Whether nothing changes any more."""
        return self in FINAL

    @property
    def once_claimed(self) -> "RunStatus":
        """What becomes of it when an attempt of the run is claimed."""
        return RunStatus.RUNNING if self in BEGUN_BY_CLAIM else self


FINAL: Final = frozenset({RunStatus.FAILED, RunStatus.COMPLETED, RunStatus.CANCELLED})
BEGUN_BY_CLAIM: Final = frozenset({RunStatus.PENDING, RunStatus.RETRYING})


class StepStatus(enum.Enum):
    """Where a step stands; waiting and skipped are only ever derived, no state holds them."""

    WAITING = "waiting"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    RETRYING = "retrying"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"

    # As above: steps are counted by it.
    __hash__ = object.__hash__


OPEN: Final = frozenset(
    {StepStatus.SCHEDULED, StepStatus.RUNNING, StepStatus.RETRYING, StepStatus.PAUSED}
)


# A name of its own, as asking an enum for a member takes a while.
_SCHEDULED: Final = StepStatus.SCHEDULED


class AttemptStatus(enum.Enum):
    """Where an attempt stands."""

    SCHEDULED = "scheduled"
    CLAIMED = "claimed"
    COMPLETED = "completed"
    FAILED = "failed"
    LOST = "lost"
    CANCELLED = "cancelled"


@attrs.frozen(kw_only=True, slots=False)
class AttemptState:
    """One try of a step.

    *fence* is the run's revision at the claim: it rises from holder to holder and can be handed
    to systems downstream. *token_hash* proves the claim; the token itself is never stored.
    """

    step: str
    visit: int
    number: int
    status: AttemptStatus
    queue: str
    scheduled_at: datetime
    visible_at: datetime
    claim_id: str | None = None
    token_hash: str | None = None
    owner: str | None = None
    lease: timedelta | None = None
    fence: int | None = None
    claimed_at: datetime | None = None
    ended_at: datetime | None = None
    error: ErrorRecord | None = None
    lease_until: datetime | None = attrs.field(default=None, eq=False)
    wake_at: datetime | None = attrs.field(default=None, eq=False)

    @property
    def id(self) -> AttemptId:
        """Which attempt of the run this is."""
        return AttemptId(self.step, self.number, self.visit)


@attrs.frozen(kw_only=True, slots=False)
class StepState:
    """One visit of a step that the run has reached.

    *ended* is the revision at which it completed, which orders compensation; *applied* the one at
    which its output became part of the context, which orders merging. *failures* counts attempts
    that failed, *lost* those whose lease ran out, *deferrals* how often a body asked to come back.
    *deferred* is the reason that the body gave for the last time, until somebody takes it up again.
    """

    step: str
    visit: int = 1
    status: StepStatus
    attempts: tuple[AttemptState, ...] = ()
    output: Json = None
    under: str | None = None
    error: ErrorRecord | None = None
    transition: int | None = None
    ended: int | None = None
    applied: int | None = None
    failures: int = 0
    lost: int = 0
    deferrals: int = 0
    deferred: str | None = None
    carried: bool = False
    manual: ManualStepPaused | None = None
    since: datetime

    @property
    def is_untried(self) -> bool:
        """Whether the step was planned to begin at once, and nobody has claimed it yet."""
        if self.status is not _SCHEDULED or len(self.attempts) != 1 or self.deferrals:
            return False
        first = self.attempts[0]
        return first.visible_at <= first.scheduled_at

    @property
    def current(self) -> AttemptState | None:
        """The latest attempt; None for a manual or carried step, which has none."""
        return self.attempts[-1] if self.attempts else None


@attrs.frozen(kw_only=True)
class Undoing:
    """A compensation under way: what is left to undo, in order, and what could not be undone."""

    remaining: tuple[str, ...]
    failures: tuple[ErrorRecord, ...] = ()


NOTHING_OPEN: Final[Mapping[StepStatus, int]] = {}


@attrs.frozen(kw_only=True, slots=False)
class RunState:
    """A run as its entries tell it; *started* holds what never changes about it.

    *open* counts the steps that are not at an end, by status; *receipts* maps the idempotency key
    of each command to the command's name. *unclaimed* names what was planned and waits for its
    first claim, in the order of claims, and perhaps steps for which that is over: it only saves
    looking through all steps, so it takes no part in comparisons.
    """

    run_id: str
    started: RunStarted | None = None
    revision: int = 0
    status: RunStatus = RunStatus.PENDING
    steps: Mapping[str, StepState] = attrs.field(factory=dict[str, StepState])
    context: Mapping[str, Json] = attrs.field(factory=dict[str, Json])
    open: Mapping[StepStatus, int] = NOTHING_OPEN
    unclaimed: tuple[str, ...] = attrs.field(default=(), eq=False)
    applied: int = 0
    begun: bool = False
    cancelling: bool = False
    error: ErrorRecord | None = None
    undoing: Undoing | None = None
    receipts: Mapping[str, str] = attrs.field(factory=dict[str, str])
    updated_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def facts(self) -> RunStarted:
        """What the run was started with; a run without entries has no facts to ask for."""
        assert self.started is not None
        return self.started

    @property
    def running(self) -> int:
        """How many steps are claimed at this moment."""
        return self.open.get(StepStatus.RUNNING, 0)

    @property
    def paused_step(self) -> StepState | None:
        """The manual step that waits for a person, if one does."""
        if not self.open.get(StepStatus.PAUSED):
            return None
        return next(step for step in self.steps.values() if step.status is StepStatus.PAUSED)


def compensation_of(step: str) -> str:
    """The name under which *step* is undone."""
    return f"{COMPENSATION_PREFIX}{step}"


def is_compensation(step: str) -> bool:
    """Whether this name stands for the undoing of a step."""
    return step.startswith(COMPENSATION_PREFIX)


def compensated_step(step: str) -> str:
    """The step that the visit named *step* undoes."""
    return step.removeprefix(COMPENSATION_PREFIX)
