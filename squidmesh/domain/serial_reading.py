"""Definitions out of plain JSON that anybody may have written.

Everything malformed is noted with its path; what can be read in spite of it is, with harmless
stand-ins for the rest, so that a definition can still be validated as a whole.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from squidmesh.domain.definition import (
    COMPENSATION_RETRY,
    ONCE,
    Action,
    Approval,
    Body,
    CompensationSpec,
    Condition,
    CronIdempotency,
    CronTrigger,
    Log,
    LogLevel,
    ManualTrigger,
    On,
    Operator,
    Parameter,
    Pause,
    Problem,
    RecoveryMarker,
    RetryPolicy,
    StepKind,
    StepSpec,
    Transition,
    Trigger,
    Wait,
    WorkflowDefinition,
)
from squidmesh.domain.reading import MALFORMED, Path, Section
from squidmesh.domain.serial_types import read_contract
from squidmesh.domain.values import Json

FORMAT: Final = 1
"""Of the dictionaries that are read and written; an older one is read, a newer one refused."""

END: Final = "complete"
"""What stands for the end of a run as the target of a transition."""

_SOME_TIME: Final = timedelta(seconds=1)

_TOP: Final = ("format", "name", "version", "triggers", "steps", "transitions")
_TRIGGER: Final = ("name", "kind", "payload", "expression", "timezone", "idempotency")
_BODY: Final = ("action", "parameters")
_STEP: Final = (
    "name", "kind", "inputs", "output", "retry", "timeout", "after", "compensate",
    "irreversible", "compensatable", "transaction", "queue",
)  # fmt: skip
_KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "action": (*_BODY, "merges"),
    "wait": ("duration",),
    "log": ("message", "level"),
    "pause": (),
    "approval": (),
}
_RETRY: Final = ("max_attempts", "backoff_min", "backoff_max", "jitter")
_TRANSITION: Final = ("from", "on", "to", "when", "recovery")


def read_definition(data: Json) -> tuple[WorkflowDefinition, tuple[Problem, ...]]:
    """As much of a definition as *data* describes, and everything that is malformed about it."""
    problems: list[Problem] = []
    top = Section.of(data, (), problems, known=_TOP)
    if top.whole("format", MALFORMED, FORMAT) > FORMAT:
        top.note("format", MALFORMED, "was written by a newer release")
    definition = WorkflowDefinition(
        name=top.text("name", "invalid_name"),
        version=top.optional_text("version", "invalid_name"),
        triggers=tuple(_trigger(item, path, problems) for path, item in top.items("triggers")),
        steps=tuple(_step(item, path, problems) for path, item in top.items("steps")),
        transitions=tuple(
            _transition(item, path, problems) for path, item in top.items("transitions")
        ),
    )
    return definition, tuple(problems)


def _named(value: Json, path: Path) -> Path:
    """The path of something that has a name, by that name rather than by its number."""
    name = value.get("name") if isinstance(value, dict) else None
    return (*path[:-1], name) if isinstance(name, str) else path


def _trigger(value: Json, path: Path, problems: list[Problem]) -> Trigger:
    section = Section.of(value, _named(value, path), problems, known=_TRIGGER)
    name = section.text("name", "invalid_name")
    payload = read_contract(section.data.get("payload"), (*section.path, "payload"), problems)
    if section.data.get("kind") != "cron":
        if section.data.get("kind") != "manual":
            section.note("kind", MALFORMED, "must be manual or cron")
        for key in sorted(section.data.keys() & {"expression", "timezone", "idempotency"}):
            section.note(key, MALFORMED, "belongs to a trigger of the kind cron")
        return ManualTrigger(name=name, payload=payload)
    idempotency = None
    if section.data.get("idempotency") is not None:
        idempotency = section.choice("idempotency", "invalid_idempotency", CronIdempotency)
    return CronTrigger(
        name=name,
        payload=payload,
        expression=section.text("expression", "invalid_cron_expression", stand_in="* * * * *"),
        timezone=section.text("timezone", "invalid_timezone", stand_in="UTC")
        if "timezone" in section.data
        else "UTC",
        idempotency=idempotency,
    )


def _step(value: Json, path: Path, problems: list[Problem]) -> StepSpec:
    here = _named(value, path)
    kind = value.get("kind") if isinstance(value, dict) else None
    options = _KINDS.get(kind) if isinstance(kind, str) else None
    every = {option for some in _KINDS.values() for option in some}
    section = Section.of(
        value, here, problems, known={*_STEP, *(every if options is None else options)}
    )
    irreversible = section.flag("irreversible", "recovery_conflict", default=False)
    return StepSpec(
        name=section.text("name", "invalid_name"),
        kind=_kind(section),
        inputs=_inputs(section),
        output=section.optional_text("output", "invalid_output"),
        retry=_retry(section, ONCE),
        timeout=section.duration("timeout", "invalid_timeout"),
        after=section.keys("after", "unknown_dependency"),
        compensation=_compensation(section),
        irreversible=irreversible,
        compensatable=section.flag("compensatable", "recovery_conflict", default=not irreversible),
        transaction=section.flag("transaction", "invalid_transaction", default=False),
        queue=section.optional_text("queue", "invalid_queue"),
    )


def _kind(section: Section) -> StepKind:
    kind = section.data.get("kind")
    if kind == "wait":
        return _wait(section)
    if kind == "log":
        return _log(section)
    if kind == "pause":
        return Pause()
    if kind == "approval":
        return Approval()
    if kind != "action":
        section.note("kind", "invalid_action", f"must be one of {', '.join(_KINDS)}")
        return Action(body=Body(key="?"))
    return Action(
        body=_body(section, "invalid_action"), merges=section.keys("merges", "invalid_output")
    )


def _wait(section: Section) -> Wait:
    duration = section.duration("duration", "invalid_wait_duration")
    if section.data.get("duration") is None:
        section.note("duration", "invalid_wait_duration", "must be a number of seconds")
    return Wait(_SOME_TIME if duration is None else duration)


def _log(section: Section) -> Log:
    message = section.text("message", "invalid_log", stand_in="?")
    if "level" not in section.data:
        return Log(message)
    return Log(message, section.choice("level", "invalid_log", LogLevel) or LogLevel.INFO)


def _body(section: Section, code: str) -> Body:
    known = ("name", "required", "context")
    parameters = [
        Section.of(item, path, section.problems, known=known, code=code)
        for path, item in section.items("parameters", code)
    ]
    return Body(
        key=section.text("action", code, stand_in="?"),
        parameters=tuple(
            Parameter(
                one.text("name", code),
                required=one.flag("required", code, default=True),
                is_context=one.flag("context", code, default=False),
            )
            for one in parameters
        ),
    )


def _inputs(section: Section) -> Mapping[str, tuple[str, ...]]:
    code = "invalid_inputs"
    given = section.data.get("inputs", {})
    if not isinstance(given, dict):
        section.note("inputs", code, "must be an object of paths")
        return {}
    inner = Section(given, (*section.path, "inputs"), section.problems)
    return {parameter: _way(inner, parameter, code) for parameter in given}


def _way(section: Section, key: str, code: str) -> tuple[str, ...]:
    """A path to a value: a list of keys, or one text with dots between them.

    What is no path becomes the empty one, to which the rules object at the same place.
    """
    value = section.data.get(key)
    if isinstance(value, str):
        return tuple(value.split("."))
    if not isinstance(value, list) or not value:
        section.note(key, code, "must be a path: keys in a list, or text with dots between them")
        return ()
    return section.keys(key, code) or ()


def _retry(section: Section, default: RetryPolicy) -> RetryPolicy:
    value = section.data.get("retry")
    if value is None:
        return default
    code = "invalid_retry"
    inner = Section.of(value, (*section.path, "retry"), section.problems, known=_RETRY, code=code)
    return RetryPolicy(
        max_attempts=inner.whole("max_attempts", code, 1),
        backoff_min=inner.duration("backoff_min", code) or timedelta(0),
        backoff_max=inner.duration("backoff_max", code),
        jitter=inner.number("jitter", code, 0.0),
    )


def _compensation(section: Section) -> CompensationSpec | None:
    value = section.data.get("compensate")
    if value is None:
        return None
    if isinstance(value, str):
        return CompensationSpec(body=Body(key=value))
    code = "invalid_compensation"
    inner = Section.of(
        value,
        (*section.path, "compensate"),
        section.problems,
        known=(*_BODY, "retry"),
        code=code,
    )
    return CompensationSpec(body=_body(inner, code), retry=_retry(inner, COMPENSATION_RETRY))


def _transition(value: Json, path: Path, problems: list[Problem]) -> Transition:
    section = Section.of(value, path, problems, known=_TRANSITION, code="unknown_step")
    source = section.text("from", "unknown_step")
    target: str | None = None
    if "to" not in section.data or section.data["to"] is not None:
        target = section.text("to", "unknown_step", stand_in=END)
    recovery = None
    if section.data.get("recovery") is not None:
        recovery = section.choice("recovery", "invalid_recovery", RecoveryMarker)
    return Transition(
        source=source,
        on=section.choice("on", "unknown_outcome", On) or On.OK,
        target=None if target == END else target,
        condition=_condition(section),
        recovery=recovery,
    )


def _condition(section: Section) -> Condition | None:
    value = section.data.get("when")
    if value is None:
        return None
    code = "invalid_condition"
    operators = [operator.value for operator in Operator]
    inner = Section.of(
        value, (*section.path, "when"), section.problems, known=("path", *operators), code=code
    )
    asked = [operator for operator in Operator if operator.value in inner.data]
    if len(asked) != 1:
        inner.note("", code, f"must have exactly one of {', '.join(operators)}")
    operator = asked[0] if asked else Operator.EQUALS
    return Condition(_way(inner, "path", code), operator, inner.data.get(operator.value))
