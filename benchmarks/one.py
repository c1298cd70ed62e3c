"""One contender, one workload, once: ``python -m benchmarks.one`` prints the figures as JSON.

`benchmarks` starts it in a fresh process each time, so that nothing that one did is there when
the next begins.
"""

import argparse
import asyncio
import json
import os
import tempfile
from pathlib import Path
from typing import Final

from benchmarks.measuring import Ticks, hop_ms, sync_ms
from benchmarks.registry import BY_NAME, make
from benchmarks.sizes import SIZES, Sizes
from benchmarks.workloads import WORKLOADS

# A URL may hold a password, and a command line is for everybody to read.
DATABASE: Final = "BENCHMARKS_DATABASE"


async def measure(
    name: str, workload: str, sizes: Sizes, folder: Path, url: str | None
) -> dict[str, float]:
    """Put one workload to one contender; the machine's own pace is measured beside it."""
    ticks, contender = Ticks(notes_cpu=workload == "long"), make(name, url)
    machine = {"machine_hop_ms": await hop_ms(), "machine_sync_ms": sync_ms(folder)}
    await contender.set_up(folder, ticks.body())
    try:
        figures = await WORKLOADS[workload](contender, ticks, sizes)
    finally:
        await contender.tear_down()
    return {**figures, **machine}


def main() -> None:
    """Read what is asked for, measure it, print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.one")
    parser.add_argument("contender", choices=BY_NAME)
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("--sizes", choices=SIZES, default="full")
    parser.add_argument("--folder", help="where the database is put; default: a temporary folder")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=asked.folder) as folder:
        sizes, url = SIZES[asked.sizes], os.environ.get(DATABASE)
        found = measure(asked.contender, asked.workload, sizes, Path(folder), url)
        print(json.dumps(asyncio.run(found)))


if __name__ == "__main__":
    main()
