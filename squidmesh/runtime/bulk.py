"""Starts many runs: so many in one transaction, and two of those at a time."""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

import attrs
from returns.pipeline import is_successful

from squidmesh.domain.commands import StartRun
from squidmesh.domain.decide import decide
from squidmesh.domain.entries import NOBODY, Issuer
from squidmesh.domain.replacing import replace
from squidmesh.domain.starting import alike
from squidmesh.domain.state import RunState
from squidmesh.domain.values import Json
from squidmesh.errors import IdempotencyConflictError, RunExistsError, StoreConflictError
from squidmesh.ports.store import (
    Change,
    CommitFailure,
    KeyRecord,
    KeyTaken,
    RunChange,
    RunHeld,
    RunStore,
    RunTaken,
)
from squidmesh.runtime.asks import Settled
from squidmesh.runtime.changes import change_alike, run_change
from squidmesh.runtime.committer import LONGEST_HELD, LONGEST_HELD_PAUSE, Committer

CHUNK: Final = 1000
AT_ONCE: Final = 2
"""How many chunks are under way: one is decided while the store writes another."""


@attrs.frozen
class Start:
    """What tells one start from the others that it comes with."""

    run_id: str
    payload: Mapping[str, Json]
    key: KeyRecord | None = None

    @property
    def issuer(self) -> Issuer:
        """Who starts the run: nobody in particular, perhaps under a key."""
        return NOBODY if self.key is None else Issuer(idempotency_key=self.key.key)


async def start_in_chunks(
    committer: Committer, common: StartRun, starts: Sequence[Start]
) -> list[str]:
    """Start all of *starts*, each `CHUNK` of them together; return their run ids in order.

    A chunk that fails stops the others: those that are under way are seen through, and no further
    one is begun.

    Raises:
        IdempotencyConflictError: A key was used with other input.
        RunExistsError: A run of that id exists.
    """
    chunks = [starts[first : first + CHUNK] for first in range(0, len(starts), CHUNK)]
    ids: list[list[str]] = [[] for _ in chunks]
    problems: dict[int, Exception] = {}
    left = deque(enumerate(chunks))

    async def start_next() -> None:
        number, chunk = left.popleft()
        try:
            ids[number] = await start_together(committer, common, chunk)
        except Exception as problem:  # noqa: BLE001  the caller hears of the first one
            problems[number] = problem

    async def start_all() -> None:
        while left and not problems:
            await start_next()

    if left and _may_overlap(committer, starts):
        if committer.registry.to_store(common.fingerprint) is not None:
            # The first chunk brings the definition, and all others would wait for that.
            await start_next()
        async with asyncio.TaskGroup() as group:
            for _ in range(min(AT_ONCE, len(left))):
                group.create_task(start_all())
    else:
        await start_all()
    if problems:
        raise problems[min(problems)]
    return [run_id for chunk in ids for run_id in chunk]


def _may_overlap(committer: Committer, starts: Sequence[Start]) -> bool:
    """Whether chunks need not wait for each other: for a host's transaction, or for a key."""
    return not committer.inside and all(start.key is None for start in starts)


async def start_together(
    committer: Committer, common: StartRun, starts: Sequence[Start]
) -> list[str]:
    """Start all of *starts* or none; return their run ids in order.

    *common* says what they all share; its own run, payload and issuer do not count. A key that
    was used before, here or within the same call, stands for the run that it started.

    Raises:
        IdempotencyConflictError: A key was used with other input.
        RunExistsError: A run of that id exists.
    """
    ids = {start.run_id: start.run_id for start in starts}
    pending = _without_repetitions(starts, ids)
    waited = 0.0
    while pending:
        failure = await _commit(committer, common, pending)
        if failure is None:
            break
        if isinstance(failure, RunHeld) and waited < LONGEST_HELD:
            # Somebody has used one of the keys in a transaction that is still open.
            await committer.time.clock.sleep(LONGEST_HELD_PAUSE)
            waited += LONGEST_HELD_PAUSE
            continue
        taken = await _taken(committer.registry.store, pending, failure)
        pending = _without_taken(pending, taken, ids)
    return [ids[start.run_id] for start in starts]


