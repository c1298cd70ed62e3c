"""How long a call may take, whatever the server does, and even if it says nothing any more.

When the time is over the server is asked to stop, and a little later the connection is shut down
under whoever still waits for it. psycopg's own answer to a cancelled task is to ask and to wait,
twice five seconds, which is too long for somebody who has waited enough.
"""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import attrs
import psycopg

ASKING_SECONDS: Final = 1.5
"""How long the server is asked to stop."""

GRACE_SECONDS: Final = 2.0
"""How long it may take to stop."""


@attrs.define(eq=False)
class Limit:
    """The moment on the loop's clock at which a call has taken too long."""

    until: float
    is_over: bool = attrs.field(default=False, init=False)
    asking: "asyncio.Task[None] | None" = attrs.field(default=None, init=False)

    @classmethod
    def after(cls, seconds: float) -> "Limit":
        """The limit that is reached *seconds* from now."""
        return cls(asyncio.get_running_loop().time() + seconds)

    @property
    def left(self) -> float:
        """How many seconds are left, none below zero."""
        return max(self.until - asyncio.get_running_loop().time(), 0.0)


@attrs.define(eq=False)
class Watch:
    """Looks every so often whether a call has taken too long.

    Calls are many and short, and a timer for each would cost more than looking at none of them.
    """

    interval: float
    _calls: "dict[Limit, psycopg.AsyncConnection[Any]]" = attrs.field(factory=dict, init=False)
    _timer: asyncio.TimerHandle | None = attrs.field(default=None, init=False)

    def begin(self, limit: Limit, connection: "psycopg.AsyncConnection[Any]") -> None:
        """Hold whatever is done with *connection* to *limit*, until it has ended."""
        self._calls[limit] = connection
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self.interval, self._look)

    def end(self, limit: Limit) -> None:
        """Say that what was held to *limit* is over."""
        self._calls.pop(limit, None)
        if limit.asking is not None:
            limit.asking.cancel()

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for limit, connection in tuple(self._calls.items()):
            if limit.until + GRACE_SECONDS <= now:
                shut_down(connection)
            elif limit.until <= now and not limit.is_over:
                limit.is_over = True
                limit.asking = loop.create_task(_ask_to_stop(connection))
        self._timer = loop.call_later(self.interval, self._look) if self._calls else None


async def _ask_to_stop(connection: "psycopg.AsyncConnection[Any]") -> None:
    with suppress(psycopg.Error, OSError):
        await connection.cancel_safe(timeout=ASKING_SECONDS)


@contextmanager
def limited_here(connection: "psycopg.Connection[Any]", seconds: float) -> Iterator[None]:
    """Shut *connection* down under the calling thread if the block takes longer than *seconds*.

    Raises:
        TimeoutError: It did, in place of what the driver says of that.
    """
    is_over = threading.Event()

    def end() -> None:
        is_over.set()
        shut_down(connection)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except psycopg.Error:
        if is_over.is_set():
            raise TimeoutError from None
        raise
    finally:
        timer.cancel()
        # Behind the block the socket may be closed, and its number somebody else's.
        timer.join()


def shut_down(connection: "psycopg.BaseConnection[Any]") -> None:
    """End the conversation, so that whoever waits for an answer hears that there will be none."""
    with (
        suppress(psycopg.Error, OSError),
        socket.fromfd(connection.pgconn.socket, socket.AF_INET, socket.SOCK_STREAM) as line,
    ):
        line.shutdown(socket.SHUT_RDWR)
