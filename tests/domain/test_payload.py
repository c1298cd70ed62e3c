"""Whether what somebody gives fits what a run may start with."""

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns.pipeline import is_successful

from squidmesh.domain.payload import (
    FieldProblemKind,
    PayloadContract,
    check,
    details_of,
    dotted,
    factory_keys,
    misfits,
)
from squidmesh.domain.typespec import (
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
    TypeSpec,
    describe,
    may_agree,
)
from squidmesh.domain.values import Json

STR: Final = Primitive(PrimitiveKind.STR)
INT: Final = Primitive(PrimitiveKind.INT)
FLOAT: Final = Primitive(PrimitiveKind.FLOAT)
BOOL: Final = Primitive(PrimitiveKind.BOOL)
NONE: Final = Primitive(PrimitiveKind.NONE)
DATE: Final = Primitive(PrimitiveKind.DATE)
DATETIME: Final = Primitive(PrimitiveKind.DATETIME)
UUID: Final = Primitive(PrimitiveKind.UUID)
DECIMAL: Final = Primitive(PrimitiveKind.DECIMAL)

ADDRESS: Final = Record(
    "Address",
    (
        PayloadField(name="city", type=STR),
        PayloadField(name="country", type=STR, default=StaticDefault("PT")),
    ),
)


def a_contract(**types: TypeSpec) -> PayloadContract:
    return PayloadContract(
        name="Order", fields=tuple(PayloadField(name=name, type=of) for name, of in types.items())
    )


def problems_of(contract: PayloadContract, given: dict[str, Json]) -> Json:
    return details_of(check(contract, given).failure())


def fitted(expected: TypeSpec, value: Json) -> Json:
    return check(a_contract(it=expected), {"it": value}).unwrap()["it"]


def test_a_payload_that_fits_comes_out_in_the_order_of_the_contract() -> None:
    contract = a_contract(account=STR, amount=INT)

    payload = check(contract, {"amount": 5, "account": "a1"}).unwrap()

    assert list(payload.items()) == [("account", "a1"), ("amount", 5)]


def test_missing_unknown_and_invalid_fields_are_reported_together() -> None:
    contract = a_contract(account=STR, amount=INT, address=ADDRESS)

    details = problems_of(contract, {"amount": "5", "zip": 1, "address": {"town": 2}, "colour": 1})

    assert details == {
        "missing": ["account", "address.city"],
        "unknown": ["address.town", "colour", "zip"],
        "invalid": {"amount": "must be int"},
    }


def test_static_defaults_are_filled_in_where_nothing_is_given_however_deep() -> None:
    contract = PayloadContract(
        fields=(
            PayloadField(name="url", type=STR, default=StaticDefault("https://example")),
            PayloadField(name="address", type=ADDRESS),
        )
    )

    payload = check(contract, {"address": {"city": "Porto"}}).unwrap()

    assert payload == {"url": "https://example", "address": {"city": "Porto", "country": "PT"}}


def test_a_dynamic_default_is_made_by_its_factory_at_each_check() -> None:
    field = PayloadField(name="day", type=DATE, default=DynamicDefault("app:Order.day"))
    days = iter(["2026-11-23", "2026-11-24"])
    factories = {"app:Order.day": lambda: next(days)}
    contract = PayloadContract(fields=(field,))

    payloads = [check(contract, {}, factories=factories).unwrap() for _ in range(2)]

    assert payloads == [{"day": "2026-11-23"}, {"day": "2026-11-24"}]
    assert check(contract, {"day": "2026-01-01"}, factories=factories).unwrap() == {
        "day": "2026-01-01"
    }


def test_a_dynamic_default_is_left_out_where_nobody_makes_defaults() -> None:
    field = PayloadField(name="day", type=DATE, default=DynamicDefault("app:Order.day"))

    assert check(PayloadContract(fields=(field,)), {}).unwrap() == {}


def test_a_dynamic_default_whose_factory_is_unknown_is_missing() -> None:
    field = PayloadField(name="day", type=DATE, default=DynamicDefault("app:Order.day"))

    refused = check(PayloadContract(fields=(field,)), {}, factories={}).failure()

    assert [problem.kind for problem in refused] == [FieldProblemKind.MISSING]


def test_a_field_that_may_be_left_out_stays_absent() -> None:
    field = PayloadField(name="note", type=STR, default=LeftOut())

    assert check(PayloadContract(fields=(field,)), {}).unwrap() == {}
    assert not field.required


def test_an_int_becomes_a_float_where_a_float_is_asked() -> None:
    value = fitted(FLOAT, 5)

    assert isinstance(value, float)
    assert value == 5.0


@pytest.mark.parametrize("integer", [2**53 + 1, 10**400, -(10**400)])
def test_an_int_that_no_float_holds_exactly_is_refused(integer: int) -> None:
    assert misfits(FLOAT, integer) != ()


def test_a_bool_is_never_a_number_and_a_number_never_a_bool() -> None:
    assert misfits(INT, value=True) != ()
    assert misfits(FLOAT, value=False) != ()
    assert misfits(BOOL, 1) != ()


