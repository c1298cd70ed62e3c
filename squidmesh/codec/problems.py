"""What the codec says when a value does not pass, and where in the value that was."""

import re
from collections.abc import Iterable


class DecodeProblem(ValueError):  # noqa: N818 - named like the problems of a definition
    """Text that is not JSON; it says where, and repeats nothing of it."""


class StructureProblem(ValueError):  # noqa: N818 - named like the problems of a definition
    """A plain value does not fit an annotation, or the annotation is one that nothing fits.

    *reason* is one of wrong_type, missing_field, unknown_field, invalid_value and
    unsupported_type; *detail* says what was expected. Neither repeats the value.
    """

    def __init__(self, path: str, reason: str, detail: str = "") -> None:
        super().__init__(path, reason, detail)
        self.path = path
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}{f' ({self.detail})' if self.detail else ''}"


class Refused(Exception):  # noqa: N818 - it steers inside the codec, and never leaves it
    """Something is refused; on its way up, every container adds where it was inside it.

    That way the path costs nothing as long as nothing is wrong. *kind* names a Python type.
    """

    def __init__(self, reason: str, kind: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.kind = kind
        self._trail: list[tuple[object, int]] = []

    def inside(self, container: object, segment: object = None) -> None:
        """Note that it was at *segment* of *container*; no segment means the container itself."""
        self._trail.append((segment, id(container)))

    @property
    def path(self) -> str:
        """Where it was, seen from the whole value."""
        return path_of(segment for segment, _ in reversed(self._trail))

    @property
    def path_to_itself(self) -> str | None:
        """Where a container stands inside itself, None if none does."""
        seen: set[int] = set()
        way: list[object] = []
        for segment, container in reversed(self._trail):
            if container in seen:
                return path_of(way)
            seen.add(container)
            way.append(segment)
        return None


def path_of(segments: Iterable[object]) -> str:
    """Write a place: ``$.a[3].b``, with odd keys quoted, in plain ASCII and not endlessly long."""
    return "$" + "".join(segment_of(segment) for segment in segments)


def segment_of(segment: object) -> str:
    """Write one step of a path; what is neither key nor index has no place of its own."""
    if isinstance(segment, int):
        return f"[{segment}]"
    if not isinstance(segment, str):
        return ""
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]{0,59}", segment):
        return f".{segment}"
    return f"[{str.__str__(segment)[:60]!a}]"
