"""The workloads: what a contender is made to do, and what of it is measured.

Everything is done once before it is measured, so that nothing is measured that happens once:
imports, the preparation of statements, the storing of a definition. Counting comes last and is
not timed.
"""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from statistics import median
from typing import Final, TypeAlias

from benchmarks.contender import Contender, NotOffered, Written
from benchmarks.measuring import Spent, Ticks, Watched, around, gaps, pass_time
from benchmarks.server_workloads import backlog, processes, scheduled
from benchmarks.sizes import Sizes

Figures: TypeAlias = Mapping[str, float]
Workload: TypeAlias = Callable[[Contender, Ticks, Sizes], Awaitable[dict[str, float]]]

_REST: Final = 0.02
_WARM_UP_RUNS: Final = 3
_MARKS: Final = (10, 100, 500, 1000, 10_000)
_FIRST_REACH: Final = 9  # there is no more before step 10
_REACH: Final = 25


async def sequential(contender: Contender, ticks: Ticks, sizes: Sizes) -> dict[str, float]:
    """One run of a few steps after the other."""
    steps, runs = sizes.sequential_steps, sizes.sequential_runs
    for _ in range(_WARM_UP_RUNS):
        await contender.sequential(steps)
    between: list[float] = []
    whole: list[Spent] = []
    for _ in range(runs):
        ticks.clear()
        began = Spent.so_far()
        await contender.sequential(steps)
        whole.append(began.until_now())
        between += gaps(ticks.wall)
    return {
        "step_ms": median(between) * 1000,
        "run_ms": median(spent.wall for spent in whole) * 1000,
        "cpu_ms": sum(spent.cpu for spent in whole) / (runs * steps) * 1000,
        **await _served(contender, ticks, sizes),
        **await _slope(contender, sizes),
    }


async def _served(contender: Contender, ticks: Ticks, sizes: Sizes) -> dict[str, float]:
    """The same through a worker that had nothing to do: until it begins, and all in all."""
    serving = contender.serving()
    if serving is None:
        return {}
    begun: list[float] = []
    ended: list[float] = []
    async with serving as serve:
        for number in range(_WARM_UP_RUNS + sizes.served_runs):
            await pass_time(_REST)
            ticks.clear()
            asked = time.perf_counter()
            await serve(number)
            ended.append(time.perf_counter() - asked)
            begun.append(ticks.wall[0] - asked)
    return {
        "pickup_ms": median(begun[_WARM_UP_RUNS:]) * 1000,
        "served_ms": median(ended[_WARM_UP_RUNS:]) * 1000,
    }


async def _slope(contender: Contender, sizes: Sizes) -> dict[str, float]:
    """What one more step adds to a run's commits; what a run costs once does not count."""
    counting = contender.counting()
    if counting is None:
        return {}
    short, more = sizes.sequential_steps, sizes.slope_steps
    await contender.sequential(short + more)
    async with counting as count:
        await contender.sequential(short)
        first = count()
        await contender.sequential(short + more)
        second = count().since(first)
    return _per_step(second.since(first), more)


async def concurrent(contender: Contender, ticks: Ticks, sizes: Sizes) -> dict[str, float]:
    """Many short runs at once."""
    runs, steps = sizes.concurrent_runs, sizes.concurrent_steps
    await (await contender.concurrent(64, steps))()
    ticks.clear()
    watching = Watched.on(contender.server())
    began = Spent.so_far()
    work = await contender.concurrent(runs, steps)
    started = began.until_now()
    await work()
    spent = began.until_now()
    done = runs * steps
    assert len(ticks.wall) == done, "Not every step was run once."
    figures = {
        "steps_per_s": done / spent.wall,
        "worked_per_s": done / (spent.wall - started.wall),
        "cpu_ms": spent.cpu / done * 1000,
        **watching.until_now(done, runs),
    }
    counting = contender.counting()
    if counting is not None:
        async with counting as count:
            await (await contender.concurrent(sizes.counted_runs, steps))()
            figures |= _per_step(count(), sizes.counted_runs * steps)
    return figures


