"""The listening side: accepts clients, keeps the limits, sweeps what is overdue."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from router_core.relay.downstream import Downstream
from router_core.relay.exchange import Exchange
from router_core.relay.handshakes import HandshakeFailures
from router_core.relay.origin import Origin, UpstreamLimits
from router_core.relay.refusal import CODES, Refusal
from router_core.relay.request_head import RequestHead
from router_core.relay.request_reader import RequestReader, buffers_full
from router_core.relay.shortage import Shortages
from router_core.relay.tls import ServerTls, WorkerTls
from router_core.relay.tls_listener import TlsListener

_SWEEP_S = 0.5
_BACKLOG = 4096
_LAST_WORDS_S = 1.0  # for clients to read why their answer ends


@dataclass(frozen=True, slots=True)
class DownstreamLimits:
    """What a client may ask for; sizes in bytes, times in seconds.

    Attributes:
        max_connections: Clients at a time; above it 503.
        max_turned_away: So many above it at a time; the rest are cut off without a word.
        max_head_bytes: Above it 431.
        max_body_bytes: Above it 413.
        head_timeout_s: For a whole head, from its first byte.
        body_timeout_s: Between two reads of a body.
        keep_alive_timeout_s: Between two requests.
        request_timeout_s: For a whole exchange, streams included.
        max_buffered_bytes: Of bodies that come in pieces, of all clients together; above it 503. None for no bound.
        client_stall_timeout_s: For a client to take any of what waits for it.
    """

    max_connections: int = 16384
    max_turned_away: int = 256
    max_head_bytes: int = 65536
    max_body_bytes: int = 536_870_912
    head_timeout_s: float = 30.0
    body_timeout_s: float = 60.0
    keep_alive_timeout_s: float = 75.0
    request_timeout_s: float = 1800.0
    max_buffered_bytes: int | None = 2_147_483_648
    client_stall_timeout_s: float = 300.0


class RelayServer:
    """Listens for clients and hands every request to `handle`.

    Attributes:
        handle: Who decides: called with each whole request.
        check_early: Called with a head whose body is still to come; raises BadRequestError to refuse it.
        connections: The clients connected now.
        is_draining: Whether the server is on its way out: every answer closes its connection.
        is_closed: Whether it has ceased to listen: idle connections close, and new ones are not taken.
        goes_on: Tells which headers workers get; None lets all pass but cookies.
        refusal_fields: Returns whole header lines for a refusal, given the request's head if that was read.
        error_code_header: The header that tells the code of an error of the router's own; None for none.
        refusals: Requests refused for their form, by HTTP status.
        on_refused: Told of each request that is refused before anybody was asked, for its form or its key.
        handshake_failures: Clients that got no TLS connection.
        client_stalls: Clients that were cut off because they took nothing of their answer for too long.
        buffered_bytes: Of bodies that came in more than one read, until their requests are over.
        buffers_full: Requests refused because that was too much.
        shortages: Connections to workers that the router had no means to make.
    """

    def __init__(
        self,
        handle: Callable[[Exchange], None],
        *,
        limits: DownstreamLimits,
        upstream_limits: UpstreamLimits,
        loop: asyncio.AbstractEventLoop,
        worker_tls: WorkerTls | None = None,
        key_of: Callable[[str], str | None] | None = None,
        goes_on: Callable[[bytes], bool] | None = None,
        error_code_header: str | None = None,
    ) -> None:
        """Make ready; nothing is opened yet.

        Args:
            handle: See the class.
            limits: What a client may ask for.
            upstream_limits: Times that bound connections to workers.
            loop: Where all of it runs.
            worker_tls: How workers at `https://` are spoken to.
            key_of: Returns the API key that replaces the client's credentials at an address, None for none.
            goes_on: Tells which headers workers get, by lower-case name; None lets all pass but cookies.
            error_code_header: See the class.
        """
        self.error_code_header = error_code_header
        self.handle = handle
        self.check_early: Callable[[RequestHead], None] | None = None
        self.refusal_fields: Callable[[RequestHead | None], bytes] | None = None
        self.limits = limits
        self.connections: set[Downstream] = set()
        self.is_draining = False
        self.is_closed = False
        self.refusals = dict.fromkeys((*CODES, 404), 0)
        self.on_refused: Callable[[Refusal], None] | None = None
        self.handshake_failures = HandshakeFailures(loop.time)
        self.client_stalls = 0
        self.buffered_bytes = 0
        self.buffers_full = 0
        self.shortages = Shortages(loop.time)
        self.now = loop.time
        self._loop = loop
        self.goes_on = goes_on
        self._upstream_limits = upstream_limits
        self._key_of = key_of
        self._worker_tls = worker_tls or WorkerTls()
        self._origins: dict[str, Origin] = {}
        self._server: asyncio.Server | TlsListener | None = None
        self._sweep_handle: asyncio.TimerHandle | None = None
        self._is_cut = False
        self._woken = asyncio.Event()  # all clients have left, or nobody waits for them any more

    async def start(self, host: str, port: int, tls: ServerTls | None = None) -> tuple[str, int]:
        """Listen, with TLS if it is given; returns the address that was bound.

        Raises:
            OSError: If the address cannot be had.
        """
        if tls is None:
            self._server = await self._loop.create_server(lambda: Downstream(self), host, port, backlog=_BACKLOG)
            bound = self._server.sockets[0].getsockname()[:2]
        else:
            self._server = listener = TlsListener(
                tls,
                make=lambda: Downstream(self),
                has_room=self._has_room,
                failures=self.handshake_failures,
                loop=self._loop,
            )
            bound = await listener.open(host, port, _BACKLOG)
        self._sweep_handle = self._loop.call_later(_SWEEP_S, self._sweep)
        return bound[0], bound[1]

    def _has_room(self, others: int) -> bool:
        limits = self.limits
        return len(self.connections) + others < limits.max_connections + limits.max_turned_away

    def origin(self, base_url: str) -> Origin:
        """Return the way to a worker, the same one each time."""
        origin = self._origins.get(base_url)
        if origin is None:
            origin = self._origins[base_url] = Origin(
                base_url,
                loop=self._loop,
                limits=self._upstream_limits,
                tls=self._worker_tls,
                api_key=None if self._key_of is None else self._key_of(base_url),
                shortages=self.shortages,
            )
        return origin

    def forget_origin(self, base_url: str) -> None:
        """A worker left or wants another key: close idle connections to it, running requests finish."""
        origin = self._origins.pop(base_url, None)
        if origin is not None:
            origin.close()

    def exchanges(self) -> Iterator[Exchange]:
        """Go through the requests that are being answered now."""
        for connection in tuple(self.connections):
            if connection.exchange is not None:
                yield connection.exchange

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Have something done in the event loop's next turn."""
        self._loop.call_soon(callback)

    def refused(self, status: int) -> None:
        """Count a request refused for its form, or for a path or method that nobody takes."""
        self.refusals[status] = self.refusals.get(status, 0) + 1

    def make_room(self, asking: RequestReader, max_bytes: int) -> None:
        """Refuse the largest of the bodies that are still coming, until what is held is no more than it may be.

        Not the one that comes last: a few that hoard would then keep out everybody.

        Raises:
            BadRequestError: If the one that asks is the largest.
        """
        while self.buffered_bytes > max_bytes:
            largest = max(self.connections, key=lambda connection: connection.unfinished_bytes)
            self.buffers_full += 1
            if largest is asking:
                raise buffers_full()
            largest.give_up_body()

    def left(self, connection: Downstream) -> None:
        """A client's connection is closed."""
        self.connections.discard(connection)
        if self.is_closed and not self.connections:
            self._woken.set()

    def drain(self) -> None:
        """Be on the way out: take connections still, but close each after its next answer, so that clients move on."""
        self.is_draining = True

    def cut(self) -> None:
        """End what runs, saying so as far as clients can still be told; who waits in `stop` goes on with it."""
        self._is_cut = True
        for connection in tuple(self.connections):
            connection.end()
        self._woken.set()

    async def stop(self, grace_s: float) -> None:
        """Stop accepting, let running requests finish for `grace_s` seconds, then end them and close everything."""
        self.is_draining = self.is_closed = True
        if self._server is not None:
            self._server.close()
        for connection in tuple(self.connections):
            connection.drain()
        if not self._is_cut:
            await self._until_left(grace_s)
        self.cut()
        await self._until_left(_LAST_WORDS_S)
        for connection in tuple(self.connections):
            connection.abort()
        await self._until_left(None)
        for origin in self._origins.values():
            origin.close()
        if self._sweep_handle is not None:
            self._sweep_handle.cancel()
        if self._server is not None:
            await self._server.wait_closed()

    async def _until_left(self, seconds: float | None) -> None:
        """Wait until all clients have left, for so many seconds at most, or `cut` is called."""
        if self.connections:
            self._woken.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), seconds)

    def _sweep(self) -> None:
        self._sweep_handle = self._loop.call_later(_SWEEP_S, self._sweep)  # first: what follows might raise
        now = self._loop.time()
        for connection in tuple(self.connections):
            if connection.deadline <= now:
                connection.expire()
            else:
                connection.look(now)
        for origin in self._origins.values():
            origin.sweep()
