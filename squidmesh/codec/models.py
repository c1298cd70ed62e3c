"""pydantic models, which are understood when a class of the user has brought pydantic along."""

import sys
from functools import lru_cache
from typing import Any, Final, TypeAlias

from squidmesh.codec.problems import Refused, StructureProblem, path_of
from squidmesh.codec.text import encode
from squidmesh.domain.values import Json

_Model: TypeAlias = Any
"""An instance of a class that this library does not know."""

_CACHED_MODELS: Final = 1024
_REASONS: Final = {
    "missing": "missing_field",
    "extra_forbidden": "unknown_field",
    "unexpected_keyword_argument": "unknown_field",
}


def is_model(kind: object) -> bool:
    """Say whether *kind* is a pydantic model, or one of pydantic's dataclasses."""
    return isinstance(kind, type) and hasattr(kind, "__pydantic_validator__")


def flatten_model(model: _Model) -> object:
    """Return what *model* holds, as Python values under the names that it is read by."""
    try:
        flat: object = model.model_dump(by_alias=True)
    except ValueError:  # it holds itself, or a serializer of its own gave up
        raise Refused("unsupported_type", type(model).__qualname__) from None
    return flat


def structure_model(kind: type, value: Json) -> object:
    """Return *value* as an instance of the model *kind*, as strictly as pydantic reads JSON."""
    adapter, options = _adapter(kind)
    try:
        return adapter.validate_json(encode(value), strict=True, **options)
    except sys.modules["pydantic"].ValidationError as error:
        # The first is enough: each of them repeats the value unless it is asked not to.
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    code = first["type"]
    reason = _REASONS.get(code, "wrong_type" if code.endswith("_type") else "invalid_value")
    raise StructureProblem(path_of(first["loc"]), reason, code)


@lru_cache(_CACHED_MODELS)
def _adapter(kind: type) -> tuple[Any, dict[str, str]]:
    """Return what reads *kind*, closed to unknown keys unless a model in it speaks of them."""
    adapter = sys.modules["pydantic"].TypeAdapter(kind)
    return adapter, {} if _speaks_of_extras(adapter.core_schema) else {"extra": "forbid"}


def _speaks_of_extras(schema: object) -> bool:
    if isinstance(schema, dict):
        named = not schema.keys().isdisjoint({"extra_behavior", "extra_fields_behavior"})
        return named or any(_speaks_of_extras(part) for part in schema.values())
    return isinstance(schema, list | tuple) and any(_speaks_of_extras(part) for part in schema)
