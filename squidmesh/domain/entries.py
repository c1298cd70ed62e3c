"""The journal's vocabulary: one frozen class per fact, past tense, in closed unions.

Every entry belongs to one run; the run's id, the format and the actor stand once in the journal
row that holds the entries of a commit, so they are not repeated here. *at* is the store's time
at the commit. Fields follow the durable dispatch protocol. The module is long because the
vocabulary stands in one place: it is what every journal ever written has to be read by.
"""

import enum
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import NamedTuple, TypeAlias

import attrs

from squidmesh.domain.definition import RecoveryMarker
from squidmesh.domain.values import Json

NO_METADATA: Mapping[str, Json] = {}


class Thread(enum.Enum):
    """The strands of a run's journal."""

    RUN = "run"
    DISPATCH = "dispatch"
    INDEX = "index"


class FinalStatus(enum.Enum):
    """How a run may end."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class AfterFailure(enum.Enum):
    """What follows from an attempt that did not succeed.

    RETRY: another attempt is scheduled. ROUTE: the error route is taken. FAIL: the step has failed
    for good and so has the run. RECORD: the run is already ending, so nothing follows.
    """

    RETRY = "retry"
    ROUTE = "route"
    FAIL = "fail"
    RECORD = "record"


class ManualKind(enum.Enum):
    """What a manual step waits for."""

    PAUSE = "pause"
    APPROVAL = "approval"


class ManualAction(enum.Enum):
    """How a manual step was resolved."""

    RESUMED = "resumed"
    APPROVED = "approved"
    REJECTED = "rejected"


@attrs.frozen(kw_only=True)
class ErrorRecord:
    """A failure as it is stored: stable code, readable message, never a traceback.

    *step* is set where the record is the run's own error; *type* is an exception's class name.
    """

    code: str
    message: str
    type: str | None = None
    details: Mapping[str, Json] = NO_METADATA
    retryable: bool = False
    step: str | None = None


@attrs.frozen(kw_only=True)
class Issuer:
    """Who gave a command, and what they said about it."""

    actor: Json = None
    comment: str | None = None
    metadata: Mapping[str, Json] = NO_METADATA
    idempotency_key: str | None = None


NOBODY = Issuer()


class AttemptId(NamedTuple):
    """One attempt inside a run: which step, which visit of it, the how-manieth try.

    A tuple, because stores look attempts up by it: it is hashed and compared many times a step.
    """

    step: str
    number: int
    visit: int = 1


@attrs.frozen(kw_only=True)
class Carried:
    """A step whose output a replay brings along; *under* is its output key, None merges it.

    *undone* says that what the step did had been taken back by then.
    """

    step: str
    output: Json
    under: str | None = None
    undone: bool = False


# Without slots, so that what many runs have in common is copied at once (domain.replacing).
@attrs.frozen(kw_only=True, slots=False)
class RunStarted:
    """A run exists; *payload* is the checked input with its defaults."""

    at: datetime
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
    carried: tuple[Carried, ...] = ()
    issuer: Issuer = NOBODY


@attrs.frozen(kw_only=True)
class RunnablesPlanned:
    """These steps are the next ones."""

    at: datetime
    steps: tuple[str, ...]


@attrs.frozen(kw_only=True)
class RunnableApplied:
    """A step's result became part of the run.

    *under* is the context key of its output, None merges a mapping; *transition* is the route
    taken, by its number in the definition.
    """

    at: datetime
    step: str
    visit: int = 1
    under: str | None = None
    transition: int | None = None


@attrs.frozen(kw_only=True)
class StepRouted:
    """A failed step's error route was taken; None as *target* ends the run."""

    at: datetime
    step: str
    transition: int
    target: str | None
    recovery: RecoveryMarker | None = None


@attrs.frozen(kw_only=True)
class ManualStepPaused:
    """A manual step waits for a person; targets and output key are those of this moment."""

    at: datetime
    step: str
    kind: ManualKind
    on_ok: int | None = None
    on_error: int | None = None
    output: str | None = None
    visit: int = 1


