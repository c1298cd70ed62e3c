"""`squidmesh grants`: what a role of PostgreSQL needs, and nothing more."""

import click

from squidmesh.cli.options import store_options
from squidmesh.cli.settings import Settings
from squidmesh.opening import grants_sql


@click.command()
@click.argument("role")
@click.option("--read-only", is_flag=True, help="For somebody who only asks, and decides nothing.")
@store_options
@click.pass_obj
def grants(settings: Settings, *, role: str, read_only: bool) -> None:
    """Print the statements that let ROLE work on a PostgreSQL store.

    Whoever owns the tables runs them, behind each `migrate`. A role may be a worker's, or that of
    an application that starts runs and decides; the journal is for it to append to, not to change.
    """
    statements = grants_sql(settings.store_url, role, settings.in_store, read_only=read_only)
    if settings.terminal.json:
        settings.terminal.document({"sql": statements})
    else:
        settings.terminal.text(statements)
