"""The commands that do what an explanation says may be done."""

import ast

from squidmesh import Explanation, NextAction
from squidmesh.cli.settings import Settings


def command_for(
    settings: Settings, action: NextAction, run_id: str, explanation: Explanation
) -> str:
    """The command that takes *action*; for what can only be waited for, the one that watches."""
    match action.name:
        case "approve_run" | "reject_run" | "resume_run" | "cancel_run":
            return settings.command("runs", action.name.removesuffix("_run"), run_id)
        case "replay_run":
            start = start_of(action)
            return settings.command(
                "runs", "replay", run_id, *(("--from-step", start) if start else ()), needs_app=True
            )
        case "recover" | "deploy_workflow":
            return settings.command("worker", *_queues(explanation), needs_app=True)
        case _:
            return settings.command("runs", "watch", run_id)


def start_of(action: NextAction) -> str | None:
    """The step at which a replay is to start, as its call says; None is the beginning."""
    call = ast.parse(action.call, mode="eval").body
    keywords = [node for node in ast.walk(call) if isinstance(node, ast.keyword)]
    found = [ast.literal_eval(node.value) for node in keywords if node.arg == "from_step"]
    return str(found[0]) if found else None


def _queues(explanation: Explanation) -> tuple[str, ...]:
    """The queue that somebody has to work on, unless it is the one that a worker takes anyway."""
    queue = explanation.details.get("queue")
    return ("--queue", queue) if isinstance(queue, str) and queue != "default" else ()
