"""The picture of a run, as values, as JSON and as a flowchart."""

import json
import re

import pytest

from squidmesh import (
    Edge,
    Errored,
    Node,
    RunGraph,
    RunNotFoundError,
    Workflow,
    approval,
    log,
    manual,
    path,
    step,
    wait,
    when,
)
from tests.mesh.support import MINUTE, OpenMesh, Order

pytestmark = pytest.mark.anyio


class Decided(Workflow[Order]):
    name = "decided"
    by_hand = manual()
    load = step(lambda: {"score": 5})
    review = approval()
    pay = step(lambda: Errored("no"), output="x")
    page = log("paged")
    transitions = (
        load.on_ok(page, when=when("score", greater_than=10)),
        path(load, review, pay),
        review.on_error(page),
        pay.on_error(page, recovery="compensation"),
        path(page),
    )


async def test_a_graph_shows_every_step_and_way_with_where_it_stands(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Decided)
    run = await mesh.start_run(Decided)
    await mesh.run_until_idle()

    graph = await mesh.graph(run.id)

    assert isinstance(graph, RunGraph)
    assert (graph.run_id, graph.workflow, graph.status) == (run.id, "decided", "paused")
    assert graph.nodes == (
        Node(id="load", kind="action", status="completed", current=False),
        Node(id="review", kind="approval", status="paused", current=True),
        Node(id="pay", kind="action", status="waiting", current=False),
        Node(id="page", kind="log", status="waiting", current=False),
    )
    assert all(isinstance(edge, Edge) for edge in graph.edges)
    ways = {
        (edge.source, edge.on, edge.target, edge.condition is not None): edge.status
        for edge in graph.edges
    }
    assert ways == {
        ("load", "ok", "page", True): "skipped",
        ("load", "ok", "review", False): "selected",
        ("review", "ok", "pay", False): "pending",
        ("pay", "ok", "complete", False): "pending",
        ("review", "error", "page", False): "pending",
        ("pay", "error", "page", False): "pending",
        ("page", "ok", "complete", False): "pending",
    }


async def test_the_dictionary_has_these_keys_and_is_plain_json(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Decided)
    run = await mesh.start_run(Decided)
    await mesh.run_until_idle()

    found = (await mesh.graph(run.id)).to_dict()

    nodes, edges = found["nodes"], found["edges"]
    assert json.loads(json.dumps(found)) == found
    assert set(found) == {"run_id", "workflow", "status", "nodes", "edges"}
    assert isinstance(nodes, list)
    assert isinstance(edges, list)
    assert nodes[1] == {"id": "review", "kind": "approval", "status": "paused", "current": True}
    assert edges[0] == {
        "id": "load:ok:page:condition:0",
        "from": "load",
        "to": "page",
        "type": "transition",
        "on": "ok",
        "condition": {"path": ["score"], "greater_than": 10},
        "recovery": None,
        "status": "skipped",
    }
    ids = [edge["id"] for edge in edges if isinstance(edge, dict)]
    assert "load:ok:review" in ids
    assert len(set(map(str, ids))) == len(ids)


async def test_ways_out_of_a_failed_step_are_selected_or_skipped(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Decided)
    run = await mesh.start_run(Decided)
    await mesh.run_until_idle()
    await mesh.approve_run(run.id, actor="ada")
    await mesh.run_until_idle()

    graph = await mesh.graph(run.id)

    by_id = {edge.id: edge for edge in graph.edges}
    assert {node.id: node.status for node in graph.nodes} == {
        "load": "completed",
        "review": "completed",
        "pay": "failed",
        "page": "completed",
    }
    assert by_id["pay:error:page"].status == "selected"
    assert by_id["pay:error:page"].recovery == "compensation"
    assert by_id["pay:ok:complete"].status == "skipped"
    assert by_id["review:error:page"].status == "skipped"
    assert by_id["page:ok:complete"].status == "selected"


async def test_ways_out_of_a_step_that_failed_the_run_are_blocked(open_mesh: OpenMesh) -> None:
    class Blocked(Workflow[Order]):
        name = "blocked"
        by_hand = manual()
        bad = step(lambda: Errored("no"), output="x")
        then = log("then")
        transitions = path(bad, then)

    mesh = await open_mesh(Blocked)
    run = await mesh.start_run(Blocked)
    await mesh.run_until_idle()

    graph = await mesh.graph(run.id)

    assert {node.id: node.status for node in graph.nodes} == {"bad": "failed", "then": "skipped"}
    assert {edge.id: edge.status for edge in graph.edges} == {
        "bad:ok:then": "blocked",
        "then:ok:complete": "skipped",
    }


async def test_dependencies_are_edges_of_their_own_type(open_mesh: OpenMesh) -> None:
    class Joined(Workflow[Order]):
        name = "joined"
        by_hand = manual()
        a = log("a")
        b = wait(MINUTE)
        join = log("join", after=(a, b))

    mesh = await open_mesh(Joined)
    run = await mesh.start_run(Joined)
    await mesh.run_until_idle()

    graph = await mesh.graph(run.id)

    assert [(edge.id, edge.type, edge.status) for edge in graph.edges] == [
        ("a:dependency:join", "dependency", "selected"),
        ("b:dependency:join", "dependency", "pending"),
    ]
    assert [node.id for node in graph.nodes if node.current] == ["b"]


async def test_the_flowchart_draws_every_node_and_edge(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Decided)
    run = await mesh.start_run(Decided)
    await mesh.run_until_idle()

    drawn = (await mesh.graph(run.id)).to_mermaid()

    lines = drawn.splitlines()
    assert lines[0] == "flowchart TD"
    assert drawn.endswith("\n")
    assert all(f'"{name}"' in drawn for name in ("load", "review", "pay", "page", "complete"))
    assert sum("==>" in line for line in lines) == 1
    assert sum("-.->" in line for line in lines) == 1
    assert sum("-->" in line for line in lines) == 5


async def test_names_and_operands_cannot_be_mistaken_for_syntax(open_mesh: OpenMesh) -> None:
    class Hostile(Workflow[Order]):
        name = "hostile"
        by_hand = manual()
        end = log("end")
        subgraph = log("sub")
        transitions = (
            end.on_ok(subgraph, when=when("number", equals='"]; click n0 "javascript:x"\n%%{')),
            path(end),
            path(subgraph),
        )

    mesh = await open_mesh(Hostile)
    run = await mesh.start_run(Hostile)

    drawn = (await mesh.graph(run.id)).to_mermaid()

    labels = re.findall(r'"([^"]*)"', drawn)
    assert drawn.count('"') == 2 * len(labels)
    assert all(re.fullmatch(r"(?:[\w .,:()=-]|#\d+;)*", label) for label in labels)
    assert "%%{" not in drawn


async def test_a_graph_of_a_run_that_is_not_there_is_refused(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Decided)

    with pytest.raises(RunNotFoundError):
        await mesh.graph("0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b")
