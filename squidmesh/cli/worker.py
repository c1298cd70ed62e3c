"""`squidmesh worker`: a process that runs steps until it is told to stop."""

import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import IO, Final

import attrs
import click

from squidmesh import SquidMesh, Worker
from squidmesh.cli import logs
from squidmesh.cli.loading import AnyWorkflow, workflows_at
from squidmesh.cli.moments import span_of
from squidmesh.cli.options import DURATION, app_option, store_options
from squidmesh.cli.settings import Settings, shown_url
from squidmesh.logs import logger
from squidmesh.opening import check_url, path_of

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
YOUNG_OBJECTS: Final = 10_000
"""How many new objects there are before it is looked which of them are garbage."""

log = logger("cli")


@attrs.frozen(kw_only=True)
class _Job:
    """What a worker works on, and how."""

    url: str
    is_new: bool
    workflows: tuple[AnyWorkflow, ...]
    queues: tuple[str, ...]
    concurrency: int
    lease: timedelta


@click.command()
@click.option(
    "--concurrency", type=click.IntRange(1), default=64, show_default=True, help="Steps at a time."
)
@click.option(
    "--queue",
    "queues",
    multiple=True,
    default=("default",),
    show_default=True,
    help="Work on this queue; repeatable.",
)
@click.option(
    "--lease",
    type=DURATION,
    metavar="SECONDS",
    default="60",
    show_default=True,
    help="How long a step stays with a worker that is not heard of.",
)
@click.option(
    "--log-level",
    type=click.Choice(logs.LEVELS),
    default="info",
    show_default=True,
    help="From which level on to log.",
)
@click.option("--log-json", is_flag=True, help="Log in JSON, on stderr; --json does so on stdout.")
@app_option
@store_options
@click.pass_obj
def worker(
    settings: Settings,
    *,
    concurrency: int,
    queues: Sequence[str],
    lease: timedelta,
    log_level: str,
    log_json: bool,
) -> None:
    """Run due steps until stopped.

    SIGTERM and Ctrl-C let the steps that run come to their end. A second one leaves at once, and
    other workers take up what was left when its lease has run out.
    """
    job = _Job(
        url=settings.store_url,
        is_new=_is_new(settings.store_url),
        workflows=workflows_at(settings),
        queues=tuple(queues),
        concurrency=concurrency,
        lease=lease,
    )
    # What cannot work is refused before a store is made or a word is logged.
    mesh = SquidMesh.open(job.url, workflows=job.workflows, lease=job.lease, **settings.in_store)
    working = Worker(mesh, queues=job.queues, concurrency=job.concurrency)
    stream = sys.stdout if settings.json else sys.stderr
    logs.configure(
        as_json=settings.json or log_json,
        stream=stream,
        level=log_level,
        color=_is_colored(settings, stream),
    )
    asyncio.run(_work(mesh, working, job, settings if not (settings.json or log_json) else None))


async def _work(mesh: SquidMesh, working: Worker, job: _Job, settings: Settings | None) -> None:
    async with mesh:
        with _stopped_by_signals(working.stop), _less_collecting():
            _say_ready(job, settings)
            await working.run()
    log.info("worker.stopped")


def _is_new(url: str) -> bool:
    return check_url(url) == "sqlite" and not Path(path_of(url)).exists()


def _is_colored(settings: Settings, stream: IO[str]) -> bool:
    return settings.color and stream.isatty() and not os.environ.get("NO_COLOR")


def _say_ready(job: _Job, settings: Settings | None) -> None:
    """Say in one line what is being done: to a person, or to a collector of logs."""
    names = ", ".join(_name(workflow) for workflow in job.workflows)
    store = shown_url(job.url)
    if settings is None:
        log.info(
            "worker.ready",
            store=store,
            created=job.is_new,
            workflows=names,
            queues=", ".join(job.queues),
            concurrency=job.concurrency,
            lease=job.lease.total_seconds(),
            pid=os.getpid(),
        )
        return
    queues = "queue" if len(job.queues) == 1 else "queues"
    settings.terminal.note(
        f"Working on {names} from {queues} {', '.join(job.queues)}, {job.concurrency} steps at a "
        f"time, lease {span_of(job.lease)}, store {store}{' (new)' if job.is_new else ''}; "
        f"process {os.getpid()}, Ctrl-C stops."
    )


def _name(workflow: AnyWorkflow) -> str:
    return workflow.definition.name if isinstance(workflow, type) else workflow.name


@contextlib.contextmanager
def _stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call *stop* on the first signal, and leave the process on the second."""
    loop = asyncio.get_running_loop()
    told = False

    def received(number: int) -> None:
        nonlocal told
        if told:
            _leave(number)
        told = True
        log.warning(
            "worker.stopping",
            signal=signal.Signals(number).name,
            hint="waiting for the steps that run; once more to leave at once",
        )
        stop()

    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        try:
            loop.add_signal_handler(number, received, number)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda got, _: loop.call_soon_threadsafe(received, got))
    try:
        yield
    finally:
        for number in SIGNALS:
            with contextlib.suppress(NotImplementedError):
                loop.remove_signal_handler(number)
            signal.signal(number, before[number])


@contextlib.contextmanager
def _less_collecting() -> Iterator[None]:
    """Look for garbage less often, and not among what was loaded before the work began.

    Steps make many small objects and hardly ever a cycle of them. Looking through all modules for
    one again and again would be a tenth of the work. A library must leave its host's collector as
    it is; this process is nobody's but the worker's.
    """
    often, *rest = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(max(often, YOUNG_OBJECTS), *rest)
    try:
        yield
    finally:
        gc.set_threshold(often, *rest)
        gc.unfreeze()


def _leave(number: int) -> None:
    """End the process here; the store knows what was left."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(128 + number)
