"""Plain JSON as the type that an annotation asks for: msgspec, and what it does not look at."""

import decimal
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import inspect as shapes

from squidmesh.codec.models import is_model, structure_model
from squidmesh.codec.problems import Refused, StructureProblem, segment_of
from squidmesh.domain.values import Json

Annotation: TypeAlias = Any
"""Whatever an author may write behind a colon."""

Structured: TypeAlias = Any
"""What came out; its type is the annotation's."""

_Plan: TypeAlias = Callable[[Json], Structured]
_Check: TypeAlias = Callable[[Json], None]
_Shape: TypeAlias = Any

_CACHED_ANNOTATIONS: Final = 4096
_PLACE: Final = re.compile(r" - at (?:`key` in )?`\$(?:\[0\])?(.*)`$", re.DOTALL)
_FIELD: Final = re.compile(r"Object (missing required|contains unknown) field `(.*)`", re.DOTALL)
_TELLING: Final = re.compile(r"Expected |Invalid (UUID|RFC3339|ISO8601|decimal)|Number out of")

_RECORDS: Final = (shapes.DataclassType, shapes.TypedDictType, shapes.StructType)
_NUMBERS: Final = (shapes.IntType, shapes.FloatType)
_NEVER_PLAIN: Final = (
    shapes.BytesType,
    shapes.ByteArrayType,
    shapes.MemoryViewType,
    shapes.RawType,
    shapes.ExtType,
)


def structure(value: Json, to: Annotation) -> Structured:
    """Return *value* as what the annotation *to* asks for; nothing in it is shared with *value*.

    No annotation (`inspect.Parameter.empty`), `Any` and `object` mean plain JSON. An integer is
    accepted as a float and becomes one; nothing else is coerced.

    Raises:
        StructureProblem: it does not fit, or no plain value could ever fit.

    """
    try:
        plan = _plan(to)
    except TypeError:  # what cannot be hashed cannot be remembered
        plan = _make_plan(to)
    return plan(value)


def supports(to: Annotation) -> bool:
    """Say whether there are plain values that `structure` makes what *to* asks for."""
    try:
        _make_plan(to)
    except StructureProblem:
        return False
    return True


@lru_cache(_CACHED_ANNOTATIONS)
def _plan(to: Annotation) -> _Plan:
    return _make_plan(to)


def _make_plan(to: Annotation) -> _Plan:
    if to is Any or to is object or to is inspect.Parameter.empty:
        return _copy
    if is_model(to):
        return partial(_convert_model, to)
    try:
        shape = shapes.type_info(to)
        # Inside a Struct an annotation is read once, and not at every conversion.
        box = msgspec.defstruct("Box", [("value", to)], array_like=True)
        msgspec.json.Decoder(box)
    except Exception as error:  # noqa: BLE001 - reading an annotation may run anybody's code
        raise StructureProblem(
            "$", "unsupported_type", f"{type(error).__name__}: {error}"
        ) from None
    parts = list(_parts(shape, set()))
    for part in parts:
        _refuse_unsupported(part)
    convert = partial(_convert, box, _check_for(shape, {}))
    if any(isinstance(part, shapes.AnyType | shapes.CustomType) for part in parts):
        # msgspec hands on as it is whatever is annotated with Any.
        return lambda value: convert(_copy(value))
    return convert


def _copy(value: Json) -> Structured:
    return msgspec.to_builtins(value)


def _convert_model(model: type, value: Json) -> Structured:
    try:
        return structure_model(model, value)
    except StructureProblem:
        raise
    except Exception as error:  # noqa: BLE001 - validators are anybody's code
        raise _problem_for(error) from None


def _convert(box: type[Any], check: _Check | None, value: Json) -> Structured:
    try:
        structured = msgspec.convert((value,), box, dec_hook=_structure_foreign).value
        if check is not None:
            check(value)
    except Refused as refused:
        raise StructureProblem(refused.path, refused.reason, refused.kind or "") from None
    except Exception as error:  # noqa: BLE001 - validators and post-init hooks are anybody's code
        raise _problem_for(error) from None
    return structured


def _structure_foreign(kind: type, value: Json) -> Structured:
    """Called by msgspec for the classes that it does not know; a plan lets only these pass."""
    return value if kind is object else structure_model(kind, value)


def _problem_for(error: Exception) -> StructureProblem:
    """Say what msgspec found, without the values that some of its messages repeat."""
    text, path = str(error), "$"
    if place := _PLACE.search(text):
        text, path = text[: place.start()], f"${place[1]}"
    cause = error.__cause__
    if isinstance(cause, StructureProblem):
        return StructureProblem(path + cause.path[1:], cause.reason, cause.detail)
    if cause is not None or not isinstance(error, msgspec.ValidationError):
        culprit = type(cause or error).__name__
        return StructureProblem(path, "invalid_value", f"refused with {culprit}")
    if field := _FIELD.fullmatch(text):
        reason = "missing_field" if field[1] == "missing required" else "unknown_field"
        return StructureProblem(path + segment_of(field[2]), reason)
    if not _TELLING.match(text):
        return StructureProblem(path, "invalid_value", "not one of the allowed values")
    reason = "wrong_type" if ", got `" in text else "invalid_value"
    return StructureProblem(path, reason, text.replace("`", "").replace("Expected", "expected"))


