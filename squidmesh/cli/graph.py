"""`squidmesh runs graph`: the whole picture of a run, with the steps that are still to come."""

import click

from squidmesh import Run, RunGraph, SquidMesh
from squidmesh.cli.finding import find_run
from squidmesh.cli.moments import now
from squidmesh.cli.opening import ask
from squidmesh.cli.options import run_argument, store_options
from squidmesh.cli.pictures import picture
from squidmesh.cli.settings import Settings


@click.command()
@run_argument
@click.option(
    "--format",
    "form",
    type=click.Choice(["tree", "mermaid", "json"]),
    default="tree",
    show_default=True,
    help="How to draw it; mermaid is text that GitHub and others draw.",
)
@store_options
@click.pass_obj
def graph(settings: Settings, run: str, form: str) -> None:
    """Draw a run: what is done, what runs, what is still to come."""
    terminal = settings.terminal

    async def question(mesh: SquidMesh) -> tuple[Run, RunGraph]:
        run_id = await find_run(mesh, run, settings)
        # One after the other: a picture that is one commit older than its steps does no harm.
        return await mesh.inspect_run(run_id, include_history=True), await mesh.graph(run_id)

    found, drawn = ask(settings, question)
    if form == "mermaid" and terminal.json:
        terminal.document({"run_id": found.id, "mermaid": drawn.to_mermaid()})
    elif form == "mermaid":
        terminal.text(drawn.to_mermaid())
    elif form == "json" or terminal.json:
        terminal.document(drawn.to_dict())
    else:
        terminal.show(picture(found, drawn, now()))
