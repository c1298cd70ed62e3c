"""`squidmesh runs show`: all there is to know about one run."""

from collections.abc import Iterator
from datetime import datetime
from typing import Final

import click

from squidmesh import Attempt, Entry, Explanation, Run, RunGraph, SquidMesh
from squidmesh.cli.documents import explanation_document, run_document
from squidmesh.cli.explain import next_rows, reason_told
from squidmesh.cli.finding import find_run
from squidmesh.cli.layout import Block, Line, Sheet, Table, words
from squidmesh.cli.moments import clock_time, now, shortened, span_of, stamp
from squidmesh.cli.opening import ask
from squidmesh.cli.options import run_argument, store_options
from squidmesh.cli.pictures import picture, title
from squidmesh.cli.settings import Settings
from squidmesh.cli.styles import bold, marked
from squidmesh.cli.values import compact, error_told, pairs


@click.command()
@run_argument
@click.option("--history", is_flag=True, help="Also every entry of the run's journal.")
@store_options
@click.pass_obj
def show(settings: Settings, run: str, *, history: bool) -> None:
    """Show a run: steps, attempts, decisions, error, and why it is there."""
    terminal = settings.terminal

    async def question(mesh: SquidMesh) -> tuple[Run, RunGraph, Explanation]:
        run_id = await find_run(mesh, run, settings)
        return (
            await mesh.inspect_run(run_id, include_history=True),
            await mesh.graph(run_id),
            await mesh.explain_run(run_id),
        )

    found, drawn, explanation = ask(settings, question)
    if terminal.json:
        document = run_document(found)
        if not history:
            del document["entries"]
        document["graph"] = drawn.to_dict()
        document["explanation"] = explanation_document(settings, found.id, explanation)
        terminal.document(document)
        return
    at = now()
    terminal.show(
        title(found),
        Sheet(tuple(_facts(found, explanation, at))),
        words(),
        picture(found, drawn, at, root=words(bold("Steps"))),
        *_chapter("Attempts", _attempts(found.attempts or ())),
        *_chapter("Audit", _audit(found)),
        *(_chapter("History", _history(found.entries or ())) if history else ()),
        *_next(settings, found, explanation),
    )


def _facts(run: Run, explanation: Explanation, at: datetime) -> Iterator[tuple[str, Line]]:
    yield "Why", words(f"{reason_told(explanation.reason)}. {shortened(explanation.summary)}")
    if run.error is not None:
        step = f"{run.error['step']}: " if run.error.get("step") else ""
        yield "Error", words(f"{step}{error_told(run.error)}")
    started = f"{stamp(run.started_at)}, {span_of(at - run.started_at)} ago, by {run.trigger}"
    yield "Started", words(started)
    if run.ended_at is not None:
        took = span_of(run.ended_at - run.started_at)
        yield "Ended", words(f"{stamp(run.ended_at)}, after {took}")
    marks = {
        "version": run.version,
        "queue": run.queue,
        "priority": run.priority or None,
        "revision": run.revision,
    }
    yield "Under", words(pairs(marks))
    if run.replayed_from is not None:
        yield "Repeats", words(run.replayed_from)
    if run.tags:
        yield "Tags", words(pairs(run.tags))
    yield "Payload", words(compact(run.payload))
    yield "Context", words(compact(run.context))


def _next(settings: Settings, run: Run, explanation: Explanation) -> tuple[Block, ...]:
    rows = tuple(next_rows(settings, run.id, explanation, run.steps or ()))
    return (words(), Sheet(rows)) if rows else ()


def _chapter(name: str, block: Block | None) -> tuple[Block, ...]:
    return () if block is None else (words(), words(bold(name)), block)


def _attempts(attempts: tuple[Attempt, ...]) -> Table | None:
    if not attempts:
        return None
    head = ("step", "n", "status", "due", "waited", "took", "worker", "error")
    rows = tuple(_attempt(attempt) for attempt in attempts)
    return Table(head, rows, ("worker", "waited", "due"))


def _attempt(attempt: Attempt) -> tuple[Line, ...]:
    claimed, ended = attempt.claimed_at, attempt.ended_at
    return (
        words(attempt.step),
        words(str(attempt.number)),
        marked(attempt.status),
        words(clock_time(attempt.visible_at)),
        words(span_of(claimed - attempt.visible_at) if claimed else ""),
        words(span_of(ended - claimed) if claimed and ended else ""),
        words(attempt.owner or ""),
        words(error_told(attempt.error) if attempt.error is not None else ""),
    )


def _audit(run: Run) -> Table | None:
    if not run.audit_events:
        return None
    rows = tuple(
        (
            words(stamp(event.at)),
            words(event.type),
            words(event.step or ""),
            words("" if event.actor is None else _actor(event.actor)),
            words(event.comment or ""),
            words(pairs(event.metadata)),
        )
        for event in run.audit_events
    )
    return Table(("at", "what", "step", "who", "comment", "metadata"), rows)


def _actor(actor: object) -> str:
    return actor if isinstance(actor, str) else compact(actor)


def _history(entries: tuple[Entry, ...]) -> Table:
    rows = tuple(
        (
            words(str(entry.seq)),
            words(clock_time(entry.at)),
            words(entry.type),
            words(pairs(_worth_reading(entry))),
        )
        for entry in entries
    )
    return Table(("seq", "at", "entry", "data"), rows)


def _worth_reading(entry: Entry) -> dict[str, object]:
    """An entry's fields, without what its row says already and what only programs compare."""
    ordinary = {"visit": 1, "priority": 0, "queue": "default"}
    return {
        key: value
        for key, value in entry.data.items()
        if key not in _FOR_PROGRAMS and (key not in ordinary or ordinary[key] != value)
    }


_FOR_PROGRAMS: Final = frozenset(
    {
        "run_id",
        "runnable_key",
        "idempotency_key",
        "retry_runnable_key",
        "runnables",
        "at",
        "applied_at",
        "claim_id",
        "claim_token_hash",
        "fingerprint",
    }
)
