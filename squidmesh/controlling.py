"""What people and hosts do to runs: start, cancel, resume, decide, repeat.

Each function checks its arguments, asks the engine to commit one command, and answers with the
run as it stands then. A refusal becomes its exception here, at the door.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeAlias

import attrs
from returns.pipeline import is_successful

from squidmesh import codec
from squidmesh.asking import load_run, no_such_step, run_of
from squidmesh.domain.commands import (
    ApproveRun,
    CancelRun,
    RejectRun,
    ReplayRun,
    ResumeRun,
    StartRun,
)
from squidmesh.domain.definition import CronTrigger
from squidmesh.domain.entries import Carried, Issuer
from squidmesh.domain.preview import repetition
from squidmesh.domain.recovery import carried_over
from squidmesh.domain.review import issuer_of
from squidmesh.domain.schedule import Activation, without_identity
from squidmesh.domain.state import RunState
from squidmesh.errors import (
    IdempotencyConflictError,
    InvalidOptionError,
    InvalidReviewError,
    PayloadTooLargeError,
    UnserializableValueError,
    error_for,
)
from squidmesh.ports.store import KeyRecord
from squidmesh.runtime.asks import Ask, Settled
from squidmesh.runtime.bulk import check_repetitions, start_in_chunks
from squidmesh.runtime.engine import Engine
from squidmesh.runtime.registry import RegisteredWorkflow
from squidmesh.starting import (
    PreparedStart,
    StartOptions,
    check_name,
    check_run_id,
    complete_payload,
    prepare_activation,
    prepare_start,
    prepare_starts,
    trigger_of,
)
from squidmesh.views import Preview, Run, entry_views

MOST_SAID: Final = 64 * 1024
"""How many bytes of JSON an actor, a comment or metadata may have."""

Control: TypeAlias = CancelRun | ResumeRun | ApproveRun | RejectRun | ReplayRun


@attrs.frozen(kw_only=True)
class Said:
    """Who gives a command and what they say with it, as it was given."""

    actor: object = None
    comment: object = None
    metadata: object = None
    idempotency_key: str | None = None


async def start_run(
    engine: Engine,
    workflow: RegisteredWorkflow,
    payload: object,
    *,
    trigger: str | None,
    run_id: str | None,
    options: StartOptions,
    most_bytes: int,
) -> Run:
    """Start one run, or return the one that this idempotency key has started before."""
    chosen = trigger_of(workflow, trigger)
    prepared = prepare_start(
        workflow,
        chosen,
        payload,
        run_id=engine.ids.run_id() if run_id is None else check_run_id(run_id),
        options=options.checked(),
        most_bytes=most_bytes,
    )
    settled = await commit_start(engine, prepared)
    if settled.existing is not None:
        return run_of(engine, await load_run(engine, settled.existing))
    return run_of(engine, settled.state)


async def commit_start(engine: Engine, prepared: PreparedStart) -> Settled:
    """Commit a prepared start; a key that was used is looked up before the run's id."""
    key = prepared.key
    if key is not None:
        used = await engine.store.find_key(key.scope, key.key)
        if used is not None:
            if used.digest != key.digest:
                raise IdempotencyConflictError(key.key)
            state = await load_run(engine, used.run_id)
            return Settled((), state, state, engine.time.now(), used.run_id)
    run_id = prepared.command.run_id
    answer = await engine.committer.submit(run_id, prepared.command, key=key)
    if not is_successful(answer):
        raise error_for(answer.failure(), run_id)
    return answer.unwrap()


async def start_runs(
    engine: Engine,
    workflow: RegisteredWorkflow,
    payloads: Sequence[object],
    *,
    trigger: str | None,
    queue: str,
    idempotency_keys: Sequence[str | None] | None,
    most_bytes: int,
) -> list[str]:
    """Start many runs; all payloads are checked before the first is written."""
    chosen = trigger_of(workflow, trigger)
    keys = [None] * len(payloads) if idempotency_keys is None else list(idempotency_keys)
    if len(keys) != len(payloads):
        raise InvalidOptionError("idempotency_keys", "There is one key, or None, per payload.")
    common, starts = prepare_starts(
        workflow,
        chosen,
        zip(payloads, keys, strict=True),
        run_id=engine.ids.run_id,
        options=StartOptions(queue=queue).checked(),
        most_bytes=most_bytes,
    )
    check_repetitions(starts)
    return await start_in_chunks(engine.committer, common, starts)


