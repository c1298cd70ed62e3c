"""Every exception that the library raises at its door.

    SquidMeshError
    ├── DefinitionError                 a workflow that cannot work; lists every problem
    ├── InvalidPayloadError             (ValueError)   lists every field that does not fit
    ├── InvalidOptionError              (ValueError)   an argument that means nothing here
    ├── InvalidRunIdError               (ValueError)   a run id is the text of a UUID
    ├── InvalidReviewError              actor, comment or metadata of a decision
    ├── InvalidPayloadForExecutorError  a delivery that no runner can understand
    ├── RunNotFoundError                (LookupError)
    ├── UnknownWorkflowError            not registered with this mesh
    ├── UnknownTriggerError             not declared by the workflow
    ├── RunExistsError                  the run id is taken
    ├── IdempotencyConflictError        the key was used for something else
    ├── InvalidTransitionError          the run's status does not allow it
    │   └── NotPausedError              no manual step of that kind is open
    ├── UnsafeReplayError               names the steps that cannot be undone
    ├── IncompatibleDefinitionError     the run and the definition do not fit together
    ├── DispatchFailedError             the executor refused inside the commit: nothing happened
    ├── ClaimLostError                  somebody else, or nobody, holds the attempt now
    ├── StoreConflictError              we gave up after losing too many races
    ├── StoreUnavailableError           the database did not answer in time
    ├── SchemaNotMigratedError          names the command that helps
    ├── JournalCorruptError             what is stored contradicts itself
    ├── PayloadTooLargeError            over the limit of bytes
    └── UnserializableValueError        JSON cannot hold the value exactly

Each has a stable ``code`` (the class name in snake_case, without Error, unless its constructor
says otherwise) and JSON-safe ``details``. Messages name keys, fields and ids, never the values
of a payload and never a token, so that they can be logged. All survive pickling and copying.
The tree is long and stands in one module, so that a reader sees all that may be raised.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from squidmesh.domain.commands import (
    AlreadyStarted,
    CannotStartThere,
    ClaimIsStale,
    KeyAlreadyUsed,
    LeadsElsewhere,
    MoveIsIllegal,
    NotClaimable,
    NotPaused,
    Refusal,
    ReplayIsUnsafe,
)
from squidmesh.domain.definition import Problem
from squidmesh.domain.values import Json, JsonObject

_LONGEST_NAME = 120


def _revive(kind: type["SquidMeshError"], args: tuple[object, ...]) -> "SquidMeshError":
    """Make the exception without asking its constructor, which takes facts and not a message."""
    return kind.__new__(kind, *args)


def _clean(text: str) -> str:
    """Show *text* on one line: printable, and no longer than a name needs to be."""
    shown = text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}…"
    if shown.isprintable():
        return shown
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in shown
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(_clean(name) for name in names) or "none"


class SquidMeshError(Exception):
    """The root of the tree: catch it to catch everything that the library raises on purpose."""

    code: str = "squid_mesh"
    details: JsonObject

    def __init_subclass__(cls) -> None:
        """Give the class its code, unless its body states one."""
        super().__init_subclass__()
        if "code" not in vars(cls):
            name = cls.__name__.removesuffix("Error")
            cls.code = re.sub(r"(?<=.)(?=[A-Z])", "_", name).lower()

    def __init__(
        self, message: str, *, code: str | None = None, details: Mapping[str, Json] | None = None
    ) -> None:
        super().__init__(message)
        self.details = dict(details or {})
        if code is not None:
            self.code = code

    def __reduce__(self) -> tuple[object, ...]:
        """Carry message and attributes: what the constructor takes differs from class to class."""
        return _revive, (type(self), self.args), vars(self).copy()


class DefinitionError(SquidMeshError):
    """A workflow that cannot work; *problems* lists everything that is wrong with it, at once."""

    def __init__(self, workflow: str, problems: Sequence[Problem]) -> None:
        self.workflow = workflow
        self.problems = tuple(problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = [f"The workflow {_clean(workflow)} cannot work ({count}):"]
        lines += [
            f"  {'.'.join(str(part) for part in problem.path) or 'workflow'}: "
            f"{problem.message} [{problem.code}]"
            for problem in problems
        ]
        listed: list[Json] = [
            {"path": list(problem.path), "code": problem.code, "message": problem.message}
            for problem in problems
        ]
        super().__init__("\n".join(lines), details={"workflow": workflow, "problems": listed})


class InvalidPayloadError(SquidMeshError, ValueError):
    """A payload that does not fit its contract.

    *missing* and *unknown* are names of fields; *invalid* says for a field what was expected,
    without repeating what was given.
    """

    def __init__(
        self,
        *,
        missing: Iterable[str] = (),
        unknown: Iterable[str] = (),
        invalid: Mapping[str, str] | None = None,
    ) -> None:
        self.missing = tuple(_clean(name) for name in missing)
        self.unknown = tuple(sorted(_clean(name) for name in unknown))
        self.invalid = {_clean(name): reason for name, reason in (invalid or {}).items()}
        parts = [
            f"{label} {', '.join(names)}"
            for label, names in (("missing", self.missing), ("unknown", self.unknown))
            if names
        ]
        parts += [f"{name} {reason}" for name, reason in self.invalid.items()]
        super().__init__(
            f"The payload does not fit: {'; '.join(parts) or 'it is not an object'}.",
            details={
                "missing": list(self.missing),
                "unknown": list(self.unknown),
                "invalid": dict(self.invalid),
            },
        )


class InvalidOptionError(SquidMeshError, ValueError):
    """An argument that means nothing here; a more exact *code* may be given."""

    def __init__(self, option: str, message: str, *, code: str | None = None) -> None:
        self.option = option
        super().__init__(message, code=code, details={"option": option})


class InvalidRunIdError(SquidMeshError, ValueError):
    """A run id that is not the text of a UUID."""

    def __init__(self, run_id: object) -> None:
        shown = (
            _clean(run_id)
            if isinstance(run_id, str)
            else f"an object of type {type(run_id).__name__}"
        )
        super().__init__(
            f"A run id is the text of a UUID, and this is not one: {shown}.",
            details={"run_id": shown},
        )


class InvalidReviewError(SquidMeshError):
    """A decision whose actor, comment or metadata cannot be recorded; *field* names which."""

    def __init__(self, field: str, message: str) -> None:
        self.field = field
        super().__init__(message, details={"field": field})


class InvalidPayloadForExecutorError(SquidMeshError):
    """A delivery that no runner can understand; delivering it again does not help."""


class RunNotFoundError(SquidMeshError, LookupError):
    """No run has this id, in this store."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        shown = _clean(run_id)
        super().__init__(
            f"There is no run {shown} in this store; list_runs() shows those that there are.",
            details={"run_id": shown},
        )


