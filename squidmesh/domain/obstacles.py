"""What is in the way of a run that other code has to carry on, and what helps, in words.

The words name functions, steps and parameters, and never a value of a run.
"""

from typing import Final, Literal, TypeAlias

import attrs

from squidmesh.domain.compatibility import Misfit
from squidmesh.domain.state import compensated_step, is_compensation

ObstacleCode: TypeAlias = Literal[
    "missing_body", "missing_input", "unknown_workflow", "unreadable_definition", "unreadable_run"
]
Phase: TypeAlias = Literal["forward", "compensation"]
Consequence: TypeAlias = Literal["waits", "fails"]


@attrs.frozen(kw_only=True)
class Obstacle:
    """Why a run cannot be carried to its end by the code that was asked about.

    *step* is None if it is about the run as a whole; *body* is the key of the function that the
    run's version names, and *parameter* one that today's function asks for. In the *phase*
    ``compensation`` the run goes on, and only its undoing cannot. As a *consequence* the run
    ``waits`` for somebody who has the code, or the attempt is claimed and ``fails``.
    """

    code: ObstacleCode
    step: str | None
    body: str | None
    parameter: str | None
    phase: Phase
    consequence: Consequence
    message: str
    remedy: str


_HOW_TO_KEEP: Final = "see 'Keeping what old runs need' in docs/deploying.md."


def _general(code: ObstacleCode, message: str, remedy: str) -> Obstacle:
    """An obstacle that is about a run, or all those of a version, as a whole."""
    return Obstacle(
        code=code,
        step=None,
        body=None,
        parameter=None,
        phase="forward",
        consequence="waits",
        message=message,
        remedy=remedy,
    )


UNKNOWN_WORKFLOW: Final = _general(
    "unknown_workflow",
    "The code has no workflow of this name.",
    "Keep the workflow among the registered ones until its runs are over.",
)
UNREADABLE_DEFINITION: Final = _general(
    "unreadable_definition",
    "The definition that the run started under is missing, or this release cannot read it.",
    "Use a release of squidmesh that reads it; if its row is lost, restore it from a backup.",
)
UNREADABLE_RUN: Final = _general(
    "unreadable_run",
    "What is stored about the run cannot be read.",
    "Use a release of squidmesh that reads it, or restore its rows from a backup.",
)


def obstacle_of(misfit: Misfit, consequence: Consequence) -> Obstacle:
    """What a misfit means to a run that has its visit ahead."""
    step = compensated_step(misfit.visit)
    undoes = is_compensation(misfit.visit)
    if misfit.parameter is None:
        message, remedy = _of_missing_body(step, misfit.body, undoes=undoes)
    else:
        message = _of_missing_input(step, misfit.parameter, consequence, undoes=undoes)
        remedy = f"Give {misfit.parameter!r} a default, which these runs then get."
    return Obstacle(
        code=misfit.code,
        step=step,
        body=misfit.body,
        parameter=misfit.parameter,
        phase="compensation" if undoes else "forward",
        consequence=consequence,
        message=message,
        remedy=remedy,
    )


def _of_missing_body(step: str, body: str, *, undoes: bool) -> tuple[str, str]:
    does = "is undone by" if undoes else "runs"
    kept = "compensate=" if undoes else "the function"
    message = (
        f"Step {step!r} {does} {body}, which the workflow declares no more, neither for that step"
        f" nor for another; {_who(undoes=undoes)} waits there."
    )
    remedy = f"Keep it as {kept} of a step {step!r}, or let another step declare it; {_HOW_TO_KEEP}"
    return message, remedy


def _of_missing_input(step: str, parameter: str, consequence: Consequence, *, undoes: bool) -> str:
    what = f"What undoes step {step!r}" if undoes else f"The function of step {step!r}"
    who = _who(undoes=undoes)
    behind = {
        "waits": "neither a step of its version nor any payload class that is known here"
        f" provides it; {who} waits there.",
        "fails": "nothing has provided it in this run; the attempt fails.",
    }
    return f"{what} asks for {parameter!r} now, and {behind[consequence]}"


def _who(*, undoes: bool) -> str:
    return "the undoing of a run that fails" if undoes else "the run"
