"""Read models as plain JSON documents; what `--json` prints is made here."""

from collections.abc import Mapping
from datetime import datetime

import attrs

from squidmesh import CheckReport, Explanation, Preview, Run, VersionCheck
from squidmesh.cli.actions import command_for
from squidmesh.cli.settings import Settings


def run_document(run: Run) -> dict[str, object]:
    """A run with all its fields; times are ISO text."""
    document: dict[str, object] = attrs.asdict(run, value_serializer=_plain)
    return document


def preview_document(preview: Preview) -> dict[str, object]:
    """What a command would write and repeat; times are ISO text, and those of now."""
    document: dict[str, object] = attrs.asdict(preview, value_serializer=_plain)
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


def check_document(report: CheckReport) -> dict[str, object]:
    """A report with all its fields; what many runs meet stands in it once, with their count."""
    return {
        "ok": report.ok,
        "runs": report.runs,
        "blocked": report.blocked,
        "versions": [_version_document(version) for version in report.versions],
    }


def _version_document(version: VersionCheck) -> dict[str, object]:
    document = {
        field.name: getattr(version, field.name)
        for field in attrs.fields(VersionCheck)
        if field.name not in ("listed", "obstacles")
    }
    document["obstacles"] = [
        {**attrs.asdict(obstacle), "runs": runs} for obstacle, runs in version.obstacles.items()
    ]
    document["listed"] = [attrs.asdict(run) for run in version.listed]
    return document


def _plain(_: object, __: object, value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    return dict(value) if isinstance(value, Mapping) else value
