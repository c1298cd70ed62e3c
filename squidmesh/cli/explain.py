"""`squidmesh runs explain`: the answer first, then why, the facts, and what may be done."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final

import click

from squidmesh import Explanation, NextAction, SquidMesh, Step
from squidmesh.cli.actions import command_for, start_of
from squidmesh.cli.documents import explanation_document
from squidmesh.cli.finding import find_run
from squidmesh.cli.layout import Line, Sheet, Span, words
from squidmesh.cli.moments import from_text, now, shortened, span_of
from squidmesh.cli.opening import ask
from squidmesh.cli.options import run_argument, store_options
from squidmesh.cli.settings import Settings
from squidmesh.cli.styles import bold, dim, style_of
from squidmesh.cli.values import error_told, told

_HEADLINES: Final = {
    "step_running": "Running",
    "waiting_until": "Waiting for a time",
    "waiting_for_retry": "Waiting to try again",
    "waiting_for_dependencies": "Waiting for other steps",
    "pending_dispatch": "Waiting for a worker",
    "step_scheduled": "Waiting for a worker",
    "no_worker_for_workflow": "No worker has the code of this workflow",
    "lease_expired": "The worker is gone",
    "paused_for_manual_action": "Paused until resumed",
    "retry_exhausted": "Failed, out of attempts",
    "step_failed": "Failed",
    "poisoned": "Failed, it kills its workers",
    "compensation_failed": "Failed, and not everything is undone",
    "compensating": "Failed, undoing what was done",
}
"""Where the reason's own words would not do for somebody who has not seen them before."""

_SAID_ELSEWHERE: Final = frozenset(
    {"replay", "approval_targets", "resume_target", "ended_at", "visible_at", "waiting"}
)
_LABELS: Final = {"function": "needs", "compensation_failures": "not undone"}
_MOST_NAMES: Final = 3
_OF_WAITING: Final = frozenset({"step", "needs", "waiting_on", "dependency_statuses"})


@click.command()
@run_argument
@click.option("--step", help="Explain this step instead of the run.")
@store_options
@click.pass_obj
def explain(settings: Settings, run: str, step: str | None) -> None:
    """Say why a run stands where it stands, and what may be done."""
    terminal = settings.terminal

    async def question(mesh: SquidMesh) -> tuple[str, Explanation, tuple[Step, ...]]:
        run_id = await find_run(mesh, run, settings)
        explanation = await mesh.explain_run(run_id, step=step)
        if explanation.status != "failed" or terminal.json:
            return run_id, explanation, ()
        found = await mesh.inspect_run(run_id, include_history=True)
        return run_id, explanation, found.steps or ()

    run_id, explanation, steps = ask(settings, question)
    if terminal.json:
        terminal.document(explanation_document(settings, run_id, explanation))
        return
    terminal.show(headline(explanation, now()), answer(settings, run_id, explanation, steps))


def headline(explanation: Explanation, at: datetime) -> Line:
    """The answer in one line."""
    run = explanation.evidence["run"]
    workflow = str(run.get("workflow")) if isinstance(run, Mapping) else ""
    place = f"{workflow} / {explanation.step}" if explanation.step else workflow
    since = _since(explanation, at)
    return words(
        Span(reason_told(explanation.reason), f"bold {style_of(explanation.status)}".strip()),
        "  ·  ",
        place,
        *(("  ·  ", since) if since else ()),
    )


def reason_told(reason: str) -> str:
    """A reason in words."""
    return _HEADLINES.get(reason, reason.replace("_", " ").capitalize())


def _since(explanation: Explanation, at: datetime) -> str:
    details = explanation.details
    paused = from_text(details.get("paused_at"))
    if paused is not None:
        return f"waiting {span_of(at - paused)}"
    ended = from_text(details.get("ended_at"))
    if ended is not None:
        return f"{span_of(at - ended)} ago"
    claimed = from_text(details.get("claimed_at"))
    if claimed is not None:
        return f"for {span_of(at - claimed)}"
    due = from_text(details.get("visible_at"))
    if due is None:
        return ""
    return f"due in {span_of(due - at)}" if due > at else f"due for {span_of(at - due)}"


def answer(
    settings: Settings, run_id: str, explanation: Explanation, steps: Sequence[Step]
) -> Sheet:
    """Why, the facts, the commands, and what would not be safe."""
    return Sheet(
        (
            ("Why", words(shortened(explanation.summary))),
            *_labelled("Facts", (words(fact) for fact in _facts(explanation))),
            *next_rows(settings, run_id, explanation, steps),
            *_labelled("Unsafe", _unsafe(settings, run_id, explanation)),
        )
    )


def next_rows(
    settings: Settings,
    run_id: str,
    explanation: Explanation,
    steps: Sequence[Step],
    *,
    watching: bool = False,
) -> Iterator[tuple[str, Line]]:
    """The commands that may be given now, each once, and where they lead.

    *steps* are those of the run, needed if it has failed; somebody who is *watching* need not be
    told to watch.
    """
    notes: dict[str, str] = {}
    for action in explanation.next_actions:
        if watching and action.name.startswith("wait_"):
            continue
        command = command_for(settings, action, run_id, explanation)
        notes.setdefault(command, _leads_to(action, explanation, steps))
    columns = max((len(command) for command in notes), default=0)
    lines = (
        words(bold(command.ljust(columns)), dim(f"  # {note}" if note else ""))
        for command, note in notes.items()
    )
    yield from _labelled("Next", lines)


