"""What can be asked of runs: how one stands, why, what it looks like, and which there are."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

import attrs

from squidmesh.cursors import read_cursor, write_cursor
from squidmesh.domain.definition import WorkflowDefinition
from squidmesh.domain.explanation import Explanation, explain, explain_step
from squidmesh.domain.graph import RunGraph, graph_of
from squidmesh.domain.state import RunState, RunStatus
from squidmesh.errors import InvalidOptionError, RunNotFoundError
from squidmesh.ports.store import RunQuery
from squidmesh.runtime.engine import Engine
from squidmesh.starting import check_name, check_run_id
from squidmesh.views import Run, RunPage, run_view, summary_view

MOST_PER_PAGE: Final = 1000
MOST_NAMES: Final = 12
SEEN_WITHIN: Final = timedelta(minutes=1)


@attrs.frozen(kw_only=True)
class ListOptions:
    """Which runs to list, as the caller said."""

    workflow: object = None
    status: object = None
    tags: object = None
    started_after: object = None
    started_before: object = None
    limit: object = 50
    cursor: object = None


async def load_run(engine: Engine, run_id: str) -> RunState:
    """Return a run's state from the store.

    Raises:
        RunNotFoundError: There is no such run.
    """
    loaded = await engine.store.load([run_id])
    engine.time.observe(loaded.at)
    if run_id not in loaded.states:
        raise RunNotFoundError(run_id)
    return loaded.states[run_id]


async def _definition(engine: Engine, state: RunState) -> WorkflowDefinition:
    return await engine.registry.definition(state.facts.fingerprint, state.run_id)


def run_of(engine: Engine, state: RunState) -> Run:
    """The run as callers see it, without its history."""
    return run_view(engine.registry.known(state.facts.fingerprint), state, rows=None)


async def inspect(engine: Engine, run_id: object, *, include_history: bool) -> Run:
    """Return a run, with or without its history."""
    state = await load_run(engine, check_run_id(run_id))
    definition = await _definition(engine, state)
    rows = await engine.store.read(state.run_id) if include_history else None
    if rows is not None:
        # What was committed between the two reads is not part of the state.
        rows = tuple(row for row in rows if row.revision <= state.revision)
    return run_view(definition, state, rows=rows)


async def explanation(engine: Engine, run_id: object, *, step: str | None) -> Explanation:
    """Say why a run, or one of its steps, stands where it stands."""
    state = await load_run(engine, check_run_id(run_id))
    definition = await _definition(engine, state)
    lacking = await _lacking(engine, state.facts.fingerprint)
    runnable, missing = lacking is not None, lacking or frozenset()
    registered = engine.registry.by_name.get(state.facts.workflow)
    today = registered.definition if registered is not None else None
    now = engine.time.now()
    if step is None:
        return explain(definition, state, now=now, runnable=runnable, lacking=missing, today=today)
    found = None
    if isinstance(step, str):
        found = explain_step(
            definition, state, step, now=now, runnable=runnable, lacking=missing, today=today
        )
    if found is None:
        raise no_such_step("step", definition)
    return found


def no_such_step(option: str, definition: WorkflowDefinition) -> InvalidOptionError:
    """Say that *option* names no step of *definition*, and which ones there are."""
    names = [step.name for step in definition.steps]
    shown = ", ".join(names[:MOST_NAMES]) + (", ..." if len(names) > MOST_NAMES else "")
    return InvalidOptionError(option, f"{definition.name} has no step of that name ({shown}).")


async def _lacking(engine: Engine, mark: str) -> frozenset[str] | None:
    """The steps that neither this process nor a worker seen lately can run; None for all."""
    own = engine.registry.lacking(mark)
    if own is not None and not own:
        return own
    others = await engine.store.workers_for(mark, within=SEEN_WITHIN)
    known = [*others.values(), *(() if own is None else (own,))]
    return frozenset.intersection(*known) if known else None


async def graph(engine: Engine, run_id: object) -> RunGraph:
    """Return the picture of a run."""
    state = await load_run(engine, check_run_id(run_id))
    return graph_of(await _definition(engine, state), state)


async def list_runs(engine: Engine, options: ListOptions) -> RunPage:
    """Return one page of runs, newest first."""
    query = _query(options)
    behind = None
    if options.cursor is not None:
        behind = read_cursor(options.cursor, query)
    found = await engine.store.list_runs(attrs.evolve(query, limit=query.limit + 1, behind=behind))
    page = found[: query.limit]
    more = len(found) > query.limit
    cursor = None
    if more:
        last = page[-1].state
        cursor = write_cursor((last.facts.at, last.run_id), query)
    return RunPage(runs=tuple(summary_view(item) for item in page), next_cursor=cursor)


def _query(options: ListOptions) -> RunQuery:
    limit = options.limit
    if type(limit) is not int or not 1 <= limit <= MOST_PER_PAGE:
        raise InvalidOptionError("limit", f"limit is an integer from 1 to {MOST_PER_PAGE}.")
    return RunQuery(
        workflow=_workflow(options.workflow),
        statuses=_statuses(options.status),
        tags=_tags(options.tags),
        started_after=_instant("started_after", options.started_after),
        started_before=_instant("started_before", options.started_before),
        limit=limit,
    )


def _workflow(workflow: object) -> str | None:
    """The name of the workflow whose runs are wanted; it need not be registered here."""
    if workflow is None:
        return None
    definition = getattr(workflow, "definition", workflow)
    if isinstance(definition, WorkflowDefinition):
        return definition.name
    return check_name("workflow", workflow)


def _statuses(status: object) -> frozenset[RunStatus] | None:
    if status is None:
        return None
    given = (status,) if isinstance(status, str | RunStatus) else status
    if not isinstance(given, list | tuple | set | frozenset) or not given:
        raise InvalidOptionError("status", "status is a run status or several of them.")
    try:
        return frozenset(RunStatus(item) for item in given)
    except ValueError:
        known = ", ".join(known.value for known in RunStatus)
        raise InvalidOptionError("status", f"A run status is one of {known}.") from None


def _tags(tags: object) -> dict[str, str]:
    if tags is None:
        return {}
    if not isinstance(tags, Mapping):
        raise InvalidOptionError("tags", "tags is a mapping from texts to texts.")
    return {check_name("tags", key): check_name("tags", value) for key, value in tags.items()}


def _instant(option: str, value: object) -> datetime | None:
    if value is None:
        return None
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise InvalidOptionError(option, f"{option} is a datetime with a time zone.")
    return value
