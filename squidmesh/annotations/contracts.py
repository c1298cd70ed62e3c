"""Payload classes as input contracts: what the annotations and defaults of a class come to.

attrs classes, dataclasses, TypedDicts and pydantic models are understood, and so are the classes
that their fields name in turn. A default that is the same for every run becomes part of the
contract; one that a factory makes is named there, and the factory is kept for those who start
runs.
"""

import enum
import inspect
import types
import typing
from collections.abc import Collection, Mapping, MutableMapping, MutableSequence, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final, TypeAlias
from uuid import UUID

import attrs
from returns.result import Failure, Result, Success

from squidmesh.annotations.fields import (
    Annotation,
    ClassField,
    Dependent,
    Given,
    Made,
    Omittable,
    bare_of,
    fields_of,
    is_model,
    is_record,
)
from squidmesh.codec import plain, supports
from squidmesh.domain.definition import Problem
from squidmesh.domain.payload import Factories, PayloadContract, dotted, misfits
from squidmesh.domain.typespec import (
    DEEPEST_TYPE,
    AnyOf,
    Anything,
    Default,
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
from squidmesh.errors import SquidMeshError

Path: TypeAlias = tuple[str | int, ...]

_TYPE: Final = "invalid_payload_type"
_DEFAULT: Final = "invalid_payload_default"
_PRIMITIVES: Final[Mapping[object, PrimitiveKind]] = {
    str: PrimitiveKind.STR,
    int: PrimitiveKind.INT,
    float: PrimitiveKind.FLOAT,
    bool: PrimitiveKind.BOOL,
    None: PrimitiveKind.NONE,
    type(None): PrimitiveKind.NONE,
    date: PrimitiveKind.DATE,
    datetime: PrimitiveKind.DATETIME,
    UUID: PrimitiveKind.UUID,
    Decimal: PrimitiveKind.DECIMAL,
}
_SCALARS: Final = (str, int, bool, type(None))
_LISTS: Final = (list, tuple, Collection, Sequence, MutableSequence)
_MAPPINGS: Final = (dict, Mapping, MutableMapping)
_ALWAYS_ALIKE: Final = (list, dict, tuple)
"""Factories whose value is the same for every run, so that it can stand in the contract."""


@attrs.frozen
class PayloadReading:
    """What a payload class comes to: its contract, what makes its defaults, what is wrong."""

    contract: PayloadContract
    factories: Factories
    problems: tuple[Problem, ...]


def contract_of(payload_class: object) -> Result[PayloadContract, tuple[Problem, ...]]:
    """The contract that *payload_class* stands for; None stands for the one without fields."""
    reading = read_payload_class(payload_class)
    return Failure(reading.problems) if reading.problems else Success(reading.contract)


def defaults_of(payload_class: object) -> Factories:
    """What makes the dynamic defaults of *payload_class*, as plain JSON, by their keys."""
    return read_payload_class(payload_class).factories


def read_payload_class(payload_class: object, path: Path = ("payload",)) -> PayloadReading:
    """As much of a contract as *payload_class* stands for, and everything that is wrong with it."""
    if payload_class is None or payload_class is type(None):
        return PayloadReading(PayloadContract(), {}, ())
    reader = _Reader()
    fields: tuple[PayloadField, ...] = ()
    if isinstance(payload_class, type) and is_record(payload_class):
        fields = reader.fields(payload_class, path, ())
    else:
        reader.note(path, _TYPE, "a payload is an attrs class, a dataclass or a TypedDict")
    contract = PayloadContract(name=_name_of(payload_class), fields=fields)
    return PayloadReading(contract, reader.factories, tuple(reader.problems))


def _name_of(annotation: object) -> str:
    name = getattr(annotation, "__qualname__", None)
    return name if isinstance(name, str) else inspect.formatannotation(annotation)


@attrs.frozen
class _Reader:
    """Reads a class and those that it names; *within* are the classes around a field."""

    problems: list[Problem] = attrs.field(factory=list[Problem])
    factories: dict[str, Any] = attrs.field(factory=dict[str, Any])

    def note(self, path: Path, code: str, message: str) -> None:
        self.problems.append(Problem(path, code, message))

    def fields(
        self, kind: type, path: Path, within: tuple[object, ...]
    ) -> tuple[PayloadField, ...]:
        try:
            declared = fields_of(kind)
        except Exception as error:  # noqa: BLE001  annotations are anybody's code
            self.note(path, _TYPE, f"an annotation of {kind.__qualname__} cannot be read: {error}")
            return ()
        return tuple(self.field(kind, field, path, within) for field in declared)

    def field(
        self, kind: type, declared: ClassField, path: Path, within: tuple[object, ...]
    ) -> PayloadField:
        here = (*path, declared.name)
        before = len(self.problems)
        expected = self.type(declared.annotation, here, (*within, kind))
        # What a run started with must come back as its class: the codec has the last word.
        if len(self.problems) == before and not (is_model(kind) or supports(declared.bare)):
            self.note(here, _TYPE, f"{_name_of(declared.bare)} could not be read back from JSON")
        default = self.default(kind, declared, here)
        if isinstance(default, StaticDefault) and len(self.problems) == before:
            for misfit in misfits(expected, default.value):
                place = dotted((declared.name, *misfit.path))
                self.note(here, _DEFAULT, f"the default does not fit: {place} {misfit.message}")
                default = LeftOut()
        return PayloadField(name=declared.name, type=expected, default=default)

    def default(self, kind: type, declared: ClassField, path: Path) -> Default | None:
        match declared.default:
            case None:
                return None
            case Omittable():
                return LeftOut()
            case Given(value=value):
                return self.static(value, path)
            case Made(factory=factory) if factory in _ALWAYS_ALIKE:
                return self.static(factory(), path)
            case Made(factory=factory):
                key = f"{kind.__module__}:{kind.__qualname__}.{declared.name}"
                self.factories[key] = lambda: plain(factory())
                return DynamicDefault(key)
            case Dependent():
                self.note(path, _DEFAULT, "a default cannot be made from the rest of the payload")
                return LeftOut()

    def static(self, value: object, path: Path) -> Default:
        try:
            return StaticDefault(plain(value))
        except SquidMeshError as error:
            self.note(path, _DEFAULT, f"the default cannot be stored: {error}")
            return LeftOut()

    def type(self, annotation: Annotation, path: Path, within: tuple[object, ...]) -> TypeSpec:
        """The type that *annotation* stands for; anything, and a problem, if it stands for none."""
        bare = bare_of(annotation)
        if bare is Any or bare is object:
            return Anything()
        if (bare is None or isinstance(bare, type)) and bare in _PRIMITIVES:
            return Primitive(_PRIMITIVES[bare])
        if isinstance(bare, type) and issubclass(bare, enum.Enum):
            return self.one_of([member.value for member in bare], bare, path)
        origin: object = typing.get_origin(bare)
        origin, parts = bare if origin is None else origin, typing.get_args(bare)
        if origin is typing.Literal:
            return self.one_of(parts, bare, path)
        if len(within) >= DEEPEST_TYPE:
            return self.unsupported(path, f"types nest at most {DEEPEST_TYPE} levels")
        return self.compound(bare, origin, parts, path, (*within, bare))

    def compound(
        self,
        bare: Annotation,
        origin: object,
        parts: tuple[Annotation, ...],
        path: Path,
        within: tuple[object, ...],
    ) -> TypeSpec:
        if origin in (typing.Union, types.UnionType):
            return AnyOf(tuple(self.type(part, path, within) for part in parts))
        if origin in _LISTS and (origin is not tuple or parts[1:] in ((), (...,))):
            return ListOf(self.type(parts[0] if parts else Any, path, within))
        if origin in _MAPPINGS and parts[:1] in ((), (str,), (Any,)):
            return MappingOf(self.type(parts[1] if parts else Any, path, within))
        if isinstance(bare, type) and is_record(bare):
            if bare in within[:-1]:
                return self.unsupported(path, f"{_name_of(bare)} contains itself")
            return Record(_name_of(bare), self.fields(bare, path, within[:-1]))
        return self.unsupported(path, f"{_name_of(bare)} is no type that a payload may hold")

    def one_of(self, values: Sequence[object], bare: Annotation, path: Path) -> TypeSpec:
        scalars = tuple(value for value in values if isinstance(value, str | int | None))
        if any(type(value) not in _SCALARS for value in values):
            return self.unsupported(path, f"{_name_of(bare)} holds more than text and integers")
        return OneOf(scalars)

    def unsupported(self, path: Path, message: str) -> TypeSpec:
        self.note(path, _TYPE, message)
        return Anything()
