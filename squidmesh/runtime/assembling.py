"""Wires the parts of an engine together, once, in the order in which they need one another."""

from datetime import timedelta

import attrs

from squidmesh.ports.clock import Clock, Ids, Random
from squidmesh.ports.executor import Executor
from squidmesh.runtime.committer import Committer
from squidmesh.runtime.dispatcher import Dispatcher
from squidmesh.runtime.engine import Engine, Storage
from squidmesh.runtime.heart import Heart
from squidmesh.runtime.hinting import Hinting
from squidmesh.runtime.known_states import KnownStates
from squidmesh.runtime.recovery import Recovery
from squidmesh.runtime.registry import Registry
from squidmesh.runtime.step_executor import StepExecutor
from squidmesh.runtime.store_time import StoreTime
from squidmesh.runtime.telemetry import Sink, Telemetry


@attrs.frozen(kw_only=True)
class Settings:
    """What a mesh was told about how to run, and the ports to do it with."""

    clock: Clock
    ids: Ids
    random: Random
    executor: Executor | None
    sinks: tuple[Sink, ...]
    lease: timedelta
    max_deliveries: int
    max_payload_bytes: int


def assemble_engine(store: Storage, settings: Settings) -> Engine:
    """Build an engine over an open store; nothing runs yet."""
    clock = settings.clock
    time = StoreTime(clock)
    registry = Registry(store)
    telemetry = Telemetry(settings.sinks)
    committer = Committer(store, registry, time, KnownStates(store, time))
    owner = settings.ids.owner()
    hinting = Hinting(store, clock, owner)
    dispatcher = Dispatcher(
        executor=settings.executor,
        store=store,
        states=committer.states,
        registry=registry,
        time=time,
        telemetry=telemetry,
        hinting=hinting,
    )
    engine = Engine(
        store=store,
        clock=clock,
        ids=settings.ids,
        random=settings.random,
        time=time,
        registry=registry,
        committer=committer,
        dispatcher=dispatcher,
        recovery=Recovery(
            store=store,
            attempts=store,
            presence=store,
            committer=committer,
            dispatcher=dispatcher,
            time=time,
            clock=clock,
            owner=owner,
            max_deliveries=settings.max_deliveries,
        ),
        heart=Heart(store, clock, settings.lease),
        bodies=StepExecutor(clock, most_bytes=settings.max_payload_bytes),
        telemetry=telemetry,
        lease=settings.lease,
        owner=owner,
    )
    if settings.executor is not None:
        committer.wake_at = dispatcher.wake_at
    committer.on_anomaly = telemetry.anomaly
    committer.observers.extend((engine.settled, dispatcher.settled, telemetry.settled))
    return engine
