"""The public interface, letter by letter: names, parameters, fields, errors."""

import inspect
import pickle  # noqa: TID251  errors travel between processes by it
import re
from datetime import timedelta
from typing import Any

import attrs
import pytest

import squidmesh
from squidmesh import errors
from squidmesh.domain.definition import Problem

_NAMES = """
    SquidMesh Workflow step wait log pause approval path manual cron Retry RetryPolicy StepContext
    Errored Deferred when compensation Worker Runner WorkflowDefinition
    DefinitionError InvalidPayloadError RunNotFoundError InvalidRunIdError UnknownWorkflowError
    UnknownTriggerError RunExistsError IdempotencyConflictError InvalidTransitionError
    NotPausedError InvalidReviewError InvalidOptionError UnsafeReplayError
    IncompatibleDefinitionError DispatchFailedError ClaimLostError StoreConflictError
    StoreUnavailableError SchemaNotMigratedError InvalidPayloadForExecutorError
    JournalCorruptError PayloadTooLargeError UnserializableValueError SquidMeshError
"""
DOCUMENTED = _NAMES.split()


@pytest.mark.parametrize("name", DOCUMENTED)
def test_every_documented_name_can_be_imported_from_the_top(name: str) -> None:
    assert name in squidmesh.__all__
    assert getattr(squidmesh, name) is not None


def test_all_is_sorted_and_true() -> None:
    assert squidmesh.__all__ == sorted(squidmesh.__all__)
    assert all(hasattr(squidmesh, name) for name in squidmesh.__all__)


ANY = object()
"""A default that the documents do not fix."""
NEEDED = inspect.Parameter.empty

SIGNATURES: dict[str, dict[str, Any]] = {
    "step": {
        "function": NEEDED,
        "*output": None,
        "*inputs": None,
        "*retry": None,
        "*timeout": None,
        "*after": None,
        "*compensate": None,
        "*irreversible": False,
        "*compensatable": None,
        "*transaction": False,
        "*queue": None,
    },
    "Retry": {
        "max_attempts": NEEDED,
        "*backoff_min": timedelta(0),
        "*backoff_max": None,
        "*jitter": 0.0,
    },
    "manual": {"*payload": None},
    "cron": {"expression": NEEDED, "*timezone": "UTC", "*payload": None, "*idempotency": None},
    "wait": {"duration": NEEDED, "*after": None},
    "log": {"message": NEEDED, "*level": "info", "*after": None},
    "pause": {"*output": None},
    "approval": {"*output": None},
    "compensation": {"function": NEEDED, "retry": ANY},
    "when": {"path": NEEDED, "*equals": ANY, "*greater_than": ANY, "*less_than": ANY},
    "Errored": {
        "message": NEEDED,
        "*code": "step_error",
        "*details": None,
        "*retryable": False,
        "*retry_after": None,
    },
    "Deferred": {"delay": NEEDED, "*reason": None},
    "Worker": {"mesh": NEEDED, "queues": ("default",), "concurrency": 64, "lease": None},
    "Runner": {"mesh": NEEDED},
    "Runner.perform": {"payload": NEEDED},
    "WorkflowDefinition.from_dict": {"data": NEEDED, "actions": ANY},
    "SquidMesh": {
        "*store": NEEDED,
        "*executor": None,
        "*workflows": ANY,
        "*clock": None,
        "*telemetry": None,
        "*ids": None,
        "*random": None,
    },
    "SquidMesh.open": {
        "url": NEEDED,
        "*workflows": ANY,
        "*executor": None,
        "*clock": None,
        "*telemetry": None,
        "*ids": None,
        "*random": None,
        "*lease": timedelta(seconds=60),
        "*max_deliveries": 5,
        "*max_payload_bytes": 2 * 1024 * 1024,
    },
    "SquidMesh.start_run": {
        "workflow": NEEDED,
        "payload": ANY,
        "*trigger": None,
        "*run_id": None,
        "*idempotency_key": None,
        "*queue": "default",
        "*priority": 0,
        "*concurrency_key": None,
        "*tags": None,
        "*connection": None,
    },
    "SquidMesh.start_runs": {
        "workflow": NEEDED,
        "payloads": NEEDED,
        "*trigger": None,
        "*queue": "default",
        "*idempotency_keys": None,
    },
    "SquidMesh.inspect_run": {"run_id": NEEDED, "*include_history": False, "*connection": None},
    "SquidMesh.explain_run": {"run_id": NEEDED, "*step": None},
    "SquidMesh.graph": {"run_id": NEEDED},
    "SquidMesh.list_runs": {
        "*workflow": None,
        "*status": None,
        "*tags": None,
        "*started_after": None,
        "*started_before": None,
        "*limit": 50,
        "*cursor": None,
    },
    "SquidMesh.cancel_run": {
        "run_id": NEEDED,
        "*actor": None,
        "*reason": None,
        "*idempotency_key": None,
        "*preview": False,
        "*connection": None,
    },
    "SquidMesh.resume_run": {
        "run_id": NEEDED,
        "*actor": None,
        "*comment": None,
        "*metadata": None,
        "*idempotency_key": None,
        "*preview": False,
        "*connection": None,
    },
    "SquidMesh.approve_run": {
        "run_id": NEEDED,
        "*actor": NEEDED,
        "*comment": None,
        "*metadata": None,
        "*idempotency_key": None,
        "*preview": False,
        "*connection": None,
    },
    "SquidMesh.reject_run": {
        "run_id": NEEDED,
        "*actor": NEEDED,
        "*comment": None,
        "*metadata": None,
        "*idempotency_key": None,
        "*preview": False,
        "*connection": None,
    },
    "SquidMesh.replay_run": {
        "run_id": NEEDED,
        "*allow_irreversible": False,
        "*from_step": None,
        "*idempotency_key": None,
        "*preview": False,
        "*connection": None,
    },
    "SquidMesh.recover": {"*older_than": timedelta(0)},
    "SquidMesh.migrate": {},
    "SquidMesh.run_until_idle": {"*timeout": None},
}


