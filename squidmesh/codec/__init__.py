"""The one JSON codec of the library: a value comes back as it was given, or it is refused.

Values of record travel as JSON text, and every adapter stores the same text. What one of them
would refuse or change is therefore refused by all, here and before anything is written. msgspec
does the fast work but not the refusing: it writes NaN as null, bytes as base64, integer keys as
text and sets as lists, and it reads past unknown keys of attrs classes.

So `plain` walks a value first and leaves nothing but exact JSON types: finite numbers, integers
of 64 bits (-2**63 to 2**63 - 1), text without NUL and without halves of surrogate pairs, string
keys, at most `MAX_DEPTH` containers inside one another. `encode`, `decode` and `canonical` work
on such values. `structure` gives a plain value the type that an annotation asks for.

An instance of an attrs class, dataclass or Struct becomes an object of its fields by name. On
the way back its validators and post-init hooks run; converters do not, because what is stored
has been through them. Dates, UUIDs, decimals and enums become text, or the member's value, and
need an annotation to come back.
"""

from squidmesh.codec.flattening import MAX_DEPTH, plain
from squidmesh.codec.problems import DecodeProblem, StructureProblem
from squidmesh.codec.structuring import structure, supports
from squidmesh.codec.text import canonical, decode, encode

__all__ = [
    "MAX_DEPTH",
    "DecodeProblem",
    "StructureProblem",
    "canonical",
    "decode",
    "encode",
    "plain",
    "structure",
    "supports",
]
