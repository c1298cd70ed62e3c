"""Definitions as plain JSON and back, and when two of them are the same."""

from datetime import timedelta
from typing import Any, Final

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from squidmesh.codec import decode, encode
from squidmesh.domain.definition import (
    Action,
    Approval,
    Body,
    CompensationSpec,
    Condition,
    CronIdempotency,
    CronTrigger,
    Log,
    LogLevel,
    ManualTrigger,
    On,
    Operator,
    Parameter,
    Pause,
    RecoveryMarker,
    RetryPolicy,
    StepSpec,
    Transition,
    Wait,
    WorkflowDefinition,
)
from squidmesh.domain.payload import PayloadContract
from squidmesh.domain.serial import definition_from_dict, definition_to_dict, fingerprint
from squidmesh.domain.typespec import (
    DEEPEST_TYPE,
    AnyOf,
    Anything,
    DynamicDefault,
    LeftOut,
    ListOf,
    MappingOf,
    OneOf,
    PayloadField,
    Primitive,
    PrimitiveKind,
    Record,
    StaticDefault,
)
from squidmesh.domain.values import Json, JsonObject

STR: Final = Primitive(PrimitiveKind.STR)
LINE: Final = Record("Line", (PayloadField(name="sku", type=STR, default=StaticDefault(None)),))
FIELDS: Final = (
    PayloadField(name="order", type=STR),
    PayloadField(name="note", type=AnyOf((STR, Primitive(PrimitiveKind.NONE))), default=LeftOut()),
    PayloadField(name="day", type=Primitive(PrimitiveKind.DATE), default=DynamicDefault("app:day")),
    PayloadField(name="lines", type=ListOf(LINE)),
    PayloadField(name="extra", type=MappingOf(Anything()), default=StaticDefault({})),
    PayloadField(name="level", type=OneOf(("low", 3, True, None))),
)
STEPS: Final = (
    StepSpec(
        name="load",
        kind=Action(
            body=Body(
                key="app:load",
                parameters=(
                    Parameter("order"),
                    Parameter("note", required=False),
                    Parameter("context", is_context=True),
                ),
            ),
            merges=("invoice", "customer"),
        ),
        inputs={"note": ("lines", "0", "sku")},
        retry=RetryPolicy(
            max_attempts=5,
            backoff_min=timedelta(milliseconds=1500),
            backoff_max=timedelta(seconds=30),
            jitter=0.25,
        ),
        timeout=timedelta(microseconds=1),
        queue="slow",
    ),
    StepSpec(name="settle", kind=Wait(timedelta(days=400, microseconds=7))),
    StepSpec(name="say", kind=Log("settled", LogLevel.WARNING)),
    StepSpec(name="hold", kind=Pause()),
    StepSpec(name="review", kind=Approval(), output="review"),
    StepSpec(
        name="pay",
        kind=Action(body=Body(key="app:pay"), merges=()),
        output="receipt",
        compensation=CompensationSpec(
            body=Body(key="app:refund", parameters=(Parameter("output"),)),
            retry=RetryPolicy(max_attempts=9),
        ),
        transaction=True,
    ),
    StepSpec(
        name="ship",
        kind=Action(body=Body(key="app:ship")),
        compensation=CompensationSpec(body=Body(key="app:recall")),
    ),
    StepSpec(
        name="tell",
        kind=Action(body=Body(key="app:tell")),
        irreversible=True,
        compensatable=False,
    ),
    StepSpec(name="odd", kind=Action(body=Body(key="app:odd")), irreversible=True),
    StepSpec(name="fixed", kind=Action(body=Body(key="app:fixed")), compensatable=False),
)
ROUTED: Final = WorkflowDefinition(
    name="orders",
    version="2026-11",
    triggers=(
        ManualTrigger(name="by_hand", payload=PayloadContract(name="Order", fields=FIELDS)),
        CronTrigger(
            name="nightly",
            payload=PayloadContract(),
            expression="0 3 * * *",
            timezone="Europe/Lisbon",
            idempotency=CronIdempotency.SKIP_DUPLICATE,
        ),
        CronTrigger(name="hourly", payload=PayloadContract(), expression="0 * * * *"),
    ),
    steps=STEPS,
    transitions=(
        Transition(
            source="load",
            on=On.OK,
            target="settle",
            condition=Condition(("invoice", "total"), Operator.GREATER_THAN, 100),
        ),
        Transition(source="load", on=On.OK, target=None),
        Transition(source="load", on=On.ERROR, target="tell", recovery=RecoveryMarker.COMPENSATION),
        Transition(
            source="pay",
            on=On.OK,
            target=None,
            condition=Condition(("x",), Operator.EQUALS, None),
        ),
    ),
)
JOINED: Final = WorkflowDefinition(
    name="errands",
    triggers=(ManualTrigger(name="begin", payload=PayloadContract()),),
    steps=(
        StepSpec(name="a", kind=Action(body=Body(key="app:a"))),
        StepSpec(name="b", kind=Action(body=Body(key="app:b"))),
        StepSpec(name="c", kind=Action(body=Body(key="app:c")), after=("a", "b")),
    ),
)


