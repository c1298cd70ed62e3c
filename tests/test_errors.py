"""The exception tree: every class of it survives travel, and says nothing that it must not."""

import copy
import pickle  # noqa: TID251 - host queues pickle exceptions, whatever we think of it
from collections.abc import Iterator
from typing import Final

import pytest

import squidmesh
from squidmesh import errors
from squidmesh.codec import plain
from squidmesh.domain.definition import Problem
from squidmesh.errors import (
    ClaimLostError,
    DefinitionError,
    DispatchFailedError,
    IdempotencyConflictError,
    IncompatibleDefinitionError,
    InvalidOptionError,
    InvalidPayloadError,
    InvalidPayloadForExecutorError,
    InvalidReviewError,
    InvalidRunIdError,
    InvalidTransitionError,
    JournalCorruptError,
    NotPausedError,
    PayloadTooLargeError,
    RunExistsError,
    RunNotFoundError,
    SchemaNotMigratedError,
    SquidMeshError,
    StoreConflictError,
    StoreUnavailableError,
    UnknownTriggerError,
    UnknownWorkflowError,
    UnsafeReplayError,
    UnserializableValueError,
)

RUN_ID: Final = "0190a000-0000-7000-8000-000000000001"

EXAMPLES: Final[tuple[tuple[SquidMeshError, str], ...]] = (
    (SquidMeshError("something happened"), "squid_mesh"),
    (
        DefinitionError(
            "billing", [Problem(("steps", "ask"), "invalid_retry", "must be 1 or more")]
        ),
        "definition",
    ),
    (
        InvalidPayloadError(missing=["a"], unknown=["b"], invalid={"c": "must be int"}),
        "invalid_payload",
    ),
    (InvalidOptionError("limit", "limit must be 1 or more"), "invalid_option"),
    (InvalidRunIdError("run 7"), "invalid_run_id"),
    (InvalidReviewError("actor", "an actor is required"), "invalid_review"),
    (InvalidPayloadForExecutorError("kind must be step"), "invalid_payload_for_executor"),
    (RunNotFoundError(RUN_ID), "run_not_found"),
    (UnknownWorkflowError("billing", ["shipping"]), "unknown_workflow"),
    (UnknownTriggerError("billing", "nightly", ["by_hand"]), "unknown_trigger"),
    (RunExistsError(RUN_ID), "run_exists"),
    (IdempotencyConflictError("order-7"), "idempotency_conflict"),
    (InvalidTransitionError("completed", "cancelled"), "invalid_transition"),
    (NotPausedError("approval", "pause"), "not_paused"),
    (UnsafeReplayError(["charge"]), "unsafe_replay"),
    (IncompatibleDefinitionError("billing", "the step charge is gone"), "incompatible_definition"),
    (DispatchFailedError("the queue is full"), "dispatch_failed"),
    (ClaimLostError(RUN_ID, "charge", 2, "worker-b"), "claim_lost"),
    (StoreConflictError(run_id=RUN_ID), "store_conflict"),
    (StoreUnavailableError("the connection was closed"), "store_unavailable"),
    (SchemaNotMigratedError(1, 2), "schema_not_migrated"),
    (JournalCorruptError(RUN_ID, "entry 4 is missing"), "journal_corrupt"),
    (PayloadTooLargeError(12, 10), "payload_too_large"),
    (UnserializableValueError("$.a", "nan"), "unserializable_value"),
)

every_error = pytest.mark.parametrize(
    "error", [error for error, _ in EXAMPLES], ids=[code for _, code in EXAMPLES]
)


def classes_below(root: type[SquidMeshError]) -> Iterator[type[SquidMeshError]]:
    for kind in root.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield kind
            yield from classes_below(kind)


def test_the_examples_cover_the_whole_tree_and_so_does_its_drawing() -> None:
    tree: set[type[SquidMeshError]] = {SquidMeshError, *classes_below(SquidMeshError)}

    assert {type(error) for error, _ in EXAMPLES} == tree
    assert [kind.__name__ for kind in tree if kind.__name__ not in (errors.__doc__ or "")] == []


@pytest.mark.parametrize("kind", [type(error) for error, _ in EXAMPLES])
def test_every_class_can_be_imported_from_the_top(kind: type[SquidMeshError]) -> None:
    assert kind.__name__ in squidmesh.__all__
    assert getattr(squidmesh, kind.__name__) is kind


@pytest.mark.parametrize(("error", "code"), EXAMPLES, ids=[code for _, code in EXAMPLES])
def test_the_code_is_the_class_name_without_error(error: SquidMeshError, code: str) -> None:
    assert error.code == code
    assert type(error).code == code


@every_error
def test_an_error_survives_pickling_with_all_that_it_knows(error: SquidMeshError) -> None:
    error.add_note("seen by the host's queue")

    travelled = pickle.loads(pickle.dumps(error))  # noqa: S301 - we have just written it

    assert type(travelled) is type(error)
    assert str(travelled) == str(error)
    assert vars(travelled) == vars(error)


@every_error
def test_a_copy_has_its_own_attributes(error: SquidMeshError) -> None:
    twin = copy.copy(error)
    deep = copy.deepcopy(error)
    deep.details["more"] = True

    assert (str(twin), vars(twin)) == (str(error), vars(error))
    assert vars(twin) is not vars(error)
    assert "more" not in error.details


