"""Waiting that is not over before the work is."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

_Answer = TypeVar("_Answer")


async def to_the_end(
    work: Awaitable[_Answer], *, undo: Callable[[_Answer], object] | None = None
) -> _Answer:
    """Return what *work* comes to; who is cancelled meanwhile stays until it has ended.

    *undo* is called with an answer that nobody is there to take any more.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as problem:
            cancelled = problem
    if cancelled is None:
        return task.result()
    if not task.cancelled() and task.exception() is None and undo is not None:
        undo(task.result())
    raise cancelled