def _leads_to(action: NextAction, explanation: Explanation, steps: Sequence[Step]) -> str:
    details = explanation.details
    targets = details.get("approval_targets")
    if action.name == "approve_run" and isinstance(targets, Mapping):
        return f"then {_place(targets.get('ok'))}"
    if action.name == "reject_run" and isinstance(targets, Mapping):
        return f"then {_place(targets.get('error'))}"
    if action.name == "resume_run" and details.get("resume_target"):
        return f"then {_place(details['resume_target'])}"
    if action.name == "replay_run" and explanation.status == "failed":
        return _repeats(start_of(action), explanation, steps)
    return _goes_on(action, explanation)


def _repeats(start: str | None, explanation: Explanation, steps: Sequence[Step]) -> str:
    """What a replay of a failed run does again, and what it leaves as it is."""
    names = [step.name for step in steps]
    done = [step.name for step in steps if _stands(step)]
    if start is None:
        more = ", …" if len(done) > _MOST_NAMES else ""
        again = f"{', '.join(done[:_MOST_NAMES])}{more} {'is' if len(done) == 1 else 'are'}"
        return f"from the beginning: {again} done again" if done else "from the beginning"
    where = f"goes on at {start}"
    if start != explanation.step:
        where = f"goes on at {start}, which was undone"
    before = names[: names.index(start)] if start in names else ()
    return f"{where}; what was done before stands" if {*done} & {*before} else where


def _stands(step: Step) -> bool:
    """Whether what a body did is done, and was not undone."""
    undoing = (step.recovery or {}).get("compensation")
    is_undone = isinstance(undoing, Mapping) and undoing.get("status") == "completed"
    return step.kind == "action" and step.status == "completed" and not is_undone


def _goes_on(action: NextAction, explanation: Explanation) -> str:
    """Who takes it from here: a step that no worker can run goes on neither way by itself."""
    function = explanation.details.get("function")
    is_stuck = any(other.name == "deploy_workflow" for other in explanation.next_actions)
    if function or is_stuck:
        knows = f"has {function}" if function else "knows this workflow"
        return f"a worker that {knows}" if action.name in ("recover", "deploy_workflow") else ""
    return {
        "recover": "any worker takes it up again",
        "wait_until": "it goes on by itself",
        "wait_for_retry": "it goes on by itself",
    }.get(action.name, "")


def _place(target: object) -> str:
    return "the end" if target == "complete" else str(target)


def _facts(explanation: Explanation) -> Iterator[str]:
    details = explanation.details
    waiting = details.get("waiting")
    known = _SAID_ELSEWHERE | (_OF_WAITING if waiting else frozenset())
    for key, value in details.items():
        if key not in known and value not in (None, [], {}, 0):
            yield f"{_LABELS.get(key) or key.replace('_', ' ')}: {_fact(_unlisted(value))}"
    for item in waiting if isinstance(waiting, list) else ():
        if isinstance(item, Mapping):
            yield _waits(item)
    step = explanation.evidence.get("step")
    for key in ("failures", "deliveries", "deferrals"):
        if isinstance(step, Mapping) and step.get(key) and key not in details:
            yield f"{key} of the step: {step[key]}"
    run = explanation.evidence.get("run")
    if isinstance(run, Mapping):
        yield f"run started: {told(run.get('started_at'))}, revision {run.get('revision')}"


def _fact(value: object) -> str:
    """A detail in words; of several errors each says at which step it was."""
    errors = [item for item in value if _is_error(item)] if isinstance(value, list) else []
    if not errors:
        return told(value)
    return "; ".join(f"{item.get('step')}: {error_told(item)}" for item in errors)


def _unlisted(value: object) -> object:
    """An error without what could not be undone behind it, which is a fact of its own."""
    details = value.get("details") if isinstance(value, Mapping) else None
    if not isinstance(value, Mapping) or not isinstance(details, Mapping):
        return value
    kept = {key: item for key, item in details.items() if key != "compensation_failures"}
    return {**value, "details": kept}


def _is_error(item: object) -> bool:
    return isinstance(item, Mapping) and "code" in item and item.get("step") is not None


def _waits(item: Mapping[str, object]) -> str:
    """What a step waits for, and where each of that stands."""
    statuses = item.get("dependency_statuses")
    stand = statuses if isinstance(statuses, Mapping) else {}
    names = item.get("waiting_on")
    on = [f"{name} ({stand.get(name)})" for name in names] if isinstance(names, list) else []
    needs = "one of " if item.get("needs") == "any" and len(on) > 1 else ""
    return f"{item.get('step')} waits for {needs}{', '.join(on)}"


def _unsafe(settings: Settings, run_id: str, explanation: Explanation) -> Iterator[Line]:
    replay = explanation.details.get("replay")
    if not isinstance(replay, Mapping) or replay.get("allowed") is not False:
        return
    steps = replay.get("blocked_by")
    if isinstance(steps, list) and steps:
        names = ", ".join(str(step) for step in steps)
        yield words(f"replay: {names} is done and cannot be undone; to repeat it all the same:")
        command = ("runs", "replay", run_id, "--allow-irreversible")
        yield words(dim(settings.command(*command, needs_app=True)))
    elif replay.get("workflow_definition") == "unavailable":
        yield words("replay: what the run was started under is not stored here")


def _labelled(label: str, lines: Iterator[Line]) -> Iterator[tuple[str, Line]]:
    """Rows whose label stands at the first only."""
    for number, line in enumerate(lines):
        yield (label if number == 0 else ""), line
