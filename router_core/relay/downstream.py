"""A client's connection: reads requests one after another, hands each over whole, writes the answers in order."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from typing import TYPE_CHECKING

from router_core.relay.exchange import SHUTTING_DOWN, Exchange
from router_core.relay.framing import ChunkedBody, FramingError, SizedBody
from router_core.relay.head_fields import END_OF_HEAD
from router_core.relay.head_memory import HeadMemory
from router_core.relay.local_answer import error_body, local_answer
from router_core.relay.peer_address import peer_address
from router_core.relay.refusal import CODES, Refusal
from router_core.relay.request_head import BadRequestError, RequestHead

if TYPE_CHECKING:
    from router_core.relay.server import RelayServer

_NEVER = float("inf")
_LINGER_S = 2.0
_MAX_PIPELINED_BYTES = 262_144
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_EMPTY_LINES = re.compile(rb"(?:\r\n)+")
_BARE_LF = re.compile(rb"(?<!\r)\n")
_BARE_CR = re.compile(rb"\r(?!\n|\Z)")


TURNED_AWAY = 256
"""Clients over the limit that are told so at a time; the others are cut."""


class Downstream(asyncio.Protocol):
    """One client's connection.

    It is in one of four states: reading a head (`_exchange`, `_head` are None), reading a body (`_head` is set),
    waiting for an answer (`_exchange` is set), or lingering after a refusal until the client has read it.

    Attributes:
        deadline: When the server's sweep shall call `expire`, in loop time.
    """

    __slots__ = (
        "_server",
        "_transport",
        "_buffer",
        "_scanned",
        "_head",
        "_heads",
        "_size",
        "_framing",
        "_body",
        "_body_bytes",
        "_exchange",
        "_is_clogged",
        "_is_lingering",
        "_is_reading",
        "_is_parsing",
        "deadline",
        "write",
    )

    def __init__(self, server: RelayServer) -> None:
        self._server = server
        self._transport: asyncio.Transport
        self._buffer = b""
        self._scanned = 0  # so much of the buffer is known to hold no whole head
        self._head: RequestHead | None = None
        self._heads: HeadMemory[RequestHead] = HeadMemory()
        self._size: int | None = None  # of the body that is being read, None when it is chunked
        self._framing: SizedBody | ChunkedBody
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._exchange: Exchange | None = None
        self._is_clogged = False  # the client reads too slowly
        self._is_lingering = False
        self._is_reading = True
        self._is_parsing = False
        self.deadline = _NEVER

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport and wait for a head."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports are not asyncio's classes
        self.write = self._transport.write
        self._server.connections.add(self)
        self.deadline = self._server.now() + self._server.limits.head_timeout_s
        over = len(self._server.connections) - self._server.limits.max_connections
        if self._server.is_closed or over > TURNED_AWAY:
            self._transport.abort()  # It came while the server was closing, or is one of far too many.
        elif over > 0:
            self._refuse(BadRequestError(503, "the router has as many connections as it may; try again later"))

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002  # the reason changes nothing
        """The client is gone: whatever runs for it stops."""
        self._hang_up()
        self._server.left(self)

    def eof_received(self) -> None:
        """The client closed its side. It hung up: a half-closed connection cannot be told from a closed one in time."""
        if self._exchange is not None:
            self._hang_up()
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take the client's bytes."""
        if self._is_lingering:
            return
        if self._exchange is not None or self._is_clogged:
            # Pipelined: kept until the running request is answered and the answer read.
            self._buffer += data
            if len(self._buffer) > _MAX_PIPELINED_BYTES and self._is_reading:
                self._is_reading = False
                self._transport.pause_reading()
            return
        self._parse(data)

    def pause_writing(self) -> None:
        """The client reads too slowly: hold the worker back."""
        self._is_clogged = True
        if self._exchange is not None:
            self._exchange.pause()

    def resume_writing(self) -> None:
        """The client caught up."""
        self._is_clogged = False
        if self._exchange is not None:
            self._exchange.resume()
        else:
            self._go_on()

    # --- for the exchange ---

    @property
    def may_stay_open(self) -> bool:
        """Whether the connection may live on after the answer."""
        return not self._server.is_draining

    def answered(self, *, keep_alive: bool) -> None:
        """The answer is written; go on with the next request or close."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None and exchange.on_over is not None:
            exchange.on_over()
        if not keep_alive:
            self._close()
            return
        server = self._server
        self.deadline = server.now() + server.limits.keep_alive_timeout_s
        if (self._buffer or server.is_closed or not self._is_reading) and not self._is_parsing:
            self._go_on()

    def break_off(self, *, ends_by_close: bool) -> None:
        """An answer that has begun cannot be finished: the client must not take it for whole."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None and exchange.on_over is not None:
            exchange.on_over()
        if ends_by_close:
            self._reset()
        else:
            self._transport.abort()

    # --- for the server ---

    @property
    def exchange(self) -> Exchange | None:
        """The request that is being answered, or None."""
        return self._exchange

    def look(self, now: float) -> None:
        """Called now and then: a worker may be silent for too long."""
        if self._exchange is not None:
            self._exchange.look(now)

    def expire(self) -> None:
        """The deadline has passed."""
        self.deadline = _NEVER
        exchange = self._exchange
        if exchange is not None:
            exchange.expire()
            if self._exchange is exchange:
                self._transport.abort()  # Nobody answered in its stead.
        elif self._is_lingering or self._is_clogged or self._transport.is_closing():
            self._transport.abort()  # The client does not read what it was sent.
        elif self._head is not None:
            self._refuse(BadRequestError(408, "the request's body did not arrive in time"))
        elif self._buffer:
            self._refuse(BadRequestError(408, "the request's head did not arrive in time"))
        else:
            self._close()

    def drain(self) -> None:
        """Close if idle; a running request is answered first."""
        if self._exchange is None and self._head is None and not self._buffer:
            self._close()

    def end(self) -> None:
        """End whatever is running, and say why if that can still be said."""
        exchange = self._exchange
        if exchange is not None:
            exchange.shut_down()
        elif self._is_lingering or self._transport.is_closing():
            return  # It ends already.
        elif self._head is not None or self._buffer:
            self._refuse(BadRequestError(503, SHUTTING_DOWN, code="shutting_down"))
        else:
            self._close()

    def abort(self) -> None:
        """Close, whatever is running."""
        if self._exchange is None:
            self._transport.abort()
        else:
            self._reset()

    # --- reading ---

    def _parse(self, data: bytes) -> None:
        """Read as many requests as there are, one at a time."""
        self._is_parsing = True
        try:
            data = self._read_request(data)
            while data and self._exchange is None and not self._is_clogged and not self._transport.is_closing():
                data = self._read_request(data)
        except BadRequestError as error:
            self._refuse(error)
        except FramingError as error:
            self._refuse(BadRequestError(400, f"malformed request body: {error}"))
        else:
            if data:
                self._buffer = data
        finally:
            self._is_parsing = False

    def _go_on(self) -> None:
        """Turn to what the client sent meanwhile."""
        if self._is_lingering or self._transport.is_closing():
            return
        if self._buffer and not self._is_clogged:
            self._parse(b"")
        if not self._is_reading and len(self._buffer) <= _MAX_PIPELINED_BYTES:
            self._is_reading = True
            self._transport.resume_reading()
        if self._server.is_closed:
            self.drain()

    def _read_request(self, data: bytes) -> bytes:
        """Read a head, a body or a part of one; return what lies behind a whole request."""
        scanned = 0
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
            scanned, self._scanned = self._scanned, 0
        head = self._head
        if head is None:
            data, head = self._read_head(data, scanned)
            if head is None:
                return b""
        # The usual case: a sized body that is all here.
        size = self._size
        if size is not None and not self._body and len(data) >= size:
            self._head = None
            self._hand_over(head, data[:size] if size else b"")
            return data[size:]
        return self._read_body(head, data)

    def _read_head(self, data: bytes, scanned: int) -> tuple[bytes, RequestHead | None]:
        recalled = self._heads.recall(data)
        if recalled is None:
            data, head = self._parse_head(data, scanned)
            if head is None:
                return b"", None
            size = head.content_length
        else:
            head, size, end = recalled
            data = data[end:]
            if size is None:
                size = head.content_length  # none was given: no body, or a chunked one
        self._head, self._size = head, size
        limits = self._server.limits
        if size is not None and size > limits.max_body_bytes:
            raise BadRequestError(413, f"the request's body is over {limits.max_body_bytes} bytes")
        if size is None or size > len(data):
            if self._server.check_early is not None:
                self._server.check_early(head)
            self._framing = ChunkedBody() if size is None else SizedBody(size)
        if head.expects_continue and not data and size != 0:
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return data, head

    def _parse_head(self, data: bytes, scanned: int) -> tuple[bytes, RequestHead | None]:
        if data[:2] == b"\r\n":
            data = _EMPTY_LINES.sub(b"", data, count=1)  # Empty lines before a request are allowed.
        limits = self._server.limits
        end = data.find(END_OF_HEAD, scanned, limits.max_head_bytes)
        if end < 0:
            if len(data) >= limits.max_head_bytes:
                raise BadRequestError(431, f"the request's head is over {limits.max_head_bytes} bytes")
            if _BARE_LF.search(data, scanned) or _BARE_CR.search(data, scanned):
                raise BadRequestError(400, "malformed request head: a bare CR or LF")
            if data:
                self.deadline = min(self.deadline, self._server.now() + limits.head_timeout_s)
            self._buffer = data
            self._scanned = max(0, len(data) - 3)
            return b"", None
        end += 4
        head = RequestHead(data[:end], self._server.goes_on)
        # Without a Content-Length the same bytes always mean the same; with one, the digits may change.
        self._heads.learn(data[:end], head)
        return data[end:], head

    def _read_body(self, head: RequestHead, data: bytes) -> bytes:
        if not data:
            self.deadline = self._server.now() + self._server.limits.body_timeout_s
            return b""
        pieces: list[bytes] = []
        end = self._framing.feed(data, pieces)
        if pieces:
            # One piece for a read, or a body in tiny chunks would cost many times its size.
            piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            self._body.append(piece)
            self._body_bytes += len(piece)
        # A chunk that is announced too large is refused before it comes.
        if self._body_bytes + self._framing.left > self._server.limits.max_body_bytes:
            raise BadRequestError(413, f"the request's body is over {self._server.limits.max_body_bytes} bytes")
        if end < 0:
            self.deadline = self._server.now() + self._server.limits.body_timeout_s
            return b""
        body, self._body, self._body_bytes = b"".join(self._body), [], 0
        self._head = None
        self._hand_over(head, body)
        return data[end:]

    def _hand_over(self, head: RequestHead, body: bytes) -> None:
        server = self._server
        self.deadline = server.now() + server.limits.request_timeout_s
        self._exchange = exchange = Exchange(self, head, body)
        server.handle(exchange)

    # --- ending ---

    def _hang_up(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_gone()
            if exchange.on_over is not None:
                exchange.on_over()

    def _close(self) -> None:
        """Close once everything is written; who does not read it is cut off at the deadline."""
        self._transport.close()
        self.deadline = self._server.now() + self._server.limits.keep_alive_timeout_s

    def _reset(self) -> None:
        """Close by a TCP reset: the client must not take what it has for whole."""
        with contextlib.suppress(OSError):  # The client may have reset it already.
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._transport.abort()

    def _refuse(self, refusal: BadRequestError) -> None:
        """Answer a request that cannot be served and close, leaving the client time to read why."""
        status, code = refusal.status, refusal.code
        if not code:
            code = CODES[status]
            self._server.refused(status)
        if self._server.on_refused is not None:
            peer = peer_address(self._transport.get_extra_info("peername"))
            self._server.on_refused(Refusal(peer, status, code, str(refusal)))
        fields = b"" if self._server.refusal_fields is None else self._server.refusal_fields(self._head)
        self._head, self._buffer, self._body = None, b"", []
        body = error_body(status, code, str(refusal))
        self.write(local_answer(status, body, refusal.headers, keep_alive=False, fields=fields))
        self._is_lingering = True
        self.deadline = self._server.now() + _LINGER_S
        if self._transport.can_write_eof():
            self._transport.write_eof()
