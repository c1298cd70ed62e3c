"""The workflows that `--app module:attribute` names."""

import importlib
import inspect
import sys
import traceback
from collections.abc import Iterable, Sized
from pathlib import Path
from types import ModuleType
from typing import Any, Final, TypeAlias, TypeGuard

from squidmesh import SquidMeshError, Workflow, WorkflowDefinition
from squidmesh.cli.failures import CommandError, Exit
from squidmesh.cli.settings import Settings

DEFAULT_ATTRIBUTE: Final = "workflows"
AnyWorkflow: TypeAlias = type[Workflow[Any]] | WorkflowDefinition


def workflows_at(settings: Settings) -> tuple[AnyWorkflow, ...]:
    """Import and return the workflows of `--app`: one, a sequence of them, or a module of them.

    Without an attribute, the one named `workflows` is taken.

    Raises:
        CommandError: There is no such module or attribute, or it holds no workflow.
        DefinitionError: A workflow there cannot work; lists its problems.
    """
    name, _, attribute = settings.app_path.partition(":")
    attribute = attribute or DEFAULT_ATTRIBUTE
    if not all(part.isidentifier() for path in (name, attribute) for part in path.split(".")):
        raise _wrong(
            settings,
            "--app is written MODULE:WORKFLOWS, such as shop:workflows.",
            code="app_format",
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    module = _imported(name, settings)
    found = _attribute(module, attribute, settings)
    workflows = _workflows_in(found)
    strangers = [item for item in workflows if not _is_workflow(item)]
    if not workflows and isinstance(found, Sized):
        raise _wrong(
            settings,
            f"{name}:{attribute} is empty: put your workflow classes into it.",
            code="app_not_a_workflow",
        )
    if strangers or not workflows:
        raise _wrong(
            settings,
            f"{name}:{attribute} is neither a workflow class nor a sequence of them: "
            f"{_described(strangers[0] if strangers else found, among=bool(strangers))}.",
            code="app_not_a_workflow",
        )
    return tuple(workflow for workflow in workflows if _is_workflow(workflow))


def _imported(name: str, settings: Settings) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as problem:
        if problem.name is not None and f"{name}.".startswith(f"{problem.name}."):
            hint = " Name it without .py." if name.endswith(".py") else ""
            raise _wrong(
                settings,
                f"There is no module {problem.name}, neither installed nor in the current folder."
                f"{hint}",
                code="app_module_not_found",
            ) from None
        raise _broken(settings, name, problem) from problem
    except SquidMeshError:
        raise
    except Exception as problem:
        # Whatever somebody's module does when it is imported is theirs to repair.
        raise _broken(settings, name, problem) from problem


def _attribute(module: ModuleType, path: str, settings: Settings) -> object:
    found: object = module
    for part in path.split("."):
        if not hasattr(found, part):
            names = sorted(name for name, value in vars(module).items() if _is_workflow(value))
            hint = f" Workflows there: {', '.join(names)}." if names else ""
            said = f"The module {module.__name__} has no {path}.{hint}"
            if ":" not in settings.app_path:
                meant = f"{module.__name__}:{path}"
                said = f"--app {settings.app_path} means {meant}, which is not there.{hint}"
            raise _wrong(
                settings,
                said,
                code="app_attribute_not_found",
                suggestion=f"{module.__name__}:{names[0]}" if names else None,
            )
        found = getattr(found, part)
    return found


def _workflows_in(found: object) -> tuple[object, ...]:
    if _is_workflow(found):
        return (found,)
    if isinstance(found, ModuleType):
        return tuple(
            value
            for value in vars(found).values()
            if _is_workflow(value) and getattr(value, "__module__", None) == found.__name__
        )
    if isinstance(found, Iterable) and not isinstance(found, str | bytes):
        return tuple(found)
    return ()


def _is_workflow(value: object) -> TypeGuard[AnyWorkflow]:
    if isinstance(value, WorkflowDefinition):
        return True
    is_class = inspect.isclass(value) and issubclass(value, Workflow)
    return is_class and isinstance(getattr(value, "definition", None), WorkflowDefinition)


def _described(stranger: object, *, among: bool) -> str:
    is_class = inspect.isclass(stranger)
    kind = "the class" if is_class else "of type"
    name = getattr(stranger, "__name__", "") if is_class else type(stranger).__name__
    return f"{'one in it' if among else 'it'} is {kind} {name}"


def _wrong(
    settings: Settings, message: str, *, code: str, suggestion: str | None = None
) -> CommandError:
    again = settings.typed(without=("--app",))
    return CommandError(
        message,
        code=code,
        exit_code=Exit.USAGE,
        advice=f"{again} --app {suggestion or 'MODULE:WORKFLOWS'}",
        details={"app": settings.app},
    )


def _broken(settings: Settings, name: str, problem: Exception) -> CommandError:
    frames = traceback.extract_tb(problem.__traceback__)
    place = (frames[-1].filename, frames[-1].lineno) if frames else None
    if isinstance(problem, SyntaxError) and problem.filename:
        place = (problem.filename, problem.lineno)
    where = f" ({Path(place[0]).name}, line {place[1]})" if place is not None else ""
    return CommandError(
        f"The module {name} cannot be imported: {type(problem).__name__}: {problem}{where}.",
        code="app_import_failed",
        exit_code=Exit.FAILED,
        advice=f"python -c 'import {name}'",
        details={"app": settings.app, "type": type(problem).__name__},
    )
