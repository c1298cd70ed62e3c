"""What is wrong with a definition: each rule, and that all of them speak at once."""

from collections.abc import Iterable
from datetime import timedelta
from time import process_time
from typing import Any, Final

import attrs
import pytest

from squidmesh.domain.definition import (
    Action,
    Approval,
    Body,
    CompensationSpec,
    Condition,
    CronTrigger,
    Log,
    ManualTrigger,
    On,
    Operator,
    Parameter,
    Pause,
    RecoveryMarker,
    RetryPolicy,
    StepSpec,
    Transition,
    Trigger,
    Wait,
    WorkflowDefinition,
)
from squidmesh.domain.payload import PayloadContract
from squidmesh.domain.typespec import (
    AnyOf,
    Anything,
    LeftOut,
    ListOf,
    OneOf,
    PayloadField,
    Primitive,
    PrimitiveKind,
    Record,
    StaticDefault,
    TypeSpec,
)
from squidmesh.domain.validation import validate

STR: Final = Primitive(PrimitiveKind.STR)
INT: Final = Primitive(PrimitiveKind.INT)


def payload(**types: TypeSpec) -> PayloadContract:
    return PayloadContract(
        fields=tuple(PayloadField(name=name, type=of) for name, of in types.items())
    )


def by_hand(**types: TypeSpec) -> Trigger:
    return ManualTrigger(name="by_hand", payload=payload(**types))


def act(name: str, *takes: str, merges: tuple[str, ...] | None = (), **options: Any) -> StepSpec:
    body = Body(key=f"app:{name}", parameters=tuple(Parameter(one) for one in takes))
    return StepSpec(name=name, kind=Action(body=body, merges=merges), **options)


def undo(*takes: str, key: str = "app:undo", **options: Any) -> CompensationSpec:
    parameters = tuple(Parameter(one) for one in takes)
    return CompensationSpec(body=Body(key=key, parameters=parameters), **options)


def to(source: str, target: str | None, on: On = On.OK, **options: Any) -> Transition:
    return Transition(source=source, on=on, target=target, **options)


def along(*names: str) -> tuple[Transition, ...]:
    return tuple(
        to(source, target) for source, target in zip(names, (*names[1:], None), strict=True)
    )


def flow(
    *steps: StepSpec,
    transitions: Iterable[Transition] = (),
    triggers: Iterable[Trigger] | None = None,
    **options: Any,
) -> WorkflowDefinition:
    return WorkflowDefinition(
        name=options.pop("name", "orders"),
        triggers=(by_hand(),) if triggers is None else tuple(triggers),
        steps=steps,
        transitions=tuple(transitions),
        **options,
    )


def found(definition: WorkflowDefinition) -> list[tuple[str, str]]:
    """Each problem as where and which rule."""
    return [
        (".".join(str(part) for part in problem.path), problem.code)
        for problem in validate(definition)
    ]


def codes(definition: WorkflowDefinition) -> list[str]:
    return [problem.code for problem in validate(definition)]


def test_a_definition_that_can_work_has_no_problems() -> None:
    definition = flow(
        act("load", "order", output="invoice"),
        StepSpec(name="settle", kind=Wait(timedelta(seconds=5))),
        StepSpec(name="say", kind=Log("settled")),
        StepSpec(name="review", kind=Approval(), output="review"),
        act("pay", "invoice", "review", compensation=undo("order", "output", "failure")),
        act("page", "review", compensatable=False),
        transitions=(
            *along("load", "settle", "say", "review", "pay"),
            to("review", "page", On.ERROR, recovery=RecoveryMarker.UNDO),
            to("page", None),
        ),
        triggers=[by_hand(order=STR)],
    )

    assert validate(definition) == ()


def test_problems_of_all_kinds_are_found_together() -> None:
    definition = flow(
        act("a", "nobody", retry=RetryPolicy(max_attempts=0)),
        act("a", queue=""),
        transitions=[to("a", "b")],
        triggers=[],
        name="",
    )

    assert set(codes(definition)) == {
        "invalid_name",
        "missing_trigger",
        "duplicate_name",
        "invalid_retry",
        "invalid_queue",
        "unknown_step",
    }