@attrs.frozen(kw_only=True)
class ManualStepResolved:
    """A person decided; *output* is what the step leaves behind."""

    at: datetime
    step: str
    action: ManualAction
    transition: int | None
    output: Json
    issuer: Issuer
    visit: int = 1


@attrs.frozen(kw_only=True)
class CancelRequested:
    """Somebody wants the run to stop."""

    at: datetime
    issuer: Issuer


@attrs.frozen(kw_only=True)
class CompensationPlanned:
    """The run has failed for good; *steps* are undone in this order, one at a time."""

    at: datetime
    steps: tuple[str, ...]
    error: ErrorRecord


@attrs.frozen(kw_only=True)
class RunReplayed:
    """A new run was started from this one; allowed after the end, changes nothing here."""

    at: datetime
    new_run_id: str
    issuer: Issuer
    from_step: str | None = None


@attrs.frozen(kw_only=True)
class RunTerminal:
    """The run is over."""

    at: datetime
    status: FinalStatus
    error: ErrorRecord | None = None


@attrs.frozen(kw_only=True)
class AttemptScheduled:
    """An attempt may be claimed from *visible_at* on."""

    at: datetime
    step: str
    number: int
    visible_at: datetime
    queue: str = "default"
    visit: int = 1


@attrs.frozen(kw_only=True)
class AttemptClaimed:
    """A worker holds the attempt for *lease* from the commit on; only the token's hash is kept."""

    at: datetime
    step: str
    number: int
    claim_id: str
    token_hash: str
    owner: str
    lease: timedelta
    visit: int = 1


@attrs.frozen(kw_only=True)
class AttemptHeartbeat:
    """A lease was prolonged; vocabulary for engines that own their leases, stores write none."""

    at: datetime
    step: str
    number: int
    claim_id: str
    lease: timedelta
    visit: int = 1


@attrs.frozen(kw_only=True)
class AttemptDeferred:
    """The body asked to come back later: the same attempt is scheduled again."""

    at: datetime
    step: str
    number: int
    visible_at: datetime
    reason: str | None = None
    visit: int = 1


@attrs.frozen(kw_only=True)
class AttemptCompleted:
    """The body returned; *output* is what it returned."""

    at: datetime
    step: str
    number: int
    output: Json
    visit: int = 1


@attrs.frozen(kw_only=True)
class AttemptFailed:
    """The attempt failed, and what follows from that."""

    at: datetime
    step: str
    number: int
    error: ErrorRecord
    then: AfterFailure
    visit: int = 1


@attrs.frozen(kw_only=True)
class AttemptLost:
    """The lease ran out; *error* is set when the step is poisoned by it."""

    at: datetime
    step: str
    number: int
    then: AfterFailure
    error: ErrorRecord | None = None
    visit: int = 1


@attrs.frozen(kw_only=True)
class AttemptCancelled:
    """A scheduled attempt will not run any more."""

    at: datetime
    step: str
    number: int
    visit: int = 1


@attrs.frozen(kw_only=True)
class LiveWakeupEmitted:
    """The executor was told about the attempt."""

    at: datetime
    step: str
    number: int
    visit: int = 1


@attrs.frozen(kw_only=True)
class RunIndexed:
    """The run can be found by its workflow and queue."""

    at: datetime
    workflow: str
    queue: str = "default"


RunEntry: TypeAlias = (
    RunStarted
    | RunnablesPlanned
    | RunnableApplied
    | StepRouted
    | ManualStepPaused
    | ManualStepResolved
    | CancelRequested
    | CompensationPlanned
    | RunReplayed
    | RunTerminal
)

DispatchEntry: TypeAlias = (
    AttemptScheduled
    | AttemptClaimed
    | AttemptHeartbeat
    | AttemptDeferred
    | AttemptCompleted
    | AttemptFailed
    | AttemptLost
    | AttemptCancelled
    | LiveWakeupEmitted
)

IndexEntry: TypeAlias = RunIndexed

Entry: TypeAlias = RunEntry | DispatchEntry | IndexEntry
