"""As much of PostgreSQL's protocol, version 3, as somebody in the middle has to understand."""

import asyncio
import struct
from collections import deque
from types import MappingProxyType
from typing import Final

import attrs

HEADER: Final = struct.Struct("!ci")
LENGTH: Final = struct.Struct("!i")
PROTOCOL_3: Final = 3 << 16
CANCEL: Final = 80877102
ENCRYPTIONS: Final = frozenset({80877103, 80877104})  # by SSL, by GSSAPI
IN_TRANSACTION: Final = MappingProxyType({b"I": False, b"T": True, b"E": True})


def message(kind: bytes, body: bytes) -> bytes:
    """A message as it goes over the wire."""
    return HEADER.pack(kind, len(body) + LENGTH.size) + body


def fatal(code: str, text: str) -> bytes:
    """The message that a connection ends with."""
    fields = f"SFATAL\0VFATAL\0C{code}\0M{text}\0\0"
    return message(b"E", fields.encode())


async def read_message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """The kind of the next message, and the whole of it."""
    header = await reader.readexactly(HEADER.size)
    kind, length = HEADER.unpack(header)
    return kind, header + await reader.readexactly(length - LENGTH.size)


async def read_startup(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """What a client wants at first, by its code, and the rest of that message."""
    (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
    (code,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
    return code, await reader.readexactly(length - 2 * LENGTH.size)


def parameters_in(body: bytes) -> dict[str, str]:
    """The parameters of a startup message: names and values in turn, and an empty name."""
    words = body.decode().split("\0")[:-2]
    return dict(zip(words[::2], words[1::2], strict=True))


@attrs.define(eq=False)
class Progress:
    """How far a transaction is, seen from the messages that pass."""

    unanswered: deque[bytes] = attrs.field(factory=deque[bytes])
    is_unsynced: bool = False
    is_open: bool = False

    def asked(self, kind: bytes) -> None:
        """A client sent a message of this *kind*."""
        if kind in b"QSF":
            self.unanswered.append(kind)
            self.is_unsynced = False
        elif kind in b"PBDECH":
            self.is_unsynced = True

    def answered(self, kind: bytes, whole: bytes) -> None:
        """The server sent one."""
        if kind == b"Z":
            self.unanswered.popleft()
            self.is_open = IN_TRANSACTION[whole[-1:]]
        if kind == b"G":
            # While it takes in a copy, the server passes over a Sync that was sent ahead.
            while self.unanswered and self.unanswered[0] == b"S":
                self.unanswered.popleft()

    @property
    def is_over(self) -> bool:
        """Whether the connection may go to somebody else."""
        return not (self.unanswered or self.is_unsynced or self.is_open)
