"""What a class body gets wrong: the class statement, and nothing before it, tells all of it."""

import types
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from typing import Any, Final, TypedDict

import attrs
import pytest

from squidmesh.errors import DefinitionError
from squidmesh.workflow import (
    Retry,
    RetryPolicy,
    Workflow,
    WorkflowDefinition,
    approval,
    compensation,
    cron,
    log,
    manual,
    path,
    pause,
    step,
    wait,
    when,
)

SECOND: Final = timedelta(seconds=1)

ALL_CODES: Final = frozenset(
    {
        "dependency_cycle",
        "duplicate_name",
        "duplicate_transition",
        "empty_dependencies",
        "entry_step_count",
        "invalid_action",
        "invalid_compensation",
        "invalid_condition",
        "invalid_cron_expression",
        "invalid_idempotency",
        "invalid_inputs",
        "invalid_log",
        "invalid_name",
        "invalid_output",
        "invalid_payload_default",
        "invalid_payload_type",
        "invalid_queue",
        "invalid_recovery",
        "invalid_retry",
        "invalid_timeout",
        "invalid_timezone",
        "invalid_transaction",
        "invalid_wait_duration",
        "manual_step_in_dependency_mode",
        "missing_approval_transitions",
        "missing_steps",
        "missing_trigger",
        "misplaced_transitions",
        "mixed_modes",
        "output_collision",
        "recovery_conflict",
        "reserved_name",
        "self_dependency",
        "transition_cycle",
        "unknown_dependency",
        "unknown_outcome",
        "unknown_parameter",
        "unknown_step",
        "unreachable_step",
    }
)


@attrs.frozen
class Order:
    account: str


@attrs.frozen
class Broken:
    photo: bytes
    amount: int = "none"  # type: ignore[assignment]


def body() -> None: ...
def load(account: str) -> dict[str, int]: ...  # type: ignore[empty-body]
def needy(nobody: str) -> None: ...


def endless() -> Iterator[int]:
    yield 1


async def endless_too() -> AsyncIterator[int]:
    yield 1


def declare(**members: Any) -> type[Workflow[Any]]:
    """A workflow class with these members, and a name and a trigger unless they say otherwise."""
    members = {"__module__": __name__, "name": "orders", "by_hand": manual(), **members}
    payload = members.pop("payload", None)
    generic: Any = Workflow
    made: Any = types.new_class(
        "Orders", (generic[payload],), exec_body=lambda it: it.update(members)
    )
    return made  # type: ignore[no-any-return]


def problems_of(**members: Any) -> list[tuple[str, str]]:
    """Where each problem of such a class stands, and which rule it breaks."""
    with pytest.raises(DefinitionError) as refused:
        declare(**members)
    return [(".".join(map(str, one.path)), one.code) for one in refused.value.problems]


def routed(*transitions: Any, **steps: Any) -> list[tuple[str, str]]:
    return problems_of(**steps, transitions=transitions)


def from_data(**changes: Any) -> list[tuple[str, str]]:
    """The same, for a definition that comes as data."""
    data = {
        "name": "orders",
        "triggers": [{"name": "by_hand", "kind": "manual"}],
        "steps": [{"name": name, "kind": "log", "message": "here"} for name in "ab"],
        **changes,
    }
    with pytest.raises(DefinitionError) as refused:
        WorkflowDefinition.from_dict(data)
    return [(".".join(map(str, one.path)), one.code) for one in refused.value.problems]


def in_a_circle() -> list[tuple[str, str]]:
    steps = [
        {"name": "a", "kind": "log", "message": "here", "after": ["b"]},
        {"name": "b", "kind": "log", "message": "there", "after": ["a"]},
    ]
    return from_data(steps=steps)


def on_itself() -> list[tuple[str, str]]:
    return from_data(steps=[{"name": "a", "kind": "log", "message": "here", "after": ["a"]}])


A: Final = step(body)
B: Final = step(body)
HOLD: Final = pause()
ASK: Final = approval()
TWIN: Final = manual()

