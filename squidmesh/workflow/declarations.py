"""The words that a workflow's class body is written in.

Each of them only takes down what was said. Nothing is checked here and nothing raises, because
the class statement reports all mistakes together.
"""

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Final, Literal, TypeAlias

import attrs

from squidmesh.domain.definition import COMPENSATION_RETRY, On, RetryPolicy

Function: TypeAlias = Callable[..., object]


class Complete(enum.Enum):
    """The end of a run, as the target of a route or the last of a path."""

    COMPLETE = "complete"


@attrs.frozen(eq=False)
class StepDeclaration:
    """A step as it was declared; the attribute that holds it gives it its name."""

    kind: Literal["action", "wait", "log", "pause", "approval"]
    options: Mapping[str, object]

    def on_ok(self, target: "StepDeclaration | Complete", *, when: "When | None" = None) -> "Route":
        """Go to *target* when this step has completed, and *when* holds if it is given.

        Of several routes the first whose condition holds is taken; one without a condition is
        the fallback, wherever it stands.
        """
        return Route(source=self, on=On.OK, target=target, when=when)

    def on_error(
        self,
        target: "StepDeclaration | Complete",
        *,
        when: "When | None" = None,
        recovery: str | None = None,
    ) -> "Route":
        """Go to *target* when this step has failed for good, or its approval was rejected.

        *recovery* says what the route means to the business, "compensation" or "undo"; it marks
        the route and its audit event, and runs nothing by itself.
        """
        return Route(source=self, on=On.ERROR, target=target, when=when, recovery=recovery)


@attrs.frozen(eq=False)
class TriggerDeclaration:
    """A trigger as it was declared; the attribute that holds it gives it its name."""

    kind: Literal["manual", "cron"]
    options: Mapping[str, object]


@attrs.frozen(eq=False, kw_only=True)
class Route:
    """A way from one end of a step to another step or the end."""

    source: StepDeclaration
    on: On
    target: object
    when: object = None
    recovery: object = None


@attrs.frozen(eq=False)
class Path:
    """Steps that follow one another on ok, and then the end."""

    steps: tuple[object, ...]


@attrs.frozen(eq=False)
class When:
    """A condition as it was declared: where to look, and what to compare with."""

    path: object
    comparisons: Mapping[str, object]


@attrs.frozen(eq=False)
class Compensation:
    """A function that undoes a step, with a retry policy of its own."""

    function: object
    retry: object


class _Unsaid(enum.Enum):
    """What an operand is that was not given; None would be one."""

    UNSAID = "unsaid"


_UNSAID: Final = _Unsaid.UNSAID


def step(
    function: Function,
    *,
    output: str | None = None,
    inputs: Mapping[str, str | Sequence[str]] | None = None,
    retry: RetryPolicy | None = None,
    timeout: timedelta | None = None,
    after: "StepDeclaration | Iterable[StepDeclaration] | None" = None,
    compensate: "Function | Compensation | None" = None,
    irreversible: bool = False,
    compensatable: bool | None = None,
    transaction: bool = False,
    queue: str | None = None,
) -> StepDeclaration:
    """Declare a step that runs *function*, plain or async.

    The function's parameters are taken by name from what earlier steps left and from the
    payload; *inputs* gives one of them another name or a path to dig along. What it returns is
    kept under *output*; without it, a returned mapping is merged into the run's context.

    *timeout* bounds one attempt, *retry* says how many there may be. *compensate* undoes the
    step when the run fails later; *irreversible* says that nothing can, and *compensatable*
    overrides what follows from the two for replays. *after* names the steps to wait for in a
    workflow without transitions. *queue* overrides the run's queue.
    """
    return StepDeclaration(
        "action",
        {
            "function": function,
            "output": output,
            "inputs": inputs,
            "retry": retry,
            "timeout": timeout,
            "after": after,
            "compensate": compensate,
            "irreversible": irreversible,
            "compensatable": compensatable,
            "transaction": transaction,
            "queue": queue,
        },
    )


def wait(
    duration: timedelta, *, after: "StepDeclaration | Iterable[StepDeclaration] | None" = None
) -> StepDeclaration:
    """Declare a durable timer: completed when *duration* has passed, whoever is running then."""
    return StepDeclaration("wait", {"duration": duration, "after": after})


def log(
    message: str,
    *,
    level: str = "info",
    after: "StepDeclaration | Iterable[StepDeclaration] | None" = None,
) -> StepDeclaration:
    """Declare a step that writes *message* to the host's log: debug, info, warning or error."""
    return StepDeclaration("log", {"message": message, "level": level, "after": after})


def pause(*, output: str | None = None) -> StepDeclaration:
    """Declare a step that holds the run until somebody resumes it."""
    return StepDeclaration("pause", {"output": output})


def approval(*, output: str | None = None) -> StepDeclaration:
    """Declare a step that holds the run until somebody approves or rejects.

    It needs a route for both; the decision, with who made it and why, is kept under *output*.
    """
    return StepDeclaration("approval", {"output": output})


def path(*steps: StepDeclaration | Complete) -> Path:
    """Let *steps* follow one another on ok, and let the run end after the last of them."""
    return Path(steps)


def manual(*, payload: object = None) -> TriggerDeclaration:
    """Declare that a run may be started by hand; *payload* replaces the workflow's class."""
    return TriggerDeclaration("manual", {"payload": payload})


def cron(
    expression: str,
    *,
    timezone: str = "UTC",
    payload: object = None,
    idempotency: str | None = None,
) -> TriggerDeclaration:
    """Declare that a run may be started by a clock, whenever *expression* says so in *timezone*.

    With *idempotency*, "return_existing_run" or "skip_duplicate", a window starts one run only,
    however often it is reported.
    """
    return TriggerDeclaration(
        "cron",
        {
            "expression": expression,
            "timezone": timezone,
            "payload": payload,
            "idempotency": idempotency,
        },
    )


def Retry(  # noqa: N802 - it reads as the policy that it makes
    max_attempts: int,
    *,
    backoff_min: timedelta = timedelta(0),
    backoff_max: timedelta | None = None,
    jitter: float = 0.0,
) -> RetryPolicy:
    """Say how often a step is tried in all, and how long it waits in between.

    The wait is *backoff_min* after the first attempt and doubles from there, up to
    *backoff_max*; *jitter* is the fraction of it that is left to chance.
    """
    return RetryPolicy(
        max_attempts=max_attempts, backoff_min=backoff_min, backoff_max=backoff_max, jitter=jitter
    )


def compensation(function: Function, retry: RetryPolicy = COMPENSATION_RETRY) -> Compensation:
    """Undo a step with *function*, tried as often as *retry* says: for ``compensate=``.

    Its parameters are taken by name from the payload, the context, ``output`` (what the step
    left) and ``failure`` (why the run is being undone).
    """
    return Compensation(function, retry)


def when(
    path: str | Sequence[str],
    *,
    equals: object = _UNSAID,
    greater_than: object = _UNSAID,
    less_than: object = _UNSAID,
) -> When:
    """Compare the value at *path* in the run's context or payload, in one of three ways."""
    said = {"equals": equals, "greater_than": greater_than, "less_than": less_than}
    return When(path, {name: value for name, value in said.items() if value is not _UNSAID})
