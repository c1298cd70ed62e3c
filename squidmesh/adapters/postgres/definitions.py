"""Definitions that are stored by themselves, ahead of the runs that carry them."""

from collections.abc import Sequence
from typing import Final

import attrs

from squidmesh.adapters.postgres.statements import Query, Steps, arrays, columns, given
from squidmesh.ports.store import Change, StoredDefinition
from squidmesh.rows import definition_row

_DEFINITION: Final = columns(
    fingerprint="text",
    workflow="text",
    version="text",
    format="smallint",
    document="text",
)

_KEEP: Final = f"""
insert into {{schema}}.definitions (fingerprint, workflow, version, format, document)
select fingerprint, workflow, version, format, document
from {given(_DEFINITION, 1)}
on conflict (fingerprint) do nothing
"""


def definitions_in(changes: Sequence[Change]) -> dict[str, StoredDefinition]:
    """The definitions that come with *changes*, by fingerprint."""
    found = (run.definition for change in changes for run in change.runs)
    return {each.fingerprint: each for each in found if each is not None}


def without_definitions(changes: Sequence[Change]) -> list[Change]:
    """The same changes, of runs whose definitions are stored."""
    return [
        Change(tuple(attrs.evolve(run, definition=None) for run in change.runs))
        for change in changes
    ]


def keep(definitions: Sequence[StoredDefinition]) -> Steps[None]:
    """Store what is not there yet."""
    rows = [definition_row(each) for each in sorted(definitions, key=lambda each: each.fingerprint)]
    yield Query(_KEEP, arrays(_DEFINITION, rows))
