"""Which workflows this process knows, and whose body a step runs.

A run carries the fingerprint of the definition that it started under, and the store keeps that
definition. So a deploy that changes routes or steps leaves runs under way as they are: only the
bodies are today's. A body is the one that the registered workflow declares under the step's name,
else one that is registered under the same key, else nobody's, and then the attempt waits for a
process that has it, while other steps of the run go on. A lambda, a closure, a partial or a method
shares its key with others, so it goes by the step's name alone.
"""

import contextlib
from collections.abc import Callable, Mapping

import attrs
from returns.pipeline import is_successful

from squidmesh import codec
from squidmesh.domain.compatibility import Misfit, fields_of, misfits
from squidmesh.domain.definition import Action, Body, Parameter, WorkflowDefinition
from squidmesh.domain.serial import definition_from_dict, definition_to_dict, fingerprint
from squidmesh.domain.state import compensated_step, is_compensation
from squidmesh.domain.validation_binding import bodies_of
from squidmesh.errors import JournalCorruptError
from squidmesh.ports.store import RunStore, StoredDefinition
from squidmesh.runtime.body import BoundBody, bound
from squidmesh.workflow.functions import is_named_by


@attrs.frozen(kw_only=True)
class RegisteredWorkflow:
    """A workflow with its code.

    *bodies* are functions by the visit that runs them: a step's name, or ``compensate:<step>``.
    """

    definition: WorkflowDefinition
    bodies: Mapping[str, Callable[..., object]]
    fingerprint: str

    @property
    def name(self) -> str:
        """The name under which its runs are stored."""
        return self.definition.name


@attrs.define
class Registry:
    """Definitions by fingerprint, registered or stored, and the bodies that belong to them."""

    store: RunStore
    by_name: dict[str, RegisteredWorkflow] = attrs.field(factory=dict[str, RegisteredWorkflow])
    _definitions: dict[str, WorkflowDefinition] = attrs.field(factory=dict[str, WorkflowDefinition])
    _bodies: dict[tuple[str, str], BoundBody | None] = attrs.field(
        factory=dict[tuple[str, str], BoundBody | None]
    )
    _lacking: dict[str, frozenset[str] | None] = attrs.field(
        factory=dict[str, frozenset[str] | None]
    )
    _stored: set[str] = attrs.field(factory=set[str])

    def register(
        self, definition: WorkflowDefinition, bodies: Mapping[str, Callable[..., object]]
    ) -> RegisteredWorkflow:
        """Make a workflow known; the last one of a name is the one that new runs start under."""
        registered = RegisteredWorkflow(
            definition=definition, bodies=bodies, fingerprint=fingerprint(definition)
        )
        self.by_name[definition.name] = registered
        self._definitions[registered.fingerprint] = definition
        self._bodies.clear()
        self._lacking.clear()
        return registered

    def known(self, mark: str) -> WorkflowDefinition | None:
        """Return the definition of a fingerprint if this process has seen it."""
        return self._definitions.get(mark)

    async def definition(self, mark: str, run_id: str) -> WorkflowDefinition:
        """Return the definition that a run carries.

        Raises:
            JournalCorruptError: The store does not have it, or it cannot be read.
        """
        known = self._definitions.get(mark)
        if known is None:
            stored = await self.store.definition(mark)
            if stored is None:
                raise JournalCorruptError(run_id, "its stored definition is missing")
            try:
                read = definition_from_dict(codec.decode(stored.document))
            except codec.DecodeProblem:
                raise JournalCorruptError(run_id, "its stored definition is not JSON") from None
            if not is_successful(read):
                raise JournalCorruptError(run_id, "its stored definition cannot be read")
            known = self._definitions[mark] = read.unwrap()
        return known

    def to_store(self, mark: str) -> StoredDefinition | None:
        """Return the definition to store with a run, or None once this process has stored it."""
        definition = self._definitions[mark]
        if mark in self._stored:
            return None
        return StoredDefinition(
            fingerprint=mark,
            workflow=definition.name,
            version=definition.version,
            document=codec.encode(definition_to_dict(definition)),
        )

    def was_stored(self, mark: str) -> None:
        """Note that the store has a definition."""
        self._stored.add(mark)

    def body(self, mark: str, step: str) -> BoundBody | None:
        """Return the function that a step runs in this process, or None if there is none."""
        key = (mark, step)
        if key not in self._bodies:
            self._bodies[key] = self._resolve(mark, step)
        return self._bodies[key]

    def _resolve(self, mark: str, step: str) -> BoundBody | None:
        definition = self._definitions[mark]
        wanted = _body_of(definition, step)
        current = self.by_name.get(definition.name)
        if wanted is None or current is None:
            return None
        function = current.bodies.get(step) or _by_key(current, wanted.key)
        return bound(function) if function is not None else None

    async def runnable(self) -> dict[str, frozenset[str]]:
        """Return the fingerprints that this process knows, each with what it cannot run of it."""
        stored = await self.store.definitions(tuple(self.by_name))
        marks = {registered.fingerprint for registered in self.by_name.values()} | set(stored)
        for mark in stored:
            # One that a newer release has stored is nobody's here; its runs wait for others.
            with contextlib.suppress(JournalCorruptError):
                await self.definition(mark, "-")
        known = ((mark, self.lacking(mark)) for mark in sorted(marks))
        return {mark: lacking for mark, lacking in known if lacking is not None}

    def lacking(self, mark: str) -> frozenset[str] | None:
        """Return the visits of a definition that this process cannot run; None for all of it.

        It cannot run one whose body is gone, or asks for what no run of it can have.
        """
        if mark not in self._lacking:
            definition = self._definitions.get(mark)
            if definition is None or definition.name not in self.by_name:
                return None
            self._lacking[mark] = frozenset(misfit.visit for misfit in self.misfits(mark))
        return self._lacking[mark]

    def misfits(self, mark: str) -> tuple[Misfit, ...]:
        """Return what of a definition the bodies here cannot run, of a workflow registered here.

        A definition is stored once, and payloads may have grown since: a run may bring along what
        any trigger asks for, then or today.
        """
        definition = self._definitions[mark]
        today = self.by_name[definition.name].definition
        return misfits(definition, self.signatures(mark), {"": fields_of(definition, today)})

    def can_run(self, mark: str, step: str) -> bool:
        """Whether this process can run a step, or its undoing, of a definition."""
        lacking = self.lacking(mark)
        return lacking is not None and step not in lacking

    def signatures(self, mark: str) -> dict[str, tuple[Parameter, ...]]:
        """Return what the bodies take that this process has for a definition, by visit."""
        visits = bodies_of(self._definitions[mark])
        bodies = ((visit, self.body(mark, visit)) for visit in visits)
        return {visit: body.parameters for visit, body in bodies if body is not None}


def _by_key(workflow: RegisteredWorkflow, key: str) -> Callable[..., object] | None:
    """The function that today's definition knows by *key*, under whatever name of a step."""
    for visit, function in workflow.bodies.items():
        body = _body_of(workflow.definition, visit)
        if body is not None and body.key == key and is_named_by(key, function):
            return function
    return None


def _body_of(definition: WorkflowDefinition, step: str) -> Body | None:
    if is_compensation(step):
        undone = definition.by_name.get(compensated_step(step))
        compensation = undone.compensation if undone is not None else None
        return compensation.body if compensation is not None else None
    spec = definition.by_name.get(step)
    return spec.kind.body if spec is not None and isinstance(spec.kind, Action) else None
