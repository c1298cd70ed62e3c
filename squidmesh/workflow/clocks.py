"""Whether a cron trigger names a time that comes, in a time zone that there is."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from squidmesh.domain.definition import CronTrigger, Problem, WorkflowDefinition

_SOME_DAY: Final = datetime(2026, 1, 1, tzinfo=UTC)


def clock_problems(definition: WorkflowDefinition) -> Iterator[Problem]:
    """Everything that is wrong with the expressions and time zones of *definition*."""
    for trigger in definition.triggers:
        if not isinstance(trigger, CronTrigger):
            continue
        path = ("triggers", trigger.name)
        try:
            CronSim(trigger.expression, _SOME_DAY)
        except CronSimError as error:
            message = f"{trigger.expression!r} is no cron expression: {error}"
            yield Problem((*path, "expression"), "invalid_cron_expression", message)
        try:
            ZoneInfo(trigger.timezone)
        except (LookupError, OSError, ValueError):
            message = f"there is no time zone {trigger.timezone!r}"
            yield Problem((*path, "timezone"), "invalid_timezone", message)
