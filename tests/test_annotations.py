"""From Python to data: what payload classes and functions tell about themselves."""

import dataclasses
import enum
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Generic,
    Literal,
    Never,
    NewType,
    NotRequired,
    Required,
    TypedDict,
    TypeVar,
    Union,
)
from uuid import UUID

import attrs
import pytest
from returns.pipeline import is_successful
from typing_extensions import TypeAliasType

from squidmesh.annotations import (
    contract_of,
    defaults_of,
    merges_of,
    parameter_types,
    parameters_of,
)
from squidmesh.context import StepContext
from squidmesh.domain.definition import Parameter
from squidmesh.domain.payload import PayloadContract, check
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
    TypeSpec,
)
from squidmesh.outcomes import Deferred, Errored

if TYPE_CHECKING:
    from somewhere import Unknowable  # type: ignore[import-not-found]

STR = Primitive(PrimitiveKind.STR)
INT = Primitive(PrimitiveKind.INT)
NONE = Primitive(PrimitiveKind.NONE)

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)

Sku = NewType("Sku", str)


class Level(enum.Enum):
    LOW = "low"
    HIGH = "high"


class Rank(enum.IntEnum):
    FIRST = 1


class Weight(enum.Enum):
    LIGHT = 0.5


@attrs.frozen(kw_only=True)
class Line:
    sku: Sku
    count: int = 1


@dataclasses.dataclass(frozen=True)
class Address:
    city: str
    country: str = "PT"
    lines: list[str] = dataclasses.field(default_factory=list)
    since: date = dataclasses.field(default_factory=date.today)


class Note(TypedDict, total=False):
    text: Required[str]
    author: str


@attrs.frozen
class Node:
    children: "list[Node]" = attrs.field(factory=list)


def types_of(payload_class: object) -> dict[str, TypeSpec]:
    return {field.name: field.type for field in contract_of(payload_class).unwrap().fields}


def type_of(annotation: Any) -> TypeSpec:
    return types_of(attrs.make_class("Payload", {"it": attrs.field(type=annotation)}))["it"]


def refused(payload_class: object) -> list[tuple[str, str]]:
    return [
        (".".join(map(str, problem.path)), problem.code)
        for problem in contract_of(payload_class).failure()
    ]


def deep_class(levels: int) -> type:
    """A class that holds a class that holds ..."""
    inner: type = Line
    for level in range(levels):
        inner = attrs.make_class(f"Level{level}", {"it": attrs.field(type=inner)})
    return inner


@pytest.mark.parametrize("nothing", [None, type(None)])
def test_no_payload_class_is_the_contract_without_fields(nothing: object) -> None:
    assert contract_of(nothing).unwrap() == PayloadContract()
    assert defaults_of(nothing) == {}


def test_an_attrs_class_gives_its_fields_types_and_defaults() -> None:
    @attrs.frozen(kw_only=True)
    class Order:
        account: str
        level: Level = Level.LOW
        lines: list[Line] = attrs.field(factory=list)
        placed: date = attrs.field(factory=date.today)

    contract = contract_of(Order).unwrap()

    key = f"{Order.__module__}:{Order.__qualname__}.placed"
    line = Record(
        "Line",
        (
            PayloadField(name="sku", type=STR),
            PayloadField(name="count", type=INT, default=StaticDefault(1)),
        ),
    )
    assert contract.name == Order.__qualname__
    assert contract.fields == (
        PayloadField(name="account", type=STR),
        PayloadField(name="level", type=OneOf(("low", "high")), default=StaticDefault("low")),
        PayloadField(name="lines", type=ListOf(line), default=StaticDefault([])),
        PayloadField(
            name="placed", type=Primitive(PrimitiveKind.DATE), default=DynamicDefault(key)
        ),
    )


def test_a_dataclass_gives_its_fields_types_and_defaults() -> None:
    fields = contract_of(Address).unwrap().fields

    key = f"{__name__}:Address.since"
    assert [(field.name, field.default) for field in fields] == [
        ("city", None),
        ("country", StaticDefault("PT")),
        ("lines", StaticDefault([])),
        ("since", DynamicDefault(key)),
    ]


def test_a_typed_dict_tells_which_keys_may_be_left_out() -> None:
    class Other(TypedDict):
        must: str
        may: "NotRequired[int]"
        both: Annotated[NotRequired[int], "a remark"]

    note, other = contract_of(Note).unwrap(), contract_of(Other).unwrap()

    assert {field.name: field.default for field in note.fields} == {
        "text": None,
        "author": LeftOut(),
    }
    assert {field.name: field.default for field in other.fields} == {
        "must": None,
        "may": LeftOut(),
        "both": LeftOut(),
    }


