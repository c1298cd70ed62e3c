"""Errors as somebody at a prompt needs them: one sentence, a code, and the command that helps."""

import enum
from collections.abc import Iterable, Mapping

import attrs
import click

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


class Exit(enum.IntEnum):
    """What the process says with its exit status."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4
    NOT_MIGRATED = 5
    RUN_FAILED = 6
    STILL_WAITING = 7
    INTERRUPTED = 130


class CommandError(SquidMeshError):
    """Something that only the command line can complain about."""

    def __init__(
        self,
        message: str,
        *,
        code: str,
        exit_code: Exit,
        advice: str | None = None,
        details: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message, code=code, details=dict(details or {}))
        self.exit_code = exit_code
        self.advice = advice


@attrs.frozen(kw_only=True)
class Complaint:
    """An error, ready to be printed; *advice* is a command, or None if the usage is to be shown."""

    message: str
    code: str
    details: Mapping[str, object]
    exit_code: Exit
    advice: str | None

    def as_line(self) -> str:
        """The complaint for a person; what the message lists stands on lines of its own."""
        first, *rest = self.message.splitlines() or [""]
        head = f"error: {first} [{self.code}]"
        if not rest:
            return f"{head} Try: {self.advice}" if self.advice else head
        return "\n".join([head, *rest, *([f"Try: {self.advice}"] if self.advice else [])])

    def as_document(self) -> dict[str, object]:
        """The complaint for a program."""
        error = {"code": self.code, "message": self.message, "details": dict(self.details)}
        return {"error": error if self.advice is None else {**error, "try": self.advice}}


def complaint_of(problem: SquidMeshError) -> Complaint:
    """What is to be said about an error of the library, or of the command line itself."""
    own_advice = problem.advice if isinstance(problem, CommandError) else None
    return Complaint(
        message=_message_of(problem),
        code=problem.code,
        details=problem.details,
        exit_code=_exit_of(problem),
        advice=own_advice or _advice_for(problem),
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
        case NotPausedError():
            found = f"; an open {details['found']} is" if details["found"] else ""
            return f"The run is {details['from']} and waits for no {details['expected']}{found}."
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
        case _:
            return str(problem)


def _advice_for(problem: SquidMeshError) -> str | None:
    match problem:
        case RunNotFoundError() | InvalidRunIdError():
            return "squidmesh runs list"
        case InvalidTransitionError() | UnsafeReplayError() | StoreConflictError():
            return "squidmesh runs explain RUN"
        case SchemaNotMigratedError():
            return "squidmesh migrate"
        case UnknownWorkflowError():
            return "squidmesh worker --help"
        case DefinitionError():
            return "the same command again, once these are repaired"
        case _:
            return None


def _listed(names: object) -> str:
    known = [str(name) for name in names] if isinstance(names, Iterable) else []
    return ", ".join(known) or "none"
