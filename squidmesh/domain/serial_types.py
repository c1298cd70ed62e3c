"""Payload contracts as plain JSON and back.

A type without parts is its name (``"str"``, ``"any"``); one with parts is an object with one key
that says which (``{"list": "int"}``), so that people can read and write contracts.
"""

from collections.abc import Mapping
from typing import Final

import attrs

from squidmesh.domain.definition import Problem
from squidmesh.domain.payload import PayloadContract
from squidmesh.domain.reading import Path, Section
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
from squidmesh.domain.values import Json, JsonObject

_CODE: Final = "invalid_payload_type"
_PRIMITIVES: Final[Mapping[str, PrimitiveKind]] = {kind.value: kind for kind in PrimitiveKind}
_FIELD_KEYS: Final = ("name", "type", "required", "default", "default_factory")
_PARTS: Final = frozenset({"list", "dict", "one_of", "any_of", "record"})


def contract_to_dict(contract: PayloadContract) -> JsonObject:
    """The contract as plain JSON."""
    return {"name": contract.name, "fields": [_field_to_dict(one) for one in contract.fields]}


def _field_to_dict(field: PayloadField) -> JsonObject:
    written: JsonObject = {"name": field.name, "type": _type_to_json(field.type)}
    match field.default:
        case StaticDefault(value=value):
            written["default"] = value
        case DynamicDefault(key=key):
            written["default_factory"] = key
        case LeftOut():
            written["required"] = False
        case None:
            pass
    return written


def _type_to_json(expected: TypeSpec) -> Json:
    match expected:
        case Primitive(kind=kind):
            return kind.value
        case Anything():
            return "any"
        case ListOf(item=item):
            return {"list": _type_to_json(item)}
        case MappingOf(value=value):
            return {"dict": _type_to_json(value)}
        case OneOf(values=values):
            return {"one_of": list(values)}
        case AnyOf(options=options):
            return {"any_of": [_type_to_json(option) for option in options]}
        case Record(name=name, fields=fields):
            return {"record": {"name": name, "fields": [_field_to_dict(one) for one in fields]}}


def read_contract(value: Json, path: Path, problems: list[Problem]) -> PayloadContract:
    """The contract that *value* describes; nothing at all describes one without fields."""
    if value is None:
        return PayloadContract()
    section = Section.of(value, path, problems, known=("name", "fields"), code=_CODE)
    return PayloadContract(
        name=section.optional_text("name", "invalid_name"), fields=_read_fields(section, 1)
    )


def _read_fields(section: Section, depth: int) -> tuple[PayloadField, ...]:
    return tuple(
        _read_field(Section.of(item, path, section.problems, known=_FIELD_KEYS, code=_CODE), depth)
        for path, item in section.items("fields", _CODE)
    )


def _read_field(section: Section, depth: int) -> PayloadField:
    return PayloadField(
        name=section.text("name", "invalid_name"),
        type=_TypeReader(section.problems).type(
            section.data.get("type"), (*section.path, "type"), depth
        ),
        default=_read_default(section),
    )


def _read_default(section: Section) -> Default | None:
    code = "invalid_payload_default"
    factory = section.optional_text("default_factory", code)
    if "default" in section.data:
        if factory is not None:
            section.note("default_factory", code, "there is a default already")
        return StaticDefault(section.data["default"])
    if factory is not None:
        return DynamicDefault(factory)
    return None if section.flag("required", code, default=True) else LeftOut()


@attrs.frozen
class _TypeReader:
    """Reads types that stand inside one another, and notes what is none."""

    problems: list[Problem]

    def type(self, value: Json, path: Path, depth: int) -> TypeSpec:
        """The type that *value* describes; anything at all, and a problem, if it describes none."""
        if value == "any":
            return Anything()
        if isinstance(value, str) and value in _PRIMITIVES:
            return Primitive(_PRIMITIVES[value])
        if not isinstance(value, dict) or len(value) != 1 or not value.keys() <= _PARTS:
            return self._none(
                path, f"must be one of {', '.join((*_PRIMITIVES, 'any', *sorted(_PARTS)))}"
            )
        if depth == DEEPEST_TYPE:
            return self._none(path, f"types nest at most {DEEPEST_TYPE} levels")
        ((kind, part),) = value.items()
        return self._with_parts(kind, part, (*path, kind), depth + 1)

    def _with_parts(self, kind: str, part: Json, path: Path, depth: int) -> TypeSpec:
        if kind == "list":
            return ListOf(self.type(part, path, depth))
        if kind == "dict":
            return MappingOf(self.type(part, path, depth))
        if kind == "record":
            known = ("name", "fields")
            section = Section.of(part, path, self.problems, known=known, code=_CODE)
            return Record(section.text("name", "invalid_name"), _read_fields(section, depth))
        if not isinstance(part, list) or not part:
            return self._none(path, "must be a list that is not empty")
        if kind == "any_of":
            return AnyOf(tuple(self.type(one, (*path, i), depth) for i, one in enumerate(part)))
        values = tuple(one for one in part if not isinstance(one, list | dict))
        if len(values) < len(part):
            return self._none(path, "must be values without parts")
        return OneOf(values)

    def _none(self, path: Path, message: str) -> TypeSpec:
        self.problems.append(Problem(path, _CODE, message))
        return Anything()
