"""Functions as bodies: the key that data knows one by, and what its signature tells."""

import functools
import inspect
import sys
from pathlib import Path
from typing import Any, TypeAlias

import attrs
from returns.result import Failure, Result, Success

from squidmesh.annotations import merges_of, parameters_of
from squidmesh.domain.definition import Body
from squidmesh.workflow.declarations import Function

_Callable: TypeAlias = Any
"""A function, a method, a partial, an object that is callable."""


@attrs.frozen
class FunctionReading:
    """A function, and what a step that runs it needs to know about it."""

    function: Function
    body: Body
    merges: tuple[str, ...] | None


def read_function(function: object, key: str | None = None) -> Result[FunctionReading, str]:
    """What *function* tells about itself, or why it cannot be a body."""
    if not callable(function):
        return Failure(f"must be a function, not a {type(function).__name__}")
    inner = _inmost(function)
    if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        return Failure("must return its result: a generator yields many")
    try:
        parameters, merges = parameters_of(function), merges_of(function)
    except (TypeError, ValueError) as error:
        return Failure(f"does not tell which parameters it takes: {error}")
    body = Body(key=key or key_of(function), parameters=parameters)
    return Success(FunctionReading(function, body, merges))


def key_of(function: object) -> str:
    """Where *function* can be found: its module and its qualified name."""
    inner = _inmost(function)
    place = inner if hasattr(inner, "__qualname__") else type(inner)
    return f"{_module_of(place)}:{place.__qualname__}"


def _module_of(place: _Callable) -> str:
    """The name by which other processes import the module, also where it is the program itself."""
    name: str = place.__module__
    if name != "__main__":
        return name
    program = sys.modules[name]
    spec = getattr(program, "__spec__", None)
    if spec is not None:
        return str(spec.name)
    path = getattr(program, "__file__", None)
    return name if path is None else Path(path).stem


def is_named_by(key: str, function: object) -> bool:
    """Whether *key* can mean no other function than this one.

    A key of the author's own says what it means. One that was made from a function's place does so
    for a plain function of a module or class: what stands inside of another function, a lambda, a
    partial and a method of an object share their place with whatever else was made there.
    """
    if key != key_of(function):
        return True
    return inspect.isfunction(function) and "<" not in function.__qualname__


def _inmost(function: _Callable) -> _Callable:
    while isinstance(function, functools.partial):
        function = function.func
    return function
