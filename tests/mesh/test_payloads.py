"""What a run may be started with: every kind of field, and every way in which one can be wrong."""

import enum
import json
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Literal, NotRequired, TypedDict
from uuid import UUID

import attrs
import pytest

from squidmesh import (
    InvalidPayloadError,
    PayloadTooLargeError,
    UnserializableValueError,
    Workflow,
    log,
    manual,
    path,
    step,
)
from tests.mesh.support import OpenMesh, contents, context_of

pytestmark = pytest.mark.anyio


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@attrs.frozen
class Line:
    sku: str
    count: int = 1


@dataclass(frozen=True)
class Address:
    street: str
    number: int | None = None


@attrs.frozen(kw_only=True)
class Everything:
    text: str
    whole: int
    real: float
    flag: bool
    nothing: None
    names: list[str]
    prices: dict[str, Decimal]
    day: date
    moment: datetime
    key: UUID
    price: Decimal
    colour: Colour
    size: Literal["s", "m"]
    note: str | None
    lines: list[Line]
    address: Address


NOON = datetime(2026, 2, 28, 12, 0, 0, 123456, tzinfo=UTC)
KEY = UUID("0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b")

GIVEN = Everything(
    text="näh ✓",
    whole=-(2**53),
    real=0.1,
    flag=True,
    nothing=None,
    names=["a", "b"],
    prices={"eur": Decimal("1.10")},
    day=date(2026, 2, 28),
    moment=NOON,
    key=KEY,
    price=Decimal("10.00"),
    colour=Colour.BLUE,
    size="m",
    note=None,
    lines=[Line("x", 2), Line("y")],
    address=Address("Rua Nova", 7),
)


def spell(
    moment: datetime, price: Decimal, colour: Colour, lines: list[Line], address: Address
) -> dict[str, str]:
    return {"seen": f"{moment.isoformat()} {price} {colour.name} {lines[1].count} {address.number}"}


class Whole(Workflow[Everything]):
    name = "whole"
    by_hand = manual()
    spell = step(spell)
    transitions = path(spell)


async def test_every_kind_of_field_goes_in_and_comes_out_as_it_was(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Whole)

    run = await mesh.start_run(Whole, GIVEN)
    await mesh.run_until_idle()

    done = await mesh.inspect_run(run.id)
    assert done.status == "completed"
    assert done.payload_as(Everything) == GIVEN
    assert done.payload["price"] == "10.00"
    assert done.payload["lines"] == [{"sku": "x", "count": 2}, {"sku": "y", "count": 1}]
    assert context_of(done)["seen"] == "2026-02-28T12:00:00.123456+00:00 10.00 BLUE 1 7"


KINDS: list[tuple[Any, Any, str, Any]] = [
    (
        str,
        "n\u00e4h \u2713 \U0001f991",
        '"n\u00e4h \u2713 \U0001f991"',
        "n\u00e4h \u2713 \U0001f991",
    ),
    (str, "", '""', ""),
    (int, 2**63 - 1, "9223372036854775807", 2**63 - 1),
    (int, -(2**63), "-9223372036854775808", -(2**63)),
    (float, 0.1, "0.1", 0.1),
    (float, 3, "3.0", 3.0),
    (float, 5e-324, "5e-324", 5e-324),
    (bool, True, "true", True),
    (type(None), None, "null", None),
    (list, [1, [2.0, "x"], {}], '[1, [2.0, "x"], {}]', [1, [2.0, "x"], {}]),
    (list[float], [1, 2.5], "[1.0, 2.5]", [1.0, 2.5]),
    (dict, {"z": 1, "a": {"b": None}}, '{"z": 1, "a": {"b": null}}', {"z": 1, "a": {"b": None}}),
    (dict[str, Decimal], {"e": Decimal("1.10")}, '{"e": "1.10"}', {"e": Decimal("1.10")}),
    (date, date(2026, 2, 28), '"2026-02-28"', date(2026, 2, 28)),
    (date, "2026-02-28", '"2026-02-28"', date(2026, 2, 28)),
    (datetime, NOON, '"2026-02-28T12:00:00.123456+00:00"', NOON),
    (datetime, "2026-02-28T14:00:00.123456+02:00", '"2026-02-28T14:00:00.123456+02:00"', NOON),
    (UUID, KEY, '"0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"', KEY),
    (UUID, str(KEY).upper(), '"0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"', KEY),
    (Decimal, Decimal("10.00"), '"10.00"', Decimal("10.00")),
    (Decimal, "1E+3", '"1E+3"', Decimal("1E+3")),
    (Colour, Colour.BLUE, '"blue"', Colour.BLUE),
    (Colour, "red", '"red"', Colour.RED),
    (Literal["s", 1], 1, "1", 1),
    (str | None, "x", '"x"', "x"),
    (str | None, None, "null", None),
    (Line, Line("x", 2), '{"sku": "x", "count": 2}', Line("x", 2)),
    (Line, {"sku": "x"}, '{"sku": "x", "count": 1}', Line("x")),
    (Address, Address("Rua"), '{"street": "Rua", "number": null}', Address("Rua")),
    (Address, {"number": 7, "street": "R"}, '{"street": "R", "number": 7}', Address("R", 7)),
    (list[Line], [Line("x")], '[{"sku": "x", "count": 1}]', [Line("x")]),
]


