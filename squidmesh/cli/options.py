"""Options that several commands share, and how their texts are read."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import click
from click.core import ParameterSource

from squidmesh.cli.moments import now
from squidmesh.cli.settings import Settings

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

STATUSES: Final = (
    "pending", "running", "retrying", "paused", "cancelling", "compensating", "failed",
    "completed", "cancelled",
)  # fmt: skip

_UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")


class DurationType(click.ParamType[timedelta]):
    """Seconds, or a text such as 90s, 5m or 1h30m."""

    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        """Read a duration."""
        if isinstance(value, timedelta):
            return value
        found = _duration(str(value))
        if found is None:
            self.fail(f"{value!r} is no duration; write 90, 90s, 5m or 1h30m.", param, ctx)
        return found


class MomentType(click.ParamType[datetime]):
    """An ISO time, in UTC unless it says otherwise, or a duration: that long ago."""

    name = "time"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Read a moment."""
        if isinstance(value, datetime):
            return value
        ago = _duration(str(value), bare_seconds=False)
        try:
            if ago is not None:
                return now() - ago
            moment = datetime.fromisoformat(str(value))
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is no time; write 2026-11-22, 2026-11-22T06:24:11Z, or 90m for "
                "90 minutes ago.",
                param,
                ctx,
            )
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


class PairType(click.ParamType[tuple[str, str]]):
    """A text such as key=value."""

    name = "key=value"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Cut the text at its first equals sign."""
        if isinstance(value, tuple):
            key, found = value
            return str(key), str(found)
        key, equals, found = str(value).partition("=")
        if not key or not equals:
            self.fail(f"{value!r} is no key=value.", param, ctx)
        return key, found


DURATION: Final = DurationType()
MOMENT: Final = MomentType()
PAIR: Final = PairType()


def _duration(text: str, *, bare_seconds: bool = True) -> timedelta | None:
    text = text.strip().lower()
    if bare_seconds and re.fullmatch(r"\d+(\.\d+)?", text):
        text = f"{text}s"
    parts = _PART.findall(text)
    if not parts or _PART.sub("", text).strip():
        return None
    try:
        return timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in parts))
    except OverflowError:
        return None


def _remembered(context: click.Context, parameter: click.Parameter, value: object) -> None:
    """Keep a shared option in the settings; what was typed wins over the environment."""
    settings = context.find_object(Settings)
    name = parameter.name
    if settings is None:
        return
    settings.command_path = context.command_path
    if value is None:
        return
    is_typed = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    if name in ("url", "app", "schema"):
        if is_typed or not getattr(settings, f"{name}_is_typed"):
            setattr(settings, name, value)
            setattr(settings, f"{name}_is_typed", is_typed)
    elif name == "no_prepare" and value:
        settings.no_prepare = True
        settings.no_prepare_is_typed = settings.no_prepare_is_typed or is_typed
    elif name == "json" and value:
        settings.json = True
    elif name == "no_color" and value:
        settings.color = False


def url_option(command: Decorated) -> Decorated:
    """Which store to talk to."""
    return click.option(
        "--url",
        metavar="URL",
        envvar="SQUIDMESH_URL",
        show_envvar=True,
        expose_value=False,
        callback=_remembered,
        help="The store, such as sqlite:///app.db.",
    )(command)


def postgres_options(command: Decorated) -> Decorated:
    """How to find the tables on a PostgreSQL server, and how to talk to it."""
    for option in (
        click.option(
            "--no-prepare",
            is_flag=True,
            envvar="SQUIDMESH_NO_PREPARE",
            expose_value=False,
            callback=_remembered,
            help="Prepare no statements: for a pooler in front of PostgreSQL.",
        ),
        click.option(
            "--schema",
            metavar="NAME",
            envvar="SQUIDMESH_SCHEMA",
            show_envvar=True,
            expose_value=False,
            callback=_remembered,
            help="The schema of the tables in PostgreSQL, if it is not squidmesh.",
        ),
    ):
        command = option(command)
    return command


def app_option(command: Decorated) -> Decorated:
    """Where the code of the workflows is."""
    return click.option(
        "--app",
        metavar="MODULE:WORKFLOWS",
        envvar="SQUIDMESH_APP",
        show_envvar=True,
        expose_value=False,
        callback=_remembered,
        help="Where the workflow classes are; the current folder is searched first.",
    )(command)


def answer_options(command: Decorated) -> Decorated:
    """In which form to answer."""
    for option in (
        click.option(
            "--no-color",
            is_flag=True,
            expose_value=False,
            callback=_remembered,
            help="No colours; so does NO_COLOR in the environment.",
        ),
        click.option(
            "--json",
            is_flag=True,
            expose_value=False,
            callback=_remembered,
            help="Answer in JSON.",
        ),
    ):
        command = option(command)
    return command


def store_options(command: Decorated) -> Decorated:
    """What every command takes that talks to a store."""
    return url_option(postgres_options(answer_options(command)))


def run_argument(command: Decorated) -> Decorated:
    """Which run is meant."""
    return click.argument("run", metavar="RUN")(command)
