"""The fields of a class and their defaults, whichever library made it.

attrs, dataclasses, typing's TypedDict and pydantic each have words of their own for the same few
facts.
"""

import dataclasses
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Final, NotRequired, Required, TypeAlias

import attrs

Annotation: TypeAlias = Any
"""Whatever an author may write behind a colon."""


_Foreign: TypeAlias = Any
"""Something that another library says about its own class."""

_MARKERS: Final = frozenset(
    {Annotated, Final, Required, NotRequired, getattr(typing, "ReadOnly", Annotated)}
)


@attrs.frozen
class Given:
    """A default that is a value."""

    value: object


@attrs.frozen
class Made:
    """A default that a factory makes anew each time."""

    factory: Callable[[], object]


@attrs.frozen
class Dependent:
    """A default that is made from the rest of the object."""


@attrs.frozen
class Omittable:
    """No default: the field may be absent."""


DeclaredDefault: TypeAlias = Given | Made | Dependent | Omittable


@attrs.frozen
class ClassField:
    """A field as its class declares it; without a default it must be given."""

    name: str
    annotation: Annotation
    default: DeclaredDefault | None = None

    @property
    def bare(self) -> Annotation:
        """The annotation without what a class says about the field in it."""
        return bare_of(self.annotation)


def bare_of(annotation: Annotation) -> Annotation:
    """The type itself: without markers and metadata, behind aliases and new names for it."""
    while True:
        if typing.get_origin(annotation) in _MARKERS:
            annotation = typing.get_args(annotation)[0]
        elif isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":  # from Python 3.12 on
            annotation = annotation.__value__
        else:
            return annotation


def is_record(kind: object) -> bool:
    """Whether *kind* is a class whose fields can be read here."""
    return isinstance(kind, type) and (
        attrs.has(kind) or dataclasses.is_dataclass(kind) or is_model(kind) or is_typed_dict(kind)
    )


def is_model(kind: type) -> bool:
    """Whether *kind* is a pydantic model; pydantic itself need not be there to tell."""
    return hasattr(kind, "__pydantic_validator__") and hasattr(kind, "model_fields")


def is_typed_dict(kind: object) -> bool:
    """Whether *kind* is a TypedDict, from typing or from typing_extensions."""
    return isinstance(kind, type) and issubclass(kind, dict) and hasattr(kind, "__required_keys__")


def fields_of(kind: type) -> tuple[ClassField, ...]:
    """The fields of a record class, in declaration order.

    Raises:
        NameError, TypeError, AttributeError: an annotation cannot be evaluated.

    """
    if is_model(kind):
        return tuple(_of_model(kind))
    hints = typing.get_type_hints(kind, include_extras=True)
    if is_typed_dict(kind):
        return tuple(_of_typed_dict(kind, hints))
    return tuple(_of_attrs(kind, hints) if attrs.has(kind) else _of_dataclass(kind, hints))


def _of_attrs(kind: type, hints: Mapping[str, Annotation]) -> Iterator[ClassField]:
    for field in attrs.fields(kind):
        yield ClassField(field.name, hints.get(field.name, Any), _attrs_default(field.default))


def _attrs_default(default: _Foreign) -> DeclaredDefault | None:
    if default is attrs.NOTHING:
        return None
    # To the type checker attrs.Factory is a function; at run time it is the class of such defaults.
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        return Dependent() if default.takes_self else Made(default.factory)
    return Given(default)


def _of_dataclass(kind: type, hints: Mapping[str, Annotation]) -> Iterator[ClassField]:
    for field in dataclasses.fields(kind):
        default: DeclaredDefault | None = None
        if field.default is not dataclasses.MISSING:
            default = Given(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            default = Made(field.default_factory)
        yield ClassField(field.name, hints.get(field.name, Any), default)


def _of_typed_dict(kind: _Foreign, hints: Mapping[str, Annotation]) -> Iterator[ClassField]:
    for name, hint in hints.items():
        required = name in kind.__required_keys__
        # Where annotations are text, the class has not seen its own markers.
        for marker in _markers(hint):
            required = {Required: True, NotRequired: False}.get(marker, required)
        yield ClassField(name, hint, None if required else Omittable())


def _markers(hint: Annotation) -> Iterator[Annotation]:
    while (marker := typing.get_origin(hint)) in _MARKERS:
        yield marker
        hint = typing.get_args(hint)[0]


def _of_model(kind: _Foreign) -> Iterator[ClassField]:
    for name, field in kind.model_fields.items():
        shown = field.serialization_alias or field.alias or name
        yield ClassField(shown, field.annotation, _model_default(field))


def _model_default(field: _Foreign) -> DeclaredDefault | None:
    if field.is_required():
        return None
    if field.default_factory is None:
        return Given(field.default)
    dependent = getattr(field, "default_factory_takes_validated_data", False)
    return Dependent() if dependent else Made(field.default_factory)
