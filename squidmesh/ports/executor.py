"""The host's job system, as the runtime needs it: something that can be nudged.

A delivery is a hint to look at one attempt. Lost, doubled, late or early, it changes nothing,
because every delivery is claimed in the store first.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol

import attrs

from squidmesh.domain.values import Json


@attrs.frozen(kw_only=True)
class ExecutorCapabilities:
    """What an engine can do; every default is the cautious one.

    *transactional*: it can enqueue inside ``EnqueueOptions.connection``. *max_delay*: the longest
    delay that it keeps safely, None for any, zero for none. *dedup_window*: for how long it drops
    a repeated key. *lease*: how long it hides a delivery from others. *atomic_batch*: all of
    `Executor.enqueue_steps` or nothing. *redelivers_after_crash*: without the host doing anything.
    """

    transactional: bool = False
    max_delay: timedelta | None = timedelta(0)
    dedup_window: timedelta | None = None
    lease: timedelta | None = None
    atomic_batch: bool = False
    redelivers_after_crash: bool = False


@attrs.frozen(kw_only=True)
class EnqueueOptions:
    """How to enqueue: *key* is the same for every delivery of one attempt."""

    key: str
    queue: str = "default"
    not_before: datetime | None = None
    connection: object | None = None
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str])


class Executor(Protocol):
    """Enqueues payloads that end in ``Runner.perform``, sooner or later, any number of times.

    Raising means that the wake-up did not happen: the command stands, and the sweep repeats it.
    Every method returns a mapping of metadata, such as the engine's own job id.
    """

    @property
    @abstractmethod
    def capabilities(self) -> ExecutorCapabilities:
        """What this engine can do."""

    @abstractmethod
    async def enqueue_step(
        self, payload: Mapping[str, Json], options: EnqueueOptions
    ) -> Mapping[str, Json]:
        """Enqueue one attempt: ``{"kind": "step", "run_id", "step", "attempt"}``."""

    @abstractmethod
    async def enqueue_steps(
        self, items: Sequence[tuple[Mapping[str, Json], EnqueueOptions]]
    ) -> Mapping[str, Json]:
        """Enqueue several attempts."""

    @abstractmethod
    async def enqueue_compensation(
        self, payload: Mapping[str, Json], options: EnqueueOptions
    ) -> Mapping[str, Json]:
        """Enqueue an undoing: ``{"kind": "compensation", "run_id", "step", "attempt"}``."""

    @abstractmethod
    async def enqueue_cron(
        self, payload: Mapping[str, Json], options: EnqueueOptions
    ) -> Mapping[str, Json]:
        """Enqueue an activation: ``{"kind": "cron", "workflow", "trigger"}`` and its identity."""
