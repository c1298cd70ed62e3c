"""The workflows that the run machine plays: routes, joins, timers and fans."""

from typing import Final

import attrs

from squidmesh.domain.definition import (
    CompensationSpec,
    Condition,
    Operator,
    RecoveryMarker,
    RetryPolicy,
    WorkflowDefinition,
)
from squidmesh.domain.entries import Carried
from tests.domain.builders import (
    a_body,
    a_chain,
    a_log,
    a_pause,
    a_wait,
    a_workflow,
    an_action,
    an_approval,
    an_undoable,
    on_error,
    on_ok,
    seconds,
)

MAX_DELIVERIES: Final = 2

PATIENT = RetryPolicy(max_attempts=3, backoff_min=seconds(1), backoff_max=seconds(3))
AT_ONCE = RetryPolicy(max_attempts=2)

LARGE = Condition(("charge",), Operator.EQUALS, "large")
URGENT = Condition(("urgent",), Operator.EQUALS, operand=True)

LINE: Final = a_workflow(
    an_undoable("load", retry=PATIENT),
    an_approval("review", output="review"),
    an_action("charge", output="charge", undone_by=a_body("refund"), retry=AT_ONCE),
    a_pause("hold"),
    an_action("tell", irreversible=True),
    an_action("page", retry=AT_ONCE),
    transitions=(
        on_ok("load", "review"),
        on_ok("review", "charge"),
        on_ok("charge", "tell"),
        on_ok("charge", "hold", LARGE),
        on_ok("hold", "tell"),
        on_ok("tell", None),
        on_ok("page", None),
        on_error("review", "page", recovery=RecoveryMarker.UNDO),
        on_error("charge", "page", URGENT),
    ),
    takes=("urgent",),
)
"""Routes with an approval, a pause, conditions and error routes."""

STUCK: Final = a_workflow(
    an_undoable("load"),
    an_action("charge", output="charge", undone_by=a_body("refund")),
    an_action("tell"),
    transitions=(
        on_ok("load", "charge"),
        on_ok("charge", "tell", LARGE),
        on_ok("tell", None),
        on_error("load", None),
    ),
)
"""A success that may fit no route."""

TIMERS: Final = a_chain(
    a_wait("settle", seconds(30)),
    an_action("poll", retry=PATIENT),
    a_log("note"),
    a_wait("cool", seconds(5)),
)
"""Timers at both ends."""

DIAMOND: Final = a_workflow(
    an_undoable("root"),
    an_undoable("left", after=("root",), retry=PATIENT),
    an_action(
        "right",
        after=("root",),
        undone_by=CompensationSpec(body=a_body("undo_right"), retry=PATIENT),
    ),
    a_wait("settle", seconds(10), after=("root",)),
    an_undoable("side"),
    an_action("join", after=("left", "right", "settle"), irreversible=True),
    an_action("end", after=("join", "side")),
)
"""Joins, a timer between them, and branches that can be undone."""

FAN: Final = a_workflow(
    an_undoable("load"),
    *(an_undoable(f"leaf{n}", after=("load",)) for n in range(3)),
    *(an_action(f"leaf{n}", after=("load",), retry=AT_ONCE) for n in range(3, 6)),
    an_action("end", after=tuple(f"leaf{n}" for n in range(6))),
)
"""Many steps at once."""


@attrs.frozen
class Beginning:
    """A way to begin a run of one of them."""

    name: str
    definition: WorkflowDefinition = attrs.field(repr=False)
    from_step: str | None = None
    carried: tuple[Carried, ...] = ()


WORKFLOWS: Final = (
    Beginning("line", LINE),
    Beginning("diamond", DIAMOND),
    Beginning("fan", FAN),
    Beginning("timers", TIMERS),
    Beginning("stuck", STUCK),
    Beginning(
        "half a line",
        LINE,
        "charge",
        (Carried(step="load", output={"x": 1}), Carried(step="review", output=None)),
    ),
    Beginning("half a diamond", DIAMOND, "left", (Carried(step="root", output={"x": 1}),)),
)