def test_every_problem_says_in_words_what_is_wrong() -> None:
    definition = flow(act("a", "nobody"), triggers=[by_hand(order=STR)])

    (problem,) = validate(definition)

    assert problem.path == ("steps", "a", "parameters", "nobody")
    assert problem.message == (
        "neither a step before this one nor the payload of by_hand provides 'nobody'"
    )


# Names, triggers and payloads


def test_a_workflow_without_a_trigger_could_never_begin() -> None:
    assert found(flow(act("a"), triggers=[])) == [("triggers", "missing_trigger")]


def test_a_workflow_without_steps_does_nothing() -> None:
    assert found(flow()) == [("steps", "missing_steps")]


@pytest.mark.parametrize("name", ["", " padded ", "line\nbreak", "x" * 501, "\ud800"])
def test_a_workflow_goes_by_printable_text_of_reasonable_length(name: str) -> None:
    assert found(flow(act("a"), name=name)) == [("name", "invalid_name")]


def test_a_version_label_is_printable_text() -> None:
    assert found(flow(act("a"), version="\0")) == [("version", "invalid_name")]
    assert found(flow(act("a"), version="2026-11")) == []


@pytest.mark.parametrize("name", ["", "compensate:a", "x" * 201, " a"])
def test_a_step_goes_by_short_printable_text_without_a_colon(name: str) -> None:
    assert found(flow(act(name))) == [(f"steps.{name}", "invalid_name")]


@pytest.mark.parametrize("name", ["name", "version", "transitions", "definition", "complete"])
def test_a_step_or_trigger_cannot_take_the_name_of_something_else(name: str) -> None:
    trigger = ManualTrigger(name=name, payload=payload())

    assert found(flow(act(name), triggers=[trigger])) == [
        (f"triggers.{name}", "reserved_name"),
        (f"steps.{name}", "reserved_name"),
    ]


def test_two_steps_of_one_name_are_one_too_many() -> None:
    assert found(flow(act("a"), act("a"))) == [("steps.a", "duplicate_name")]


def test_names_that_differ_in_case_alone_are_alike() -> None:
    definition = flow(
        act("load"),
        act("Load"),
        triggers=[by_hand(), ManualTrigger(name="BY_HAND", payload=payload())],
    )

    assert found(definition) == [
        ("triggers.BY_HAND", "duplicate_name"),
        ("steps.Load", "duplicate_name"),
    ]


def test_a_static_default_fits_the_type_of_its_field() -> None:
    fields = (
        PayloadField(name="amount", type=INT, default=StaticDefault("five")),
        PayloadField(name="fine", type=INT, default=StaticDefault(5)),
        PayloadField(
            name="lines",
            type=ListOf(
                AnyOf(
                    (
                        Record(
                            "Line",
                            (PayloadField(name="sku", type=STR, default=StaticDefault(1)),),
                        ),
                        OneOf((1,)),
                        Anything(),
                    )
                )
            ),
        ),
    )
    trigger = ManualTrigger(name="by_hand", payload=PayloadContract(fields=fields))

    assert found(flow(act("a"), triggers=[trigger])) == [
        ("triggers.by_hand.payload.amount", "invalid_payload_default"),
        ("triggers.by_hand.payload.lines.sku", "invalid_payload_default"),
    ]


def test_fields_have_names_and_no_two_the_same_one() -> None:
    fields = [PayloadField(name=name, type=STR) for name in ("a", "a", "")]
    trigger = ManualTrigger(name="by_hand", payload=PayloadContract(fields=tuple(fields)))

    assert found(flow(act("step"), triggers=[trigger])) == [
        ("triggers.by_hand.payload.a", "duplicate_name"),
        ("triggers.by_hand.payload.", "invalid_name"),
    ]


def test_a_field_of_two_triggers_has_types_that_one_step_could_take() -> None:
    nightly = CronTrigger(
        name="nightly", payload=payload(order=INT, note=AnyOf((STR, INT))), expression="0 3 * * *"
    )

    definition = flow(act("a"), triggers=[by_hand(order=STR, note=STR), nightly])

    assert found(definition) == [("triggers.nightly.payload.order", "invalid_payload_type")]


# A step by itself


def test_an_action_has_a_key() -> None:
    step = StepSpec(name="a", kind=Action(body=Body(key=""), merges=()))

    assert found(flow(step)) == [("steps.a.action", "invalid_action")]


