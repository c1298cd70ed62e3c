"""What a storage technology promises: state, claims and history of runs in one transaction.

The numbered obligations are the contract; `squidmesh.testing.contracts` holds a test for each, in
the same order. All of them are judged by the store's own clock, whose time every answer carries.
The module is long because an adapter's author has to read all of it, and nothing else.
"""

from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol, TypeAlias

import attrs
from returns.result import Result

from squidmesh.domain.entries import AttemptClaimed, AttemptId, Entry
from squidmesh.domain.state import AttemptState, RunState, RunStatus, StepState
from squidmesh.domain.values import Json


@attrs.frozen(kw_only=True)
class JournalRow:
    """The entries of one commit about one run.

    *revision* is the run's revision behind the last of them, so the first is numbered
    ``revision - len(entries) + 1``; *cause* is the command's name, "claim" or "sweep".
    """

    revision: int
    at: datetime
    cause: str
    entries: tuple[Entry, ...]
    actor: Json = None


@attrs.frozen(kw_only=True)
class StillHeld:
    """Commit only if the attempt is claimed under this hash and its lease has not run out."""

    attempt: AttemptId
    token_hash: str


@attrs.frozen(kw_only=True)
class StillDue:
    """Commit only if the attempt is scheduled and already visible."""

    attempt: AttemptId


@attrs.frozen(kw_only=True)
class LeaseOver:
    """Commit only if the attempt is claimed under this id and its lease has run out."""

    attempt: AttemptId
    claim_id: str


Guard: TypeAlias = StillHeld | StillDue | LeaseOver


@attrs.frozen(kw_only=True)
class KeyRecord:
    """An idempotency key in its scope, and what it was used for.

    *digest* identifies the input that came with it; two uses agree if command and digest do.
    """

    scope: str
    key: str
    run_id: str
    command: str
    digest: str


@attrs.frozen(kw_only=True)
class StoredDefinition:
    """A definition as runs were started under it; *document* is JSON text."""

    fingerprint: str
    workflow: str
    version: str | None
    document: str


@attrs.frozen(kw_only=True)
class RunChange:
    """What a commit does to one run: the rows that differ, and the entries that say why.

    *expected* is the revision that must still stand, 0 for a run that must not exist yet; *state*
    is the run afterwards, of which only *steps* and *attempts* are new or changed.
    """

    run_id: str
    expected: int
    state: RunState
    current_step: str | None
    steps: tuple[StepState, ...]
    attempts: tuple[AttemptState, ...]
    journal: tuple[JournalRow, ...]
    guards: tuple[Guard, ...] = ()
    keys: tuple[KeyRecord, ...] = ()
    definition: StoredDefinition | None = None


@attrs.frozen
class Change:
    """Changes of one or several runs that happen together or not at all."""

    runs: tuple[RunChange, ...]


@attrs.frozen(kw_only=True)
class RevisionConflict:
    """Somebody committed first; *unseen* are the entries behind the expected revision."""

    run_id: str
    unseen: tuple[Entry, ...]


@attrs.frozen(kw_only=True)
class GuardFailed:
    """A guard does not hold; *holder* owns the claim on the latest attempt, if there is one."""

    run_id: str
    guard: Guard
    holder: str | None


@attrs.frozen(kw_only=True)
class KeyTaken:
    """The idempotency key exists already: *record* is the stored one."""

    record: KeyRecord


@attrs.frozen(kw_only=True)
class RunTaken:
    """A run that must not exist yet does."""

    run_id: str


@attrs.frozen(kw_only=True)
class RunHeld:
    """A transaction of somebody else holds the run at this moment; nothing is known to be wrong."""

    run_id: str


CommitFailure: TypeAlias = RevisionConflict | GuardFailed | KeyTaken | RunTaken | RunHeld


@attrs.frozen(kw_only=True)
class Committed:
    """One result per change, in order; *at* is the store's time at the commit."""

    at: datetime
    results: tuple[Result[None, CommitFailure], ...]


@attrs.frozen(kw_only=True)
class ClaimTicket:
    """A fresh claim id and the hash of a fresh token, good for one attempt."""

    claim_id: str
    token_hash: str


@attrs.frozen(kw_only=True)
class ClaimRequest:
    """A worker's wish: at most one attempt per ticket, of these queues and definitions.

    None as *queues* means every queue. *lacking* names the steps, each behind the fingerprint of
    its definition, that the worker has no body for; there are none of them as a rule.
    """

    owner: str
    queues: tuple[str, ...] | None
    definitions: tuple[str, ...]
    tickets: tuple[ClaimTicket, ...]
    lease: timedelta
    lacking: frozenset[tuple[str, str]] = frozenset()


