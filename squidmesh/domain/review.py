"""What a person may say with a command, and whether it can be recorded."""

from collections.abc import Mapping
from typing import Final

import attrs
from returns.result import Failure, Result, Success

from squidmesh.domain.entries import Issuer
from squidmesh.domain.values import Json

LONGEST_COMMENT: Final = 16_384


@attrs.frozen
class ReviewProblem:
    """Which part of a review cannot be recorded, and why."""

    field: str
    message: str


def issuer_of(
    *,
    actor: Json,
    comment: Json,
    metadata: Json,
    idempotency_key: str | None,
    actor_required: bool,
) -> Result[Issuer, ReviewProblem]:
    """Who gave the command, if that can be recorded.

    An actor is a non-empty text or a non-empty mapping; a comment, if given, a non-empty text;
    metadata a mapping.
    """
    if actor is None and actor_required:
        return Failure(ReviewProblem("actor", "an actor is required"))
    if actor is not None and not _names_somebody(actor):
        return Failure(ReviewProblem("actor", "an actor is a non-empty text or mapping"))
    if comment is not None and not _says_something(comment):
        return Failure(
            ReviewProblem("comment", f"a comment is a text of 1 to {LONGEST_COMMENT} characters")
        )
    if metadata is not None and not isinstance(metadata, Mapping):
        return Failure(ReviewProblem("metadata", "metadata is a mapping"))
    return Success(
        Issuer(
            actor=actor,
            comment=comment if isinstance(comment, str) else None,
            metadata=dict(metadata) if isinstance(metadata, Mapping) else {},
            idempotency_key=idempotency_key,
        )
    )


def _names_somebody(actor: Json) -> bool:
    if isinstance(actor, str):
        return bool(actor.strip())
    return isinstance(actor, dict) and bool(actor)


def _says_something(comment: Json) -> bool:
    return isinstance(comment, str) and bool(comment.strip()) and len(comment) <= LONGEST_COMMENT
