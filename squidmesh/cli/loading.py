"""The workflows that `--app module:attribute` names."""

import importlib
import inspect
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import TypeAlias

from squidmesh import SquidMeshError, Workflow, WorkflowDefinition
from squidmesh.cli.problems import CommandError, Exit

DEFAULT_ATTRIBUTE = "workflows"
AnyWorkflow: TypeAlias = type[Workflow] | WorkflowDefinition


def workflows_at(app: str) -> tuple[AnyWorkflow, ...]:
    """Import and return the workflows at *app*: one, a sequence of them, or a module of them.

    Without an attribute, the one named `workflows` is taken.

    Raises:
        CommandError: There is no such module or attribute, or it holds no workflow.
        DefinitionError: A workflow there cannot work; lists its problems.
    """
    module_name, _, attribute = app.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    module = _imported(module_name, app)
    found = _attribute(module, attribute or DEFAULT_ATTRIBUTE, app)
    workflows = _workflows_in(found)
    if not workflows or not all(_is_workflow(workflow) for workflow in workflows):
        raise _wrong(
            app,
            f"{attribute or DEFAULT_ATTRIBUTE} of {module_name} is no workflow class and no "
            f"sequence of them, but {_described(found, workflows)}.",
            code="app_not_a_workflow",
        )
    return tuple(workflows)


def _imported(name: str, app: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as problem:
        if problem.name is not None and f"{name}.".startswith(f"{problem.name}."):
            raise _wrong(
                app,
                f"There is no module {problem.name}, neither installed nor in the current folder.",
                code="app_module_not_found",
            ) from None
        raise _broken(app, name, problem) from problem
    except ValueError as problem:
        if not name.strip(".") or name.startswith("."):
            raise _wrong(
                app, "--app is written MODULE:WORKFLOWS, such as shop:workflows.", code="app_format"
            ) from None
        raise _broken(app, name, problem) from problem
    except SquidMeshError:
        raise
    except Exception as problem:
        # Whatever somebody's module does when it is imported is theirs to repair.
        raise _broken(app, name, problem) from problem


def _attribute(module: ModuleType, path: str, app: str) -> object:
    found: object = module
    for part in path.split("."):
        if not hasattr(found, part):
            candidates = sorted(
                name for name, value in vars(module).items() if _is_workflow(value)
            )
            hint = f" Workflows there: {', '.join(candidates)}." if candidates else ""
            raise _wrong(
                app,
                f"The module {module.__name__} has no {path}.{hint}",
                code="app_attribute_not_found",
            )
        found = getattr(found, part)
    return found


def _workflows_in(found: object) -> tuple[AnyWorkflow, ...]:
    if _is_workflow(found):
        return (found,)  # type: ignore[return-value]  # _is_workflow has looked
    if isinstance(found, ModuleType):
        return tuple(
            value
            for value in vars(found).values()
            if _is_workflow(value) and getattr(value, "__module__", None) == found.__name__
        )
    if isinstance(found, Iterable) and not isinstance(found, str | bytes):
        return tuple(found)
    return ()


def _is_workflow(value: object) -> bool:
    if isinstance(value, WorkflowDefinition):
        return True
    is_class = inspect.isclass(value) and issubclass(value, Workflow)
    return is_class and isinstance(getattr(value, "definition", None), WorkflowDefinition)


def _described(found: object, workflows: Iterable[object]) -> str:
    stranger = next((item for item in workflows if not _is_workflow(item)), found)
    name = stranger.__name__ if inspect.isclass(stranger) else f"of type {type(stranger).__name__}"
    holds = "" if stranger is found else "holds "
    return f"{holds}{name}"


def _wrong(app: str, message: str, *, code: str) -> CommandError:
    return CommandError(
        message,
        code=code,
        exit_code=Exit.USAGE,
        advice="squidmesh worker --app MODULE:WORKFLOWS",
        details={"app": app},
    )


def _broken(app: str, name: str, problem: Exception) -> CommandError:
    frames = traceback.extract_tb(problem.__traceback__)
    last = frames[-1] if frames else None
    where = f" ({Path(last.filename).name}, line {last.lineno})" if last is not None else ""
    if isinstance(problem, SyntaxError) and problem.filename:
        where = f" ({Path(problem.filename).name}, line {problem.lineno})"
    said = f"{type(problem).__name__}: {problem}"
    return CommandError(
        f"The module {name} cannot be imported: {said}{where}.",
        code="app_import_failed",
        exit_code=Exit.FAILED,
        advice=f"python -c 'import {name}'",
        details={"app": app, "type": type(problem).__name__},
    )
