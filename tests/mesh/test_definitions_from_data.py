"""Workflows that come as data, with functions from a registry, and run like any other."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from squidmesh import DefinitionError, SquidMesh, WorkflowDefinition
from squidmesh.testing.clock import VirtualClock
from tests.mesh.support import OpenMesh, context_of, history, step_statuses

pytestmark = pytest.mark.anyio


def load(number: str) -> dict[str, Any]:
    return {"id": number, "total": 120}


def charge(invoice: dict[str, Any]) -> str:
    return f"charged {invoice['total']}"


def refund(output: str) -> None: ...


ACTIONS: dict[str, Callable[..., object]] = {"load": load, "charge": charge, "refund": refund}
DATA: dict[str, Any] = {
    "name": "from_data",
    "version": "3",
    "triggers": [
        {
            "name": "by_hand",
            "kind": "manual",
            "payload": {"fields": [{"name": "number", "type": "str", "default": "o1"}]},
        }
    ],
    "steps": [
        {"name": "load", "kind": "action", "action": "load", "output": "invoice"},
        {"name": "rest", "kind": "wait", "duration": 60},
        {"name": "review", "kind": "approval", "output": "review"},
        {
            "name": "charge",
            "kind": "action",
            "action": "charge",
            "output": "receipt",
            "retry": {"max_attempts": 3},
            "compensate": "refund",
        },
        {"name": "small", "kind": "log", "message": "small"},
    ],
    "transitions": [
        {
            "from": "load",
            "on": "ok",
            "to": "small",
            "when": {"path": ["invoice", "total"], "less_than": 100},
        },
        {"from": "load", "on": "ok", "to": "rest"},
        {"from": "rest", "on": "ok", "to": "review"},
        {"from": "review", "on": "ok", "to": "charge"},
        {"from": "review", "on": "error", "to": "small"},
        {"from": "charge", "on": "ok", "to": "complete"},
        {"from": "small", "on": "ok", "to": "complete"},
    ],
}


async def carry_out(mesh: SquidMesh, clock: VirtualClock) -> None:
    run = await mesh.start_run("from_data", {"number": "o9"})
    await mesh.run_until_idle()
    clock.advance(timedelta(minutes=1))
    await mesh.run_until_idle()
    await mesh.approve_run(run.id, actor="ada")
    await mesh.run_until_idle()

    done = await history(mesh, run)
    assert (done.status, done.version) == ("completed", "3")
    assert context_of(done)["receipt"] == "charged 120"
    assert step_statuses(done)["small"] == "skipped"


async def test_a_workflow_from_data_runs_with_the_functions_it_was_given(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    mesh = await open_mesh(WorkflowDefinition.from_dict(DATA, actions=ACTIONS))

    await carry_out(mesh, clock)


async def test_what_was_written_out_runs_like_what_it_was_written_from(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    first = WorkflowDefinition.from_dict(DATA, actions=ACTIONS)
    text = json.dumps(first.to_dict())

    second = WorkflowDefinition.from_dict(json.loads(text), actions=ACTIONS)

    assert second == first
    assert second.fingerprint == first.fingerprint
    await carry_out(await open_mesh(second), clock)


def changed(**changes: Any) -> dict[str, Any]:
    return {**DATA, **changes}


def way(source: str, target: str, on: str = "ok", **more: Any) -> dict[str, Any]:
    return {"from": source, "on": on, "to": target, **more}


def only(*names: str, **more: Any) -> list[dict[str, Any]]:
    return [{"name": name, "kind": "log", "message": name, **more} for name in names]


BROKEN: list[tuple[dict[str, Any], str]] = [
    (changed(triggers=[]), "missing_trigger"),
    (changed(steps=[], transitions=[]), "missing_steps"),
    (changed(steps=only("a", "a"), transitions=[way("a", "complete")]), "duplicate_name"),
    (
        changed(steps=only("a", "b"), transitions=[way("a", "b"), way("b", "a")]),
        "transition_cycle",
    ),
    (changed(steps=only("a"), transitions=[way("a", "nowhere")]), "unknown_step"),
    (changed(steps=only("a"), transitions=[way("a", "complete", "maybe")]), "unknown_outcome"),
    (
        changed(
            steps=[*only("a", after=["b"]), *only("b", after=["a"])],
            transitions=[],
        ),
        "dependency_cycle",
    ),
    (changed(steps=only("a", after=["a"]), transitions=[]), "self_dependency"),
    (changed(steps=only("a", after=["x"]), transitions=[]), "unknown_dependency"),
    (
        changed(steps=[*only("a"), *only("b", after=["a"])], transitions=[way("a", "b")]),
        "mixed_modes",
    ),
    (changed(name=""), "invalid_name"),
    (
        changed(
            steps=only("a", "b"),
            transitions=[way("a", "complete", recovery="sideways"), way("b", "complete")],
        ),
        "invalid_recovery",
    ),
    (
        changed(
            triggers=[{"name": "t", "kind": "cron", "expression": "often"}],
            steps=only("a"),
            transitions=[way("a", "complete")],
        ),
        "invalid_cron_expression",
    ),
]


@pytest.mark.parametrize(
    ("data", "code"), BROKEN, ids=lambda value: value if isinstance(value, str) else ""
)
def test_data_that_cannot_work_is_refused_with_the_code(data: dict[str, Any], code: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        WorkflowDefinition.from_dict(data, actions=ACTIONS)

    assert code in {problem.code for problem in refused.value.problems}


@pytest.mark.parametrize(
    "data", [None, 7, "text", [], {}, {"steps": 7}, {"name": object()}], ids=range(7)
)
def test_data_that_is_no_definition_at_all_is_refused_too(data: Any) -> None:
    with pytest.raises(DefinitionError):
        WorkflowDefinition.from_dict(data, actions=ACTIONS)


def test_an_action_that_is_not_in_the_registry_is_a_problem() -> None:
    with pytest.raises(DefinitionError) as refused:
        WorkflowDefinition.from_dict(DATA, actions={"load": load})

    assert {problem.code for problem in refused.value.problems} >= {
        "invalid_action",
        "invalid_compensation",
    }


async def test_data_without_functions_can_start_runs_that_wait_for_a_worker(
    open_mesh: OpenMesh,
) -> None:
    mesh = await open_mesh(WorkflowDefinition.from_dict(DATA))

    run = await mesh.start_run("from_data")
    await mesh.run_until_idle()

    assert (await mesh.inspect_run(run.id)).status == "pending"
    assert (await mesh.explain_run(run.id)).reason == "no_worker_for_workflow"
