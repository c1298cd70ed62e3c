"""Errors as somebody at a prompt needs them: one sentence, a code, and the command that helps."""

from collections.abc import Iterable, Mapping
from typing import Final

import attrs
import click

from squidmesh.cli.failures import CommandError, Exit
from squidmesh.cli.settings import Settings
from squidmesh.errors import (
    ClaimLostError,
    DefinitionError,
    DispatchFailedError,
    IdempotencyConflictError,
    IncompatibleDefinitionError,
    InvalidOptionError,
    InvalidPayloadError,
    InvalidReviewError,
    InvalidRunIdError,
    InvalidTransitionError,
    NotPausedError,
    RunExistsError,
    RunNotFoundError,
    SchemaNotMigratedError,
    SquidMeshError,
    StoreConflictError,
    UnknownTriggerError,
    UnknownWorkflowError,
    UnsafeReplayError,
)


@attrs.frozen(kw_only=True)
class Complaint:
    """An error, ready to be printed; *advice* is the command that helps."""

    message: str
    code: str
    details: Mapping[str, object]
    exit_code: Exit
    advice: str

    def as_line(self) -> str:
        """The complaint for a person; what the message lists stands on lines of its own."""
        first, *rest = self.message.splitlines() or [""]
        if not rest:
            return f"error: {first} [{self.code}] Try: {self.advice}"
        return "\n".join([f"error: {first} [{self.code}]", *rest, f"Try: {self.advice}"])

    def as_document(self) -> dict[str, object]:
        """The complaint for a program."""
        error = {"code": self.code, "message": self.message, "details": dict(self.details)}
        return {"error": {**error, "try": self.advice}}


_ABOUT_THE_RUN: Final = frozenset({"run_not_found", "ambiguous_run_id", "invalid_run_id"})

_COMMANDS: Final = {
    "list_runs()": "`squidmesh runs list`",
    "explain_run()": "`squidmesh runs explain`",
    "await mesh.migrate()": "have the application do it",
    "pass it in workflows= when the mesh is opened": "name it in --app",
}
"""What the library's own words about Python mean at a prompt."""


_FLAGS: Final = {"queues": "queue", "tags": "tag"}
"""The options whose names at a prompt differ from those of the library's arguments."""


def complaint_of(problem: SquidMeshError, settings: Settings) -> Complaint:
    """What is to be said about an error of the library, or of the command line itself."""
    own_advice = problem.advice if isinstance(problem, CommandError) else None
    return Complaint(
        message=_message_of(problem),
        code=problem.code,
        details=problem.details,
        exit_code=_exit_of(problem),
        advice=own_advice or _advice_for(problem, settings),
    )


def complaint_of_usage(problem: click.ClickException) -> Complaint:
    """What is to be said about arguments that click could not make sense of."""
    context = problem.ctx if isinstance(problem, click.UsageError) else None
    path = context.command_path if context is not None else "squidmesh"
    return Complaint(
        message=problem.format_message(),
        code="usage",
        details={},
        exit_code=Exit.USAGE,
        advice=f"{path} --help",
    )


def _exit_of(problem: SquidMeshError) -> Exit:
    match problem:
        case CommandError():
            return problem.exit_code
        case (
            InvalidOptionError()
            | InvalidRunIdError()
            | InvalidReviewError()
            | UnknownTriggerError()
        ):
            return Exit.USAGE
        case RunNotFoundError() | UnknownWorkflowError():
            return Exit.NOT_FOUND
        case (
            InvalidTransitionError()
            | UnsafeReplayError()
            | IdempotencyConflictError()
            | RunExistsError()
            | InvalidPayloadError()
            | IncompatibleDefinitionError()
            | StoreConflictError()
            | DispatchFailedError()
            | ClaimLostError()
        ):
            return Exit.REFUSED
        case SchemaNotMigratedError():
            return Exit.NOT_MIGRATED
        case _:
            return Exit.FAILED


def _message_of(problem: SquidMeshError) -> str:
    """The error's own words, where they do not speak of Python calls."""
    details = problem.details
    match problem:
        case RunNotFoundError():
            return f"There is no run {details['run_id']} in this store."
        case NotPausedError() if details["found"]:
            kinds = {"approval": "an approval", "pause": "a pause"}
            found, expected = kinds[str(details["found"])], kinds[str(details["expected"])]
            return f"The run waits in {found}, not in {expected}."
        case NotPausedError():
            return f"The run is {details['from']} and waits for no {details['expected']}."
        case InvalidTransitionError():
            return f"A run that is {details['from']} cannot become {details['to']}."
        case UnsafeReplayError():
            steps = ", ".join(problem.steps)
            return (
                f"A replay would repeat what cannot be undone: {steps}; --allow-irreversible "
                "repeats it, --from-step STEP starts behind it."
            )
        case UnknownWorkflowError():
            return (
                f"The workflow {details['workflow']} is not among those of --app "
                f"({_listed(details.get('known'))})."
            )
        case InvalidReviewError():
            return f"This cannot be recorded as {problem.field}: {problem}"
        case InvalidOptionError():
            return _translated(_of_option(problem))
        case _:
            return _translated(str(problem))


def _of_option(problem: InvalidOptionError) -> str:
    """What is wrong with an argument, under the name that it has at a prompt."""
    message = str(problem).replace(" timedelta ", " duration ")
    name, found, rest = message.partition(" is ")
    flag = f"--{_FLAGS.get(name) or name.replace('_', '-')}"
    return f"{flag}{found}{rest}" if found and name == problem.option != "url" else message


def _translated(message: str) -> str:
    for call, command in _COMMANDS.items():
        message = message.replace(call, command)
    return message


def _advice_for(problem: SquidMeshError, settings: Settings) -> str:
    run = settings.run_id or "RUN"
    match problem:
        case RunNotFoundError() | InvalidRunIdError():
            return settings.command("runs", "list")
        case InvalidTransitionError() | UnsafeReplayError() | StoreConflictError():
            return settings.command("runs", "explain", run)
        case IdempotencyConflictError():
            return settings.command("runs", "show", run)
        case SchemaNotMigratedError():
            return settings.command("migrate")
        case InvalidOptionError(option="cursor"):
            return settings.typed(without=("--cursor",))
        case InvalidOptionError(option="step" | "from_step"):
            return settings.command("runs", "graph", run)
        case DefinitionError():
            return f"python -c 'import {(settings.app or 'MODULE').partition(':')[0]}'"
        case CommandError() if problem.code in _ABOUT_THE_RUN:
            return settings.command("runs", "list")
        case _:
            return f"{settings.command_path} --help"


def _listed(names: object) -> str:
    known = [str(name) for name in names] if isinstance(names, Iterable) else []
    return ", ".join(known) or "none"
