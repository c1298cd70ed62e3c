"""The shapes of JSON that a field may ask for, as data: what an annotation means, without Python.

Values are plain JSON wherever a type looks at them, so a date is ISO text, a decimal is its
digits and a UUID is its hexadecimal form.
"""

import enum
from collections.abc import Mapping
from typing import Final, TypeAlias

import attrs

from squidmesh.domain.values import Json

DEEPEST_TYPE: Final = 24
"""How many levels a type may nest; whoever reads a type from outside holds it to that."""

Scalar: TypeAlias = bool | int | float | str | None


class PrimitiveKind(enum.Enum):
    """The values that have no parts; the last four are text of a certain form."""

    STR = "str"
    INT = "int"
    FLOAT = "float"
    BOOL = "bool"
    NONE = "none"
    DATE = "date"
    DATETIME = "datetime"
    UUID = "uuid"
    DECIMAL = "decimal"

    # Asked for every field of every payload; enum's own hash is a Python call, this one is not.
    __hash__ = object.__hash__


@attrs.frozen
class Primitive:
    """A value without parts."""

    kind: PrimitiveKind


@attrs.frozen
class Anything:
    """Any JSON value."""


@attrs.frozen
class ListOf:
    """A list whose items are all of one type."""

    item: "TypeSpec"


@attrs.frozen
class MappingOf:
    """An object with any keys, whose values are all of one type."""

    value: "TypeSpec"


@attrs.frozen
class OneOf:
    """One of the listed values, as an enumeration or a literal type has them."""

    values: tuple[Scalar, ...]


@attrs.frozen
class AnyOf:
    """A value that fits at least one of the options."""

    options: "tuple[TypeSpec, ...]"


@attrs.frozen
class Record:
    """An object with known fields, and no others."""

    name: str
    fields: "tuple[PayloadField, ...]"


TypeSpec: TypeAlias = Primitive | Anything | ListOf | MappingOf | OneOf | AnyOf | Record


@attrs.frozen
class StaticDefault:
    """A default that is the same for every run."""

    value: Json


@attrs.frozen
class DynamicDefault:
    """A default that the shell makes anew for every run; *key* names the factory."""

    key: str


@attrs.frozen
class LeftOut:
    """No default: a field that is not given stays absent."""


Default: TypeAlias = StaticDefault | DynamicDefault | LeftOut


@attrs.frozen(kw_only=True)
class PayloadField:
    """A field of a payload, or of a record inside it; without *default* it must be given."""

    name: str
    type: TypeSpec
    default: Default | None = None

    @property
    def required(self) -> bool:
        """Whether it must be given."""
        return self.default is None


def may_agree(one: TypeSpec, other: TypeSpec) -> bool:
    """Whether some value fits both types, as far as their outermost shape tells."""
    return bool(_shapes(one) & _shapes(other))


def describe(expected: TypeSpec) -> str:
    """The type in words, without a value of anybody's."""
    match expected:
        case Primitive(kind=kind):
            return _WORDS.get(kind, kind.value)
        case Anything():
            return "any JSON value"
        case ListOf(item=item):
            return f"a list of {describe(item)}"
        case MappingOf(value=value):
            return f"an object of {describe(value)}"
        case OneOf(values=values):
            return f"one of {', '.join(repr(value) for value in values)}"
        case AnyOf(options=options):
            return " or ".join(describe(option) for option in options)
        case Record(name=name):
            return f"an object with the fields of {name}"


_WORDS: Final[Mapping[PrimitiveKind, str]] = {
    PrimitiveKind.NONE: "None",
    PrimitiveKind.FLOAT: "a number that a float holds exactly",
    PrimitiveKind.DATE: "the ISO text of a date",
    PrimitiveKind.DATETIME: "the ISO text of a date and time",
    PrimitiveKind.UUID: "the text of a UUID",
    PrimitiveKind.DECIMAL: "the text of a decimal number",
}


def _shapes(expected: TypeSpec) -> frozenset[str]:
    """The kinds of JSON that a type takes, by name; an int may stand for a float."""
    match expected:
        case Anything():
            return _ALL_SHAPES
        case Primitive(kind=kind):
            return _SHAPES.get(kind, frozenset({"text"}))
        case OneOf(values=values):
            return frozenset().union(*(_SHAPE_OF[type(value)] for value in values))
        case AnyOf(options=options):
            return frozenset().union(*(_shapes(option) for option in options))
        case ListOf():
            return frozenset({"list"})
        case MappingOf() | Record():
            return frozenset({"object"})


_SHAPES: Final[Mapping[PrimitiveKind, frozenset[str]]] = {
    PrimitiveKind.INT: frozenset({"number"}),
    PrimitiveKind.FLOAT: frozenset({"number"}),
    PrimitiveKind.BOOL: frozenset({"bool"}),
    PrimitiveKind.NONE: frozenset({"none"}),
}
_SHAPE_OF: Final[Mapping[type, frozenset[str]]] = {
    str: frozenset({"text"}),
    int: _SHAPES[PrimitiveKind.INT],
    float: _SHAPES[PrimitiveKind.FLOAT],
    bool: _SHAPES[PrimitiveKind.BOOL],
    type(None): _SHAPES[PrimitiveKind.NONE],
}
_ALL_SHAPES: Final = frozenset({"text", "number", "bool", "none", "list", "object"})
