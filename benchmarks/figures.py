"""Which figures a workload has, how they are called, and what some of them must not exceed."""

from collections.abc import Mapping
from enum import Enum
from typing import Final

import attrs


class Better(Enum):
    """Which way is better; only what has one can be compared with the floor."""

    LESS = "less"
    MORE = "more"
    NEITHER = "neither"


@attrs.frozen
class Figure:
    """One column of a table."""

    key: str
    title: str
    better: Better = Better.NEITHER


@attrs.frozen
class Budget:
    """What a figure of squidmesh on a *store* is held to."""

    store: str
    workload: str
    key: str
    title: str
    least: float | None = None
    most: float | None = None

    def holds(self, value: float) -> bool:
        """Whether *value* stays within the budget."""
        enough = self.least is None or value >= self.least
        return enough and (self.most is None or value <= self.most)

    @property
    def limit(self) -> str:
        """The budget in words."""
        if self.least is None:
            return f"at most {self.most:g}"
        if self.most is None:
            return f"at least {self.least:g}"
        return f"{self.least:g}"


COMMITS: Final = Figure("commits_per_step", "commits per step")
BYTES: Final = Figure("bytes_per_step", "log bytes per step")
CPU: Final = Figure("cpu_ms", "CPU ms per step", Better.LESS)
STATEMENTS: Final = Figure("statements_per_step", "statements per step")


def _loss(what: str) -> tuple[Figure, ...]:
    """Steps per second with more and more old runs in the database, and what that takes away."""
    return (
        Figure("steps_per_s_0", "steps/s", Better.MORE),
        *(
            figure
            for size in (10_000, 100_000, 1_000_000)
            for figure in (
                Figure(f"steps_per_s_{size}", f"with {size:,} {what}"),
                Figure(f"kept_{size}", f"{size:,} : none"),
            )
        ),
    )


FIGURES: Final[Mapping[str, tuple[Figure, ...]]] = {
    "sequential": (
        Figure("step_ms", "ms per step", Better.LESS),
        Figure("run_ms", "run, start to durable end, ms", Better.LESS),
        CPU,
        STATEMENTS,
        COMMITS,
        BYTES,
        Figure("pickup_ms", "waiting worker: call to first body, ms"),
        Figure("served_ms", "waiting worker: call to end, ms"),
    ),
    "concurrent": (
        Figure("steps_per_s", "steps/s", Better.MORE),
        Figure("worked_per_s", "steps/s without the starts", Better.MORE),
        CPU,
        Figure("server_cpu_ms", "server's CPU ms per step", Better.LESS),
        STATEMENTS,
        COMMITS,
        BYTES,
        Figure("table_bytes_per_run", "table bytes per run"),
    ),
    "long": (
        Figure("run_s", "whole run, s", Better.LESS),
        Figure("at_10_ms", "ms at step 10", Better.LESS),
        Figure("at_100_ms", "ms at 100"),
        Figure("at_500_ms", "ms at 500"),
        Figure("at_1000_ms", "ms at 1,000", Better.LESS),
        Figure("at_10000_ms", "ms at 10,000", Better.LESS),
        Figure("growth_1000", "1,000 : 10"),
        Figure("cpu_growth_1000", "CPU 1,000 : 10"),
        Figure("growth_10000", "10,000 : 10"),
        Figure("cpu_growth_10000", "CPU 10,000 : 10"),
    ),
    "fanout": (
        Figure("run_ms", "start to durable end, ms", Better.LESS),
        CPU,
        STATEMENTS,
        COMMITS,
        BYTES,
    ),
    "start": (
        Figure("single_per_s", "one by one, starts/s", Better.MORE),
        Figure("cpu_single_ms", "CPU ms per start", Better.LESS),
        Figure("commits_per_start", "commits per start"),
        Figure("bulk_per_s", "in bulk, starts/s", Better.MORE),
        Figure("cpu_bulk_ms", "CPU ms per start in bulk", Better.LESS),
        Figure("commits_per_bulk_start", "commits per start in bulk"),
    ),
    "backlog": _loss("ended"),
    "scheduled": _loss("not due"),
    "processes": (
        Figure("alone_per_s", "steps/s of one"),
        Figure("together_per_s", "steps/s of all"),
        Figure("gain", "all : one"),
        Figure("bodies", "bodies of all"),
        Figure("run_twice", "of them run twice"),
    ),
}

# What the issues demand, on the machine that they speak of.
BUDGETS: Final = (
    Budget("sqlite", "sequential", "step_ms", "a sequential step, ms", most=1.2),
    Budget("sqlite", "sequential", "commits_per_step", "its commits", least=1.0, most=1.0),
    Budget("sqlite", "concurrent", "steps_per_s", "steps/s at concurrency 64", least=5000),
    Budget("sqlite", "concurrent", "commits_per_step", "commits per step", most=0.2),
    Budget("sqlite", "long", "growth_1000", "step 1,000 beside step 10", most=1.1),
    Budget("postgres", "sequential", "step_ms", "a sequential step, ms", most=0.8),
    Budget("postgres", "sequential", "commits_per_step", "its commits", most=1.0),
    Budget("postgres", "sequential", "run_ms", "the run, start to durable end, ms", most=10),
    Budget(
        "postgres", "sequential", "pickup_ms", "a start picked up by an idle worker, ms", most=20
    ),
    Budget("postgres", "concurrent", "steps_per_s", "steps/s at concurrency 64", least=5000),
    Budget("postgres", "concurrent", "cpu_ms", "CPU ms per step", most=0.18),
    Budget("postgres", "concurrent", "server_cpu_ms", "the server's CPU ms per step", most=0.2),
    Budget("postgres", "concurrent", "commits_per_step", "commits per step", most=0.2),
    Budget("postgres", "concurrent", "bytes_per_step", "log bytes per step", most=1800),
    Budget("postgres", "concurrent", "table_bytes_per_run", "table bytes per run", most=4000),
    Budget("postgres", "backlog", "kept_100000", "speed kept beside 100,000 ended runs", least=0.9),
    Budget(
        "postgres", "backlog", "kept_1000000", "speed kept beside 1,000,000 ended runs", least=0.9
    ),
    Budget(
        "postgres", "scheduled", "kept_100000", "speed kept beside 100,000 runs not due", least=0.9
    ),
    Budget("postgres", "start", "single_per_s", "starts/s one by one", least=2200),
    Budget("postgres", "start", "bulk_per_s", "starts/s in bulk", least=25000),
    Budget("postgres", "long", "run_s", "a run of 1,000 steps, s", most=0.9),
    Budget("postgres", "long", "growth_1000", "step 1,000 beside step 10", most=1.1),
    Budget("postgres", "fanout", "run_ms", "500 steps and a join, ms", most=120),
    Budget("postgres", "processes", "gain", "four processes beside one", least=1.3),
    Budget("postgres", "processes", "run_twice", "bodies run twice", most=0),
)

MACHINE: Final = (
    Figure("machine_hop_ms", "another thread answers in, ms"),
    Figure("machine_sync_ms", "the disk has two pages in, ms"),
    Figure("machine_load", "load when a process began"),
)
