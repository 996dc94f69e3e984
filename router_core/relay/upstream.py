"""A connection to a worker, kept alive from one request to the next."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from router_core.relay.call import Call, Pieces

if TYPE_CHECKING:
    from router_core.relay.origin import Origin

# Above this a head and its body are handed to the kernel apart rather than copied together.
_JOIN_BYTES = 16384


class Upstream(asyncio.Protocol):
    """One connection to a worker, serving one exchange at a time."""

    __slots__ = ("_origin", "_transport", "_exchange", "_has_ended", "_is_paused", "idle_since")

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._transport: asyncio.Transport
        self._exchange: Call | None = None
        self._has_ended = False  # the worker said that it sends no more; over TLS, by its `close_notify`
        self._is_paused = False
        self.idle_since = 0.0

    def send(self, exchange: Call, *, is_reused: bool) -> None:
        """Write a request; its answer goes to the exchange."""
        self._exchange = exchange
        body = exchange.body
        if not isinstance(body, bytes):
            self._send_pieces(exchange, body, is_reused=is_reused)
            return
        head = self._origin.outgoing(exchange.head, len(body), exchange.request_fields)
        exchange.sent(self, is_reused=is_reused)
        if len(body) <= _JOIN_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))

    def _send_pieces(self, exchange: Call, pieces: Pieces, *, is_reused: bool) -> None:
        size = sum(map(len, pieces))
        head = self._origin.outgoing(exchange.head, size, exchange.request_fields)
        exchange.sent(self, is_reused=is_reused)
        if size <= _JOIN_BYTES:
            self._transport.write(b"".join((head, *pieces)))
        else:
            self._transport.writelines((head, *pieces))

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports are not asyncio's classes
        if self._origin.tls is not None:
            # While reading is paused the end is to stay unread, too: uvloop drops what it has not handed on by then.
            transport.set_read_buffer_limits(1, 0)  # type: ignore[attr-defined]  # of TLS transports alone

    def data_received(self, data: bytes) -> None:
        """Pass an answer's bytes on; bytes nobody asked for end the connection."""
        exchange = self._exchange
        if exchange is not None:
            exchange.feed(data)
        else:
            self._origin.forget(self)
            self._transport.abort()

    def eof_received(self) -> None:
        """Remember that the end was the worker's own: somebody on the way can end a TCP connection below TLS."""
        self._has_ended = True

    def connection_lost(self, error: Exception | None) -> None:
        """Tell the exchange, or leave the idle ones."""
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            self._origin.forget(self)
        elif error is not None:
            exchange.source_closed(str(error) or type(error).__name__)
        else:
            exchange.source_closed("" if self._has_ended else "closed without the close_notify that TLS ends with")

    # --- Source ---

    def abort(self) -> None:
        """Drop the connection at once, so that the worker stops computing."""
        self._exchange = None
        self._transport.abort()

    def release(self, *, reusable: bool) -> None:
        """The answer is whole: keep the connection or close it."""
        self._exchange = None
        if self._is_paused:
            self.resume_reading()
        if self._transport.get_write_buffer_size():
            # Answered before the whole request was sent: the rest would wait for a worker that may never read it.
            self._transport.abort()
        elif reusable and not self._transport.is_closing():
            self._origin.keep(self)
        else:
            self._transport.close()

    def pause_reading(self) -> None:
        """Hold the worker back."""
        if not self._is_paused and not self._transport.is_closing():
            self._is_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Let the worker go on."""
        if self._is_paused:
            self._is_paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()

    @property
    def is_closing(self) -> bool:
        """Whether the connection is on its way out."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Close an idle connection."""
        self._transport.close()
