"""Read models as plain JSON documents; what `--json` prints is made here."""

from collections.abc import Mapping
from datetime import datetime

import attrs

from squidmesh import Explanation, Run
from squidmesh.cli.actions import command_for
from squidmesh.cli.settings import Settings


def run_document(run: Run) -> dict[str, object]:
    """A run with all its fields; times are ISO text."""
    document: dict[str, object] = attrs.asdict(run, value_serializer=_plain)
    return document


def explanation_document(
    settings: Settings, run_id: str, explanation: Explanation
) -> dict[str, object]:
    """An explanation; each next action has the command that does it beside the Python call."""
    return {
        "run_id": run_id,
        "status": explanation.status,
        "reason": explanation.reason,
        "summary": explanation.summary,
        "step": explanation.step,
        "details": dict(explanation.details),
        "evidence": dict(explanation.evidence),
        "next_actions": [
            {
                "name": action.name,
                "call": action.call,
                "command": command_for(settings, action, run_id, explanation),
            }
            for action in explanation.next_actions
        ],
    }


def _plain(_: object, __: object, value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    return dict(value) if isinstance(value, Mapping) else value