async def _commit(
    committer: Committer, common: StartRun, starts: Sequence[Start]
) -> CommitFailure | None:
    changes, settled = _decided(committer, common, starts)
    answer = await committer.store.commit([Change(tuple(changes))])
    committer.time.observe(answer.at)
    (result,) = answer.results
    if not is_successful(result):
        return result.failure()
    committer.committed(settled)
    return None


def _decided(
    committer: Committer, common: StartRun, starts: Sequence[Start]
) -> tuple[list[RunChange], list[Settled]]:
    """What the starts come to: the rules are asked about the first, the others are like it."""
    now = committer.time.now()
    first = starts[0]
    definition = committer.registry.known(common.fingerprint)
    assert definition is not None
    blank = RunState(run_id=first.run_id)
    command = attrs.evolve(common, run_id=first.run_id, payload=first.payload, issuer=first.issuer)
    decided = decide(definition, blank, command, now).unwrap()
    change = run_change(blank, decided.state, ((command, decided.entries, first.key),), now)
    # The definition comes with the first of them: they are committed together or not at all.
    changes = [committer.complete(change, now)]
    settled = [Settled(decided.entries, blank, decided.state, now)]
    for start in starts[1:]:
        decision = alike(decided, start.run_id, start.payload, start.issuer)
        before = replace(blank, run_id=start.run_id)
        changes.append(change_alike(changes[0], decision, start.key))
        settled.append(Settled(decision.entries, before, decision.state, now))
    return changes, settled


def check_repetitions(starts: Sequence[Start]) -> None:
    """Refuse keys that stand twice among *starts* with different input.

    Raises:
        IdempotencyConflictError: One does.
    """
    _without_repetitions(starts, {})


def _without_repetitions(starts: Sequence[Start], ids: dict[str, str]) -> list[Start]:
    """The starts that are their key's first in this call."""
    first: dict[tuple[str, str], Start] = {}
    kept: list[Start] = []
    for start in starts:
        key = start.key
        if key is None:
            kept.append(start)
            continue
        earlier = first.setdefault((key.scope, key.key), start)
        if earlier is start:
            kept.append(start)
        elif earlier.key is not None and earlier.key.digest == key.digest:
            ids[start.run_id] = earlier.run_id
        else:
            raise IdempotencyConflictError(key.key)
    return kept


async def _taken(
    store: RunStore, starts: Sequence[Start], failure: CommitFailure
) -> dict[tuple[str, str], KeyRecord]:
    """The keys that were used before: where one was, all of them may have been."""
    if isinstance(failure, RunTaken):
        raise RunExistsError(failure.run_id)
    if not isinstance(failure, KeyTaken):
        raise StoreConflictError
    taken = {(failure.record.scope, failure.record.key): failure.record}
    for start in starts:
        key = start.key
        if key is not None and (key.scope, key.key) not in taken:
            record = await store.find_key(key.scope, key.key)
            if record is not None:
                taken[key.scope, key.key] = record
    return taken


def _without_taken(
    starts: Sequence[Start], taken: dict[tuple[str, str], KeyRecord], ids: dict[str, str]
) -> list[Start]:
    """The starts that remain when some turned out to have happened already."""
    kept: list[Start] = []
    for start in starts:
        key = start.key
        record = taken.get((key.scope, key.key)) if key is not None else None
        if key is None or record is None:
            kept.append(start)
        elif key.digest == record.digest:
            _point_to(ids, start.run_id, record.run_id)
        else:
            raise IdempotencyConflictError(key.key)
    return kept


def _point_to(ids: dict[str, str], run_id: str, existing: str) -> None:
    for asked, answered in ids.items():
        if answered == run_id:
            ids[asked] = existing
