"""LangGraph with its Postgres checkpointer, told to write before it goes on (durability="sync").

It has no queue, no worker and no recovery of its own: a run is a call in this process. A run is a
circle of one node, because what a step costs grows with the number of a graph's nodes.
"""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path
from typing import Annotated, Any, Final, TypedDict

import attrs
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import END, START, StateGraph
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from benchmarks.contender import StepBody
from benchmarks.peers.common import Peer, in_turn
from benchmarks.postgres.cloning import Keys

_CONNECTIONS: Final = 20


class State(TypedDict):
    """What a run keeps: the result of its latest step, and how many are left."""

    last: Annotated[int, lambda _before, after: after]
    left: Annotated[int, lambda _before, after: after]


@attrs.define(eq=False)
class OverLangGraph(Peer):
    """Graphs that are run to their ends."""

    _stack: AsyncExitStack = attrs.field(factory=AsyncExitStack)
    _saver: Any = attrs.field(init=False)
    _graphs: dict[str, Any] = attrs.field(factory=dict[str, Any])
    _threads: "count[int]" = attrs.field(factory=count)

    async def set_up(self, folder: Path, body: StepBody) -> None:
        await super().set_up(folder, body)
        options = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
        pool = AsyncConnectionPool(
            self.url, min_size=4, max_size=_CONNECTIONS, kwargs=options, open=False
        )
        await self._stack.enter_async_context(pool)
        self._saver = AsyncPostgresSaver(pool)
        await self._saver.setup()

    async def _node(self, state: State) -> dict[str, int]:
        return {"last": await self.bodies(state["left"]), "left": state["left"] - 1}

    async def _branch(self, state: State) -> dict[str, int]:
        return {"last": await self.bodies(state["left"])}

    async def sequential(self, steps: int) -> None:
        await self._run(self._circle(), steps)

    async def concurrent(self, runs: int, steps: int) -> Callable[[], Awaitable[None]]:
        return lambda: in_turn(runs, lambda _number: self.sequential(steps))

    async def fanout(self, width: int) -> None:
        await self._run(self._fan(width), 2)

    async def _run(self, graph: Any, steps: int) -> None:  # noqa: ANN401
        config = {
            "configurable": {"thread_id": f"thread-{next(self._threads):032}"},
            "recursion_limit": steps + 10,
        }
        await graph.ainvoke({"last": 0, "left": steps}, config, durability="sync")

    def _circle(self) -> Any:  # noqa: ANN401  it is not installed everywhere
        if "circle" not in self._graphs:
            graph = StateGraph(State)
            graph.add_node("step", self._node)
            graph.add_edge(START, "step")
            graph.add_conditional_edges("step", lambda state: "step" if state["left"] else END)
            self._graphs["circle"] = graph.compile(checkpointer=self._saver)
        return self._graphs["circle"]

    def _fan(self, width: int) -> Any:  # noqa: ANN401  it is not installed everywhere
        if f"fan-{width}" not in self._graphs:
            graph, names = StateGraph(State), [f"step-{number}" for number in range(width)]
            for name in names:
                graph.add_node(name, self._branch)
                graph.add_edge(START, name)
            graph.add_node("joined", self._branch)
            graph.add_edge(names, "joined")
            graph.add_edge("joined", END)
            self._graphs[f"fan-{width}"] = graph.compile(checkpointer=self._saver)
        return self._graphs[f"fan-{width}"]

    def keys(self) -> Keys:
        # What no two runs have in common is among them: statistics are to look real.
        return {
            "*": ("thread_id", "checkpoint_id", "parent_checkpoint_id", "task_id"),
            "checkpoint_blobs": ("version",),
        }

    async def tear_down(self) -> None:
        await self._stack.aclose()
        await super().tear_down()
