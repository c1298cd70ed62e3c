"""``python -m benchmarks``: every contender, every workload, in turns, and what it comes to."""

import json
import os
import platform
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from benchmarks.environments import PINS, interpreter_of
from benchmarks.one import DATABASE
from benchmarks.options import Asked, asked, parser
from benchmarks.registry import BY_NAME
from benchmarks.report import Report, Result
from benchmarks.sizes import SIZES

if TYPE_CHECKING:
    from benchmarks.postgres.cluster import Cluster

_ROOT: Final = Path(__file__).parent.parent
_LONGEST: Final = 3600
_BEGIN: Final = "<!-- figures: python -m benchmarks --into this page -->"
_END: Final = "<!-- end of figures -->"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for and print the tables; return 1 if anything failed."""
    options = parser(__doc__).parse_args(arguments)
    wanted = asked(options)
    with ExitStack() as stack:
        bench = Bench(wanted, _cluster(wanted, stack), _interpreters(wanted))
        results = list(bench.run())
    sizes = {name: attrs.asdict(SIZES[wanted.sizes(name)]) for name in wanted.workloads}
    text = Report(results, sizes).text()
    print(text)
    if options.into is not None:
        _put_into(Path(options.into), text)
    if options.json is not None:
        Path(options.json).write_text(_as_json(results, sizes, bench), encoding="utf-8")
    return int(any(result.failure is not None for result in results))


def _cluster(asked: Asked, stack: ExitStack) -> "Cluster | None":
    if not asked.needs_server:
        return None
    from benchmarks.postgres.cluster import cluster  # noqa: PLC0415  it needs psycopg

    return stack.enter_context(cluster(asked.postgres_url, asked.folder))


def _interpreters(asked: Asked) -> Mapping[str, str]:
    """Which interpreter runs a contender that needs another one than this."""
    made = {peer: interpreter_of(peer, asked.environments) for peer in asked.peers}
    peers = {name: BY_NAME[name].peer for name in asked.contenders}
    own = {name: made[peer] for name, peer in peers.items() if peer in made}
    return {**own, **asked.interpreters}


@attrs.frozen
class Bench:
    """What is to be run, and on what."""

    asked: Asked
    cluster: "Cluster | None"
    interpreters: Mapping[str, str]

    def run(self) -> Iterator[Result]:
        """Have everybody take a turn."""
        turns = list(self.asked.turns())
        for number, (repeat, workload, contender) in enumerate(turns, 1):
            found = Result(contender=contender, workload=workload, repeat=repeat, figures={})
            if workload in BY_NAME[contender].workloads:
                began = time.perf_counter()
                found = self._one(found)
                took = time.perf_counter() - began
                verdict = "failed" if found.failure is not None else f"{took:.1f} s"
                place = f"[{number:>{len(str(len(turns)))}}/{len(turns)}]"
                print(f"{place} {workload} {contender}: {verdict}", file=sys.stderr, flush=True)
            yield found

    def _one(self, found: Result) -> Result:
        """Run one contender in a fresh process, on a fresh database."""
        load = os.getloadavg()[0]
        try:
            if self.cluster is None or not BY_NAME[found.contender].on_server:
                said = self._said(found, None)
            else:
                with self.cluster.database() as url:
                    said = self._said(found, url)
        except subprocess.CalledProcessError as problem:
            return attrs.evolve(found, failure=problem.stderr.strip()[-2000:] or str(problem))
        except (OSError, subprocess.TimeoutExpired) as problem:
            return attrs.evolve(found, failure=str(problem))
        return attrs.evolve(found, figures={**json.loads(said), "machine_load": load})

    def _said(self, found: Result, url: str | None) -> str:
        interpreter = self.interpreters.get(found.contender, sys.executable)
        command = [interpreter, "-m", "benchmarks.one", found.contender, found.workload]
        command += ["--sizes", self.asked.sizes(found.workload)]
        if self.asked.folder is not None:
            command += ["--folder", self.asked.folder]
        environment = {**os.environ, DATABASE: url} if url is not None else None
        return subprocess.run(
            command,
            cwd=_ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_LONGEST,
            check=True,
        ).stdout


def _put_into(page: Path, text: str) -> None:
    """Put the tables where they belong in a page, between two comments."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise SystemExit(f"--into: {page} has no place for tables.")
    page.write_text(f"{before}{_BEGIN}\n\n{text}\n\n{_END}{after}", encoding="utf-8")


def _as_json(results: Iterable[Result], sizes: Mapping[str, object], bench: Bench) -> str:
    document = {
        "format": 1,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
            "postgres": bench.cluster.version if bench.cluster is not None else None,
        },
        "peers": {peer: PINS[peer] for peer in bench.asked.peers},
        "sizes": sizes,
        "results": [attrs.asdict(result) for result in results],
    }
    return json.dumps(document, indent=2) + "\n"


if __name__ == "__main__":
    sys.exit(main())
