"""What the demo shows in the end: for people as text, for programs as one JSON document."""

import contextlib
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import attrs

from squidmesh import Attempt, Explanation, Run, RunGraph

from .audit import Audit, Repetition  # noqa: TID252  the package lives at two addresses
from .screen import Screen  # noqa: TID252

MOST_SAMPLES: Final = 8


@attrs.frozen(kw_only=True)
class Kill:
    """When which worker was killed, and how many runs had ended by then."""

    at: datetime
    pid: int
    ended_before: int


@attrs.frozen(kw_only=True)
class Report:
    """All that the demo found out."""

    seconds: float
    seed: int
    url: str
    ledger: str
    workers: tuple[int, ...]
    kill: Kill | None
    statuses: Mapping[str, int]
    decisions: Mapping[str, int]
    audit: Audit
    run: Run
    explanation: Explanation | None
    graph: RunGraph


def most_telling(runs: Sequence[Run], explanations: Mapping[str, Explanation]) -> Run:
    """The run to show: one that waited for a person, and lived through as much as possible."""

    def tells(run: Run) -> tuple[bool, bool, bool, int]:
        attempts = run.attempts or ()
        return (
            run.id in explanations,
            any(attempt.status == "lost" for attempt in attempts),
            any(attempt.step.startswith("compensate:") for attempt in attempts),
            len(attempts),
        )

    return max(runs, key=tells)


def show(report: Report, screen: Screen) -> None:
    """Write the report for people."""
    _show_statuses(report, screen)
    _show_effects(report, screen)
    _show_checks(report, screen)
    _show_history(report, screen)
    _show_explanation(report, screen)
    _show_graph(report, screen)
    _show_next(report, screen)


def _show_statuses(report: Report, screen: Screen) -> None:
    total = sum(report.statuses.values())
    screen.title(f"{total} runs ended in {report.seconds:.1f} s")
    meaning = {
        "completed": "paid, paid after a credit, or left to a person",
        "failed": "the card refused for good; the credit was withdrawn",
    }
    screen.table(
        [
            [status, str(n), meaning.get(status, "")]
            for status, n in sorted(report.statuses.items())
        ],
        right=[1],
    )
    decided = " and ".join(f"{n} {decision}" for decision, n in report.decisions.items())
    if decided:
        screen.say(
            f"  {sum(report.decisions.values())} waited for a person: {decided} by the demo."
        )
    if report.kill is not None:
        screen.say(
            f"  When worker 1 was killed, {report.kill.ended_before} runs had ended. It took"
            f" {report.audit.lost_attempts} attempts with it, which were made again."
        )


def _show_effects(report: Report, screen: Screen) -> None:
    found = report.audit
    screen.title("What the gateway was asked for, and what it did")
    done = ", ".join(f"{n} {kind}s" for kind, n in found.effects.items())
    screen.say(f"  {found.requests} requests came under {found.keys} idempotency keys.")
    screen.say(f"  It did what they asked for once each: {done}.")
    again = Counter(_because(one.causes, counted=False) for one in found.repetitions)
    because = ", ".join(f"{n} because of {cause}" for cause, n in again.most_common())
    if because:
        screen.say(f"  {len(found.repetitions)} keys came more than once:")
        screen.say(f"  {because}. Such as:")
        header = ("invoice", "asked for", "requests", "done", "attempts", "because of")
        rows = [_row(one) for one in _samples(found.repetitions)]
        screen.table(rows, header=header, right=[2, 3, 4])


def _because(causes: Mapping[str, int], *, counted: bool) -> str:
    if not causes:
        return "nothing that is known"
    plurals = {"retry": "retries", "kill": "kills", "lost lease": "lost leases"}
    if not counted:
        return " and ".join("the kill" if cause == "kill" else plurals[cause] for cause in causes)
    return " and ".join(f"{n} {cause if n == 1 else plurals[cause]}" for cause, n in causes.items())


def _samples(repetitions: Sequence[Repetition]) -> Sequence[Repetition]:
    """What nothing explains, then one of each pattern of causes, those asked for most first."""
    ordered = sorted(repetitions, key=lambda one: (one.is_explained, -one.requests))
    patterns: dict[object, Repetition] = {}
    for one in ordered:
        pattern = tuple(one.causes.items()) if one.is_explained else one.key
        patterns.setdefault(pattern, one)
    return list(patterns.values())[:MOST_SAMPLES]


def _row(one: Repetition) -> list[str]:
    numbers = (one.requests, one.effects, one.attempts)
    return [one.invoice, one.kind, *map(str, numbers), _because(one.causes, counted=True)]


def _show_checks(report: Report, screen: Screen) -> None:
    screen.title("The runs' histories, compared with the gateway's ledger")
    for check in report.audit.checks:
        screen.say(f"  {'yes' if check.holds else 'NO '}  {check.promise}")
        for exception in check.exceptions[:MOST_SAMPLES]:
            screen.say(f"         but {exception}")
    if report.audit.is_clean:
        screen.say("  Nothing was lost, and nothing was done twice.")


def _show_history(report: Report, screen: Screen) -> None:
    run = report.run
    screen.title(f"The history of one run: {run.payload['invoice_id']}")
    screen.say(f"  {run.id} is {run.status}.")
    screen.table(list(history(run, report.workers)), right=[0])


