"""`squidmesh migrate`: the tables, made or brought up to date; or their SQL."""

import asyncio

import click

from squidmesh import SquidMesh
from squidmesh.cli.layout import words
from squidmesh.cli.options import store_options
from squidmesh.cli.settings import Settings


@click.command()
@click.option("--sql", is_flag=True, help="Print the statements instead, and touch nothing.")
@store_options
@click.pass_obj
def migrate(settings: Settings, *, sql: bool) -> None:
    """Create or upgrade the tables; doing it again changes nothing."""
    terminal, url = settings.terminal, settings.store_url
    if sql:
        statements = SquidMesh.migration_sql(url, **settings.in_store)
        if terminal.json:
            terminal.document({"sql": statements})
        else:
            terminal.text(statements)
        return

    async def migrated() -> int:
        async with SquidMesh.open(url, **settings.in_store) as mesh:
            return await mesh.migrate()

    version = asyncio.run(migrated())
    if terminal.json:
        terminal.document({"version": version})
        return
    terminal.show(words(f"The tables stand at version {version}."))
