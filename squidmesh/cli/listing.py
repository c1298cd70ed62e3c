"""`squidmesh runs list`: which runs there are, newest first, a page at a time."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import click

from squidmesh import Run, RunPage, SquidMesh
from squidmesh.cli.documents import run_document
from squidmesh.cli.layout import Line, Span, Table, words
from squidmesh.cli.moments import now, rough, span_of
from squidmesh.cli.opening import ask
from squidmesh.cli.options import MOMENT, PAIR, STATUSES, store_options
from squidmesh.cli.settings import Settings
from squidmesh.cli.styles import marked, style_of


@click.command("list")
@click.option("--workflow", help="Runs of this workflow only.")
@click.option(
    "--status",
    multiple=True,
    type=click.Choice(STATUSES),
    metavar="STATUS",
    help=f"Runs that are {', '.join(STATUSES[:-1])} or {STATUSES[-1]}; repeat for several.",
)
@click.option("--tag", "tags", multiple=True, type=PAIR, help="Runs with this tag; repeatable.")
@click.option("--started-after", type=MOMENT, help="Started after this time, or less ago: 90m.")
@click.option("--started-before", type=MOMENT, help="Started before this time, or longer ago.")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="Runs on a page."
)
@click.option("--cursor", help="Where the page before ended.")
@store_options
@click.pass_obj
def list_(
    settings: Settings,
    *,
    workflow: str | None,
    status: Sequence[str],
    tags: Sequence[tuple[str, str]],
    started_after: datetime | None,
    started_before: datetime | None,
    limit: int,
    cursor: str | None,
) -> None:
    """List runs, newest first."""

    async def question(mesh: SquidMesh) -> RunPage:
        return await mesh.list_runs(
            workflow=workflow,
            status=tuple(status) or None,
            tags=dict(tags) or None,
            started_after=started_after,
            started_before=started_before,
            limit=limit,
            cursor=cursor,
        )

    page = ask(settings, question)
    terminal = settings.terminal
    if terminal.json:
        runs = [run_document(run) for run in page.runs]
        terminal.document({"runs": runs, "next_cursor": page.next_cursor})
        return
    if not page.runs:
        is_filtered = any((workflow, status, tags, started_after, started_before, cursor))
        terminal.show(words("No run fits." if is_filtered else "There are no runs yet."))
        return
    terminal.show(_table(page.runs, now()))
    if page.next_cursor is not None:
        again = settings.typed(without=("--cursor",))
        terminal.note(f"{len(page.runs)} shown; more: {again} --cursor {page.next_cursor}")


def _table(runs: Sequence[Run], at: datetime) -> Table:
    head = ("run", "workflow", "status", "step", "started", "took", "tags")
    table = Table(head, tuple(_row(run, at) for run in runs), ("took", "tags", "started"))
    return table if any(run.tags for run in runs) else table.without("tags")


def _error_told(error: Mapping[str, Any]) -> str:
    details = error.get("details") or {}
    left = ", not undone" if details.get("compensation_failures") else ""
    return f"{error['code']}{left}"


def _row(run: Run, at: datetime) -> tuple[Line, ...]:
    error = _error_told(run.error) if run.error is not None else ""
    place = run.current_step or ""
    tags = ", ".join(f"{key}={value}" for key, value in run.tags.items())
    return (
        words(run.id),
        words(run.workflow),
        marked(run.status),
        words(f"{place}: " if place and error else place, Span(error, style_of("failed"))),
        words(f"{rough(at - run.started_at)} ago"),
        words(span_of(run.ended_at - run.started_at) if run.ended_at else ""),
        words(tags),
    )
