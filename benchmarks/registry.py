"""Who takes part. A contender's module is imported only in the process that runs it.

Another store or a peer is one more line here. What it needs to be installed may live in an
environment of its own: ``--python NAME=INTERPRETER`` runs that contender there.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Final, cast

import attrs

from benchmarks.contender import Contender


@attrs.frozen
class Entrant:
    """A contender's name, where it is made, and whether it is the floor that others stand on."""

    name: str
    maker: str
    is_floor: bool = False


ENTRANTS: Final = (
    Entrant("floor-sqlite", "benchmarks.bare_loop:BareLoop", is_floor=True),
    Entrant("memory", "benchmarks.over_mesh:OverMesh.on_memory"),
    Entrant("sqlite", "benchmarks.over_mesh:OverMesh.on_sqlite"),
)

BY_NAME: Final = {entrant.name: entrant for entrant in ENTRANTS}


def make(name: str) -> Contender:
    """Import what a contender is made of, and make it."""
    module, _, path = BY_NAME[name].maker.partition(":")
    found: object = import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return cast("Callable[[], Contender]", found)()
