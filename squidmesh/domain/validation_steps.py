"""What is wrong with a step by itself: its kind, and the options that it carries."""

import math
from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from squidmesh.domain.definition import (
    ONCE,
    SCHEDULE_KEY,
    Action,
    Approval,
    Log,
    Pause,
    Problem,
    RetryPolicy,
    StepSpec,
    Wait,
)

LONGEST_LABEL: Final = 200
"""Of the names of steps, triggers, fields, outputs and queues."""

LONGEST_DURATION: Final = timedelta(days=36525)
"""A century: longer waits are mistakes, and would lead beyond the last date that there is."""

_Path = tuple[str | int, ...]


def is_label(text: str, longest: int = LONGEST_LABEL) -> bool:
    """Whether *text* can name something: printable, not padded, neither empty nor endless."""
    return 0 < len(text) <= longest and text.isprintable() and text == text.strip()


def step_problems(step: StepSpec) -> Iterator[Problem]:
    """Everything that is wrong with *step*, whatever stands around it."""
    path = ("steps", step.name)
    yield from _kind_problems(step, path)
    if not isinstance(step.kind, Action):
        yield from _misplaced(step, path)
    yield from _retry_problems(step.retry, (*path, "retry"))
    yield from _output_problems(step, path)
    yield from _input_problems(step, path)
    yield from _recovery_problems(step, path)
    if step.timeout is not None and not _is_duration(step.timeout):
        yield Problem((*path, "timeout"), "invalid_timeout", "a time limit is longer than nothing")
    if step.queue is not None and not is_label(step.queue):
        yield Problem(
            (*path, "queue"),
            "invalid_queue",
            f"a queue's name is printable text of at most {LONGEST_LABEL} characters",
        )


def _kind_problems(step: StepSpec, path: _Path) -> Iterator[Problem]:
    match step.kind:
        case Action(body=body):
            if not body.key:
                yield Problem((*path, "action"), "invalid_action", "an action has a key")
        case Wait(duration=duration):
            if not _is_duration(duration):
                yield Problem(
                    (*path, "duration"),
                    "invalid_wait_duration",
                    "a wait is longer than nothing and shorter than a century",
                )
        case Log(message=message):
            if not message.strip():
                yield Problem((*path, "message"), "invalid_log", "a log step says something")
        case Pause() | Approval():
            return


def _misplaced(step: StepSpec, path: _Path) -> Iterator[Problem]:
    """Options that only a body of its own could honour."""
    found = (
        ("inputs", "invalid_inputs", bool(step.inputs)),
        ("output", "invalid_output", step.output is not None and not step.is_manual),
        ("retry", "invalid_retry", step.retry != ONCE),
        ("timeout", "invalid_timeout", step.timeout is not None),
        ("compensate", "invalid_compensation", step.compensation is not None),
        ("transaction", "invalid_transaction", step.transaction),
    )
    for option, code, is_set in found:
        if is_set:
            yield Problem((*path, option), code, "only a step that runs a function takes this")


def _is_duration(duration: timedelta) -> bool:
    return timedelta(0) < duration <= LONGEST_DURATION


def _retry_problems(retry: RetryPolicy, path: _Path) -> Iterator[Problem]:
    if retry.max_attempts < 1:
        yield Problem(
            path, "invalid_retry", "max_attempts counts the first one, so it is 1 at least"
        )
    if not timedelta(0) <= retry.backoff_min <= LONGEST_DURATION:
        yield Problem(path, "invalid_retry", "backoff_min is not negative and below a century")
    if retry.backoff_max is not None and not (
        retry.backoff_min <= retry.backoff_max <= LONGEST_DURATION
    ):
        yield Problem(path, "invalid_retry", "backoff_max is at least backoff_min, below a century")
    if not (math.isfinite(retry.jitter) and 0 <= retry.jitter <= 1):
        yield Problem(path, "invalid_retry", "jitter is a fraction from 0 to 1")


def _output_problems(step: StepSpec, path: _Path) -> Iterator[Problem]:
    here = (*path, "output")
    if step.output is not None and not is_label(step.output):
        yield Problem(here, "invalid_output", "an output key is short printable text")
    if SCHEDULE_KEY in written_by(step):
        yield Problem(here, "invalid_output", f"the key {SCHEDULE_KEY!r} belongs to cron triggers")


def written_by(step: StepSpec) -> tuple[str, ...]:
    """The context keys that the step is known to write."""
    if step.output is not None:
        return (step.output,)
    return (step.kind.merges or ()) if isinstance(step.kind, Action) else ()


def _input_problems(step: StepSpec, path: _Path) -> Iterator[Problem]:
    if not isinstance(step.kind, Action):
        return
    known = {one.name for one in step.kind.body.parameters if not one.is_context}
    for parameter, source in step.inputs.items():
        here = (*path, "inputs", parameter)
        if not source or not all(source):
            yield Problem(here, "invalid_inputs", "the path to a value is keys with dots between")
        if parameter not in known:
            yield Problem(here, "invalid_inputs", f"the function takes no {parameter!r} as input")


def _recovery_problems(step: StepSpec, path: _Path) -> Iterator[Problem]:
    if step.irreversible and step.compensatable:
        yield Problem(
            (*path, "compensatable"),
            "recovery_conflict",
            "what is irreversible cannot be compensated",
        )
    if step.compensation is None:
        return
    here = (*path, "compensate")
    if step.irreversible or not step.compensatable:
        yield Problem(
            here, "recovery_conflict", "compensate= undoes what the step declares it cannot undo"
        )
    if not step.compensation.body.key:
        yield Problem(here, "invalid_compensation", "a compensation has a key")
    yield from _retry_problems(step.compensation.retry, (*here, "retry"))