class UnknownWorkflowError(SquidMeshError):
    """A workflow that this mesh was not given; *known* are the names that it was."""

    def __init__(self, name: str, known: Iterable[str] = ()) -> None:
        names = sorted(known)
        super().__init__(
            f"No workflow {_clean(name)} is registered here (registered: {_listed(names)}); "
            "pass it in workflows= when the mesh is opened.",
            details={"workflow": _clean(name), "known": list(names)},
        )


class UnknownTriggerError(SquidMeshError):
    """A trigger that the workflow does not declare; *known* are those that it does."""

    def __init__(self, workflow: str, trigger: str, known: Iterable[str] = ()) -> None:
        names = list(known)
        super().__init__(
            f"{_clean(workflow)} declares no trigger {_clean(trigger)} "
            f"(declared: {_listed(names)}).",
            details={"workflow": workflow, "trigger": _clean(trigger), "known": list(names)},
        )


class RunExistsError(SquidMeshError):
    """A run with this id exists already, and nothing was written."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        super().__init__(
            f"A run {_clean(run_id)} exists already; to get it back instead of this error, "
            "start it with an idempotency_key.",
            details={"run_id": _clean(run_id)},
        )


class IdempotencyConflictError(SquidMeshError):
    """The idempotency key belongs to another command, or to the same one with other input."""

    def __init__(self, key: str) -> None:
        super().__init__(
            f"The idempotency key {_clean(key)} was used before, for another command or with "
            "other input; a key names one command with one input.",
            details={"key": _clean(key)},
        )


class InvalidTransitionError(SquidMeshError):
    """The run's status does not allow it, and nothing was written."""

    def __init__(self, from_: str, to: str) -> None:
        told = (
            f"The run is {from_} already"
            if from_ == to
            else f"A run that is {from_} cannot become {to}"
        )
        super().__init__(
            f"{told}; explain_run() says what may be done.",
            details={"from": from_, "to": to},
        )


