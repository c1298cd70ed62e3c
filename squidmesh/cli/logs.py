"""How a worker's log reads: lines for a person, or JSON for a collector.

The library logs into the standard library's loggers and configures nothing; this is where a
process of our own does, for the library, for the host's code and for everybody else in it.
"""

import logging
import sys
from typing import IO, Final

import structlog
from structlog.typing import Processor

LEVELS: Final = ("debug", "info", "warning", "error")


def configure(*, as_json: bool, stream: IO[str], level: str, color: bool) -> None:
    """Send all log events of this process to *stream*."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso" if as_json else "%H:%M:%S", utc=True),
    ]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_rendering(as_json=as_json, color=color),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _rendering(*, as_json: bool, color: bool) -> list[Processor]:
    if as_json:
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    return [structlog.dev.ConsoleRenderer(colors=color, pad_event_to=24)]


def stream_for(*, as_json: bool) -> IO[str]:
    """Where the log goes: to stdout where it is the answer, else beside it."""
    return sys.stdout if as_json else sys.stderr
