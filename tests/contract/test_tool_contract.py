"""The contract for tools accepts one that answers in every case."""

from collections.abc import Mapping
from typing import Final

import pytest
from returns.result import Failure, Result, Success

from squidmesh.domain.values import Json
from squidmesh.ports.tools import Tool, ToolFailure, ToolResult
from squidmesh.testing.contracts import ToolContract, ToolRequests

RETRYABLE: Final[Mapping[Json, bool]] = {
    "refused": False,
    "busy": True,
    "timeout": False,
    "unreachable": True,
}


class Oracle(Tool):
    """Answers what it is told to answer."""

    async def invoke(
        self, request: Mapping[str, Json], context: Mapping[str, Json]
    ) -> Result[ToolResult, ToolFailure]:
        wanted = request.get("answer", "unknown")
        if wanted == "fine":
            return Success(ToolResult(adapter="oracle", payload={"said": "yes"}))
        return Failure(
            ToolFailure(
                adapter="oracle",
                kind=str(wanted),
                message="It was told to fail.",
                retryable=RETRYABLE.get(wanted, False),
            )
        )


class TestOracle(ToolContract):
    @pytest.fixture
    def tool(self) -> Oracle:
        return Oracle()

    @pytest.fixture
    def requests(self) -> ToolRequests:
        return ToolRequests(
            answered={"answer": "fine"},
            refused={"answer": "refused"},
            busy={"answer": "busy"},
            silent={"answer": "timeout"},
            unreachable={"answer": "unreachable"},
        )
