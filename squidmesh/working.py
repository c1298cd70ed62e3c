"""What runs steps: the worker that a process is for, and the runner that a host's jobs call."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

from returns.pipeline import is_successful

from squidmesh import controlling
from squidmesh.domain.commands import SkipReason
from squidmesh.domain.definition import CronTrigger
from squidmesh.domain.schedule import activation_of, identity_of
from squidmesh.domain.values import Json
from squidmesh.errors import (
    InvalidOptionError,
    InvalidPayloadError,
    InvalidPayloadForExecutorError,
)
from squidmesh.mesh import DEFAULT_CONCURRENCY, SquidMesh
from squidmesh.runtime.claims import Claimant
from squidmesh.runtime.runner import Deliveries, PerformReport
from squidmesh.runtime.worker import WorkerLoop
from squidmesh.starting import check_lease, check_name


class Worker:
    """Claims due steps from the store and runs them, until told to stop."""

    def __init__(
        self,
        mesh: SquidMesh,
        queues: Sequence[str] = ("default",),
        concurrency: int = DEFAULT_CONCURRENCY,
        lease: timedelta | None = None,
    ) -> None:
        """Prepare a worker over *mesh*; *lease* None is the mesh's.

        Raises:
            InvalidOptionError: No queue, no concurrency, or a lease that is not positive.
        """
        self._queues = _queues(queues)
        if type(concurrency) is not int or concurrency < 1:
            raise InvalidOptionError("concurrency", "concurrency is a positive integer.")
        self._lease = None if lease is None else check_lease(lease)
        self._mesh = mesh
        self._concurrency = concurrency
        self._loop: WorkerLoop | None = None
        self._stopped = False

    async def run(self) -> None:
        """Work until cancelled, or until `stop` was called and what is held has been reported.

        A cancel is like a kill: what is held counts as lost when its leases are over.
        """
        engine = await self._mesh.engine()
        if self._stopped:
            return
        self._loop = WorkerLoop(
            engine=engine,
            queues=self._queues,
            concurrency=self._concurrency,
            lease=self._lease or engine.lease,
            owner=engine.ids.owner(),
        )
        await self._loop.run()

    def stop(self) -> None:
        """Claim nothing more; `run` returns when the steps that run have been reported."""
        self._stopped = True
        if self._loop is not None:
            self._loop.stop()


class Runner:
    """Performs what a host's job system delivers."""

    def __init__(self, mesh: SquidMesh) -> None:
        self._mesh = mesh
        self._deliveries: Deliveries | None = None

    async def perform(self, payload: Mapping[str, Json]) -> PerformReport:
        """Perform exactly the attempt that was delivered, or start what a clock asked for.

        A stale, duplicate, early or late delivery is skipped, and the report says why.

        Raises:
            InvalidPayloadForExecutorError: The payload is not one that this library enqueues.
            StoreUnavailableError: The store could not be reached; deliver again.
        """
        engine = await self._mesh.engine()
        if self._deliveries is None or self._deliveries.engine is not engine:
            claimant = Claimant(engine.ids, engine.ids.owner(), engine.lease)
            self._deliveries = Deliveries(engine, self._start_by_clock, claimant)
        return await self._deliveries.perform(payload)

    async def _start_by_clock(self, payload: Mapping[str, Json]) -> PerformReport:
        engine = await self._mesh.engine()
        workflow = engine.registry.by_name.get(_name(payload, "workflow"))
        if workflow is None:
            return PerformReport(status="skipped", reason=SkipReason.UNKNOWN_WORKFLOW.value)
        trigger = workflow.definition.by_trigger.get(_name(payload, "trigger"))
        if not isinstance(trigger, CronTrigger):
            raise InvalidPayloadForExecutorError(
                f"{workflow.name} declares no such cron trigger.", code="unknown_trigger"
            )
        read = activation_of(payload)
        if not is_successful(read):
            problem = read.failure()
            raise InvalidPayloadForExecutorError(problem.message, code=problem.code)
        activation = read.unwrap()
        if trigger.idempotency is not None and (
            identity_of(workflow.name, trigger.name, activation) is None
        ):
            raise InvalidPayloadForExecutorError(
                "An idempotent trigger needs a signal_id or a whole intended_window.",
                code="missing_schedule_identity",
            )
        try:
            settled = await controlling.start_by_clock(engine, workflow, trigger, activation)
        except InvalidPayloadError as problem:
            raise InvalidPayloadForExecutorError(str(problem), code="invalid_payload") from None
        if settled.existing is not None:
            return PerformReport(
                status="skipped",
                reason=SkipReason.DUPLICATE_ACTIVATION.value,
                run_id=settled.existing,
            )
        return PerformReport(status="started", run_id=settled.state.run_id)


def _queues(queues: object) -> tuple[str, ...]:
    if isinstance(queues, str) or not isinstance(queues, Iterable):
        raise InvalidOptionError("queues", "queues are several names of queues.")
    names = tuple(dict.fromkeys(check_name("queues", queue) for queue in queues))
    if not names:
        raise InvalidOptionError("queues", "A worker serves at least one queue.")
    return names


def _name(payload: Mapping[str, Json], key: str) -> str:
    value = payload.get(key)
    if not isinstance(value, str) or not value:
        raise InvalidPayloadForExecutorError(
            f"A cron payload needs {key!r}, a text.", code="invalid_payload"
        )
    return value