@attrs.frozen(kw_only=True)
class ClaimedAttempt:
    """An attempt that the caller holds now; *revision* is the run's behind *entry*.

    *found* is the status of the run before the entry.
    """

    run_id: str
    fingerprint: str
    entry: AttemptClaimed
    revision: int
    found: RunStatus


@attrs.frozen(kw_only=True)
class ExpiredClaim:
    """A claim whose lease has run out; nobody has said yet what follows from it."""

    run_id: str
    fingerprint: str
    attempt: AttemptId
    claim_id: str


@attrs.frozen(kw_only=True)
class Claims:
    """What a claim brought; *next_visible_at* is when the next attempt for this worker is due."""

    at: datetime
    claimed: tuple[ClaimedAttempt, ...] = ()
    expired: tuple[ExpiredClaim, ...] = ()
    next_visible_at: datetime | None = None


@attrs.frozen(kw_only=True)
class Loaded:
    """The states of the runs that exist, by run id."""

    at: datetime
    states: Mapping[str, RunState]


@attrs.frozen(kw_only=True)
class RunQuery:
    """Which runs to list, newest first; *behind* is the (started_at, id) of the last one seen.

    *tags* must all be carried by a run; time bounds are inclusive below and exclusive above.
    """

    workflow: str | None = None
    statuses: frozenset[RunStatus] | None = None
    tags: Mapping[str, str] = attrs.field(factory=dict[str, str])
    started_after: datetime | None = None
    started_before: datetime | None = None
    limit: int = 50
    behind: tuple[datetime, str] | None = None


@attrs.frozen(kw_only=True)
class RunSummary:
    """A run as a list shows it: *state* has neither steps nor context."""

    state: RunState
    current_step: str | None


@attrs.frozen(kw_only=True)
class HeldClaim:
    """A claim that its worker wants to keep for another *lease*."""

    run_id: str
    attempt: AttemptId
    claim_id: str
    token_hash: str
    lease: timedelta


@attrs.frozen(kw_only=True)
class BeatReport:
    """Which claims (by id) are not held any more, and which runs are being cancelled."""

    at: datetime
    lost: frozenset[str]
    cancelling: frozenset[str]


class Heartbeats(Protocol):
    """A way to prolong leases from one thread that the event loop cannot silence.

    Made by `Store.heartbeats`, used and closed in one thread only.
    """

    @abstractmethod
    def beat(self, claims: Sequence[HeldClaim]) -> BeatReport:
        """Prolong each claim's lease.

        1. A held claim's ``lease_until`` becomes the store's time plus the lease, never earlier
           than it was; no entry is written and no revision moves.
        2. A claim that is over, superseded or past its lease is reported lost, and stays so.
        3. Runs that are cancelling are named, so that bodies can be told.
        """

    @abstractmethod
    def close(self) -> None:
        """Give back what the heartbeats used."""


class Store(Protocol):
    """Commits, claims and the states of runs."""

    @abstractmethod
    async def commit(self, changes: Sequence[Change]) -> Committed:
        """Commit independent *changes* together; one result for each, in order.

        1. Of two changes with the same expected revision exactly one is committed; the other is a
           RevisionConflict that carries the entries it has not seen, and writes nothing.
        2. A change writes all its rows, entries, keys and its definition, or nothing of them; one
           that names several runs is all or nothing across them.
        3. A failed change does not keep the others of its batch from being committed.
        4. Guards are judged by the store's clock inside the commit, before the revision; a failed
           one is a GuardFailed that names the holder.
        5. An expected revision of 0 on a run that exists is RunTaken.
        6. A key that exists in its scope is KeyTaken with the stored record; it is looked at before
           the run's existence.
        7. A newly claimed attempt's ``lease_until`` is the store's time plus its lease.
        8. Changes of one batch see those before them: two changes of one run may follow another.
        9. A run whose row an open transaction of somebody else holds is not waited for: its change
           is RunHeld, and the others are committed.
        """

    @abstractmethod
    async def claim(self, request: ClaimRequest) -> Claims:
        """Claim due attempts for a worker.

        1. Only attempts that are scheduled, visible by the store's clock, in the request's queues,
           of its definitions and of no step that it lacks are claimed, at most one per ticket.
        2. Of racing claims at most one gets an attempt.
        3. Order: higher priority first, then earlier ``visible_at``, run id, number, step.
        4. Each claim appends an AttemptClaimed entry, raises the run's revision by one, and takes
           attempt, step and run to claimed and running as `evolve` says, in one transaction; it
           tells the status in which it found the run, one claim after the other.
        5. Claims whose lease has run out are returned, untouched, whatever the request can run.
        6. ``next_visible_at`` is the earliest time at which an attempt that it may claim is due,
           not behind ``at`` if another one is due already; None if there is none.
        """

    @abstractmethod
    async def load(self, run_ids: Collection[str]) -> Loaded:
        """Return the whole state of each run that exists.

        1. The state equals what its journal rebuilds; ``lease_until`` is the stored one.
        """

    @abstractmethod
    def heartbeats(self) -> Heartbeats:
        """Open a way to prolong leases, for use in the calling thread."""

    @abstractmethod
    async def close(self) -> None:
        """Give back connections and threads; a closed store raises StoreUnavailableError."""