async def start_by_clock(
    engine: Engine, workflow: RegisteredWorkflow, trigger: CronTrigger, activation: Activation
) -> Settled:
    """Start what a clock asks for; an activation that was seen before finds its run."""
    prepared = prepare_activation(
        workflow,
        trigger,
        activation,
        run_id=engine.ids.run_id(),
        received_at=engine.time.now(),
    )
    return await commit_start(engine, prepared)


def issuer_from(said: Said, *, actor_required: bool = False) -> Issuer:
    """Return who gives a command, if it can be recorded.

    Raises:
        InvalidReviewError: The actor, comment or metadata cannot.
        InvalidOptionError: The idempotency key cannot.
    """
    if said.idempotency_key is not None:
        check_name("idempotency_key", said.idempotency_key)
    plain = {}
    for field in ("actor", "comment", "metadata"):
        try:
            plain[field] = codec.plain(getattr(said, field), max_bytes=MOST_SAID)
        except PayloadTooLargeError:
            raise InvalidReviewError(field, f"it has over {MOST_SAID:,} bytes as JSON") from None
        except UnserializableValueError as problem:
            raise InvalidReviewError(field, f"it cannot be stored: {problem}") from None
    issuer = issuer_of(
        actor=plain["actor"],
        comment=plain["comment"],
        metadata=plain["metadata"],
        idempotency_key=said.idempotency_key,
        actor_required=actor_required,
    )
    if not is_successful(issuer):
        refused = issuer.failure()
        raise InvalidReviewError(refused.field, refused.message)
    return issuer.unwrap()


async def control(
    engine: Engine, run_id: str, command: Control, name: str, *, preview: bool
) -> Run | Preview:
    """Commit a control command and return the run as it stands then, or tell what it would do."""
    run_id = check_run_id(run_id)
    ask = Ask(run_id, command, _control_key(run_id, f"run:{run_id}", command, name))
    if preview:
        return await _preview(engine, ask)
    settled = await _commit(engine, ask)
    return run_of(engine, settled.state)


def _control_key(run_id: str, scope: str, command: Control, name: str) -> KeyRecord | None:
    key = command.issuer.idempotency_key
    if key is None:
        return None
    return KeyRecord(scope=scope, key=key, run_id=run_id, command=name, digest="")


async def _commit(engine: Engine, ask: Ask) -> Settled:
    answer = await engine.committer.ask(ask)
    if not is_successful(answer):
        raise error_for(answer.failure(), ask.run_id)
    return answer.unwrap()


async def _preview(engine: Engine, ask: Ask) -> Preview:
    """What an ask would write and repeat if it were committed now."""
    answer = await engine.committer.rehearse(ask)
    if not is_successful(answer):
        raise error_for(answer.failure(), ask.run_id)
    told = answer.unwrap()
    before, started = told.before, told.started
    entries = tuple(entry_views(told.definition, before, told.entries))
    if started is None:
        return Preview(entries=entries)
    found = repetition(told.definition, started.definition, before, started.start)
    nothing = RunState(run_id=started.start.run_id)
    begun = entry_views(started.definition, nothing, started.entries)
    return Preview(
        entries=(*entries, *begun),
        reruns=found.again,
        effects=found.effects,
        undone=found.undone,
    )


async def cancel(engine: Engine, run_id: str, said: Said, *, preview: bool) -> Run | Preview:
    """Ask a run to stop."""
    try:
        command = CancelRun(issuer=issuer_from(said))
    except InvalidReviewError as problem:
        if problem.field != "comment":
            raise
        # What is recorded as a comment is the reason to the one who cancels.
        raise InvalidReviewError("reason", str(problem)) from None
    return await control(engine, run_id, command, "cancel", preview=preview)