def history(run: Run, workers: Sequence[int]) -> Iterator[list[str]]:
    """What happened to the run, in order: when, at which step, what, and who did it."""
    told: list[tuple[datetime, list[str]]] = []
    for event in run.audit_events or ():
        said = event.type.replace("_", " ")
        comment = f', "{event.comment}"' if event.comment else ""
        told.append((event.at, [event.step or "", f"{said}{comment}", str(event.actor or "")]))
    for attempt in run.attempts or ():
        at = attempt.claimed_at or attempt.scheduled_at
        told.append((at, [_name(attempt), _fate(attempt), _holder(attempt, workers)]))
    for at, words in sorted(told, key=lambda one: one[0]):
        yield [f"{(at - run.started_at).total_seconds():.2f} s", *words]


def _name(attempt: Attempt) -> str:
    return attempt.step if attempt.number == 1 else f"{attempt.step}, attempt {attempt.number}"


def _fate(attempt: Attempt) -> str:
    if attempt.status == "lost":
        return "lost with its worker"
    if attempt.error is not None:
        return f"{attempt.status}: {_reason(attempt.error)}"
    if attempt.ended_at is None or attempt.claimed_at is None:
        return attempt.status
    took = (attempt.ended_at - attempt.claimed_at).total_seconds()
    return f"{attempt.status} in {took * 1000:.0f} ms"


def _reason(error: Mapping[str, object]) -> str:
    """The first line of the message; an exception that has none is known by its type."""
    message = str(error["message"]).strip() or str(error["type"])
    return message.splitlines()[0]


def _holder(attempt: Attempt, workers: Sequence[int]) -> str:
    """Which of the demo's workers held the attempt: its name holds the process's id."""
    for number, pid in enumerate(workers, start=1):
        if attempt.owner is not None and f"-{pid}-" in attempt.owner:
            return f"worker {number}"
    return attempt.owner or ""


def _show_explanation(report: Report, screen: Screen) -> None:
    explanation = report.explanation
    if explanation is None:
        return
    screen.title("Its explanation, while it waited for somebody to decide")
    screen.say(f"  {explanation.summary}")
    screen.say(f"  status {explanation.status}, reason {explanation.reason}")
    for action in explanation.next_actions:
        screen.say(f"  {action.name:<12} {action.call}")


def _show_graph(report: Report, screen: Screen) -> None:
    screen.title("Its graph; ==> is the way that it went")
    screen.table(list(graph_lines(report.graph)))


def graph_lines(graph: RunGraph) -> Iterator[list[str]]:
    """The graph as rows: each step, and under it the ways out of it."""
    for node in graph.nodes:
        kind = "" if node.kind == "action" else f" ({node.kind})"
        yield [f"{node.id}{kind}", node.status]
        for edge in graph.edges:
            if edge.source == node.id:
                arrow = "==>" if edge.status == "selected" else "-->"
                yield [f"  {arrow} {edge.target}", f"  on {edge.on}{_condition(edge.condition)}"]


def _condition(condition: Mapping[str, Any] | None) -> str:
    if condition is None:
        return ""
    signs = {"equals": "=", "greater_than": ">", "less_than": "<"}
    asked = [f"{signs[name]} {value}" for name, value in condition.items() if name in signs]
    return " ".join([", if", ".".join(condition["path"]), *asked])


def _show_next(report: Report, screen: Screen) -> None:
    screen.title("To look further")
    for line in _next(report):
        screen.say(f"  {line}")


def _next(report: Report) -> Iterable[str]:
    command = _command()
    yield f"export SQUIDMESH_URL={report.url}"
    yield f"{command} runs list --status failed"
    yield f"{command} runs show {report.run.id}"
    yield f"{command} runs explain {report.run.id}"
    yield f"{command} runs graph {report.run.id}"
    yield f"less {report.ledger}"


def _command() -> str:
    """How to call the command line from where the reader stands."""
    if shutil.which("squidmesh") is not None:
        return "squidmesh"
    beside = Path(sys.executable).with_name("squidmesh")
    if not beside.exists():
        return f"{sys.executable} -m squidmesh"
    with contextlib.suppress(ValueError):
        beside = beside.relative_to(Path.cwd())
    return str(beside)


def as_json(report: Report) -> dict[str, Any]:
    """The report for programs."""
    found, kill = report.audit, report.kill
    return {
        "ok": found.is_clean,
        "seconds": round(report.seconds, 2),
        "seed": report.seed,
        "url": report.url,
        "ledger": report.ledger,
        "workers": list(report.workers),
        "kill": None
        if kill is None
        else {"at": kill.at.isoformat(), "pid": kill.pid, "ended_before": kill.ended_before},
        "runs": dict(report.statuses),
        "decisions": dict(report.decisions),
        "gateway": {
            "keys": found.keys,
            "requests": found.requests,
            "effects": dict(found.effects),
            "lost_attempts": found.lost_attempts,
            "repeated": [
                {**attrs.asdict(one), "causes": dict(one.causes), "explained": one.is_explained}
                for one in found.repetitions
            ],
        },
        "checks": [
            {"promise": one.promise, "holds": one.holds, "exceptions": list(one.exceptions)}
            for one in found.checks
        ],
        "run": {
            "id": report.run.id,
            "status": report.run.status,
            "history": list(history(report.run, report.workers)),
            "explanation": None if report.explanation is None else attrs.asdict(report.explanation),
            "graph": report.graph.to_dict(),
            "mermaid": report.graph.to_mermaid(),
        },
        "next": list(_next(report)),
    }
