"""What ends a command early: the exit statuses, and the one error that is not the library's."""

import enum
from collections.abc import Mapping
from typing import Any

from squidmesh.errors import SquidMeshError


class Exit(enum.IntEnum):
    """What the process says with its exit status."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4
    NOT_MIGRATED = 5
    RUN_FAILED = 6
    STILL_WAITING = 7
    INTERRUPTED = 130


class CommandError(SquidMeshError):
    """Something that only the command line can complain about."""

    def __init__(
        self,
        message: str,
        *,
        code: str,
        exit_code: Exit,
        advice: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, code=code, details=details)
        self.exit_code = exit_code
        self.advice = advice
