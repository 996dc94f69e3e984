"""A request's head: what came in, checked, and what goes to a worker, rebuilt (RFC 9110 and 9112).

httptools (llhttp) parses the lines and refuses bare CR or LF, obsolete line folding, doubled lengths and
Transfer-Encoding beside Content-Length. What it lets through is checked here: Host, version, transfer codings. A head
that leaves is built anew from the end-to-end headers, so nothing hop-by-hop ever passes.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Mapping

import httptools

from router_core.relay.head_fields import BARE_LINE_END, name_of, nominated

MAX_HEADERS = 1000
"""Headers of one request; thousands of tiny ones would take far longer to read than to send."""

# Fields that speak of one connection or of framing; we set our own.
REQUEST_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"content-length",
        b"expect",
        b"host",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
# llhttp knows this method and reads no body after it; we serve no tunnels.
_CONNECT = b"CONNECT"
# Fields whose lines make one list; of other repeated fields the last counts.
_LISTS = frozenset({b"connection", b"transfer-encoding"})
_ABSOLUTE = re.compile(rb"(?i:https?)://[^/?#]+")
_LATER_VERSION = re.compile(rb"[^\r\n]* HTTP/(?:1\.[2-9]|[2-9]\.[0-9])\r\n")
_NO_CREDENTIALS: Mapping[bytes, None] = {b"authorization": None, b"x-api-key": None, b"api-key": None}
_METHODS_WITH_BODY = frozenset({b"POST", b"PUT", b"PATCH"})


class BadRequestError(Exception):
    """A request that is refused before anybody is asked.

    Attributes:
        status: The HTTP status to answer with.
        code: The word for it in the error body; empty takes the status's usual one.
        headers: Headers to answer with beside the usual ones.
    """

    def __init__(self, status: int, message: str, *, code: str = "", headers: Iterable[tuple[str, str]] = ()) -> None:
        self.status = status
        self.code = code
        self.headers = tuple(headers)
        super().__init__(status, message)

    def __str__(self) -> str:
        return str(self.args[1])


class RequestHead:
    """A client's request head. It serves all requests of a connection whose heads differ in their length alone.

    Attributes:
        method: As sent, such as `b"POST"`.
        target: Path and query, always in origin form.
        path: The target without its query.
        fields: Header values by lower-case name; of a repeated field the last one.
        content_length: Of the request it was parsed from; None when the body is chunked.
        is_chunked: Whether the body is in chunked coding.
        keep_alive: Whether the client wants its connection kept.
        expects_continue: Whether the client waits for `100 Continue` before it sends the body.
        is_http10: Whether the client speaks HTTP/1.0.
        note: What whoever decides found out of this head, for its next request; None at first.
    """

    __slots__ = (
        "note",
        "method",
        "target",
        "path",
        "fields",
        "content_length",
        "is_chunked",
        "keep_alive",
        "expects_continue",
        "is_http10",
        "_headers",
        "_forwarded",
        "_goes_on",
        "_anonymous",
    )

    def __init__(self, data: bytes, goes_on: Callable[[bytes], bool] | None = None) -> None:
        """Parse a whole head, its empty line included.

        Args:
            data: The head.
            goes_on: Tells which end-to-end headers workers get, by lower-case name; None lets all pass but cookies.

        Raises:
            BadRequestError: If it is malformed, ambiguous or asks for what we do not serve.
        """
        self.target = b""
        self.note: object = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._goes_on = goes_on
        self._anonymous: RequestHead | None = None
        if data.count(b"\r\n") > MAX_HEADERS + 2:
            raise BadRequestError(431, f"the request has more than {MAX_HEADERS} headers")
        if data[:1] in b"\r\n":
            raise BadRequestError(400, "malformed request head: a bare CR or LF")  # llhttp would skip it
        parser = httptools.HttpRequestParser(self)
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # An upgrade is ignored; what follows is this request's body.
        except httptools.HttpParserError as error:
            if _LATER_VERSION.match(data) and not BARE_LINE_END.search(data):
                raise BadRequestError(505, "only HTTP/1.1 and HTTP/1.0 are served here") from None
            raise BadRequestError(400, f"malformed request head: {error}") from None
        self.method: bytes = parser.get_method()
        end = data.find(b"\r\n")
        self._read_version(data[end - 8 : end])
        self._read_fields()
        self._read_target()

    def on_url(self, url: bytes) -> None:
        """Take the target (called by the parser)."""
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header (called by the parser)."""
        self._headers.append((name, value))

    def _read_version(self, version: bytes) -> None:
        if version == b"HTTP/1.1":
            self.is_http10 = False
        elif version == b"HTTP/1.0":
            self.is_http10 = True
        elif version.startswith(b"HTTP/") and version != b"HTTP/0.9":
            raise BadRequestError(505, "only HTTP/1.1 and HTTP/1.0 are served here")
        else:
            # llhttp takes RTSP, ICE and lines without a version, too.
            raise BadRequestError(400, "malformed request line: no HTTP version")

    def _read_fields(self) -> None:
        fields: dict[bytes, bytes] = {}
        forwarded = []
        goes_on = self._goes_on
        hosts = 0
        for name, value in self._headers:
            lower = name.lower()
            if lower == b"host":
                hosts += 1
            elif lower not in REQUEST_HOP_BY_HOP and (lower != b"cookie" if goes_on is None else goes_on(lower)):
                forwarded.append(b"%b: %b\r\n" % (name, value))
            if lower in fields and lower in _LISTS:
                value = fields[lower] + b"," + value
            fields[lower] = value
        if hosts != 1 and not (hosts == 0 and self.is_http10):
            raise BadRequestError(400, "the Host header must be there exactly once")
        self.fields = fields
        self.expects_continue = fields.get(b"expect", b"").lower() == b"100-continue" and not self.is_http10
        self.keep_alive = not self.is_http10
        if b"connection" in fields:
            self._read_connection(fields[b"connection"])
            named = nominated(fields[b"connection"])
            if named:
                forwarded = [line for line in forwarded if name_of(line) not in named]
        self._forwarded = b"".join(forwarded)
        coding = fields.get(b"transfer-encoding")
        self.is_chunked = coding is not None
        if coding is not None:
            if self.is_http10:
                raise BadRequestError(400, "Transfer-Encoding needs HTTP/1.1")
            if coding.lower() != b"chunked":
                raise BadRequestError(501, "the only transfer coding served is chunked")
            self.content_length = None
        else:
            # llhttp has checked that it is digits, and alone.
            self.content_length = int(fields.get(b"content-length", b"0"))

    def _read_connection(self, value: bytes) -> None:
        options = {option.strip() for option in value.lower().split(b",")}
        if b"close" in options:
            self.keep_alive = False
        elif self.is_http10:
            self.keep_alive = b"keep-alive" in options

    def _read_target(self) -> None:
        target = self.target
        if self.method == _CONNECT:
            raise BadRequestError(405, "tunnels are not served here: send the request itself")
        if not target.startswith(b"/") and (target != b"*" or self.method != b"OPTIONS"):
            absolute = _ABSOLUTE.match(target)
            if absolute is None:
                raise BadRequestError(400, "the request target must be a path")
            target = target[absolute.end() :]
            target = self.target = target if target.startswith(b"/") else b"/" + target
        query = target.find(b"?")
        self.path = target if query < 0 else target[:query]

    def changed(self, fields: Mapping[bytes, bytes | None]) -> RequestHead:
        """Return the same head with other values of some fields, by lower-case name; None leaves a field out."""
        other = copy.copy(self)
        other.note = other._anonymous = None
        kept = [line for line in self._forwarded.splitlines(keepends=True) if name_of(line) not in fields]
        added = [b"%b: %b\r\n" % (name, value) for name, value in fields.items() if value is not None]
        other._forwarded = b"".join(kept + added)
        other.fields = {name: value for name, value in {**self.fields, **fields}.items() if value is not None}
        return other

    def to(self, path: bytes) -> RequestHead:
        """Return the same head for another target."""
        other = copy.copy(self)
        other._anonymous = None
        other.target = other.path = path
        return other

    @property
    def anonymous(self) -> RequestHead:
        """The same head without the client's credentials, made once."""
        if self._anonymous is None:
            self._anonymous = self.changed(_NO_CREDENTIALS)
        return self._anonymous

    @property
    def unfiltered(self) -> RequestHead:
        """The same head with all end-to-end headers that the client sent, for those who are no workers."""
        if self._goes_on is None:
            return self
        other = copy.copy(self)
        left_out = REQUEST_HOP_BY_HOP | nominated(self.fields.get(b"connection", b""))
        other._forwarded = b"".join(
            [b"%b: %b\r\n" % (name, value) for name, value in self._headers if name.lower() not in left_out]
        )
        return other

    def sends(self, name: bytes) -> bool:
        """Tell whether a field of the client's, by its lower-case name, goes to workers."""
        return any(name_of(line) == name for line in self._forwarded.splitlines())

    def outgoing(self, host: bytes, size: int, fields: bytes = b"") -> bytes:
        """Return the head to send to a worker, for a body of `size` bytes; `fields` are further lines, whole ones."""
        length = b"Content-Length: %d\r\n" % size if size or self.method in _METHODS_WITH_BODY else b""
        return b"%b %b HTTP/1.1\r\nHost: %b\r\n%b%b%b\r\n" % (
            self.method,
            self.target,
            host,
            self._forwarded,
            fields,
            length,
        )