def test_dynamic_defaults_are_made_as_plain_json_however_deep_they_stand() -> None:
    @attrs.frozen
    class Order:
        address: Address
        moment: datetime = attrs.field(factory=lambda: NOON)

    contract = contract_of(Order).unwrap()

    payload = check(contract, {"address": {"city": "Porto"}}, factories=defaults_of(Order)).unwrap()

    assert payload["moment"] == "2026-11-23T12:00:00+00:00"
    assert isinstance(payload["address"], dict)
    assert payload["address"]["since"] == date.today().isoformat()  # noqa: DTZ011


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (str, STR),
        (float, Primitive(PrimitiveKind.FLOAT)),
        (bool, Primitive(PrimitiveKind.BOOL)),
        (type(None), NONE),
        (list[None], ListOf(NONE)),
        (date, Primitive(PrimitiveKind.DATE)),
        (datetime, Primitive(PrimitiveKind.DATETIME)),
        (UUID, Primitive(PrimitiveKind.UUID)),
        (Decimal, Primitive(PrimitiveKind.DECIMAL)),
        (Any, Anything()),
        (object, Anything()),
        (Sku, STR),
        (Annotated[int, "a remark"], INT),
        (list, ListOf(Anything())),
        (list[int], ListOf(INT)),
        (list[Annotated[int, {"unhashable": "remark"}]], ListOf(INT)),
        (tuple[int, ...], ListOf(INT)),
        (Sequence[int], ListOf(INT)),
        (dict, MappingOf(Anything())),
        (dict[str, int], MappingOf(INT)),
        (Mapping[str, int], MappingOf(INT)),
        (str | None, AnyOf((STR, NONE))),
        (Union[int, str, None], AnyOf((INT, STR, NONE))),  # noqa: UP007
        (Literal["a", 1], OneOf(("a", 1))),
        (Level, OneOf(("low", "high"))),
        (Rank, OneOf((1,))),
    ],
)
def test_each_annotation_that_json_can_hold_stands_for_a_type(
    annotation: Any, expected: TypeSpec
) -> None:
    assert type_of(annotation) == expected


@pytest.mark.parametrize(
    "annotation",
    [
        bytes,
        set[int],
        time,
        complex,
        tuple[int, str],
        dict[int, str],
        Weight,
        Literal[Level.LOW],
        str | date,
        Callable[[], int],
        TypeVar("T"),
        list[bytes],
        Line | Address,
    ],
)
def test_an_annotation_that_json_cannot_hold_is_refused(annotation: Any) -> None:
    payload_class = attrs.make_class("Payload", {"it": attrs.field(type=annotation)})

    assert refused(payload_class) == [("payload.it", "invalid_payload_type")]


@pytest.mark.parametrize("kind", [int, dict, "Order", list[int], Level])
def test_a_payload_is_a_class_with_fields(kind: object) -> None:
    assert refused(kind) == [("payload", "invalid_payload_type")]


def test_a_class_that_contains_itself_is_refused() -> None:
    assert refused(Node) == [("payload.children", "invalid_payload_type")]


def test_one_class_may_stand_in_several_fields() -> None:
    @attrs.frozen
    class Journey:
        start: Address
        goal: Address

    types = types_of(Journey)

    assert types["start"] == types["goal"]


def test_classes_nest_only_so_deep() -> None:
    assert is_successful(contract_of(deep_class(DEEPEST_TYPE - 2)))
    assert [code for _, code in refused(deep_class(DEEPEST_TYPE))] == ["invalid_payload_type"]


def test_an_annotation_that_cannot_be_evaluated_is_refused() -> None:
    @attrs.frozen
    class Order:
        it: "Unknowable"

    assert refused(Order) == [("payload", "invalid_payload_type")]


def test_a_field_without_annotation_takes_anything() -> None:
    assert types_of(attrs.make_class("Payload", ["it"])) == {"it": Anything()}


@pytest.mark.parametrize(
    "default",
    [
        "text",
        object(),
        float("nan"),
        attrs.Factory(lambda self: 1, takes_self=True),
    ],
)
def test_a_default_that_does_not_fit_or_cannot_be_stored_is_refused(default: Any) -> None:
    payload_class = attrs.make_class("Payload", {"it": attrs.field(default=default, type=int)})

    assert refused(payload_class) == [("payload.it", "invalid_payload_default")]


def test_all_that_is_wrong_with_a_class_is_told_together() -> None:
    @attrs.frozen
    class Order:
        photo: bytes
        amount: int = "none"  # type: ignore[assignment]

    assert refused(Order) == [
        ("payload.photo", "invalid_payload_type"),
        ("payload.amount", "invalid_payload_default"),
    ]


class AModelField:
    """A field the way pydantic describes its own."""

    def __init__(self, annotation: Any, **said: Any) -> None:
        self.annotation = annotation
        self.alias: str | None = said.get("alias")
        self.serialization_alias: str | None = None
        self.default = said.get("default")
        self.default_factory = said.get("factory")
        self.default_factory_takes_validated_data = said.get("takes_data", False)
        self._required = "default" not in said and "factory" not in said

    def is_required(self) -> bool:
        return self._required


class Model:
    """A class that looks like a pydantic model from outside."""

    __pydantic_validator__ = object()
    model_fields: ClassVar = {
        "a": AModelField(int, alias="A"),
        "b": AModelField(int, default=1),
        "c": AModelField(list[int], factory=list),
    }


