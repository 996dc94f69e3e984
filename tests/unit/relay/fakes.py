"""A client's and a worker's side without sockets: what was written is a string of bytes, time is a number."""

from __future__ import annotations

import re

from router_core.relay.answer_heads import AnswerHead
from router_core.relay.downstream import Downstream
from router_core.relay.exchange import Exchange
from router_core.relay.head_memory import HeadMemory
from router_core.relay.origin import UpstreamLimits
from router_core.relay.parties import Ending, Listener
from router_core.relay.request_head import RequestHead
from router_core.relay.server import DownstreamLimits, RelayServer


class Clock:
    """Stands for the event loop where only time is asked of it, and other turns."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.soon = []

    def time(self) -> float:
        return self.now

    def call_soon(self, callback) -> None:
        self.soon.append(callback)

    def turn(self) -> bool:
        """Call what was to be called soon; tell whether there was anything."""
        due, self.soon = self.soon, []
        for callback in due:
            callback()
        return bool(due)


class FakeSocket:
    def __init__(self) -> None:
        self.options = []

    def setsockopt(self, *option) -> None:
        self.options.append(option)

    def fileno(self) -> int:
        return -1


class FakeTransport:
    """A client's transport: remembers what it was told."""

    def __init__(self) -> None:
        self.written = b""
        self.is_reading = True
        self.is_aborted = False
        self.is_closed = False
        self.has_eof = False
        self.socket = FakeSocket()
        self.unread = 100_000

    @property
    def is_reset(self) -> bool:
        """Whether the peer sees a reset rather than an end."""
        return self.is_aborted and bool(self.socket.options)

    def write(self, data: bytes) -> None:
        assert not self.has_eof, "written after the end"
        if not self.is_closing():
            self.written += data

    def write_eof(self) -> None:
        self.has_eof = True

    def can_write_eof(self) -> bool:
        return True

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_aborted = True

    def is_closing(self) -> bool:
        return self.is_closed or self.is_aborted

    def get_write_buffer_size(self) -> int:
        return self.unread

    def get_extra_info(self, name: str) -> object:
        return {"socket": self.socket}[name]


class FakeClient:
    """A connection of a client to a relay whose decider only collects the exchanges.

    Attributes:
        exchanges: The requests handed over.
    """

    def __init__(self, *, answers_at_once: bool = False, **limits) -> None:
        self.exchanges: list[Exchange] = []
        self.clock = Clock()
        self.answers_at_once = answers_at_once
        self.server = RelayServer(
            self._handle, limits=DownstreamLimits(**limits), upstream_limits=UpstreamLimits(), loop=self.clock
        )
        self.transport = FakeTransport()
        self.protocol = Downstream(self.server)
        self.protocol.connection_made(self.transport)

    def _handle(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        if self.answers_at_once:
            exchange.respond(200, b"{}")

    def send(self, *pieces: bytes) -> None:
        """Send bytes, as far as the relay reads."""
        for piece in pieces:
            if not self.transport.is_closing():
                self.protocol.data_received(piece)

    def wait(self, seconds: float) -> None:
        """Let time pass, and the sweep look at the connection."""
        self.clock.now += seconds
        if self.protocol.deadline <= self.clock.now:
            self.protocol.expire()

    @property
    def answer(self) -> bytes:
        """All that was written to the client."""
        return self.transport.written

    @property
    def statuses(self) -> list[int]:
        """The statuses of the answers so far."""
        return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", self.answer)]

    @property
    def requests(self) -> list[tuple[bytes, bytes, bytes]]:
        """Method, target and body of each request handed over."""
        return [(e.head.method, e.head.target, e.body) for e in self.exchanges]


class FakeSource:
    """A connection to a worker, as an exchange sees it."""

    def __init__(self) -> None:
        self.is_aborted = False
        self.is_paused = False
        self.released: bool | None = None

    def abort(self) -> None:
        self.is_aborted = True

    def release(self, *, reusable: bool) -> None:
        self.released = reusable

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False


class FakeDestination:
    """A worker: `sources` are the connections on which requests were sent."""

    silence = None

    def __init__(self, *, reuses: bool = False) -> None:
        self.sources: list[FakeSource] = []
        self.answer_heads: HeadMemory[AnswerHead] = HeadMemory()
        self._reuses = reuses

    def send(self, exchange: Exchange, *, fresh: bool = False) -> FakeSource:
        source = FakeSource()
        self.sources.append(source)
        exchange.sent(source, is_reused=self._reuses and not fresh)
        return source


class Recorder(Listener):
    """A listener that remembers what it was told."""

    def __init__(self) -> None:
        self.first_bytes: list[bytes] = []
        self.endings: list[Ending] = []

    def on_first_byte(self, data: bytes) -> None:
        self.first_bytes.append(data)

    def on_end(self, ending: Ending) -> None:
        self.endings.append(ending)


class FakeReceiver:
    """The client's connection, as its exchange sees it."""

    def __init__(self) -> None:
        self.written = b""
        self.may_stay_open = True
        self.error_code_header = None
        self.deadline = float("inf")
        self.keep_alive: bool | None = None
        self.broken_off: str | None = None

    def write(self, data: bytes) -> None:
        self.written += data

    def answered(self, *, keep_alive: bool) -> None:
        assert self.keep_alive is None, "answered twice"
        self.keep_alive = keep_alive

    def break_off(self, *, ends_by_close: bool) -> None:
        self.broken_off = "reset" if ends_by_close else "cut"


class Relayed:
    """One request on its way to a worker."""

    def __init__(self, request: bytes = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n", *, reuses: bool = False) -> None:
        self.client = FakeReceiver()
        self.worker = FakeDestination(reuses=reuses)
        self.listener = Recorder()
        self.exchange = Exchange(self.client, RequestHead(request), b"")
        self.exchange.forward(self.worker, self.listener)

    @property
    def source(self) -> FakeSource:
        """The newest connection to the worker."""
        return self.worker.sources[-1]

    def answer(self, *pieces: bytes) -> None:
        """Let the worker send."""
        for piece in pieces:
            if not self.source.is_aborted and self.source.released is None:
                self.exchange.feed(piece)


def split_at(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut `data` at the given places."""
    places = sorted({cut for cut in cuts if 0 < cut < len(data)})
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]