def _parts(shape: _Shape, seen: set[int]) -> Iterator[_Shape]:
    """Give *shape* and every shape inside it, once."""
    if id(shape) in seen:
        return
    seen.add(id(shape))
    yield shape
    inner = [getattr(shape, name, None) for name in ("item_type", "key_type", "value_type")]
    inner += [*getattr(shape, "item_types", ()), *getattr(shape, "types", ())]
    inner += [field.type for field in getattr(shape, "fields", ())]
    for part in inner:
        if part is not None:
            yield from _parts(part, seen)


def _refuse_unsupported(shape: _Shape) -> None:
    """Refuse what no plain value becomes, and classes of which nothing is known."""
    name = type(shape).__name__
    if isinstance(shape, shapes.CustomType):
        if shape.cls is object or is_model(shape.cls):
            return
        name = getattr(shape.cls, "__qualname__", name)
    elif not isinstance(shape, _NEVER_PLAIN) and not getattr(shape, "array_like", False):
        return
    raise StructureProblem("$", "unsupported_type", name)


class _ContainerCheck:
    """Looks for unknown keys, however deep, and for decimals such as NaN.

    It follows the value and not the result, because what a TypedDict becomes is a bare dict.
    Of the members of a union at most one reads objects, or several that a tag tells apart.
    """

    __slots__ = ("names", "parts", "reads_objects", "rest", "tag")

    def __init__(self, shape: _Shape, known: dict[int, "_ContainerCheck"]) -> None:
        known[id(shape)] = self  # first of all, because a record may hold records of its kind
        self.reads_objects = isinstance(shape, (*_RECORDS, shapes.DictType))
        field = getattr(shape, "tag_field", None)
        self.tag = None if field is None else (field, shape.tag)
        children: dict[Any, _Shape] = dict(enumerate(getattr(shape, "item_types", ())))
        if isinstance(shape, shapes.NamedTupleType):
            children = {index: field.type for index, field in enumerate(shape.fields)}
        self.names: frozenset[str | None] | None = None
        if isinstance(shape, _RECORDS):
            children = {field.encode_name: field.type for field in shape.fields}
            self.names = frozenset({*children, field})
        checks = {key: _check_for(child, known) for key, child in children.items()}
        self.parts = {key: check for key, check in checks.items() if check is not None}
        rest = getattr(shape, "item_type", None) or getattr(shape, "value_type", None)
        self.rest = None if rest is None else _check_for(rest, known)

    @property
    def matters(self) -> bool:
        return bool(self.names is not None or self.parts or self.rest)

    def __call__(self, value: Json) -> None:
        if isinstance(value, dict) and self.reads_objects:
            if self.tag is not None and value.get(self.tag[0], self.tag[1]) != self.tag[1]:
                return
            if self.names is not None and not self.names.issuperset(value):
                refused = Refused("unknown_field")
                refused.inside(value, next(key for key in value if key not in self.names))
                raise refused
            self._look_inside(value, value.items())
        elif isinstance(value, list) and not self.reads_objects:
            self._look_inside(value, enumerate(value))

    def _look_inside(self, container: Json, items: Iterable[tuple[str | int, Json]]) -> None:
        if not self.parts and self.rest is None:
            return
        for key, item in items:
            if check := self.parts.get(key, self.rest):
                try:
                    check(item)
                except Refused as refused:
                    refused.inside(container, key)
                    raise


def _check_for(shape: _Shape, known: dict[int, _ContainerCheck]) -> _Check | None:
    """Return the check of values of *shape*, None if msgspec sees everything there is to see."""
    if isinstance(shape, shapes.DecimalType):
        return _check_decimal
    if isinstance(shape, shapes.UnionType):
        members = [check for member in shape.types if (check := _check_for(member, known))]
        if any(isinstance(member, _NUMBERS) for member in shape.types):
            members = [_check_digits if check is _check_decimal else check for check in members]
        return partial(_check_all, members) if members else None
    check = known.get(id(shape)) or _ContainerCheck(shape, known)
    return check if check.matters else None


def _check_all(checks: list[_Check], value: Json) -> None:
    for check in checks:
        check(value)


def _check_decimal(value: Json) -> None:
    if isinstance(value, int | float):
        raise Refused("wrong_type", f"expected the digits as str, got {type(value).__name__}")
    _check_digits(value)


def _check_digits(value: Json) -> None:
    if isinstance(value, str) and not decimal.Decimal(value).is_finite():
        raise Refused("invalid_value", "expected a finite decimal")
