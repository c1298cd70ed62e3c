"""What a command was told besides its own options: the store, the code, the form of the answer."""

import getpass
import os
import re
import shlex
import sys
from collections.abc import Sequence
from typing import Any

import attrs

from squidmesh.cli.failures import CommandError, Exit
from squidmesh.cli.terminal import Terminal


@attrs.define(kw_only=True)
class Settings:
    """The options that every command shares, wherever on the line they stand.

    *run_id* is the run in question, once it was found.
    """

    arguments: tuple[str, ...] = ()
    url: str | None = None
    url_is_typed: bool = False
    schema: str | None = None
    schema_is_typed: bool = False
    no_prepare: bool = False
    no_prepare_is_typed: bool = False
    app: str | None = None
    app_is_typed: bool = False
    json: bool = False
    color: bool = True
    command_path: str = "squidmesh"
    run_id: str | None = None

    @property
    def terminal(self) -> Terminal:
        """Where to answer."""
        return Terminal.for_stdout(as_json=self.json, color=self.color)

    @property
    def store_url(self) -> str:
        """The store's URL.

        Raises:
            CommandError: None was given.
        """
        if not self.url:
            raise CommandError(
                "No store is named: give --url, such as --url sqlite:///app.db, or set "
                "SQUIDMESH_URL.",
                code="no_store_url",
                exit_code=Exit.USAGE,
                advice=f"{self.typed(without=())} --url sqlite:///app.db",
            )
        return self.url

    @property
    def in_store(self) -> dict[str, Any]:
        """The store's own options, as far as they were given."""
        schema: dict[str, Any] = {} if self.schema is None else {"schema": self.schema}
        return {**schema, "prepare_threshold": None} if self.no_prepare else schema

    @property
    def app_path(self) -> str:
        """Where the workflows are.

        Raises:
            CommandError: Nothing was given.
        """
        if not self.app:
            raise CommandError(
                "This needs the code of the workflows: give --app module:workflows or set "
                "SQUIDMESH_APP.",
                code="no_app",
                exit_code=Exit.USAGE,
                advice=f"{self.typed(without=())} --app MODULE:WORKFLOWS",
            )
        return self.app

    def command(self, *arguments: str, needs_app: bool = False) -> str:
        """A command that can be pasted into the shell from which this one came."""
        parts = ["squidmesh", *arguments]
        # A URL with a password is not repeated for everybody to read.
        if self.url and self.url_is_typed and shown_url(self.url) == self.url:
            parts += ["--url", self.url]
        if self.schema and self.schema_is_typed:
            parts += ["--schema", self.schema]
        if self.no_prepare and self.no_prepare_is_typed:
            parts += ["--no-prepare"]
        if needs_app and not self.app:
            return f"{shlex.join(parts)} --app MODULE:WORKFLOWS"
        if needs_app and self.app and self.app_is_typed:
            parts += ["--app", self.app]
        return shlex.join(parts)

    def typed(self, *, without: Sequence[str]) -> str:
        """The command as it was typed, but for options (with their values) that are named.

        A URL that would show a password is left out as well.
        """
        if self.url and shown_url(self.url) != self.url:
            without = (*without, "--url")
        kept: list[str] = []
        skip = False
        for argument in self.arguments:
            if skip:
                skip = False
            elif argument in without:
                skip = True
            elif not any(argument.startswith(f"{option}=") for option in without):
                kept.append(argument)
        return shlex.join(["squidmesh", *kept])


def shown_url(url: str) -> str:
    """The URL without user, password and parameters: what anybody may read of it."""
    scheme, separator, rest = url.partition("://")
    if scheme.lower() in ("sqlite", "memory") or not separator:
        return url
    server, slash, database = rest.partition("?")[0].partition("/")
    hosts = server.rpartition("@")[2]
    # A password with a slash in it that nobody has quoted goes on in the database, or as a port.
    if "@" in database or not re.fullmatch(r"[\w.,-]*(:\d+)?|\[[\w:.]+\](:\d+)?", hosts):
        return f"{scheme}://…"
    return f"{scheme}://{hosts}{slash}{database}"


def actor_or_user(actor: str | None) -> str | None:
    """Who acts: as said, else SQUIDMESH_ACTOR, else the user of this process, else nobody."""
    if actor is not None:
        return actor  # even if it is empty: that is for the library to refuse
    named = os.environ.get("SQUIDMESH_ACTOR") or os.environ.get("USER")
    if named:
        return named
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return None


def speak_any_language() -> None:
    """Let a character that the terminal does not know be spelled out, not end the command."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
