"""The codec: what it takes comes back exactly, and what it cannot take it refuses first."""

import collections
import dataclasses
import datetime as dt
import enum
import importlib
import inspect
import math
import types
import uuid
from decimal import Decimal
from typing import (
    Annotated,
    Any,
    Final,
    Generic,
    Literal,
    NamedTuple,
    NotRequired,
    TypedDict,
    TypeVar,
)

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns.result import Failure, Success

from squidmesh.codec import (
    MAX_DEPTH,
    DecodeProblem,
    StructureProblem,
    canonical,
    decode,
    encode,
    plain,
    structure,
    supports,
)
from squidmesh.domain.values import Json, MissingPath, dig
from squidmesh.errors import PayloadTooLargeError, UnserializableValueError

SECRET: Final = "hunter2"
UTC: Final = dt.UTC
T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@attrs.frozen(kw_only=True)
class Money:
    amount: Decimal
    currency: str = "EUR"


@attrs.frozen(kw_only=True)
class Invoice:
    number: str
    total: Money
    issued_on: dt.date
    paid_at: dt.datetime | None = None
    key: uuid.UUID
    colour: Colour = Colour.RED
    rate: float = 1.0
    lines: list[Money] = attrs.field(factory=list)
    by_name: dict[str, Money] = attrs.field(factory=dict)
    extra: Any = None


@dataclasses.dataclass
class Parcel:
    weight: int
    tags: tuple[str, ...] = ()
    parts: "list[Parcel]" = dataclasses.field(default_factory=list)
    level: Level = Level.LOW


class Address(TypedDict):
    street: str
    town: NotRequired[str]


class Card(msgspec.Struct, rename="camel", tag="card"):
    card_number: str
    owner: Address | None = None


class Transfer(msgspec.Struct, tag="transfer"):
    iban: str
    note: str | msgspec.UnsetType = msgspec.UNSET


class Row(msgspec.Struct, array_like=True):
    number: int


class Point(NamedTuple):
    x: int
    at: Money


@attrs.frozen
class Box(Generic[T]):
    item: T


@attrs.frozen
class Positive:
    number: int = attrs.field(validator=attrs.validators.gt(0))


@attrs.frozen
class Grumpy:
    word: str

    def __attrs_post_init__(self) -> None:
        raise KeyError(self.word)


@attrs.define
class Half:
    seen: int
    unseen: int = attrs.field(init=False)