EXAMPLES: Final[dict[str, Callable[[], list[tuple[str, str]]]]] = {
    "missing_trigger": lambda: problems_of(a=A, by_hand=None),
    "duplicate_name": lambda: problems_of(a=A, b=A),
    "invalid_cron_expression": lambda: problems_of(a=A, at=cron("0 0 31 2 *")),
    "invalid_timezone": lambda: problems_of(a=A, at=cron("0 0 * * *", timezone="Mars/Base")),
    "invalid_payload_type": lambda: problems_of(a=A, payload=Broken),
    "invalid_payload_default": lambda: problems_of(a=A, payload=Broken),
    "missing_steps": problems_of,
    "unknown_parameter": lambda: problems_of(a=step(needy)),
    "output_collision": lambda: problems_of(a=step(body, output="account"), payload=Order),
    "invalid_wait_duration": lambda: problems_of(a=wait(timedelta(0))),
    "invalid_log": lambda: problems_of(a=log("")),
    "missing_approval_transitions": lambda: routed(path(ASK), ask=ASK),
    "manual_step_in_dependency_mode": lambda: problems_of(a=pause()),
    "unknown_dependency": lambda: problems_of(a=step(body, after=B)),
    "empty_dependencies": lambda: problems_of(a=step(body, after=())),
    "self_dependency": on_itself,
    "dependency_cycle": in_a_circle,
    "mixed_modes": lambda: routed(path(A), a=A, b=step(body, after=A)),
    "misplaced_transitions": lambda: problems_of(a=A, transition=path(A)),
    "entry_step_count": lambda: routed(path(A), path(B), a=A, b=B),
    "transition_cycle": lambda: routed(path(A, B), B.on_error(A), a=A, b=B),
    "duplicate_transition": lambda: routed(path(A), A.on_ok(B), path(B), a=A, b=B),
    "unknown_step": lambda: routed(path(A, B), a=A),
    "unknown_outcome": lambda: from_data(transitions=[{"from": "a", "on": "?", "to": "b"}]),
    "invalid_recovery": lambda: routed(path(A), A.on_error(B, recovery="regret"), a=A, b=B),
    "invalid_condition": lambda: routed(A.on_ok(B, when=when("a")), path(B), a=A, b=B),
    "invalid_retry": lambda: problems_of(a=step(body, retry=Retry(0))),
    "invalid_inputs": lambda: problems_of(a=step(body, inputs={"x": "y"})),
    "invalid_output": lambda: problems_of(a=step(body, output="schedule")),
    "recovery_conflict": lambda: problems_of(a=step(body, irreversible=True, compensate=body)),
    "invalid_compensation": lambda: problems_of(a=step(body, compensate="undo")),  # type: ignore[arg-type]
    "invalid_transaction": lambda: problems_of(a=step(body, transaction="yes")),  # type: ignore[arg-type]
    "invalid_timeout": lambda: problems_of(a=step(body, timeout=-SECOND)),
    "invalid_queue": lambda: problems_of(a=step(body, queue="")),
    "invalid_action": lambda: problems_of(a=step(endless)),
    "invalid_name": lambda: problems_of(a=A, name=""),
    "reserved_name": lambda: problems_of(complete=A),
    "invalid_idempotency": lambda: problems_of(a=A, at=cron("0 0 * * *", idempotency="once")),
    "unreachable_step": lambda: routed(path(A), a=A, b=B),
}


def test_every_code_of_the_contract_has_an_example() -> None:
    assert frozenset(EXAMPLES) == ALL_CODES


@pytest.mark.parametrize("code", sorted(EXAMPLES))
def test_each_code_is_reached_by_somebody_s_mistake(code: str) -> None:
    assert code in {found for _, found in EXAMPLES[code]()}


def test_a_problem_is_a_path_a_code_and_a_message() -> None:
    with pytest.raises(DefinitionError) as refused:
        declare(a=A, by_hand=None)

    (problem,) = refused.value.problems
    assert isinstance(refused.value.problems, tuple)
    assert (problem.path, problem.code) == (("triggers",), "missing_trigger")
    assert problem.message in str(refused.value)


