"""What a body may ask about the attempt that it runs in."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import attrs

from squidmesh.domain.values import Json


@attrs.define(kw_only=True, eq=False)
class StepContext:
    """The attempt that a body runs in; the runtime makes it, bodies read it.

    Attributes:
        run_id: The run, a UUID.
        workflow: The workflow's name.
        step: The step's name; of a compensation ``compensate:<step>``.
        attempt: Which try of the step this is, from 1.
        runnable_key: ``<run>:<step>:<attempt>``, unique to this attempt.
        idempotency_key: The same for every attempt of one visit of the step: hand it to whoever
            must recognise a repetition.
        claim_id: The claim under which the body runs; not a secret.
        fence: A number that rises from one holder of the attempt to the next. Hand it downstream,
            to those who refuse a lower one than they have seen.
        state: What the run knows, as JSON: ``{"payload": ..., "context": ...}``, read-only.
        schedule: The activation of a run that a clock started, else None.
        trigger: The name of the trigger that started the run.
    """

    run_id: str
    workflow: str
    step: str
    attempt: int
    runnable_key: str
    idempotency_key: str
    claim_id: str
    fence: int
    trigger: str
    schedule: Mapping[str, Json] | None = None
    _read_state: Callable[[], Mapping[str, Json]] = attrs.field(alias="read_state", repr=False)
    _beat: Callable[[], Awaitable[None]] = attrs.field(alias="beat", repr=False)
    _loop: asyncio.AbstractEventLoop = attrs.field(alias="loop", repr=False)
    _connection: Any = attrs.field(default=None, alias="connection", repr=False)
    _cancelled: bool = attrs.field(default=False, init=False)

    @property
    def state(self) -> Mapping[str, Json]:
        """The run's payload and context as plain JSON; a copy, so changing it changes nothing."""
        return self._read_state()

    @property
    def cancelled(self) -> bool:
        """Whether the body had better stop: the run is being cancelled, or the attempt is over.

        Learned with each heartbeat, and at once if the cancel came from this process. A body that
        does not look is never interrupted by a cancel.
        """
        return self._cancelled

    def heartbeat(self) -> Awaitable[None]:
        """Prolong the lease now and learn whether the run is being cancelled; await it.

        The worker does this by itself, so a body needs it only to hear of a cancel sooner. A store
        that does not answer is no reason for a body to fail: the worker beats again.

        Raises:
            ClaimLostError: Somebody else holds the attempt, or nobody does any more.
            RuntimeError: Called from a plain function, for which the worker beats anyway.
        """
        if _running_loop() is not self._loop:
            raise RuntimeError(
                "context.heartbeat() is for async bodies; the worker beats for a plain function"
            )
        return self._beat()

    @property
    def connection(self) -> Any:  # noqa: ANN401  whatever connection the store's driver has
        """The driver's connection in a step with ``transaction=True``: of psycopg, or of SQLite.

        What is written with it is committed together with the step's completion, or not at all: do
        not commit it. An async body gets the driver's asynchronous kind, a plain one the other.

        Raises:
            RuntimeError: The step has no ``transaction=True``.
        """
        if self._connection is None:
            raise RuntimeError("context.connection exists only in a step with transaction=True")
        return self._connection

    def tell_cancelled(self) -> None:
        """Turn `cancelled` on; for the runtime."""
        self._cancelled = True


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
