"""Entries and parts of a state as plain JSON: what the journal and the rows keep, and back.

Everything is read off the fields of the attrs classes, once per class: a new entry or field
needs no line here. Two forms exist. The stored one is terse: what equals its default is left out;
durations are whole microseconds. An entry is a list there, of the name of its type and the values
of its fields in their order, so a class may only grow at its end, by fields with defaults. Null
stands for a default, and for the time of the journal row where the row's time is meant. The shown
form (`full_data`) has every field by its name in the durable protocol, and durations in seconds.
Instants are ISO 8601 in UTC, always with microseconds, so that their texts sort as they do.

Reading is strict: a type, a field or a value that is not known here is a `RecordProblem`.
"""

import enum
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache, partial
from itertools import zip_longest
from types import NoneType, UnionType
from typing import Any, Final, TypeAlias, TypeVar, get_args, get_origin

import attrs

from squidmesh.codec import DecodeProblem, decode, encode
from squidmesh.domain.dispatch import idempotency_key, runnable_key
from squidmesh.domain.entries import (
    AttemptCompleted,
    AttemptId,
    DispatchEntry,
    Entry,
    Issuer,
    ManualStepResolved,
    RunEntry,
    Thread,
)
from squidmesh.domain.values import Json, JsonMapping, JsonObject

FORMAT: Final = 1
"""The format that is written; rows of a newer one were written by a newer release."""

_Record = TypeVar("_Record")

_Given: TypeAlias = Any
"""A field's value, or what becomes one: the tables know its type, mypy does not."""

_Convert: TypeAlias = Callable[[_Given], _Given]

_Plan: TypeAlias = tuple[tuple[str, _Given, _Convert | None], ...]
"""For each field its name, the value that is not written, and how others are."""

_ROWS_TIME: Final = object()
"""In a plan: what is not written is the time of the journal row."""

_MICROSECOND: Final = timedelta(microseconds=1)
_CACHED_INSTANTS: Final = 1024


class RecordProblem(ValueError):  # noqa: N818 - named like the problems of the codec
    """Something stored is not what this release writes; its values are not repeated."""


@lru_cache(_CACHED_INSTANTS)
def instant(moment: datetime) -> str:
    """Write an aware *moment* in UTC, in the one width that sorts as time does.

    The rows and entries of one commit share their instants, which is why they are remembered.
    """
    if moment.tzinfo is None:
        raise ValueError("An instant of record knows its time zone.")
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def moment(text: str) -> datetime:
    """Read what `instant` wrote."""
    try:
        found = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise RecordProblem("an instant is not one") from None
    if found.tzinfo is not UTC:
        raise RecordProblem("an instant is not in UTC")
    return found


def microseconds(duration: timedelta) -> int:
    """Return the length of *duration*, which is a whole number of them."""
    return duration // _MICROSECOND


def duration(length: int) -> timedelta:
    """Read what `microseconds` wrote."""
    if type(length) is not int:
        raise RecordProblem("a duration is not one")
    return timedelta(microseconds=length)


def type_name(kind: type) -> str:
    """Return the name of an entry's class in the journal: ``AttemptClaimed``, attempt_claimed."""
    return re.sub(r"(?<=.)(?=[A-Z])", "_", kind.__name__).lower()


_ENTRIES: Final[Mapping[str, type[Entry]]] = {type_name(kind): kind for kind in get_args(Entry)}
_NAMES: Final[Mapping[type, str]] = {kind: name for name, kind in _ENTRIES.items()}


def name_of(entry: Entry) -> str:
    """Return the type name of *entry*."""
    return _NAMES[type(entry)]


def thread_of(entry: Entry) -> Thread:
    """Say which strand of its run's journal *entry* belongs to."""
    if isinstance(entry, RunEntry):
        return Thread.RUN
    return Thread.DISPATCH if isinstance(entry, DispatchEntry) else Thread.INDEX


def rows_to_text(entries: Iterable[Entry], at: datetime) -> str:
    """Write the entries of one journal row, whose time is *at*."""
    return encode([_listed(entry, at) for entry in entries])


def _listed(entry: Entry, at: datetime) -> list[Json]:
    kind: type = entry.__class__
    name, plan = _entry_plan(kind)
    values: list[Json] = [name if entry.at == at else f"{name}@{instant(entry.at)}"]
    for field, default, convert in plan:
        value = getattr(entry, field)
        if value is None or value == (at if default is _ROWS_TIME else default):
            values.append(None)
        else:
            values.append(value if convert is None else convert(value))
    while values[-1] is None:
        values.pop()
    return values


