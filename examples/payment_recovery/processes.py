"""Processes that the demo starts, and nobody else's: each is stopped by the handle it came with."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, Final

import attrs

PATIENCE: Final = 10.0


@attrs.define(kw_only=True, eq=False)
class Child:
    """A module of this package that runs as a process; it ends when its standard input closes."""

    name: str
    process: asyncio.subprocess.Process

    @property
    def pid(self) -> int:
        """The process's id."""
        return self.process.pid

    @property
    def has_ended(self) -> bool:
        """Whether it is over, for whatever reason."""
        return self.process.returncode is not None

    async def first_line(self) -> str:
        """Return the first line that it writes, where its output was not sent to a file."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            return (await self.process.stdout.readline()).decode().strip()

    async def kill(self) -> None:
        """SIGKILL: it cannot say goodbye, finish anything or close a file."""
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> None:
        """Close its input and wait; one that does not listen is killed."""
        if self.has_ended:
            return
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            async with asyncio.timeout(PATIENCE):
                await self.process.wait()
        except TimeoutError:
            await self.kill()


@contextlib.asynccontextmanager
async def running(module: str, *arguments: str, log: Path) -> AsyncIterator[Child]:
    """Run a module of this package until the context ends; what it complains of goes to *log*."""
    with log.open("ab") as complaints:
        child = await _spawn(module, arguments, complaints)
        try:
            yield child
        finally:
            await child.stop()


async def _spawn(module: str, arguments: tuple[str, ...], complaints: IO[bytes]) -> Child:
    package = __name__.rpartition(".")[0]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", f"{package}.{module}", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=complaints,
        env={**os.environ, "PYTHONPATH": _import_path(package)},
    )
    return Child(name=module, process=process)


def _import_path(package: str) -> str:
    """Where the child finds this very package, whatever its own working directory would say."""
    root = Path(__file__).resolve().parents[package.count(".") + 1]
    inherited = os.environ.get("PYTHONPATH")
    return os.pathsep.join([str(root), *([inherited] if inherited else [])])
