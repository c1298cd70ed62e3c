"""A line to a server that may fall silent: what is sent still goes out, and nothing comes back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import attrs


@attrs.define(eq=False)
class Line:
    """A relay in the test's own loop; while it is *silent* whatever reaches it is swallowed."""

    url: str
    silent: bool = False
    connections: int = 0
    swallowed: asyncio.Event = attrs.field(factory=asyncio.Event)
    _target: tuple[str, int] = ("", 0)
    _calls: "set[asyncio.Task[None]]" = attrs.field(factory=set)

    def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        call = asyncio.get_running_loop().create_task(self._relay(reader, writer))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        to_server = None
        try:
            from_server, to_server = await asyncio.open_connection(*self._target)
            back = asyncio.get_running_loop().create_task(self._copy(from_server, writer))
            self._calls.add(back)
            back.add_done_callback(self._calls.discard)
            await self._copy(reader, to_server)
        finally:
            writer.close()
            if to_server is not None:
                to_server.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while said := await reader.read(65_536):
                if self.silent:
                    self.swallowed.set()
                    continue
                writer.write(said)
                await writer.drain()
        writer.close()

    async def hang_up(self) -> None:
        for call in tuple(self._calls):
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)


@asynccontextmanager
async def line_to(server_url: str) -> AsyncIterator[Line]:
    """A line to the server at *server_url*, that can be spoken over until the block ends."""
    parts = urlsplit(server_url)
    assert parts.hostname is not None
    assert parts.port is not None
    line = Line("", target=(parts.hostname, parts.port))
    listener = await asyncio.start_server(line.take, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    line.url = server_url.replace(f"127.0.0.1:{parts.port}", f"127.0.0.1:{port}")
    try:
        yield line
    finally:
        listener.close()
        await line.hang_up()
