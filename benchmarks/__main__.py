"""``python -m benchmarks``: every contender, every workload, in turns, and what it comes to."""

import argparse
import json
import os
import platform
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import attrs

from benchmarks.figures import FIGURES
from benchmarks.registry import BY_NAME, ENTRANTS
from benchmarks.report import Report, Result
from benchmarks.sizes import SIZES

_ROOT: Final = Path(__file__).parent.parent
_LONGEST: Final = 1800
_BEGIN: Final = "<!-- figures: python -m benchmarks --into this page -->"
_END: Final = "<!-- end of figures -->"


@attrs.frozen(kw_only=True)
class Asked:
    """What is to be run."""

    workloads: Sequence[str]
    contenders: Sequence[str]
    repeats: int
    quick: bool
    long: bool
    folder: str | None
    interpreters: Mapping[str, str]

    def sizes(self, workload: str) -> str:
        """The name of the sizes that a workload is run in."""
        if self.long and workload == "long":
            return "long"
        return "quick" if self.quick else "full"

    def turns(self) -> Iterator[tuple[int, str, str]]:
        """Every repeat, workload and contender: contenders in turns, so that all share a mood."""
        for repeat in range(self.repeats):
            for workload in self.workloads:
                for contender in self.contenders:
                    yield repeat, workload, contender


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for and print the tables; return 1 if anything failed."""
    options = _parser().parse_args(arguments)
    asked = _asked(options)
    results = list(_run(asked))
    sizes = {name: attrs.asdict(SIZES[asked.sizes(name)]) for name in asked.workloads}
    text = Report(results, sizes).text()
    print(text)
    if options.into is not None:
        _put_into(Path(options.into), text)
    if options.json is not None:
        Path(options.json).write_text(_as_json(results, sizes), encoding="utf-8")
    return int(any(result.failure is not None for result in results))


def _run(asked: Asked) -> Iterator[Result]:
    turns = list(asked.turns())
    for number, (repeat, workload, contender) in enumerate(turns, 1):
        began = time.perf_counter()
        result = _one(asked, repeat, workload, contender)
        took = time.perf_counter() - began
        verdict = "failed" if result.failure is not None else f"{took:.1f} s"
        place = f"[{number:>{len(str(len(turns)))}}/{len(turns)}]"
        print(f"{place} {workload} {contender}: {verdict}", file=sys.stderr, flush=True)
        yield result


def _one(asked: Asked, repeat: int, workload: str, contender: str) -> Result:
    """Run one contender in a fresh process."""
    load = os.getloadavg()[0]
    interpreter = asked.interpreters.get(contender, sys.executable)
    command = [interpreter, "-m", "benchmarks.one", contender, workload]
    command += ["--sizes", asked.sizes(workload)]
    if asked.folder is not None:
        command += ["--folder", asked.folder]
    found = Result(contender=contender, workload=workload, repeat=repeat, figures={})
    try:
        ran = subprocess.run(
            command, cwd=_ROOT, capture_output=True, text=True, timeout=_LONGEST, check=True
        )
    except subprocess.CalledProcessError as problem:
        return attrs.evolve(found, failure=problem.stderr.strip()[-2000:] or str(problem))
    except (OSError, subprocess.TimeoutExpired) as problem:
        return attrs.evolve(found, failure=str(problem))
    return attrs.evolve(found, figures={**json.loads(ran.stdout), "machine_load": load})


def _put_into(page: Path, text: str) -> None:
    """Put the tables where they belong in a page, between two comments."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise SystemExit(f"--into: {page} has no place for tables.")
    page.write_text(f"{before}{_BEGIN}\n\n{text}\n\n{_END}{after}", encoding="utf-8")


def _as_json(results: Iterable[Result], sizes: Mapping[str, object]) -> str:
    document = {
        "format": 1,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
        },
        "sizes": sizes,
        "results": [attrs.asdict(result) for result in results],
    }
    return json.dumps(document, indent=2) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="little of everything, once")
    parser.add_argument("--only", metavar="NAME", help=f"only these of: {', '.join(FIGURES)}")
    stores = [entrant.name for entrant in ENTRANTS if not entrant.is_floor]
    parser.add_argument(
        "--stores",
        metavar="NAMES",
        default=",".join(stores),
        help=f"only these of: {', '.join(stores)}; the floor always runs beside them",
    )
    parser.add_argument("--repeats", type=int, help="how often each is run; default: 3, quick: 1")
    parser.add_argument("--long", action="store_true", help="the long run has 10,000 steps")
    parser.add_argument("--json", metavar="FILE", help="write all figures of all repeats to FILE")
    parser.add_argument(
        "--into", metavar="PAGE", help="put the tables into a page that has a place"
    )
    parser.add_argument("--folder", help="where databases are put; must be on a real disk")
    parser.add_argument(
        "--python",
        metavar="NAME=INTERPRETER",
        action="append",
        default=[],
        help="run a contender in an environment of its own",
    )
    return parser


def _asked(options: argparse.Namespace) -> Asked:
    stores = _names("stores", options.stores, BY_NAME)
    floors = [entrant.name for entrant in ENTRANTS if entrant.is_floor]
    return Asked(
        workloads=_names("only", options.only, FIGURES) if options.only else list(FIGURES),
        contenders=list(dict.fromkeys((*floors, *stores))),
        repeats=options.repeats or (1 if options.quick else 3),
        quick=options.quick,
        long=options.long,
        folder=options.folder,
        interpreters=dict(_interpreter(said) for said in options.python),
    )


def _names(option: str, said: str, known: Iterable[str]) -> list[str]:
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


if __name__ == "__main__":
    sys.exit(main())
