"""A step's function, read once, and called many times."""

import functools
import inspect
from collections.abc import Callable, Mapping

import attrs

from squidmesh import codec
from squidmesh.annotations import parameter_types, parameters_of
from squidmesh.context import StepContext
from squidmesh.domain.definition import Parameter
from squidmesh.domain.entries import ErrorRecord
from squidmesh.domain.values import Json


class InputProblem(Exception):  # noqa: N818  it never leaves the step executor
    """A value could not be given the type that a parameter asks for."""

    def __init__(self, record: ErrorRecord) -> None:
        super().__init__(record.message)
        self.record = record


@attrs.frozen
class _Argument:
    name: str
    annotation: object
    default: object
    is_context: bool
    positional: bool


@attrs.frozen
class BoundBody:
    """A function and how to call it with plain values."""

    function: Callable[..., object]
    is_async: bool
    parameters: tuple[Parameter, ...]
    arguments: tuple[_Argument, ...]

    def bind(
        self, values: Mapping[str, Json], context: StepContext
    ) -> tuple[list[object], dict[str, object]]:
        """Return positional and keyword arguments, fresh and of the annotated types.

        Raises:
            InputProblem: A value cannot be converted; its record has the code `invalid_input`.
        """
        positional: list[object] = []
        named: dict[str, object] = {}
        for argument in self.arguments:
            if argument.is_context:
                value: object = context
            elif argument.name in values:
                value = _converted(argument, values[argument.name])
            elif argument.positional:
                # Without a name it cannot be left out, or the next value would take its place.
                value = argument.default
            else:
                continue
            if argument.positional:
                positional.append(value)
            else:
                named[argument.name] = value
        return positional, named


def _converted(argument: _Argument, value: Json) -> object:
    try:
        return codec.structure(value, argument.annotation)
    except codec.StructureProblem as problem:
        raise InputProblem(
            ErrorRecord(
                code="invalid_input",
                message=f"The parameter {argument.name!r} does not take the value: {problem}",
                details={"parameter": argument.name},
            )
        ) from None


def bound(function: Callable[..., object]) -> BoundBody:
    """Read a function's parameters and how it wants to be called."""
    types = parameter_types(function)
    parameters = parameters_of(function)
    signature = inspect.signature(function)
    arguments = tuple(
        _Argument(
            name=parameter.name,
            annotation=types.get(parameter.name, inspect.Parameter.empty),
            default=signature.parameters[parameter.name].default,
            is_context=parameter.is_context,
            positional=_is_positional(signature.parameters[parameter.name]),
        )
        for parameter in parameters
    )
    return BoundBody(function, _is_async(function), parameters, arguments)


def _is_positional(parameter: inspect.Parameter) -> bool:
    return parameter.kind is inspect.Parameter.POSITIONAL_ONLY


def _is_async(function: Callable[..., object]) -> bool:
    """Whether a call has to be awaited: the function is async, or something inside of it is.

    A plain wrapper hands on the coroutine of what it wraps; an async one of a plain function is
    async itself.
    """
    inner: object = function
    while inner is not None:
        call = type(inner).__call__ if callable(inner) else None  # an object may be async to call
        if inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(call):
            return True
        if isinstance(inner, functools.partial):
            inner = inner.func
        else:
            inner = getattr(inner, "__wrapped__", None)
    return False
