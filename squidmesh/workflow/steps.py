"""Step declarations as specifications, with everything in them that makes no sense."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Final, TypeAlias

from returns.pipeline import is_successful

from squidmesh.domain.definition import (
    COMPENSATION_PREFIX,
    COMPENSATION_RETRY,
    ONCE,
    Action,
    Approval,
    Body,
    CompensationSpec,
    Log,
    LogLevel,
    Pause,
    Problem,
    StepKind,
    StepSpec,
    Wait,
)
from squidmesh.workflow.declarations import Compensation, Function, StepDeclaration
from squidmesh.workflow.functions import read_function
from squidmesh.workflow.options import Options

Bodies: TypeAlias = dict[str, Function]
"""Functions by the visit that runs them: a step's name, or ``compensate:<step>``."""

Names: TypeAlias = Mapping[object, str]
"""The name of each declaration, by the object itself."""

_UNKNOWN: Final = Body(key="?")
_LONGEST_SHOWN: Final = 40


def draft_step(
    name: str,
    declaration: StepDeclaration,
    names: Names,
    bodies: Bodies,
    problems: list[Problem],
) -> StepSpec:
    """The step that *declaration* declares under *name*; its functions are added to *bodies*."""
    options = Options(declaration.options, ("steps", name), problems)
    irreversible = options.maybe("irreversible", bool, "recovery_conflict") or False
    compensatable = options.maybe("compensatable", bool, "recovery_conflict")
    return StepSpec(
        name=name,
        kind=_kind(name, declaration, options, bodies),
        inputs=_inputs(options),
        output=options.maybe("output", str, "invalid_output"),
        retry=options.retry("retry", ONCE),
        timeout=options.maybe("timeout", timedelta, "invalid_timeout"),
        after=_after(options, names),
        compensation=_compensation(name, options, bodies),
        irreversible=irreversible,
        compensatable=not irreversible if compensatable is None else compensatable,
        transaction=options.maybe("transaction", bool, "invalid_transaction") or False,
        queue=options.maybe("queue", str, "invalid_queue"),
    )


def _kind(name: str, declaration: StepDeclaration, options: Options, bodies: Bodies) -> StepKind:
    match declaration.kind:
        case "action":
            return _action(name, options, bodies)
        case "wait":
            return Wait(options.value("duration", timedelta(seconds=1), "invalid_wait_duration"))
        case "log":
            level = options.choice("level", LogLevel, "invalid_log")
            return Log(options.value("message", "?", "invalid_log"), level or LogLevel.INFO)
        case "pause":
            return Pause()
        case "approval":
            return Approval()


def _action(name: str, options: Options, bodies: Bodies) -> Action:
    reading = read_function(options.given["function"])
    if not is_successful(reading):
        options.note("function", "invalid_action", reading.failure())
        return Action(body=_UNKNOWN)
    found = reading.unwrap()
    bodies[name] = found.function
    return Action(body=found.body, merges=found.merges)


def _inputs(options: Options) -> Mapping[str, tuple[str, ...]]:
    code = "invalid_inputs"
    given = options.given.get("inputs")
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        options.note("inputs", code, "must map parameters to where their values are")
        return {}
    inner = Options(given, (*options.path, "inputs"), options.problems)
    for parameter in given:
        if not isinstance(parameter, str):
            inner.note(repr(parameter), code, "must be the name of a parameter")
    return {
        parameter: inner.way(parameter, value, code)
        for parameter, value in given.items()
        if isinstance(parameter, str)
    }


def name_of(step: object, names: Names) -> str:
    """The name that *step* has here; in place of one, words that can be nobody's name."""
    if isinstance(step, StepDeclaration):
        return names.get(step, "a step that this class does not declare")
    if isinstance(step, str):
        return f"a str in place of a step, {step[:_LONGEST_SHOWN]!r},"
    return f"a {type(step).__name__} in place of a step"


def _after(options: Options, names: Names) -> tuple[str, ...] | None:
    given = options.given.get("after")
    if given is None:
        return None
    if isinstance(given, StepDeclaration) or not isinstance(given, Iterable):
        given = (given,)
    return tuple(dict.fromkeys(name_of(one, names) for one in given))


def _compensation(name: str, options: Options, bodies: Bodies) -> CompensationSpec | None:
    given = options.given.get("compensate")
    if given is None:
        return None
    declared = given if isinstance(given, Compensation) else Compensation(given, None)
    inner = Options({"retry": declared.retry}, (*options.path, "compensate"), options.problems)
    retry = inner.retry("retry", COMPENSATION_RETRY)
    reading = read_function(declared.function)
    if not is_successful(reading):
        inner.note("", "invalid_compensation", reading.failure())
        return CompensationSpec(body=_UNKNOWN, retry=retry)
    found = reading.unwrap()
    bodies[COMPENSATION_PREFIX + name] = found.function
    return CompensationSpec(body=found.body, retry=retry)
