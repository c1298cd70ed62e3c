"""What a step may call outside: a tool answers with a result or a failure, never an exception."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Protocol

import attrs
from returns.result import Result

from squidmesh.domain.values import Json


@attrs.frozen(kw_only=True)
class ToolResult:
    """What a tool brought back."""

    adapter: str
    payload: Mapping[str, Json]
    metadata: Mapping[str, Json] = attrs.field(factory=dict[str, Json])


@attrs.frozen(kw_only=True)
class ToolFailure:
    """Why a tool brought nothing back; *kind* is stable, *retryable* says if trying again helps."""

    adapter: str
    kind: str
    message: str
    details: Mapping[str, Json] = attrs.field(factory=dict[str, Json])
    retryable: bool = False


class Tool(Protocol):
    """Something outside that a step may use."""

    @abstractmethod
    async def invoke(
        self, request: Mapping[str, Json], context: Mapping[str, Json]
    ) -> Result[ToolResult, ToolFailure]:
        """Do what *request* asks.

        1. Every failure, a timeout included, is a ToolFailure.
        2. A failure that came before any effect, or that the other side calls temporary, is
           retryable.
        """