def find(dotted: str) -> Any:
    found: Any = squidmesh
    for name in dotted.split("."):
        found = getattr(found, name)
    return found


@pytest.mark.parametrize("name", SIGNATURES)
def test_every_call_takes_what_is_documented_under_the_documented_names(name: str) -> None:
    parameters = inspect.signature(find(name)).parameters
    expected = SIGNATURES[name]

    for written, default in expected.items():
        parameter = parameters[written.removeprefix("*")]
        if not written.startswith("*"):
            assert parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD, written
        else:
            assert parameter.kind in (
                inspect.Parameter.KEYWORD_ONLY,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
            ), written
        if default is not ANY:
            assert parameter.default == default, written
    positional = [name for name in expected if not name.startswith("*")]
    taken = [name for name in parameters if name != "self"]
    assert taken[: len(positional)] == positional


COROUTINES = [
    name
    for name in SIGNATURES
    if name.startswith(("SquidMesh.", "Runner.")) and name != "SquidMesh.open"
]


@pytest.mark.parametrize("name", [*COROUTINES, "Worker.run", "SquidMesh.aclose"])
def test_what_is_awaited_is_a_coroutine(name: str) -> None:
    assert inspect.iscoroutinefunction(find(name))


def test_opening_and_stopping_are_plain_calls() -> None:
    assert not inspect.iscoroutinefunction(squidmesh.SquidMesh.open)
    assert not inspect.iscoroutinefunction(squidmesh.Worker.stop)
    assert hasattr(squidmesh.SquidMesh, "__aenter__")


FIELDS: dict[str, str] = {
    "Run": """id workflow trigger status payload context current_step error version fingerprint
        revision queue replayed_from parent tags priority started_at updated_at ended_at
        steps attempts audit_events entries""",
    "Step": """name kind status depends_on input output error recovery deliveries attempts""",
    "Attempt": """step number status runnable_key scheduled_at visible_at claimed_at lease_until
        ended_at owner error""",
    "Entry": "seq thread type at data",
    "AuditEvent": "type step actor comment metadata at",
    "Explanation": "status reason summary step details evidence next_actions",
    "NextAction": "name call",
    "RunGraph": "nodes edges",
    "RunPage": "runs next_cursor",
    "Preview": "entries reruns effects",
    "RecoveryReport": "emitted reclaimed converged",
    "PerformReport": "status reason run_id step attempt",
}


