r"""A TCP server that answers with scripted bytes, pauses and resets: for faults no HTTP library would commit.

script = [Read(), Send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"), Reset()]
async with ScriptedServer(script) as server:
    ...  # connect to server.url
    await server.wait_closed(1)
    assert server.requests[0].startswith(b"POST ")
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Self

from router_core.testing.waiting import WAIT_S, Waiters

_PIECE = 65536


@dataclass(frozen=True, slots=True)
class Read:
    """Read one HTTP request: a head and as many bytes as its content-length says, or its chunks."""


@dataclass(frozen=True, slots=True)
class ReadBytes:
    """Read exactly `count` bytes, whatever they are."""

    count: int


@dataclass(frozen=True, slots=True)
class Send:
    """Send `data`: at once, or in pieces of `piece` bytes with `interval_s` between them."""

    data: bytes
    piece: int = 0
    interval_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Pause:
    """Do nothing for `seconds`, or until the test sets `event`."""

    seconds: float = 0.0
    event: asyncio.Event | None = None


@dataclass(frozen=True, slots=True)
class HalfClose:
    """Say that no more will be sent, and go on."""


@dataclass(frozen=True, slots=True)
class Close:
    """Close in good order. Also what happens at the end of a script."""


@dataclass(frozen=True, slots=True)
class Cut:
    """End the TCP connection in good order, but not the TLS connection on it: it gets no `close_notify`."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Close with a TCP reset."""


@dataclass(frozen=True, slots=True)
class WaitForPeer:
    """Do nothing until the peer closes; what it still sends is recorded."""


Action = Read | ReadBytes | Send | Pause | HalfClose | Close | Cut | Reset | WaitForPeer
Script = Iterable[Action]


@dataclass(eq=False)
class Connection:
    """One accepted connection.

    Attributes:
        index: 0 for the first.
        received: All bytes the peer sent and the script read.
        requests: Those read by `Read`, one by one.
        is_open: Until either side has ended it.
        was_closed_by_peer: Whether the peer ended it, in good order or not.
        error: What went wrong while reading or writing, if anything.
    """

    index: int
    received: bytearray = field(default_factory=bytearray)
    requests: list[bytes] = field(default_factory=list)
    is_open: bool = True
    was_closed_by_peer: bool = False
    error: Exception | None = None