def text_to_entries(text: str, at: datetime) -> tuple[Entry, ...]:
    """Read what `rows_to_text` wrote for a journal row of *at*, or raise RecordProblem."""
    written = _decoded(text)
    if not isinstance(written, list):
        raise RecordProblem("the entries are not a list")
    return tuple(_entry(values, at) for values in written)


def _entry(values: Json, at: datetime) -> Entry:
    if not (isinstance(values, list) and values and isinstance(values[0], str)):
        raise RecordProblem("an entry is not a list that begins with its type")
    name, _, own_time = values[0].partition("@")
    kind: type | None = _ENTRIES.get(name)
    if kind is None:
        raise RecordProblem("an entry is of no known type")
    read: dict[str, _Given] = {"at": moment(own_time) if own_time else at}
    fields = _entry_fields(kind)
    if len(values) > len(fields) + 1:
        raise RecordProblem(f"{kind.__name__} has a field that is not known")
    for field, value in zip_longest(fields, values[1:]):
        if value is not None:
            read[field.name] = _read_field(kind, field, value)
        elif field.default is attrs.NOTHING:
            if not (field.may_be_none or field.is_instant):
                raise RecordProblem(f"{kind.__name__}.{field.name} is missing")
            read[field.name] = None if field.may_be_none else at
    entry: Entry = kind(**read)
    return entry


def full_data(entry: Entry, run_id: str) -> JsonObject:
    """Return all that *entry* says itself, for showing, with the identity that its row states once.

    `squidmesh.showing` adds what the entries around it say.
    """
    kind: type = entry.__class__
    shown: JsonObject = {"run_id": run_id}
    if isinstance(entry, DispatchEntry):
        attempt = AttemptId(entry.step, entry.number, entry.visit)
        shown["runnable_key"] = runnable_key(run_id, attempt)
        shown["idempotency_key"] = idempotency_key(run_id, entry.step, entry.visit)
    for name, field, convert in _shown_plan(kind):
        value = getattr(entry, field)
        told: _Given = value if convert is None or value is None else convert(value)
        if isinstance(value, Issuer):
            shown |= told
        else:
            shown[name] = told
    return shown


_SHOWN_NAMES: Final = {
    "number": "attempt_number",
    "token_hash": "claim_token_hash",
    "owner": "owner_id",
}
_WITH_RESULT: Final = (AttemptCompleted, ManualStepResolved)
"""The entries whose output is what came of a step; elsewhere the word means the key for it."""


def record_to_text(record: object) -> str:
    """Write an attrs instance of the state, such as an ErrorRecord or a whole RunState."""
    return encode(_store(record))


def text_to_record(kind: type[_Record], text: str) -> _Record:
    """Read an instance of *kind* that `record_to_text` wrote, or raise RecordProblem."""
    record: _Record = _read_record(kind, _decoded(text))
    return record


def _decoded(text: str) -> Json:
    try:
        return decode(text)
    except DecodeProblem:
        raise RecordProblem("what is stored is not JSON") from None


@attrs.frozen
class _Form:
    """How values of one annotation are read, stored and shown; None for what stays as it is."""

    read: _Convert
    store: _Convert | None = None
    show: _Convert | None = None


@attrs.frozen(kw_only=True)
class _Field:
    """A field of a class; *default* is NOTHING if it has none."""

    name: str
    form: _Form
    default: _Given
    may_be_none: bool

    @property
    def is_instant(self) -> bool:
        """Whether it always has an instant."""
        return self.default is attrs.NOTHING and self.form.read is moment and not self.may_be_none


def _store(record: _Given) -> JsonObject:
    return _stored({}, record, _plan(record.__class__))


def _stored(data: JsonObject, record: object, plan: _Plan) -> JsonObject:
    """Add to *data* what the terse form keeps of *record*."""
    for name, skip, convert in plan:
        value = getattr(record, name)
        if value is None:
            if skip is not None:
                data[name] = None
        elif value != skip:
            data[name] = value if convert is None else convert(value)
    return data


def _shown(record: _Given) -> JsonObject:
    return {
        field.name: _apply(field.form.show, getattr(record, field.name))
        for field in _fields(record.__class__)
    }


def _apply(convert: _Convert | None, value: _Given) -> Json:
    shown: Json = value if convert is None or value is None else convert(value)
    return shown


def _read_record(kind: type, data: Json | JsonMapping) -> _Given:
    """Make a *kind* of the terse form; what is not there has its default, or is None."""
    if not isinstance(data, Mapping):
        raise RecordProblem(f"{kind.__name__} is not an object")
    values: dict[str, _Given] = {}
    known = 0
    for field in _fields(kind):
        if field.name in data:
            known += 1
            values[field.name] = _read_field(kind, field, data[field.name])
        elif field.default is attrs.NOTHING:
            if not field.may_be_none:
                raise RecordProblem(f"{kind.__name__}.{field.name} is missing")
            values[field.name] = None
    if known != len(data):
        raise RecordProblem(f"{kind.__name__} has a field that is not known")
    return kind(**values)