class RunStore(Protocol):
    """Questions about runs."""

    @abstractmethod
    async def list_runs(self, query: RunQuery) -> tuple[RunSummary, ...]:
        """Return runs newest first, by start and id.

        1. Every filter that is given holds for every run returned, and every run for which all
           hold is returned, up to the limit.
        2. Paging by *behind* shows each run once, also when runs start in between.
        """

    @abstractmethod
    async def find_key(self, scope: str, key: str) -> KeyRecord | None:
        """Return the record of an idempotency key, if it was used."""

    @abstractmethod
    async def definitions(self, workflows: Collection[str] | None = None) -> tuple[str, ...]:
        """Return the fingerprints of the stored definitions of *workflows*, or of all."""

    @abstractmethod
    async def definition(self, fingerprint: str) -> StoredDefinition | None:
        """Return a stored definition, byte for byte as it was committed."""


class AttemptStore(Protocol):
    """Questions about attempts, for those who wake others up."""

    @abstractmethod
    async def owed_wakeups(
        self, *, due_before: datetime | None, limit: int
    ) -> tuple[tuple[str, AttemptState], ...]:
        """Return (run id, attempt) of scheduled attempts that somebody should be told about.

        1. With *due_before*: every attempt visible at that time, oldest first, whatever its
           ``wake_at``. Without: those whose ``wake_at`` has come by the store's clock.
        """

    @abstractmethod
    async def woken(self, wakeups: Sequence[tuple[str, AttemptId, datetime]]) -> None:
        """Note when the next wake-up of each attempt is owed, if it is still scheduled."""


class Presence(Protocol):
    """Who is there, and who may do what only one should do at a time."""

    @abstractmethod
    async def take_lease(self, name: str, owner: str, length: timedelta) -> bool:
        """Take or renew a named lease.

        1. While it is held by another owner and not over, the answer is False.
        2. Of racing owners exactly one gets a free lease.
        """

    @abstractmethod
    async def worker_seen(
        self, owner: str, queues: Sequence[str], definitions: Mapping[str, Collection[str]]
    ) -> None:
        """Note that a worker is alive, and for each definition which steps it cannot run."""

    @abstractmethod
    async def workers_for(
        self, fingerprint: str, *, within: timedelta
    ) -> Mapping[str, frozenset[str]]:
        """Return the owners that were seen *within* the time and know the definition.

        With each of them stand the steps of it that it cannot run.
        """


Heard: TypeAlias = Callable[[Collection[str]], None]
"""What is called with the queues of a hint; none named means that it may be any."""


class Hints(Protocol):
    """A way to tell other processes at once what they would find with their next poll.

    A hint may be lost, doubled or late, and changes nothing: the rows say what is due. *source*
    is whoever tells or listens, a mesh for instance.
    """

    @property
    @abstractmethod
    def hears(self) -> bool:
        """Whether a hint of another process can arrive here at all; the answer stays the same."""

    @abstractmethod
    async def hint(self, queues: Collection[str], *, source: str) -> None:
        """Tell everybody who listens that attempts in *queues* became due.

        1. Where hints can arrive, who listens hears of at least these queues.
        2. However many queues there are and whatever they are called, the hint is told.
        3. Where hints cannot arrive this does nothing.
        """

    @abstractmethod
    async def listen(self, heard: Heard, *, source: str) -> None:
        """Call *heard* for each hint, until cancelled.

        1. Hints of the same *source* are left out, also when they come over another connection.
        2. Once it listens, and whenever hints may have been missed, *heard* is called for any
           queue.
        3. Where hints cannot arrive it returns at once.
        """


class Schema(Protocol):
    """The tables, their version, and the way there."""

    @abstractmethod
    async def migrate(self) -> int:
        """Create or upgrade the tables; repeating it changes nothing. Return the version."""

    @abstractmethod
    def migration_sql(self) -> str:
        """Return the statements that `migrate` would run on an empty database."""
