"""The demo: three hundred failed payments, a bad gateway, and a worker that is killed half-way.

    python -m examples.payment_recovery.demo        (or `squidmesh demo`, or `make demo`)

It starts the gateway and a worker as processes of their own, starts all runs, approves or rejects
what waits for a person, kills the worker with SIGKILL when half of the runs have ended, starts
another one, and compares in the end what the runs recorded with what the gateway did.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote

import anyio
import attrs
import httpx

from squidmesh import Explanation, SquidMesh

# Relative, because this package lives at two addresses: in the checkout and inside the wheel.
from .audit import FINAL, Record, audit  # noqa: TID252
from .host import open_mesh, start_recoveries  # noqa: TID252
from .processes import Child, running  # noqa: TID252
from .report import Kill, Report, as_json, most_telling, show  # noqa: TID252
from .screen import Progress, Screen, screen_for  # noqa: TID252

LEASE: Final = 2.0
LOOK_EVERY: Final = 0.15
STANDSTILL: Final = 40.0
"""Seconds without any run ending after which the demo gives up."""

AT_ONCE: Final = 1000


class DemoError(Exception):
    """The demo cannot go on; the message says why."""


@attrs.define(eq=False)
class Desk:
    """The person who decides, for this one time a program."""

    mesh: SquidMesh
    explanations: dict[str, Explanation] = attrs.field(factory=dict[str, Explanation])
    decisions: Counter[str] = attrs.field(factory=Counter[str])

    async def look_at(self, run_id: str) -> None:
        """Keep why the run waits, and decide: no credit for suspected fraud over 150.00."""
        self.explanations[run_id] = await self.mesh.explain_run(run_id)
        context = (await self.mesh.inspect_run(run_id)).context or {}
        invoice, verdict = context["invoice"], context["verdict"]
        assert isinstance(invoice, dict)
        assert isinstance(verdict, dict)
        cents = invoice["cents"]
        assert isinstance(cents, int)
        if verdict["reason"] == "suspected_fraud" and cents > 150_00:
            await self.mesh.reject_run(run_id, actor="demo", comment="too much for a suspicion")
            self.decisions["rejected"] += 1
        else:
            await self.mesh.approve_run(
                run_id, actor="demo", comment="a good customer", metadata={"percent": 25}
            )
            self.decisions["approved"] += 1


@attrs.define(kw_only=True, eq=False)
class Stage:
    """One performance: where it keeps its files, and what it has come to."""

    screen: Screen
    directory: Path
    seed: int
    invoices: int
    began: float = attrs.field(factory=time.monotonic)
    workers: list[int] = attrs.field(factory=list[int])
    kill: Kill | None = None

    @property
    def url(self) -> str:
        """The store's URL."""
        return f"sqlite:///{quote(str(self.directory / 'runs.db'))}"

    @property
    def ledger(self) -> Path:
        """Where the gateway writes down what it did."""
        return self.directory / "effects.jsonl"

    async def perform(self) -> Report:
        """Run the demo from the first to the last act."""
        async with self._gateway() as gateway, open_mesh(self.url) as mesh:
            runs = await self._start(mesh, gateway)
            desk = Desk(mesh)
            with self.screen.progress(len(runs)) as progress:
                async with self._worker() as first:
                    ended = await self._watch(mesh, desk, first, progress, until=len(runs) // 2)
                    await first.kill()
                    self.kill = Kill(at=datetime.now(UTC), pid=first.pid, ended_before=ended)
                self.screen.say("  Worker 1 was killed with SIGKILL, in the middle of its work.")
                async with self._worker() as second:
                    await self._watch(mesh, desk, second, progress, until=len(runs))
            return await self._report(mesh, desk, runs, gateway)

    @contextlib.asynccontextmanager
    async def _gateway(self) -> AsyncIterator[str]:
        log = self.directory / "gateway.log"
        arguments = ("--ledger", str(self.ledger), "--seed", str(self.seed))
        async with running("gateway", *arguments, log=log) as child:
            url = await child.first_line()
            if not url:
                raise DemoError(f"The gateway did not start; see {log}.")
            yield url

    @contextlib.asynccontextmanager
    async def _worker(self) -> AsyncIterator[Child]:
        number = len(self.workers) + 1
        log = self.directory / f"worker-{number}.log"
        arguments = ("worker", "--url", self.url, "--lease", str(LEASE), "--stop-with-input")
        async with running("host", *arguments, log=log) as child:
            self.workers.append(child.pid)
            self.screen.say(_entrance(number, child.pid))
            yield child

    async def _start(self, mesh: SquidMesh, gateway: str) -> list[str]:
        say = self.screen.say
        say(f"Recovering failed payments; everything is kept in {self.directory}")
        say(f"  A payment gateway runs at {gateway}. Now and then it fails, is busy, stalls,")
        say("  or charges a card and drops the connection before it has said so.")
        began = time.monotonic()
        runs = await start_recoveries(mesh, gateway, limit=self.invoices)
        took = time.monotonic() - began
        say(f"  {len(runs)} runs, one for each invoice, were started in bulk in {took:.2f} s.")
        say('  What waits for a person is decided by this program, under the name of "demo".')
        return runs

    async def _watch(
        self, mesh: SquidMesh, desk: Desk, worker: Child, progress: Progress, *, until: int
    ) -> int:
        """Decide what waits for a decision until so many runs have ended, and return how many."""
        ended, moved = -1, time.monotonic()
        while True:
            page = await mesh.list_runs(limit=AT_ONCE)
            statuses = Counter(run.status for run in page.runs)
            if (now_ended := sum(statuses[status] for status in FINAL)) > ended:
                ended, moved = now_ended, time.monotonic()
            progress(ended, _note(statuses, desk.decisions))
            if ended >= until:
                return ended
            if worker.has_ended or time.monotonic() - moved > STANDSTILL:
                raise DemoError(f"No run ends any more; the logs are in {self.directory}.")
            for run in page.runs:
                if run.status == "paused":
                    await desk.look_at(run.id)
            await anyio.sleep(LOOK_EVERY)

    async def _report(
        self, mesh: SquidMesh, desk: Desk, ids: Sequence[str], gateway: str
    ) -> Report:
        runs = [await mesh.inspect_run(run_id, include_history=True) for run_id in ids]
        run = most_telling(runs, desk.explanations)
        killed_at = self.kill.at if self.kill is not None else None
        return Report(
            seconds=time.monotonic() - self.began,
            seed=self.seed,
            url=self.url,
            ledger=str(self.ledger),
            workers=tuple(self.workers),
            kill=self.kill,
            statuses=Counter(run.status for run in runs),
            decisions=desk.decisions,
            audit=audit(runs, await _records(gateway), killed_at=killed_at),
            run=run,
            explanation=desk.explanations.get(run.id),
            graph=await mesh.graph(run.id),
        )


def _entrance(number: int, pid: int) -> str:
    if number == 1:
        return f"  Worker 1 is process {pid}; half-way it will be killed."
    return f"  Worker {number}, process {pid}, takes over; leases run out after {LEASE:g} s."


def _note(statuses: Counter[str], decisions: Counter[str]) -> str:
    decided = [f"{number} {decision}" for decision, number in decisions.items()]
    return ", ".join([f"{statuses['retrying']} retrying", *decided])


async def _records(gateway: str) -> list[Record]:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"{gateway}/effects")
    records: list[Record] = answer.raise_for_status().json()["keys"]
    return records


