"""A run as a tree: one line for each step, with where it leads and how far it has come."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Final, TypeVar

import attrs

from squidmesh import Attempt, Run, RunGraph, Step
from squidmesh.cli.layout import Branch, Line, Span, padded, words
from squidmesh.cli.moments import span_of
from squidmesh.cli.styles import bold, dim, marked, style_of
from squidmesh.cli.values import pairs

END: Final = "complete"
OVER: Final = frozenset({"completed", "failed", "cancelled"})
_LONGEST_NAME: Final = 40

Item = TypeVar("Item")


@attrs.frozen
class _Way:
    """A way out of a step, in words; *plain* says that it is the usual one."""

    target: str
    text: str
    status: str
    plain: bool


def picture(
    run: Run,
    graph: RunGraph,
    now: datetime,
    *,
    root: Line | None = None,
    most: int | None = None,
) -> Branch:
    """The run, or *root*, with the steps below it; *run* has to carry its history.

    Of more than *most* steps, those around the first that is not over are shown.
    """
    steps = run.steps or ()
    ways = _grouped(_ways(graph), lambda way: way[0])
    columns = max((len(step.name) for step in steps), default=0)
    shown, above, below = _window(steps, most)
    children = [
        _step(step, [way for _, way in ways.get(step.name, ())], now, min(columns, _LONGEST_NAME))
        for step in shown
    ]
    if above:
        children.insert(0, Branch(words(dim(f"… {_steps(above)} above"))))
    if below:
        children.append(Branch(words(dim(f"… {_steps(below)} below"))))
    return Branch(title(run) if root is None else root, tuple(children))


def _steps(count: int) -> str:
    return "1 step" if count == 1 else f"{count} steps"


def title(run: Run) -> Line:
    """A run's name, status and id."""
    return words(bold(run.workflow), "  ", *marked(run.status), "  ", dim(run.id))


def _window(steps: tuple[Step, ...], most: int | None) -> tuple[tuple[Step, ...], int, int]:
    if most is None or len(steps) <= most:
        return steps, 0, 0
    at = next((n for n, step in enumerate(steps) if step.status not in OVER), len(steps))
    first = max(min(at - most // 2, len(steps) - most), 0)
    shown = steps[first : first + most]
    return shown, first, len(steps) - first - len(shown)


def _step(step: Step, ways: list[_Way], now: datetime, columns: int) -> Branch:
    usual = next((way for way in ways if way.plain), None)
    label = (
        *padded(words(Span(step.name, _name_style(step))), columns),
        Span("  "),
        *padded(marked(step.status), len("x completed")),
        *_remarks(step, usual, now),
    )
    others = tuple(Branch(_way_line(way)) for way in ways if way is not usual)
    return Branch(label, others)


def _name_style(step: Step) -> str:
    return "bold" if step.status in ("running", "retrying", "paused", "failed") else ""


def _remarks(step: Step, usual: _Way | None, now: datetime) -> Iterator[Span]:
    if step.kind != "action":
        yield dim(f"  {step.kind}")
    if len(step.attempts) > 1:
        yield Span(f"  attempt {len(step.attempts)}")
    if step.deliveries:
        yield Span(f"  {step.deliveries} lost", "yellow")
    if step.attempts:
        yield from _timing(step.attempts[-1], now, since_scheduled=step.kind == "wait")
    if step.error is not None:
        yield Span(f"  {step.error['code']}", style_of("failed"))
    if step.depends_on:
        yield dim(f"  after {', '.join(step.depends_on)}")
    if usual is not None:
        yield Span(f"  → {_target(usual.target)}", "" if usual.status == "selected" else "dim")


def _timing(attempt: Attempt, now: datetime, *, since_scheduled: bool) -> Iterator[Span]:
    """How long it took, or takes; what a timer takes is the time until it was due."""
    if attempt.claimed_at is not None:
        begin = attempt.scheduled_at if since_scheduled else attempt.claimed_at
        yield dim(f"  {span_of((attempt.ended_at or now) - begin)}")
    elif attempt.ended_at is None and attempt.visible_at > now:
        yield Span(f"  due in {span_of(attempt.visible_at - now)}", "cyan")
    elif attempt.ended_at is None:
        yield dim(f"  due for {span_of(now - attempt.visible_at)}")


def _ways(graph: RunGraph) -> Iterator[tuple[str, _Way]]:
    seen: set[str] = set()
    for edge in graph.edges:
        if edge.type == "dependency":
            continue  # said at the step that waits
        is_plain = edge.on == "ok" and edge.condition is None and edge.recovery is None
        text = f"on {edge.on}{_condition(edge.condition)}"
        target = _target(edge.target)
        marker = f" ({edge.recovery})" if edge.recovery else ""
        usual = is_plain and edge.source not in seen
        if usual:
            seen.add(edge.source)
        yield edge.source, _Way(edge.target, f"{text} → {target}{marker}", edge.status, usual)


def _condition(condition: Mapping[str, object] | None) -> str:
    if condition is None:
        return ""
    path = condition.get("path")
    where = ".".join(str(part) for part in path) if isinstance(path, list) else str(path)
    rest = {key.replace("_", " "): value for key, value in condition.items() if key != "path"}
    return f" when {where} {pairs(rest).replace('=', ' ')}"


def _way_line(way: _Way) -> Line:
    match way.status:
        case "selected":
            return words(Span(f"{way.text}  ✓ taken", style_of("completed")))
        case "skipped":
            return words(dim(f"{way.text}  not taken"))
        case "blocked":
            return words(dim(f"{way.text}  blocked"))
        case _:
            return words(dim(way.text))


def _target(target: str) -> str:
    return "the end" if target == END else target


def _grouped(items: Iterable[Item], key: Callable[[Item], str]) -> Mapping[str, list[Item]]:
    groups: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups
