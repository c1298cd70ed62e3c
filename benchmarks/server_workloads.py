"""What only a contender on a server is put to: old databases, and several processes."""

import time
from collections import Counter
from statistics import median

from benchmarks.contender import Backlog, Contender
from benchmarks.measuring import Ticks
from benchmarks.sizes import Sizes


async def backlog(contender: Contender, ticks: Ticks, sizes: Sizes) -> dict[str, float]:
    """Are short runs slower, the more of them have ended before?"""
    return await _beside(Backlog.ENDED, contender, ticks, sizes)


async def scheduled(contender: Contender, ticks: Ticks, sizes: Sizes) -> dict[str, float]:
    """Are short runs slower, the more of them wait for tomorrow?"""
    return await _beside(Backlog.NOT_DUE, contender, ticks, sizes)


async def _beside(
    kind: Backlog, contender: Contender, ticks: Ticks, sizes: Sizes
) -> dict[str, float]:
    await (await contender.concurrent(64, sizes.concurrent_steps))()
    found = {0: await _steps_per_s(contender, ticks, sizes)}
    for size in sizes.backlogs:
        await contender.pile_up(kind, size - max(found))
        await (await contender.concurrent(64, sizes.concurrent_steps))()
        found[size] = await _steps_per_s(contender, ticks, sizes)
    return {
        **{f"steps_per_s_{size}": speed for size, speed in found.items()},
        **{f"kept_{size}": speed / found[0] for size, speed in found.items() if size},
    }


async def _steps_per_s(contender: Contender, ticks: Ticks, sizes: Sizes) -> float:
    """The median of several rounds, and of more of them where a round is short."""
    runs, steps = sizes.backlog_runs, sizes.concurrent_steps
    rounds: list[float] = []
    while len(rounds) < sizes.backlog_rounds or sum(rounds) < sizes.backlog_seconds:
        ticks.clear()
        began = time.perf_counter()
        await (await contender.concurrent(runs, steps))()
        rounds.append(time.perf_counter() - began)
        assert len(ticks.wall) == runs * steps, "Not every step was run once."
    return runs * steps / median(rounds)


async def processes(contender: Contender, _ticks: Ticks, sizes: Sizes) -> dict[str, float]:
    """Several processes beside one: what they do more in a second, and whether anything twice."""
    runs, steps = sizes.crowd_runs, sizes.concurrent_steps
    one = await contender.crowd(1, runs, steps)
    several = await contender.crowd(sizes.crowd_processes, runs, steps)
    alone, together = (runs * steps / crowd.seconds for crowd in (one, several))
    often = Counter(several.bodies)
    assert len(often) == runs * steps, "Not every body was run."
    return {
        "alone_per_s": alone,
        "together_per_s": together,
        "gain": together / alone,
        "bodies": len(several.bodies),
        "run_twice": sum(times > 1 for times in often.values()),
    }
