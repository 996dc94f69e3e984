"""Which pages of other origins may use the router from a browser (CORS). None may, unless the config names them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from router_core.relay.exchange import Exchange
from router_core.relay.request_head import RequestHead

ANY = "*"
_ORIGIN, _METHOD, _HEADERS = b"origin", b"access-control-request-method", b"access-control-request-headers"
_METHODS = "GET, POST, PUT, PATCH, DELETE, OPTIONS"
_EXPOSED = (
    "x-request-id, x-router-worker, x-router-policy, x-router-reason, retry-after, location, "
    "x-smg-error-code, x-router-error-code"
)
_HEADER_NAMES = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z, \t-]{1,4096}")
_MAX_AGE_S = 600


class AllowedOrigins:
    """The origins whose pages may read answers.

    Args:
        origins: Such as `https://chat.example`; `*` allows all.
    """

    def __init__(self, origins: Iterable[str]) -> None:
        names = tuple(origins)
        self._any = ANY in names
        self._origins = frozenset(name.encode() for name in names)

    def fields_for(self, head: RequestHead | None) -> bytes:
        """Return the header lines that let a page read the answer to its request; empty if it may not.

        Args:
            head: The request's; None if it could not be read. Then it is not known which page asked, and only where
                all may, this one may, too.
        """
        if self._any and (head is None or _ORIGIN in head.fields):
            return b"Access-Control-Allow-Origin: *\r\n"
        origin = None if head is None else head.fields.get(_ORIGIN)
        if origin is None or origin not in self._origins:
            return b""
        return b"Access-Control-Allow-Origin: %b\r\nVary: Origin\r\n" % origin


class Cors:
    """Answers browsers that ask before they send, and marks answers that a page may read. Others pass untouched.

    Credentials of the browser's own (cookies) are never allowed: an API key is sent by the page itself.

    Args:
        origins: Those that are allowed.
        handle: Takes each request that is no question.
    """

    def __init__(self, origins: AllowedOrigins, handle: Callable[[Exchange], None]) -> None:
        self._origins = origins
        self._handle = handle

    def handle(self, exchange: Exchange) -> None:
        """Take one request."""
        lines, fields = self._origins.fields_for(exchange.head), exchange.head.fields
        if not lines:
            self._handle(exchange)
            return
        if exchange.head.method == b"OPTIONS" and _METHOD in fields:
            exchange.answer_fields += lines
            exchange.respond(200, b"", _terms(fields.get(_HEADERS, b"")))
            return
        exchange.answer_fields += b"%bAccess-Control-Expose-Headers: %b\r\n" % (lines, _EXPOSED.encode())
        self._handle(exchange)


def _terms(asked: bytes) -> list[tuple[str, str]]:
    terms = [("Access-Control-Allow-Methods", _METHODS), ("Access-Control-Max-Age", str(_MAX_AGE_S))]
    if _HEADER_NAMES.fullmatch(asked):
        terms.append(("Access-Control-Allow-Headers", asked.decode("ascii")))
    return terms
