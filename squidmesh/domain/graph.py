"""A run as a picture: the declared steps and ways, and how far the run has come on them."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Final, Literal, TypeAlias

import attrs

from squidmesh.domain.definition import Condition, Transition, WorkflowDefinition
from squidmesh.domain.inspection import current_step, fresh, kind_of, shown_steps, step_status
from squidmesh.domain.planning import is_applied
from squidmesh.domain.serial_reading import END
from squidmesh.domain.state import OPEN, RunState, StepStatus
from squidmesh.domain.values import Json, JsonObject

EdgeType: TypeAlias = Literal["transition", "dependency"]
EdgeStatus: TypeAlias = Literal["pending", "selected", "skipped", "blocked"]

_STUCK: Final = frozenset({StepStatus.FAILED, StepStatus.CANCELLED})


@attrs.frozen(kw_only=True)
class Node:
    """A step in the picture; *current* says that the run is at it."""

    id: str
    kind: str
    status: str
    current: bool


@attrs.frozen(kw_only=True)
class Edge:
    """A way from the end of one step to the beginning of another, or to the end of the run.

    *status* is selected once the run has gone there, blocked if its source failed or was
    cancelled for good, skipped if the run went elsewhere or ended, and pending before all that.
    """

    id: str
    source: str
    target: str
    type: EdgeType
    status: EdgeStatus
    on: str | None = None
    condition: Mapping[str, Json] | None = None
    recovery: str | None = None


@attrs.frozen(kw_only=True)
class RunGraph:
    """The steps and ways of one run, each with where it stands."""

    run_id: str
    workflow: str
    status: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]

    def to_dict(self) -> JsonObject:
        """The graph as plain JSON, for whatever draws it."""
        return {
            "run_id": self.run_id,
            "workflow": self.workflow,
            "status": self.status,
            "nodes": [_node_to_dict(node) for node in self.nodes],
            "edges": [_edge_to_dict(edge) for edge in self.edges],
        }

    def to_mermaid(self) -> str:
        """The graph as the text of a mermaid flowchart."""
        return "\n".join(_mermaid(self)) + "\n"


def graph_of(definition: WorkflowDefinition | None, state: RunState) -> RunGraph:
    """The picture of a run; without its definition, of the steps that it has reached."""
    at = current_step(state)
    return RunGraph(
        run_id=state.run_id,
        workflow=state.facts.workflow,
        status=state.status.value,
        nodes=tuple(_node(definition, state, name, at) for name in shown_steps(definition, state)),
        edges=() if definition is None else tuple(_edges(definition, state)),
    )


def _node(
    definition: WorkflowDefinition | None, state: RunState, step: str, at: str | None
) -> Node:
    status = step_status(state, step)
    return Node(
        id=step,
        kind=kind_of(definition, state, step),
        status=status.value,
        current=step == at or status in OPEN,
    )


def _edges(definition: WorkflowDefinition, state: RunState) -> Iterator[Edge]:
    for number, transition in enumerate(definition.transitions):
        yield _transition_edge(state, number, transition)
    for step in definition.steps:
        for needed in step.after or ():
            yield Edge(
                id=f"{needed}:dependency:{step.name}",
                source=needed,
                target=step.name,
                type="dependency",
                status="selected" if is_applied(state, needed) else _not_taken(state, needed),
            )


def _transition_edge(state: RunState, number: int, transition: Transition) -> Edge:
    source, on = transition.source, transition.on.value
    target = transition.target if transition.target is not None else END
    # Transitions that differ in nothing but their condition are told apart by their number.
    suffix = "" if transition.condition is None else f":condition:{number}"
    known = state.steps.get(source)
    taken = known is not None and known.transition == number
    return Edge(
        id=f"{source}:{on}:{target}{suffix}",
        source=source,
        target=target,
        type="transition",
        status="selected" if taken else _not_taken(state, source),
        on=on,
        condition=_condition(transition.condition),
        recovery=transition.recovery.value if transition.recovery is not None else None,
    )


def _not_taken(state: RunState, source: str) -> EdgeStatus:
    """What became of a way out of *source* that was not taken, or not yet."""
    known = state.steps.get(source)
    if known is not None and known.transition is None and known.status in _STUCK:
        return "blocked"
    is_open = known is None or known.status in OPEN
    return "pending" if is_open and not state.status.is_final else "skipped"


def _condition(condition: Condition | None) -> Mapping[str, Json] | None:
    """A condition in the form that definitions are written in."""
    if condition is None:
        return None
    path: list[Json] = [*condition.path]
    return {"path": path, condition.operator.value: fresh(condition.operand)}


def _node_to_dict(node: Node) -> JsonObject:
    return {"id": node.id, "kind": node.kind, "status": node.status, "current": node.current}


def _edge_to_dict(edge: Edge) -> JsonObject:
    condition = edge.condition
    return {
        "id": edge.id,
        "from": edge.source,
        "to": edge.target,
        "type": edge.type,
        "on": edge.on,
        "condition": None if condition is None else fresh(dict(condition)),
        "recovery": edge.recovery,
        "status": edge.status,
    }


_SHAPES: Final[Mapping[str, tuple[str, str]]] = {
    "wait": ("([", "])"),
    "pause": ("{{", "}}"),
    "approval": ("{{", "}}"),
    "compensation": ("[[", "]]"),
}
_ARROWS: Final[Mapping[EdgeStatus, str]] = {
    "selected": "==>",
    "pending": "-->",
    "skipped": "-.->",
    "blocked": "-.-x",
}
_COLOURS: Final[Mapping[StepStatus, str]] = {
    StepStatus.WAITING: "fill:#f6f8fa,stroke:#8c959f,color:#24292f",
    StepStatus.SCHEDULED: "fill:#ddf4ff,stroke:#54aeff,color:#24292f",
    StepStatus.RUNNING: "fill:#54aeff,stroke:#0550ae,color:#24292f",
    StepStatus.RETRYING: "fill:#fff8c5,stroke:#bf8700,color:#24292f",
    StepStatus.PAUSED: "fill:#fbefff,stroke:#8250df,color:#24292f",
    StepStatus.COMPLETED: "fill:#dafbe1,stroke:#1a7f37,color:#24292f",
    StepStatus.FAILED: "fill:#ffebe9,stroke:#cf222e,color:#24292f",
    StepStatus.CANCELLED: "fill:#eaeef2,stroke:#57606a,color:#24292f",
    StepStatus.SKIPPED: "fill:#ffffff,stroke:#d0d7de,color:#6e7781",
}


def _mermaid(graph: RunGraph) -> Iterator[str]:
    """The lines of the flowchart: nodes are numbered, so that no name can be mistaken for syntax.

    The end of the run is a node of its own, once a way leads there.
    """
    yield "flowchart TD"
    ids = {node.id: f"n{number}" for number, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        left, right = _SHAPES.get(node.kind, ("[", "]"))
        yield f"    {ids[node.id]}{left}{_label(node.id)}{right}:::{node.status}"
    if any(edge.target == END for edge in graph.edges):
        ids[END] = "finish"
        yield f"    finish(({_label(END)}))"
    for edge in graph.edges:
        words = _words(edge)
        said = f"|{_label(words)}|" if words else ""
        yield f"    {ids[edge.source]} {_ARROWS[edge.status]}{said} {ids[edge.target]}"
    used = {node.status for node in graph.nodes}
    for status, colours in _COLOURS.items():
        if status.value in used:
            yield f"    classDef {status.value} {colours}"


def _words(edge: Edge) -> str:
    """What is written on an edge: its end, its condition, its marker."""
    words = [edge.on] if edge.on is not None else []
    for key, value in (edge.condition or {}).items():
        if key == "path" and isinstance(value, list):
            words.append(f"when {'.'.join(str(part) for part in value)}")
        else:
            words.append(f"{key.replace('_', ' ')} {json.dumps(value, ensure_ascii=False)}")
    if edge.recovery is not None:
        words.append(f"({edge.recovery})")
    return " ".join(words)


def _label(text: str) -> str:
    """*text* between quotes, with everything that means something to mermaid as an entity."""
    escaped = re.sub(r"[^\w .,:()=-]", lambda found: f"#{ord(found[0])};", text)
    return f'"{escaped}"'
