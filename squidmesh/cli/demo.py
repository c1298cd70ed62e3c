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
from squidmesh.cli.failures import CommandError, Exit
from squidmesh.cli.options import answer_options
from squidmesh.cli.settings import Settings

EXAMPLE: Final = "examples.payment_recovery.demo"
EXAMPLE_FILE: Final = Path("examples", "payment_recovery", "demo.py")
INVOICES: Final = 300
FEW_INVOICES: Final = 40


@click.command(short_help="Chase failed payments, with a worker killed half-way.")
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
    """Return the example's entry: the one shipped in the package, else the one of a checkout.

    Raises:
        CommandError: Neither is there.
    """
    checkout = Path(squidmesh.__file__).resolve().parent.parent
    if _is_importable(f"squidmesh.{EXAMPLE}"):
        name = f"squidmesh.{EXAMPLE}"
    elif (checkout / "pyproject.toml").exists() and (checkout / EXAMPLE_FILE).exists():
        # Whatever else is called `examples` on this machine comes later.
        sys.path.insert(0, str(checkout))
        name = EXAMPLE
    else:
        raise CommandError(
            "The example is not part of this installation.",
            code="no_example",
            exit_code=Exit.NOT_FOUND,
            advice="squidmesh --help",
        )
    entry: Callable[..., int] = importlib.import_module(name).main
    return entry


def _is_importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
