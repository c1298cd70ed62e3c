"""The commands that do what an explanation says may be done."""

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
            is_partial = "from_step=" in action.call and explanation.step is not None
            start = ("--from-step", explanation.step or "") if is_partial else ()
            return settings.command("runs", "replay", run_id, *start, needs_app=True)
        case "recover" | "deploy_workflow":
            return settings.command("worker", *_queues(explanation), needs_app=True)
        case _:
            return settings.command("runs", "watch", run_id)


def _queues(explanation: Explanation) -> tuple[str, ...]:
    """The queue that somebody has to work on, unless it is the one that a worker takes anyway."""
    queue = explanation.details.get("queue")
    return ("--queue", queue) if isinstance(queue, str) and queue != "default" else ()
