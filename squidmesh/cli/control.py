"""`squidmesh runs approve|reject|resume|cancel|replay`: deciding what happens to a run."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeAlias, TypeVar

import attrs
import click

from squidmesh import Entry, Preview, Run, SquidMesh
from squidmesh.cli.documents import run_document
from squidmesh.cli.finding import find_run
from squidmesh.cli.layout import Line, words
from squidmesh.cli.opening import ask
from squidmesh.cli.options import PAIR, app_option, run_argument, store_options
from squidmesh.cli.pictures import OVER
from squidmesh.cli.previewing import show_preview
from squidmesh.cli.settings import Settings, actor_or_user
from squidmesh.cli.styles import bold, dim, marked
from squidmesh.cli.values import told

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


@attrs.frozen
class Said:
    """Who acts, and what they say with it."""

    actor: str | None
    comment: str | None = None
    metadata: dict[str, str] | None = None
    idempotency_key: str | None = None
    preview: bool = False


@attrs.frozen
class Decided:
    """What a command came to; *first* is what was written when its key was used before."""

    run: Run | Preview
    first: Entry | None = None


Control: TypeAlias = Callable[[SquidMesh, str, Said], Awaitable[Run | Preview]]

_COMMANDS: Final = frozenset({"manual_step_resolved", "cancel_requested", "run_replayed"})
"""The entries that a person's commands write; others have an idempotency key of another kind."""


def acting(command: Decorated) -> Decorated:
    """Who acts, a key that makes it safe to say it twice, and whether to act at all."""
    actor = click.option(
        "--actor",
        envvar="SQUIDMESH_ACTOR",
        show_envvar=True,
        help="Who is acting; recorded.  [default: the user of the shell]",
    )
    key = click.option(
        "--idempotency-key", metavar="KEY", help="Give the same key twice, and it is done once."
    )
    preview = click.option(
        "--preview", is_flag=True, help="Show what this would do, and do nothing."
    )
    return run_argument(preview(actor(key(command))))


def commenting(command: Decorated) -> Decorated:
    """What is said with a decision."""
    comment = click.option("--comment", help="Why; recorded.")
    metadata = click.option(
        "--metadata", multiple=True, type=PAIR, help="Recorded with the decision; repeatable."
    )
    return comment(metadata(command))


def _decide(
    settings: Settings, run: str, said: Said, control: Control, *, code: bool = False
) -> Decided:
    async def question(mesh: SquidMesh) -> Decided:
        run_id = await find_run(mesh, run, settings)
        before = await _written_with(mesh, run_id, said)
        found = await control(mesh, run_id, said)
        if before is None:
            # Somebody may have used the key in between; what they said then tells them apart.
            after = await _written_with(mesh, run_id, said)
            before = None if after is None or _says(after, said) else after
        return Decided(found, before)

    return ask(settings, question, with_code=code)


async def _written_with(mesh: SquidMesh, run_id: str, said: Said) -> Entry | None:
    """What was written about the run by a command that had the same key."""
    if said.idempotency_key is None or said.preview:
        return None
    run = await mesh.inspect_run(run_id, include_history=True)
    used = (
        entry
        for entry in run.entries or ()
        if entry.type in _COMMANDS and entry.data.get("idempotency_key") == said.idempotency_key
    )
    return next(used, None)


def _says(entry: Entry, said: Said) -> bool:
    data = entry.data
    found = (data.get("actor"), data.get("comment"), data.get("metadata") or None)
    return found == (said.actor, said.comment, said.metadata)


def _answer(settings: Settings, decided: Decided, run: Run, done: Line) -> None:
    terminal = settings.terminal
    if terminal.json:
        terminal.document({**run_document(run), "repeated": decided.first is not None})
        return
    place = f" at {run.current_step}" if run.current_step else ""
    terminal.show((*done, *words("  ", *marked(run.status), place)))
    then = "show" if run.status in OVER else "watch"
    terminal.show(words(dim("Next  "), settings.command("runs", then, run.id)))


def _answer_about(settings: Settings, decided: Decided, done: str, said: Said) -> None:
    run = decided.run
    if isinstance(run, Preview):
        show_preview(settings, run)
        return
    by = f" by {said.actor}" if said.actor else ""
    line = words(bold(_done_before(decided) or f"{done}{by}"), "  ·  ", f"{run.workflow} {run.id}")
    _answer(settings, decided, run, line)


