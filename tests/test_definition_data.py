"""Definitions that come as data: there and back, and with a registry of functions."""

from datetime import date
from time import process_time
from typing import Any

import attrs
import pytest

from squidmesh.codec import decode, encode
from squidmesh.domain.definition import Action
from squidmesh.domain.serial import definition_from_dict
from squidmesh.domain.values import Json, JsonObject
from squidmesh.errors import DefinitionError
from squidmesh.workflow import (
    Retry,
    Workflow,
    WorkflowDefinition,
    approval,
    cron,
    manual,
    path,
    step,
    when,
)


@attrs.frozen
class Order:
    account: str
    amount: float = 1.5
    placed: date = attrs.field(factory=date.today)


def load(account: str) -> dict[str, int]: ...  # type: ignore[empty-body]
def charge(amount: float) -> str: ...  # type: ignore[empty-body]
def take_back(output: str) -> None: ...
def march_to_gate(words: str) -> None: ...
def sneak_up() -> None: ...


class Chase(Workflow[Order]):
    version = "1"
    by_hand = manual()
    nightly = cron("0 3 * * *", idempotency="skip_duplicate")
    load = step(load, output="invoice", retry=Retry(3))
    review = approval(output="review")
    charge = step(charge, output="receipt", compensate=take_back)
    transitions = (
        path(load, review, charge),
        review.on_error(Workflow.complete),
        charge.on_error(Workflow.complete, when=when("invoice.total", less_than=5)),
    )


class Other(Workflow[None]):
    by_hand = manual()
    sneak = step(sneak_up)


def test_a_definition_goes_to_plain_json_and_back() -> None:
    definition = Chase.definition

    back = WorkflowDefinition.from_dict(decode(encode(definition.to_dict())))

    assert back == definition
    assert back.fingerprint == definition.fingerprint
    assert back.bodies == {}


def test_a_definition_equals_the_same_data_wherever_it_comes_from() -> None:
    definition = Chase.definition

    stored = definition_from_dict(definition.to_dict()).unwrap()

    assert definition == stored
    assert stored == definition
    assert definition != Other.definition
    assert definition != "orders"
    assert "bodies" not in repr(definition)


def registry(definition: WorkflowDefinition) -> dict[str, Any]:
    """The functions of a class by the keys that its data knows them by."""
    return {
        one.kind.body.key: definition.bodies[one.name]
        for one in definition.steps
        if isinstance(one.kind, Action)
    }


def test_actions_give_a_definition_from_data_its_functions() -> None:
    definition = Chase.definition
    actions = {**registry(definition), f"{__name__}:take_back": take_back}

    back = WorkflowDefinition.from_dict(definition.to_dict(), actions=actions)

    assert back == definition
    assert back.bodies == definition.bodies


def test_what_a_function_takes_is_read_off_the_function_and_not_off_the_data() -> None:
    data: JsonObject = {
        "name": "errand",
        "triggers": [
            {
                "name": "go",
                "kind": "manual",
                "payload": {
                    "fields": [
                        {"name": "words", "type": "str"},
                        {"name": "day", "type": "date", "default_factory": "today"},
                        {"name": "other", "type": "date", "default_factory": "unknown"},
                    ]
                },
            }
        ],
        "steps": [
            {
                "name": "march",
                "kind": "action",
                "action": "march",
                "parameters": [{"name": "old"}],
                "compensate": "back",
            }
        ],
    }
    actions: dict[str, Any] = {
        "march": march_to_gate,
        "back": sneak_up,
        "today": lambda: date(2026, 11, 23),
    }

    definition = WorkflowDefinition.from_dict(data, actions)

    (march,) = definition.steps
    assert isinstance(march.kind, Action)
    assert [one.name for one in march.kind.body.parameters] == ["words"]
    assert definition.bodies == {"march": march_to_gate, "compensate:march": sneak_up}
    assert {key: make() for key, make in definition.factories.items()} == {"today": "2026-11-23"}


def test_ten_thousand_steps_come_from_data_without_taking_square_time() -> None:
    steps: list[Json] = [
        {"name": f"s{number}", "kind": "action", "action": "march", "output": "x"}
        for number in range(10_000)
    ]
    routes: list[Json] = [
        {"from": f"s{number}", "on": "ok", "to": f"s{number + 1}"} for number in range(9_999)
    ]
    data = {**Chase.definition.to_dict(), "steps": steps, "transitions": routes}

    begun = process_time()
    definition = WorkflowDefinition.from_dict(data, actions={"march": sneak_up})

    assert len(definition.steps) == 10_000
    assert process_time() - begun < 10


def problems_of(data: object, **options: Any) -> list[tuple[str, str]]:
    with pytest.raises(DefinitionError) as refused:
        WorkflowDefinition.from_dict(data, **options)
    return [(".".join(map(str, one.path)), one.code) for one in refused.value.problems]


def test_every_key_in_the_data_needs_an_action_that_can_be_a_body() -> None:
    def endless() -> Any:
        yield 1

    here = __name__
    actions: Any = {f"{here}:load": load, f"{here}:charge": endless}

    assert problems_of(Chase.definition.to_dict(), actions=actions) == [
        ("steps.charge.action", "invalid_action"),
        ("steps.charge.compensate", "invalid_compensation"),
    ]


def test_data_is_judged_like_a_class() -> None:
    data = Chase.definition.to_dict()
    data["transitions"] = [
        {"from": "load", "on": "ok", "to": "charge"},
        {"from": "charge", "on": "ok", "to": "load"},
        {"from": "charge", "on": "perhaps", "to": "complete"},
    ]

    found = problems_of(data, actions=registry(Chase.definition) | {f"{__name__}:take_back": load})

    assert found == [
        ("transitions.2.on", "unknown_outcome"),
        ("transitions.2", "duplicate_transition"),
        ("steps.review", "missing_approval_transitions"),
        ("steps.load", "transition_cycle"),
    ]


def test_what_json_cannot_hold_is_no_definition() -> None:
    assert problems_of({"name": object()}) == [("", "invalid_definition")]
    assert problems_of(3) == [
        ("", "invalid_definition"),
        ("name", "invalid_name"),
        ("triggers", "missing_trigger"),
        ("steps", "missing_steps"),
    ]


def test_a_problem_is_told_once_though_two_rules_see_it() -> None:
    data = Other.definition.to_dict() | {"transitions": [{"from": 1, "on": "ok", "to": None}]}

    found = problems_of(data)

    assert found.count(("transitions.0.from", "unknown_step")) == 1


def test_a_step_that_shares_the_stores_transaction_comes_back_as_one() -> None:
    data = Other.definition.to_dict()
    data["steps"] = [{"name": "sneak", "kind": "action", "action": "up", "transaction": True}]

    read = WorkflowDefinition.from_dict(data, {"up": sneak_up})

    assert read.by_name["sneak"].transaction is True
