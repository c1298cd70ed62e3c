"""A workflow as data: what an author declared, validated and ready to be planned over.

Nothing here knows a Python function: a body is named by its *key* and described by its
parameters. The same value comes from a class body, from a plain dictionary or from the copy
that the store keeps for every run, and all three behave alike.

The module is a little long because the whole of what can be declared stands in it.
"""

import enum
from collections.abc import Mapping
from datetime import timedelta
from functools import cached_property
from typing import TypeAlias

import attrs

from squidmesh.domain.payload import PayloadContract
from squidmesh.domain.values import Json

COMPENSATION_PREFIX = "compensate:"
"""Names the step visit that undoes a step: ``compensate:<step>``."""

RESERVED_STEP_NAMES = frozenset({"name", "version", "transitions", "definition", "complete"})

SCHEDULE_KEY = "schedule"
"""The context key that holds a cron activation's identity; no step may write it."""


@attrs.frozen
class Problem:
    """One thing that is wrong with a definition: where, which rule, and in words."""

    path: tuple[str | int, ...]
    code: str
    message: str


class On(enum.Enum):
    """Which end of a step a transition leaves from."""

    OK = "ok"
    ERROR = "error"

    # Routes are looked up by it on every step; enum's own hash is a Python call, this one is not.
    __hash__ = object.__hash__


class RecoveryMarker(enum.Enum):
    """What an error route means to the business: it only marks the route and its audit event."""

    COMPENSATION = "compensation"
    UNDO = "undo"


class Operator(enum.Enum):
    """How a condition compares the value it finds."""

    EQUALS = "equals"
    GREATER_THAN = "greater_than"
    LESS_THAN = "less_than"


class LogLevel(enum.Enum):
    """The level of a ``log`` step's line."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class CronIdempotency(enum.Enum):
    """What a second activation of the same window does."""

    RETURN_EXISTING_RUN = "return_existing_run"
    SKIP_DUPLICATE = "skip_duplicate"


@attrs.frozen
class Condition:
    """A comparison over payload and context; *path* is a tuple of keys."""

    path: tuple[str, ...]
    operator: Operator
    operand: Json


@attrs.frozen(kw_only=True)
class Transition:
    """A route from *source*, on ok or error, to *target*; None is the end of the run."""

    source: str
    on: On
    target: str | None
    condition: Condition | None = None
    recovery: RecoveryMarker | None = None


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """How often a step is tried in all, and how long it waits in between.

    The delay before attempt n+1 is ``backoff_min * 2 ** (n - 1)``, at most *backoff_max*;
    *jitter* is a fraction of the delay that the shell draws and adds or subtracts.
    """

    max_attempts: int = 1
    backoff_min: timedelta = timedelta(0)
    backoff_max: timedelta | None = None
    jitter: float = 0.0


ONCE = RetryPolicy()
COMPENSATION_RETRY = RetryPolicy(
    max_attempts=3, backoff_min=timedelta(seconds=1), backoff_max=timedelta(minutes=1)
)


@attrs.frozen
class Parameter:
    """A parameter of a body: its name, whether it must be provided, whether it is the context."""

    name: str
    required: bool = True
    is_context: bool = False


@attrs.frozen(kw_only=True)
class Body:
    """A function as the core sees it: its registry key, and the parameters that it takes."""

    key: str
    parameters: tuple[Parameter, ...] = ()


@attrs.frozen(kw_only=True)
class Action:
    """A step that runs a body.

    *merges* are the keys that a mapping it returns puts into the context when the step has no
    output key: empty for a body that returns nothing, None when the annotation does not say.
    """

    body: Body
    merges: tuple[str, ...] | None = None


@attrs.frozen
class Wait:
    """A durable timer: completed when *duration* has passed since it was scheduled."""

    duration: timedelta


@attrs.frozen
class Log:
    """A step that writes one line to the host's log."""

    message: str
    level: LogLevel = LogLevel.INFO


@attrs.frozen
class Pause:
    """A step that holds the run until somebody resumes it."""


@attrs.frozen
class Approval:
    """A step that holds the run until somebody approves or rejects."""


StepKind: TypeAlias = Action | Wait | Log | Pause | Approval


@attrs.frozen(kw_only=True)
class CompensationSpec:
    """The body that undoes a completed step, and how often it is tried."""

    body: Body
    retry: RetryPolicy = COMPENSATION_RETRY


@attrs.frozen(kw_only=True)
class StepSpec:
    """A named place in the graph.

    *inputs* maps a parameter to the path of its value; *after* is None for a step without
    prerequisites (an empty tuple is a mistake of the author that validation reports).
    """

    name: str
    kind: StepKind
    inputs: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict[str, tuple[str, ...]])
    output: str | None = None
    retry: RetryPolicy = ONCE
    timeout: timedelta | None = None
    after: tuple[str, ...] | None = None
    compensation: CompensationSpec | None = None
    irreversible: bool = False
    compensatable: bool = True
    transaction: bool = False
    queue: str | None = None

    @property
    def is_manual(self) -> bool:
        """Whether a person decides when this step ends."""
        return isinstance(self.kind, Pause | Approval)

    @property
    def blocks_replay(self) -> bool:
        """Whether a completed visit of this step needs a named override to be replayed."""
        return self.irreversible or not self.compensatable


@attrs.frozen(kw_only=True)
class ManualTrigger:
    """A run begins because somebody asked for it."""

    name: str
    payload: PayloadContract


