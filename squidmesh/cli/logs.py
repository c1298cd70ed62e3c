"""How a worker's log reads: lines for a person, or JSON for a collector.

The library logs into the loggers of the standard library and configures nothing; this is where a
process of our own does, for the library, for the host's code and for everybody else in it.
"""

import logging
from collections.abc import MutableMapping
from typing import IO, Any, Final

import structlog
from structlog.typing import Processor

LEVELS: Final = ("debug", "info", "warning", "error")


def configure(*, as_json: bool, stream: IO[str], level: str, color: bool) -> None:
    """Send everything that this process logs to *stream*."""
    times = structlog.processors.TimeStamper(fmt="iso" if as_json else "%H:%M:%SZ", utc=True)
    chain: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        times,
    ]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*chain, structlog.stdlib.ExtraAdder(), _facts_of_record],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_rendering(as_json=as_json, color=color),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    # Two lines for each statement would bury whatever somebody is looking for at DEBUG.
    logging.getLogger("aiosqlite").setLevel(logging.INFO)
    # The host's steps may log with structlog as it comes; this is the process that configures it.
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *chain,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def _facts_of_record(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Take the library's facts as what they are, not as the line that was made of them."""
    facts = event.pop("squidmesh", None)
    if isinstance(facts, dict):
        event.update(facts)
    return event


def _rendering(*, as_json: bool, color: bool) -> list[Processor]:
    if as_json:
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    # With rich installed the default one shows local variables, and in them card numbers and keys.
    plain = structlog.dev.plain_traceback
    return [
        structlog.dev.ConsoleRenderer(
            colors=color, pad_event_to=20, sort_keys=False, exception_formatter=plain
        )
    ]
