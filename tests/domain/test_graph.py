import json

import pytest

from squidmesh.domain.definition import Condition, Operator, RecoveryMarker, WorkflowDefinition
from squidmesh.domain.graph import Edge, RunGraph, graph_of
from tests.domain.builders import a_path, a_workflow, an_action, on_error, on_ok, unchecked
from tests.domain.script import Script
from tests.domain.stories import (
    FEAST,
    PAYMENT,
    a_run,
    at_ask,
    at_review,
    doomed,
    exhausted,
    feasted,
    finish,
    undoing,
)

ROUTED = a_workflow(
    an_action("sort", output="sorting"),
    an_action("small"),
    an_action("big"),
    transitions=(
        on_ok("sort", "big", Condition(("sorting", "size"), Operator.GREATER_THAN, 10)),
        on_ok("sort", "big", Condition(("sorting", "kind"), Operator.EQUALS, "big")),
        on_ok("sort", "small"),
        on_error("sort", None, recovery=RecoveryMarker.UNDO),
        on_ok("small", None),
        on_ok("big", None),
    ),
)
"""Conditions that lead to one target, a fallback, and an error route to the end."""


def graph(script: Script) -> RunGraph:
    return graph_of(script.definition, script.state)


def edge(script: Script, edge_id: str) -> Edge:
    (found,) = (edge for edge in graph(script).edges if edge.id == edge_id)
    return found


def statuses(script: Script) -> dict[str, str]:
    return {edge.id: edge.status for edge in graph(script).edges}


def test_a_graph_shows_every_declared_step_and_where_the_run_is() -> None:
    nodes = graph(at_review()).nodes

    assert [(node.id, node.kind, node.status, node.current) for node in nodes] == [
        ("load", "action", "completed", False),
        ("settle", "wait", "completed", False),
        ("ask", "action", "completed", False),
        ("review", "approval", "paused", True),
        ("credit", "action", "waiting", False),
        ("tell", "action", "waiting", False),
        ("page", "action", "waiting", False),
    ]


def test_all_open_steps_are_current_and_so_is_the_one_that_a_run_failed_with() -> None:
    def current(script: Script) -> list[str]:
        return [node.id for node in graph(script).nodes if node.current]

    assert current(a_run(FEAST)) == ["march", "sneak", "rest"]
    assert current(exhausted()) == ["march"]
    assert current(feasted()) == []


def test_a_compensation_is_a_node_of_its_own_once_it_exists() -> None:
    last = graph(undoing()).nodes[-1]

    assert (last.id, last.kind, last.status) == ("compensate:credit", "compensation", "scheduled")
    assert all(edge.target != last.id for edge in graph(undoing()).edges)


def test_ways_of_one_source_and_target_are_told_apart_by_their_condition() -> None:
    assert list(statuses(a_run(ROUTED))) == [
        "sort:ok:big:condition:0",
        "sort:ok:big:condition:1",
        "sort:ok:small",
        "sort:error:complete",
        "small:ok:complete",
        "big:ok:complete",
    ]


def test_ways_are_pending_until_their_source_has_ended() -> None:
    assert set(statuses(a_run(ROUTED)).values()) == {"pending"}


def test_the_way_taken_is_selected_and_the_others_out_of_its_source_are_skipped() -> None:
    script = a_run(ROUTED)
    script.ok("sort", {"kind": "big"})

    assert statuses(script) == {
        "sort:ok:big:condition:0": "skipped",
        "sort:ok:big:condition:1": "selected",
        "sort:ok:small": "skipped",
        "sort:error:complete": "skipped",
        "small:ok:complete": "pending",
        "big:ok:complete": "pending",
    }


def test_the_error_route_that_was_taken_is_selected() -> None:
    script = at_ask()
    script.fail("ask")

    assert edge(script, "ask:error:page").status == "selected"
    assert edge(script, "ask:ok:review").status == "skipped"


def test_what_lies_behind_the_end_of_the_run_is_skipped() -> None:
    script = a_run(ROUTED)
    script.ok("sort", {})
    script.ok("small")

    assert statuses(script)["small:ok:complete"] == "selected"
    assert statuses(script)["big:ok:complete"] == "skipped"