class DependentModel(Model):
    model_fields: ClassVar = {"d": AModelField(int, factory=len, takes_data=True)}


def test_a_model_gives_its_fields_types_and_defaults_under_their_aliases() -> None:
    assert contract_of(Model).unwrap().fields == (
        PayloadField(name="A", type=INT),
        PayloadField(name="b", type=INT, default=StaticDefault(1)),
        PayloadField(name="c", type=ListOf(INT), default=StaticDefault([])),
    )


def test_a_default_that_a_model_makes_from_other_fields_is_refused() -> None:
    assert refused(DependentModel) == [("payload.d", "invalid_payload_default")]


# Parameters


async def plain_body(order: str, note: str = "") -> None: ...


def body_with_context(order: str, where: StepContext) -> None: ...


def body_with_rest(order, /, *rest, only, **more): ...  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN002, ANN003, ANN201


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*given: Any, **named: Any) -> Any:
        return function(*given, **named)

    return wrapper


class Body:
    def __call__(self, order: str) -> None: ...

    def method(self, order: "Line") -> None: ...


def test_parameters_tell_their_names_and_whether_they_must_be_provided() -> None:
    assert parameters_of(plain_body) == (Parameter("order"), Parameter("note", required=False))


def test_what_has_no_name_of_its_own_takes_no_value() -> None:
    assert parameters_of(body_with_rest) == (Parameter("order"), Parameter("only"))


def test_the_context_is_known_by_its_annotation_or_by_its_name_without_one() -> None:
    def bare(context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        ...

    def optional(where: StepContext | None = None) -> None: ...

    def named(where: "StepContext") -> None: ...

    def value(context: dict[str, int]) -> None: ...

    assert parameters_of(body_with_context)[1] == Parameter("where", is_context=True)
    assert parameters_of(bare) == (Parameter("context", is_context=True),)
    assert parameters_of(optional) == (Parameter("where", required=False, is_context=True),)
    assert parameters_of(named) == (Parameter("where", is_context=True),)
    assert parameters_of(value) == (Parameter("context"),)


def test_the_context_is_known_though_only_type_checkers_import_it() -> None:
    def body(where, who) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
        ...

    body.__annotations__ = {"where": "elsewhere.StepContext", "who": "elsewhere.Person"}

    assert parameters_of(body) == (Parameter("where", is_context=True), Parameter("who"))
    assert parameter_types(body) == {"where": StepContext}


@pytest.mark.parametrize(
    "function",
    [decorated(plain_body), functools.partial(plain_body, note="x"), plain_body],
    ids=["decorated", "partial", "plain"],
)
def test_a_body_is_looked_at_through_wrappers_and_partials(function: Callable[..., Any]) -> None:
    assert parameters_of(function) == (Parameter("order"), Parameter("note", required=False))
    assert parameter_types(function) == {"order": str, "note": str}


def test_methods_and_callable_objects_are_bodies_too() -> None:
    assert parameters_of(Body()) == (Parameter("order"),)
    assert parameter_types(Body()) == {"order": str}
    assert parameter_types(Body().method) == {"order": Line}


def test_an_annotation_that_cannot_be_resolved_counts_as_none() -> None:
    def body(order: "Unknowable", count: int) -> "Unknowable": ...

    assert parameter_types(body) == {"count": int}
    assert merges_of(body) is None


def test_a_builtin_may_be_a_body_though_it_has_no_annotations() -> None:
    assert parameter_types(len) == {}


# Merged keys


class Result(TypedDict):
    one: int
    two: int


T = TypeVar("T")


@attrs.frozen
class Box(Generic[T]):
    content: T


class Opaque: ...


@attrs.frozen
class Broken:
    it: "Unknowable"


@pytest.mark.parametrize(
    ("annotation", "keys"),
    [
        (None, ()),
        (Never, ()),
        (Errored, ()),
        (Deferred | Errored | None, ()),
        (str, ()),
        (int, ()),
        (list[int], ()),
        (Level, ()),
        (Result, ("one", "two")),
        (Line, ("sku", "count")),
        (Address, ("city", "country", "lines", "since")),
        (Box[int], ("content",)),
        (Result | Line | Errored, ("one", "two", "sku", "count")),
        (Awaitable[Result], ("one", "two")),
        (Annotated[Result, "a remark"], ("one", "two")),
        (TypeAliasType("Alias", Result), ("one", "two")),
        (dict | None, None),
        (dict[str, int], None),
        (Mapping[str, int], None),
        (Any, None),
        (object, None),
        (Opaque, None),
        (Broken, None),
        (Literal["a"], None),
        (Result | dict[str, int], None),
    ],
)
def test_the_keys_that_a_body_leaves_are_read_off_what_it_returns(
    annotation: Any, keys: tuple[str, ...] | None
) -> None:
    def body() -> None: ...

    body.__annotations__["return"] = annotation

    assert merges_of(body) == keys


def test_a_body_without_a_return_annotation_may_leave_any_key() -> None:
    assert merges_of(body_with_rest) is None
