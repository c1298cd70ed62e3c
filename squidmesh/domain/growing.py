"""A mapping that grows by a key at a time without copying all that it holds.

A run's steps and its context are maps that every entry replaces. Copied whole, they would make a
step of a long run dearer than one of a short run. So a map that has grown is kept in two parts: an
old one, which its versions share and nobody changes, and a small new one, which each version has
for itself and which is merged into the old one when it is full.
"""

from collections.abc import Iterator, Mapping
from typing import Final, TypeVar, overload

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")

SMALL: Final = 64
"""Up to how many keys a plain dictionary is copied faster."""

MOST_NEW: Final = 48


class Grown(Mapping[K, V]):
    """A mapping in two parts; it equals the plain dictionary of the same items.

    Iteration goes through the old part and then through what is new in the new one, so that keys
    keep the order in which they were first put.
    """

    __slots__ = ("_new", "_old", "_size")

    def __init__(self, old: dict[K, V], new: dict[K, V], size: int) -> None:
        self._old, self._new, self._size = old, new, size

    def __getitem__(self, key: K) -> V:
        return self._new[key] if key in self._new else self._old[key]

    @overload
    def get(self, key: K, default: None = None, /) -> V | None: ...

    @overload
    def get(self, key: K, default: V | D, /) -> V | D: ...

    def get(self, key: K, default: V | D | None = None, /) -> V | D | None:
        """Return the value of *key*, or *default*; without the detour over an exception."""
        return self._new[key] if key in self._new else self._old.get(key, default)

    def __contains__(self, key: object) -> bool:
        return key in self._new or key in self._old

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[K]:
        yield from self._old
        yield from (key for key in self._new if key not in self._old)

    def __reversed__(self) -> Iterator[K]:
        yield from (key for key in reversed(self._new) if key not in self._old)
        yield from reversed(self._old)

    def __repr__(self) -> str:
        return repr(dict(self))

    def put(self, key: K, value: V) -> "Grown[K, V]":
        """Return the mapping with *value* under *key*."""
        size = self._size + (key not in self)
        if len(self._new) < MOST_NEW:
            return Grown(self._old, {**self._new, key: value}, size)
        return Grown({**self._old, **self._new, key: value}, {}, size)


def put(known: Mapping[K, V], key: K, value: V) -> Mapping[K, V]:
    """Return *known* with *value* under *key*; *known* itself stays as it is."""
    if type(known) is Grown:  # isinstance asks the ABC, which takes longer than all of this
        return known.put(key, value)
    if len(known) < SMALL:
        return {**known, key: value}
    return Grown(dict(known), {key: value}, len(known) + (key not in known))
