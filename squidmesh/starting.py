"""What it takes to start a run: everything is checked before anything is written."""

import hashlib
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta

import attrs
from returns.pipeline import is_successful

from squidmesh import codec
from squidmesh.domain.commands import StartRun
from squidmesh.domain.definition import CronTrigger, Trigger
from squidmesh.domain.entries import NOBODY, Issuer
from squidmesh.domain.payload import check, details_of
from squidmesh.domain.schedule import Activation, identity_of, schedule_of
from squidmesh.domain.values import Json, JsonObject
from squidmesh.errors import (
    InvalidOptionError,
    InvalidPayloadError,
    InvalidRunIdError,
    UnknownTriggerError,
)
from squidmesh.ports.store import KeyRecord
from squidmesh.runtime.bulk import Start
from squidmesh.runtime.registry import RegisteredWorkflow
from squidmesh.workflow import WorkflowDefinition

LONGEST_NAME = 200
LARGEST_PRIORITY = 2**31 - 1
LONGEST_LEASE = timedelta(days=365)


@attrs.frozen(kw_only=True)
class StartOptions:
    """How a run is to be started, besides workflow and payload."""

    queue: str = "default"
    priority: int = 0
    concurrency_key: str | None = None
    tags: Mapping[str, str] | None = None
    idempotency_key: str | None = None

    def checked(self) -> "StartOptions":
        """Return the options if all of them make sense.

        Raises:
            InvalidOptionError: One does not; it names the first.
        """
        check_name("queue", self.queue)
        for option in ("concurrency_key", "idempotency_key"):
            value = getattr(self, option)
            if value is not None:
                check_name(option, value)
        if type(self.priority) is not int or abs(self.priority) > LARGEST_PRIORITY:
            raise InvalidOptionError("priority", "A priority is an integer of 32 bits.")
        tags = self.tags if self.tags is not None else {}
        if not isinstance(tags, Mapping):
            raise InvalidOptionError("tags", "Tags are a mapping from texts to texts.")
        for key, value in tags.items():
            check_name("tags", key)
            check_name("tags", value)
        return self


@attrs.frozen(kw_only=True)
class PreparedStart:
    """A start that is ready to be decided and committed."""

    command: StartRun
    key: KeyRecord | None = None


def check_name(option: str, value: object) -> str:
    """Return *value* if it is a text that every store can hold and find again.

    Raises:
        InvalidOptionError: It is not.
    """
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_NAME or "\x00" in value:
        raise InvalidOptionError(
            option, f"{option} is a text of 1 to {LONGEST_NAME} characters without NUL."
        )
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidOptionError(option, f"{option} holds half a character.") from None
    return value


def check_lease(lease: object) -> timedelta:
    """Return the length of a lease if it makes sense: no clock reaches the end of a longer one.

    Raises:
        InvalidOptionError: It is not positive, or over a year.
    """
    if not isinstance(lease, timedelta) or not timedelta(0) < lease <= LONGEST_LEASE:
        raise InvalidOptionError("lease", "lease is a positive timedelta of at most a year.")
    return lease


def check_run_id(run_id: object) -> str:
    """Return the run id in its one spelling.

    Raises:
        InvalidRunIdError: It is not the text of a UUID.
    """
    if not isinstance(run_id, str):
        raise InvalidRunIdError(run_id)
    try:
        return str(uuid.UUID(run_id))
    except ValueError:
        raise InvalidRunIdError(run_id) from None


def trigger_of(workflow: RegisteredWorkflow, name: object) -> Trigger:
    """Return the trigger of that name, or the default one.

    Raises:
        UnknownTriggerError: The workflow declares no such trigger.
    """
    triggers = workflow.definition.by_trigger
    if name is None:
        return workflow.definition.triggers[0]
    if not isinstance(name, str) or name not in triggers:
        raise UnknownTriggerError(workflow.name, str(name), triggers)
    return triggers[name]


def prepare_start(
    workflow: RegisteredWorkflow,
    trigger: Trigger,
    payload: object,
    *,
    run_id: str,
    options: StartOptions,
    most_bytes: int,
) -> PreparedStart:
    """Check a start and make its command.

    Raises:
        InvalidPayloadError: The payload does not fit the trigger's contract.
        UnserializableValueError: It holds something that JSON cannot hold exactly.
        PayloadTooLargeError: It is larger than *most_bytes*.
    """
    given = given_payload(workflow, trigger, payload, most_bytes)
    payload = complete_payload(workflow, trigger, given)
    return PreparedStart(
        command=_command(workflow, trigger, run_id, payload, options),
        key=_start_key(workflow.name, trigger.name, options.idempotency_key, run_id, given),
    )


