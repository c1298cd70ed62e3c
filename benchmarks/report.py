"""What the figures say, as tables in Markdown: medians, least and most, and ratios to the floor."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import Final, TypeAlias

import attrs

from benchmarks.figures import BUDGETS, FIGURES, MACHINE, Better, Budget, Figure
from benchmarks.registry import BY_NAME

Line: TypeAlias = Sequence[str]

TITLES: Final[Mapping[str, str]] = {
    "sequential": "sequential: one run of {sequential_steps} steps, one after the other",
    "concurrent": "concurrent: {concurrent_runs:,} runs of {concurrent_steps} steps, 64 at once",
    "long": "long: one run of {long_steps:,} steps",
    "fanout": "fanout: {fanout_width:,} steps that wait for nothing, and one that waits for all",
    "start": "start: {single_starts:,} runs one by one, {bulk_starts:,} in bulk",
    "backlog": "backlog: {backlog_runs:,} runs of {concurrent_steps} steps, beside ended ones",
    "scheduled": (
        "scheduled: {backlog_runs:,} runs of {concurrent_steps} steps, beside ones not due"
    ),
    "processes": (
        "processes: {crowd_runs:,} runs of {concurrent_steps} steps, one process and"
        " {crowd_processes} of them"
    ),
}


@attrs.frozen(kw_only=True)
class Result:
    """What one contender showed in one workload, once; no figures if it failed."""

    contender: str
    workload: str
    repeat: int
    figures: Mapping[str, float]
    failure: str | None = None


@attrs.frozen
class Report:
    """All results of one run."""

    results: Sequence[Result]
    sizes: Mapping[str, Mapping[str, object]]

    def text(self) -> str:
        """Everything worth reading."""
        parts = [
            *(self._section(workload) for workload in FIGURES if self._was_run(workload)),
            *self._budgets(),
            *self._machine(),
            *self._failures(),
        ]
        return "\n\n".join(parts)

    def _section(self, workload: str) -> str:
        title = TITLES[workload].format(**self.sizes[workload])
        names = self._names(workload)
        known = {key for name in names for _, found in self._of(name, workload) for key in found}
        shown = [figure for figure in FIGURES[workload] if figure.key in known]
        head = ["contender", *(title for figure in shown for title in self._titles(figure))]
        lines = [
            [name, *(cell for figure in shown for cell in self._cells(figure, name, workload))]
            for name in names
        ]
        return f"### {title}\n\n{_table(head, lines)}"

    def _titles(self, figure: Figure) -> Iterator[str]:
        yield figure.title
        if figure.better is not Better.NEITHER:
            yield "x floor"

    def _cells(self, figure: Figure, name: str, workload: str) -> Iterator[str]:
        found = self._values(name, workload, figure.key)
        yield _spread(list(found.values()))
        if figure.better is not Better.NEITHER:
            yield self._ratio(name, figure, found, workload)

    def _ratio(self, name: str, figure: Figure, found: Mapping[int, float], workload: str) -> str:
        """How many times the floor's cost it is: the median of what each round says.

        The floor ran a moment before or after, so a round's ratio bears the machine's moods.
        """
        floor = self._values(BY_NAME[name].floor, workload, figure.key)
        rounds = [
            found[repeat] / floor[repeat]
            if figure.better is Better.LESS
            else floor[repeat] / found[repeat]
            for repeat in found
            if floor.get(repeat) and found[repeat]
        ]
        return shown(median(rounds)) if rounds else "-"

    def _budgets(self) -> Iterator[str]:
        for store, title in (("sqlite", "SQLite"), ("postgres", "PostgreSQL")):
            lines = []
            for budget in BUDGETS:
                values = list(self._values(store, budget.workload, budget.key).values())
                if budget.store == store and values:
                    lines.append(_budget_line(budget, median(values)))
            if lines:
                yield f"### budgets on {title}\n\n{_table(('', 'budget', 'median', ''), lines)}"

    def _machine(self) -> Iterator[str]:
        lines = []
        for figure in MACHINE:
            values = [
                result.figures[figure.key]
                for result in self.results
                if figure.key in result.figures
            ]
            if values:
                lines.append([figure.title, _spread(values)])
        if lines:
            yield f"### the machine meanwhile\n\n{_table(('', 'median'), lines)}"

    def _failures(self) -> Iterator[str]:
        for result in self.results:
            if result.failure is not None:
                yield f"{result.contender} failed in {result.workload}:\n{result.failure}"

    def _was_run(self, workload: str) -> bool:
        """Whether anybody among those asked has such a thing."""
        found = (result for result in self.results if result.workload == workload)
        return any(result.figures or result.failure is not None for result in found)

    def _names(self, workload: str) -> list[str]:
        """Who took part, in the order in which they did."""
        names = (result.contender for result in self.results if result.workload == workload)
        return list(dict.fromkeys(names))

    def _of(self, name: str, workload: str) -> Iterator[tuple[int, Mapping[str, float]]]:
        for result in self.results:
            if result.contender == name and result.workload == workload:
                yield result.repeat, result.figures

    def _values(self, name: str, workload: str, key: str) -> dict[int, float]:
        found = self._of(name, workload)
        return {repeat: figures[key] for repeat, figures in found if key in figures}


def shown(value: float) -> str:
    """A number with as many digits as mean something."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    least, most = shown(min(values)), shown(max(values))
    middle = shown(median(values))
    return middle if least == most else f"{middle} ({least}..{most})"


def _budget_line(budget: Budget, value: float) -> Line:
    verdict = "held" if budget.holds(value) else "missed"
    return [f"{budget.workload}: {budget.title}", budget.limit, shown(value), verdict]


def _table(head: Line, lines: Iterable[Line]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