@pytest.mark.parametrize(
    ("expected", "given", "kept"),
    [
        (STR, "text", "text"),
        (BOOL, True, True),
        (NONE, None, None),
        (FLOAT, 1.5, 1.5),
        (DATE, "2026-11-23", "2026-11-23"),
        (DATE, "20261123", "2026-11-23"),
        (DATETIME, "2026-11-23T10:00", "2026-11-23T10:00:00"),
        (DATETIME, "2026-11-23 10:00:00Z", "2026-11-23T10:00:00+00:00"),
        (
            UUID,
            "0189ABCD-0000-7000-8000-0123456789AB",
            "0189abcd-0000-7000-8000-0123456789ab",
        ),
        (UUID, "0189abcd0000700080000123456789ab", "0189abcd-0000-7000-8000-0123456789ab"),
        (DECIMAL, "1.10", "1.10"),
        (DECIMAL, "-1E+5", "-1E+5"),
        (ListOf(FLOAT), [1, 2.5], [1.0, 2.5]),
        (MappingOf(FLOAT), {"a": 1}, {"a": 1.0}),
        (OneOf(("new", 3, None)), 3, 3),
        (AnyOf((FLOAT, INT)), 3, 3),
        (AnyOf((NONE, STR)), "a", "a"),
        (Anything(), {"deep": [1, None]}, {"deep": [1, None]}),
    ],
)
def test_a_value_that_fits_is_kept_in_its_one_form(
    expected: TypeSpec, given: Json, kept: Json
) -> None:
    value = fitted(expected, given)

    assert value == kept
    assert type(value) is type(kept)


@pytest.mark.parametrize(
    ("expected", "given"),
    [
        (STR, 1),
        (INT, 1.0),
        (INT, "1"),
        (FLOAT, "1.5"),
        (NONE, 0),
        (DATE, "2026-13-01"),
        (DATE, "2026-11-23T00:00:00"),
        (DATE, 20261123),
        (DATETIME, "2026-11-23"),
        (DATETIME, "soon"),
        (DATETIME, 0),
        (DATETIME, "2026-11-23T10:00:00+01:00:30"),
        (UUID, "{0189abcd-0000-7000-8000-0123456789ab}"),
        (UUID, 7),
        (DECIMAL, 1),
        (DECIMAL, 1.5),
        (DECIMAL, "NaN"),
        (DECIMAL, "1_000"),
        (DECIMAL, "٣"),
        (DECIMAL, "1e99999999999999999999"),
        (OneOf((1, "a")), True),
        (OneOf((1, "a")), 1.0),
        (ListOf(INT), {"0": 1}),
        (MappingOf(INT), [1]),
        (ADDRESS, "Porto"),
        (AnyOf((INT, NONE)), "a"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_without_repeating_it(
    expected: TypeSpec, given: Json
) -> None:
    (problem,) = misfits(expected, given)

    assert problem.kind is FieldProblemKind.INVALID
    assert problem.message == f"must be {describe(expected)}"


def test_the_path_to_a_nested_value_names_keys_and_positions() -> None:
    contract = a_contract(lines=ListOf(MappingOf(INT)))

    (problem,) = check(contract, {"lines": [{"a": 1}, {"a": 1, "b": "x"}]}).failure()

    assert problem.path == ("lines", 1, "b")
    assert dotted(problem.path) == "lines.1.b"


def test_the_problems_of_the_only_option_that_has_the_shape_are_told_one_by_one() -> None:
    contract = a_contract(address=AnyOf((ADDRESS, NONE)))

    details = problems_of(contract, {"address": {"country": 1}})

    assert details == {
        "missing": ["address.city"],
        "unknown": [],
        "invalid": {"address.country": "must be str"},
    }


def test_a_value_that_is_nested_very_deeply_costs_no_recursion() -> None:
    deep: Json = []
    for _ in range(100_000):
        deep = [deep]

    assert is_successful(check(a_contract(it=Anything()), {"it": deep}))


def test_the_keys_of_factories_are_found_in_nested_types_too() -> None:
    def made(key: str) -> PayloadField:
        return PayloadField(name=key, type=STR, default=DynamicDefault(key))

    contract = PayloadContract(
        fields=(
            made("a"),
            PayloadField(name="list", type=ListOf(Record("R", (made("b"),)))),
            PayloadField(name="map", type=MappingOf(AnyOf((NONE, Record("S", (made("c"),)))))),
            PayloadField(name="rest", type=AnyOf((Anything(), OneOf((1,))))),
        )
    )

    assert factory_keys(contract) == {"a", "b", "c"}


def test_fields_are_found_by_name() -> None:
    assert list(a_contract(a=STR, b=INT).by_name) == ["a", "b"]


@pytest.mark.parametrize(
    ("one", "other", "agree"),
    [
        (STR, INT, False),
        (INT, FLOAT, True),
        (STR, DATE, True),
        (BOOL, INT, False),
        (AnyOf((STR, NONE)), AnyOf((INT, NONE)), True),
        (ListOf(STR), ListOf(INT), True),
        (MappingOf(STR), ADDRESS, True),
        (ListOf(STR), ADDRESS, False),
        (OneOf(("a", 1)), INT, True),
        (OneOf(("a",)), INT, False),
        (Anything(), NONE, True),
    ],
)
def test_types_agree_if_some_value_fits_both(one: TypeSpec, other: TypeSpec, agree: bool) -> None:
    assert may_agree(one, other) is agree
    assert may_agree(other, one) is agree


def test_types_are_described_in_words() -> None:
    words = describe(
        AnyOf((ListOf(STR), MappingOf(DATE), OneOf(("a", 1)), ADDRESS, Anything(), NONE))
    )

    assert words == (
        "a list of str or an object of the ISO text of a date or one of 'a', 1 or an object with "
        "the fields of Address or any JSON value or None"
    )


@given(st.dictionaries(st.sampled_from(["a", "b", "c", "x"]), st.integers() | st.text()))
def test_a_payload_that_was_accepted_is_accepted_again_unchanged(given: dict[str, Json]) -> None:
    contract = PayloadContract(
        fields=(
            PayloadField(name="a", type=FLOAT, default=StaticDefault(1)),
            PayloadField(name="b", type=AnyOf((INT, STR)), default=LeftOut()),
            PayloadField(name="c", type=Anything()),
        )
    )

    result = check(contract, given)

    if is_successful(result):
        assert check(contract, result.unwrap()).unwrap() == result.unwrap()
