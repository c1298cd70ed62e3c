"""A fast `attrs.evolve` for the states of a run."""

from typing import TYPE_CHECKING, TypeVar

__all__ = ["amend", "replace"]

if TYPE_CHECKING:
    from attrs import evolve as amend
    from attrs import evolve as replace
else:
    S = TypeVar("S")

    def replace(state: S, /, **changes: object) -> S:
        """Give a copy of *state* with *changes*, several times as fast as `attrs.evolve`.

        A step costs a dozen new states, and evolve would be most of what the core spends on it.
        The states have no validators and keep a ``__dict__`` instead of slots, so copying that is
        all there is to do. To a type checker this is `attrs.evolve` itself.
        """
        changed = object.__new__(type(state))
        fields = changed.__dict__
        fields.update(state.__dict__)
        fields.update(changes)
        return changed

    def amend(fresh: S, /, **changes: object) -> S:
        """Change *fresh* itself, which nobody but its maker has seen yet, and give it back."""
        fresh.__dict__.update(changes)
        return fresh