async def resume(engine: Engine, run_id: str, said: Said, *, preview: bool) -> Run | Preview:
    """End an open pause."""
    command = ResumeRun(issuer=issuer_from(said))
    return await control(engine, run_id, command, "resumed", preview=preview)


async def approve(engine: Engine, run_id: str, said: Said, *, preview: bool) -> Run | Preview:
    """Decide an open approval with yes."""
    command = ApproveRun(issuer=issuer_from(said, actor_required=True))
    return await control(engine, run_id, command, "approved", preview=preview)


async def reject(engine: Engine, run_id: str, said: Said, *, preview: bool) -> Run | Preview:
    """Decide an open approval with no."""
    command = RejectRun(issuer=issuer_from(said, actor_required=True))
    return await control(engine, run_id, command, "rejected", preview=preview)


async def replay(
    engine: Engine,
    run_id: str,
    workflow_of: Callable[[str], RegisteredWorkflow],
    *,
    allow_irreversible: object,
    from_step: object,
    said: Said,
    preview: bool,
) -> Run | Preview:
    """Start a new run with what the source was started with, or tell what that would do."""
    run_id = check_run_id(run_id)
    source = await load_run(engine, run_id)
    workflow = workflow_of(source.facts.workflow)
    command = ReplayRun(
        new_run_id=engine.ids.run_id(),
        allow_irreversible=allow_irreversible is True,
        from_step=None if from_step is None else _step_of(workflow, from_step),
        issuer=issuer_from(said),
    )
    known = await _known_replay(engine, run_id, command.issuer)
    if known is not None:
        return Preview() if preview else run_of(engine, await load_run(engine, known))
    key = _control_key(command.new_run_id, f"run:{run_id}", command, "replay")
    ask = Ask(run_id, command, key, spawn=partial(_repeated, engine, workflow, command))
    if preview:
        return await _preview(engine, ask)
    replayed = await _replayed(engine, ask, command)
    return run_of(engine, await load_run(engine, replayed))


async def _replayed(engine: Engine, ask: Ask, command: ReplayRun) -> str:
    """Commit a replay and return the new run's id."""
    settled = await _commit(engine, ask)
    if settled.entries:
        return command.new_run_id
    # Without entries somebody else was faster with the same key: theirs is the new run.
    theirs = await _known_replay(engine, ask.run_id, command.issuer)
    assert theirs is not None
    return theirs


def _step_of(workflow: RegisteredWorkflow, step: object) -> str:
    if isinstance(step, str) and step in workflow.definition.by_name:
        return step
    raise no_such_step("from_step", workflow.definition)


async def _known_replay(engine: Engine, run_id: str, issuer: Issuer) -> str | None:
    """The run that this idempotency key has replayed the source as, if it was used for that."""
    if issuer.idempotency_key is None:
        return None
    record = await engine.store.find_key(f"run:{run_id}", issuer.idempotency_key)
    return record.run_id if record is not None and record.command == "replay" else None


def _repeated(
    engine: Engine, workflow: RegisteredWorkflow, command: ReplayRun, source: RunState
) -> StartRun:
    """The start of the run that repeats *source*, under the workflow's definition of today."""
    facts = source.facts
    trigger = trigger_of(workflow, facts.trigger)
    carried: tuple[Carried, ...] = ()
    old = engine.registry.known(facts.fingerprint)
    if command.from_step is not None and old is not None:
        carried = carried_over(old, source, command.from_step, workflow.definition)
    return StartRun(
        run_id=command.new_run_id,
        workflow=workflow.name,
        trigger=trigger.name,
        fingerprint=workflow.fingerprint,
        payload=complete_payload(workflow, trigger, facts.payload),
        version=workflow.definition.version,
        queue=facts.queue,
        priority=facts.priority,
        concurrency_key=facts.concurrency_key,
        tags=facts.tags,
        schedule=without_identity(facts.schedule),
        replayed_from=source.run_id,
        from_step=command.from_step,
        carried=carried,
    )
