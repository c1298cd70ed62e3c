"""From a class body to a definition, with everything in it that makes no sense.

Steps and triggers are collected over the base classes and go by the attribute that holds them.
What a base class said about a step that a subclass overrides is said about the new one: both go
by the same name.
"""

from collections.abc import Callable, Mapping
from typing import Final

from squidmesh.annotations import read_payload_class
from squidmesh.domain.definition import (
    CronIdempotency,
    CronTrigger,
    ManualTrigger,
    Problem,
    Trigger,
    WorkflowDefinition,
)
from squidmesh.domain.payload import PayloadContract
from squidmesh.domain.values import Json
from squidmesh.workflow.declarations import Path, Route, StepDeclaration, TriggerDeclaration
from squidmesh.workflow.draft import Draft
from squidmesh.workflow.options import Options
from squidmesh.workflow.routes import draft_transitions, flat
from squidmesh.workflow.steps import Bodies, Names, draft_step

_EVERY_MINUTE: Final = "* * * * *"


def draft_of(workflow: type, *, payload_class: object) -> Draft:
    """The definition that the class *workflow* declares, as far as it can be understood."""
    problems: list[Problem] = []
    bodies: Bodies = {}
    triggers = _Triggers(payload_class, problems)
    declared = _declared(workflow)
    names = _names(workflow, declared, problems)
    _find_misplaced(workflow, problems)
    definition = WorkflowDefinition(
        name=_name_of(workflow, problems),
        version=_version_of(workflow, problems),
        triggers=tuple(
            triggers.draft(name, one)
            for name, one in declared.items()
            if isinstance(one, TriggerDeclaration) and names[one] == name
        ),
        steps=tuple(
            draft_step(name, one, names, bodies, problems)
            for name, one in declared.items()
            if isinstance(one, StepDeclaration) and names[one] == name
        ),
        transitions=draft_transitions(getattr(workflow, "transitions", ()), names, problems),
    )
    return Draft(
        definition=definition,
        bodies=bodies,
        payload_classes=triggers.payload_classes,
        factories=triggers.factories,
        problems=tuple(problems),
    )


def _declared(workflow: type) -> dict[str, StepDeclaration | TriggerDeclaration]:
    """The declarations that count, by name; an overridden one keeps its place in the order."""
    found: dict[str, StepDeclaration | TriggerDeclaration] = {}
    for base in reversed(workflow.__mro__):
        for name, value in vars(base).items():
            if isinstance(value, StepDeclaration | TriggerDeclaration):
                found[name] = value
            else:
                found.pop(name, None)
    return found


def _names(
    workflow: type,
    declared: Mapping[str, StepDeclaration | TriggerDeclaration],
    problems: list[Problem],
) -> Names:
    """The name of each declaration, those that were overridden included."""
    names: dict[object, str] = {}
    for name, one in declared.items():
        if names.setdefault(one, name) != name:
            where = "steps" if isinstance(one, StepDeclaration) else "triggers"
            message = f"is the same object as {names[one]!r}; declare it again"
            problems.append(Problem((where, name), "duplicate_name", message))
    for base in workflow.__mro__:
        for name, value in vars(base).items():
            if isinstance(value, StepDeclaration) and name in declared:
                names.setdefault(value, name)
    return names


def _find_misplaced(workflow: type, problems: list[Problem]) -> None:
    """Object to routes that lie beside ``transitions``, as behind a typing error in that name.

    Without them the steps would wait for nothing and run all at once.
    """
    used = {id(one) for one in flat(getattr(workflow, "transitions", ()))}
    for name, value in vars(workflow).items():
        routes = [one for one in flat(value) if isinstance(one, Path | Route)]
        if name != "transitions" and any(id(one) not in used for one in routes):
            message = "holds what is not among the transitions; is that its name?"
            problems.append(Problem((name,), "misplaced_transitions", message))


def _name_of(workflow: type, problems: list[Problem]) -> str:
    given = vars(workflow).get("name")
    if isinstance(given, str):
        return given
    if given is None and workflow.__module__ == "__main__":
        message = (
            "a workflow in __main__ needs a name of its own, because the module's depends on the "
            f'caller; write name = "{workflow.__name__.lower()}" or the like into the class'
        )
        problems.append(Problem(("name",), "invalid_name", message))
    elif given is not None and not _is_declaration(given):
        message = f"must be text, not a {type(given).__name__}"
        problems.append(Problem(("name",), "invalid_name", message))
    return f"{workflow.__module__}.{workflow.__qualname__}"


def _version_of(workflow: type, problems: list[Problem]) -> str | None:
    given: object = getattr(workflow, "version", None)
    if isinstance(given, str):
        return given
    if given is not None and not _is_declaration(given):
        message = f"must be text, not a {type(given).__name__}"
        problems.append(Problem(("version",), "invalid_name", message))
    return None


def _is_declaration(value: object) -> bool:
    """Whether *value* is a step that took a reserved name, which is reported elsewhere."""
    return isinstance(value, StepDeclaration | TriggerDeclaration)


class _Triggers:
    """Drafts triggers, and keeps what belongs to their payloads."""

    def __init__(self, payload_class: object, problems: list[Problem]) -> None:
        self.payload_class = payload_class
        self.problems = problems
        self.payload_classes: dict[str, object] = {}
        self.factories: dict[str, Callable[[], Json]] = {}
        self.contract = self._read(payload_class, ("payload",))

    def draft(self, name: str, declaration: TriggerDeclaration) -> Trigger:
        options = Options(declaration.options, ("triggers", name), self.problems)
        own = options.given.get("payload")
        contract = self.contract if own is None else self._read(own, (*options.path, "payload"))
        self.payload_classes[name] = self.payload_class if own is None else own
        match declaration.kind:
            case "manual":
                return ManualTrigger(name=name, payload=contract)
            case "cron":
                return CronTrigger(
                    name=name,
                    payload=contract,
                    expression=options.value(
                        "expression", _EVERY_MINUTE, "invalid_cron_expression"
                    ),
                    timezone=options.value("timezone", "UTC", "invalid_timezone"),
                    idempotency=options.choice(
                        "idempotency", CronIdempotency, "invalid_idempotency"
                    ),
                )

    def _read(self, payload_class: object, path: tuple[str | int, ...]) -> PayloadContract:
        reading = read_payload_class(payload_class, path)
        self.problems += reading.problems
        self.factories |= reading.factories
        return reading.contract