@pytest.mark.parametrize(
    "duration", [timedelta(0), timedelta(seconds=-1), timedelta.max, timedelta(days=40_000)]
)
def test_a_wait_is_longer_than_nothing_and_shorter_than_a_century(duration: timedelta) -> None:
    step = StepSpec(name="a", kind=Wait(duration))

    assert found(flow(step)) == [("steps.a.duration", "invalid_wait_duration")]


def test_a_log_step_says_something() -> None:
    assert found(flow(StepSpec(name="a", kind=Log(" ")))) == [("steps.a.message", "invalid_log")]


@pytest.mark.parametrize(
    "retry",
    [
        RetryPolicy(max_attempts=0),
        RetryPolicy(backoff_min=timedelta(seconds=-1)),
        RetryPolicy(backoff_min=timedelta(days=40_000)),
        RetryPolicy(backoff_min=timedelta(seconds=2), backoff_max=timedelta(seconds=1)),
        RetryPolicy(backoff_max=timedelta.max),
        RetryPolicy(jitter=-0.1),
        RetryPolicy(jitter=1.5),
        RetryPolicy(jitter=float("nan")),
    ],
)
def test_a_retry_policy_makes_sense_on_steps_and_compensations(retry: RetryPolicy) -> None:
    definition = flow(act("a", retry=retry), act("b", compensation=undo(retry=retry)))

    assert found(definition) == [
        ("steps.a.retry", "invalid_retry"),
        ("steps.b.compensate.retry", "invalid_retry"),
    ]


@pytest.mark.parametrize("timeout", [timedelta(0), timedelta(seconds=-5), timedelta.max])
def test_a_time_limit_is_longer_than_nothing(timeout: timedelta) -> None:
    assert found(flow(act("a", timeout=timeout))) == [("steps.a.timeout", "invalid_timeout")]


@pytest.mark.parametrize("queue", ["", "x" * 201, "a\tb"])
def test_a_queue_goes_by_short_printable_text(queue: str) -> None:
    assert found(flow(act("a", queue=queue))) == [("steps.a.queue", "invalid_queue")]


def test_an_output_key_is_printable_text() -> None:
    assert found(flow(act("a", output=""))) == [("steps.a.output", "invalid_output")]


def test_no_step_writes_the_schedule_of_a_cron_activation() -> None:
    definition = flow(act("a", output="schedule"), act("b", merges=("schedule",), after=("a",)))

    assert found(definition) == [
        ("steps.a.output", "invalid_output"),
        ("steps.b.output", "invalid_output"),
    ]


def test_inputs_name_parameters_and_say_where_their_values_are() -> None:
    body = Body(key="app:a", parameters=(Parameter("x"), Parameter("context", is_context=True)))
    step = StepSpec(
        name="a",
        kind=Action(body=body, merges=()),
        inputs={"x": (), "y": ("order",), "context": ("order", "")},
    )

    assert found(flow(step, triggers=[by_hand(order=STR)])) == [
        ("steps.a.inputs.x", "invalid_inputs"),
        ("steps.a.inputs.y", "invalid_inputs"),
        ("steps.a.inputs.context", "invalid_inputs"),
        ("steps.a.inputs.context", "invalid_inputs"),
    ]


def test_only_a_step_that_runs_a_function_takes_the_options_of_one() -> None:
    step = StepSpec(
        name="a",
        kind=Wait(timedelta(seconds=1)),
        inputs={"x": ("y",)},
        output="z",
        retry=RetryPolicy(max_attempts=2),
        timeout=timedelta(seconds=1),
        compensation=undo(),
        transaction=True,
    )

    assert found(flow(step)) == [
        ("steps.a.inputs", "invalid_inputs"),
        ("steps.a.output", "invalid_output"),
        ("steps.a.retry", "invalid_retry"),
        ("steps.a.timeout", "invalid_timeout"),
        ("steps.a.compensate", "invalid_compensation"),
        ("steps.a.transaction", "invalid_transaction"),
    ]


def test_what_is_irreversible_is_not_compensatable() -> None:
    assert found(flow(act("a", irreversible=True, compensatable=True))) == [
        ("steps.a.compensatable", "recovery_conflict")
    ]


