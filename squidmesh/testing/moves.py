"""What may happen to a run next, for tests that let chance or hypothesis choose."""

from datetime import datetime, timedelta
from functools import partial
from typing import Final, TypeAlias

from squidmesh.domain.dispatch import is_due, is_held, is_lost
from squidmesh.domain.state import AttemptState, RunState
from squidmesh.ports.store import RunChange
from squidmesh.testing.builders import complete, finish, lose, put_off, retry, take

Move: TypeAlias = partial[RunChange]
"""A change that has not been made yet."""

LATER: Final = timedelta(seconds=5)


def moves(state: RunState, *, now: datetime) -> list[Move]:
    """Every change that the run may undergo at *now*, other than being cancelled.

    There is none if it is over, or waits for a time to come.
    """
    if state.status.is_final:
        return []
    found: list[Move] = []
    for step in state.steps.values():
        if step.current is not None:
            found += _moves_of(state, step.current, now)
    if not state.open:
        found.append(partial(finish, state, at=now))
    return found


def _moves_of(state: RunState, attempt: AttemptState, now: datetime) -> list[Move]:
    step = attempt.step
    if is_due(attempt, now):
        return [partial(take, state, step, at=now)]
    if is_lost(attempt, now):
        return [partial(lose, state, step, at=now)]
    if not is_held(attempt, now):
        return []
    done = partial(complete, state, step, at=now, output={"by": step})
    if state.cancelling:
        return [done]
    return [
        done,
        partial(complete, state, step, at=now, output=[1, "two"], then=f"{step}+"),
        partial(retry, state, step, at=now),
        partial(retry, state, step, at=now, visible_at=now + LATER),
        partial(put_off, state, step, at=now, visible_at=now + LATER),
        partial(put_off, state, step, at=now, visible_at=now, reason="not yet"),
    ]
