"""Plain values as JSON text, and back."""

from typing import Final

import msgspec

from squidmesh.codec.problems import DecodeProblem
from squidmesh.domain.values import Json

_ENCODER: Final = msgspec.json.Encoder()
_SORTING_ENCODER: Final = msgspec.json.Encoder(order="sorted")
_DECODER: Final = msgspec.json.Decoder()


def encode(value: Json) -> str:
    """Return the compact JSON text of a plain value, its keys in the order they have."""
    return _ENCODER.encode(value).decode()


def size(value: Json) -> int:
    """Return how many bytes the text of a plain value takes."""
    return len(_ENCODER.encode(value))


def canonical(value: Json) -> str:
    """Return the text that two plain values share exactly if they are the same JSON."""
    return _SORTING_ENCODER.encode(value).decode()


def decode(text: str) -> Json:
    """Read JSON text, strictly; of a key that stands twice, the last one counts.

    Text from outside may hold what `plain` refuses, such as NUL or too many levels: it goes
    through `plain` before it becomes a value of record.

    Raises:
        DecodeProblem: it is not JSON, or a number in it is beyond what a float holds.

    """
    try:
        decoded: Json = _DECODER.decode(text)
    except UnicodeEncodeError:
        raise DecodeProblem("half of a surrogate pair") from None
    except RecursionError:
        raise DecodeProblem("nested too deeply") from None
    except msgspec.DecodeError as error:
        raise DecodeProblem(str(error)) from None
    return decoded
