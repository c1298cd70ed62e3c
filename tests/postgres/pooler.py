"""A pooler like PgBouncer in transaction mode, for what must not rely on a session.

It speaks version 3 of the protocol, lets every client in, and lends it a connection to the server
from its first message until a transaction is over. The next transaction gets another connection:
what a client left in its session, be it a prepared statement, a setting, a lock or a subscription,
is gone for it, and lies about for others. Nothing is reset in between, as with PgBouncer.
"""

import asyncio
import os
import secrets
import socket
import threading
from collections import deque
from collections.abc import Collection
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote, unquote, urlsplit

import attrs
from psycopg import OperationalError, pq
from psycopg.pq.abc import PGconn

from tests.postgres.protocol import (
    CANCEL,
    ENCRYPTIONS,
    LENGTH,
    PROTOCOL_3,
    Progress,
    fatal,
    message,
    parameters_in,
    read_message,
    read_startup,
)

STARTUP_PARAMETERS: Final = frozenset({"user", "database", "client_encoding", "application_name"})
REPORTED: Final = (
    "server_version",
    "server_encoding",
    "client_encoding",
    "DateStyle",
    "IntervalStyle",
    "TimeZone",
    "integer_datetimes",
    "standard_conforming_strings",
    "is_superuser",
    "session_authorization",
)
_LOOP_WITHIN: Final = 30.0


@attrs.define(eq=False)
class Backend:
    """A connection to the server, logged in by libpq, whose socket we then speak over."""

    login: PGconn
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    client: "Client | None" = None
    relay: "asyncio.Task[None] | None" = None

    @classmethod
    async def open(cls, server_url: str) -> Self:
        login = await asyncio.to_thread(pq.PGconn.connect, server_url.encode())
        if login.status != pq.ConnStatus.OK:
            complaint = login.error_message.decode()
            login.finish()
            raise OperationalError(complaint)
        taken = socket.socket(fileno=os.dup(login.socket))
        taken.setblocking(False)
        return cls(login, *await asyncio.open_connection(sock=taken))

    async def close(self) -> None:
        if self.relay is not None:
            self.relay.cancel()
            await asyncio.wait([self.relay])
        await hang_up(self.writer)
        self.login.finish()