def main(
    *, directory: Path | None = None, json_output: bool = False, invoices: int = 300, seed: int = 7
) -> int:
    """Run the demo; 0 if everything ended and nothing was lost or done twice."""
    screen = screen_for(silent=json_output)
    place = (directory or Path(tempfile.mkdtemp(prefix="squidmesh-demo-"))).resolve()
    if (place / "runs.db").exists():
        print(f"{place} holds an earlier demo; name another directory.", file=sys.stderr)
        return 2
    place.mkdir(parents=True, exist_ok=True)
    stage = Stage(screen=screen, directory=place, seed=seed, invoices=max(invoices, 1))
    try:
        report = asyncio.run(stage.perform())
    except DemoError as problem:
        print(problem, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"Stopped; what there is stays in {place}.", file=sys.stderr)
        return 130
    if json_output:
        print(json.dumps(as_json(report), indent=2, ensure_ascii=False))
    else:
        show(report, screen)
    return 0 if report.audit.is_clean else 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Chase failed payments; kill a worker half-way.")
    parser.add_argument(
        "--directory", type=Path, help="where to keep the files; default: a new one"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document at the end")
    parser.add_argument("--invoices", type=int, default=300, help="how many of the 300 invoices")
    parser.add_argument("--seed", type=int, default=7, help="which requests meet trouble")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    given = _parse(None)
    sys.exit(
        main(
            directory=given.directory,
            json_output=given.json,
            invoices=given.invoices,
            seed=given.seed,
        )
    )