def test_ways_out_of_a_step_that_failed_or_was_cancelled_for_good_are_blocked() -> None:
    failed = at_review()
    failed.approve()
    failed.fail("credit")
    cancelled = a_run(ROUTED)
    cancelled.cancel()

    assert edge(failed, "credit:ok:tell").status == "blocked"
    assert edge(cancelled, "sort:ok:small").status == "blocked"
    assert edge(cancelled, "small:ok:complete").status == "skipped"


def test_a_dependency_is_selected_when_its_source_is_applied_and_blocked_when_it_failed() -> None:
    script, claim = doomed()
    before = a_run(FEAST)
    before.ok("march")

    assert edge(before, "march:dependency:feast").status == "selected"
    assert edge(before, "sneak:dependency:feast").status == "pending"
    assert edge(script, "sneak:dependency:feast").status == "blocked"
    assert edge(script, "march:dependency:feast").status == "pending"
    finish(script, claim)
    assert edge(script, "march:dependency:feast").status == "skipped"


def test_an_edge_says_what_it_is_and_under_which_condition_it_is_taken() -> None:
    script = a_run(ROUTED)

    conditional = edge(script, "sort:ok:big:condition:0")
    assert (conditional.type, conditional.on) == ("transition", "ok")
    assert conditional.condition == {"path": ["sorting", "size"], "greater_than": 10}
    assert edge(script, "sort:error:complete").recovery == "undo"
    assert edge(a_run(FEAST), "march:dependency:feast").type == "dependency"


def test_as_a_dictionary_a_graph_is_plain_json_with_the_promised_keys() -> None:
    data = graph(a_run(ROUTED)).to_dict()

    assert json.loads(json.dumps(data)) == data
    assert list(data) == ["run_id", "workflow", "status", "nodes", "edges"]
    nodes, edges = data["nodes"], data["edges"]
    assert isinstance(nodes, list)
    assert isinstance(edges, list)
    assert nodes[0] == {"id": "sort", "kind": "action", "status": "scheduled", "current": True}
    assert edges[0] == {
        "id": "sort:ok:big:condition:0",
        "from": "sort",
        "to": "big",
        "type": "transition",
        "on": "ok",
        "condition": {"path": ["sorting", "size"], "greater_than": 10},
        "recovery": None,
        "status": "pending",
    }


def test_without_its_definition_a_run_is_drawn_from_what_it_did() -> None:
    drawn = graph_of(None, at_review().state)

    assert [node.id for node in drawn.nodes] == ["load", "settle", "ask", "review"]
    assert drawn.edges == ()


def test_as_mermaid_a_graph_has_a_line_for_each_node_edge_and_status() -> None:
    script = a_run(ROUTED)
    script.ok("sort", {})

    assert graph(script).to_mermaid().splitlines()[:11] == [
        "flowchart TD",
        '    n0["sort"]:::completed',
        '    n1["small"]:::scheduled',
        '    n2["big"]:::waiting',
        '    finish(("complete"))',
        '    n0 -.->|"ok when sorting.size greater than 10"| n2',
        '    n0 -.->|"ok when sorting.kind equals #34;big#34;"| n2',
        '    n0 ==>|"ok"| n1',
        '    n0 -.->|"error (undo)"| finish',
        '    n1 -->|"ok"| finish',
        '    n2 -->|"ok"| finish',
    ]


def test_as_mermaid_kinds_have_shapes_and_dependencies_no_words() -> None:
    payment, feast = graph(undoing()).to_mermaid(), graph(doomed()[0]).to_mermaid()

    assert 'n1(["settle"]):::completed' in payment
    assert 'n3{{"review"}}:::completed' in payment
    assert 'n7[["compensate:credit"]]:::scheduled' in payment
    assert "n1 -.-x n3" in feast
    assert "finish" not in feast


@pytest.mark.parametrize("sign", ['"', "#", ";", "`", "|", "<", "]", "}", "&", "\n", "\\"])
def test_as_mermaid_no_sign_of_a_name_can_be_mistaken_for_syntax(sign: str) -> None:
    name = f"a{sign}b"
    definition = unchecked(an_action(name), transitions=a_path(name))

    assert f'n0["a#{ord(sign)};b"]' in drawn_fresh(definition)


def test_as_mermaid_only_the_statuses_that_occur_are_coloured() -> None:
    assert drawn_fresh(PAYMENT).count("classDef") == 2


def drawn_fresh(definition: WorkflowDefinition) -> str:
    return graph(Script(definition).start()).to_mermaid()