@attrs.define(eq=False)
class Client:
    """A connection from a client, and the one to the server that it has borrowed."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    backend: Backend | None = None
    last: Backend | None = None
    progress: Progress = attrs.field(factory=Progress)


async def hang_up(writer: asyncio.StreamWriter) -> None:
    """Close a connection, whether or not the other side still hears us."""
    writer.close()
    with suppress(OSError):
        # Who is cancelled here would take along the future that others wait for.
        await asyncio.shield(writer.wait_closed())


class Pooler:
    """A pooler in a thread of its own, so that clients of every kind can use it."""

    def __init__(self, server_url: str, size: int, ignored: Collection[str] = ()) -> None:
        parts = urlsplit(server_url)
        self._known = STARTUP_PARAMETERS | set(ignored)
        self.transactions = 0
        self.swaps = 0
        self.port = 0
        self._server_url = server_url
        self._user, self._database = unquote(parts.username or ""), unquote(parts.path[1:])
        self._size = size
        self._idle: deque[Backend] = deque()
        self._vacant = 0
        self._available = asyncio.Semaphore(size)
        self._backends: set[Backend] = set()
        self._guests: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._started: Future[int] = Future()
        self._ending = asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    @classmethod
    def start(cls, server_url: str, size: int = 3, *, ignored: Collection[str] = ()) -> Self:
        """Log in *size* times at the server, and lend these connections out until `stop`.

        Startup parameters that are *ignored* do nothing; others but the plainest are refused.
        """
        pooler = cls(server_url, size, ignored)
        pooler._thread.start()
        pooler.port = pooler._started.result(_LOOP_WITHIN)
        return pooler

    @property
    def url(self) -> str:
        """Where clients connect; nobody is asked for a password."""
        user, database = quote(self._user, safe=""), quote(self._database, safe="")
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def stop(self) -> None:
        """Hang up on everybody."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join(_LOOP_WITHIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            for _ in range(self._size):
                self._idle.append(await self._open())
            self._reported = _reports(self._idle[0].login)
            listener = await asyncio.start_server(self._welcome, "127.0.0.1", 0)
        except Exception as problem:  # noqa: BLE001  it is raised where the pooler is started
            await self._close_backends()
            self._started.set_exception(problem)
            return
        self._started.set_result(listener.sockets[0].getsockname()[1])
        await self._ending.wait()
        listener.close()
        guests = dict(self._guests)
        for guest in guests:
            guest.cancel()
        await asyncio.gather(*guests, return_exceptions=True)
        for writer in guests.values():
            await hang_up(writer)
        await self._close_backends()

    async def _close_backends(self) -> None:
        while self._backends:
            await self._backends.pop().close()

    async def _open(self) -> Backend:
        backend = await Backend.open(self._server_url)
        self._backends.add(backend)
        backend.relay = asyncio.create_task(self._relay_back(backend))
        return backend

    def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._ending.is_set():
            writer.close()
            return
        guest = asyncio.create_task(self._attend_to(Client(reader, writer)))
        self._guests[guest] = writer
        guest.add_done_callback(self._guests.pop)

    async def _attend_to(self, client: Client) -> None:
        try:
            if await self._let_in(client):
                await self._relay_on(client)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # whoever leaves without a word has left all the same
        except OperationalError:
            client.writer.write(fatal("08006", "server login failed"))
        finally:
            if client.backend is not None:
                # What its transaction has come to, nobody knows.
                await self._discard(client.backend)
            await hang_up(client.writer)

    async def _let_in(self, client: Client) -> bool:
        code, body = await read_startup(client.reader)
        while code in ENCRYPTIONS:
            client.writer.write(b"N")
            code, body = await read_startup(client.reader)
        if code == CANCEL:
            return False
        complaint = self._complaint(code, parameters_in(body))
        client.writer.write(complaint or self._greeting())
        await client.writer.drain()
        return complaint is None

    def _complaint(self, code: int, parameters: dict[str, str]) -> bytes | None:
        """Why a client is not let in, if it is not."""
        if code != PROTOCOL_3:
            return fatal("08P01", "unsupported protocol version")
        for name in parameters.keys() - self._known:
            return fatal("08P01", f"unsupported startup parameter: {name}")
        if parameters["user"] != self._user:
            return fatal("28000", f"no such user: {parameters['user']}")
        if parameters.get("database", self._user) != self._database:
            return fatal("3D000", "no such database")
        encoding = parameters.get("client_encoding", "UTF8")
        if encoding.upper().replace("-", "") not in {"UTF8", "UNICODE"}:
            return fatal("08P01", f"unsupported client encoding: {encoding}")
        return None

    def _greeting(self) -> bytes:
        key = LENGTH.pack(secrets.randbelow(1 << 31)) + secrets.token_bytes(4)
        allowed, ready = message(b"R", LENGTH.pack(0)), message(b"Z", b"I")
        return allowed + self._reported + message(b"K", key) + ready

    async def _relay_on(self, client: Client) -> None:
        """Hand to the server what *client* says, until it says goodbye."""
        while True:
            kind, whole = await read_message(client.reader)
            if kind == b"X":
                return
            backend = client.backend or await self._lend(client)
            client.progress.asked(kind)
            backend.writer.write(whole)
            await backend.writer.drain()

    async def _relay_back(self, backend: Backend) -> None:
        """Hand back what the server says, until it hangs up; what is for nobody is dropped."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                kind, whole = await read_message(backend.reader)
                client = backend.client
                if client is None:
                    continue
                client.progress.answered(kind, whole)
                if kind == b"Z" and client.progress.is_over:
                    # Before the client hears of it: its next message is for another connection.
                    self._take_back(backend, client)
                client.writer.write(whole)
                with suppress(ConnectionError):
                    await client.writer.drain()
        backend.relay = None
        if backend.client is not None:
            backend.client.writer.close()
        elif backend in self._idle:
            self._idle.remove(backend)
            self._vacant += 1
            await self._close(backend)

    async def _lend(self, client: Client) -> Backend:
        """A connection for a transaction of *client*, not the one it had before if there is one."""
        await self._available.acquire()
        backend = await self._next(client.last)
        backend.client, client.backend, client.progress = client, backend, Progress()
        self.transactions += 1
        self.swaps += client.last not in (None, backend)
        return backend

    async def _next(self, last: Backend | None) -> Backend:
        if self._vacant:
            return await self._replacement()
        others = [each for each in self._idle if each is not last]
        backend = (others or self._idle)[0]
        self._idle.remove(backend)
        return backend

    async def _replacement(self) -> Backend:
        self._vacant -= 1
        try:
            return await self._open()
        except BaseException:
            self._vacant += 1
            self._available.release()
            raise

    def _take_back(self, backend: Backend, client: Client) -> None:
        backend.client, client.backend, client.last = None, None, backend
        self._idle.append(backend)
        self._available.release()

    async def _discard(self, backend: Backend) -> None:
        backend.client = None
        await self._close(backend)
        self._vacant += 1
        self._available.release()

    async def _close(self, backend: Backend) -> None:
        await backend.close()
        self._backends.discard(backend)  # not before, or `stop` would not finish what it cancelled


def _reports(login: PGconn) -> bytes:
    told = ((name.encode(), login.parameter_status(name.encode())) for name in REPORTED)
    return b"".join(
        message(b"S", name + b"\0" + value + b"\0") for name, value in told if value is not None
    )