@pytest.mark.parametrize("irreversible", [True, False])
def test_what_cannot_be_compensated_has_no_compensation(irreversible: bool) -> None:
    step = act("a", irreversible=irreversible, compensatable=False, compensation=undo())

    assert found(flow(step)) == [("steps.a.compensate", "recovery_conflict")]


def test_a_compensation_has_a_key() -> None:
    assert found(flow(act("a", compensation=undo(key="")))) == [
        ("steps.a.compensate", "invalid_compensation")
    ]


# Prerequisites


def test_prerequisites_are_steps_of_the_workflow_and_not_the_step_itself() -> None:
    definition = flow(act("a"), act("b", after=()), act("c", after=("c", "x", "a")))

    assert found(definition) == [
        ("steps.b.after", "empty_dependencies"),
        ("steps.c.after", "self_dependency"),
        ("steps.c.after", "unknown_dependency"),
    ]


def test_steps_that_wait_for_one_another_are_found_circle_by_circle() -> None:
    definition = flow(
        act("a", after=("c",)),
        act("b", after=("a",)),
        act("c", after=("b",)),
        act("d", after=("c", "e")),
        act("e", after=("d",)),
        act("f", after=("e",)),
        act("root"),
    )

    assert found(definition) == [
        ("steps.a.after", "dependency_cycle"),
        ("steps.d.after", "dependency_cycle"),
    ]


def test_a_person_decides_only_where_routes_lead_on() -> None:
    definition = flow(StepSpec(name="a", kind=Pause()), StepSpec(name="b", kind=Approval()))

    assert found(definition) == [
        ("steps.a", "manual_step_in_dependency_mode"),
        ("steps.b", "manual_step_in_dependency_mode"),
    ]


def test_prerequisites_and_transitions_do_not_mix() -> None:
    definition = flow(act("a"), act("b", after=("a",)), transitions=along("a", "b"))

    assert found(definition) == [("steps.b.after", "mixed_modes")]


# Transitions


def test_transitions_lead_from_steps_to_steps() -> None:
    definition = flow(act("a"), transitions=[to("a", "y"), to("x", "a", On.ERROR)])

    assert ("transitions.0.to", "unknown_step") in found(definition)
    assert ("transitions.1.from", "unknown_step") in found(definition)


def test_a_recovery_marker_belongs_to_an_error_route() -> None:
    definition = flow(act("a"), transitions=[to("a", None, recovery=RecoveryMarker.UNDO)])

    assert found(definition) == [("transitions.0.recovery", "invalid_recovery")]


@pytest.mark.parametrize("where", [(), ("a", "")])
def test_a_condition_says_where_to_look(where: tuple[str, ...]) -> None:
    condition = Condition(where, Operator.EQUALS, 1)
    definition = flow(act("a"), transitions=[to("a", None, condition=condition)])

    assert found(definition) == [("transitions.0.when.path", "invalid_condition")]


@pytest.mark.parametrize(
    "condition",
    [
        Condition(("a",), Operator.GREATER_THAN, "1"),
        Condition(("a",), Operator.LESS_THAN, operand=True),
        Condition(("a",), Operator.LESS_THAN, float("inf")),
    ],
)
def test_a_condition_compares_with_what_can_be_compared(condition: Condition) -> None:
    definition = flow(act("a"), transitions=[to("a", None, condition=condition)])

    assert found(definition) == [("transitions.0.when", "invalid_condition")]


def test_where_a_person_decides_no_condition_does() -> None:
    condition = Condition(("a",), Operator.EQUALS, 1)
    definition = flow(
        StepSpec(name="a", kind=Pause()), transitions=[to("a", None, condition=condition)]
    )

    assert found(definition) == [("transitions.0.when", "invalid_condition")]


def test_a_route_is_declared_once() -> None:
    definition = flow(act("a"), act("b"), transitions=[to("a", "b"), to("a", None), to("b", None)])

    assert found(definition) == [("transitions.1", "duplicate_transition")]


def test_two_routes_with_the_same_condition_are_one_too_many() -> None:
    def asked(operand: Any) -> Transition:
        return to("a", None, condition=Condition(("x",), Operator.EQUALS, operand))

    definition = flow(
        act("a"),
        transitions=[asked(1), asked(True), asked(1.0), asked("1"), asked(1.5), to("a", None)],
    )

    assert found(definition) == [("transitions.2", "duplicate_transition")]


