"""The environments of the peers: each has its own, made when it is first asked for."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

# The bench itself needs attrs, and psycopg to look at the server.
_COMMON: Final = ("attrs==26.1.0", "psycopg[binary]==3.3.9")

PINS: Final = {
    "absurd": ("absurd-sdk==0.5.1", "absurdctl==0.5.1"),  # the latter brings the schema
    "dbos": ("dbos==3.4.0",),
    "langgraph": (
        "langgraph==1.2.22",
        "langgraph-checkpoint-postgres==3.2.0",
        "psycopg-pool==3.3.3",
    ),
    "pgqueuer": ("pgqueuer==1.6.0", "asyncpg==0.32.0"),
    "procrastinate": ("procrastinate==3.10.0",),
}


def interpreter_of(peer: str, folder: Path) -> str:
    """The interpreter of a peer's environment under *folder*, which is made unless it is there."""
    home = folder / peer
    python = home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    wanted = "\n".join((*_COMMON, *PINS[peer], ""))
    made_of = home / "made-of.txt"
    if not made_of.exists() or made_of.read_text(encoding="utf-8") != wanted:
        print(f"Making an environment for {peer} ...", file=sys.stderr, flush=True)
        _make(home, python, wanted.split())
        made_of.write_text(wanted, encoding="utf-8")
    return str(python.absolute())


def _make(home: Path, python: Path, wanted: list[str]) -> None:
    making, pip = [sys.executable, "-m", "venv", "--clear"], [str(python), "-m", "pip"]
    if find_spec("ensurepip") is None:  # Debian takes it out
        making, pip = [*making, "--without-pip"], [*pip[1:], "--python", str(python)]
        pip = [sys.executable, *pip]
    installing = [*pip, "install", "--quiet", "--disable-pip-version-check", *wanted]
    for command in ([*making, str(home)], installing):
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if ran.returncode != 0:
            raise SystemExit(f"{' '.join(command)} failed:\n{ran.stderr.strip()[-2000:]}")
