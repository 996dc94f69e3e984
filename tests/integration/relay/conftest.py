"""A relay on a real socket before scripted workers, and clients that send raw bytes.

async with relay(worker.url) as router:
    client = await router.connect()
    client.send(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
    assert (await client.answer()).status == 200

Time stands still for the relay unless a test calls `router.pass_time`. When the relay is left, nothing of it may
remain: no client's connection, none to a worker, none in the making.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from router_core.relay.exchange import Exchange
from router_core.relay.origin import UpstreamLimits
from router_core.relay.parties import Destination, Ending, Listener
from router_core.relay.server import DownstreamLimits, RelayServer

_WAIT_S = 10.0
_STATUS_OF_ENDING = {
    Ending.CONNECT_FAILED: 502,
    Ending.CONNECTION_LOST: 502,
    Ending.BAD_ANSWER: 502,
    Ending.TIMEOUT: 504,
}


class StillTimer:
    """A timer of the loop below."""

    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class StillLoop:
    """The running loop, but its time moves only when told, and its timers with it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._now = 1000.0
        self._timers: list[StillTimer] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def time(self) -> float:
        return self._now

    def call_later(self, delay: float, callback: Callable[[], None]) -> StillTimer:
        timer = StillTimer(self._now + delay, callback)
        self._timers.append(timer)
        return timer

    def pass_time(self, seconds: float) -> None:
        self._now += seconds
        due = [timer for timer in self._timers if timer.when <= self._now]
        self._timers = [timer for timer in self._timers if timer.when > self._now]
        for timer in due:
            if timer.callback is not None:
                timer.callback()


class Answer(NamedTuple):
    status: int
    head: bytes
    body: bytes


class Client:
    """A client that sends and gets bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def get(self, target: bytes = b"/x", lines: bytes = b"", method: bytes = b"GET") -> Answer:
        """Send a request without body and read its answer."""
        self.send(b"%b %b HTTP/1.1\r\nHost: router\r\n%b\r\n" % (method, target, lines))
        return await self.answer(has_body=method != b"HEAD")

    async def post(self, body: bytes, target: bytes = b"/x") -> Answer:
        self.send(b"POST %b HTTP/1.1\r\nHost: router\r\nContent-Length: %d\r\n\r\n" % (target, len(body)) + body)
        return await self.answer()

    async def answer(self, *, has_body: bool = True) -> Answer:
        """Read one answer; of a chunked one the body is what the chunks hold."""
        async with asyncio.timeout(_WAIT_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            status = int(head[9:12])
            lower = head.lower()
            body = b""
            if not has_body or status in (204, 304) or status < 200:
                pass
            elif b"\r\ncontent-length:" in lower:
                length = int(lower.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
                body = await self.reader.readexactly(length)
            elif b"\r\ntransfer-encoding: chunked\r\n" in lower:
                while size := int(await self.reader.readuntil(b"\r\n"), 16):
                    body += (await self.reader.readexactly(size + 2))[:-2]
                assert await self.reader.readuntil(b"\r\n") == b"\r\n"
            else:
                body = await self.reader.read()
            return Answer(status, head, body)

    async def final_answer(self) -> Answer:
        """Read one answer and the interim ones before it."""
        while (answer := await self.answer()).status < 200:
            pass
        return answer

    async def read(self, count: int) -> bytes:
        """Read exactly so many bytes."""
        async with asyncio.timeout(_WAIT_S):
            return await self.reader.readexactly(count)

    async def rest(self) -> bytes:
        """Read until the connection ends in good order."""
        async with asyncio.timeout(_WAIT_S):
            return await self.reader.read()

    async def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """Hang up with a TCP reset."""
        connection = self.writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class Follower(Listener):
    """Listens to one forwarded request and answers for a worker that cannot."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.first_bytes: list[bytes] = []
        self.endings: list[Ending] = []

    def on_first_byte(self, data: bytes) -> None:
        self.first_bytes.append(data)

    def on_end(self, ending: Ending) -> None:
        self.endings.append(ending)
        if ending in _STATUS_OF_ENDING and self.exchange.status is None:
            self.exchange.respond(_STATUS_OF_ENDING[ending], b'{"error": "%b"}' % ending.name.encode())


class Router:
    """A relay that sends everything to one worker, and `/control...` to the control plane.

    Attributes:
        server: The relay.
        followers: One for each request handed over.
    """

    def __init__(self, worker_url: str, control: Destination | None = None, **limits: Any) -> None:
        self.followers: list[Follower] = []
        self.clients: list[Client] = []
        self._worker_url = worker_url
        self._control = control
        upstream = {name: limits.pop(name) for name in ("connect_timeout_s", "idle_timeout_s") if name in limits}
        self._loop = StillLoop()
        self.server = RelayServer(
            self._handle,
            limits=DownstreamLimits(**limits),
            upstream_limits=UpstreamLimits(**upstream),
            loop=self._loop,  # type: ignore[arg-type]
        )

    def _handle(self, exchange: Exchange) -> None:
        follower = Follower(exchange)
        self.followers.append(follower)
        if self._control is not None and exchange.head.path.startswith(b"/control"):
            exchange.forward(self._control, follower)
        elif exchange.head.path.startswith(b"/local"):
            exchange.respond(200, b'{"local": true}')
        else:
            exchange.forward(self.server.origin(self._worker_url), follower)

    @property
    def origin(self) -> Any:
        return self.server.origin(self._worker_url)

    @property
    def endings(self) -> list[Ending]:
        """How the requests so far ended."""
        return [ending for follower in self.followers for ending in follower.endings]

    async def connect(self, **options: Any) -> Client:
        """Connect one more client."""
        reader, writer = await asyncio.open_connection(*self.address, limit=2**27, **options)
        client = Client(reader, writer)
        self.clients.append(client)
        return client

    def pass_time(self, seconds: float) -> None:
        """Let time pass for the relay, and its sweep happen."""
        self._loop.pass_time(seconds)

    async def __aenter__(self) -> Router:
        self.address = await self.server.start("127.0.0.1", 0)
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        for client in self.clients:
            client.writer.close()
        origins = list(self.server._origins.values())
        await self.server.stop(0)
        if kind is None:
            await until(lambda: not self.server.connections)
            for origin in origins:
                await until(lambda origin=origin: not origin._connecting and not origin._idle)


async def until(is_reached: Callable[[], bool]) -> None:
    """Let the loop run until something is so."""
    async with asyncio.timeout(_WAIT_S):
        while not is_reached():  # noqa: ASYNC110  # the relay has no events to wait for, and needs none
            await asyncio.sleep(0)


@pytest.fixture
def relay() -> type[Router]:
    """`async with relay(worker_url, **limits) as router`."""
    return Router


@pytest.fixture(name="until")
def until_fixture() -> Any:
    """`await until(lambda: ...)`: let the loop run until something is so."""
    return until


@pytest.fixture
def hole() -> Any:
    """A port on which connections are neither made nor refused."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=0)
    fillers = []
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(listener.getsockname())
        fillers.append(filler)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    for one in (*fillers, listener):
        one.close()