@every_error
def test_details_are_plain_json_and_the_message_is_one_readable_text(error: SquidMeshError) -> None:
    assert plain(error.details) == error.details
    assert str(error)
    assert type(error).__doc__


@pytest.mark.parametrize(
    ("kind", "base"),
    [
        (InvalidPayloadError, ValueError),
        (InvalidOptionError, ValueError),
        (InvalidRunIdError, ValueError),
        (RunNotFoundError, LookupError),
        (NotPausedError, InvalidTransitionError),
    ],
)
def test_what_plain_python_would_call_it_catches_it(kind: type, base: type) -> None:
    assert issubclass(kind, base)


def test_a_code_given_to_the_constructor_wins_and_survives_pickling() -> None:
    error = InvalidOptionError("cursor", "the cursor is not one of ours", code="invalid_cursor")

    travelled = pickle.loads(pickle.dumps(error))  # noqa: S301 - we have just written it

    assert travelled.code == "invalid_cursor"
    assert InvalidOptionError.code == "invalid_option"


def test_a_subclass_of_a_host_has_a_code_of_its_own_and_travels_too() -> None:
    error = PlanetNotFoundError("Vulcan")

    travelled = pickle.loads(pickle.dumps(error))  # noqa: S301 - we have just written it

    assert error.code == "planet_not_found"
    assert (travelled.planet, str(travelled)) == ("Vulcan", "no Vulcan here")


class PlanetNotFoundError(SquidMeshError):
    def __init__(self, planet: str) -> None:
        self.planet = planet
        super().__init__(f"no {planet} here")


def test_a_definition_error_lists_every_problem_with_path_code_and_message() -> None:
    problems = [
        Problem(("steps", "ask", "retry"), "invalid_retry", "max_attempts must be 1 or more"),
        Problem((), "missing_trigger", "declare at least one trigger"),
    ]

    error = DefinitionError("billing", problems)

    assert error.problems == tuple(problems)
    assert str(error).splitlines() == [
        "The workflow billing cannot work (2 problems):",
        "  steps.ask.retry: max_attempts must be 1 or more [invalid_retry]",
        "  workflow: declare at least one trigger [missing_trigger]",
    ]
    assert error.details["problems"] == [
        {
            "path": ["steps", "ask", "retry"],
            "code": "invalid_retry",
            "message": "max_attempts must be 1 or more",
        },
        {"path": [], "code": "missing_trigger", "message": "declare at least one trigger"},
    ]


def test_an_invalid_payload_names_fields_of_all_three_kinds() -> None:
    error = InvalidPayloadError(
        missing=["invoice_id"], unknown=["z", "a"], invalid={"amount": "must be int"}
    )

    assert error.details == {
        "missing": ["invoice_id"],
        "unknown": ["a", "z"],
        "invalid": {"amount": "must be int"},
    }
    assert str(error) == (
        "The payload does not fit: missing invoice_id; unknown a, z; amount must be int."
    )


def test_an_invalid_transition_says_from_and_to() -> None:
    error = InvalidTransitionError("completed", "cancelled")

    assert error.details == {"from": "completed", "to": "cancelled"}


@pytest.mark.parametrize(
    ("error", "cure"),
    [
        (NotPausedError("approval", "pause"), "a pause is open, which resume_run() ends"),
        (NotPausedError("pause", "approval"), "approve_run() or reject_run()"),
        (NotPausedError("pause", status="completed"), "explain_run()"),
    ],
)
def test_the_wrong_kind_of_manual_step_is_told_what_is_open(
    error: NotPausedError, cure: str
) -> None:
    assert cure in str(error)
    assert {"from", "to", "expected", "found"} == error.details.keys()


@pytest.mark.parametrize(
    ("error", "cure"),
    [
        (SchemaNotMigratedError(None, 3), "squidmesh migrate"),
        (SchemaNotMigratedError(2, 3), "squidmesh migrate"),
        (SchemaNotMigratedError(4, 3), "upgrade squidmesh"),
        (PayloadTooLargeError(None, 2_097_152), "over 2,097,152 bytes"),
        (ClaimLostError(RUN_ID, "charge", 2), "nobody holds it now"),
        (UnsafeReplayError(["charge", "mail"]), "charge, mail"),
        (UnknownWorkflowError("billing"), "registered: none"),
        (InvalidPayloadError(), "it is not an object"),
        (InvalidRunIdError(7), "an object of type int"),
    ],
)
def test_a_message_says_what_helps(error: SquidMeshError, cure: str) -> None:
    assert cure in str(error)


@pytest.mark.parametrize("kind", [RunNotFoundError, InvalidRunIdError, RunExistsError])
@pytest.mark.parametrize(
    "hostile", ["a\0b", "half \ud83e", "line\nbreak", "\u202eright to left", "x" * 10_000]
)
def test_a_hostile_name_is_shown_printable_and_short(
    kind: type[RunNotFoundError], hostile: str
) -> None:
    error = kind(hostile)

    assert str(error).isprintable()
    assert len(str(error)) < 300
    assert plain(error.details) == error.details
