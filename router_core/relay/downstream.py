"""A client's connection: reads requests one after another, hands each over whole, writes the answers in order."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import TYPE_CHECKING

from router_core.relay.exchange import SHUTTING_DOWN, Exchange
from router_core.relay.framing import FramingError
from router_core.relay.local_answer import error_body, local_answer, with_error_code
from router_core.relay.peer_address import peer_address
from router_core.relay.refusal import CODES, Refusal
from router_core.relay.request_head import BadRequestError, RequestHead
from router_core.relay.request_reader import NEVER, RequestReader, buffers_full
from router_core.relay.unread import Unread

if TYPE_CHECKING:
    from router_core.relay.server import RelayServer

_LINGER_S = 2.0
_MAX_PIPELINED_BYTES = 262_144
_REQUESTS_A_TURN = 32  # that may be answered at once before other clients have their turn
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Downstream(RequestReader, asyncio.Protocol):
    """One client's connection.

    It is in one of four states: reading a head (`_exchange`, `_head` are None), reading a body (`_head` is set),
    waiting for an answer (`_exchange` is set), or lingering after a refusal until the client has read it.
    """

    __slots__ = ("_transport", "_exchange", "_is_clogged", "_is_lingering", "_is_reading", "_is_parsing", "_unread")

    def __init__(self, server: RelayServer) -> None:
        super().__init__(server)
        self._transport: asyncio.Transport
        self._exchange: Exchange | None = None
        self._is_clogged = False  # the client reads too slowly, or has had its turn
        self._is_lingering = False
        self._is_reading = True
        self._is_parsing = False
        self._unread: Unread | None = None  # since the first look at a client that reads too slowly

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport and wait for a head."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports are not asyncio's classes
        self.write = self._transport.write
        self._server.connections.add(self)
        self.deadline = self._server.now() + self._server.limits.head_timeout_s
        over = len(self._server.connections) - self._server.limits.max_connections
        if self._server.is_closed or over > self._server.limits.max_turned_away:
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
        self._unread = None
        if self._exchange is not None:
            self._exchange.resume()
        else:
            self._go_on()

    # --- for the exchange ---

    @property
    def may_stay_open(self) -> bool:
        """Whether the connection may live on after the answer."""
        return not self._server.is_draining

    @property
    def error_code_header(self) -> str | None:
        """The header that tells the code of an error of the router's own; None for none."""
        return self._server.error_code_header

    def answered(self, *, keep_alive: bool) -> None:
        """The answer is written; go on with the next request or close."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None and exchange.on_over is not None:
            exchange.on_over()
        if self._body_bytes:
            self._let_go_of_body()
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
        self._let_go_of_body()
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
        """Called now and then: a worker may be silent for too long, or a client take nothing for too long."""
        exchange = self._exchange
        if exchange is None:
            return
        if self._is_clogged and self._is_stalled(now):
            server = self._server
            server.client_stalls += 1
            exchange.code = "client_stalled"
            self._hang_up(f"the client took nothing for {server.limits.client_stall_timeout_s:g} s")
            self._reset()
        else:
            exchange.look(now)

    def expire(self) -> None:
        """The deadline has passed."""
        self.deadline = NEVER
        exchange = self._exchange
        if exchange is not None:
            exchange.expire()
            if self._exchange is exchange:
                self._transport.abort()  # Nobody answered in its stead.
        elif self._is_lingering:
            self._transport.abort()
        elif self._is_clogged or self._transport.is_closing():
            self._wait_for_reader()
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

    def _is_stalled(self, now: float) -> bool:
        if self._unread is None:
            self._unread = Unread(self._transport, now)
        return self._unread.still_s(now) >= self._server.limits.client_stall_timeout_s

    def _wait_for_reader(self) -> None:
        """The answer is complete, but not all of it has left: wait on if the client has read of it meanwhile."""
        server = self._server
        now, patience_s = server.now(), server.limits.keep_alive_timeout_s
        if self._unread is None:
            self._unread = Unread(self._transport, now)
        if self._unread.still_s(now) >= patience_s:
            self._transport.abort()
        else:
            self.deadline = now + patience_s

    def give_up_body(self) -> None:
        """The body that is coming takes memory that others need: refuse it."""
        self._refuse(buffers_full())

    # --- reading ---

    def _parse(self, data: bytes) -> None:
        """Read as many requests as there are, one at a time."""
        self._is_parsing = True
        try:
            data = self._read_request(data)
            if data:
                data = self._read_pipelined(data)
        except BadRequestError as error:
            self._refuse(error)
        except FramingError as error:
            self._refuse(BadRequestError(400, f"malformed request body: {error}"))
        else:
            if data:
                self._buffer = data
        finally:
            self._is_parsing = False

    def _read_pipelined(self, data: bytes) -> bytes:
        """Read on as long as answers come at once, but not so long that all other clients wait for this one."""
        for _ in range(_REQUESTS_A_TURN):
            if not data or self._exchange is not None or self._is_clogged or self._transport.is_closing():
                return data
            data = self._read_request(data)
        if data and self._exchange is None and not self._is_clogged:
            self._is_clogged = True
            self._server.call_soon(self.resume_writing)
        return data

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

    def _hand_over(self, head: RequestHead, body: bytes) -> None:
        server = self._server
        self.deadline = server.now() + server.limits.request_timeout_s
        self._exchange = exchange = Exchange(self, head, body)
        server.handle(exchange)

    # --- ending ---

    def _hang_up(self, why: str = "the client closed its connection") -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_gone(why)
            if exchange.on_over is not None:
                exchange.on_over()
        self._let_go_of_body()

    def _close(self) -> None:
        """Close once everything is written; who reads none of it is cut off in time."""
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
        self._let_go_of_body()
        body = error_body(status, code, str(refusal))
        headers = with_error_code(refusal.headers, self.error_code_header, code)
        self.write(local_answer(status, body, headers, keep_alive=False, fields=fields))
        self._is_lingering = True
        self.deadline = self._server.now() + _LINGER_S
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()  # TLS has no half of a close; what the client still sends is taken and dropped
