"""The command `squidmesh`: its groups, and the door at which every error becomes one line."""

import importlib.metadata
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from squidmesh.cli.check import check
from squidmesh.cli.control import approve, cancel, reject, replay, resume
from squidmesh.cli.demo import demo
from squidmesh.cli.explain import explain
from squidmesh.cli.failures import Exit
from squidmesh.cli.grants import grants
from squidmesh.cli.graph import graph
from squidmesh.cli.listing import list_
from squidmesh.cli.migrate import migrate
from squidmesh.cli.options import answer_options, app_option, postgres_options, url_option
from squidmesh.cli.problems import Complaint, complaint_of, complaint_of_usage
from squidmesh.cli.settings import Settings, speak_any_language
from squidmesh.cli.show import show
from squidmesh.cli.terminal import Terminal
from squidmesh.cli.watch import watch
from squidmesh.cli.worker import worker
from squidmesh.errors import SquidMeshError


class Ordered(click.Group):
    """A group that lists its commands in the order in which one meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, as they were added."""
        del ctx
        return list(self.commands)


class CommandLine(Ordered):
    """A group that turns errors into one line, and into the exit status that they mean."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: FBT001, FBT002  click's own signature
        **extra: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Run a command and leave the process with its exit status."""
        given = tuple(sys.argv[1:] if args is None else args)
        settings = Settings(arguments=given, json="--json" in given)
        if not standalone_mode:
            extra.setdefault("obj", settings)
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        status: object = Exit.OK
        try:
            status = super().main(
                args=list(given),
                prog_name=prog_name or "squidmesh",
                complete_var=complete_var,
                standalone_mode=False,
                obj=settings,
                **extra,
            )
        except SquidMeshError as problem:
            status = _complain(settings, complaint_of(problem, settings))
        except click.exceptions.NoArgsIsHelpError as problem:
            problem.show()
            status = Exit.USAGE
        except click.ClickException as problem:
            status = _complain(settings, complaint_of_usage(problem))
        except click.Abort:
            settings.terminal.note("interrupted")
            status = Exit.INTERRUPTED
        except BrokenPipeError:
            # Whoever read the answer has gone; what Python flushes at its end goes nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            status = Exit.FAILED
        sys.exit(int(status) if isinstance(status, int) else Exit.OK)


def _complain(settings: Settings, complaint: Complaint) -> Exit:
    terminal: Terminal = settings.terminal
    if terminal.json:
        terminal.document(complaint.as_document())
    terminal.note(complaint.as_line())
    return complaint.exit_code


def _say_version(context: click.Context) -> None:
    try:
        version = importlib.metadata.version("squidmesh")
    except importlib.metadata.PackageNotFoundError:
        version = "(not installed)"
    click.echo(f"squidmesh {version}")
    context.exit()


@click.group(
    cls=CommandLine,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit status: 0 done, 1 failed, 2 misunderstood, 3 not found, 4 refused as unsafe or in "
    "conflict, 5 tables missing, 6 the watched run failed, 7 still waiting at --timeout.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda context, _, wanted: _say_version(context) if wanted else None,
    help="Say the version and leave.",
)
@url_option
@postgres_options
@app_option
@answer_options
def cli() -> None:
    """Durable workflows inside your application: work on runs, ask about them, decide them."""


for command in (demo, worker, check, migrate, grants):
    cli.add_command(command)


@cli.group(cls=Ordered)
def runs() -> None:
    """Ask about runs, and decide what happens to them.

    RUN is a run id, its beginning (4 characters or more) if no other run shares it, or `last`.
    """


for command in (list_, show, explain, graph, watch, approve, reject, resume, cancel, replay):
    runs.add_command(command)


def main() -> None:
    """Be the command `squidmesh`."""
    speak_any_language()
    cli.main(prog_name="squidmesh")
