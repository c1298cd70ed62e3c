"""Reading what a class body said: values of the right type are taken, others are noted.

Whatever is wrong is replaced by a harmless stand-in, as in `domain.reading`, so that the rest of
the class can be judged in the same breath.
"""

import enum
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final, TypeAlias, TypeGuard, TypeVar

import attrs

from squidmesh.domain.definition import ONCE, Problem, RetryPolicy

Path: TypeAlias = tuple[str | int, ...]

_T = TypeVar("_T")
_Choice = TypeVar("_Choice", bound=enum.Enum)

_RETRY: Final = "invalid_retry"


@attrs.frozen
class Options:
    """The options of one declaration, at *path*; *problems* is the list that everybody adds to."""

    given: Mapping[str, object]
    path: Path
    problems: list[Problem]

    def note(self, option: str, code: str, message: str) -> None:
        """Add a problem about *option*, or about the declaration itself."""
        path = (*self.path, option) if option else self.path
        self.problems.append(Problem(path, code, message))

    def maybe(self, option: str, kind: type[_T], code: str) -> _T | None:
        """The value of *option* if it is a *kind*; None if there is none or it is another."""
        value = self.given.get(option)
        if value is None or is_a(value, kind):
            return value
        self.note(option, code, f"must be a {kind.__name__}, not a {type(value).__name__}")
        return None

    def value(self, option: str, stand_in: _T, code: str) -> _T:
        """The value of *option* if it is of the same kind as *stand_in*, which it replaces."""
        if self.given.get(option) is None:
            self.note(option, code, f"must be a {type(stand_in).__name__}, not None")
        found = self.maybe(option, type(stand_in), code)
        return stand_in if found is None else found

    def choice(self, option: str, among: type[_Choice], code: str) -> _Choice | None:
        """The member of *among* that *option* is, or is the value of; None if there is none."""
        value = self.given.get(option)
        for member in among:
            if value is member or (isinstance(value, str) and value == member.value):
                return member
        if value is not None:
            allowed = ", ".join(repr(member.value) for member in among)
            self.note(option, code, f"must be one of {allowed}")
        return None

    def way(self, option: str, value: object, code: str) -> tuple[str, ...]:
        """The path to a value that *value* writes, with dots or as several keys.

        What is no path becomes the empty one, to which the rules object at the same place.
        """
        keys = value.split(".") if isinstance(value, str) else value
        if isinstance(keys, Sequence) and keys and all(isinstance(key, str) for key in keys):
            return tuple(keys)
        self.note(option, code, "must be a path: keys in a list, or text with dots between them")
        return ()

    def retry(self, option: str, default: RetryPolicy) -> RetryPolicy:
        """The policy of *option*, if all that it holds is of the right type."""
        retry = self.maybe(option, RetryPolicy, _RETRY)
        if retry is None:
            return default
        fields = Options(
            {
                "max_attempts": retry.max_attempts,
                "backoff_min": retry.backoff_min,
                "backoff_max": retry.backoff_max,
                "jitter": float(retry.jitter) if is_a(retry.jitter, int) else retry.jitter,
            },
            (*self.path, option),
            self.problems,
        )
        return RetryPolicy(
            max_attempts=fields.value("max_attempts", ONCE.max_attempts, _RETRY),
            backoff_min=fields.value("backoff_min", ONCE.backoff_min, _RETRY),
            backoff_max=fields.maybe("backoff_max", timedelta, _RETRY),
            jitter=fields.value("jitter", ONCE.jitter, _RETRY),
        )


def is_a(value: object, kind: type[_T]) -> TypeGuard[_T]:
    """Whether *value* is a *kind*; True is an int to Python, and to nobody who asks for one."""
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