class ScriptedServer:
    """Plays a script to each connection.

    Attributes:
        connections: All connections so far, oldest first.
    """

    def __init__(
        self,
        script: Script | Callable[[int], Script],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Take one script for all connections, or a function from a connection's index to its script; TLS if given."""
        self.connections: list[Connection] = []
        self._script_of: Callable[[int], Script] = script if callable(script) else lambda _index: script
        self._host = host
        self._port = port
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiters = Waiters()

    @property
    def url(self) -> str:
        """Where it listens, such as `http://127.0.0.1:40001`."""
        return f"{'http' if self._tls is None else 'https'}://{self._host}:{self._port}"

    @property
    def port(self) -> int:
        """The port it listens on; stays after the end."""
        return self._port

    @property
    def requests(self) -> list[bytes]:
        """All requests read by `Read`, connection by connection."""
        return [request for connection in self.connections for request in connection.requests]

    async def wait_connected(self, count: int = 1, timeout_s: float = WAIT_S) -> None:
        """Wait until `count` connections so far were accepted."""
        await self._wait(lambda: len(self.connections) >= count, f"{count} connections", timeout_s)

    async def wait_requests(self, count: int = 1, timeout_s: float = WAIT_S) -> None:
        """Wait until `count` requests so far were read by `Read`."""
        await self._wait(lambda: len(self.requests) >= count, f"{count} requests", timeout_s)

    async def wait_closed(self, count: int = 1, timeout_s: float = WAIT_S) -> None:
        """Wait until `count` connections so far have ended, by either side."""
        await self._wait(lambda: sum(not c.is_open for c in self.connections) >= count, f"{count} ended", timeout_s)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, self._host, self._port, backlog=1024, ssl=self._tls)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_exception: object) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(len(self.connections))
        self.connections.append(connection)
        self._waiters.changed()
        try:
            for action in self._script_of(connection.index):
                if await self._play(action, connection, reader, writer):
                    break
        except (OSError, asyncio.IncompleteReadError) as error:
            connection.error = error
            connection.was_closed_by_peer = True
        finally:
            writer.close()
            connection.is_open = False
            self._waiters.changed()

    async def _play(
        self, action: Action, connection: Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Do one action; return whether it ends the script."""
        match action:
            case Read():
                connection.requests.append(await _read_request(connection, reader))
                self._waiters.changed()
            case ReadBytes(count):
                connection.received += await reader.readexactly(count)
            case Send(data, piece, interval_s):
                for start in range(0, len(data), piece or max(1, len(data))):
                    writer.write(data[start : start + (piece or len(data))])
                    await writer.drain()
                    await asyncio.sleep(interval_s)
            case Pause(seconds, None):
                await asyncio.sleep(seconds)
            case Pause(_, asyncio.Event() as event):
                await event.wait()
            case HalfClose():
                writer.write_eof()
            case WaitForPeer():
                while data := await reader.read(_PIECE):
                    connection.received += data
                connection.was_closed_by_peer = True
            case Cut():
                _cut(writer)
                return True
            case Reset():
                _reset(writer)
                return True
            case Close():
                if self._tls is not None:
                    await _take_leave(writer)
                return True
        return False

    async def _wait(self, is_reached: Callable[[], bool], what: str, timeout_s: float) -> None:
        await self._waiters.wait(is_reached, timeout_s, lambda: f"not yet {what}: {self.connections}")


def answer(body: bytes = b"{}", *, status: int = 200, headers: str = "content-type: application/json\r\n") -> Send:
    """Return the sending of a plain, correct answer.

    Args:
        body: Its body.
        status: Its status.
        headers: Header lines, each with its line end; the content-length comes by itself.
    """
    head = f"HTTP/1.1 {status} Scripted\r\n{headers}content-length: {len(body)}\r\n\r\n"
    return Send(head.encode() + body)


async def _read_request(connection: Connection, reader: asyncio.StreamReader) -> bytes:
    start = len(connection.received)

    async def take(reading: Awaitable[bytes]) -> bytes:
        try:
            data = await reading
        except asyncio.IncompleteReadError as error:
            connection.received += error.partial
            raise
        connection.received += data
        return data

    head = (await take(reader.readuntil(b"\r\n\r\n"))).lower()
    length = _header(head, b"content-length")
    if length:
        await take(reader.readexactly(int(length)))
    elif _header(head, b"transfer-encoding") == b"chunked":
        while size := int((await take(reader.readuntil(b"\r\n"))).partition(b";")[0], 16):
            await take(reader.readexactly(size + 2))
        await take(reader.readuntil(b"\r\n"))  # no trailers are expected
    return bytes(connection.received[start:])


def _header(head: bytes, name: bytes) -> bytes:
    _, found, rest = head.partition(b"\r\n" + name + b":")
    return rest.partition(b"\r\n")[0].strip() if found else b""


def _cut(writer: asyncio.StreamWriter) -> None:
    # A socket of our own on the same connection: the transport's would take leave first.
    with _second_socket(writer) as connection:
        connection.shutdown(socket.SHUT_RDWR)


async def _take_leave(writer: asyncio.StreamWriter) -> None:
    """Say `close_notify` and end the TCP connection, as most servers do; the transport would wait for an answer."""
    with _second_socket(writer) as connection, contextlib.suppress(OSError):  # the peer may have closed it first
        writer.close()
        await asyncio.sleep(0)  # what was written leaves
        connection.shutdown(socket.SHUT_RDWR)


def _second_socket(writer: asyncio.StreamWriter) -> socket.socket:
    return socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno()))


def _reset(writer: asyncio.StreamWriter) -> None:
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