def test_both_answers_to_an_approval_lead_on() -> None:
    definition = flow(
        StepSpec(name="review", kind=Approval()),
        act("page"),
        transitions=[to("review", "page", On.ERROR), to("page", None)],
    )

    (problem,) = validate(definition)

    assert problem.code == "missing_approval_transitions"
    assert problem.message == "no route leads on from here on ok"


def test_a_pause_leads_on_when_it_is_resumed() -> None:
    definition = flow(act("a"), StepSpec(name="hold", kind=Pause()), transitions=[to("a", "hold")])

    assert found(definition) == [("steps.hold", "missing_approval_transitions")]


def test_a_run_begins_at_exactly_one_step() -> None:
    two = flow(act("a"), act("b"), transitions=[to("a", None), to("b", None)])
    none = flow(act("a"), act("b"), transitions=[to("a", "b"), to("b", "a")])

    assert found(two) == [("transitions", "entry_step_count")]
    assert found(none) == [("transitions", "entry_step_count"), ("steps.a", "transition_cycle")]


def test_a_step_that_no_route_mentions_is_unreachable() -> None:
    definition = flow(act("a"), act("orphan"), transitions=along("a"))

    assert found(definition) == [
        ("transitions", "entry_step_count"),
        ("steps.orphan", "unreachable_step"),
    ]


def test_a_circle_off_the_way_is_both_unreachable_and_a_circle() -> None:
    definition = flow(
        act("a"), act("b"), act("c"), transitions=[to("a", None), to("b", "c"), to("c", "b")]
    )

    assert found(definition) == [
        ("steps.b", "unreachable_step"),
        ("steps.c", "unreachable_step"),
        ("steps.b", "transition_cycle"),
    ]


def test_a_step_that_leads_to_itself_is_a_circle() -> None:
    definition = flow(
        act("a"), act("b"), transitions=[to("a", "b"), to("b", "b", On.ERROR), to("b", None)]
    )

    assert found(definition) == [("steps.b", "transition_cycle")]


def test_two_ways_that_meet_again_are_no_circle() -> None:
    condition = Condition(("x",), Operator.EQUALS, 1)
    definition = flow(
        act("a"),
        act("b"),
        act("c"),
        transitions=[to("a", "b", condition=condition), to("a", "c"), to("b", "c"), to("c", None)],
    )

    assert found(definition) == []


def test_a_long_list_of_names_is_cut_short() -> None:
    names = [f"s{number}" for number in range(20)]
    definition = flow(*map(act, names), transitions=[to(name, None) for name in names])

    (problem,) = validate(definition)

    assert problem.message.endswith("s0, s1, s2, s3, s4, s5, s6, s7 and 12 more")


# Who provides which value


def test_a_parameter_is_provided_by_the_payload_of_every_trigger() -> None:
    nightly = CronTrigger(name="nightly", payload=payload(), expression="0 3 * * *")
    definition = flow(act("a", "order"), triggers=[by_hand(order=STR), nightly])

    (problem,) = validate(definition)

    assert problem.code == "unknown_parameter"
    assert "the payload of nightly provides 'order'" in problem.message


def test_a_parameter_is_provided_by_any_step_that_may_come_before() -> None:
    condition = Condition(("x",), Operator.EQUALS, 1)
    definition = flow(
        act("a", output="one"),
        act("b", merges=("two",)),
        act("c", "one", "two"),
        transitions=[to("a", "b", condition=condition), to("a", "c"), *along("b", "c")],
    )

    assert found(definition) == []


def test_a_step_that_comes_later_or_beside_provides_nothing() -> None:
    definition = flow(
        act("a", "late"), act("b", "beside", output="late", after=("a",)), act("c", output="beside")
    )

    assert found(definition) == [
        ("steps.a.parameters.late", "unknown_parameter"),
        ("steps.b.parameters.beside", "unknown_parameter"),
    ]


