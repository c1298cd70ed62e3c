"""`squidmesh runs watch`: a run as it goes on, until it is over or the time is."""

import math
from datetime import timedelta

import click

from squidmesh import Entry, Run, SquidMesh
from squidmesh.cli.failures import Exit
from squidmesh.cli.finding import find_run
from squidmesh.cli.moments import now
from squidmesh.cli.opening import ask
from squidmesh.cli.options import DURATION, run_argument, store_options
from squidmesh.cli.screens import Look, Screen, screen_for
from squidmesh.cli.settings import Settings
from squidmesh.system import SystemClock


@click.command()
@run_argument
@click.option("--timeout", type=DURATION, help="Give up after this long, with exit status 7.")
@click.option(
    "--interval", type=DURATION, default="0.5", show_default=True, help="How often to look."
)
@store_options
@click.pass_context
def watch(context: click.Context, run: str, timeout: timedelta | None, interval: timedelta) -> None:
    """Watch a run until it is over.

    The exit status says how it ended: 0 is completed, 6 failed or cancelled, 7 still going on
    when --timeout has passed.
    """
    settings = context.ensure_object(Settings)

    async def question(mesh: SquidMesh) -> Exit:
        run_id = await find_run(mesh, run, settings)
        with screen_for(settings) as screen:
            return await _watch(mesh, run_id, screen, timeout, interval)

    context.exit(ask(settings, question))


async def _watch(
    mesh: SquidMesh,
    run_id: str,
    screen: Screen,
    timeout: timedelta | None,
    interval: timedelta,
) -> Exit:
    clock = SystemClock()
    end = None if timeout is None else clock.monotonic() + timeout.total_seconds()
    look: Look | None = None
    while True:
        look, entries = await _look(mesh, run_id, look)
        screen.saw(look, entries)
        left = math.inf if end is None else end - clock.monotonic()
        outcome = _outcome(look, left)
        if outcome is not None:
            screen.ended(look, outcome)
            return outcome
        await clock.sleep(min(interval.total_seconds(), left))


def _outcome(look: Look, left: float) -> Exit | None:
    if look.is_over:
        return Exit.OK if look.run.status == "completed" else Exit.RUN_FAILED
    return Exit.STILL_WAITING if left <= 0 else None


async def _look(
    mesh: SquidMesh, run_id: str, before: Look | None
) -> tuple[Look, tuple[Entry, ...]]:
    """Look again; the history is read only if the run has changed."""
    seen = 0
    run: Run | None = None
    if before is not None:
        found = await mesh.inspect_run(run_id)
        seen = before.run.revision
        run = before.run if found.revision == seen else None
    run = run or await mesh.inspect_run(run_id, include_history=True)
    look = Look(
        run=run,
        graph=await mesh.graph(run_id),
        explanation=await mesh.explain_run(run_id),
        at=now(),
    )
    return look, tuple(entry for entry in run.entries or () if entry.seq > seen)
