"""Definitions as plain JSON and back, and the fingerprint that tells two of them apart.

What is written keeps to what an author said: options at their defaults are left out, durations
are seconds, the end of a run is ``"complete"``. What is read may have been written by anybody;
reading notes everything that is malformed, and leaves it to `validation` whether what is well
formed can also work.
"""

import hashlib
import json
from datetime import timedelta
from typing import Final

from returns.result import Failure, Result, Success

from squidmesh.domain.definition import (
    COMPENSATION_RETRY,
    ONCE,
    Action,
    Approval,
    Body,
    CompensationSpec,
    CronTrigger,
    Log,
    ManualTrigger,
    Parameter,
    Pause,
    Problem,
    RetryPolicy,
    StepSpec,
    Transition,
    Trigger,
    Wait,
    WorkflowDefinition,
)
from squidmesh.domain.serial_reading import END, FORMAT, read_definition
from squidmesh.domain.serial_types import contract_to_dict
from squidmesh.domain.values import Json, JsonObject

_DIGITS: Final = 24
"""The length of a fingerprint."""


def definition_to_dict(definition: WorkflowDefinition) -> JsonObject:
    """The definition as plain JSON, which `definition_from_dict` turns back into an equal one."""
    return {
        "format": FORMAT,
        "name": definition.name,
        "version": definition.version,
        "triggers": [_trigger(trigger) for trigger in definition.triggers],
        "steps": [_step(step) for step in definition.steps],
        "transitions": [_transition(transition) for transition in definition.transitions],
    }


def definition_from_dict(data: Json) -> Result[WorkflowDefinition, tuple[Problem, ...]]:
    """The definition that *data* describes, or everything that is malformed about it.

    A well-formed definition need not be one that can work: that is for `validate` to say.
    """
    definition, problems = read_definition(data)
    return Failure(problems) if problems else Success(definition)


def fingerprint(definition: WorkflowDefinition) -> str:
    """A digest of what decides where a run goes: equal if a workflow of that name routes alike.

    The name is part of it, because a run's bodies are found by the name of its workflow.
    Triggers, payload, version label, queues and what was read off a function's signature take no
    part; neither does the order in which prerequisites are named. The first 96 bits of a SHA-256
    tell definitions apart, and stand in every run and every attempt that is due.
    """
    routed: Json = {
        "workflow": definition.name,
        "steps": [_routing_of(step) for step in definition.steps],
        "transitions": [_transition(transition) for transition in definition.transitions],
    }
    text = json.dumps(routed, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def _routing_of(step: StepSpec) -> JsonObject:
    written = _step(step)
    for option in ("parameters", "merges", "queue"):
        written.pop(option, None)
    compensation = written.get("compensate")
    if isinstance(compensation, dict):
        compensation.pop("parameters", None)
    written["after"] = [*sorted(set(step.after or ()))]
    return written


def _trigger(trigger: Trigger) -> JsonObject:
    written: JsonObject = {"name": trigger.name}
    match trigger:
        case ManualTrigger():
            written["kind"] = "manual"
        case CronTrigger(expression=expression, timezone=timezone, idempotency=idempotency):
            written |= {"kind": "cron", "expression": expression, "timezone": timezone}
            if idempotency is not None:
                written["idempotency"] = idempotency.value
    written["payload"] = contract_to_dict(trigger.payload)
    return written


def _step(step: StepSpec) -> JsonObject:
    unusual = step.compensatable is step.irreversible
    written: JsonObject = {
        "name": step.name,
        **_kind(step),
        "inputs": {name: list(path) for name, path in step.inputs.items()} or None,
        "output": step.output,
        "retry": None if step.retry == ONCE else _retry(step.retry),
        "timeout": None if step.timeout is None else _seconds(step.timeout),
        "after": None if step.after is None else list(step.after),
        "compensate": None if step.compensation is None else _compensation(step.compensation),
        "irreversible": step.irreversible or None,
        "compensatable": step.compensatable if unusual else None,
        "transaction": step.transaction or None,
        "queue": step.queue,
    }
    return {option: value for option, value in written.items() if value is not None}


def _kind(step: StepSpec) -> JsonObject:
    match step.kind:
        case Action(body=body, merges=merges):
            written: JsonObject = {"kind": "action", **_body(body)}
            return written if merges is None else {**written, "merges": list(merges)}
        case Wait(duration=duration):
            return {"kind": "wait", "duration": _seconds(duration)}
        case Log(message=message, level=level):
            return {"kind": "log", "message": message, "level": level.value}
        case Pause():
            return {"kind": "pause"}
        case Approval():
            return {"kind": "approval"}


def _body(body: Body) -> JsonObject:
    return {"action": body.key, "parameters": [_parameter(one) for one in body.parameters]}


def _parameter(parameter: Parameter) -> JsonObject:
    written: JsonObject = {"name": parameter.name}
    if not parameter.required:
        written["required"] = False
    if parameter.is_context:
        written["context"] = True
    return written


def _compensation(compensation: CompensationSpec) -> JsonObject:
    written = _body(compensation.body)
    if compensation.retry != COMPENSATION_RETRY:
        written["retry"] = _retry(compensation.retry)
    return written


def _retry(retry: RetryPolicy) -> JsonObject:
    written: JsonObject = {"max_attempts": retry.max_attempts}
    if retry.backoff_min != ONCE.backoff_min:
        written["backoff_min"] = _seconds(retry.backoff_min)
    if retry.backoff_max is not None:
        written["backoff_max"] = _seconds(retry.backoff_max)
    if retry.jitter != ONCE.jitter:
        written["jitter"] = retry.jitter
    return written


def _seconds(duration: timedelta) -> Json:
    """Whole seconds as an integer, so that equal durations are equal text."""
    seconds = duration.total_seconds()
    return int(seconds) if seconds.is_integer() else seconds


def _transition(transition: Transition) -> JsonObject:
    written: JsonObject = {
        "from": transition.source,
        "on": transition.on.value,
        "to": END if transition.target is None else transition.target,
    }
    if transition.condition is not None:
        condition = transition.condition
        written["when"] = {
            "path": list(condition.path),
            condition.operator.value: condition.operand,
        }
    if transition.recovery is not None:
        written["recovery"] = transition.recovery.value
    return written
