"""What may be asked of a run, and the reasons for which it changes nothing.

Commands are imperative, refusals are true sentences. A refusal is an answer, not an accident:
`squidmesh.errors` turns each into the exception that the caller sees.
"""

import enum
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final, TypeAlias

import attrs

from squidmesh.domain.entries import NOBODY, AttemptId, Carried, ErrorRecord, Issuer, ManualKind
from squidmesh.domain.state import RunStatus
from squidmesh.domain.values import Json

MAX_DEFERRALS: Final = 1000
DEFAULT_MAX_DELIVERIES: Final = 5


@attrs.frozen(kw_only=True)
class ClaimOffer:
    """A claim that a worker is ready to take: fresh id, hash of a fresh token, owner, length."""

    claim_id: str
    token_hash: str
    owner: str
    lease: timedelta


@attrs.frozen(kw_only=True)
class Offers:
    """Claims that a worker would take at once on successors, in the queues that it serves.

    None as *queues* means every queue. What no successor takes goes, *further*, to steps of the
    run that were planned before and wait for their first claim. Steps that the worker is *lacking*
    a body for are left to others.
    """

    claims: tuple[ClaimOffer, ...] = ()
    queues: frozenset[str] | None = frozenset()
    further: bool = False
    lacking: frozenset[str] = frozenset()


NO_OFFERS: Final = Offers()


@attrs.frozen
class Succeeded:
    """The body returned *output*."""

    output: Json = None


@attrs.frozen(kw_only=True)
class Failed:
    """The body, or what surrounds it, failed; *retry_after* overrides the policy's delay."""

    error: ErrorRecord
    retry_after: timedelta | None = None


@attrs.frozen(kw_only=True)
class PutOff:
    """The body asked to be called again after *delay*, without using up an attempt."""

    delay: timedelta
    reason: str | None = None


Outcome: TypeAlias = Succeeded | Failed | PutOff


@attrs.frozen(kw_only=True)
class StartRun:
    """Begin a run; *from_step* and *carried* belong to a replay that starts half-way."""

    run_id: str
    workflow: str
    trigger: str
    fingerprint: str
    payload: Mapping[str, Json]
    version: str | None = None
    queue: str = "default"
    priority: int = 0
    concurrency_key: str | None = None
    tags: Mapping[str, str] = attrs.field(factory=dict[str, str])
    schedule: Mapping[str, Json] | None = None
    replayed_from: str | None = None
    from_step: str | None = None
    carried: tuple[Carried, ...] = ()
    issuer: Issuer = NOBODY


@attrs.frozen(kw_only=True)
class ClaimAttempt:
    """Take exactly this attempt."""

    attempt: AttemptId
    offer: ClaimOffer


@attrs.frozen(kw_only=True)
class ReportOutcome:
    """Say how a claimed attempt ended; *token_hash* proves who says so.

    *draw* is a number between -1 and 1 for the jitter of a retry.
    """

    attempt: AttemptId
    token_hash: str
    outcome: Outcome
    offers: Offers = NO_OFFERS
    draw: float = 0.0


@attrs.frozen(kw_only=True)
class LoseAttempt:
    """The lease of this claim ran out, as the store's clock says."""

    attempt: AttemptId
    claim_id: str
    max_deliveries: int = DEFAULT_MAX_DELIVERIES


@attrs.frozen(kw_only=True)
class CancelRun:
    """Stop as soon as nothing is claimed any more."""

    issuer: Issuer = NOBODY


@attrs.frozen(kw_only=True)
class ResumeRun:
    """End an open pause."""

    issuer: Issuer = NOBODY


@attrs.frozen(kw_only=True)
class ApproveRun:
    """Decide an open approval with yes."""

    issuer: Issuer


@attrs.frozen(kw_only=True)
class RejectRun:
    """Decide an open approval with no."""

    issuer: Issuer


@attrs.frozen(kw_only=True)
class ReplayRun:
    """Note on the source that *new_run_id* repeats it, if repeating is safe."""

    new_run_id: str
    allow_irreversible: bool = False
    from_step: str | None = None
    issuer: Issuer = NOBODY


Command: TypeAlias = (
    StartRun
    | ClaimAttempt
    | ReportOutcome
    | LoseAttempt
    | CancelRun
    | ResumeRun
    | ApproveRun
    | RejectRun
    | ReplayRun
)


class SkipReason(enum.Enum):
    """Why a delivery was not performed; every one of them is an answer, none an error."""

    UNKNOWN_RUN = "unknown_run"
    UNKNOWN_STEP = "unknown_step"
    UNKNOWN_WORKFLOW = "unknown_workflow"
    NOT_SCHEDULED = "not_scheduled"
    NOT_YET_VISIBLE = "not_yet_visible"
    ALREADY_CLAIMED = "already_claimed"
    STALE_ATTEMPT = "stale_attempt"
    RUN_OVER = "run_over"
    DUPLICATE_ACTIVATION = "duplicate_activation"


@attrs.frozen(kw_only=True)
class AlreadyStarted:
    """A run with this id exists."""

    run_id: str


@attrs.frozen(kw_only=True)
class KeyAlreadyUsed:
    """This idempotency key belongs to another command, or to other input."""

    key: str


@attrs.frozen(kw_only=True)
class MoveIsIllegal:
    """A run in the status *source* cannot go to *target*."""

    source: RunStatus
    target: RunStatus


@attrs.frozen(kw_only=True)
class NotPaused:
    """No manual step of the expected kind is open; *found* is the kind that is, if any."""

    status: RunStatus
    expected: ManualKind
    found: ManualKind | None


@attrs.frozen(kw_only=True)
class ClaimIsStale:
    """The claim is not, or no longer, the one that counts; *holder* is who holds the attempt."""

    attempt: AttemptId
    holder: str | None = None


@attrs.frozen(kw_only=True)
class NotClaimable:
    """The attempt cannot be claimed now."""

    attempt: AttemptId
    reason: SkipReason
    visible_at: datetime | None = None


@attrs.frozen(kw_only=True)
class ReplayIsUnsafe:
    """Completed steps that cannot be undone stand in the way."""

    steps: tuple[str, ...]


@attrs.frozen(kw_only=True)
class CannotStartThere:
    """The step to replay from is unknown, or the source never reached it."""

    step: str


@attrs.frozen(kw_only=True)
class LeadsElsewhere:
    """What came before *step* in the source does not in the definition of *workflow* today."""

    workflow: str
    step: str
    before: tuple[str, ...]


Refusal: TypeAlias = (
    AlreadyStarted
    | KeyAlreadyUsed
    | MoveIsIllegal
    | NotPaused
    | ClaimIsStale
    | NotClaimable
    | ReplayIsUnsafe
    | CannotStartThere
    | LeadsElsewhere
)
