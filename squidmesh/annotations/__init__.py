"""From Python to data: payload classes as contracts, functions as parameters and keys."""

from squidmesh.annotations.contracts import contract_of, defaults_of, read_payload_class
from squidmesh.annotations.signatures import merges_of, parameter_types, parameters_of

__all__ = [
    "contract_of",
    "defaults_of",
    "merges_of",
    "parameter_types",
    "parameters_of",
    "read_payload_class",
]