def test_the_class_statement_tells_all_mistakes_at_once() -> None:
    with pytest.raises(DefinitionError) as refused:

        class Orders(Workflow[Order]):
            name = "orders"
            nightly = cron("often", timezone="Mars/Base")
            load = step(load, output=3, retry=3)  # type: ignore[arg-type]
            hold = wait(5)  # type: ignore[arg-type]
            charge = step(needy)
            transitions = (path(load, hold, charge), charge.on_error("nobody"))  # type: ignore[arg-type]

    assert [(one.path, one.code) for one in refused.value.problems] == [
        (("steps", "load", "output"), "invalid_output"),
        (("steps", "load", "retry"), "invalid_retry"),
        (("steps", "hold", "duration"), "invalid_wait_duration"),
        (("transitions", 3, "to"), "unknown_step"),
        (("triggers", "nightly", "expression"), "invalid_cron_expression"),
        (("triggers", "nightly", "timezone"), "invalid_timezone"),
    ]
    assert "a str in place of a step, 'nobody', is no step" in str(refused.value)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"output": 3}, "invalid_output"),
        ({"inputs": ["account"]}, "invalid_inputs"),
        ({"inputs": {3: "account"}}, "invalid_inputs"),
        ({"inputs": {"account": 3}}, "invalid_inputs"),
        ({"inputs": {"account": []}}, "invalid_inputs"),
        ({"inputs": {"account": ["a", 3]}}, "invalid_inputs"),
        ({"retry": 3}, "invalid_retry"),
        ({"retry": Retry("3")}, "invalid_retry"),  # type: ignore[arg-type]
        ({"retry": Retry(True)}, "invalid_retry"),
        ({"retry": Retry(None)}, "invalid_retry"),  # type: ignore[arg-type]
        ({"retry": Retry(3, backoff_min=5)}, "invalid_retry"),  # type: ignore[arg-type]
        ({"retry": RetryPolicy(backoff_max=5)}, "invalid_retry"),  # type: ignore[arg-type]
        ({"retry": Retry(3, jitter="some")}, "invalid_retry"),  # type: ignore[arg-type]
        ({"timeout": 5}, "invalid_timeout"),
        ({"after": "b"}, "unknown_dependency"),
        ({"after": 3}, "unknown_dependency"),
        ({"after": [body]}, "unknown_dependency"),
        ({"compensate": 3}, "invalid_compensation"),
        ({"compensate": compensation(body, retry=3)}, "invalid_retry"),  # type: ignore[arg-type]
        ({"compensate": compensation(endless)}, "invalid_compensation"),
        ({"irreversible": "yes"}, "recovery_conflict"),
        ({"compensatable": 1}, "recovery_conflict"),
        ({"transaction": 1}, "invalid_transaction"),
        ({"queue": 3}, "invalid_queue"),
    ],
)
def test_an_option_of_the_wrong_type_breaks_its_rule_and_no_other(
    options: dict[str, Any], code: str
) -> None:
    found = problems_of(a=step(load, **options), payload=Order)

    assert {one for _, one in found} == {code}


@pytest.mark.parametrize("function", [3, None, "app:load", min, endless, endless_too])
def test_a_body_is_a_function_that_returns_and_tells_its_parameters(function: Any) -> None:
    assert problems_of(a=step(function)) == [("steps.a.function", "invalid_action")]


def test_a_whole_jitter_is_a_fraction_too() -> None:
    assert declare(a=step(body, retry=Retry(3, jitter=1))).definition.steps[0].retry.jitter == 1.0


@pytest.mark.parametrize(
    ("declaration", "code"),
    [
        (wait(5), "invalid_wait_duration"),  # type: ignore[arg-type]
        (wait(None), "invalid_wait_duration"),  # type: ignore[arg-type]
        (log(3), "invalid_log"),  # type: ignore[arg-type]
        (log("x", level="loud"), "invalid_log"),
        (cron(5), "invalid_cron_expression"),  # type: ignore[arg-type]
        (cron("61 * * * *"), "invalid_cron_expression"),
        (cron("@daily"), "invalid_cron_expression"),
        (cron("0 0 * * *", timezone=None), "invalid_timezone"),  # type: ignore[arg-type]
        (cron("0 0 * * *", timezone="../UTC"), "invalid_timezone"),
        (cron("0 0 * * *", timezone="Europe"), "invalid_timezone"),
        (cron("0 0 * * *", idempotency=3), "invalid_idempotency"),  # type: ignore[arg-type]
        (manual(payload=int), "invalid_payload_type"),
    ],
)
def test_other_declarations_are_looked_at_as_closely(declaration: Any, code: str) -> None:
    assert [one for _, one in problems_of(a=A, b=declaration)] == [code]


