"""A mesh over the store that a command was pointed to, without making one by mistake."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from squidmesh import SquidMesh
from squidmesh.cli.failures import CommandError, Exit
from squidmesh.cli.loading import workflows_at
from squidmesh.cli.settings import Settings
from squidmesh.opening import check_url, path_of

Answer = TypeVar("Answer")


def ask(
    settings: Settings,
    question: Callable[[SquidMesh], Awaitable[Answer]],
    *,
    with_code: bool = False,
) -> Answer:
    """Open the store, put *question* to it, close it, and return the answer.

    The store has to be there already. Only with *with_code* are workflows imported.

    Raises:
        CommandError: No store is named, or there is none.
        SquidMeshError: Whatever the question raises.
    """
    check_is_there(settings)
    url, workflows = settings.store_url, workflows_at(settings) if with_code else ()

    async def asked() -> Answer:
        async with SquidMesh.open(url, workflows=workflows, **settings.in_store) as mesh:
            return await question(mesh)

    return asyncio.run(asked())


def check_is_there(settings: Settings) -> None:
    """Refuse a URL whose database would only come into being by looking at it.

    Raises:
        CommandError: There is no such database, or it has no tables of ours.
        InvalidOptionError: The URL makes no sense.
    """
    url = settings.store_url
    scheme = check_url(url)
    if scheme == "memory":
        settings.terminal.note(
            "note: memory:// is private to a process, so there is nothing in it to be seen here."
        )
    if scheme != "sqlite":
        return
    path = Path(path_of(url))
    if not path.exists():
        raise CommandError(
            f"There is no database at {url}: no such file.",
            code="no_such_database",
            exit_code=Exit.NOT_FOUND,
            advice=settings.command("migrate"),
            details={"url": url},
        )
    if path.is_file() and not _has_tables(path):
        raise CommandError(
            f"The database at {url} has no tables of squidmesh yet.",
            code="schema_not_migrated",
            exit_code=Exit.NOT_MIGRATED,
            advice=settings.command("migrate"),
            details={"url": url},
        )


def _has_tables(path: Path) -> bool:
    """Whether the file holds our tables; whatever cannot be read is left to the store to judge."""
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        try:
            row = connection.execute(
                "select count(*) from sqlite_schema where name = 'squidmesh_schema'"
            ).fetchone()
        finally:
            connection.close()
    except sqlite3.Error:
        return True
    return bool(row[0])
