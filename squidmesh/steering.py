"""What people and hosts say to a run that is there: cancel, resume, approve, reject, replay.

The five methods are long for what they say about their arguments and errors. Each can be asked
first what it would do: with ``preview=True`` it answers with a `Preview`, and does nothing.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Literal, overload

from squidmesh import controlling
from squidmesh.controlling import Said
from squidmesh.errors import InvalidOptionError
from squidmesh.runtime.engine import Engine
from squidmesh.runtime.registry import RegisteredWorkflow
from squidmesh.views import Preview, Run


class Steering(ABC):
    """The commands about a run that exists; `SquidMesh` is what gives them.

    A *preview* is decided on what the store holds at this moment, and raises what the command
    would raise. It writes nothing and wakes nobody. If nothing moves until the command is given,
    that writes the same entries, but for their times and the id of a replay's new run. With an
    *idempotency_key* that was used for this command before, there are none to write.
    """

    @abstractmethod
    async def _engine_within(self, connection: object) -> Engine:
        """Return the running parts, inside the host's transaction if there is a *connection*."""

    @abstractmethod
    def _registered(self, engine: Engine, workflow: str) -> RegisteredWorkflow:
        """Return the workflow of that name, with its code."""

    @overload
    async def cancel_run(
        self,
        run_id: str,
        *,
        actor: object = None,
        reason: str | None = None,
        idempotency_key: str | None = None,
        preview: Literal[False] = False,
        connection: object = None,
    ) -> Run: ...

    @overload
    async def cancel_run(
        self,
        run_id: str,
        *,
        actor: object = None,
        reason: str | None = None,
        idempotency_key: str | None = None,
        preview: Literal[True],
        connection: object = None,
    ) -> Preview: ...

    @overload
    async def cancel_run(
        self,
        run_id: str,
        *,
        actor: object = None,
        reason: str | None = None,
        idempotency_key: str | None = None,
        preview: bool,
        connection: object = None,
    ) -> Run | Preview: ...

    async def cancel_run(
        self,
        run_id: str,
        *,
        actor: object = None,
        reason: str | None = None,
        idempotency_key: str | None = None,
        preview: bool = False,
        connection: object = None,
    ) -> Run | Preview:
        """Ask a run to stop: at once if nothing is claimed, else when the last claim has ended.

        With *preview* it tells what that would write, and does nothing.

        Raises:
            RunNotFoundError: There is no such run.
            InvalidTransitionError: The run is over, cancelling or compensating.
            InvalidReviewError: The actor or the reason cannot be recorded.
            IdempotencyConflictError: The key was used for another command.
            InvalidOptionError: Another option makes no sense.
        """
        asked = _is_asked(preview)
        said = Said(actor=actor, comment=reason, idempotency_key=idempotency_key)
        engine = await self._engine_within(connection)
        return await controlling.cancel(engine, run_id, said, preview=asked)

    @overload
    async def resume_run(
        self,
        run_id: str,
        *,
        actor: object = None,
        comment: str | None = None,
        metadata: Mapping[str, object] | None = None,
        idempotency_key: str | None = None,
        preview: Literal[False] = False,
        connection: object = None,
    ) -> Run: ...

    @overload
    async def resume_run(
        self,
        run_id: str,
        *,
        actor: object = None,
        comment: str | None = None,
        metadata: Mapping[str, object] | None = None,
        idempotency_key: str | None = None,
        preview: Literal[True],
        connection: object = None,
    ) -> Preview: ...

    @overload
    async def resume_run(
        self,
        run_id: str,
        *,
        actor: object = None,
        comment: str | None = None,
        metadata: Mapping[str, object] | None = None,
        idempotency_key: str | None = None,
        preview: bool,
        connection: object = None,
    ) -> Run | Preview: ...

    async def resume_run(
        self,
        run_id: str,
        *,
        actor: object = None,
        comment: str | None = None,
        metadata: Mapping[str, object] | None = None,
        idempotency_key: str | None = None,
        preview: bool = False,
        connection: object = None,
    ) -> Run | Preview:
        """End an open pause; the run goes on where the step pointed to when it was opened.

        With *preview* it tells what that would write, and does nothing.

        Raises:
            RunNotFoundError: There is no such run.
            NotPausedError: No pause is open.
            InvalidReviewError: The actor, comment or metadata cannot be recorded.
            IdempotencyConflictError: The key was used for another command.
            InvalidOptionError: Another option makes no sense.
        """
        asked = _is_asked(preview)
        said = Said(
            actor=actor, comment=comment, metadata=metadata, idempotency_key=idempotency_key
        )
        engine = await self._engine_within(connection)
        return await controlling.resume(engine, run_id, said, preview=asked)

    @overload
    async def approve_run(
        self,
        run_id: str,
        *,
        actor: object,
        comment: str | None = None,
        metadata: Mapping[str, object] | None = None,
        idempotency_key: str | None = None,
        preview: Literal[False] = False,
        connection: object = None,
    ) -> Run: ...

    @overload
    async def approve_run(
        self,
        run_id: str,
        *,
        actor: object,
        comment: str | None = None,
        metadata: Mapping[str, object] | None = None,
        idempotency_key: str | None = None,
        preview: Literal[True],
        connection: object = None,
    ) -> Preview: ...

    @overload
    async def approve_run(
        self,
        run_id: str,
        *,
        actor: object,
        comment: str | None = None,
        metadata: Mapping[str, object] | None = None,
        idempotency_key: str | None = None,
        preview: bool,
        connection: object = None,
    ) -> Run | Preview: ...

    async def approve_run(
        self,
        run_id: str,
        *,
        actor: object,
        comment: str | None = None,
        metadata: Mapping[str, object] | None = None,
        idempotency_key: str | None = None,
        preview: bool = False,
        connection: object = None,
    ) -> Run | Preview:
        """Decide an open approval with yes; *actor* is who decides.

        With *preview* it tells what that would write, and does nothing.

        Raises:
            RunNotFoundError: There is no such run.
            NotPausedError: No approval is open.
            InvalidReviewError: The actor is missing, or something cannot be recorded.
            IdempotencyConflictError: The key was used for another command.
            InvalidOptionError: Another option makes no sense.
        """
        asked = _is_asked(preview)
        said = Said(
            actor=actor, comment=comment, metadata=metadata, idempotency_key=idempotency_key
        )
        engine = await self._engine_within(connection)
        return await controlling.approve(engine, run_id, said, preview=asked)

    @overload
    async def reject_run(
        self,
        run_id: str,
        *,
        actor: object,
        comment: str | None = None,
        metadata: Mapping[str, object] | None = None,
        idempotency_key: str | None = None,
        preview: Literal[False] = False,
        connection: object = None,
    ) -> Run: ...

    @overload
    async def reject_run(
        self,
        run_id: str,
        *,
        actor: object,
        comment: str | None = None,
        metadata: Mapping[str, object] | None = None,
        idempotency_key: str | None = None,
        preview: Literal[True],
        connection: object = None,
    ) -> Preview: ...

    @overload
    async def reject_run(
        self,
        run_id: str,
        *,
        actor: object,
        comment: str | None = None,
        metadata: Mapping[str, object] | None = None,
        idempotency_key: str | None = None,
        preview: bool,
        connection: object = None,
    ) -> Run | Preview: ...

    async def reject_run(
        self,
        run_id: str,
        *,
        actor: object,
        comment: str | None = None,
        metadata: Mapping[str, object] | None = None,
        idempotency_key: str | None = None,
        preview: bool = False,
        connection: object = None,
    ) -> Run | Preview:
        """Decide an open approval with no; the run takes the approval's error route.

        With *preview* it tells what that would write, and does nothing.

        Raises:
            RunNotFoundError: There is no such run.
            NotPausedError: No approval is open.
            InvalidReviewError: The actor is missing, or something cannot be recorded.
            IdempotencyConflictError: The key was used for another command.
            InvalidOptionError: Another option makes no sense.
        """
        asked = _is_asked(preview)
        said = Said(
            actor=actor, comment=comment, metadata=metadata, idempotency_key=idempotency_key
        )
        engine = await self._engine_within(connection)
        return await controlling.reject(engine, run_id, said, preview=asked)

    @overload
    async def replay_run(
        self,
        run_id: str,
        *,
        allow_irreversible: bool = False,
        from_step: str | None = None,
        actor: object = None,
        comment: str | None = None,
        idempotency_key: str | None = None,
        preview: Literal[False] = False,
        connection: object = None,
    ) -> Run: ...

    @overload
    async def replay_run(
        self,
        run_id: str,
        *,
        allow_irreversible: bool = False,
        from_step: str | None = None,
        actor: object = None,
        comment: str | None = None,
        idempotency_key: str | None = None,
        preview: Literal[True],
        connection: object = None,
    ) -> Preview: ...

    @overload
    async def replay_run(
        self,
        run_id: str,
        *,
        allow_irreversible: bool = False,
        from_step: str | None = None,
        actor: object = None,
        comment: str | None = None,
        idempotency_key: str | None = None,
        preview: bool,
        connection: object = None,
    ) -> Run | Preview: ...

    async def replay_run(
        self,
        run_id: str,
        *,
        allow_irreversible: bool = False,
        from_step: str | None = None,
        actor: object = None,
        comment: str | None = None,
        idempotency_key: str | None = None,
        preview: bool = False,
        connection: object = None,
    ) -> Run | Preview:
        """Start a new run with the payload and trigger of this one, under today's definition.

        With *from_step* it starts there and carries over the outputs of the steps before it, also
        of those that were undone: `explain_run` of a failed run offers a step to start at that has
        none of these before it, and a preview names them.

        With *preview* it tells what that would write and repeat, and does nothing.

        Raises:
            RunNotFoundError: There is no such run.
            UnknownWorkflowError: Its workflow is not registered with this mesh.
            UnsafeReplayError: Completed steps cannot be undone; names them. Only
                ``allow_irreversible=True`` repeats them.
            InvalidOptionError: The run never reached *from_step*, or the workflow has no such step.
            IncompatibleDefinitionError: What came before *from_step* in the run does not in today's
                definition.
            InvalidPayloadError: The old payload does not fit today's contract.
            UnknownTriggerError: The workflow does not declare the old trigger any more.
            InvalidReviewError: The actor or the comment cannot be recorded.
            IdempotencyConflictError: The key was used for another command.
        """
        asked = _is_asked(preview)
        engine = await self._engine_within(connection)
        return await controlling.replay(
            engine,
            run_id,
            lambda name: self._registered(engine, name),
            allow_irreversible=allow_irreversible,
            from_step=from_step,
            said=Said(actor=actor, comment=comment, idempotency_key=idempotency_key),
            preview=asked,
        )


def _is_asked(preview: object) -> bool:
    """Whether only a preview is asked for; whatever is nearly true must not change a run."""
    if not isinstance(preview, bool):
        raise InvalidOptionError("preview", "preview is True or False.")
    return preview