def _done_before(decided: Decided) -> str:
    """Who has done it already, if the key says that somebody has."""
    if decided.first is None:
        return ""
    actor = decided.first.data.get("actor")
    by = "" if actor is None else f" by {told(actor)}"
    return f"Done before{by}; nothing was written"


def _review(name: str, description: str, done: str, control: Control) -> click.Command:
    """A command that ends a manual step; the three of them differ in nothing else."""

    @click.command(name, help=description)
    @commenting
    @acting
    @store_options
    @click.pass_obj
    def command(
        settings: Settings,
        /,
        *,
        run: str,
        actor: str | None,
        comment: str | None,
        metadata: Sequence[tuple[str, str]],
        idempotency_key: str | None,
        preview: bool,
    ) -> None:
        who = actor_or_user(actor)
        said = Said(who, comment, dict(metadata) or None, idempotency_key, preview)
        _answer_about(settings, _decide(settings, run, said, control), done, said)

    return command


def _approved(mesh: SquidMesh, run_id: str, said: Said) -> Awaitable[Run | Preview]:
    return mesh.approve_run(run_id, **attrs.asdict(said))


def _rejected(mesh: SquidMesh, run_id: str, said: Said) -> Awaitable[Run | Preview]:
    return mesh.reject_run(run_id, **attrs.asdict(said))


def _resumed(mesh: SquidMesh, run_id: str, said: Said) -> Awaitable[Run | Preview]:
    return mesh.resume_run(run_id, **attrs.asdict(said))


approve: Final = _review("approve", "Decide an open approval with yes.", "Approved", _approved)
reject: Final = _review(
    "reject",
    "Decide an open approval with no; its error route is taken.",
    "Rejected",
    _rejected,
)
resume: Final = _review("resume", "End an open pause; the run goes on.", "Resumed", _resumed)


@click.command()
@click.option("--reason", help="Why; recorded.")
@acting
@store_options
@click.pass_obj
def cancel(
    settings: Settings,
    *,
    run: str,
    actor: str | None,
    idempotency_key: str | None,
    reason: str | None,
    preview: bool,
) -> None:
    """Stop a run: at once, or when the step that runs has ended."""

    async def control(mesh: SquidMesh, run_id: str, said: Said) -> Run | Preview:
        return await mesh.cancel_run(
            run_id,
            actor=said.actor,
            reason=said.comment,
            idempotency_key=said.idempotency_key,
            preview=said.preview,
        )

    said = Said(actor_or_user(actor), reason, None, idempotency_key, preview)
    _answer_about(settings, _decide(settings, run, said, control), "Asked to stop", said)


@click.command()
@click.option("--comment", help="Why; recorded.")
@click.option(
    "--allow-irreversible",
    is_flag=True,
    help="Repeat also what was done and cannot be undone.",
)
@click.option("--from-step", metavar="STEP", help="Start here, with what the steps before it gave.")
@acting
@app_option
@store_options
@click.pass_obj
def replay(
    settings: Settings,
    *,
    run: str,
    actor: str | None,
    idempotency_key: str | None,
    comment: str | None,
    allow_irreversible: bool,
    from_step: str | None,
    preview: bool,
) -> None:
    """Start a new run with the payload of an old one."""

    async def control(mesh: SquidMesh, run_id: str, said: Said) -> Run | Preview:
        return await mesh.replay_run(
            run_id,
            allow_irreversible=allow_irreversible,
            from_step=from_step,
            actor=said.actor,
            comment=said.comment,
            idempotency_key=said.idempotency_key,
            preview=said.preview,
        )

    said = Said(actor_or_user(actor), comment, None, idempotency_key, preview)
    decided = _decide(settings, run, said, control, code=True)
    found = decided.run
    if isinstance(found, Preview):
        show_preview(settings, found)
        return
    source = f"from {found.replayed_from}" if found.replayed_from else ""
    done = _done_before(decided) or "Started again"
    line = words(bold(done), "  ·  ", f"{found.workflow} {found.id} ", dim(source))
    _answer(settings, decided, found, line)