@pytest.mark.parametrize(
    ("transition", "code"),
    [
        (path(), "unknown_step"),
        (path(Workflow.complete), "unknown_step"),
        (path(Workflow.complete, A), "unknown_step"),
        (path(A, body), "unknown_step"),  # type: ignore[arg-type]
        (A, "unknown_step"),
        ((path(A),), "unknown_step"),
        (A.on_error(B, when="always"), "invalid_condition"),  # type: ignore[arg-type]
        (A.on_error(B, when=when("a")), "invalid_condition"),
        (A.on_error(B, when=when("a", equals=1, less_than=2)), "invalid_condition"),
        (A.on_error(B, when=when(3, equals=1)), "invalid_condition"),  # type: ignore[arg-type]
        (A.on_error(B, when=when("a", equals=object())), "invalid_condition"),
        (A.on_error(B, when=when("a", greater_than="b")), "invalid_condition"),
        (A.on_error(B, recovery=3), "invalid_recovery"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_route_breaks_its_rule(transition: Any, code: str) -> None:
    others = (path(A), path(B), A.on_error(B, when=when("z", equals=1)))

    assert code in {one for _, one in routed(transition, *others, a=A, b=B)}


def test_a_transition_may_stand_alone_but_must_be_one() -> None:
    assert problems_of(a=A, transitions=3) == [("transitions.0", "unknown_step")]


def test_what_is_no_route_is_told_by_its_place() -> None:
    assert routed(path(A), B, 3, a=A, b=B)[:2] == [
        ("transitions.1", "unknown_step"),
        ("transitions.2", "unknown_step"),
    ]


@pytest.mark.parametrize("routes", [path(A, B), A.on_error(B), (path(A), A.on_error(B))])
def test_routes_under_another_name_than_transitions_are_not_passed_over(routes: Any) -> None:
    assert ("transition", "misplaced_transitions") in problems_of(a=A, b=B, transition=routes)


def test_a_route_may_have_a_name_and_be_among_the_transitions() -> None:
    usual = path(A, B)

    declared = declare(a=A, b=B, usual=usual, transitions=(usual,))

    assert [one.source for one in declared.definition.transitions] == ["a", "b"]


def test_an_object_under_two_names_is_told_at_the_second() -> None:
    assert problems_of(a=A, b=A, by_hand=TWIN, at_will=TWIN) == [
        ("steps.b", "duplicate_name"),
        ("triggers.at_will", "duplicate_name"),
    ]


@pytest.mark.parametrize("name", ["name", "version", "transitions", "definition", "complete"])
def test_a_step_cannot_take_a_reserved_name(name: str) -> None:
    found = problems_of(**{name: A})

    assert (f"steps.{name}", "reserved_name") in found


def test_names_are_text() -> None:
    assert problems_of(a=A, name=3) == [("name", "invalid_name")]
    assert problems_of(a=A, version=3) == [("version", "invalid_name")]


def test_a_workflow_in_the_main_module_needs_a_name() -> None:
    main = {"__module__": "__main__", "a": A}

    assert problems_of(**main, name=None) == [("name", "invalid_name")]
    assert declare(**main, name="orders").definition.name == "orders"


def test_nobody_is_told_of_parameters_while_the_payload_is_unknown() -> None:
    assert problems_of(a=step(load), payload=Broken) == [
        ("payload.photo", "invalid_payload_type"),
        ("payload.amount", "invalid_payload_default"),
    ]
    assert problems_of(a=step(load), payload=int) == [("payload", "invalid_payload_type")]


def test_a_step_that_a_subclass_takes_away_is_missed_by_its_routes() -> None:
    class Base(Workflow[None], abstract=True):
        go = manual()
        a = step(body)
        b = step(body)
        transitions = path(a, b)

    with pytest.raises(DefinitionError) as refused:

        class Orders(Base):
            b = None  # type: ignore[assignment]

    assert {one.code for one in refused.value.problems} == {"unknown_step"}


class Priced(TypedDict):
    price: int


def price() -> Priced: ...  # type: ignore[empty-body]
def pay(price: int) -> None: ...
def anything() -> dict[str, Any]: ...  # type: ignore[empty-body]


C: Final = step(body)
PRICE, PRICE_TOO, PAY, ANYTHING = step(price), step(price), step(pay), step(anything)
KEPT, KEPT_TOO = step(body, output="price"), step(body, output="price")


@pytest.mark.parametrize("known", [(PRICE,), (KEPT,), (ANYTHING,), (ANYTHING, A), (PRICE, A)])
def test_a_parameter_may_come_from_any_step_before_or_from_one_that_merges_anything(
    known: tuple[Any, ...],
) -> None:
    steps = {f"s{number}": one for number, one in enumerate(known)}

    assert declare(**steps, last=PAY, transitions=path(*known, PAY)).definition.steps


@pytest.mark.parametrize("other", [A, PRICE, KEPT, ANYTHING])
def test_a_parameter_that_only_a_later_step_provides_is_unknown(other: Any) -> None:
    assert routed(path(PAY, other), pay=PAY, other=other) == [
        ("steps.pay.parameters.price", "unknown_parameter")
    ]


def test_what_is_kept_under_an_output_key_is_merged_nowhere() -> None:
    kept = step(anything, output="all")

    assert routed(path(kept, PAY), kept=kept, pay=PAY) == [
        ("steps.pay.parameters.price", "unknown_parameter")
    ]


def test_a_parameter_that_the_payload_of_one_trigger_lacks_is_unknown() -> None:
    bare = cron("0 0 * * *", payload=attrs.make_class("Bare", {}))

    assert problems_of(a=step(load), payload=Order, nightly=bare) == [
        ("steps.a.parameters.account", "unknown_parameter")
    ]


@pytest.mark.parametrize("first", [PRICE, KEPT])
@pytest.mark.parametrize("second", [PRICE_TOO, KEPT_TOO])
def test_two_steps_that_may_run_at_once_must_not_write_one_key(first: Any, second: Any) -> None:
    assert problems_of(a=first, b=second) == [("steps.b.output", "output_collision")]


@pytest.mark.parametrize("writer", [PRICE, KEPT])
def test_a_step_must_not_write_a_key_of_the_payload(writer: Any) -> None:
    payload = attrs.make_class("Payload", {"price": attrs.field(type=int)})

    assert problems_of(a=writer, payload=payload) == [("steps.a.output", "output_collision")]


def test_later_steps_and_alternative_branches_may_write_a_key_again() -> None:
    alternatives = (path(A, KEPT), A.on_error(KEPT_TOO), path(KEPT_TOO))

    assert declare(a=PRICE, b=step(body, output="price", after=PRICE)).definition.steps
    assert declare(a=KEPT, b=KEPT_TOO, transitions=path(KEPT, KEPT_TOO)).definition.steps
    assert declare(a=A, b=KEPT, c=KEPT_TOO, transitions=alternatives).definition.steps


def test_names_that_persist_alike_are_one_name_twice() -> None:
    assert problems_of(load=A, Load=B) == [("steps.Load", "duplicate_name")]
    assert problems_of(a=A, at=manual(), AT=manual()) == [("triggers.AT", "duplicate_name")]


@pytest.mark.parametrize("options", [{"compensate": body}, {"compensatable": True}], ids=[0, 1])
def test_what_is_irreversible_takes_no_way_back(options: dict[str, Any]) -> None:
    ((place, code),) = problems_of(a=step(body, irreversible=True, **options))

    assert (place, code) == (f"steps.a.{next(iter(options))}", "recovery_conflict")


@pytest.mark.parametrize(("one", "other"), [(1, 1), (1, 1.0), ("x", "x"), ([1], [1]), (None, None)])
def test_two_routes_with_equal_conditions_are_a_route_twice(one: Any, other: Any) -> None:
    same = (A.on_ok(B, when=when("n", equals=one)), A.on_ok(C, when=when("n", equals=other)))

    assert routed(*same, path(A), path(B), path(C), a=A, b=B, c=C) == [
        ("transitions.1", "duplicate_transition")
    ]


@pytest.mark.parametrize("recovery", ["undone", "Compensation", "", 3, True])
def test_a_mistyped_recovery_marker_is_invalid(recovery: Any) -> None:
    found = routed(path(A), A.on_error(B, recovery=recovery), path(B), a=A, b=B)

    assert found == [("transitions.1.recovery", "invalid_recovery")]


@pytest.mark.parametrize(
    "expression", ["", "often", "* * * *", "60 * * * *", "0 0 31 2 *", "0 0 * * 8"]
)
def test_a_cron_expression_is_parsed(expression: str) -> None:
    assert problems_of(a=A, at=cron(expression)) == [
        ("triggers.at.expression", "invalid_cron_expression")
    ]


def test_a_person_needs_both_ways_out_of_an_approval_and_one_out_of_a_pause() -> None:
    place = ("steps.hold", "missing_approval_transitions")

    assert routed(path(ASK), hold=ASK) == [place]
    assert routed(A.on_ok(ASK), ASK.on_error(B), path(B), a=A, b=B, hold=ASK) == [place]
    assert routed(A.on_ok(HOLD), a=A, hold=HOLD) == [place]


@pytest.mark.parametrize("manual_step", [HOLD, ASK])
def test_no_person_decides_between_dependencies(manual_step: Any) -> None:
    assert problems_of(a=A, b=manual_step) == [("steps.b", "manual_step_in_dependency_mode")]


def test_a_workflow_begins_at_exactly_one_step() -> None:
    assert ("transitions", "entry_step_count") in routed(path(A), path(B), a=A, b=B)
    assert ("transitions", "entry_step_count") in routed(A.on_ok(B), B.on_ok(A), a=A, b=B)
