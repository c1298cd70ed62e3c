"""A clock's activation of a workflow: its identity, and what the run remembers of it.

Two deliveries of one activation must not make two runs. An activation is known by the scheduler's
own id, else by the window that it stands for; with neither it has no identity, which a trigger
that asks for idempotency refuses.
"""

import base64
import hashlib
from collections.abc import Mapping
from datetime import datetime

import attrs
from returns.result import Failure, Result, Success

from squidmesh.domain.definition import CronTrigger
from squidmesh.domain.values import Json, JsonObject


@attrs.frozen
class ScheduleProblem:
    """Why an activation cannot be taken: a stable code, and in words."""

    code: str
    message: str


@attrs.frozen(kw_only=True)
class Activation:
    """What the scheduler said: its own id of the activation, and the window it stands for."""

    signal_id: str | None = None
    window: Mapping[str, Json] | None = None


def activation_of(payload: Mapping[str, Json]) -> Result[Activation, ScheduleProblem]:
    """Read the optional identity of a cron payload."""
    signal_id, window = payload.get("signal_id"), payload.get("intended_window")
    if signal_id is not None and not (isinstance(signal_id, str) and signal_id):
        return Failure(
            ScheduleProblem("invalid_schedule_signal_id", "signal_id is a non-empty text")
        )
    if window is None:
        return Success(Activation(signal_id=signal_id))
    if not isinstance(window, Mapping) or not all(
        window.get(bound) is None or isinstance(window.get(bound), str)
        for bound in ("start_at", "end_at")
    ):
        return Failure(
            ScheduleProblem(
                "invalid_schedule_intended_window",
                "intended_window is a mapping whose start_at and end_at are texts",
            )
        )
    return Success(Activation(signal_id=signal_id, window=dict(window)))


def identity_of(workflow: str, trigger: str, activation: Activation) -> str | None:
    """The activation's id: the scheduler's, else one derived from a whole window, else None."""
    if activation.signal_id is not None:
        return activation.signal_id
    window = activation.window or {}
    start, end = window.get("start_at"), window.get("end_at")
    if not isinstance(start, str) or not isinstance(end, str):
        return None
    # Each part stands behind its length, so that no two different windows spell the same text.
    parts = "".join(f"{len(part)}:{part}" for part in (workflow, trigger, start, end))
    digest = hashlib.sha256(parts.encode()).digest()
    return "sha256:" + base64.urlsafe_b64encode(digest).decode().rstrip("=")


def schedule_of(
    workflow: str, trigger: CronTrigger, activation: Activation, received_at: datetime
) -> JsonObject:
    """What the run keeps under its reserved context key ``schedule``."""
    return {
        "workflow": workflow,
        "trigger": trigger.name,
        "cron_expression": trigger.expression,
        "timezone": trigger.timezone,
        "received_at": received_at.replace(microsecond=0).isoformat(),
        "signal_id": identity_of(workflow, trigger.name, activation),
        "intended_window": None if activation.window is None else dict(activation.window),
    }


def without_identity(schedule: Mapping[str, Json] | None) -> JsonObject | None:
    """The schedule as a replay keeps it: not the activation that it repeats."""
    return None if schedule is None else {**schedule, "signal_id": None}
