"""What a connection to a worker needs of whoever sends a request over it: a client's exchange, or a call of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from router_core.relay.parties import Ending

if TYPE_CHECKING:
    from router_core.relay.parties import Source
    from router_core.relay.request_head import RequestHead

Pieces = tuple[bytes | memoryview, ...]
"""A body in parts that are written one after the other, never joined when they are large."""


class Call(Protocol):
    """A request on its way to a worker, and who takes the answer."""

    @property
    def head(self) -> RequestHead:
        """The head to send."""

    @property
    def request_fields(self) -> bytes:
        """Whole header lines to send beside those of `head`."""

    @property
    def body(self) -> bytes | Pieces:
        """The body to send."""

    def sent(self, source: Source, *, is_reused: bool) -> None:
        """The request was written to `source`; a reused connection may turn out to be dead."""

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the answer."""

    def source_closed(self, error: str) -> None:
        """The connection is gone; `error` is empty when it was closed in good order."""

    def connect_failed(self, error: str, ending: Ending = Ending.CONNECT_FAILED) -> None:
        """No connection could be made; `ending` tells whether for want of something of the router's own."""
