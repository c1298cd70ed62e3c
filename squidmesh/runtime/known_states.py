"""The newest states of runs that this process knows, so that it need not ask for each step.

What is kept here may have been overtaken by others at any time. Commits are fenced by the revision,
so a stale state costs a conflict and never a wrong row; whatever is not fenced asks the store.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import attrs

from squidmesh.domain.entries import Entry
from squidmesh.domain.evolution import evolve
from squidmesh.domain.state import RunState
from squidmesh.errors import JournalCorruptError
from squidmesh.logs import logger
from squidmesh.ports.store import ClaimedAttempt, Store
from squidmesh.runtime.store_time import StoreTime

MOST_STATES: Final = 4096

log = logger("worker")


@attrs.define(eq=False)
class KnownStates:
    """States by run id, the least recently used dropped first; runs that are over are not kept."""

    store: Store
    time: StoreTime
    _states: "OrderedDict[str, RunState]" = attrs.field(factory=OrderedDict[str, RunState])

    def get(self, run_id: str) -> RunState | None:
        """Return the newest state known here."""
        return self._states.get(run_id)

    async def load(self, run_ids: Iterable[str]) -> None:
        """Ask the store for these runs, whatever is known of them."""
        wanted = list(run_ids)
        if wanted:
            loaded = await self.store.load(wanted)
            self.time.observe(loaded.at)
            self._states.update(loaded.states)
            while len(self._states) > MOST_STATES:
                self._states.popitem(last=False)

    async def after(self, claims: Sequence[ClaimedAttempt]) -> dict[str, RunState]:
        """Return, by run id, states that know these claims; one load serves all that are new.

        Runs that cannot be read are left out: nobody can work on them.
        """
        found: dict[str, RunState] = {}
        missing: list[str] = []
        for claim in claims:
            known = found.get(claim.run_id) or self._states.get(claim.run_id)
            if known is not None and known.revision == claim.revision - 1:
                found[claim.run_id] = evolve(known, claim.entry)
            else:
                missing.append(claim.run_id)
        if missing:
            found.update(await self.readable(missing))
        for state in found.values():
            self.remember(state)
        return found

    async def readable(self, run_ids: Sequence[str]) -> Mapping[str, RunState]:
        """Load what can be read; a damaged run must not keep the others from being served."""
        try:
            loaded = await self.store.load(run_ids)
        except JournalCorruptError as problem:
            if len(run_ids) == 1:
                log.warning("run.unreadable", run_id=run_ids[0], reason=str(problem))
                return {}
            each = [await self.readable([run_id]) for run_id in run_ids]
            return {run_id: state for states in each for run_id, state in states.items()}
        self.time.observe(loaded.at)
        return loaded.states

    def catch_up(self, base: RunState, unseen: Sequence[Entry]) -> None:
        """Learn what others committed behind *base*; without their entries, ask again later."""
        self.forget(base.run_id)
        state = base
        for entry in unseen:
            state = evolve(state, entry)
        if unseen:
            self.remember(state)

    def remember(self, state: RunState) -> None:
        """Keep *state* if it is the newest one known of its run, and the run is not over."""
        known = self._states.get(state.run_id)
        if known is not None and known.revision >= state.revision:
            return
        if state.status.is_final:
            self._states.pop(state.run_id, None)
            return
        self._states[state.run_id] = state
        self._states.move_to_end(state.run_id)
        if len(self._states) > MOST_STATES:
            self._states.popitem(last=False)

    def forget(self, run_id: str) -> None:
        """Drop what is known of a run, so that it is loaded again."""
        self._states.pop(run_id, None)