class Words(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "something else"


class Twin(str):
    """A key that equals nothing but itself."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


def nested(levels: int) -> list[Any]:
    inmost: list[Any] = []
    for _ in range(levels - 1):
        inmost = [inmost]
    return inmost


def a_list_in_itself() -> list[Any]:
    own: list[Any] = [1]
    own.append({"again": own})
    return own


# What is refused, where, and why.
HOSTILE: Final[tuple[tuple[str, object, str, str], ...]] = (
    ("NaN", {"a": [0, {"b": math.nan}]}, "$.a[1].b", "nan"),
    ("infinity", [math.inf], "$[0]", "infinity"),
    ("negative infinity", (1, -math.inf), "$[1]", "infinity"),
    ("NaN as a decimal", {"a": Decimal("NaN")}, "$.a", "nan"),
    ("signalling NaN", {"a": Decimal("sNaN")}, "$.a", "nan"),
    ("infinity as a decimal", {"a": Decimal("-Infinity")}, "$.a", "infinity"),
    ("half an emoji", {"a": "\ud83e"}, "$.a", "lone_surrogate"),
    ("half an emoji in a key", {"a": {"\udd91": 1}}, "$.a['\\udd91']", "lone_surrogate"),
    ("NUL", ["a\0b"], "$[0]", "nul_character"),
    ("NUL behind an umlaut", "ü\0", "$", "nul_character"),
    ("NUL in a key", {"a\0": 1}, "$['a\\x00']", "nul_character"),
    ("NUL in a subclass of str", Words("a\0"), "$", "nul_character"),
    ("bytes", {"a": b"hunter2"}, "$.a", "unsupported_type"),
    ("bytearray", {"a": bytearray(b"hunter2")}, "$.a", "unsupported_type"),
    ("set", {"a": {"hunter2"}}, "$.a", "unsupported_type"),
    ("frozenset", frozenset({1}), "$", "unsupported_type"),
    ("generator", (item for item in "abc"), "$", "unsupported_type"),
    ("coroutine-like function", plain, "$", "unsupported_type"),
    ("class", Money, "$", "unsupported_type"),
    ("arbitrary object", [object()], "$[0]", "unsupported_type"),
    ("exception", {"a": ValueError("hunter2")}, "$.a", "unsupported_type"),
    ("complex number", 1j, "$", "unsupported_type"),
    ("range", range(3), "$", "unsupported_type"),
    ("struct without keys", Row(1), "$", "unsupported_type"),
    ("duration", dt.timedelta(seconds=1), "$", "unsupported_type"),
    ("integer key", {"a": {1: 2}}, "$.a", "non_string_key"),
    ("key None", {None: 2}, "$", "non_string_key"),
    ("bytes as a key", {b"a": 2}, "$", "non_string_key"),
    ("two keys of one text", {"a": 1, Twin("a"): 2}, "$.a", "duplicate_key"),
    ("2**63", {"a": 2**63}, "$.a", "integer_out_of_range"),
    ("-2**63 - 1", [-(2**63) - 1], "$[0]", "integer_out_of_range"),
    ("2**200", 2**200, "$", "integer_out_of_range"),
    ("65 levels", nested(MAX_DEPTH + 1), "$" + "[0]" * MAX_DEPTH, "too_deep"),
    ("5,000 levels", nested(5_000), "$" + "[0]" * MAX_DEPTH, "too_deep"),
    ("a list in itself", a_list_in_itself(), "$[1].again", "circular_reference"),
    ("an attribute never set", [Half(1)], "$[0].unseen", "missing_attribute"),
    ("an odd and endless key", {"é" * 500: {1}}, "$['" + r"\xe9" * 60 + "']", "unsupported_type"),
)

PLAIN: Final[tuple[tuple[str, object, Json], ...]] = (
    ("None", None, None),
    ("booleans", [True, False], [True, False]),
    ("the biggest and the smallest integer", [2**63 - 1, -(2**63)], [2**63 - 1, -(2**63)]),
    ("floats", [1e16, 1e22, 5e-324, 0.1], [1e16, 1e22, 5e-324, 0.1]),
    ("text of all planes", ["é", "🦑", "\u202e", "\uffff"], ["é", "🦑", "\u202e", "\uffff"]),
    ("keys in their order", {"z": 1, "a": 2, "ü": 3}, {"z": 1, "a": 2, "ü": 3}),
    ("tuple", (1, ("a",)), [1, ["a"]]),
    ("ordered and default dicts", collections.Counter("aab"), {"a": 2, "b": 1}),
    ("read-only mapping", types.MappingProxyType({"a": [1]}), {"a": [1]}),
    ("named tuple", Point(1, Money(amount=Decimal(2))), [1, {"amount": "2", "currency": "EUR"}]),
    ("subclass of str", Words("text"), "text"),
    ("enum", [Colour.RED, Level.HIGH], ["red", 2]),
    ("enum as a key", {"a": 1, Words("b"): 2}, {"a": 1, "b": 2}),
    ("date", dt.date(2026, 11, 1), "2026-11-01"),
    ("naive datetime", dt.datetime(2026, 11, 1, 9, 30), "2026-11-01T09:30:00"),  # noqa: DTZ001
    ("aware datetime", dt.datetime(2026, 11, 1, 9, tzinfo=UTC), "2026-11-01T09:00:00+00:00"),
    ("UUID", uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    ("decimal", [Decimal("1.50"), Decimal("1E+3")], ["1.50", "1E+3"]),
    ("dataclass", Parcel(3), {"weight": 3, "tags": [], "parts": [], "level": 1}),
    ("TypedDict", Address(street="Quay 1"), {"street": "Quay 1"}),
    ("struct", Card("4711"), {"type": "card", "cardNumber": "4711", "owner": None}),
    ("struct with an unset field", Transfer("PT50"), {"type": "transfer", "iban": "PT50"}),
    ("64 levels", nested(MAX_DEPTH), nested(MAX_DEPTH)),
)

MISFITS: Final[tuple[tuple[str, Json, object, str, str], ...]] = (
    ("a bool is no int", True, int, "$", "wrong_type"),
    ("a bool is no float", True, float, "$", "wrong_type"),
    ("text is no number", "1", int, "$", "wrong_type"),
    ("text is no float", "1.5", float, "$", "wrong_type"),
    ("a number is no text", 1, str, "$", "wrong_type"),
    ("a float is no int", 1.0, int, "$", "wrong_type"),
    ("an int is no bool", 1, bool, "$", "wrong_type"),
    ("a number is no decimal", 1.5, Decimal, "$", "wrong_type"),
    ("a number is no optional decimal", 1, Decimal | None, "$", "wrong_type"),
    ("None is no text", None, str, "$", "wrong_type"),
    ("a number is no moment", 1, dt.datetime, "$", "wrong_type"),
    ("no date", SECRET, dt.date, "$", "invalid_value"),
    ("no UUID", SECRET, uuid.UUID, "$", "invalid_value"),
    ("no decimal", SECRET, Decimal, "$", "invalid_value"),
    ("NaN is no decimal", {"amount": "NaN"}, Money, "$.amount", "invalid_value"),
    ("infinity is no optional decimal", "-inf", Decimal | None, "$", "invalid_value"),
    ("no member", SECRET, Colour, "$", "invalid_value"),
    ("no integer member", 77, Level, "$", "invalid_value"),
    ("no literal", SECRET, Literal["a", "b"], "$", "invalid_value"),
    ("too long", SECRET, Annotated[str, msgspec.Meta(max_length=3)], "$", "invalid_value"),
    ("a validator refuses", [{"number": -4711}], list[Positive], "$[0]", "invalid_value"),
    ("a hook raises anything", {"word": SECRET}, Grumpy, "$", "invalid_value"),
    ("item of a list", ["a", 2], list[str], "$[1]", "wrong_type"),
    ("field of a field", {"item": {"amount": 1}}, Box[Money], "$.item.amount", "wrong_type"),
    ("missing", {"item": {}}, Box[Money], "$.item.amount", "missing_field"),
    ("missing in a TypedDict", {}, Address, "$.street", "missing_field"),
    ("unknown to attrs", {"amount": "1", "zz": 1}, Money, "$.zz", "unknown_field"),
    ("unknown to a dataclass", {"weight": 1, "zz": 1}, Parcel, "$.zz", "unknown_field"),
    ("unknown to a TypedDict", {"street": "", "zz": 1}, Address, "$.zz", "unknown_field"),
    ("unknown in an option", {"amount": "1", "zz": 1}, Money | None, "$.zz", "unknown_field"),
    (
        "unknown in a list of its own kind",
        {"weight": 1, "parts": [{"weight": 1, "parts": [{"weight": 1, "zz": 1}]}]},
        Parcel,
        "$.parts[0].parts[0].zz",
        "unknown_field",
    ),
    (
        "unknown in a mapping",
        {"eur": {"amount": "1", "odd key": 1}},
        dict[str, Money],
        "$.eur['odd key']",
        "unknown_field",
    ),
    (
        "unknown in a tuple",
        [1, {"amount": "1", "z": 1}],
        tuple[int, Money],
        "$[1].z",
        "unknown_field",
    ),
    ("unknown in a named tuple", [1, {"amount": "1", "z": 1}], Point, "$[1].z", "unknown_field"),
    (
        "unknown to the struct that the tag means",
        {"type": "card", "cardNumber": "1", "iban": "PT50"},
        Card | Transfer,
        "$.iban",
        "unknown_field",
    ),
    (
        "unknown below a struct",
        {"type": "card", "cardNumber": "1", "owner": {"street": "", "zz": 1}},
        Card | Transfer,
        "$.owner.zz",
        "unknown_field",
    ),
    ("a tag that nobody has", {"type": SECRET}, Card | Transfer, "$.type", "invalid_value"),
    ("an arbitrary class", {}, types.SimpleNamespace, "$", "unsupported_type"),
    ("an arbitrary class in a list", [{}], list[types.SimpleNamespace], "$", "unsupported_type"),
    ("bytes", "aGk=", bytes, "$", "unsupported_type"),
    ("struct without keys", [1], Row, "$", "unsupported_type"),
    ("two kinds of object", {}, Money | Address, "$", "unsupported_type"),
    ("a name that means nothing", 1, "Nowhere", "$", "unsupported_type"),
)


@pytest.mark.parametrize(
    ("value", "path", "reason"), [case[1:] for case in HOSTILE], ids=[case[0] for case in HOSTILE]
)
def test_what_json_cannot_hold_exactly_is_refused_and_located(
    value: object, path: str, reason: str
) -> None:
    with pytest.raises(UnserializableValueError) as caught:
        plain(value)

    assert (caught.value.path, caught.value.reason) == (path, reason)
    assert caught.value.details["reason"] == reason
    assert SECRET not in f"{caught.value}{caught.value.details}"


@pytest.mark.parametrize(
    ("value", "expected"), [case[1:] for case in PLAIN], ids=[case[0] for case in PLAIN]
)
def test_a_supported_value_becomes_exactly_this_json(value: object, expected: Json) -> None:
    made = plain(value)

    assert encode(made) == encode(expected)
    assert encode(decode(encode(made))) == encode(made)


def test_minus_zero_and_the_kind_of_number_survive() -> None:
    assert encode(plain([-0.0, 0, 1, 1.0, 1e16])) == "[-0.0,0,1,1.0,1e16]"
    assert encode(decode("[-0.0,1,1.0,1e16]")) == "[-0.0,1,1.0,1e16]"


def test_plain_types_are_exact_so_that_a_subclass_leaves_nothing_behind() -> None:
    made = plain({Words("a"): [Words("b"), Level.LOW, types.MappingProxyType({})]})

    assert isinstance(made, dict)
    assert [type(key) for key in made] == [str]
    assert [type(item) for item in made["a"]] == [str, int, dict]  # type: ignore[union-attr]


def test_a_local_mean_time_with_seconds_in_its_offset_keeps_its_instant() -> None:
    amsterdam = dt.datetime(1930, 1, 1, tzinfo=dt.timezone(dt.timedelta(minutes=19, seconds=32)))

    assert structure(plain(amsterdam), dt.datetime) == amsterdam


def test_a_model_may_not_hold_a_list_that_holds_it() -> None:
    box: Box[list[object]] = Box([])
    box.item.append(box)

    with pytest.raises(UnserializableValueError) as caught:
        plain({"box": box})

    assert (caught.value.path, caught.value.reason) == ("$.box.item[0]", "circular_reference")


def test_one_object_in_two_places_is_no_circle() -> None:
    shared = [1]

    made = plain({"a": shared, "b": shared})

    assert made == {"a": [1], "b": [1]}


@pytest.mark.parametrize(("limit", "fits"), [(9, False), (10, True), (11, True)])
def test_the_limit_counts_the_bytes_of_the_text(limit: int, fits: bool) -> None:
    value: Json = {"ü": [1]}
    assert len(encode(value).encode()) == 10

    if fits:
        assert plain(value, max_bytes=limit) == value
    else:
        with pytest.raises(PayloadTooLargeError) as caught:
            plain(value, max_bytes=limit)
        assert caught.value.details == {"size": 10, "limit": limit}


def test_a_small_value_that_unfolds_into_a_huge_one_is_not_unfolded() -> None:
    laughs: list[object] = [0] * 10
    for _ in range(40):
        laughs = [laughs] * 10

    with pytest.raises(PayloadTooLargeError) as caught:
        plain(laughs, max_bytes=2 * 1024 * 1024)

    assert caught.value.details["size"] is None


def test_a_very_long_text_is_measured_too() -> None:
    with pytest.raises(PayloadTooLargeError):
        plain("x" * 10_000_000, max_bytes=2 * 1024 * 1024)


@pytest.mark.parametrize(
    ("value", "to", "path", "reason"),
    [case[1:] for case in MISFITS],
    ids=[case[0] for case in MISFITS],
)
def test_what_does_not_fit_an_annotation_is_located_without_its_value(
    value: Json, to: object, path: str, reason: str
) -> None:
    with pytest.raises(StructureProblem) as caught:
        structure(value, to)

    assert (caught.value.path, caught.value.reason) == (path, reason)
    assert SECRET not in str(caught.value)
    assert "4711" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "to", "expected"),
    [
        (1, float, 1.0),
        ({"a": 1}, dict[str, float], {"a": 1.0}),
        (1, int | float, 1),
        ("1.5", Decimal | float, Decimal("1.5")),
        (1.5, Decimal | float, 1.5),
        (None, Money | None, None),
        ([1, 1], set[int], {1}),
        ([1, {"amount": "1"}], Point, Point(1, Money(amount=Decimal(1)))),
        ({"type": "transfer", "iban": "PT50"}, Card | Transfer, Transfer("PT50")),
        ({"item": {"amount": "1"}}, Box[Money], Box(Money(amount=Decimal(1)))),
        ("a", Annotated[str, ["metadata that cannot be hashed"]], "a"),
        ({"a": [1]}, dict[str, object], {"a": [1]}),
        ([1, "a"], inspect.Parameter.empty, [1, "a"]),
        ({"00000000-0000-0000-0000-000000000001": 1}, dict[uuid.UUID, int], {uuid.UUID(int=1): 1}),
    ],
    ids=repr,
)
def test_a_fitting_value_becomes_what_was_asked_for(
    value: Json, to: object, expected: object
) -> None:
    made = structure(value, to)

    assert made == expected
    assert type(made) is type(expected)


def test_defaults_are_made_anew_for_every_value() -> None:
    first = structure({"weight": 1}, Parcel)
    second = structure({"weight": 1}, Parcel)

    first.parts.append(second)

    assert second.parts == []


@pytest.mark.parametrize(
    "to",
    [Any, object, inspect.Parameter.empty, dict, dict[str, Any], dict[str, object], T],
    ids=str,
)
def test_what_is_structured_shares_nothing_with_the_value(to: object) -> None:
    value: dict[str, Json] = {"a": [1, {"b": [2]}]}
    before = encode(value)

    made = structure(value, to)
    made["a"][1]["b"].append(3)
    made["a"].append(4)
    made["c"] = 5

    assert encode(value) == before


def test_an_open_field_of_a_record_shares_nothing_with_the_value() -> None:
    value: dict[str, Json] = {"item": {"deep": [1]}}

    structure(value, Box[Any]).item["deep"].append(2)

    assert value == {"item": {"deep": [1]}}


def test_plain_json_shares_nothing_with_what_was_given() -> None:
    given_lists: dict[str, list[list[int]]] = {"a": [[1]]}

    made = plain(given_lists)
    given_lists["a"][0].append(2)

    assert made == {"a": [[1]]}


def test_it_can_be_asked_beforehand_whether_an_annotation_is_supported() -> None:
    assert all(supports(to) for to in (Any, Invoice, list[Parcel], Card | Transfer, Colour | None))
    assert not any(
        supports(to) for to in (bytes, types.SimpleNamespace, Money | Address, "Nowhere")
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1,]",
        "{'a': 1}",
        '{"a": 1} 2',
        "NaN",
        "[Infinity]",
        "-Infinity",
        "1e999",
        '"\\ud83e"',
        '"\\ud83e\\u0041"',
        '"\ud83e"',
        '"\t"',
        "[" * 100_000,
        '{"a": 1, 2: 3}',
    ],
    ids=range(15),
)
def test_text_that_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(DecodeProblem):
        decode(text)


def test_of_a_key_that_stands_twice_the_last_one_counts() -> None:
    assert decode('{"a": 1, "a": 2}') == {"a": 2}


def test_encoding_is_compact_keeps_the_order_and_writes_text_as_it_is() -> None:
    assert encode({"z": [1, None, True], "a": "é🦑"}) == '{"z":[1,null,true],"a":"é🦑"}'


def test_the_canonical_text_is_the_same_for_every_order_of_keys() -> None:
    one: Json = {"b": {"d": 1, "c": 2}, "a": [{"y": 1, "x": 2}]}
    other: Json = {"a": [{"x": 2, "y": 1}], "b": {"c": 2, "d": 1}}

    assert canonical(one) == canonical(other) == '{"a":[{"x":2,"y":1}],"b":{"c":2,"d":1}}'
    assert canonical([1, 2]) != canonical([2, 1])
    assert canonical(1) != canonical(1.0)


def text_or_refusal(value: object) -> str | UnserializableValueError:
    try:
        return encode(plain(value))
    except UnserializableValueError as refused:
        return refused


def problem_of(value: Json, to: object) -> StructureProblem | None:
    try:
        structure(value, to)
    except StructureProblem as problem:
        return problem
    return None


# Any JSON that we take.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
jsons = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=20
)

# Anything at all, most of which we do not take.
anything = st.recursive(
    st.none()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.binary()
    | st.decimals()
    | st.datetimes(timezones=st.timezones() | st.none())
    | st.timedeltas()
    | st.uuids()
    | st.sampled_from(Colour)
    | st.complex_numbers(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text(st.characters()) | st.integers(), inner)
        | st.sets(st.integers())
        | st.tuples(inner)
    ),
    max_leaves=10,
)

decimals = st.decimals(allow_nan=False, allow_infinity=False)
monies = st.builds(Money, amount=decimals, currency=texts)
moments = st.datetimes() | st.datetimes(timezones=st.just(UTC))
invoices = st.builds(
    Invoice,
    number=texts,
    total=monies,
    issued_on=st.dates(),
    paid_at=st.none() | moments,
    key=st.uuids(),
    colour=st.sampled_from(Colour),
    rate=st.floats(allow_nan=False, allow_infinity=False),
    lines=st.lists(monies, max_size=3),
    by_name=st.dictionaries(texts, monies, max_size=3),
    extra=jsons,
)
parcels = st.recursive(
    st.builds(
        Parcel,
        weight=st.integers(-(2**63), 2**63 - 1),
        tags=st.lists(texts, max_size=3).map(tuple),
        parts=st.just([]),
        level=st.sampled_from(Level),
    ),
    lambda inner: st.builds(Parcel, weight=st.just(1), parts=st.lists(inner, max_size=3)),
    max_leaves=8,
)


@given(jsons)
def test_json_comes_back_byte_for_byte(value: Json) -> None:
    text = encode(plain(value))

    assert encode(plain(decode(text))) == text
    assert decode(text) == value
    assert decode(canonical(value)) == value
    assert structure(decode(text), Any) == value


@given(anything)
def test_anything_is_either_refused_or_comes_back_byte_for_byte(value: object) -> None:
    text = text_or_refusal(value)

    if isinstance(text, UnserializableValueError):
        assert plain(text.details) == text.details
        assert str(text).isascii()
    else:
        assert encode(plain(decode(text))) == text


@given(invoices)
def test_an_attrs_class_comes_back_equal(invoice: Invoice) -> None:
    assert structure(decode(encode(plain(invoice))), Invoice) == invoice


@given(parcels)
def test_a_dataclass_comes_back_equal(parcel: Parcel) -> None:
    assert structure(decode(encode(plain(parcel))), Parcel) == parcel


@given(
    st.dates().map(lambda value: (value, dt.date))
    | moments.map(lambda value: (value, dt.datetime))
    | st.uuids().map(lambda value: (value, uuid.UUID))
    | decimals.map(lambda value: (value, Decimal))
    | st.sampled_from(Colour).map(lambda value: (value, Colour))
    | st.sampled_from(Level).map(lambda value: (value, Level))
)
def test_a_leaf_comes_back_equal_when_its_type_is_asked_for(
    pair: tuple[object, object],
) -> None:
    value, to = pair

    assert structure(decode(encode(plain(value))), to) == value


@given(st.datetimes(dt.datetime(1, 1, 3), dt.datetime(9999, 12, 29), timezones=st.timezones()))  # noqa: DTZ001
def test_a_moment_keeps_its_instant_in_every_time_zone(moment: dt.datetime) -> None:
    back = structure(decode(encode(plain(moment))), dt.datetime)

    assert back.astimezone(UTC) == moment.astimezone(UTC)


@given(jsons, st.sampled_from([int, str, Invoice, Parcel, Card | Transfer, list[Money], Decimal]))
def test_structuring_json_of_any_kind_ends_with_a_value_or_a_problem(
    value: Json, to: object
) -> None:
    before = encode(value)

    problem = problem_of(value, to)

    assert problem is None or problem.path.startswith("$")
    assert encode(value) == before


@pytest.fixture
def models() -> types.SimpleNamespace:
    """Models of pydantic, which the library itself never imports."""
    pydantic = importlib.import_module("pydantic")
    a_list_of: Any = list
    line = pydantic.create_model("Line", amount=(Decimal, ...), due=(dt.date | None, None))
    return types.SimpleNamespace(
        line=line,
        order=pydantic.create_model(
            "Order", number=(str, pydantic.Field(alias="orderNumber")), lines=(a_list_of[line], [])
        ),
        open_order=pydantic.create_model("OpenOrder", __config__={"extra": "allow"}, a=(int, 1)),
        secret=pydantic.create_model("Secret", word=(pydantic.SecretStr, ...)),
        numbers=pydantic.RootModel[list[int]],
        link=pydantic.create_model("Link", to=(Any, None)),
        mute=pydantic.create_model(
            "Mute", word=(Annotated[str, pydantic.PlainSerializer(int)], ...)
        ),
        grumpy=pydantic.create_model(
            "Grumpy", word=(Annotated[str, pydantic.AfterValidator({}.__getitem__)], ...)
        ),
    )


def test_a_pydantic_model_comes_back_equal_alone_and_inside_others(
    models: types.SimpleNamespace,
) -> None:
    a_box_of: Any = Box
    line = models.line(amount=Decimal("1.50"), due=dt.date(2026, 11, 1))
    order = models.order(orderNumber="7", lines=[line])
    box = Box([line])

    assert plain(order) == {
        "orderNumber": "7",
        "lines": [{"amount": "1.50", "due": "2026-11-01"}],
    }
    assert structure(plain(order), models.order) == order
    assert structure(plain(line), models.line | None) == line
    assert structure(plain(box), a_box_of[types.GenericAlias(list, (models.line,))]) == box
    assert structure(plain(models.numbers([1, 2])), models.numbers) == models.numbers([1, 2])


@pytest.mark.parametrize(
    ("value", "path", "reason"),
    [
        ({"orderNumber": 7}, "$.orderNumber", "wrong_type"),
        ({"orderNumber": "7", "zz": SECRET}, "$.zz", "unknown_field"),
        ({"orderNumber": "7", "lines": [{"amount": SECRET}]}, "$.lines[0].amount", "invalid_value"),
        ({"orderNumber": "7", "lines": [{"amount": "1", "z": 1}]}, "$.lines[0].z", "unknown_field"),
        ({}, "$.orderNumber", "missing_field"),
    ],
    ids=str,
)
def test_a_pydantic_model_is_read_as_strictly_as_the_others(
    models: types.SimpleNamespace, value: Json, path: str, reason: str
) -> None:
    a_box_of: Any = Box

    alone = problem_of(value, models.order)
    inside = problem_of({"item": value}, a_box_of[models.order])

    assert alone is not None
    assert inside is not None
    assert (alone.path, alone.reason) == (path, reason)
    assert (inside.path, inside.reason) == (f"$.item{path[1:]}", reason)
    assert SECRET not in str(alone)


def test_a_pydantic_model_that_allows_extras_keeps_them(models: types.SimpleNamespace) -> None:
    order = models.open_order(a=2, b="more")

    assert structure(plain(order), models.open_order) == order


def test_a_pydantic_model_that_holds_itself_is_refused(models: types.SimpleNamespace) -> None:
    link = models.link()
    link.to = link

    with pytest.raises(UnserializableValueError) as caught:
        plain([link])

    assert caught.value.reason == "circular_reference"


def test_a_pydantic_model_that_cannot_write_itself_is_refused(
    models: types.SimpleNamespace,
) -> None:
    with pytest.raises(UnserializableValueError) as caught:
        plain([models.mute(word=SECRET)])

    assert (caught.value.path, caught.value.reason) == ("$[0]", "unsupported_type")
    assert SECRET not in str(caught.value)


def test_whatever_a_pydantic_validator_raises_is_a_problem(models: types.SimpleNamespace) -> None:
    problem = problem_of({"word": SECRET}, models.grumpy)

    assert problem is not None
    assert (problem.reason, problem.detail) == ("invalid_value", "refused with KeyError")


def test_what_a_pydantic_model_hides_is_refused_and_not_stored_as_stars(
    models: types.SimpleNamespace,
) -> None:
    with pytest.raises(UnserializableValueError) as caught:
        plain({"a": models.secret(word=SECRET)})

    assert (caught.value.path, caught.value.reason) == ("$.a.word", "unsupported_type")


def test_a_path_is_followed_through_objects_and_lists() -> None:
    value: dict[str, Json] = {"rows": [{"id": 1}, {"id": None}], "0": "zero"}

    assert dig(value, ("rows", "1", "id")) == Success(None)
    assert dig(value, ("0",)) == Success("zero")
    assert dig(value, ()) == Success(value)
    assert dig(types.MappingProxyType(value), ("rows", "0")) == Success({"id": 1})


@pytest.mark.parametrize(
    ("path", "missing_at"),
    [
        (("nothing", "id"), "nothing"),
        (("rows", "2", "id"), "2"),
        (("rows", "-1"), "-1"),
        (("rows", "²"), "²"),
        (("rows", "9" * 10_000), "9" * 10_000),
        (("rows", "first"), "first"),
        (("rows", "0", "id", "deeper"), "deeper"),
        (("text", "0"), "0"),
    ],
    ids=range(8),
)
def test_a_path_that_leads_nowhere_says_at_which_key(
    path: tuple[str, ...], missing_at: str
) -> None:
    value: Json = {"rows": [{"id": 1}], "text": "abc"}

    assert dig(value, path) == Failure(MissingPath(path, missing_at))
