"""The way to the control plane: an aiohttp application, reached in memory as if it were one more worker.

The relay reads the client's request as any other and gives it to aiohttp's request handler through a transport
facade; what the handler writes is relayed like a worker's answer. So one connection may ask for `/v1/models` and then
for a chat.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from router_core.relay.answer_heads import AnswerHead
from router_core.relay.exchange import Exchange
from router_core.relay.head_memory import HeadMemory


class ControlOrigin:
    """Sends requests to an aiohttp server object (`web.AppRunner.server`)."""

    silence = None  # a handler may ask every worker

    def __init__(self, make_handler: Callable[[], Any]) -> None:
        # Any: aiohttp's request handler is used by asyncio's Protocol methods alone.
        self._make_handler = make_handler
        self.answer_heads: HeadMemory[AnswerHead] = HeadMemory()

    def send(self, exchange: Exchange, *, fresh: bool = False) -> ControlSource:  # noqa: ARG002  # always fresh
        """Hand a request to a new handler."""
        source = ControlSource(exchange, self._make_handler())
        host = exchange.head.fields.get(b"host", b"")
        exchange.sent(source, is_reused=False)
        source.start(exchange.head.unfiltered.outgoing(host, len(exchange.body)) + exchange.body)
        return source


class ControlSource:
    """One request's handler; for the exchange, the source of the answer."""

    def __init__(self, exchange: Exchange, handler: Any) -> None:
        self._exchange: Exchange | None = exchange
        self._handler = handler

    def start(self, request: bytes) -> None:
        """Give the handler its one request."""
        self._handler.connection_made(ControlTransport(self))
        self._handler.data_received(request)

    # --- Source ---

    def abort(self) -> None:
        """The client is gone: the handler hears that its connection is lost."""
        self._end()

    def release(self, *, reusable: bool) -> None:
        """The answer is whole."""
        del reusable
        self._end()

    def pause_reading(self) -> None:
        """Hold the handler back."""
        if self._handler is not None:
            self._handler.pause_writing()

    def resume_reading(self) -> None:
        """Let the handler go on."""
        if self._handler is not None:
            self._handler.resume_writing()

    # --- for the handler's transport ---

    @property
    def is_over(self) -> bool:
        """Whether nobody listens any more."""
        return self._exchange is None

    def take(self, data: bytes) -> None:
        """Take a piece of the answer."""
        if self._exchange is not None:
            self._exchange.feed(data)

    def close(self, error: str) -> None:
        """The handler closed: an answer without a length ends here, unless there was an error."""
        if self._exchange is not None:
            self._exchange.source_closed(error)

    def _end(self) -> None:
        self._exchange = None
        handler, self._handler = self._handler, None
        if handler is not None:
            # Not now: this may be inside the handler's own write.
            asyncio.get_running_loop().call_soon(handler.connection_lost, None)


class ControlTransport(asyncio.Transport):
    """What aiohttp writes its answer to: an asyncio transport as far as aiohttp uses it."""

    def __init__(self, source: ControlSource) -> None:
        super().__init__()
        self._source = source

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Take a piece of the answer."""
        if data:
            self._source.take(bytes(data))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        """Take pieces of the answer."""
        self.write(b"".join(list_of_data))

    def is_closing(self) -> bool:
        """Whether nobody listens any more."""
        return self._source.is_over

    def close(self) -> None:
        """End the answer."""
        self._source.close("")

    def abort(self) -> None:
        """Break the answer off."""
        self._source.close("aborted by the control plane")

    def pause_reading(self) -> None:
        """The whole request is here already: nothing more comes that could be held back."""

    def resume_reading(self) -> None:
        """See `pause_reading`."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Nothing is known of the client here."""
        del name
        return default
