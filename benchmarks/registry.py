"""Who takes part. A contender's module is imported only in the process that runs it.

Another store or a peer is one more line here. What it needs to be installed may live in an
environment of its own: peers get one made, and ``--python NAME=INTERPRETER`` runs any contender
where it is told.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Final, cast

import attrs

from benchmarks.contender import Contender

EVERYWHERE: Final = ("sequential", "concurrent", "long", "fanout", "start")
ON_SERVERS: Final = (*EVERYWHERE, "backlog", "scheduled")
FLOORS: Final = {"sqlite": "floor-sqlite", "postgres": "floor-postgres"}


@attrs.frozen
class Entrant:
    """A contender's name, where it is made, which database it uses, and what it can do.

    One with a *peer* runs in the environment of that name. *beside* says which floor it is
    compared with.
    """

    name: str
    maker: str
    beside: str = "sqlite"
    workloads: tuple[str, ...] = EVERYWHERE
    peer: str | None = None

    @property
    def is_floor(self) -> bool:
        """Whether it is what the others stand on."""
        return self.name == self.floor

    @property
    def floor(self) -> str:
        """The contender that shows what is possible on the same database."""
        return FLOORS[self.beside]

    @property
    def on_server(self) -> bool:
        """Whether it needs a PostgreSQL server."""
        return self.beside == "postgres"


def _peer(name: str, maker: str, workloads: tuple[str, ...]) -> Entrant:
    place = f"benchmarks.peers.{maker}"
    return Entrant(name, place, "postgres", workloads, maker.partition(":")[0])


ENTRANTS: Final = (
    Entrant("floor-sqlite", "benchmarks.bare_loop:BareLoop"),
    Entrant("memory", "benchmarks.over_mesh:OverMesh.on_memory"),
    Entrant("sqlite", "benchmarks.over_mesh:OverMesh.on_sqlite"),
    Entrant("floor-postgres", "benchmarks.postgres.floor:BareServer", "postgres", ON_SERVERS),
    Entrant(
        "postgres",
        "benchmarks.postgres.mesh:OverPostgres.at",
        "postgres",
        (*ON_SERVERS, "processes"),
    ),
    _peer(
        "dbos", "dbos:OverDBOS.in_tasks", ("sequential", "concurrent", "long", "fanout", "backlog")
    ),
    _peer("dbos-threads", "dbos:OverDBOS.in_threads", ("sequential", "concurrent", "long")),
    _peer(
        "dbos-queue",
        "dbos:OverDBOS.through_a_queue",
        ("sequential", "concurrent", "start", "backlog", "scheduled"),
    ),
    _peer("absurd", "absurd:OverAbsurd", ON_SERVERS),
    _peer(
        "langgraph",
        "langgraph:OverLangGraph",
        ("sequential", "concurrent", "long", "fanout", "backlog"),
    ),
    _peer(
        "procrastinate",
        "procrastinate:OverProcrastinate",
        ("sequential", "concurrent", "long", "start", "backlog", "scheduled"),
    ),
    _peer(
        "pgqueuer",
        "pgqueuer:OverPgQueuer",
        ("sequential", "concurrent", "long", "start", "backlog", "scheduled"),
    ),
)

BY_NAME: Final = {entrant.name: entrant for entrant in ENTRANTS}
STORES: Final = tuple(
    entrant.name for entrant in ENTRANTS if entrant.peer is None and not entrant.is_floor
)
PEERS: Final = tuple(dict.fromkeys(entrant.peer for entrant in ENTRANTS if entrant.peer))


def make(name: str, url: str | None = None) -> Contender:
    """Import what a contender is made of, and make it; *url* is a database on a server."""
    entrant = BY_NAME[name]
    module, _, path = entrant.maker.partition(":")
    found: object = import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    if entrant.on_server:
        return cast("Callable[[str | None], Contender]", found)(url)
    return cast("Callable[[], Contender]", found)()