def prepare_starts(
    workflow: RegisteredWorkflow,
    trigger: Trigger,
    payloads: Iterable[tuple[object, str | None]],
    *,
    run_id: Callable[[], str],
    options: StartOptions,
    most_bytes: int,
) -> tuple[StartRun, list[Start]]:
    """Check many starts, each a payload and perhaps a key: what is common to them, and the rest.

    Raises:
        InvalidOptionError: A key is not a text that a store can hold.
        InvalidPayloadError: A payload does not fit the trigger's contract.
        UnserializableValueError: One holds something that JSON cannot hold exactly.
        PayloadTooLargeError: One is larger than *most_bytes*.
    """
    starts: list[Start] = []
    for payload, name in payloads:
        if name is not None:
            check_name("idempotency_key", name)
        given = given_payload(workflow, trigger, payload, most_bytes)
        complete = complete_payload(workflow, trigger, given)
        made = run_id()
        key = _start_key(workflow.name, trigger.name, name, made, given)
        starts.append(Start(made, complete, key))
    return _command(workflow, trigger, "", {}, options), starts


def _command(
    workflow: RegisteredWorkflow,
    trigger: Trigger,
    run_id: str,
    payload: JsonObject,
    options: StartOptions,
) -> StartRun:
    key = options.idempotency_key
    return StartRun(
        run_id=run_id,
        workflow=workflow.name,
        trigger=trigger.name,
        fingerprint=workflow.fingerprint,
        payload=payload,
        version=workflow.definition.version,
        queue=options.queue,
        priority=options.priority,
        concurrency_key=options.concurrency_key,
        tags=dict(options.tags or {}),
        issuer=NOBODY if key is None else Issuer(idempotency_key=key),
    )


def prepare_activation(
    workflow: RegisteredWorkflow,
    trigger: CronTrigger,
    activation: Activation,
    *,
    run_id: str,
    received_at: datetime,
) -> PreparedStart:
    """Make the command of a clock's activation; it brings no payload, only defaults.

    Raises:
        InvalidPayloadError: A field of the payload has no default.
    """
    identity = identity_of(workflow.name, trigger.name, activation)
    key = None
    if trigger.idempotency is not None and identity is not None:
        scope = f"schedule:{workflow.name}:{trigger.name}"
        key = KeyRecord(
            scope=scope, key=identity, run_id=run_id, command="start", digest="schedule"
        )
    return PreparedStart(
        command=StartRun(
            run_id=run_id,
            workflow=workflow.name,
            trigger=trigger.name,
            fingerprint=workflow.fingerprint,
            payload=complete_payload(workflow, trigger, {}),
            version=workflow.definition.version,
            schedule=schedule_of(workflow.name, trigger, activation, received_at),
            issuer=NOBODY,
        ),
        key=key,
    )


def start_scope(workflow: str, trigger: str) -> str:
    """The scope in which a start's idempotency key is unique."""
    return f"start:{workflow}:{trigger}"


def _start_key(
    workflow: str, trigger: str, key: str | None, run_id: str, given: JsonObject
) -> KeyRecord | None:
    if key is None:
        return None
    digest = hashlib.sha256(codec.canonical(given).encode()).hexdigest()
    return KeyRecord(
        scope=start_scope(workflow, trigger),
        key=key,
        run_id=run_id,
        command="start",
        digest=digest,
    )


def given_payload(
    workflow: RegisteredWorkflow, trigger: Trigger, payload: object, most_bytes: int
) -> JsonObject:
    """Return what the caller gave, as plain JSON and nothing added."""
    if payload is None:
        return {}
    expected = _payload_class(workflow, trigger)
    if not isinstance(payload, Mapping) and not _is_instance(payload, expected):
        name = trigger.payload.name or "a mapping"
        raise InvalidPayloadError(invalid={"payload": f"is neither a mapping nor a {name}"})
    plain = codec.plain(payload, max_bytes=most_bytes)
    if not isinstance(plain, dict):
        raise InvalidPayloadError(invalid={"payload": "is not an object"})
    return plain


def complete_payload(
    workflow: RegisteredWorkflow, trigger: Trigger, given: Mapping[str, Json]
) -> JsonObject:
    """Return *given* with the contract's defaults, if it fits.

    Raises:
        InvalidPayloadError: It does not; it lists every field.
    """
    definition = workflow.definition
    factories = definition.factories if isinstance(definition, WorkflowDefinition) else {}
    checked = check(trigger.payload, given, factories=factories)
    if is_successful(checked):
        return checked.unwrap()
    details = details_of(checked.failure())
    missing, unknown, invalid = details["missing"], details["unknown"], details["invalid"]
    assert isinstance(missing, list)
    assert isinstance(unknown, list)
    assert isinstance(invalid, dict)
    raise InvalidPayloadError(
        missing=[str(name) for name in missing],
        unknown=[str(name) for name in unknown],
        invalid={name: str(reason) for name, reason in invalid.items()},
    )


def _payload_class(workflow: RegisteredWorkflow, trigger: Trigger) -> object:
    definition = workflow.definition
    if not isinstance(definition, WorkflowDefinition):
        return None
    return definition.payload_classes.get(trigger.name)


def _is_instance(payload: object, expected: object) -> bool:
    if not isinstance(expected, type):
        return False
    try:
        return isinstance(payload, expected)
    except TypeError:
        # A TypedDict cannot be asked; its instances are mappings, which were taken already.
        return False