@pytest.mark.parametrize("name", FIELDS)
def test_every_answer_has_the_documented_fields_and_is_frozen(name: str) -> None:
    cls = getattr(squidmesh, name)

    fields = {field.name for field in attrs.fields(cls)}

    assert set(FIELDS[name].split()) <= fields
    assert cls.__setattr__ is not object.__setattr__


def test_a_context_has_the_documented_parts() -> None:
    fields = {field.name for field in attrs.fields(squidmesh.StepContext)}
    names = """run_id workflow step attempt runnable_key idempotency_key claim_id fence
        schedule trigger"""
    parts = set(names.split())

    assert parts <= fields
    for name in ("state", "cancelled", "heartbeat", "connection"):
        assert hasattr(squidmesh.StepContext, name)


EXAMPLES: dict[str, errors.SquidMeshError] = {
    "definition": errors.DefinitionError("w", [Problem(("steps", "a"), "unknown_step", "no")]),
    "invalid_payload": errors.InvalidPayloadError(missing=["a"], unknown=["b"]),
    "run_not_found": errors.RunNotFoundError("r"),
    "invalid_run_id": errors.InvalidRunIdError("r"),
    "unknown_workflow": errors.UnknownWorkflowError("w"),
    "unknown_trigger": errors.UnknownTriggerError("w", "t"),
    "run_exists": errors.RunExistsError("r"),
    "idempotency_conflict": errors.IdempotencyConflictError("k"),
    "invalid_transition": errors.InvalidTransitionError("completed", "cancelling"),
    "not_paused": errors.NotPausedError("pause", "approval"),
    "invalid_review": errors.InvalidReviewError("actor", "is missing"),
    "invalid_option": errors.InvalidOptionError("limit", "is too large"),
    "unsafe_replay": errors.UnsafeReplayError(["pay"]),
    "incompatible_definition": errors.IncompatibleDefinitionError("w", "changed"),
    "dispatch_failed": errors.DispatchFailedError("full"),
    "claim_lost": errors.ClaimLostError("r", "s", 1, "other"),
    "store_conflict": errors.StoreConflictError(),
    "store_unavailable": errors.StoreUnavailableError("gone"),
    "schema_not_migrated": errors.SchemaNotMigratedError(None, 1),
    "invalid_payload_for_executor": errors.InvalidPayloadForExecutorError("odd"),
    "journal_corrupt": errors.JournalCorruptError("r", "torn"),
    "payload_too_large": errors.PayloadTooLargeError(5, 4),
    "unserializable_value": errors.UnserializableValueError("$.a", "nan"),
}
BASES: dict[str, type[Exception]] = {
    "invalid_payload": ValueError,
    "run_not_found": LookupError,
    "invalid_run_id": ValueError,
    "invalid_option": ValueError,
    "not_paused": errors.InvalidTransitionError,
}


def test_the_examples_are_all_errors_that_there_are() -> None:
    kinds = {type(example).__name__ for example in EXAMPLES.values()}

    assert kinds == {name for name in DOCUMENTED if name.endswith("Error")} - {"SquidMeshError"}


@pytest.mark.parametrize("code", EXAMPLES)
def test_every_error_has_its_code_details_bases_and_survives_pickling(code: str) -> None:
    error = EXAMPLES[code]
    words = re.findall("[A-Z][a-z]+", type(error).__name__.removesuffix("Error"))

    back = pickle.loads(pickle.dumps(error))  # noqa: S301

    assert error.code == code == "_".join(words).lower()
    assert isinstance(error, errors.SquidMeshError)
    assert isinstance(error, BASES.get(code, Exception))
    assert isinstance(error.details, dict)
    assert (type(back), str(back), back.code, back.details) == (
        type(error),
        str(error),
        error.code,
        error.details,
    )


def test_the_details_of_errors_hold_what_is_documented() -> None:
    problem = Problem(("steps", "a"), "unknown_step", "no")

    assert EXAMPLES["invalid_transition"].details == {"from": "completed", "to": "cancelling"}
    assert set(EXAMPLES["invalid_payload"].details) == {"missing", "unknown", "invalid"}
    assert {"expected", "found"} <= set(EXAMPLES["not_paused"].details)
    assert errors.UnsafeReplayError(["pay"]).steps == ("pay",)
    assert errors.DefinitionError("w", [problem]).problems == (problem,)
    assert (problem.path, problem.code, problem.message) == (("steps", "a"), "unknown_step", "no")
