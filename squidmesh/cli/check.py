"""`squidmesh check`: whether the code can be deployed over the runs that are in flight."""

from collections.abc import Iterator
from typing import Final

import click

from squidmesh import CheckReport, Obstacle, SquidMesh, VersionCheck
from squidmesh.cli.documents import check_document
from squidmesh.cli.failures import CommandError, Exit
from squidmesh.cli.layout import Block, Line, Sheet, Span, Table, words
from squidmesh.cli.loading import workflows_at
from squidmesh.cli.opening import ask
from squidmesh.cli.options import app_option, store_options
from squidmesh.cli.settings import Settings
from squidmesh.cli.styles import bold, dim, marked

MOST_SHOWN: Final = 5
"""How many runs stand below an obstacle; a program finds more of them in JSON."""

_DIGITS: Final = 8


@click.command()
@click.option("--workflow", help="Runs of this workflow only.")
@app_option
@store_options
@click.pass_context
def check(context: click.Context, workflow: str | None) -> None:
    """Compare the code with the runs in flight, before it is deployed.

    The exit status is 0 if a fitting function was found for every step that they have ahead, and 4
    if some are blocked. Types are not compared. Nothing is claimed or written; a role that may only
    read will do.
    """
    settings = context.ensure_object(Settings)

    async def question(mesh: SquidMesh) -> CheckReport:
        report = await mesh.check_runs(workflow=workflow)
        if workflow is not None and not report.runs:
            await _check_is_known(mesh, settings, workflow)
        return report

    report = ask(settings, question, with_code=True)
    if settings.terminal.json:
        settings.terminal.document(check_document(report))
    elif report.runs:
        settings.terminal.show(*_told(report))
    else:
        settings.terminal.show(_nothing_in_flight(workflow))
    context.exit(Exit.OK if report.ok else Exit.REFUSED)


async def _check_is_known(mesh: SquidMesh, settings: Settings, workflow: str) -> None:
    """Refuse a name that is most likely a slip: neither the code nor any run ever had it.

    Raises:
        CommandError: There is no such workflow.
    """
    declared = workflows_at(settings)
    known = {one.definition.name if isinstance(one, type) else one.name for one in declared}
    if workflow in known or (await mesh.list_runs(workflow=workflow, limit=1)).runs:
        return
    names = ", ".join(sorted(known))
    raise CommandError(
        f"There is no workflow {workflow}: {settings.app} has {names}, and no run in the store is"
        " of that name.",
        code="unknown_workflow",
        exit_code=Exit.NOT_FOUND,
        advice=settings.typed(without=("--workflow",)),
        details={"workflow": workflow, "known": sorted(known)},
    )


def _nothing_in_flight(workflow: str | None) -> Line:
    return words(f"No run{f' of {workflow}' if workflow else ''} is in flight.")


def _told(report: CheckReport) -> Iterator[Block]:
    """Each version on a line, what is in the way of its runs, and the verdict."""
    yield _table(report)
    for version in report.versions:
        if version.obstacles:
            yield words("")
            yield _headline(version)
            yield Sheet(tuple(_reasons(version)))
            yield from _blocked(version)
    yield words("")
    yield from _verdict(report)


def _table(report: CheckReport) -> Table:
    head = ("workflow", "version", "definition", "runs", "safe", "blocked", "note")
    table = Table(head, tuple(map(_row, report.versions)), ("definition", "note"))
    return table if any(one.version for one in report.versions) else table.without("version")


def _row(version: VersionCheck) -> tuple[Line, ...]:
    return (
        words(version.workflow),
        words(version.version or ""),
        words(version.fingerprint[:_DIGITS]),
        words(str(version.runs)),
        words(str(version.safe)),
        words(Span(str(version.blocked), "red") if version.blocked else dim("0")),
        words(dim(", ".join(_notes(version)))),
    )


def _notes(version: VersionCheck) -> Iterator[str]:
    if any(obstacle.code == "unknown_workflow" for obstacle in version.obstacles):
        yield "not in the code"
    else:
        yield "as declared today" if version.registered else "as declared then"
    if version.paused:
        yield f"{version.paused} paused"


def _headline(version: VersionCheck) -> Line:
    label = f" {version.version}" if version.version else ""
    return words(
        Span(f"✗ {version.workflow}{label}", "bold red"),
        dim(f"  {version.fingerprint[:_DIGITS]}  "),
        f"{_counted(version.blocked)} blocked",
    )


def _reasons(version: VersionCheck) -> Iterator[tuple[str, Line]]:
    for obstacle, runs in version.obstacles.items():
        part = () if runs == version.runs else (dim(f"  {runs} of {version.runs} runs"),)
        yield "Why", words(obstacle.message, *part)
        yield "Helps", words(obstacle.remedy)


def _blocked(version: VersionCheck) -> Iterator[Block]:
    """The newest runs that are blocked, and where."""
    shown = version.listed[:MOST_SHOWN]
    rows = tuple(
        (
            words(run.run_id),
            marked(run.status),
            words(run.current_step or ""),
            words(", ".join(dict.fromkeys(map(_place, run.obstacles)))),
        )
        for run in shown
    )
    table = Table(("run", "status", "step", "blocked at"), rows, ("step",))
    is_somewhere = any(obstacle.step for obstacle in version.obstacles)
    yield table if is_somewhere else table.without("blocked at")
    more = version.blocked - len(shown)
    if more:
        yield words(dim(f"and {more} more"))


def _place(obstacle: Obstacle) -> str:
    step = obstacle.step or ""
    return f"undoing {step}" if obstacle.phase == "compensation" else step


def _verdict(report: CheckReport) -> Iterator[Line]:
    if report.ok:
        have = "this run has" if report.runs == 1 else f"these {report.runs} runs have"
        found = f"A fitting function was found for every step that {have} ahead."
        yield words(Span("✓ ", "green"), bold(found), " Types are not compared.")
    else:
        are = "is" if report.blocked == 1 else "are"
        whole = f"{report.blocked} of {report.runs} runs" if report.runs > 1 else "The run"
        of_all = f"{whole} in flight {are} blocked"
        helps = "or let workers with the old code finish them first"
        yield words(Span("✗ ", "red"), bold(f"{of_all}."), f" Keep what they need, {helps}.")
    own = sum(version.safe for version in report.versions if not version.registered)
    if own:
        they = "1 run goes on as it was" if own == 1 else f"{own} runs go on as they were"
        yield words(dim(f"{they} declared at the start."))


def _counted(runs: int) -> str:
    return "1 run is" if runs == 1 else f"{runs} runs are"