def step_of(definition: WorkflowDefinition, which: str, /, **changes: Any) -> WorkflowDefinition:
    """*definition* with one step changed."""
    return attrs.evolve(
        definition,
        steps=tuple(
            attrs.evolve(step, **changes) if step.name == which else step
            for step in definition.steps
        ),
    )


def a_definition(**changes: Json) -> JsonObject:
    return {
        "name": "orders",
        "triggers": [{"name": "by_hand", "kind": "manual"}],
        "steps": [{"name": "a", "kind": "action", "action": "app:a"}],
        **changes,
    }


def a_step(**options: Json) -> JsonObject:
    return a_definition(steps=[{"name": "a", "kind": "action", "action": "app:a", **options}])


def a_field(**options: Json) -> JsonObject:
    payload: JsonObject = {"fields": [{"name": "x", **options}]}
    return a_definition(triggers=[{"name": "t", "kind": "manual", "payload": payload}])


def a_route(**options: Json) -> JsonObject:
    return a_definition(transitions=[{"from": "a", "on": "ok", "to": "complete", **options}])


def noted(data: Json) -> list[tuple[str, str]]:
    """Each problem as where and which rule."""
    return [
        (".".join(str(part) for part in problem.path), problem.code)
        for problem in definition_from_dict(data).failure()
    ]


@pytest.mark.parametrize("definition", [ROUTED, JOINED], ids=lambda one: one.name)
def test_a_definition_comes_back_from_its_json_text_as_it_was(
    definition: WorkflowDefinition,
) -> None:
    text = encode(definition_to_dict(definition))

    assert definition_from_dict(decode(text)).unwrap() == definition


def test_what_an_author_left_out_is_not_written() -> None:
    assert definition_to_dict(JOINED) == {
        "format": 1,
        "name": "errands",
        "version": None,
        "triggers": [{"name": "begin", "kind": "manual", "payload": {"name": None, "fields": []}}],
        "steps": [
            {"name": "a", "kind": "action", "action": "app:a", "parameters": []},
            {"name": "b", "kind": "action", "action": "app:b", "parameters": []},
            {
                "name": "c",
                "kind": "action",
                "action": "app:c",
                "parameters": [],
                "after": ["a", "b"],
            },
        ],
        "transitions": [],
    }


def test_people_may_write_paths_with_dots_and_the_end_as_null() -> None:
    data = a_definition(
        steps=[
            {
                "name": "a",
                "kind": "action",
                "action": "app:a",
                "inputs": {"x": "order.id"},
                "compensate": "app:undo",
            }
        ],
        transitions=[
            {"from": "a", "on": "ok", "to": None, "when": {"path": "a.b", "less_than": 5}}
        ],
    )

    definition = definition_from_dict(data).unwrap()

    assert definition.steps[0].inputs == {"x": ("order", "id")}
    assert definition.steps[0].compensation == CompensationSpec(body=Body(key="app:undo"))
    assert definition.transitions[0].target is None
    assert definition.transitions[0].condition == Condition(("a", "b"), Operator.LESS_THAN, 5)


def test_an_irreversible_step_is_not_compensatable_unless_somebody_says_so() -> None:
    definition = definition_from_dict(a_step(irreversible=True)).unwrap()

    assert not definition.steps[0].compensatable


@pytest.mark.parametrize("data", [None, [], "orders", 3])
def test_what_is_no_object_is_no_definition(data: Json) -> None:
    assert noted(data) == [("", "invalid_definition"), ("name", "invalid_name")]