@attrs.frozen(kw_only=True)
class CronTrigger:
    """A run begins because a clock said so; *expression* is in cron syntax."""

    name: str
    payload: PayloadContract
    expression: str
    timezone: str = "UTC"
    idempotency: CronIdempotency | None = None


Trigger: TypeAlias = ManualTrigger | CronTrigger


@attrs.frozen(kw_only=True)
class WorkflowDefinition:
    """A whole workflow; the first trigger is the default one.

    With transitions the run follows routes from its one entry step; without them, steps start
    as soon as everything in their ``after`` is completed.
    """

    name: str
    triggers: tuple[Trigger, ...]
    steps: tuple[StepSpec, ...]
    transitions: tuple[Transition, ...] = ()
    version: str | None = None

    @cached_property
    def by_name(self) -> Mapping[str, StepSpec]:
        """The steps by their names, in declaration order."""
        return {step.name: step for step in self.steps}

    @cached_property
    def by_trigger(self) -> Mapping[str, Trigger]:
        """The triggers by their names, in declaration order."""
        return {trigger.name: trigger for trigger in self.triggers}

    @property
    def follows_transitions(self) -> bool:
        """Whether routes lead through this workflow, rather than prerequisites."""
        return bool(self.transitions)

    @cached_property
    def routes(self) -> Mapping[tuple[str, On], tuple[tuple[int, Transition], ...]]:
        """The transitions out of each step and end, numbered as declared."""
        found: dict[tuple[str, On], tuple[tuple[int, Transition], ...]] = {}
        for number, transition in enumerate(self.transitions):
            key = (transition.source, transition.on)
            found[key] = (*found.get(key, ()), (number, transition))
        return found

    @cached_property
    def last_steps(self) -> frozenset[str]:
        """The steps behind which no other one begins, as long as they succeed."""
        if not self.follows_transitions:
            return frozenset(name for name, behind in self.dependents.items() if not behind)
        ends = {name: self.routes.get((name, On.OK), ()) for name in self.by_name}
        return frozenset(
            name
            for name, routes in ends.items()
            if routes and all(transition.target is None for _, transition in routes)
        )

    @cached_property
    def entry_steps(self) -> tuple[str, ...]:
        """The steps that a fresh run begins with."""
        if self.follows_transitions:
            targets = {transition.target for transition in self.transitions}
            return tuple(step.name for step in self.steps if step.name not in targets)
        return tuple(step.name for step in self.steps if step.after is None)

    @cached_property
    def dependents(self) -> Mapping[str, tuple[str, ...]]:
        """For each step, the steps that name it in their ``after``."""
        found: dict[str, list[str]] = {step.name: [] for step in self.steps}
        for step in self.steps:
            # Naming a step twice is no reason to follow it twice.
            for needed in dict.fromkeys(step.after or ()):
                if needed in found:
                    found[needed].append(step.name)
        return {name: tuple(names) for name, names in found.items()}

    @cached_property
    def _named_outputs(self) -> Mapping[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for step in self.steps:
            if step.output is not None:
                found[step.output] = (*found.get(step.output, ()), step.name)
        return found

    @cached_property
    def _merging_steps(self) -> tuple[tuple[str, tuple[str, ...] | None], ...]:
        return tuple(
            (step.name, step.kind.merges)
            for step in self.steps
            if isinstance(step.kind, Action) and step.output is None and step.kind.merges != ()
        )

    def providers_of(self, key: str) -> tuple[str, ...]:
        """The steps whose output may put *key* into the context."""
        merging = (name for name, keys in self._merging_steps if keys is None or key in keys)
        return (*self._named_outputs.get(key, ()), *merging)

    @cached_property
    def position(self) -> Mapping[str, int]:
        """Each step's place in declaration order, from 0."""
        return {step.name: index for index, step in enumerate(self.steps)}

    @cached_property
    def prerequisites(self) -> Mapping[str, frozenset[str]]:
        """For each step, the steps that lead to it directly: by ``after``, or by a transition."""
        found = {step.name: set(step.after or ()) for step in self.steps}
        for transition in self.transitions:
            if transition.target in found:
                found[transition.target].add(transition.source)
        return {name: frozenset(names) for name, names in found.items()}

    @cached_property
    def _earlier(self) -> Mapping[str, int]:
        """For each step, the set of all steps before it, as a bit mask over `position`.

        Masks, because a set of names per step would be quadratic: a path of ten thousand steps
        takes a dozen megabytes this way. Steps on a cycle, which validation reports, get none.
        """
        masks: dict[str, int] = {}
        for name in self.in_order:
            mask = 0
            for needed in self.prerequisites[name]:
                mask |= masks.get(needed, 0) | (1 << self.position.get(needed, len(self.steps)))
            masks[name] = mask
        return masks

    @cached_property
    def in_order(self) -> tuple[str, ...]:
        """The steps so that each stands behind its prerequisites; those on a cycle are left out."""
        waiting = {
            name: len(needed & self.position.keys()) for name, needed in self.prerequisites.items()
        }
        followers: dict[str, list[str]] = {name: [] for name in waiting}
        for name, needed in self.prerequisites.items():
            for source in needed & self.position.keys():
                followers[source].append(name)
        ready = [name for name, count in waiting.items() if count == 0]
        for name in ready:
            for follower in followers[name]:
                waiting[follower] -= 1
                if waiting[follower] == 0:
                    ready.append(follower)
        return tuple(ready)

    def precedes(self, earlier: str, later: str) -> bool:
        """Whether *earlier* may have ended before *later* begins, by any way through the graph."""
        return bool(self._earlier.get(later, 0) >> self.position[earlier] & 1)
