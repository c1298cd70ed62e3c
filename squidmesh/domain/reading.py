"""Reading an object that somebody else wrote: what fits is taken, what does not is noted.

Whatever is wrong is replaced by a harmless stand-in, so that one mistake does not hide the next
and does not make up others.
"""

import enum
import math
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import TypeAlias, TypeVar

import attrs

from squidmesh.domain.definition import Problem
from squidmesh.domain.values import Json

Path: TypeAlias = tuple[str | int, ...]

MALFORMED = "invalid_definition"
"""The code of what is no rule's business: an object that is none, a key that means nothing."""

_Choice = TypeVar("_Choice", bound=enum.Enum)


@attrs.frozen
class Section:
    """One object of the data, at *path*; *problems* is the list that everybody adds to."""

    data: Mapping[str, Json]
    path: Path
    problems: list[Problem]

    @classmethod
    def of(
        cls,
        value: Json,
        path: Path,
        problems: list[Problem],
        *,
        known: Iterable[str],
        code: str = MALFORMED,
    ) -> "Section":
        """The section that *value* is; an empty one, and a problem, if it is no object."""
        section = cls(value if isinstance(value, dict) else {}, path, problems)
        if not isinstance(value, dict):
            section.note("", code, "must be an object")
        for key in sorted(section.data.keys() - set(known)):
            section.note(key, MALFORMED, "means nothing here")
        return section

    def note(self, key: str, code: str, message: str) -> None:
        """Add a problem about *key*, or about the section itself."""
        self.problems.append(Problem((*self.path, key) if key else self.path, code, message))

    def text(self, key: str, code: str, *, stand_in: str | None = None) -> str:
        """The text under *key*, which must be there; *stand_in* must not look wrong later."""
        value = self.data.get(key)
        if isinstance(value, str):
            return value
        self.note(key, code, "must be text")
        return ".".join(str(part) for part in self.path) if stand_in is None else stand_in

    def optional_text(self, key: str, code: str) -> str | None:
        """The text under *key*, or None if there is none."""
        return None if self.data.get(key) is None else self.text(key, code)

    def flag(self, key: str, code: str, *, default: bool) -> bool:
        """True or false, as it stands under *key*."""
        value = self.data.get(key, default)
        if not isinstance(value, bool):
            self.note(key, code, "must be true or false")
            return default
        return value

    def number(self, key: str, code: str, default: float) -> float:
        """The finite number under *key*."""
        value = self.data.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.note(key, code, "must be a number")
            return default
        return value

    def whole(self, key: str, code: str, default: int) -> int:
        """The integer under *key*."""
        value = self.data.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            self.note(key, code, "must be a whole number")
            return default
        return value

    def duration(self, key: str, code: str) -> timedelta | None:
        """The seconds under *key*, or None if there are none."""
        value = self.data.get(key)
        if value is None:
            return None
        found = None if isinstance(value, bool) else _as_duration(value)
        if found is None:
            self.note(key, code, "must be a number of seconds")
        return found

    def choice(self, key: str, code: str, among: type[_Choice]) -> _Choice | None:
        """The member that the text under *key* stands for; None, and a problem, if it is none."""
        value = self.data.get(key)
        for member in among:
            if value == member.value:
                return member
        allowed = ", ".join(str(member.value) for member in among)
        self.note(key, code, f"must be one of {allowed}")
        return None

    def items(self, key: str, code: str = MALFORMED) -> Iterator[tuple[Path, Json]]:
        """The items of the list under *key*, with their paths; a missing list is empty."""
        value = self.data.get(key)
        if isinstance(value, list):
            yield from (((*self.path, key, index), item) for index, item in enumerate(value))
        elif value is not None:
            self.note(key, code, "must be a list")

    def keys(self, key: str, code: str) -> tuple[str, ...] | None:
        """The texts in the list under *key*; None if there is no list."""
        if self.data.get(key) is None:
            return None
        found = [(path, item) for path, item in self.items(key, code)]
        for path, item in found:
            if not isinstance(item, str):
                self.problems.append(Problem(path, code, "must be text"))
        return tuple(item for _, item in found if isinstance(item, str))


def _as_duration(seconds: Json) -> timedelta | None:
    if not isinstance(seconds, int | float) or not math.isfinite(seconds):
        return None
    try:
        return timedelta(seconds=seconds)
    except OverflowError:
        return None
