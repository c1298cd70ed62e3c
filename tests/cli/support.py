"""What the tests of the command line share: a store with runs in it, and a prompt."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import attrs
from click.testing import CliRunner

from squidmesh import Run, SquidMesh
from squidmesh.cli import cli
from tests.cli.shop import Parcel, Sale, Selling, Sending, workflows

APP = "tests.cli.shop"
ROOT = Path(__file__).parent.parent.parent
QUIET = {"SQUIDMESH_URL": None, "SQUIDMESH_APP": None, "SQUIDMESH_ACTOR": None, "NO_COLOR": None}

Answer = TypeVar("Answer")


@attrs.frozen
class Reply:
    """What a command answered."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def first_line(self) -> str:
        return self.out.splitlines()[0]


@attrs.frozen
class Shop:
    """A store on disk, and somebody at a prompt who asks about it."""

    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / "shop.db"

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}"

    def ask(self, *arguments: str, env: Mapping[str, str | None] | None = None) -> Reply:
        """Give a command about this store."""
        return ask(*arguments, env={"SQUIDMESH_URL": self.url, **(env or {})})

    def with_mesh(self, action: Callable[[SquidMesh], Awaitable[Answer]]) -> Answer:
        """Do something with the store that no command does."""

        async def done() -> Answer:
            async with SquidMesh.open(self.url, workflows=workflows) as mesh:
                return await action(mesh)

        return asyncio.run(done())

    def sell(self, count: int = 1, *, work: bool = True, **fields: Any) -> list[str]:
        """Start runs of the selling workflow; worked on, they wait for approval."""

        async def sold(mesh: SquidMesh) -> list[str]:
            ids = await mesh.start_runs(Selling, [Sale(**fields)] * count)
            if work:
                await mesh.run_until_idle()
            return ids

        return self.with_mesh(sold)

    def send(self, *, refundable: bool = True) -> str:
        """Start and work on a run that is paid, is not shipped, and so is undone."""

        async def sent(mesh: SquidMesh) -> str:
            run = await mesh.start_run(Sending, Parcel(refundable=refundable))
            await mesh.run_until_idle()
            return run.id

        return self.with_mesh(sent)

    def work(self) -> None:
        """Work until nothing is due."""
        self.with_mesh(lambda mesh: mesh.run_until_idle())

    def inspect(self, run_id: str) -> Run:
        """The run with its history, as the library shows it."""
        return self.with_mesh(lambda mesh: mesh.inspect_run(run_id, include_history=True))


def ask(*arguments: str, env: Mapping[str, str | None] | None = None) -> Reply:
    """Give a command in this process."""
    result = CliRunner().invoke(
        cli, list(arguments), env={**QUIET, "USER": "ida", **(env or {})}, prog_name="squidmesh"
    )
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Reply(result.exit_code, result.stdout, result.stderr)


def environment(**changes: str) -> dict[str, str]:
    """An environment for a process of its own."""
    kept = {name: value for name, value in os.environ.items() if name not in QUIET}
    return {**kept, "PYTHONPATH": str(ROOT), "USER": "ida", **changes}


def start(*arguments: str, cwd: Path, **changes: str) -> "subprocess.Popen[str]":
    """Start a command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "squidmesh", *arguments],
        cwd=cwd,
        env=environment(**changes),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*arguments: str, cwd: Path, **changes: str) -> Reply:
    """Give a command in a process of its own, and wait for its end."""
    process = start(*arguments, cwd=cwd, **changes)
    out, err = process.communicate(timeout=60)
    return Reply(process.returncode, out, err)
