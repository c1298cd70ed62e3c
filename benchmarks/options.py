"""What can be asked of ``python -m benchmarks``."""

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from benchmarks.figures import FIGURES
from benchmarks.registry import BY_NAME, ENTRANTS, PEERS, STORES

_ROOT: Final = Path(__file__).parent.parent
_USUALLY: Final = "memory,sqlite"


@attrs.frozen(kw_only=True)
class Asked:
    """What is to be run."""

    workloads: Sequence[str]
    contenders: Sequence[str]
    repeats: int
    quick: bool
    long: bool
    folder: str | None
    postgres_url: str | None
    environments: Path
    interpreters: Mapping[str, str]

    def sizes(self, workload: str) -> str:
        """The name of the sizes that a workload is run in."""
        if self.long and workload in ("long", "backlog", "scheduled"):
            return "long"
        return "quick" if self.quick else "full"

    def turns(self) -> Iterator[tuple[int, str, str]]:
        """Every repeat, workload and contender: contenders in turns, so that all share a mood."""
        for repeat in range(self.repeats):
            for workload in self.workloads:
                for contender in self.contenders:
                    yield repeat, workload, contender

    @property
    def needs_server(self) -> bool:
        """Whether anybody works on a PostgreSQL server."""
        return any(BY_NAME[name].on_server for name in self.contenders)

    @property
    def peers(self) -> Sequence[str]:
        """The peers that need an environment made for them."""
        found = (BY_NAME[name].peer for name in self.contenders if name not in self.interpreters)
        return list(dict.fromkeys(peer for peer in found if peer is not None))


def parser(usage: str | None) -> argparse.ArgumentParser:
    """What the command line understands."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=usage)
    parser.add_argument("--quick", action="store_true", help="little of everything, once")
    parser.add_argument("--only", metavar="NAME", help=f"only these of: {', '.join(FIGURES)}")
    parser.add_argument(
        "--stores",
        metavar="NAMES",
        default=_USUALLY,
        help=f"these of: {', '.join(STORES)}, or all, or none; default: {_USUALLY};"
        " the floor of each database runs beside them",
    )
    parser.add_argument(
        "--peers",
        metavar="NAMES",
        default="none",
        help=f"libraries to be measured beside it on PostgreSQL, each installed in an environment"
        f" of its own: these of: {', '.join(PEERS)}, or all; default: none",
    )
    parser.add_argument("--repeats", type=int, help="how often each is run; default: 3, quick: 1")
    parser.add_argument(
        "--long",
        action="store_true",
        help="the long run has 10,000 steps, the backlog a million runs",
    )
    parser.add_argument("--json", metavar="FILE", help="write all figures of all repeats to FILE")
    parser.add_argument(
        "--into", metavar="PAGE", help="put the tables into a page that has a place"
    )
    parser.add_argument("--folder", help="where databases are put; must be on a real disk")
    parser.add_argument(
        "--postgres-url",
        metavar="URL",
        help="a server where databases may be made and dropped; default: one of its own",
    )
    parser.add_argument(
        "--environments",
        metavar="FOLDER",
        default=str(_ROOT / ".bench"),
        help="where the peers' environments are, or are made; default: .bench",
    )
    parser.add_argument(
        "--python",
        metavar="NAME=INTERPRETER",
        action="append",
        default=[],
        help="run a contender in an environment of your own",
    )
    return parser


def asked(options: argparse.Namespace) -> Asked:
    """What the command line asks for.

    Raises:
        SystemExit: It asks for something that is not there.
    """
    stores = _names("stores", options.stores, STORES)
    peers = _names("peers", options.peers, PEERS)
    chosen = [
        entrant.name for entrant in ENTRANTS if entrant.name in stores or entrant.peer in peers
    ]
    floors = {BY_NAME[name].floor for name in chosen}
    return Asked(
        workloads=_names("only", options.only, FIGURES) if options.only else list(FIGURES),
        contenders=[
            entrant.name for entrant in ENTRANTS if entrant.name in floors or entrant.name in chosen
        ],
        repeats=options.repeats or (1 if options.quick else 3),
        quick=options.quick,
        long=options.long,
        folder=options.folder,
        postgres_url=options.postgres_url,
        environments=Path(options.environments),
        interpreters=dict(_interpreter(said) for said in options.python),
    )


def _names(option: str, said: str, known: Iterable[str]) -> list[str]:
    if option != "only" and said in ("all", "none"):
        return list(known) if said == "all" else []
    names = [name.strip() for name in said.split(",")]
    for name in names:
        if name not in known:
            raise SystemExit(f"--{option}: {name!r} is none of {', '.join(known)}.")
    return names


def _interpreter(said: str) -> tuple[str, str]:
    name, equals, interpreter = said.partition("=")
    if not equals:
        raise SystemExit(f"--python: {said!r} is not like NAME=INTERPRETER.")
    _names("python", name, BY_NAME)
    return name, interpreter
