"""`squidmesh demo`: finds the payment recovery example, and runs it."""

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

import squidmesh
from squidmesh.cli.options import answer_options
from squidmesh.cli.problems import CommandError, Exit
from squidmesh.cli.settings import Settings

EXAMPLE: Final = "examples.payment_recovery.demo"
INVOICES: Final = 300
FEW_INVOICES: Final = 40


@click.command()
@click.option("--fast", is_flag=True, help=f"Only {FEW_INVOICES} invoices.")
@click.option("--invoices", type=click.IntRange(1), help=f"How many.  [default: {INVOICES}]")
@click.option("--seed", type=int, default=7, show_default=True, help="What chance begins with.")
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Keep the database and everything else here.",
)
@answer_options
@click.pass_context
def demo(
    context: click.Context, *, fast: bool, invoices: int | None, seed: int, keep: Path | None
) -> None:
    """Chase a few hundred failed payments, with a worker killed half-way."""
    settings = context.ensure_object(Settings)
    if not settings.color:
        os.environ["NO_COLOR"] = "1"  # the processes that the demo starts see it too
    status = find_demo()(
        directory=keep,
        json_output=settings.json,
        invoices=invoices or (FEW_INVOICES if fast else INVOICES),
        seed=seed,
    )
    context.exit(status)


def find_demo() -> Callable[..., int]:
    """Return the example's entry: the one beside a checkout, else the one shipped in the wheel.

    Raises:
        CommandError: Neither is there.
    """
    checkout = Path(squidmesh.__file__).resolve().parent.parent
    for name, folder in ((EXAMPLE, checkout), (f"squidmesh.{EXAMPLE}", None)):
        if folder is not None and not folder.joinpath(*name.split(".")).with_suffix(".py").exists():
            continue
        if folder is not None and str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
        if folder is not None or _is_importable(name):
            entry: Callable[..., int] = importlib.import_module(name).main
            return entry
    raise CommandError(
        "The example is not part of this installation.",
        code="no_example",
        exit_code=Exit.NOT_FOUND,
        advice="squidmesh --help",
    )


def _is_importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