async def long(contender: Contender, ticks: Ticks, sizes: Sizes) -> dict[str, float]:
    """One run of very many steps: does a step cost more, the more there were before it?"""
    await contender.long(sizes.long_steps)
    wall: list[list[float]] = []
    cpu: list[list[float]] = []
    took: list[float] = []
    for _ in range(sizes.long_runs):
        ticks.clear()
        began = Spent.so_far()
        await contender.long(sizes.long_steps)
        took.append(began.until_now().wall)
        wall.append(gaps(ticks.wall))
        cpu.append(gaps(ticks.cpu))
    marks = [mark for mark in _MARKS if mark <= sizes.long_steps]
    at = {mark: _at(wall, mark) for mark in marks}
    return {
        "run_s": median(took),
        **{f"at_{mark}_ms": cost * 1000 for mark, cost in at.items()},
        **{f"growth_{mark}": at[mark] / at[10] for mark in marks if mark >= 1000},
        **{f"cpu_growth_{mark}": _at(cpu, mark) / _at(cpu, 10) for mark in marks if mark >= 1000},
    }


def _at(runs: Sequence[Sequence[float]], mark: int) -> float:
    """What the steps around one cost, in the middle of several runs."""
    reach = _FIRST_REACH if mark == _MARKS[0] else _REACH
    return median(around(run, mark, reach) for run in runs)


async def fanout(contender: Contender, ticks: Ticks, sizes: Sizes) -> dict[str, float]:
    """One run of many steps that wait for nothing, and one step that waits for all of them."""
    width = sizes.fanout_width
    await contender.fanout(width)
    took: list[Spent] = []
    for _ in range(sizes.fanout_runs):
        ticks.clear()
        began = Spent.so_far()
        await contender.fanout(width)
        took.append(began.until_now())
        assert len(ticks.wall) == width + 1, "Not every step was run once."
    figures = {
        "run_ms": median(spent.wall for spent in took) * 1000,
        "cpu_ms": median(spent.cpu for spent in took) / (width + 1) * 1000,
    }
    counting = contender.counting()
    if counting is not None:
        async with counting as count:
            await contender.fanout(width)
            figures |= _per_step(count(), width + 1)
    return figures


async def start(contender: Contender, _ticks: Ticks, sizes: Sizes) -> dict[str, float]:
    """Runs are started and left alone: one by one, each awaited, and in bulk."""
    single, bulk = sizes.single_starts, sizes.bulk_starts
    await contender.start(20)
    began = Spent.so_far()
    await contender.start(single)
    one_by_one = began.until_now()
    figures = {
        "single_per_s": single / one_by_one.wall,
        "cpu_single_ms": one_by_one.cpu / single * 1000,
    }
    counting = contender.counting()
    if counting is not None:
        async with counting as count:
            await contender.start(100)
            figures["commits_per_start"] = count().commits / 100
    try:
        return {**figures, **await _start_bulk(contender, bulk)}
    except NotOffered:
        return figures


async def _start_bulk(contender: Contender, runs: int) -> dict[str, float]:
    await contender.start_bulk(100)
    began = Spent.so_far()
    await contender.start_bulk(runs)
    spent = began.until_now()
    figures = {"bulk_per_s": runs / spent.wall, "cpu_bulk_ms": spent.cpu / runs * 1000}
    counting = contender.counting()
    if counting is not None:
        async with counting as count:
            await contender.start_bulk(runs)
            figures["commits_per_bulk_start"] = count().commits / runs
    return figures


def _per_step(written: Written, steps: int) -> dict[str, float]:
    figures = {
        "commits_per_step": written.commits / steps,
        "bytes_per_step": written.size / steps,
    }
    if written.statements is not None:
        figures["statements_per_step"] = written.statements / steps
    return figures


WORKLOADS: Final[Mapping[str, Workload]] = {
    "sequential": sequential,
    "concurrent": concurrent,
    "long": long,
    "fanout": fanout,
    "start": start,
    "backlog": backlog,
    "scheduled": scheduled,
    "processes": processes,
}
