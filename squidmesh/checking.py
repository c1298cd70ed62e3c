"""Whether code that is not deployed yet can carry on the runs that are in flight.

Everything is asked of the store and nothing is written: no claim, no sign of life, no definition.
Runs that are over cost nothing, and the whole state of a run is read only where its version and
this code do not fit together.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

import attrs

from squidmesh import codec
from squidmesh.domain.compatibility import (
    Misfit,
    Signatures,
    demands,
    is_in_payload,
    would_fail,
    would_wait,
)
from squidmesh.domain.definition import Parameter, WorkflowDefinition
from squidmesh.domain.obstacles import (
    UNKNOWN_WORKFLOW,
    UNREADABLE_DEFINITION,
    UNREADABLE_RUN,
    Obstacle,
    obstacle_of,
)
from squidmesh.domain.serial import definition_from_dict
from squidmesh.domain.state import RunState, RunStatus
from squidmesh.errors import JournalCorruptError
from squidmesh.ports.store import RunQuery, RunSummary
from squidmesh.runtime.engine import Engine
from squidmesh.starting import check_name

MOST_LISTED: Final = 100
"""How many blocked runs of a version a report names."""

PAGE: Final = 500
LOADED_AT_ONCE: Final = 50
IN_FLIGHT: Final = frozenset(status for status in RunStatus if not status.is_final)


@attrs.frozen(kw_only=True)
class BlockedRun:
    """A run that the code cannot carry to its end, with everything that is in its way."""

    run_id: str
    status: str
    current_step: str | None
    obstacles: tuple[Obstacle, ...]


@attrs.frozen(kw_only=True)
class VersionCheck:
    """The runs in flight of one version of a workflow: its label, and its definition's fingerprint.

    *registered* says whether today's code starts runs under this very definition; those of another
    one go on under their own. *paused* runs wait for a person. *blocked* counts the runs that are
    not safe, and *listed* names the hundred newest of them at the most; *obstacles* counts the
    runs that meet each.
    """

    workflow: str
    version: str | None
    fingerprint: str
    registered: bool
    runs: int
    safe: int
    paused: int
    blocked: int
    listed: tuple[BlockedRun, ...]
    obstacles: Mapping[Obstacle, int]


@attrs.frozen(kw_only=True)
class CheckReport:
    """What became of comparing the code with the runs in flight, by workflow and version."""

    versions: tuple[VersionCheck, ...]

    @property
    def ok(self) -> bool:
        """Whether a fitting function was found for all that is ahead; types are not compared."""
        return self.blocked == 0

    @property
    def runs(self) -> int:
        """How many runs are in flight."""
        return sum(version.runs for version in self.versions)

    @property
    def blocked(self) -> int:
        """How many of them are blocked."""
        return sum(version.blocked for version in self.versions)


async def check_runs(engine: Engine, workflow: str | None) -> CheckReport:
    """Compare the registered workflows with the runs that are not over."""
    name = None if workflow is None else check_name("workflow", workflow)
    check = _Check(engine)
    async for page in _pages(engine, name):
        await check.page(page)
    return check.report()


async def _pages(engine: Engine, workflow: str | None) -> AsyncIterator[Sequence[RunSummary]]:
    """The runs in flight, newest first; those that start meanwhile are left out."""
    query = RunQuery(workflow=workflow, statuses=IN_FLIGHT, limit=PAGE)
    while page := await engine.store.list_runs(query):
        yield page
        last = page[-1].state
        query = attrs.evolve(query, behind=(last.facts.at, last.run_id))


@attrs.frozen(kw_only=True)
class _Fit:
    """How a stored definition and the code fit; *signatures* are those of the bodies found.

    *wanted* are parameters that a run may lack: no body asked for them when the definition was
    stored, or its payload may be of another release. Without a *definition* nothing fits at all,
    for the reason that is *general*.
    """

    definition: WorkflowDefinition | None = None
    general: Obstacle | None = None
    signatures: Signatures = attrs.field(factory=dict[str, tuple[Parameter, ...]])
    wanted: Signatures = attrs.field(factory=dict[str, tuple[Parameter, ...]])
    misfits: tuple[Misfit, ...] = ()

    def is_plain(self, state: RunState) -> bool:
        """Whether it is plain without more of the run's state that nothing is in its way."""
        if self.definition is None or self.misfits:
            return False
        return is_in_payload(self.definition, state, self.wanted)

    def obstacles(self, state: RunState) -> tuple[Obstacle, ...]:
        """What is in the way of a run whose whole state is known."""
        if self.definition is None:
            # One that is being cancelled begins nothing any more, so it needs no code.
            ends = state.cancelling and self.general is UNKNOWN_WORKFLOW
            return () if self.general is None or ends else (self.general,)
        waits = would_wait(self.definition, state, self.misfits)
        left_alone = {misfit.visit for misfit in waits}
        fails = would_fail(self.definition, self.signatures, state, self.wanted)
        found = [
            *(obstacle_of(misfit, "waits") for misfit in waits),
            *(obstacle_of(misfit, "fails") for misfit in fails if misfit.visit not in left_alone),
        ]
        return tuple(sorted(found, key=lambda one: one.phase == "compensation"))


