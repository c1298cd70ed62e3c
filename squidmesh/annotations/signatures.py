"""Step bodies as data: which parameters a function takes, and which keys it leaves behind."""

import enum
import functools
import inspect
import re
import types
import typing
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Final, TypeAlias
from uuid import UUID

import attrs

from squidmesh.annotations.fields import Annotation, bare_of, fields_of, is_record
from squidmesh.context import StepContext
from squidmesh.domain.definition import Parameter
from squidmesh.outcomes import Deferred, Errored

Function: TypeAlias = Callable[..., object]

_Callable: TypeAlias = Any
"""Something that can be called: a function, a method, a partial, an object with ``__call__``."""

_NO_ANNOTATION: Final = inspect.Parameter.empty
_CONTEXT: Final = re.compile(r"([\w.]+\.)?StepContext( *\| *None)?")
_NEVER_MERGED: Final = (
    type(None), str, bytes, int, float, list, tuple, set, frozenset,
    date, timedelta, Decimal, UUID, enum.Enum,
)  # fmt: skip
"""What is no mapping, so that a body which returns it needs an output key."""

_UNNAMED: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@attrs.frozen
class _Signature:
    """A signature whose annotations are types; those that cannot be resolved are left out."""

    parameters: tuple[inspect.Parameter, ...]
    hints: Mapping[str, Annotation]


def parameters_of(function: Function) -> tuple[Parameter, ...]:
    """The parameters that *function* is given values for, in their order.

    Raises:
        ValueError, TypeError: the function does not tell its signature.

    """
    signature = _signature_of(function)
    return tuple(
        Parameter(
            one.name,
            required=one.default is _NO_ANNOTATION,
            is_context=_is_context(one.name, signature.hints.get(one.name, _NO_ANNOTATION)),
        )
        for one in signature.parameters
    )


def parameter_types(function: Function) -> Mapping[str, Annotation]:
    """The annotations of the parameters that have one which can be resolved.

    Raises:
        ValueError, TypeError: the function does not tell its signature.

    """
    signature = _signature_of(function)
    names = [one.name for one in signature.parameters]
    return {name: signature.hints[name] for name in names if name in signature.hints}


def merges_of(function: Function) -> tuple[str, ...] | None:
    """The keys that a mapping returned by *function* is known to have; None if it may have any.

    What says how a step ended, and not what it leaves, has no keys: None, `Errored`, `Deferred`.

    Raises:
        ValueError, TypeError: the function does not tell its signature.

    """
    returned = _signature_of(function).hints.get("return", _NO_ANNOTATION)
    origin: object = typing.get_origin(returned)
    if origin in (Awaitable, Coroutine):  # a plain function that hands one on
        returned = typing.get_args(returned)[-1]
    return _keys_of(returned)


def _keys_of(annotation: Annotation) -> tuple[str, ...] | None:
    bare = bare_of(annotation)
    if bare is None or bare in (typing.Never, typing.NoReturn):
        return ()
    origin: object = typing.get_origin(bare)
    if origin in (typing.Union, types.UnionType):
        return _keys_of_all([_keys_of(part) for part in typing.get_args(bare)])
    kind = bare if origin is None else origin
    if not isinstance(kind, type):
        return None
    if issubclass(kind, (Errored, Deferred, *_NEVER_MERGED)):
        return ()
    if not is_record(kind):
        return None
    try:
        return tuple(field.name for field in fields_of(kind))
    except Exception:  # noqa: BLE001  annotations are anybody's code, and these are not needed
        return None


def _keys_of_all(several: list[tuple[str, ...] | None]) -> tuple[str, ...] | None:
    keys: dict[str, None] = {}
    for some in several:
        if some is None:
            return None
        keys |= dict.fromkeys(some)
    return tuple(keys)


def _is_context(name: str, annotation: Annotation) -> bool:
    if annotation is _NO_ANNOTATION:
        return name == "context"
    parts = typing.get_args(annotation) or (annotation,)
    return any(isinstance(part, type) and issubclass(part, StepContext) for part in parts)


def _signature_of(function: Function) -> _Signature:
    signature = inspect.signature(function)
    parameters = tuple(one for one in signature.parameters.values() if one.kind not in _UNNAMED)
    written = {one.name: one.annotation for one in parameters}
    written["return"] = signature.return_annotation
    names = _globals_of(function)
    hints = {
        name: _resolved(annotation, names)
        for name, annotation in written.items()
        if annotation is not _NO_ANNOTATION
    }
    return _Signature(
        parameters, {name: hint for name, hint in hints.items() if hint is not _NO_ANNOTATION}
    )


def _resolved(annotation: Annotation, names: Mapping[str, Any]) -> Annotation:
    """The type that *annotation* is or names; none at all if it names what is not known here."""
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        return typing.get_type_hints(holder, globalns=dict(names), include_extras=True)["it"]
    except Exception:  # noqa: BLE001  annotations are anybody's code
        # Often it is imported for type checkers alone; the context is known by its name.
        is_context = isinstance(annotation, str) and _CONTEXT.fullmatch(annotation)
        return StepContext if is_context else _NO_ANNOTATION


def _globals_of(function: _Callable) -> Mapping[str, Any]:
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    for one in (function, type(function).__call__):  # a function, else an object that is callable
        if isinstance(found := getattr(one, "__globals__", None), dict):
            return found
    return {}