@pytest.mark.parametrize(("kind", "given", "text", "value"), KINDS, ids=range(len(KINDS)))
async def test_a_value_of_each_kind_is_kept_byte_for_byte_and_reaches_the_body_as_what_it_is(
    open_mesh: OpenMesh, kind: Any, given: Any, text: str, value: Any
) -> None:
    seen: list[Any] = []

    def receive(it: Any) -> None:
        seen.append(it)

    receive.__annotations__["it"] = kind
    contract: Any = attrs.make_class("Contract", {"it": attrs.field(type=kind)})

    class Taking(Workflow[contract]):
        name = "taking"
        by_hand = manual()
        take = step(receive)
        transitions = path(take)

    mesh = await open_mesh(Taking)
    run = await mesh.start_run(Taking, {"it": given})
    await mesh.run_until_idle()

    kept = await mesh.inspect_run(run.id)
    assert as_text(kept.payload) == as_text(run.payload) == f'{{"it": {text}}}'
    assert kept.payload_as(contract) == contract(value)
    assert [(type(one), one) for one in seen] == [(type(value), value)]


def as_text(payload: object) -> str:
    return json.dumps(payload, ensure_ascii=False)


@dataclass
class Plain:
    account: str
    tags: list[str] = field(default_factory=list)
    limit: float = 1.5


class Typed(TypedDict):
    account: str
    note: NotRequired[str]


class Numbered(Workflow[Plain]):
    name = "numbered"
    by_hand = manual()
    only = log("only")
    transitions = path(only)


class Typing(Workflow[Typed]):
    name = "typing"
    by_hand = manual()
    only = log("only")
    transitions = path(only)


async def test_a_dataclass_and_a_typed_dict_are_payloads_too(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Numbered, Typing)

    plain = await mesh.start_run(Numbered, Plain("a"))
    typed = await mesh.start_run(Typing, {"account": "a"})

    assert plain.payload == {"account": "a", "tags": [], "limit": 1.5}
    assert typed.payload == {"account": "a"}


async def test_an_int_is_taken_where_a_float_is_asked_and_a_bool_is_no_number(
    open_mesh: OpenMesh,
) -> None:
    mesh = await open_mesh(Numbered)

    run = await mesh.start_run(Numbered, {"account": "a", "limit": 3})
    with pytest.raises(InvalidPayloadError) as refused:
        await mesh.start_run(Numbered, {"account": "a", "limit": True})

    assert run.payload["limit"] == 3.0
    assert isinstance(run.payload["limit"], float)
    assert list(refused.value.details["invalid"]) == ["limit"]  # type: ignore[arg-type]


async def test_missing_unknown_and_wrong_fields_are_reported_together(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Numbered)
    before = await contents(mesh)

    with pytest.raises(InvalidPayloadError) as refused:
        await mesh.start_run(Numbered, {"limit": "secret-4711", "tags": [1], "acount": "a"})

    error = refused.value
    assert isinstance(error, ValueError)
    assert error.code == "invalid_payload"
    assert error.details["missing"] == ["account"]
    assert error.details["unknown"] == ["acount"]
    assert sorted(error.details["invalid"]) == ["limit", "tags.0"]  # type: ignore[arg-type, type-var]
    assert "secret-4711" not in f"{error} {error.details}"
    assert await contents(mesh) == before