@attrs.define(kw_only=True)
class _Tally:
    """A version's runs, as far as they were counted."""

    workflow: str
    version: str | None
    fingerprint: str
    runs: int = 0
    paused: int = 0
    blocked: int = 0
    listed: list[BlockedRun] = attrs.field(factory=list[BlockedRun])
    obstacles: dict[Obstacle, int] = attrs.field(factory=dict[Obstacle, int])

    def block(self, run: BlockedRun) -> None:
        self.blocked += 1
        if len(self.listed) < MOST_LISTED:
            self.listed.append(run)
        for obstacle in run.obstacles:
            self.obstacles[obstacle] = self.obstacles.get(obstacle, 0) + 1

    def checked(self, *, registered: bool) -> VersionCheck:
        return VersionCheck(
            workflow=self.workflow,
            version=self.version,
            fingerprint=self.fingerprint,
            registered=registered,
            runs=self.runs,
            safe=self.runs - self.blocked,
            paused=self.paused,
            blocked=self.blocked,
            listed=tuple(self.listed),
            obstacles=dict(sorted(self.obstacles.items(), key=_weight)),
        )


@attrs.define
class _Check:
    """A check under way: what is known of each definition, and the tallies."""

    engine: Engine
    _fits: dict[str, _Fit] = attrs.field(factory=dict[str, _Fit])
    _tallies: dict[tuple[str, str, str | None], _Tally] = attrs.field(
        factory=dict[tuple[str, str, str | None], _Tally]
    )

    async def page(self, page: Sequence[RunSummary]) -> None:
        """Count a page of runs, and look closer at those that may be blocked."""
        doubtful: list[RunSummary] = []
        for summary in page:
            state = summary.state
            tally = self._tally(state)
            tally.runs += 1
            tally.paused += state.status is RunStatus.PAUSED
            fit = await self._fit(state)
            if fit.definition is None:
                self._judge(summary, state)
            elif not fit.is_plain(state):
                doubtful.append(summary)
        for start in range(0, len(doubtful), LOADED_AT_ONCE):
            await self._look(doubtful[start : start + LOADED_AT_ONCE])

    async def _look(self, summaries: Sequence[RunSummary]) -> None:
        """Load runs and judge them; one that cannot be read must not hide how the others stand."""
        try:
            loaded = await self.engine.store.load([one.state.run_id for one in summaries])
        except JournalCorruptError:
            if len(summaries) == 1:
                self._block(summaries[0], (UNREADABLE_RUN,))
                return
            for summary in summaries:
                await self._look([summary])
            return
        for summary in summaries:
            state = loaded.states.get(summary.state.run_id)
            if state is not None:
                self._judge(summary, state)

    def _judge(self, summary: RunSummary, state: RunState) -> None:
        fit = self._fits[state.facts.fingerprint]
        obstacles = fit.obstacles(state)
        if obstacles:
            self._block(summary, obstacles)

    def _block(self, summary: RunSummary, obstacles: tuple[Obstacle, ...]) -> None:
        state = summary.state
        self._tally(state).block(
            BlockedRun(
                run_id=state.run_id,
                status=state.status.value,
                current_step=summary.current_step,
                obstacles=obstacles,
            )
        )

    def _tally(self, state: RunState) -> _Tally:
        facts = state.facts
        key = (facts.workflow, facts.fingerprint, facts.version)
        if key not in self._tallies:
            self._tallies[key] = _Tally(
                workflow=facts.workflow, version=facts.version, fingerprint=facts.fingerprint
            )
        return self._tallies[key]

    async def _fit(self, state: RunState) -> _Fit:
        mark = state.facts.fingerprint
        if mark not in self._fits:
            self._fits[mark] = await self._compared(state)
        return self._fits[mark]

    async def _compared(self, state: RunState) -> _Fit:
        """Compare the definition of a run with the code."""
        registry, mark = self.engine.registry, state.facts.fingerprint
        if state.facts.workflow not in registry.by_name:
            return _Fit(general=UNKNOWN_WORKFLOW)
        try:
            definition = await registry.definition(mark, state.run_id)
        except JournalCorruptError:
            return _Fit(general=UNREADABLE_DEFINITION)
        signatures = registry.signatures(mark)
        before = definition
        if mark == registry.by_name[state.facts.workflow].fingerprint:
            # What a body asks for is no part of the fingerprint, and may have been less once.
            before = await self._stored(mark) or definition
        return _Fit(
            definition=definition,
            signatures=signatures,
            wanted=demands(before, signatures),
            misfits=registry.misfits(mark),
        )

    async def _stored(self, mark: str) -> WorkflowDefinition | None:
        stored = await self.engine.store.definition(mark)
        if stored is None:
            return None
        try:
            return definition_from_dict(codec.decode(stored.document)).value_or(None)
        except codec.DecodeProblem:
            return None

    def report(self) -> CheckReport:
        """Everything that was counted, by workflow; the registered version of each comes first."""
        known = self.engine.registry.by_name.values()
        today = {workflow.fingerprint for workflow in known}
        checked = [
            tally.checked(registered=tally.fingerprint in today) for tally in self._tallies.values()
        ]
        checked.sort(key=_place)
        return CheckReport(versions=tuple(checked))


def _weight(counted: tuple[Obstacle, int]) -> tuple[bool, int]:
    """What stops runs goes before what stops only their undoing, and what stops many first."""
    obstacle, runs = counted
    return obstacle.phase == "compensation", -runs


def _place(version: VersionCheck) -> tuple[str, bool, str, str]:
    return (
        version.workflow,
        not version.registered,
        version.version or "",
        version.fingerprint,
    )
