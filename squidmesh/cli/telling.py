"""Entries of a journal in words, for whoever watches them come."""

from collections.abc import Callable, Mapping
from typing import Final

from squidmesh import Entry
from squidmesh.cli.layout import Span
from squidmesh.cli.moments import from_text, span_of
from squidmesh.cli.styles import style_of
from squidmesh.cli.values import error_told

_AFTER_FAILURE: Final = {
    "retry": "it will be tried again",
    "route": "the error route is taken",
    "fail": "the run fails",
}

_SENTENCES: Final = {
    "attempt_claimed": ("attempt {attempt_number} begins", "running"),
    "attempt_completed": ("completed", "completed"),
    "attempt_cancelled": ("cancelled", "cancelled"),
    "manual_step_paused": ("waits for a person ({kind})", "paused"),
}
"""Of entries about a step, whose fields stand in braces; the end of a run is told otherwise."""


def sentence_of(entry: Entry) -> Span | None:
    """What happened, None for what is only bookkeeping."""
    if entry.type in _SENTENCES:
        sentence, status = _SENTENCES[entry.type]
        return _said(entry.data, sentence.format_map(entry.data), status)
    tell = _TELLERS.get(entry.type)
    return None if tell is None else tell(entry)


def _said(data: Mapping[str, object], what: str, status: str) -> Span:
    return Span(f"{data.get('step')}  {what}", style_of(status))


def _scheduled(entry: Entry) -> Span | None:
    """An attempt is worth a line of its own if it is not due at once."""
    due = from_text(entry.data.get("visible_at"))
    if due is None or due <= entry.at:
        return None
    number = entry.data.get("attempt_number")
    return _said(entry.data, f"attempt {number} is due in {span_of(due - entry.at)}", "scheduled")


def _failed(entry: Entry) -> Span:
    data = entry.data
    error = data.get("error")
    what = "failed" if entry.type == "attempt_failed" else "lost its worker"
    told = f": {error_told(error)}" if isinstance(error, Mapping) else ""
    then = _AFTER_FAILURE.get(str(data.get("then")), "")
    follows = f"; {then}" if then else ""
    number = data.get("attempt_number")
    return _said(data, f"attempt {number} {what}{told}{follows}", "failed")


def _decided(entry: Entry) -> Span:
    data = entry.data
    by = f" by {data['actor']}" if data.get("actor") is not None else ""
    comment = f": {data['comment']}" if data.get("comment") else ""
    step = f"{data['step']}  " if data.get("step") else ""
    what = {
        "cancel_requested": "asked to stop",
        "run_replayed": f"replayed as {data.get('new_run_id')}",
    }.get(entry.type, str(data.get("action")))
    return Span(f"{step}{what}{by}{comment}", style_of("paused"))


def _deferred(entry: Entry) -> Span:
    reason = entry.data.get("reason")
    return _said(entry.data, f"put off{f': {reason}' if reason else ''}", "scheduled")


def _started(entry: Entry) -> Span:
    return Span(f"started by {entry.data.get('trigger')}")


def _undone(entry: Entry) -> Span:
    return Span(f"undoing {_names(entry.data.get('steps'))}", style_of("compensating"))


def _routed(entry: Entry) -> Span:
    return _said(entry.data, f"leads to {entry.data.get('target') or 'the end'}", "skipped")


def _names(steps: object) -> str:
    return ", ".join(str(step) for step in steps) if isinstance(steps, list) else ""


_TELLERS: Final[Mapping[str, Callable[[Entry], Span | None]]] = {
    "run_started": _started,
    "attempt_scheduled": _scheduled,
    "attempt_failed": _failed,
    "attempt_lost": _failed,
    "attempt_deferred": _deferred,
    "manual_step_resolved": _decided,
    "cancel_requested": _decided,
    "run_replayed": _decided,
    "compensation_planned": _undone,
    "step_routed": _routed,
}
