"""SquidMesh: what a host application starts, steers and asks its runs with.

A long module of short methods: most of its lines say what an argument means and which errors are
raised. The commands about runs that exist stand in `steering`. What the methods do stands
elsewhere, in `controlling` for what changes runs and in `asking` for what reads them.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self, TypeAlias, TypeVar

from squidmesh import asking, controlling
from squidmesh.asking import ListOptions
from squidmesh.checking import CheckReport, check_runs
from squidmesh.domain.explanation import Explanation
from squidmesh.domain.graph import RunGraph
from squidmesh.errors import InvalidOptionError, UnknownWorkflowError
from squidmesh.opening import StoreAt, check_store, migration_sql
from squidmesh.ports.clock import Clock, Ids, Random
from squidmesh.ports.executor import Executor
from squidmesh.runtime.assembling import Settings, assemble_engine
from squidmesh.runtime.engine import Engine, Storage
from squidmesh.runtime.recovery import RecoveryReport
from squidmesh.runtime.registry import RegisteredWorkflow
from squidmesh.runtime.telemetry import Sink
from squidmesh.runtime.within import joined
from squidmesh.runtime.worker import WorkerLoop
from squidmesh.starting import StartOptions, check_lease
from squidmesh.steering import Steering
from squidmesh.system import SystemClock, SystemIds, SystemRandom, whole_clock
from squidmesh.views import Run, RunPage
from squidmesh.workflow import Workflow, WorkflowDefinition

DEFAULT_LEASE: Final = timedelta(seconds=60)
DEFAULT_CONCURRENCY: Final = 64
_T = TypeVar("_T")
AnyWorkflow: TypeAlias = type[Workflow[Any]] | WorkflowDefinition


class SquidMesh(Steering):
    """A host's runs: starts them, steers them, and tells how and why they stand.

    Use it as an async context manager, or call `aclose` in the end. Every method talks to the
    store and may raise StoreUnavailableError.

    With a *connection* of the host's, a driver's or SQLAlchemy's, a method works in the transaction
    that is open on it, or begins one: the host commits it, or does not. One that cannot be joined
    is an InvalidOptionError.
    """

    def __init__(
        self,
        *,
        store: Storage | StoreAt,
        workflows: Iterable[AnyWorkflow] = (),
        executor: Executor | None = None,
        clock: Clock | None = None,
        ids: Ids | None = None,
        random: Random | None = None,
        telemetry: Sink | Sequence[Sink] | None = None,
        lease: timedelta = DEFAULT_LEASE,
        max_deliveries: int = 5,
        max_payload_bytes: int = 2 * 1024 * 1024,
    ) -> None:
        """Compose a mesh over an open *store*, which stays the caller's to close.

        Raises:
            InvalidOptionError: An option makes no sense.
        """
        self._store = store
        self._settings = Settings(
            clock=SystemClock() if clock is None else whole_clock(clock),
            ids=ids or SystemIds(),
            random=random or SystemRandom(),
            executor=_executor(executor),
            sinks=_sinks(telemetry),
            lease=check_lease(lease),
            max_deliveries=_at_least_one("max_deliveries", max_deliveries),
            max_payload_bytes=_at_least_one("max_payload_bytes", max_payload_bytes),
        )
        several = _several("workflows", workflows)
        self._definitions = tuple(_declared(workflow) for workflow in several)
        names = [definition.name for definition in self._definitions]
        if len(set(names)) < len(names):
            raise InvalidOptionError("workflows", "Two workflows have the same name.")
        self._engine: Engine | None = None
        self._embedded: WorkerLoop | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening = asyncio.Lock()
        self._closed = False

    @classmethod
    def open(
        cls,
        url: str,
        *,
        workflows: Iterable[AnyWorkflow] = (),
        executor: Executor | None = None,
        clock: Clock | None = None,
        ids: Ids | None = None,
        random: Random | None = None,
        telemetry: Sink | Sequence[Sink] | None = None,
        lease: timedelta = DEFAULT_LEASE,
        max_deliveries: int = 5,
        max_payload_bytes: int = 2 * 1024 * 1024,
        **store_options: object,
    ) -> Self:
        """Return a mesh over the store that *url* names; it opens, and closes, that store.

        ``memory://`` is private to the mesh; ``sqlite:///app.db`` makes and upgrades its tables.

        Raises:
            InvalidOptionError: The URL or an option makes no sense.
        """
        check_store(url, store_options)
        return cls(
            store=StoreAt(url, store_options),
            workflows=workflows,
            executor=executor,
            clock=clock,
            ids=ids,
            random=random,
            telemetry=telemetry,
            lease=lease,
            max_deliveries=max_deliveries,
            max_payload_bytes=max_payload_bytes,
        )

    async def __aenter__(self) -> Self:
        await self.engine()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def engine(self) -> Engine:
        """Return the running parts, opening the store first if that has not happened yet.

        Workers and runners use it; applications do not need to.

        Raises:
            InvalidOptionError: The mesh is closed, or was used in another event loop before.
        """
        self._stay_in_one_loop()
        async with self._opening:
            if self._closed:
                raise InvalidOptionError("mesh", "This mesh is closed; open another one.")
            if self._engine is None:
                self._engine = await self._start()
        return self._engine

    async def _engine_within(self, connection: object) -> Engine:
        """Return the running parts, inside the host's transaction if there is a *connection*."""
        engine = await self.engine()
        return engine if connection is None else await joined(engine, connection)

    def _stay_in_one_loop(self) -> None:
        """Refuse a second event loop, as each `asyncio.run()` makes one: ours would hang there."""
        running = asyncio.get_running_loop()
        if self._loop not in (None, running):
            raise InvalidOptionError(
                "mesh",
                "This mesh was opened in another event loop; do everything with it in one"
                " asyncio.run(), or open a mesh in each.",
            )
        self._loop = running

    async def _start(self) -> Engine:
        settings = self._settings
        store = self._store
        if isinstance(store, StoreAt):
            store = await store.open(settings.clock)
        engine = assemble_engine(store, settings)
        for definition in self._definitions:
            engine.registry.register(definition, definition.bodies)
        if settings.executor is not None:
            engine.recovery.start_sweeping()
        return engine

    async def aclose(self) -> None:
        """Finish what is being committed, and close what this mesh opened."""
        self._stay_in_one_loop()
        async with self._opening:
            engine, self._engine, self._closed = self._engine, None, True
        if engine is not None:
            try:
                await engine.close()
            finally:
                if isinstance(self._store, StoreAt):
                    await engine.store.close()

    async def start_run(
        self,
        workflow: AnyWorkflow | str,
        payload: object = None,
        *,
        trigger: str | None = None,
        run_id: str | None = None,
        idempotency_key: str | None = None,
        queue: str = "default",
        priority: int = 0,
        concurrency_key: str | None = None,
        tags: Mapping[str, str] | None = None,
        connection: object = None,
    ) -> Run:
        """Start a run: durable when this returns, in one transaction.

        *payload* is an instance of the payload class, a mapping, or None for no fields. The same
        *idempotency_key* with the same payload returns the run that it started. Runs of a higher
        *priority* are claimed first.

        Raises:
            UnknownWorkflowError: The workflow is not registered with this mesh.
            UnknownTriggerError: It declares no such trigger.
            InvalidPayloadError: The payload does not fit; lists every field.
            UnserializableValueError: The payload holds what JSON cannot hold exactly.
            PayloadTooLargeError: The payload is too large.
            InvalidRunIdError: *run_id* is not a UUID.
            RunExistsError: A run of that id exists.
            IdempotencyConflictError: The key was used with another payload.
            InvalidOptionError: Another option makes no sense.
        """
        engine = await self._engine_within(connection)
        return await controlling.start_run(
            engine,
            self._registered(engine, workflow),
            payload,
            trigger=trigger,
            run_id=run_id,
            options=StartOptions(
                queue=queue,
                priority=priority,
                concurrency_key=concurrency_key,
                tags=tags,
                idempotency_key=idempotency_key,
            ),
            most_bytes=self._settings.max_payload_bytes,
        )

    async def start_runs(
        self,
        workflow: AnyWorkflow | str,
        payloads: Iterable[object],
        *,
        trigger: str | None = None,
        queue: str = "default",
        idempotency_keys: Sequence[str | None] | None = None,
        connection: object = None,
    ) -> list[str]:
        """Start many runs and return their ids, in the order of *payloads*.

        All payloads are checked before the first is written; then each thousand is started in one
        transaction, two of them at a time. If one fails, no further one is begun.

        Raises:
            InvalidOptionError: There are not as many keys as payloads, or an option makes no sense.
            Those of `start_run` about workflow, trigger, payload and key.
        """
        engine = await self._engine_within(connection)
        return await controlling.start_runs(
            engine,
            self._registered(engine, workflow),
            _several("payloads", payloads),
            trigger=trigger,
            queue=queue,
            idempotency_keys=(
                None if idempotency_keys is None else _several("idempotency_keys", idempotency_keys)
            ),
            most_bytes=self._settings.max_payload_bytes,
        )

    async def inspect_run(
        self, run_id: str, *, include_history: bool = False, connection: object = None
    ) -> Run:
        """Return how a run stands; with history also its steps, attempts, audit and entries.

        Raises:
            InvalidRunIdError: *run_id* is not a UUID.
            RunNotFoundError: There is no such run.
        """
        engine = await self._engine_within(connection)
        return await asking.inspect(engine, run_id, include_history=include_history)

    async def explain_run(self, run_id: str, *, step: str | None = None) -> Explanation:
        """Say why a run, or one *step* of it, stands where it stands, and what can be done.

        Raises:
            InvalidRunIdError: *run_id* is not a UUID.
            RunNotFoundError: There is no such run.
            InvalidOptionError: The workflow has no such step.
        """
        return await asking.explanation(await self.engine(), run_id, step=step)

    async def graph(self, run_id: str) -> RunGraph:
        """Return the whole picture of a run: what is done, what runs, what is still to come.

        Raises:
            InvalidRunIdError: *run_id* is not a UUID.
            RunNotFoundError: There is no such run.
        """
        return await asking.graph(await self.engine(), run_id)

    async def list_runs(
        self,
        *,
        workflow: AnyWorkflow | str | None = None,
        status: str | Iterable[str] | None = None,
        tags: Mapping[str, str] | None = None,
        started_after: datetime | None = None,
        started_before: datetime | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> RunPage:
        """Return a page of runs, newest first; *cursor* is the `next_cursor` of the page before.

        Listed runs carry their payload and no context.

        Raises:
            InvalidOptionError: A filter makes no sense, or the cursor belongs to another query.
        """
        return await asking.list_runs(
            await self.engine(),
            ListOptions(
                workflow=workflow,
                status=status,
                tags=tags,
                started_after=started_after,
                started_before=started_before,
                limit=limit,
                cursor=cursor,
            ),
        )

    async def check_runs(self, *, workflow: AnyWorkflow | str | None = None) -> CheckReport:
        """Say which runs in flight the workflows of this mesh can carry to their end.

        A run is blocked if something ahead of it has no function here: a step that is open or may
        still come, or the undoing of one that is or may be done. It is blocked as well if such a
        function asks for what neither its version's steps nor its payload provide; for an open
        step that is judged by what the run really holds, for others by what its steps may leave.
        What functions do and return, and the types of parameters, are not looked at.

        This only reads and claims nothing; what other workers could run plays no part.

        Raises:
            UnknownWorkflowError: *workflow* is neither a name nor a workflow.
            InvalidOptionError: It cannot be the name of one.
        """
        engine = await self.engine()
        if workflow is None or isinstance(workflow, str):
            return await check_runs(engine, workflow)
        return await check_runs(engine, _definition_of(workflow).name)

    async def recover(self, *, older_than: timedelta = timedelta(0)) -> RecoveryReport:
        """Reclaim expired leases, and announce again what has been due for *older_than*.

        Nothing needs it while workers run or an executor is set; it does at once what they do.
        """
        _not_negative("older_than", older_than)
        engine = await self.engine()
        return await engine.recovery.recover(older_than)

    async def migrate(self) -> int:
        """Create or upgrade the tables, and return their version; repeating it changes nothing."""
        engine = await self.engine()
        return await engine.store.migrate()

    @staticmethod
    def migration_sql(url: str, **store_options: object) -> str:
        """Return the statements that `migrate` runs on an empty database; opens nothing.

        Raises:
            InvalidOptionError: The URL names no store.
        """
        return migration_sql(url, store_options)

    async def run_until_idle(self, *, timeout: timedelta | None = None) -> None:
        """Work until nothing is due now and nothing runs; timers are not waited for.

        Raises:
            TimeoutError: *timeout* has passed first.
        """
        if timeout is not None:
            _not_negative("timeout", timeout)
        engine = await self.engine()
        # One worker serves all calls, so that it is announced once; calls at once get their own.
        worker, self._embedded = self._embedded or _embedded_worker(engine), None
        async with asyncio.timeout(None if timeout is None else timeout.total_seconds()):
            await worker.drain()
        self._embedded = worker

    def _registered(self, engine: Engine, workflow: AnyWorkflow | str) -> RegisteredWorkflow:
        name = workflow if isinstance(workflow, str) else _definition_of(workflow).name
        known = engine.registry.by_name.get(name)
        if known is None:
            raise UnknownWorkflowError(name, engine.registry.by_name)
        return known


def _embedded_worker(engine: Engine) -> WorkerLoop:
    return WorkerLoop(
        engine=engine,
        queues=None,
        concurrency=DEFAULT_CONCURRENCY,
        lease=engine.lease,
        owner=engine.ids.owner(),
    )


def _declared(workflow: object) -> WorkflowDefinition:
    try:
        return _definition_of(workflow)
    except UnknownWorkflowError:
        shown = getattr(workflow, "__name__", f"a {type(workflow).__name__}")
        raise InvalidOptionError(
            "workflows", f"workflows= takes workflow classes, and {shown} is none that can be run."
        ) from None


def _definition_of(workflow: object) -> WorkflowDefinition:
    if isinstance(workflow, WorkflowDefinition):
        return workflow
    definition = getattr(workflow, "definition", None)
    if isinstance(definition, WorkflowDefinition):
        return definition
    shown = getattr(workflow, "__name__", type(workflow).__name__)
    raise UnknownWorkflowError(str(shown))


def _several(option: str, given: Iterable[_T]) -> tuple[_T, ...]:
    """What was given, if it is several at all: a class or a text in a list's place is a slip."""
    if isinstance(given, type | str | bytes) or not isinstance(given, Iterable):
        raise InvalidOptionError(option, f"{option} are several, in a list or the like.")
    return tuple(given)


def _executor(executor: Executor | None) -> Executor | None:
    if executor is not None and not callable(getattr(executor, "enqueue_step", None)):
        raise InvalidOptionError("executor", "An executor has the methods of the Executor port.")
    return executor


def _sinks(telemetry: Sink | Sequence[Sink] | None) -> tuple[Sink, ...]:
    if telemetry is None:
        return ()
    several = telemetry if isinstance(telemetry, Sequence) else (telemetry,)
    if not all(callable(getattr(sink, "emit", None)) for sink in several):
        raise InvalidOptionError("telemetry", "A telemetry sink has a method emit(event).")
    return tuple(several)


def _not_negative(option: str, value: object) -> None:
    if not isinstance(value, timedelta) or value < timedelta(0):
        raise InvalidOptionError(option, f"{option} is a timedelta that is not negative.")


def _at_least_one(option: str, value: object) -> int:
    if type(value) is not int or value < 1:
        raise InvalidOptionError(option, f"{option} is a positive integer.")
    return value