@pytest.mark.parametrize(
    ("data", "path", "code"),
    [
        (a_definition(format=2), "format", "invalid_definition"),
        (a_definition(format="1"), "format", "invalid_definition"),
        (a_definition(colour="red"), "colour", "invalid_definition"),
        (a_definition(name=3), "name", "invalid_name"),
        (a_definition(version=3), "version", "invalid_name"),
        (a_definition(steps="a"), "steps", "invalid_definition"),
        (a_definition(steps=["a"]), "steps.0", "invalid_definition"),
        (a_definition(steps=[{"kind": "pause"}]), "steps.0.name", "invalid_name"),
        (a_definition(triggers=[{"name": "t"}]), "triggers.t.kind", "invalid_definition"),
        (
            a_definition(triggers=[{"name": "t", "kind": "manual", "expression": "* * * * *"}]),
            "triggers.t.expression",
            "invalid_definition",
        ),
        (
            a_definition(triggers=[{"name": "t", "kind": "cron"}]),
            "triggers.t.expression",
            "invalid_cron_expression",
        ),
        (
            a_definition(
                triggers=[{"name": "t", "kind": "cron", "expression": "* * * * *", "timezone": 1}]
            ),
            "triggers.t.timezone",
            "invalid_timezone",
        ),
        (
            a_definition(
                triggers=[
                    {"name": "t", "kind": "cron", "expression": "* * * * *", "idempotency": "no"}
                ]
            ),
            "triggers.t.idempotency",
            "invalid_idempotency",
        ),
        (
            a_definition(triggers=[{"name": "t", "kind": "manual", "payload": "Order"}]),
            "triggers.t.payload",
            "invalid_payload_type",
        ),
        (a_field(), "triggers.t.payload.fields.0.type", "invalid_payload_type"),
        (a_field(type="bytes"), "triggers.t.payload.fields.0.type", "invalid_payload_type"),
        (
            a_field(type={"list": "int", "dict": "int"}),
            "triggers.t.payload.fields.0.type",
            "invalid_payload_type",
        ),
        (
            a_field(type={"list": {"set": "int"}}),
            "triggers.t.payload.fields.0.type.list",
            "invalid_payload_type",
        ),
        (
            a_field(type={"any_of": ["str", "text"]}),
            "triggers.t.payload.fields.0.type.any_of.1",
            "invalid_payload_type",
        ),
        (
            a_field(type={"any_of": []}),
            "triggers.t.payload.fields.0.type.any_of",
            "invalid_payload_type",
        ),
        (
            a_field(type={"one_of": [1, [2]]}),
            "triggers.t.payload.fields.0.type.one_of",
            "invalid_payload_type",
        ),
        (
            a_field(type={"record": {"name": "R", "fields": [3]}}),
            "triggers.t.payload.fields.0.type.record.fields.0",
            "invalid_payload_type",
        ),
        (
            a_field(type="str", required="no"),
            "triggers.t.payload.fields.0.required",
            "invalid_payload_default",
        ),
        (
            a_field(type="str", default="a", default_factory="app:x"),
            "triggers.t.payload.fields.0.default_factory",
            "invalid_payload_default",
        ),
        (a_step(kind="task"), "steps.a.kind", "invalid_action"),
        (a_step(action=None), "steps.a.action", "invalid_action"),
        (a_step(parameters=[{"required": True}]), "steps.a.parameters.0.name", "invalid_action"),
        (a_step(merges=[1]), "steps.a.merges.0", "invalid_output"),
        (a_step(duration=5), "steps.a.duration", "invalid_definition"),
        (a_step(inputs=["x"]), "steps.a.inputs", "invalid_inputs"),
        (a_step(inputs={"x": []}), "steps.a.inputs.x", "invalid_inputs"),
        (a_step(inputs={"x": [1]}), "steps.a.inputs.x.0", "invalid_inputs"),
        (a_step(output=1), "steps.a.output", "invalid_output"),
        (a_step(retry=3), "steps.a.retry", "invalid_retry"),
        (a_step(retry={"max_attempts": True}), "steps.a.retry.max_attempts", "invalid_retry"),
        (a_step(retry={"jitter": "some"}), "steps.a.retry.jitter", "invalid_retry"),
        (a_step(retry={"backoff_max": 1e300}), "steps.a.retry.backoff_max", "invalid_retry"),
        (a_step(timeout="5 minutes"), "steps.a.timeout", "invalid_timeout"),
        (a_step(timeout=True), "steps.a.timeout", "invalid_timeout"),
        (a_step(after="b"), "steps.a.after", "unknown_dependency"),
        (a_step(after=[3]), "steps.a.after.0", "unknown_dependency"),
        (a_step(compensate=3), "steps.a.compensate", "invalid_compensation"),
        (a_step(irreversible=1), "steps.a.irreversible", "recovery_conflict"),
        (a_step(transaction="yes"), "steps.a.transaction", "invalid_transaction"),
        (a_step(queue=7), "steps.a.queue", "invalid_queue"),
        (
            a_definition(steps=[{"name": "a", "kind": "wait"}]),
            "steps.a.duration",
            "invalid_wait_duration",
        ),
        (
            a_definition(steps=[{"name": "a", "kind": "wait", "duration": "5"}]),
            "steps.a.duration",
            "invalid_wait_duration",
        ),
        (a_definition(steps=[{"name": "a", "kind": "log"}]), "steps.a.message", "invalid_log"),
        (
            a_definition(steps=[{"name": "a", "kind": "log", "message": "x", "level": "loud"}]),
            "steps.a.level",
            "invalid_log",
        ),
        (a_definition(transitions=[7]), "transitions.0", "unknown_step"),
        (a_route(to=3), "transitions.0.to", "unknown_step"),
        (a_route(on="maybe"), "transitions.0.on", "unknown_outcome"),
        (a_route(recovery="regret"), "transitions.0.recovery", "invalid_recovery"),
        (a_route(when="always"), "transitions.0.when", "invalid_condition"),
        (a_route(when={"path": "a"}), "transitions.0.when", "invalid_condition"),
        (a_route(when={"path": 1, "equals": 2}), "transitions.0.when.path", "invalid_condition"),
    ],
)
def test_whatever_is_malformed_is_noted_where_it_stands(
    data: JsonObject, path: str, code: str
) -> None:
    assert (path, code) in noted(data)


