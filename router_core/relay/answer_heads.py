"""The heads at the beginning of a worker's answer, interim ones and the one that counts, and the body it announces.

What leaves is built anew from the end-to-end headers, as a request's head is.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import httptools

from router_core.relay.framing import ChunkedBody, Framing, SizedBody, UntilCloseBody
from router_core.relay.head_fields import END_OF_HEAD, REASONS, name_of, nominated

MAX_ANSWER_HEAD_BYTES = 65536
MAX_INTERIM_ANSWERS = 100
_BEGINNING = b"HTTP/"
_SWITCHING_PROTOCOLS = 101
_BODILESS = frozenset({204, 304})
# Fields that speak of one connection or of framing; we set our own.
_ANSWER_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"content-length",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-connection",
        b"te",
        b"transfer-encoding",
        b"upgrade",
    }
)
# Fields that a router adds to an answer; the router nearest to the client has the last word.
_MARKS = frozenset({b"x-request-id", b"x-router-worker", b"x-router-policy", b"x-router-reason"})
_CORS = b"access-control-"


class BadAnswerError(Exception):
    """A worker's answer that cannot be relayed."""


class AnswerHead:
    """A worker's answer head. It serves all answers of a worker whose heads differ in their length alone.

    Attributes:
        status: The HTTP status.
        content_length: Of the answer it was parsed from; None when it is not given.
        is_chunked: Whether the body is in chunked coding.
        keep_alive: Whether the worker keeps its connection after this answer.
        is_marked: Whether the worker has set a field that the router may set itself.
    """

    __slots__ = (
        "status",
        "content_length",
        "is_chunked",
        "is_marked",
        "keep_alive",
        "_reason",
        "_headers",
        "_forwarded",
    )

    def __init__(self, data: bytes) -> None:
        """Parse a whole head, its empty line included.

        Raises:
            BadAnswerError: If it is malformed or ambiguous.
        """
        self._reason = b""
        self._headers: list[tuple[bytes, bytes]] = []
        parser = httptools.HttpResponseParser(self)
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError as error:
            raise BadAnswerError(f"malformed answer head: {error}") from None
        self.status: int = parser.get_status_code()
        if self.status < 100:
            raise BadAnswerError("malformed answer head: no status")
        self.keep_alive = parser.get_http_version() == "1.1"
        self.content_length: int | None = None
        self.is_chunked = False
        self.is_marked = False
        named: frozenset[bytes] = frozenset()
        forwarded = []
        for name, value in self._headers:
            lower = name.lower()
            if lower.startswith(_CORS):
                continue  # which pages may read an answer is the router's to say
            if lower not in _ANSWER_HOP_BY_HOP:
                forwarded.append(b"%b: %b\r\n" % (name, value))
                self.is_marked = self.is_marked or lower in _MARKS
            elif lower == b"content-length":
                self.content_length = int(value)
            elif lower == b"transfer-encoding":
                if self.is_chunked or value.lower() != b"chunked":
                    raise BadAnswerError("the answer's transfer coding is not chunked")
                self.is_chunked = True
            elif lower == b"connection":
                options = value.lower()
                if b"close" in options:
                    self.keep_alive = False
                elif b"keep-alive" in options:
                    self.keep_alive = True
                named |= nominated(value)
        if named:
            forwarded = [
                b"%b: %b\r\n" % (n, v)
                for n, v in self._headers
                if n.lower() not in _ANSWER_HOP_BY_HOP | named and not n.lower().startswith(_CORS)
            ]
        self._forwarded = b"".join(forwarded)

    @property
    def is_event_stream(self) -> bool:
        """Whether the body is server-sent events, readable as they are; looked up anew each time."""
        fields = {name.lower(): value.lower() for name, value in self._headers}
        is_plain = fields.get(b"content-encoding", b"identity") == b"identity"
        return is_plain and fields.get(b"content-type", b"").startswith(b"text/event-stream")

    @property
    def retry_after(self) -> bytes | None:
        """The `Retry-After` header, or None; looked up anew each time."""
        return next((value for name, value in self._headers if name.lower() == b"retry-after"), None)

    def on_status(self, reason: bytes) -> None:
        """Take the reason phrase (called by the parser)."""
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header (called by the parser)."""
        self._headers.append((name, value))

    def without(self, fields: bytes) -> AnswerHead:
        """Return the same head without the fields that stand in `fields`, which are whole lines."""
        names = {name_of(line) for line in fields.splitlines()}
        other = copy.copy(self)
        lines = self._forwarded.splitlines(keepends=True)
        other._forwarded = b"".join(line for line in lines if name_of(line) not in names)
        return other

    def outgoing(self, framing: bytes) -> bytes:
        """Return the head to send to the client, `framing` being the header lines that we set."""
        reason = self._reason or REASONS.get(self.status, b"")
        return b"HTTP/1.1 %d %b\r\n%b%b\r\n" % (self.status, reason, self._forwarded, framing)


class AnswerHeads(NamedTuple):
    """What stood at the beginning.

    Attributes:
        interim: Heads of interim answers (1xx), in order.
        final: The head of the answer itself; None while it is not whole.
        wire: The final head's bytes.
        rest: What lies behind the last whole head.
    """

    interim: list[AnswerHead]
    final: AnswerHead | None
    wire: bytes
    rest: bytes


def read_heads(data: bytes, interims_before: int = 0) -> AnswerHeads:
    """Read as many heads as there are, up to the final one.

    Args:
        data: What came, from the beginning of a head.
        interims_before: How many interim answers were read before.

    Raises:
        BadAnswerError: If one is malformed, too long, or of an answer that cannot be relayed; if interim answers come
            without end.
    """
    interim: list[AnswerHead] = []
    while True:
        end = data.find(END_OF_HEAD, 0, MAX_ANSWER_HEAD_BYTES)
        if end < 0:
            if len(data) >= MAX_ANSWER_HEAD_BYTES:
                raise BadAnswerError(f"the worker's answer head is over {MAX_ANSWER_HEAD_BYTES} bytes")
            # Who speaks something else may greet and wait, and its head would never be whole.
            if not _BEGINNING.startswith(data.lstrip(b"\r\n")[: len(_BEGINNING)]):
                raise BadAnswerError("the worker's answer is no HTTP")
            return AnswerHeads(interim, None, b"", data)
        end += len(END_OF_HEAD)
        wire = data[:end]
        answer = AnswerHead(wire)
        if answer.status == _SWITCHING_PROTOCOLS:
            raise BadAnswerError("the worker switched protocols unasked")
        data = data[end:]
        if answer.status >= 200:
            return AnswerHeads(interim, answer, wire, data)
        interim.append(answer)
        if interims_before + len(interim) > MAX_INTERIM_ANSWERS:
            raise BadAnswerError(f"the worker sent more than {MAX_INTERIM_ANSWERS} interim answers")


def body_framing(answer: AnswerHead, size: int | None, *, is_head: bool) -> Framing:
    """Return where the body of an answer ends.

    Args:
        answer: Its head.
        size: Its Content-Length, which differs from `answer.content_length` when the head was recalled.
        is_head: Whether HEAD was asked: then no body follows, whatever the head says.
    """
    if is_head or answer.status in _BODILESS:
        return SizedBody(0)
    if answer.is_chunked:
        return ChunkedBody()
    return UntilCloseBody() if size is None else SizedBody(size)
