"""What a run starts with: the input contract as data, and whether a given input fits it.

A contract knows no Python class, only shapes of JSON. The values it is asked about are plain
JSON already, so a date is ISO text here, a decimal is its digits and a UUID is its hexadecimal
form. Everything that is wrong is reported at once, with the path to it.

Recursion follows the depth of a *type*, which is bounded where types are read, and never the
depth of a value.
"""

import enum
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from functools import cached_property
from typing import Final, TypeAlias

import attrs
from returns.result import Failure, Result, Success

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
    Scalar,
    StaticDefault,
    TypeSpec,
    describe,
)
from squidmesh.domain.values import Json, JsonObject

_UUID: Final = re.compile(
    r"([0-9a-f]{8})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{12})", re.IGNORECASE
)
_DECIMAL: Final = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)

_MINUTE: Final = timedelta(minutes=1)

Path: TypeAlias = tuple[str | int, ...]
Factories: TypeAlias = Mapping[str, Callable[[], Json]]
"""What makes the dynamic defaults, by their keys."""


@attrs.frozen(kw_only=True)
class PayloadContract:
    """The fields that a run may start with; *name* is what its author calls them together."""

    name: str | None = None
    fields: tuple[PayloadField, ...] = ()

    @cached_property
    def by_name(self) -> Mapping[str, PayloadField]:
        """The fields by their names, in declaration order."""
        return {field.name: field for field in self.fields}


class FieldProblemKind(enum.Enum):
    """In which of three ways a field does not fit."""

    MISSING = "missing"
    UNKNOWN = "unknown"
    INVALID = "invalid"


@attrs.frozen
class FieldProblem:
    """A field that does not fit; *message* never repeats the value that was given."""

    kind: FieldProblemKind
    path: Path
    message: str


def check(
    contract: PayloadContract, given: Mapping[str, Json], *, factories: Factories | None = None
) -> Result[JsonObject, tuple[FieldProblem, ...]]:
    """The payload that *given* means under *contract*, or everything that is wrong with it.

    Fields come out in the contract's order, with static defaults filled in. Dynamic ones are asked
    of their factory among *factories*, and one without a factory is missing; if there are no
    factories at all, the field is left out.
    """
    audit = _Audit(factories)
    payload = audit.fields(contract.fields, given, ())
    return Failure(tuple(audit.problems)) if audit.problems else Success(payload)


def misfits(expected: TypeSpec, value: Json) -> tuple[FieldProblem, ...]:
    """Everything about *value* that does not fit the type *expected*."""
    audit = _Audit()
    audit.value(expected, value, ())
    return tuple(audit.problems)


def factory_keys(contract: PayloadContract) -> frozenset[str]:
    """The keys of all dynamic defaults, those of nested records included."""
    return frozenset(_keys_in(Record("", contract.fields)))


def _keys_in(expected: TypeSpec) -> Iterator[str]:
    match expected:
        case Primitive() | Anything() | OneOf():
            return
        case ListOf(item=inner) | MappingOf(value=inner):
            yield from _keys_in(inner)
        case AnyOf(options=options):
            for option in options:
                yield from _keys_in(option)
        case Record(fields=fields):
            for field in fields:
                if isinstance(field.default, DynamicDefault):
                    yield field.default.key
                yield from _keys_in(field.type)


def details_of(problems: Sequence[FieldProblem]) -> JsonObject:
    """The problems by kind: names of fields, and for invalid ones what was expected."""
    missing: list[Json] = []
    unknown: list[str] = []
    invalid: JsonObject = {}
    for problem in problems:
        name = dotted(problem.path)
        match problem.kind:
            case FieldProblemKind.MISSING:
                missing.append(name)
            case FieldProblemKind.UNKNOWN:
                unknown.append(name)
            case FieldProblemKind.INVALID:
                invalid[name] = problem.message
    return {"missing": missing, "unknown": [*sorted(unknown)], "invalid": invalid}


def dotted(path: Sequence[str | int]) -> str:
    """A path the way people write it; the empty one is the payload itself."""
    return ".".join(str(part) for part in path) or "payload"


class _Misfit(enum.Enum):
    """What a conversion answers when there is nothing to convert."""

    MISFIT = "misfit"