def _read_field(kind: type, field: _Field, value: Json) -> _Given:
    try:
        return None if value is None and field.may_be_none else field.form.read(value)
    except RecordProblem as problem:
        raise RecordProblem(f"{kind.__name__}.{field.name}: {problem}") from None


@cache
def _fields(kind: type) -> tuple[_Field, ...]:
    return tuple(_field(field) for field in attrs.fields(kind))


@cache
def _plan(kind: type) -> _Plan:
    """What the hot loop needs; without a default, None is what is left out."""
    return tuple(
        (field.name, None if field.default is attrs.NOTHING else field.default, field.form.store)
        for field in _fields(kind)
    )


@cache
def _entry_fields(kind: type) -> tuple[_Field, ...]:
    """Every field but the time, in order."""
    return tuple(field for field in _fields(kind) if field.name != "at")


@cache
def _shown_plan(kind: type) -> tuple[tuple[str, str, _Convert | None], ...]:
    """For each field the name under which it is shown, its own, and how."""
    names = _SHOWN_NAMES | ({"output": "result"} if kind in _WITH_RESULT else {})
    return tuple(
        (names.get(field.name, field.name), field.name, field.form.show) for field in _fields(kind)
    )


@cache
def _entry_plan(kind: type) -> tuple[str, _Plan]:
    """The type's name, and how to write every field but the time."""
    plan = tuple(
        (
            field.name,
            _ROWS_TIME if field.is_instant else steps[1],
            field.form.store,
        )
        for field, steps in zip(_entry_fields(kind), _plan(kind)[1:], strict=True)
    )
    return _NAMES[kind], plan


def _field(field: "attrs.Attribute[_Given]") -> _Field:
    default = field.default
    return _Field(
        name=field.name,
        form=_form(field.type),
        default=getattr(default, "factory", lambda: default)(),
        may_be_none=NoneType in get_args(field.type),
    )


def _form(annotation: _Given) -> _Form:
    """Return the form of an annotation; there are no more kinds of them than these."""
    if annotation == Json:
        return _Form(lambda value: value)
    origin: _Given = get_origin(annotation)
    arguments = get_args(annotation)
    if origin is UnionType:
        (inner,) = (argument for argument in arguments if argument is not NoneType)
        return _form(inner)
    if origin is tuple:
        return _tuple_form(_form(arguments[0]))
    if origin is Mapping:
        return _mapping_form(*(_form(argument) for argument in arguments))
    return _plain_form(annotation)


def _plain_form(kind: type) -> _Form:
    if issubclass(kind, datetime):
        return _Form(moment, instant, instant)
    if issubclass(kind, timedelta):
        return _Form(duration, microseconds, timedelta.total_seconds)
    if issubclass(kind, enum.Enum):
        return _Form(partial(_member, kind), _value_of, _value_of)
    if attrs.has(kind):
        return _Form(partial(_read_record, kind), _store, _shown)
    return _Form(partial(_exactly, kind))


def _exactly(kind: type, value: Json) -> Json:
    if type(value) is not kind:
        raise RecordProblem(f"not a {kind.__name__}")
    return value


def _value_of(member: enum.Enum) -> Json:
    value: Json = member.value
    return value


def _member(kind: type[enum.Enum], value: Json) -> enum.Enum:
    try:
        return kind(value)
    except ValueError:
        raise RecordProblem(f"no {kind.__name__}") from None


def _tuple_form(item: _Form) -> _Form:
    def read(values: Json) -> tuple[_Given, ...]:
        if not isinstance(values, list):
            raise RecordProblem("not a list")
        return tuple([item.read(value) for value in values])

    return _Form(
        read,
        lambda values: [_apply(item.store, value) for value in values],
        lambda values: [_apply(item.show, value) for value in values],
    )


def _mapping_form(key: _Form, item: _Form) -> _Form:
    def read(values: Json) -> dict[_Given, _Given]:
        if not isinstance(values, dict):
            raise RecordProblem("not an object")
        return {key.read(name): item.read(value) for name, value in values.items()}

    def written(convert: _Convert | None) -> _Convert:
        if key.store is None and convert is None:
            return dict
        return lambda values: {
            _apply(key.store, name): _apply(convert, value) for name, value in values.items()
        }

    return _Form(read, written(item.store), written(item.show))
