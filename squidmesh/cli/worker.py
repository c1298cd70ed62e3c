"""`squidmesh worker`: a process that runs steps until it is told to stop."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Final

import click
import structlog

from squidmesh import SquidMesh, Worker
from squidmesh.cli import logs
from squidmesh.cli.loading import AnyWorkflow, workflows_at
from squidmesh.cli.moments import span_of
from squidmesh.cli.options import DURATION, app_option, store_options
from squidmesh.cli.settings import Settings
from squidmesh.opening import check_url, path_of

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

log = structlog.stdlib.get_logger("squidmesh.cli")


@click.command()
@click.option(
    "--concurrency",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="Steps at a time.",
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
    help="How long a step stays ours without a heartbeat.",
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

    SIGTERM and Ctrl-C let the steps that run come to their end; the second one leaves at once,
    and other workers take up what was left when its lease has run out.
    """
    url = settings.store_url
    check_url(url)
    workflows = workflows_at(settings.app_path)
    stream = logs.stream_for(as_json=settings.json)
    logs.configure(
        as_json=settings.json or log_json,
        stream=stream,
        level=log_level,
        color=settings.color and stream.isatty() and not os.environ.get("NO_COLOR"),
    )
    is_new = _is_new(url)

    async def work() -> None:
        async with SquidMesh.open(url, workflows=workflows, lease=lease) as mesh:
            working = Worker(mesh, queues=tuple(queues), concurrency=concurrency)
            with _stopping(working):
                await mesh.migrate()
                _say_ready(url, workflows, queues, concurrency, lease, is_new=is_new)
                await working.run()
        log.info("worker.stopped")

    asyncio.run(work())


def _is_new(url: str) -> bool:
    return check_url(url) == "sqlite" and not Path(path_of(url)).exists()


def _say_ready(
    url: str,
    workflows: Sequence[AnyWorkflow],
    queues: Sequence[str],
    concurrency: int,
    lease: timedelta,
    *,
    is_new: bool,
) -> None:
    log.info(
        "worker.ready",
        store=url.rpartition("@")[2],
        **({"created": True} if is_new else {}),
        workflows=", ".join(_name(workflow) for workflow in workflows),
        queues=", ".join(queues),
        concurrency=concurrency,
        lease=span_of(lease),
        pid=os.getpid(),
    )


def _name(workflow: AnyWorkflow) -> str:
    return workflow.definition.name if isinstance(workflow, type) else workflow.name


@contextlib.contextmanager
def _stopping(working: Worker) -> "contextlib.AbstractContextManager[None]":
    """Stop gracefully on the first signal and at once on the second, until this is left."""


def _leave(number: int) -> None:
    """End the process without a word to anybody; the store knows what was left."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(128 + number)


_Handler = Callable[[int, FrameType | None], None]