@attrs.frozen
class _Audit:
    """One look at one payload: fits values to types, and notes what does not fit."""

    factories: Factories | None = None
    problems: list[FieldProblem] = attrs.field(factory=list[FieldProblem])

    def fields(
        self, fields: Sequence[PayloadField], given: Mapping[str, Json], path: Path
    ) -> JsonObject:
        """The fields of *given*, in the order of their declaration."""
        fitted: JsonObject = {}
        for field in fields:
            name, expected = field.name, field.type
            if name not in given:
                self._absent(field, (*path, name), fitted)
                continue
            value = given[name]
            # Most fields of most payloads are plain values that stay as they are.
            if isinstance(expected, Primitive) and _STAYS.get(expected.kind) is type(value):
                fitted[name] = value
            else:
                fitted[name] = self.value(expected, value, (*path, name))
        if not given.keys() <= fitted.keys():
            for key in given:
                if key not in fitted:
                    self._note(FieldProblemKind.UNKNOWN, (*path, key), "is not a field")
        return fitted

    def _absent(self, field: PayloadField, path: Path, fitted: JsonObject) -> None:
        match field.default:
            case StaticDefault(value=value):
                fitted[field.name] = self.value(field.type, value, path)
            case DynamicDefault(key=key) if self.factories is None or key in self.factories:
                if self.factories is not None:
                    fitted[field.name] = self.value(field.type, self.factories[key](), path)
            case LeftOut():
                return
            case DynamicDefault() | None:
                self._note(FieldProblemKind.MISSING, path, "is missing")

    def value(self, expected: TypeSpec, value: Json, path: Path) -> Json:
        """*value* the way *expected* has it."""
        match expected:
            case Anything():
                return value
            case AnyOf():
                return self._any_of(expected, value, path)
            case Primitive(kind=kind):
                return self._noted(_CONVERSIONS[kind](value), expected, value, path)
            case OneOf(values=values):
                fitted = value if _is_among(values, value) else _Misfit.MISFIT
                return self._noted(fitted, expected, value, path)
            case ListOf() | MappingOf() | Record():
                fitted = self._container(expected, value, path)
                return self._noted(fitted, expected, value, path)

    def _noted(self, fitted: Json | _Misfit, expected: TypeSpec, value: Json, path: Path) -> Json:
        if isinstance(fitted, _Misfit):
            self._note(FieldProblemKind.INVALID, path, f"must be {describe(expected)}")
            return value
        return fitted

    def _container(
        self, expected: ListOf | MappingOf | Record, value: Json, path: Path
    ) -> Json | _Misfit:
        match expected:
            case ListOf(item=item) if isinstance(value, list):
                return [self.value(item, part, (*path, i)) for i, part in enumerate(value)]
            case MappingOf(value=of) if isinstance(value, dict):
                return {key: self.value(of, part, (*path, key)) for key, part in value.items()}
            case Record(fields=fields) if isinstance(value, dict):
                return self.fields(fields, value, path)
            case ListOf() | MappingOf() | Record():
                return _Misfit.MISFIT

    def _any_of(self, expected: AnyOf, value: Json, path: Path) -> Json:
        # float comes last, because it would make a float of an int that another option takes.
        ordered = sorted(expected.options, key=lambda one: one == Primitive(PrimitiveKind.FLOAT))
        closest: list[_Audit] = []
        for option in ordered:
            attempt = _Audit(self.factories)
            fitted = attempt.value(option, value, path)
            if not attempt.problems:
                return fitted
            if all(len(problem.path) > len(path) for problem in attempt.problems):
                closest.append(attempt)
        if len(closest) == 1:  # only one option has this shape: its problems are the author's
            self.problems.extend(closest[0].problems)
        else:
            self._note(FieldProblemKind.INVALID, path, f"must be {describe(expected)}")
        return value

    def _note(self, kind: FieldProblemKind, path: Path, message: str) -> None:
        self.problems.append(FieldProblem(kind, path, message))


_Conversion: TypeAlias = Callable[[Json], "Json | _Misfit"]


def _is_among(values: Sequence[Scalar], value: Json) -> bool:
    # True == 1 in Python, and is not the same JSON.
    return any(type(value) is type(one) and value == one for one in values)


def _exactly(kind: type[Scalar]) -> _Conversion:
    return lambda value: value if type(value) is kind else _Misfit.MISFIT


def _as_float(value: Json) -> Json | _Misfit:
    if type(value) is int:
        try:
            widened = float(value)
        except OverflowError:
            return _Misfit.MISFIT
        return widened if widened == value else _Misfit.MISFIT
    return value if isinstance(value, float) else _Misfit.MISFIT


def _as_date(value: Json) -> Json | _Misfit:
    try:
        return date.fromisoformat(value).isoformat() if isinstance(value, str) else _Misfit.MISFIT
    except ValueError:
        return _Misfit.MISFIT


def _as_datetime(value: Json) -> Json | _Misfit:
    # A date alone would be read as its midnight, which nobody has said.
    if not isinstance(value, str) or not isinstance(_as_date(value), _Misfit):
        return _Misfit.MISFIT
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return _Misfit.MISFIT
    offset = moment.utcoffset()
    # Whole minutes: what RFC 3339 and the codec can write.
    return _Misfit.MISFIT if offset and offset % _MINUTE else moment.isoformat()


def _as_uuid(value: Json) -> Json | _Misfit:
    found = _UUID.fullmatch(value) if isinstance(value, str) else None
    return "-".join(found.groups()).lower() if found else _Misfit.MISFIT


def _as_decimal(value: Json) -> Json | _Misfit:
    if not isinstance(value, str) or not _DECIMAL.fullmatch(value):
        return _Misfit.MISFIT
    try:
        Decimal(value)
    except InvalidOperation:  # its exponent is beyond what a decimal holds
        return _Misfit.MISFIT
    return value


_STAYS: Final[Mapping[PrimitiveKind, type]] = {
    PrimitiveKind.STR: str,
    PrimitiveKind.INT: int,
    PrimitiveKind.FLOAT: float,
    PrimitiveKind.BOOL: bool,
}
"""The values that need no conversion, by the exact type that says so."""

_CONVERSIONS: Final[Mapping[PrimitiveKind, _Conversion]] = {
    PrimitiveKind.STR: _exactly(str),
    PrimitiveKind.INT: _exactly(int),
    PrimitiveKind.FLOAT: _as_float,
    PrimitiveKind.BOOL: _exactly(bool),
    PrimitiveKind.NONE: _exactly(type(None)),
    PrimitiveKind.DATE: _as_date,
    PrimitiveKind.DATETIME: _as_datetime,
    PrimitiveKind.UUID: _as_uuid,
    PrimitiveKind.DECIMAL: _as_decimal,
}
