"""Starts many runs in one transaction."""

from collections.abc import Sequence

from returns.pipeline import is_successful

from squidmesh.domain.commands import StartRun
from squidmesh.domain.decide import decide
from squidmesh.domain.state import RunState
from squidmesh.errors import IdempotencyConflictError, RunExistsError, StoreConflictError
from squidmesh.ports.store import Change, CommitFailure, KeyRecord, KeyTaken, RunStore, RunTaken
from squidmesh.runtime.asks import Settled
from squidmesh.runtime.changes import run_change
from squidmesh.runtime.committer import Committer

Start = tuple[StartRun, KeyRecord | None]


async def start_together(committer: Committer, starts: Sequence[Start]) -> list[str]:
    """Start all of *starts* or none; return their run ids in order.

    A key that was used before, here or within the same call, stands for the run that it started.

    Raises:
        IdempotencyConflictError: A key was used with other input.
        RunExistsError: A run of that id exists.
    """
    ids = {start.run_id: start.run_id for start, _ in starts}
    pending = _without_repetitions(starts, ids)
    while pending:
        failure = await _commit(committer, pending)
        if failure is None:
            break
        taken = await _taken(committer.registry.store, pending, failure)
        pending = _without_taken(pending, taken, ids)
    return [ids[start.run_id] for start, _ in starts]


async def _commit(committer: Committer, starts: Sequence[Start]) -> CommitFailure | None:
    now = committer.time.now()
    settled: list[Settled] = []
    changes = []
    for start, key in starts:
        definition = committer.registry.known(start.fingerprint)
        assert definition is not None
        blank = RunState(run_id=start.run_id)
        decision = decide(definition, blank, start, now).unwrap()
        change = run_change(blank, decision.state, ((start, decision.entries, key),), now)
        changes.append(committer.complete(change, now))
        settled.append(Settled(decision.entries, blank, decision.state, now))
    answer = await committer.store.commit([Change(tuple(changes))])
    committer.time.observe(answer.at)
    (result,) = answer.results
    if not is_successful(result):
        return result.failure()
    committer.committed(settled)
    return None


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
    for start, key in starts:
        if key is None:
            kept.append((start, key))
            continue
        earlier, used = first.setdefault((key.scope, key.key), (start, key))
        if earlier is start:
            kept.append((start, key))
        elif used is not None and used.digest == key.digest:
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
    for _, key in starts:
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
    for start, key in starts:
        record = taken.get((key.scope, key.key)) if key is not None else None
        if key is None or record is None:
            kept.append((start, key))
        elif key.digest == record.digest:
            _point_to(ids, start.run_id, record.run_id)
        else:
            raise IdempotencyConflictError(key.key)
    return kept


def _point_to(ids: dict[str, str], run_id: str, existing: str) -> None:
    for asked, answered in ids.items():
        if answered == run_id:
            ids[asked] = existing