def test_malformed_parts_are_noted_all_together() -> None:
    data = a_definition(
        name=None,
        steps=[{"name": "a", "kind": "wait"}, {"name": "b", "kind": "log"}],
        transitions=[{"from": 1, "on": 2}],
    )

    assert noted(data) == [
        ("name", "invalid_name"),
        ("steps.a.duration", "invalid_wait_duration"),
        ("steps.b.message", "invalid_log"),
        ("transitions.0.from", "unknown_step"),
        ("transitions.0.to", "unknown_step"),
        ("transitions.0.on", "unknown_outcome"),
    ]


def test_types_nest_only_so_deep() -> None:
    deep: Json = "str"
    for _ in range(DEEPEST_TYPE):
        deep = {"list": deep}

    ((path, code),) = noted(a_field(type=deep))

    assert code == "invalid_payload_type"
    assert path.count("list") == DEEPEST_TYPE - 1


def test_the_fingerprint_is_the_same_in_every_process_and_release() -> None:
    assert fingerprint(JOINED) == "df7ddab49c3eec381ac01b3d"


@pytest.mark.parametrize(
    "same",
    [
        attrs.evolve(ROUTED, version="2027-01", triggers=()),
        step_of(ROUTED, "load", queue=None),
        step_of(ROUTED, "load", kind=Action(body=Body(key="app:load"))),
        step_of(
            ROUTED,
            "pay",
            compensation=CompensationSpec(
                body=Body(key="app:refund"), retry=RetryPolicy(max_attempts=9)
            ),
        ),
    ],
)
def test_what_routes_no_run_differently_leaves_the_fingerprint(same: WorkflowDefinition) -> None:
    assert fingerprint(same) == fingerprint(ROUTED)


def test_the_order_of_prerequisites_leaves_the_fingerprint() -> None:
    assert fingerprint(step_of(JOINED, "c", after=("b", "a"))) == fingerprint(JOINED)


@pytest.mark.parametrize(
    "other",
    [
        step_of(ROUTED, "load", name="fetch"),
        step_of(ROUTED, "load", kind=Action(body=Body(key="app:fetch"))),
        step_of(ROUTED, "load", inputs={"note": ("note",)}),
        step_of(ROUTED, "load", output="invoice"),
        step_of(ROUTED, "load", retry=RetryPolicy(max_attempts=4)),
        step_of(ROUTED, "load", timeout=None),
        step_of(ROUTED, "settle", kind=Wait(timedelta(seconds=1))),
        step_of(ROUTED, "say", kind=Log("other", LogLevel.WARNING)),
        step_of(ROUTED, "hold", kind=Approval()),
        step_of(ROUTED, "pay", compensation=None),
        step_of(ROUTED, "pay", transaction=False),
        step_of(ROUTED, "tell", irreversible=False, compensatable=True),
        step_of(ROUTED, "fixed", compensatable=True),
        step_of(JOINED, "c", after=("a",)),
        attrs.evolve(ROUTED, steps=ROUTED.steps[:-1]),
        attrs.evolve(ROUTED, transitions=ROUTED.transitions[1:]),
        attrs.evolve(ROUTED, transitions=ROUTED.transitions[::-1]),
        attrs.evolve(ROUTED, name="other"),
    ],
)
def test_what_may_route_a_run_differently_changes_the_fingerprint(
    other: WorkflowDefinition,
) -> None:
    assert fingerprint(other) not in {fingerprint(ROUTED), fingerprint(JOINED)}


JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["name", "kind", "steps", "triggers", "payload", "fields", "type", "when", "from"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["name", "triggers", "steps", "transitions"]), JSON))
def test_nothing_that_is_json_breaks_the_reader(data: JsonObject) -> None:
    definition_from_dict(data)
