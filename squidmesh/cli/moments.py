"""Times and durations, as short as they can be read."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from squidmesh.system import SystemClock

_ISO: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)")
_MINUTE: Final = 60
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
_WITH_TENTHS: Final = 10


def now() -> datetime:
    """The time of this machine."""
    return SystemClock().now()


def stamp(moment: datetime) -> str:
    """A moment to the second, in UTC."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def clock_time(moment: datetime) -> str:
    """The time of day to the millisecond, in UTC."""
    return moment.astimezone(UTC).strftime("%H:%M:%S.%f")[:-3]


def span_of(duration: timedelta) -> str:
    """A duration in the one or two units that matter."""
    seconds = max(duration.total_seconds(), 0.0)
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < _WITH_TENTHS:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} m {whole % _MINUTE} s"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} m"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"


def rough(duration: timedelta) -> str:
    """A duration in the one unit that matters."""
    first, _, _ = span_of(duration).partition(" ")
    unit = span_of(duration).split(" ")[1]
    return f"{first} {unit}"


def from_text(text: object) -> datetime | None:
    """The moment that ISO text of the library stands for, None if it is none."""
    if not isinstance(text, str) or not _ISO.fullmatch(text):
        return None
    return datetime.fromisoformat(text)


def shortened(text: str) -> str:
    """A sentence with its ISO times as `stamp` writes them."""
    return _ISO.sub(lambda found: stamp(datetime.fromisoformat(found[0])), text)
