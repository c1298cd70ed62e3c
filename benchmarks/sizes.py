"""How much of each workload is done: as much as the figures need, or just enough to see it run."""

from typing import Final

import attrs


@attrs.frozen(kw_only=True)
class Sizes:
    """How often and how much."""

    sequential_runs: int
    sequential_steps: int = 10
    served_runs: int
    slope_steps: int = 100
    concurrent_runs: int
    concurrent_steps: int = 3
    counted_runs: int
    long_steps: int
    long_runs: int
    fanout_width: int
    fanout_runs: int
    single_starts: int
    bulk_starts: int
    backlog_runs: int
    backlog_seconds: float
    backlog_rounds: int
    backlogs: tuple[int, ...] = (100_000,)
    crowd_runs: int
    crowd_processes: int = 4


FULL: Final = Sizes(
    sequential_runs=50,
    served_runs=30,
    concurrent_runs=1000,
    counted_runs=500,
    long_steps=1000,
    long_runs=5,
    fanout_width=500,
    fanout_runs=5,
    single_starts=1000,
    bulk_starts=10_000,
    backlog_runs=300,
    backlog_seconds=2.0,
    backlog_rounds=3,
    crowd_runs=2000,
)

LONG: Final = attrs.evolve(FULL, long_steps=10_000, long_runs=1, backlogs=(100_000, 1_000_000))

QUICK: Final = Sizes(
    sequential_runs=10,
    served_runs=5,
    concurrent_runs=300,
    counted_runs=100,
    long_steps=1000,
    long_runs=1,
    fanout_width=500,
    fanout_runs=1,
    single_starts=200,
    bulk_starts=2000,
    backlog_runs=100,
    backlog_seconds=0.0,
    backlog_rounds=1,
    backlogs=(10_000,),
    crowd_runs=300,
)

SIZES: Final = {"full": FULL, "long": LONG, "quick": QUICK}
