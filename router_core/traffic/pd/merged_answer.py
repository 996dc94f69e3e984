"""An answer that is changed on its way: decode's, with what only the prefill leg knows."""

from __future__ import annotations

from collections.abc import Callable

from router_core.relay.call import Pieces
from router_core.relay.exchange import Exchange
from router_core.relay.parties import Ending
from router_core.relay.request_head import RequestHead
from router_core.relay.side_call import SideCall
from router_core.traffic.pd.protocol import Merge

_MAX_HELD_BYTES = 1_048_576
_END_OF_EVENT = b"\n\n"


class MergedAnswer:
    """Takes decode's answer and the prefill leg's, and gives the client's exchange one.

    Errors of decode's, and what cannot be read, go on as they are.
    """

    def __init__(
        self,
        merge: Merge,
        exchange: Exchange,
        *,
        on_end: Callable[[SideCall, Ending], None],
        on_orphaned: Callable[[], None],
    ) -> None:
        """Make ready.

        Args:
            merge: How.
            exchange: The client's.
            on_end: Told if decode's answer breaks off, and of any end once it is detached.
            on_orphaned: Told when a detached answer goes on.
        """
        self._merge = merge
        self._exchange = exchange
        self._on_end = on_end
        self._on_orphaned = on_orphaned
        self._is_detached = False
        self._is_over = False
        self._call: SideCall
        self._prefill: bytes | None = None
        self._held = b""
        self._has_head = False
        self._is_whole = False

    def call(self, head: RequestHead, body: bytes | Pieces, *, max_bytes: int) -> SideCall:
        """Return the decode leg, to be sent."""
        on_data = self._take if self._merge.is_stream else None
        self._call = SideCall(head, body, max_bytes=max_bytes, on_end=self._ended, on_data=on_data)
        return self._call

    def end(self) -> None:
        """Give the exchange nothing more: it may be on its way elsewhere."""
        self._is_over = True

    def detach(self) -> None:
        """The client is gone: read on and throw away."""
        self._is_detached = True
        self._call.resume()

    def prefilled(self, answer: bytes) -> None:
        """The prefill leg's answer is there."""
        if self._prefill is None and not self._is_detached:
            self._prefill = answer
            if self._merge.is_stream:
                if self._held:
                    self._call.resume()
                    self._take(self._call, b"")
                if self._is_whole:
                    self._end_stream()
            elif self._is_whole:
                self._send_whole()

    # --- events ---

    def _take(self, call: SideCall, data: bytes) -> None:
        if self._is_detached:
            self._on_orphaned()
            return
        held = self._held = self._held + data
        if call.status is not None and call.status >= 400:
            self._held = b""
            self._write(held)
            return
        if self._prefill is None:
            if len(held) > _MAX_HELD_BYTES:
                call.pause()
            return
        end = held.rfind(_END_OF_EVENT)
        if end < 0:
            return
        end += len(_END_OF_EVENT)
        self._held = held[end:]
        try:
            events = self._merge.events(self._prefill, held[:end])
        except ValueError:
            events = held[:end]
        self._write(events)

    def _write(self, data: bytes) -> None:
        if self._is_over:
            return
        answer = self._call.answer
        chunk = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
        if not self._has_head and answer is not None:
            self._has_head = True
            chunk = answer.outgoing(b"Transfer-Encoding: chunked\r\n") + chunk
        self._exchange.feed(chunk)

    def _end_stream(self) -> None:
        rest, self._held = self._held, b""
        if rest or not self._has_head:
            self._write(rest)
        if not self._is_over:
            self._exchange.feed(b"0\r\n\r\n")

    # --- the end ---

    def _ended(self, call: SideCall, ending: Ending) -> None:
        if ending is not Ending.COMPLETE or self._is_detached:
            self._on_end(call, ending)
            return
        self._is_whole = True
        is_error = call.status is not None and call.status >= 400
        if self._merge.is_stream:
            if is_error or self._prefill is not None:
                self._end_stream()
        elif is_error or self._prefill is not None:
            self._send_whole()

    def _send_whole(self) -> None:
        call, content = self._call, self._call.content
        answer = call.answer
        if answer is None:
            return
        if self._prefill is not None and answer.status < 400:
            try:
                content = self._merge.whole(self._prefill, content)
            except ValueError:
                content = call.content
        self._exchange.feed(answer.outgoing(b"Content-Length: %d\r\n" % len(content)) + content)
