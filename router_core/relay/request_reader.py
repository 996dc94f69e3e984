"""A client's bytes become requests: a head, checked against the limits, and the body it announces."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

from router_core.relay.framing import ChunkedBody, SizedBody
from router_core.relay.head_fields import BARE_LINE_END, END_OF_HEAD
from router_core.relay.head_memory import HeadMemory
from router_core.relay.request_head import BadRequestError, RequestHead

if TYPE_CHECKING:
    from router_core.relay.server import RelayServer

NEVER = float("inf")
_EMPTY_LINES = re.compile(rb"(?:\r\n){1,64}")  # more of them are no slip


def buffers_full() -> BadRequestError:
    """Return the refusal of a body for which there is no memory while others are held."""
    message = "the router holds as many bytes of requests' bodies as it may; try again later"
    return BadRequestError(503, message, code="buffers_full", headers=[("Retry-After", "1")])


class RequestReader(ABC):
    """The half of a client's connection that reads. What becomes of a request is for the other half, `Downstream`.

    Attributes:
        deadline: When the server's sweep shall call `expire`, in loop time.
        write: Sends bytes to the client.
    """

    __slots__ = (
        "_server",
        "_buffer",
        "_scanned",
        "_head",
        "_heads",
        "_size",
        "_framing",
        "_body",
        "_body_bytes",
        "deadline",
        "write",
    )

    def __init__(self, server: RelayServer) -> None:
        self._server = server
        self._buffer = b""
        self._scanned = 0  # so much of the buffer is known to hold no whole head
        self._head: RequestHead | None = None  # of the request whose body is being read
        self._heads: HeadMemory[RequestHead] = HeadMemory()
        self._size: int | None = None  # of that body, None when it is chunked
        self._framing: SizedBody | ChunkedBody
        self._body: list[bytes] = []
        self._body_bytes = 0  # of a body that came in more than one read, until its request is over
        self.deadline = NEVER
        self.write: Callable[[bytes], None]

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
            if BARE_LINE_END.search(data, scanned):
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
            self._hold(len(piece))
        # A chunk that is announced too large is refused before it comes.
        if self._body_bytes + self._framing.left > self._server.limits.max_body_bytes:
            raise BadRequestError(413, f"the request's body is over {self._server.limits.max_body_bytes} bytes")
        if end < 0:
            self.deadline = self._server.now() + self._server.limits.body_timeout_s
            return b""
        body, self._body = b"".join(self._body), []  # it counts as held until the request is over
        self._head = None
        self._hand_over(head, body)
        return data[end:]

    def _hold(self, count: int) -> None:
        self._body_bytes += count
        server = self._server
        server.buffered_bytes += count
        limit = server.limits.max_buffered_bytes
        if limit is not None and server.buffered_bytes > limit:
            server.make_room(self, limit)

    def _let_go_of_body(self) -> None:
        self._server.buffered_bytes -= self._body_bytes
        self._body_bytes = 0

    @property
    def unfinished_bytes(self) -> int:
        """Bytes held of a body that is still coming."""
        return 0 if self._head is None else self._body_bytes

    @abstractmethod
    def give_up_body(self) -> None:
        """The body that is coming takes memory that others need: refuse it."""

    @abstractmethod
    def _hand_over(self, head: RequestHead, body: bytes) -> None:
        """A request is whole."""
