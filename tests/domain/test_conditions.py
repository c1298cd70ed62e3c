"""Conditions over what a run knows: never an accident, at worst just false."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squidmesh.domain.definition import Condition, Operator
from squidmesh.domain.planning import holds
from squidmesh.domain.state import RunState
from squidmesh.domain.values import Json
from tests.domain.builders import a_chain, an_action
from tests.domain.script import Script
from tests.domain.strategies import json_values

OPERATORS = st.sampled_from(Operator)


def a_state() -> RunState:
    """A run that knows nothing but what it is told."""
    return Script(a_chain(an_action("load"))).start().state


def equals(operand: Json) -> Condition:
    """Whether the value under ``x`` is this one."""
    return Condition(("x",), Operator.EQUALS, operand)


@pytest.mark.parametrize(
    ("value", "operand", "is_so"),
    [
        (1, 1, True),
        (1, 1.0, True),
        ("auto", "auto", True),
        (None, None, True),
        (True, True, True),
        (True, 1, False),
        (0, False, False),
        ("1", 1, False),
        ([True], [1], False),
        ([1, [True]], [1, [True]], True),
        ([1], [1, 2], False),
        ({"a": True}, {"a": 1}, False),
        ({"a": [0]}, {"a": [False]}, False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": 1}, {"b": 1}, False),
        ({}, [], False),
    ],
)
def test_values_are_equal_as_json_and_not_as_python(
    value: Json, operand: Json, *, is_so: bool
) -> None:
    state = a_state()

    assert holds(equals(operand), {"x": value}, state) is is_so
    assert holds(equals(value), {"x": operand}, state) is is_so


@pytest.mark.parametrize(
    ("value", "more", "less"),
    [(2, True, False), (0.5, False, True), (1, False, False), (10**400, True, False)],
)
def test_numbers_are_compared_with_numbers(value: Json, *, more: bool, less: bool) -> None:
    state = a_state()

    assert holds(Condition(("x",), Operator.GREATER_THAN, 1), {"x": value}, state) is more
    assert holds(Condition(("x",), Operator.LESS_THAN, 1), {"x": value}, state) is less


@given(json_values, json_values, OPERATORS, st.lists(st.text(max_size=2), min_size=1, max_size=3))
def test_no_condition_raises_whatever_the_values_are(
    value: Json, operand: Json, operator: Operator, path: list[str]
) -> None:
    state = a_state()

    for condition in (
        Condition(("x",), operator, operand),
        Condition(("x", *path), operator, operand),
        Condition(tuple(path), operator, operand),
    ):
        assert holds(condition, {"x": value}, state) in {True, False}


@given(json_values)
def test_every_value_equals_itself_and_is_neither_more_nor_less_than_that(value: Json) -> None:
    state = a_state()
    outputs = {"x": value}

    assert holds(equals(value), outputs, state)
    assert not holds(Condition(("x",), Operator.GREATER_THAN, value), outputs, state)
    assert not holds(Condition(("x",), Operator.LESS_THAN, value), outputs, state)


def test_a_missing_path_makes_a_condition_false() -> None:
    state = a_state()

    assert not holds(Condition(("nowhere",), Operator.EQUALS, None), {}, state)
    assert not holds(Condition(("x", "deep"), Operator.EQUALS, None), {"x": 1}, state)
