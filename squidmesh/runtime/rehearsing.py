"""What a command would lead to now: decided as for a commit, of which there is none.

Nothing is kept of it either. The state comes from the store and not from what is known here, so
that a rehearsal tells of this moment, inside somebody's transaction as well.
"""

from collections.abc import Sequence

import attrs
from returns.pipeline import is_successful
from returns.result import Failure, Result, Success

from squidmesh.domain.commands import Refusal, StartRun
from squidmesh.domain.decide import decide
from squidmesh.domain.definition import WorkflowDefinition
from squidmesh.domain.entries import Entry
from squidmesh.domain.state import RunState
from squidmesh.errors import RunNotFoundError
from squidmesh.ports.store import Store
from squidmesh.runtime.asks import Ask
from squidmesh.runtime.batches import decide_start
from squidmesh.runtime.registry import Registry
from squidmesh.runtime.store_time import StoreTime


@attrs.frozen(kw_only=True)
class Started:
    """The run that would come with a command: its start, its definition, its first entries."""

    start: StartRun
    definition: WorkflowDefinition
    entries: Sequence[Entry]


@attrs.frozen(kw_only=True)
class Rehearsed:
    """What would be written about a run that stands as *before*; nothing for a known key."""

    before: RunState
    definition: WorkflowDefinition
    entries: Sequence[Entry]
    started: Started | None = None


async def rehearse(
    store: Store, registry: Registry, time: StoreTime, ask: Ask
) -> Result[Rehearsed, Refusal]:
    """Decide a control command, and the start that comes with it, on the store's state.

    Raises:
        RunNotFoundError: There is no such run.
    """
    loaded = await store.load([ask.run_id])
    time.observe(loaded.at)
    before = loaded.states.get(ask.run_id)
    if before is None:
        raise RunNotFoundError(ask.run_id)
    definition = await registry.definition(before.facts.fingerprint, ask.run_id)
    now = time.now()
    decided = decide(definition, before, ask.command, now)
    if not is_successful(decided):
        return Failure(decided.failure())
    found = Rehearsed(before=before, definition=definition, entries=decided.unwrap().entries)
    if ask.spawn is None or not found.entries:
        return Success(found)
    start = ask.spawn(before)
    begun = decide_start(registry, start, now)
    if not is_successful(begun):
        return Failure(begun.failure())
    today, decision = begun.unwrap()
    started = Started(start=start, definition=today, entries=decision.entries)
    return Success(attrs.evolve(found, started=started))