class NotPausedError(InvalidTransitionError):
    """No manual step of the *expected* kind is open; *found* is the kind that is, if any."""

    def __init__(self, expected: str, found: str | None = None, *, status: str = "paused") -> None:
        cure = {
            "pause": "a pause is open, which resume_run() ends",
            "approval": "an approval is open, which approve_run() or reject_run() decides",
        }.get(found or "", "explain_run() says what may be done")
        SquidMeshError.__init__(
            self,
            f"The run is {status} and waits for no {expected}; {cure}.",
            details={"from": status, "to": "running", "expected": expected, "found": found},
        )


class UnsafeReplayError(SquidMeshError):
    """Completed *steps* that are irreversible, or cannot be undone, would run again."""

    def __init__(self, steps: Iterable[str]) -> None:
        self.steps = tuple(steps)
        super().__init__(
            f"A replay would repeat what cannot be undone: {_listed(self.steps)}; "
            "pass allow_irreversible=True if that is meant, or from_step= to start after it.",
            details={"steps": list(self.steps)},
        )


class IncompatibleDefinitionError(SquidMeshError):
    """What the run was started under and what is registered now do not fit together."""

    def __init__(self, workflow: str, reason: str, *, run_id: str | None = None) -> None:
        super().__init__(
            f"The definition of {_clean(workflow)} does not fit: {reason}.",
            details={"workflow": _clean(workflow), "run_id": run_id, "reason": reason},
        )


class DispatchFailedError(SquidMeshError):
    """The executor refused the wake-up inside the commit, so the command was rolled back."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"The executor did not take the wake-up, and nothing was written: {reason}.",
            details={"reason": reason},
        )


class ClaimLostError(SquidMeshError):
    """The claim no longer counts; *holder* is who has the attempt now, None if nobody has."""

    def __init__(self, run_id: str, step: str, attempt: int, holder: str | None = None) -> None:
        self.holder = holder
        now = f"{_clean(holder)} holds it now" if holder else "nobody holds it now"
        super().__init__(
            f"The claim on attempt {attempt} of {_clean(step)} in run {_clean(run_id)} is lost: "
            f"{now}; nothing that this worker reports about it is recorded.",
            details={"run_id": run_id, "step": step, "attempt": attempt, "holder": holder},
        )


class StoreConflictError(SquidMeshError):
    """Others committed first, again and again, until we gave up; nothing was written."""

    def __init__(
        self, reason: str = "others committed first", *, run_id: str | None = None
    ) -> None:
        super().__init__(
            f"Nothing was written: {reason}; the same call may be made again.",
            details={"reason": reason, "run_id": run_id},
        )


class StoreUnavailableError(SquidMeshError):
    """The database did not answer; *reason* must not hold a connection string."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The store cannot be reached: {reason}.", details={"reason": reason})


class SchemaNotMigratedError(SquidMeshError):
    """The store's tables are missing, or are not those that this release works with."""

    def __init__(self, found: int | None, needed: int) -> None:
        if found is not None and found > needed:
            state = f"a newer release has brought it to version {found}"
            cure = "upgrade squidmesh in this process"
        else:
            state = "it has no tables yet" if found is None else f"it stands at version {found}"
            cure = "run `squidmesh migrate`, or await mesh.migrate()"
        super().__init__(
            f"The store's schema needs to be at version {needed}, and {state}: {cure}.",
            details={"found": found, "needed": needed},
        )


