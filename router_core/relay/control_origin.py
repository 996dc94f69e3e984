"""The way to the control plane: an aiohttp application, reached in memory as if it were one more worker.

The relay reads the client's request as any other and gives it to aiohttp's request handler through a transport
facade; what the handler writes is relayed like a worker's answer. So one connection may ask for `/v1/models` and then
for a chat.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from router_core.relay.exchange import Exchange


class ControlOrigin:
    """Sends requests to an aiohttp server object (`web.AppRunner.server`)."""

    def __init__(self, make_handler: Callable[[], Any]) -> None:
        # Any: aiohttp's request handler is used by asyncio's Protocol methods alone.
        self._make_handler = make_handler

    def send(self, exchange: Exchange, *, fresh: bool = False) -> ControlSource:  # noqa: ARG002  # always fresh
        """Hand a request to a new handler."""
        source = ControlSource(exchange, self._make_handler())
        host = exchange.head.fields.get(b"host", b"")
        exchange.sent(source, is_reused=False)
        source.start(exchange.head.outgoing(host, len(exchange.body)) + exchange.body)
        return source


class ControlSource(asyncio.Transport):
    """The transport that aiohttp writes its answer to; for the exchange, the source of the answer."""

    def __init__(self, exchange: Exchange, handler: Any) -> None:
        super().__init__()
        self._exchange: Exchange | None = exchange
        self._handler = handler

    def start(self, request: bytes) -> None:
        """Give the handler its one request."""
        self._handler.connection_made(self)
        self._handler.data_received(request)

    def _end(self) -> None:
        self._exchange = None
        handler, self._handler = self._handler, None
        if handler is not None:
            # Not now: this may be inside the handler's own write.
            asyncio.get_running_loop().call_soon(handler.connection_lost, None)

    # --- Source ---

    def abort(self) -> None:
        """The client is gone: the handler's task is cancelled."""
        self._end()

    def release(self, *, reusable: bool) -> None:
        """The answer is whole."""
        del reusable
        self._end()

    def pause_reading(self) -> None:
        """Hold the handler back; before it wrote anything there is nothing to hold."""
        if self._handler is not None:
            self._handler.pause_writing()

    def resume_reading(self) -> None:
        """Let the handler go on."""
        if self._handler is not None:
            self._handler.resume_writing()

    # --- asyncio.Transport, as far as aiohttp uses it ---

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Take a piece of the answer."""
        if self._exchange is not None and data:
            self._exchange.feed(bytes(data))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        """Take pieces of the answer."""
        self.write(b"".join(list_of_data))

    def is_closing(self) -> bool:
        """Whether nobody listens any more."""
        return self._exchange is None

    def close(self) -> None:
        """The handler closed: an answer without a length ends here."""
        exchange = self._exchange
        if exchange is not None:
            exchange.source_closed("")

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Nothing is known of the client here."""
        del name
        return default