WRONG: list[tuple[str, Any]] = [
    ("text", 1),
    ("whole", True),
    ("whole", 1.5),
    ("whole", "1"),
    ("real", "1.5"),
    ("flag", 1),
    ("nothing", 0),
    ("names", "ab"),
    ("names", ["a", 1]),
    ("prices", {"eur": "much"}),
    ("day", "2026-02-30"),
    ("day", 20260228),
    ("moment", "noon"),
    ("key", "0190"),
    ("price", "ten"),
    ("colour", "green"),
    ("size", "l"),
    ("note", 5),
    ("lines", [{"sku": "x", "cuont": 1}]),
    ("address", {"number": 1}),
    ("text", None),
    ("whole", 1.0),
    ("real", True),
    ("flag", "true"),
    ("nothing", ""),
    ("names", {"0": "a"}),
    ("prices", ["1.10"]),
    ("prices", {"eur": 1.1}),
    ("day", "2026-02-28T00:00:00"),
    ("moment", "2026-02-28"),
    ("key", 7),
    ("price", 10.5),
    ("colour", "BLUE"),
    ("size", None),
    ("lines", {"sku": "x"}),
    ("lines", ["x"]),
    ("address", "Rua Nova"),
    ("address", None),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
async def test_a_value_of_the_wrong_type_is_refused_and_leaves_no_trace(
    open_mesh: OpenMesh, name: str, value: object
) -> None:
    mesh = await open_mesh(Whole)
    good = dict((await mesh.start_run(Whole, GIVEN)).payload)
    before = await contents(mesh)

    with pytest.raises(InvalidPayloadError) as refused:
        await mesh.start_run(Whole, {**good, name: value})

    details: Any = refused.value.details
    found = [*details["missing"], *details["unknown"], *details["invalid"]]
    assert [place.partition(".")[0] for place in found] == [name]
    assert await contents(mesh) == before


class Floor(enum.IntEnum):
    GROUND = 0
    FIRST = 1


@pytest.mark.parametrize("kind", [Literal[0, 1], Floor])
@pytest.mark.parametrize("value", [True, 1.0, "1", 2, None])
async def test_what_only_looks_like_one_of_the_listed_values_is_refused(
    open_mesh: OpenMesh, kind: Any, value: object
) -> None:
    contract: Any = attrs.make_class("Contract", {"it": attrs.field(type=kind)})

    class Listed(Workflow[contract]):
        name = "listed"
        by_hand = manual()
        only = log("only")
        transitions = path(only)

    mesh = await open_mesh(Listed)
    taken = await mesh.start_run(Listed, {"it": 1})
    before = await contents(mesh)

    with pytest.raises(InvalidPayloadError) as refused:
        await mesh.start_run(Listed, {"it": value})

    invalid: Any = refused.value.details["invalid"]
    assert taken.payload == {"it": 1}
    assert list(invalid) == ["it"]
    assert await contents(mesh) == before


class Loose(TypedDict):
    anything: Any


class Open(Workflow[Loose]):
    name = "open"
    by_hand = manual()
    only = log("only")
    transitions = path(only)


def deep(levels: int) -> object:
    found: object = 1
    for _ in range(levels):
        found = [found]
    return found


def circle() -> object:
    found: list[object] = []
    found.append(found)
    return found


HOSTILE: list[tuple[str, Any]] = [
    ("nan", float("nan")),
    ("infinity", float("-inf")),
    ("nul_character", "a\x00b"),
    ("nul_character", {"a\x00": 1}),
    ("lone_surrogate", "half \ud800"),
    ("integer_out_of_range", 2**64),
    ("integer_out_of_range", -(2**63) - 1),
    ("non_string_key", {1: "x"}),
    ("unsupported_type", b"bytes"),
    ("unsupported_type", {"a", "b"}),
    ("unsupported_type", object()),
    ("unsupported_type", lambda: None),
    ("too_deep", deep(5000)),
    ("circular_reference", circle()),
]


@pytest.mark.parametrize(("reason", "value"), HOSTILE, ids=range(len(HOSTILE)))
async def test_what_json_cannot_hold_exactly_is_refused_and_leaves_no_trace(
    open_mesh: OpenMesh, reason: str, value: object
) -> None:
    mesh = await open_mesh(Open)
    before = await contents(mesh)

    with pytest.raises(UnserializableValueError) as refused:
        await mesh.start_run(Open, {"anything": value})

    assert refused.value.code == "unserializable_value"
    assert refused.value.details["reason"] == reason
    assert await contents(mesh) == before


HARMLESS: list[Any] = [
    "'; drop table runs; --",
    "{{ 7 * 7 }} ${jndi:ldap://x}",
    "\u202e right to left \U0001f991 \ufeff",
    "line\r\nbreak\ttab\x1b[31m",
    {"__class__": "os.system", "constructor": None, "$ref": "#", "": "empty key"},
    [[], {}, [None], 0, -0.0, 1e308, 2**53 + 1, "\u2028"],
    "x" * 100_000,
    deep(40),
]


@pytest.mark.parametrize("value", HARMLESS, ids=range(len(HARMLESS)))
async def test_odd_but_exact_values_come_back_as_they_went_in(
    open_mesh: OpenMesh, value: object
) -> None:
    mesh = await open_mesh(Open)

    run = await mesh.start_run(Open, {"anything": value})

    kept = (await mesh.inspect_run(run.id)).payload
    assert kept == {"anything": value}
    assert as_text(kept) == as_text({"anything": value})


async def test_a_payload_over_the_limit_is_refused_and_leaves_no_trace(
    open_mesh: OpenMesh,
) -> None:
    mesh = await open_mesh(Open, max_payload_bytes=1000)
    before = await contents(mesh)

    with pytest.raises(PayloadTooLargeError) as refused:
        await mesh.start_run(Open, {"anything": "x" * 1000})

    assert refused.value.code == "payload_too_large"
    assert refused.value.details["limit"] == 1000
    assert await contents(mesh) == before


@pytest.mark.parametrize("payload", [[1], "text", 7, Line("x"), [("account", "a")]])
async def test_a_payload_is_an_instance_or_a_mapping_and_nothing_else(
    open_mesh: OpenMesh, payload: object
) -> None:
    mesh = await open_mesh(Numbered)
    before = await contents(mesh)

    with pytest.raises(InvalidPayloadError) as refused:
        await mesh.start_run(Numbered, payload)

    assert refused.value.code == "invalid_payload"
    assert await contents(mesh) == before


@attrs.frozen(kw_only=True)
class Brief:
    account: str


class Several(Workflow[Plain]):
    name = "several"
    first = manual()
    second = manual(payload=Brief)
    only = step(lambda account: {"who": account})
    transitions = path(only)


async def test_each_trigger_may_have_a_payload_of_its_own(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Several)

    first = await mesh.start_run(Several, Plain("a", limit=2))
    second = await mesh.start_run(Several, Brief(account="b"), trigger="second")
    with pytest.raises(InvalidPayloadError) as refused:
        await mesh.start_run(Several, {"account": "b", "limit": 2.0}, trigger="second")

    assert (first.trigger, first.payload["limit"]) == ("first", 2.0)
    assert (second.trigger, second.payload) == ("second", {"account": "b"})
    assert refused.value.details["unknown"] == ["limit"]


async def test_a_workflow_without_a_payload_class_takes_no_field(open_mesh: OpenMesh) -> None:
    class Bare(Workflow[None]):
        name = "bare"
        by_hand = manual()
        only = log("only")
        transitions = path(only)

    mesh = await open_mesh(Bare)
    started = [await mesh.start_run(Bare), await mesh.start_run(Bare, {})]
    before = await contents(mesh)

    with pytest.raises(InvalidPayloadError) as refused:
        await mesh.start_run(Bare, {"account": "a"})

    assert [run.payload for run in started] == [{}, {}]
    assert refused.value.details == {"missing": [], "unknown": ["account"], "invalid": {}}
    assert await contents(mesh) == before


async def test_an_aware_moment_keeps_its_offset(open_mesh: OpenMesh) -> None:
    there = datetime(2026, 5, 1, 9, tzinfo=timezone(timedelta(hours=2)))
    mesh = await open_mesh(Whole)

    run = await mesh.start_run(Whole, attrs.evolve(GIVEN, moment=there))

    assert run.payload_as(Everything).moment == there
    assert run.payload_as(Everything).moment.utcoffset() == timedelta(hours=2)