class JournalCorruptError(SquidMeshError):
    """What is stored about a run cannot be read, or contradicts itself."""

    def __init__(self, run_id: str, reason: str) -> None:
        super().__init__(
            f"The journal of run {_clean(run_id)} cannot be trusted: {reason}. "
            "The run is left as it is.",
            details={"run_id": _clean(run_id), "reason": reason},
        )


class PayloadTooLargeError(SquidMeshError):
    """A value whose JSON has more bytes than the limit; *size* is None if counting was stopped."""

    def __init__(self, size: int | None, limit: int) -> None:
        measured = f"over {limit:,}" if size is None else f"{size:,}"
        super().__init__(
            f"The value takes {measured} bytes as JSON, and the limit is {limit:,}; "
            "keep the data elsewhere and pass a reference, or raise max_payload_bytes.",
            details={"size": size, "limit": limit},
        )


class UnserializableValueError(SquidMeshError):
    """JSON cannot hold the value at *path* exactly; *reason* is stable, *kind* its Python type."""

    _WORDS: ClassVar[Mapping[str, str]] = {
        "nan": "it is not a number",
        "infinity": "it is infinite",
        "integer_out_of_range": "the integer does not fit 64 bits",
        "lone_surrogate": "the text holds half of a surrogate pair",
        "nul_character": "the text holds a NUL character",
        "non_string_key": "a key of the object is not a string",
        "duplicate_key": "two keys of the object are the same text",
        "too_deep": "it is nested too deeply",
        "circular_reference": "it contains itself",
        "missing_attribute": "a field of the object was never set",
        "unsupported_type": "its type has no exact JSON form",
    }

    def __init__(self, path: str, reason: str, *, kind: str | None = None) -> None:
        self.path = path
        self.reason = reason
        words = self._WORDS.get(reason, reason)
        shown = f" ({_clean(kind)})" if kind else ""
        super().__init__(
            f"The value at {path} cannot be stored: {words}{shown}.",
            details={"path": path, "reason": reason, "type": kind},
        )


def error_for(refusal: Refusal, run_id: str) -> SquidMeshError:
    """The exception that tells a caller why nothing was changed."""
    match refusal:
        case AlreadyStarted(run_id=taken):
            return RunExistsError(taken)
        case KeyAlreadyUsed(key=key):
            return IdempotencyConflictError(key)
        case MoveIsIllegal(source=source, target=target):
            return InvalidTransitionError(source.value, target.value)
        case NotPaused(status=status, expected=expected, found=found):
            kind = found.value if found is not None else None
            return NotPausedError(expected.value, kind, status=status.value)
        case ClaimIsStale(attempt=attempt, holder=holder):
            return ClaimLostError(run_id, attempt.step, attempt.number, holder)
        case NotClaimable(attempt=attempt):
            return ClaimLostError(run_id, attempt.step, attempt.number)
        case ReplayIsUnsafe() | CannotStartThere() | LeadsElsewhere():
            return _error_of_replay(refusal, run_id)


def _error_of_replay(
    refusal: ReplayIsUnsafe | CannotStartThere | LeadsElsewhere, run_id: str
) -> SquidMeshError:
    match refusal:
        case ReplayIsUnsafe(steps=steps):
            return UnsafeReplayError(steps)
        case CannotStartThere(step=step):
            return InvalidOptionError(
                "from_step",
                f"A replay cannot start at {_clean(step)}: the run never reached it, or there is"
                " no such step.",
            )
        case LeadsElsewhere(workflow=workflow, step=step, before=before):
            reason = (
                f"in the run, {_listed(before)} came before {_clean(step)}, which is not so in"
                " the definition of today"
            )
            return IncompatibleDefinitionError(workflow, reason, run_id=run_id)