def test_a_step_whose_error_leads_here_has_left_nothing_but_what_was_before_it() -> None:
    definition = flow(
        act("load", output="order"),
        act("pay", output="receipt"),
        act("page", "order", "receipt"),
        transitions=[*along("load", "pay"), to("pay", "page", On.ERROR), to("page", None)],
    )

    assert found(definition) == [("steps.page.parameters.receipt", "unknown_parameter")]


def test_a_rejection_leaves_the_decision() -> None:
    definition = flow(
        StepSpec(name="review", kind=Approval(), output="decision"),
        act("page", "decision"),
        transitions=[to("review", None), to("review", "page", On.ERROR), to("page", None)],
    )

    assert found(definition) == []


def test_behind_a_step_that_merges_anything_any_parameter_may_be_provided() -> None:
    definition = flow(
        act("a", "unknown"), act("b", merges=None), act("c", "x"), transitions=along("a", "b", "c")
    )

    assert found(definition) == [("steps.a.parameters.unknown", "unknown_parameter")]


def test_an_output_key_keeps_a_mapping_from_being_merged() -> None:
    definition = flow(
        act("b", merges=None, output="all"), act("c", "x"), transitions=along("b", "c")
    )

    assert found(definition) == [("steps.c.parameters.x", "unknown_parameter")]


def test_parameters_with_a_default_and_the_context_need_no_provider() -> None:
    parameters = (Parameter("note", required=False), Parameter("context", is_context=True))
    body = Body(key="app:a", parameters=parameters)
    step = StepSpec(
        name="a",
        kind=Action(body=body, merges=()),
        compensation=CompensationSpec(body=body),
    )

    assert found(flow(step)) == []


def test_an_input_is_dug_out_of_something_that_is_provided() -> None:
    body = Body(key="app:a", parameters=(Parameter("x"), Parameter("y", required=False)))
    step = StepSpec(
        name="a",
        kind=Action(body=body, merges=()),
        inputs={"x": ("order", "id"), "y": ("ordr", "id")},
    )

    assert found(flow(step, triggers=[by_hand(order=STR)])) == [
        ("steps.a.inputs.y", "unknown_parameter")
    ]


def test_a_field_that_may_be_left_out_counts_as_provided() -> None:
    field = PayloadField(name="note", type=STR, default=LeftOut())
    trigger = ManualTrigger(name="by_hand", payload=PayloadContract(fields=(field,)))

    assert found(flow(act("a", "note"), triggers=[trigger])) == []


def test_a_compensation_takes_what_any_step_left() -> None:
    definition = flow(
        act("a", compensation=undo("late", "nobody")), act("b", output="late", after=("a",))
    )

    assert found(definition) == [("steps.a.compensate.nobody", "unknown_parameter")]


def test_no_step_writes_over_the_payload() -> None:
    definition = flow(
        act("a", output="order"),
        act("b", merges=("order", "other"), after=("a",)),
        triggers=[by_hand(order=STR)],
    )

    assert found(definition) == [
        ("steps.a.output", "output_collision"),
        ("steps.b.output", "output_collision"),
    ]


def test_steps_that_may_run_at_the_same_time_write_different_keys() -> None:
    definition = flow(
        act("a", output="x"),
        act("b", output="x", after=("a",)),
        act("c", merges=("x",), after=("a",)),
        act("d", output="x", after=("b", "c")),
    )

    assert found(definition) == [("steps.c.output", "output_collision")]


def test_alternative_branches_may_write_the_same_key() -> None:
    definition = flow(
        act("a"),
        act("b", output="x"),
        act("c", output="x"),
        transitions=[to("a", "b"), to("a", "c", On.ERROR), to("b", None), to("c", None)],
    )

    assert found(definition) == []


@pytest.mark.parametrize("routed", [True, False])
def test_ten_thousand_steps_are_judged_without_taking_square_time(routed: bool) -> None:
    names = [f"s{number}" for number in range(10_000)]
    steps = [act(name, "order", output="x") for name in names]
    if not routed:
        steps = [
            attrs.evolve(step, after=(names[number - 1],) if number else None)
            for number, step in enumerate(steps)
        ]
    definition = flow(
        *steps, transitions=along(*names) if routed else (), triggers=[by_hand(order=STR)]
    )

    begun = process_time()
    problems = validate(definition)

    assert problems == ()
    assert process_time() - begun < 5
