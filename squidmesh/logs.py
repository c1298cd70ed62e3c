"""Loggers under ``squidmesh.*``: structlog in front, the host's own logging behind.

The library never configures either. What it says arrives as an ordinary record of the standard
library: a readable line as the message, and the same facts as a mapping in ``record.squidmesh``.
"""

import contextlib
import logging
from collections.abc import MutableMapping
from typing import Any, Final

import structlog

_RECORD_ARGUMENTS: Final = ("exc_info", "stack_info", "stacklevel")


class HarmlessLogger(structlog.stdlib.BoundLogger):
    """A logger whose host cannot hurt us: what a handler or filter raises stays where it was."""

    def _proxy_to_logger(
        self,
        method_name: str,
        event: str | None = None,
        *event_args: str,
        **event_kw: Any,  # noqa: ANN401  as the class that this one is a kind of has it
    ) -> None:
        with contextlib.suppress(Exception):
            super()._proxy_to_logger(method_name, event, *event_args, **event_kw)


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the logger ``squidmesh.<name>``."""
    bound: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(f"squidmesh.{name}"),
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            _to_record,
        ],
        wrapper_class=HarmlessLogger,
        context_class=dict,
        cache_logger_on_first_use=True,
    )
    return bound


def _to_record(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> tuple[tuple[str], dict[str, Any]]:
    passed = {name: event.pop(name) for name in _RECORD_ARGUMENTS if name in event}
    said = event.pop("event", "")
    facts = " ".join(f"{key}={_shown(value)}" for key, value in event.items())
    line = f"{said} {facts}" if facts else str(said)
    return (line,), {"extra": {"squidmesh": {"event": said, **event}}, **passed}


def _shown(value: object) -> str:
    shown = value if isinstance(value, str) else repr(value)
    # A value with a line break must not be able to look like a line of its own.
    return repr(shown) if not shown.isprintable() or " " in shown else shown
