"""Python values as plain JSON: the walk that refuses whatever JSON cannot hold exactly."""

import dataclasses
import datetime as dt
import decimal
import enum
import math
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, TypeAlias

import attrs
import msgspec

from squidmesh.codec.models import flatten_model, is_model
from squidmesh.codec.problems import Refused
from squidmesh.codec.text import size
from squidmesh.domain.values import Json
from squidmesh.errors import PayloadTooLargeError, UnserializableValueError

MAX_DEPTH: Final = 64
"""How many objects and lists may stand inside one another."""

_INTEGERS: Final = 2**63
_MINUTE: Final = dt.timedelta(minutes=1)
_CACHED_TYPES: Final = 4096

_Given: TypeAlias = Any
"""A value of somebody's, before its exact type is known."""


def plain(value: object, *, max_bytes: int | None = None) -> Json:
    """Return *value* as plain JSON, all of it new down to the last list.

    Raises:
        UnserializableValueError: JSON cannot hold something in it exactly.
        PayloadTooLargeError: its JSON text has more than *max_bytes* bytes.

    """
    try:
        if max_bytes is None:
            return _Walk(sys.maxsize).value(value, 1)
        # An element takes two bytes at least, so more than this cannot be within the limit. A
        # list that holds one list a thousand times, and so on, is not unfolded to find out.
        fresh = _Walk(max_bytes // 2 + 1).value(value, 1)
    except Refused as refused:
        raise _error_for(refused) from None
    except _TooManyError:
        raise PayloadTooLargeError(None, max_bytes or 0) from None
    if (measured := size(fresh)) > max_bytes:
        raise PayloadTooLargeError(measured, max_bytes)
    return fresh


def _error_for(refused: Refused) -> UnserializableValueError:
    if refused.reason == "too_deep" and (path := refused.path_to_itself):
        return UnserializableValueError(path, "circular_reference")
    return UnserializableValueError(refused.path, refused.reason, kind=refused.kind)


class _TooManyError(Exception):
    """There are more elements than bytes allowed."""


class _Walk:
    """One walk through a value; *room* is how many elements it may still meet."""

    __slots__ = ("room",)

    def __init__(self, room: int) -> None:
        self.room = room

    def value(self, value: _Given, depth: int) -> Json:
        """Tell exact types apart, the frequent ones first."""
        kind = type(value)
        if kind is str:
            return value if value.isascii() and "\0" not in value else _text(value)
        if kind is int:
            return _integer(value)
        if value is None:
            return None
        if kind is bool:
            return value is True
        if kind is dict:
            return self.mapping(value.items(), len(value), depth, value)
        if kind is float:
            return _number(value)
        if kind is list or kind is tuple:
            return self.sequence(value, depth)
        form = _form(kind)  # type: ignore[arg-type] # mypy asks instances for __hash__, not classes
        return form(self, value, depth)

    def mapping(
        self, items: Iterable[tuple[object, object]], count: int, depth: int, holder: object
    ) -> Json:
        """An object out of *items*, which are those of *holder*."""
        self._enter(count, depth, holder)
        fresh: dict[str, Json] = {}
        key: object = None
        try:
            for key, item in items:
                if type(key) is str and key.isascii() and "\0" not in key:
                    fresh[key] = self.value(item, depth + 1)
                else:
                    fresh[_unusual_key(key, fresh)] = self.value(item, depth + 1)
        except Refused as refused:
            refused.inside(holder, key if isinstance(key, str) else None)
            raise
        return fresh

    def sequence(self, items: Sequence[object], depth: int) -> Json:
        """A list out of *items*."""
        self._enter(len(items), depth, items)
        fresh: list[Json] = []
        try:
            for item in items:
                fresh.append(self.value(item, depth + 1))  # noqa: PERF401 - its length is needed
        except Refused as refused:
            refused.inside(items, len(fresh))
            raise
        return fresh

    def _enter(self, count: int, depth: int, holder: object) -> None:
        if depth > MAX_DEPTH:
            refused = Refused("too_deep")
            refused.inside(holder)
            raise refused
        self.room -= count
        if self.room < 0:
            raise _TooManyError


def _text(text: str) -> str:
    if "\0" in text:
        raise Refused("nul_character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Refused("lone_surrogate") from None
    return text


def _integer(number: int) -> int:
    if -_INTEGERS <= number < _INTEGERS:
        return number
    raise Refused("integer_out_of_range")


def _number(number: float) -> float:
    if math.isfinite(number):
        return number
    raise Refused("nan" if math.isnan(number) else "infinity")


def _unusual_key(key: object, fresh: Mapping[str, Json]) -> str:
    """Allow keys that are not ASCII, and subclasses of str, as long as they stay distinct."""
    if not isinstance(key, str):
        raise Refused("non_string_key", type(key).__qualname__)
    text = _text(str.__str__(key))
    if text in fresh:
        raise Refused("duplicate_key")
    return text


def _datetime(moment: dt.datetime) -> str:
    offset = moment.utcoffset()
    if offset is not None and offset % _MINUTE:
        # Local mean times of long ago: others read no seconds in an offset.
        moment = moment.astimezone(dt.UTC)
    return dt.datetime.isoformat(moment)


def _decimal(number: decimal.Decimal) -> str:
    if number.is_finite():
        return str(number)
    raise Refused("nan" if number.is_nan() else "infinity")


_Form: TypeAlias = Callable[[_Walk, Any, int], Json]

_LEAVES: Final[tuple[tuple[type, Callable[[Any], Json]], ...]] = (
    (str, lambda text: _text(str.__str__(text))),
    (int, lambda number: _integer(int.__int__(number))),
    (float, lambda number: _number(float.__float__(number))),
    (dt.datetime, _datetime),  # before date, of which it is a subclass
    (dt.date, dt.date.isoformat),
    (uuid.UUID, str),
    (decimal.Decimal, _decimal),
)


@lru_cache(_CACHED_TYPES)
def _form(kind: type) -> _Form:
    """How instances of *kind*, which is none of JSON's own types, become plain."""
    if issubclass(kind, enum.Enum):
        return lambda walk, member, depth: walk.value(member.value, depth)
    for leaf, convert in _LEAVES:
        if issubclass(kind, leaf):
            return _leaf_form(convert)
    if issubclass(kind, Mapping):
        return lambda walk, items, depth: walk.mapping(items.items(), len(items), depth, items)
    if issubclass(kind, list | tuple):
        return lambda walk, items, depth: walk.sequence(items, depth)
    if is_model(kind) and hasattr(kind, "model_dump"):
        return _model_form
    if issubclass(kind, msgspec.Struct):
        return _struct_form(kind)
    if attrs.has(kind):
        return _record_form([(field.name, field.name) for field in attrs.fields(kind)])
    if dataclasses.is_dataclass(kind):
        return _record_form([(field.name, field.name) for field in dataclasses.fields(kind)])
    return _refuse


def _leaf_form(convert: Callable[[Any], Json]) -> _Form:
    return lambda _walk, leaf, _depth: convert(leaf)


def _model_form(walk: _Walk, model: object, depth: int) -> Json:
    flat = flatten_model(model)
    if isinstance(flat, dict):
        return walk.mapping(flat.items(), len(flat), depth, model)
    return walk.value(flat, depth)


def _refuse(_walk: _Walk, value: object, _depth: int) -> Json:
    if value is msgspec.NODEFAULT:
        raise Refused("missing_attribute")
    raise Refused("unsupported_type", type(value).__qualname__)


def _record_form(
    fields: Sequence[tuple[str, str]], tag: Sequence[tuple[str, object]] = ()
) -> _Form:
    """Objects of named fields; each pair is a key and the attribute that is stored under it."""

    def read(record: object) -> Iterator[tuple[str, object]]:
        yield from tag
        for key, attribute in fields:
            value = getattr(record, attribute, msgspec.NODEFAULT)
            if value is not msgspec.UNSET:
                yield key, value

    return lambda walk, record, depth: walk.mapping(read(record), len(fields), depth, record)


def _struct_form(kind: type[msgspec.Struct]) -> _Form:
    """A Struct has names, and perhaps a tag, that its class configures."""
    config = kind.__struct_config__
    if config.array_like:
        return _refuse
    fields = zip(kind.__struct_encode_fields__, kind.__struct_fields__, strict=True)
    tag = [] if config.tag_field is None else [(config.tag_field, config.tag)]
    return _record_form(list(fields), tag)
