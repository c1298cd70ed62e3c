"""What a `Tool` promises: an answer in every case, and a true word on whether to try again."""

from collections.abc import Mapping

import attrs
import pytest
from returns.pipeline import is_successful

from squidmesh.codec import plain
from squidmesh.domain.values import Json
from squidmesh.ports.tools import Tool
from squidmesh.testing.contract_base import promises


@attrs.frozen(kw_only=True)
class ToolRequests:
    """One request for each thing that may become of it.

    *answered* works; *refused* is turned down for good, and *busy* for now; *silent* is never
    answered, so that the tool's own time limit ends it; *unreachable* finds nobody there.
    """

    answered: Mapping[str, Json]
    refused: Mapping[str, Json]
    busy: Mapping[str, Json]
    silent: Mapping[str, Json]
    unreachable: Mapping[str, Json]


@pytest.mark.anyio
class ToolContract:
    """The promises a `Tool` makes; a subclass provides `tool` and the `requests` to make of it."""

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture
    def tool(self) -> Tool:
        raise NotImplementedError(f"{type(self).__name__} provides no `tool` fixture")

    @pytest.fixture
    def requests(self) -> ToolRequests:
        raise NotImplementedError(f"{type(self).__name__} provides no `requests` fixture")

    @promises("Tool.invoke", 1)
    async def test_what_was_answered_is_a_result_of_plain_json(
        self, tool: Tool, requests: ToolRequests
    ) -> None:
        answer = await tool.invoke(requests.answered, {})

        result = answer.unwrap()
        assert result.adapter
        assert (plain(result.payload), plain(result.metadata)) == (result.payload, result.metadata)

    @promises("Tool.invoke", 1)
    async def test_every_failure_is_an_answer_with_a_kind_and_a_message(
        self, tool: Tool, requests: ToolRequests
    ) -> None:
        asked = (requests.refused, requests.busy, requests.silent, requests.unreachable)

        answers = [await tool.invoke(request, {}) for request in asked]

        failures = [answer.failure() for answer in answers if not is_successful(answer)]
        assert len(failures) == len(asked)
        assert all(failure.adapter and failure.kind and failure.message for failure in failures)
        assert [plain(failure.details) for failure in failures] == [
            failure.details for failure in failures
        ]

    @promises("Tool.invoke", 1)
    async def test_a_request_that_means_nothing_to_the_tool_is_a_failure(self, tool: Tool) -> None:
        answer = await tool.invoke({"no": ["such", {"thing": None}]}, {})

        assert not is_successful(answer)

    @promises("Tool.invoke", 2)
    async def test_what_came_to_nothing_or_may_come_to_something_later_is_retryable(
        self, tool: Tool, requests: ToolRequests
    ) -> None:
        answers = [
            await tool.invoke(request, {}) for request in (requests.busy, requests.unreachable)
        ]

        assert [answer.failure().retryable for answer in answers] == [True, True]

    @promises("Tool.invoke", 2)
    async def test_what_was_turned_down_for_good_is_not_retryable(
        self, tool: Tool, requests: ToolRequests
    ) -> None:
        answer = await tool.invoke(requests.refused, {})

        assert not answer.failure().retryable
