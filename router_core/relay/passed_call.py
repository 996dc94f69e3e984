"""A request whose answer goes to a client's exchange, yet stays in the hands of whoever sent it.

When the client goes it is let go of, not cut.
"""

from __future__ import annotations

from collections.abc import Callable

from router_core.relay.answer_heads import MAX_ANSWER_HEAD_BYTES
from router_core.relay.call import Pieces
from router_core.relay.exchange import Exchange
from router_core.relay.head_fields import END_OF_HEAD
from router_core.relay.parties import Ending
from router_core.relay.request_head import RequestHead
from router_core.relay.sent_call import SentCall


class PassedCall(SentCall):
    """A request whose answer goes to a client's exchange as it comes.

    A head that says 200 is held until the first byte of its body: up to then something else may be answered.

    Attributes:
        feed: Who takes the worker's bytes just now.
    """

    __slots__ = ("feed", "_exchange", "_has_begun", "_is_held", "_on_loss", "_on_orphaned", "_received")

    def __init__(
        self,
        head: RequestHead,
        body: bytes | Pieces,
        exchange: Exchange,
        *,
        on_loss: Callable[[Ending, str], None],
        on_orphaned: Callable[[], None],
    ) -> None:
        """Make ready.

        Args:
            head: What to send.
            body: What to send.
            exchange: Who gets the answer.
            on_loss: Told when there is no answer, and of any end once the call is detached.
            on_orphaned: Told when a detached call's answer begins.
        """
        super().__init__(head, body)
        self.feed: Callable[[bytes], None] = self._hold
        self._has_begun = False  # known of a detached call alone
        self._is_held = True
        self._exchange: Exchange | None = exchange
        self._on_loss = on_loss
        self._on_orphaned = on_orphaned
        self._received = b""

    def abort(self) -> None:
        """See `SentCall`."""
        self._exchange = None
        self.feed = _ignore
        super().abort()

    def detach(self) -> None:
        """The client is gone: read on and throw away, until it is over or aborted."""
        if self._exchange is not None:
            if not self._is_held:
                self._received = END_OF_HEAD
            self._exchange = None
            self.feed = self._discard
            self.resume()

    # --- Call ---

    def source_closed(self, error: str) -> None:
        """The connection is gone."""
        if self._sent_again():
            return
        exchange = self._exchange
        if exchange is not None and self._is_held and END_OF_HEAD in self._received and not error:
            self._pass_on(exchange)  # a head without a body
        if exchange is not None and not self._is_held:
            exchange.source_closed(error)
            return
        detail = error or "closed by the worker"
        self._on_loss(Ending.CONNECTION_LOST, f"the worker's connection was lost before it answered: {detail}")

    def connect_failed(self, error: str, ending: Ending = Ending.CONNECT_FAILED) -> None:
        """No connection could be made."""
        self._on_loss(self._unconnected(ending), error)

    # --- inside ---

    def _hold(self, data: bytes) -> None:
        self._is_reused = False
        data = self._received = self._received + data
        exchange = self._exchange
        if exchange is None:
            return
        end = data.find(END_OF_HEAD, 0, MAX_ANSWER_HEAD_BYTES)
        if end < 0 and len(data) < MAX_ANSWER_HEAD_BYTES:
            return
        is_success = data[9:12] == b"200"
        is_bodiless = b"\r\ncontent-length: 0\r\n" in data[: end + 2].lower()
        if not is_success or is_bodiless or end < 0 or len(data) > end + len(END_OF_HEAD):
            self._pass_on(exchange)

    def _pass_on(self, exchange: Exchange) -> None:
        self._is_held = False
        self.feed = exchange.feed
        received, self._received = self._received, b""
        exchange.feed(received)

    def _discard(self, data: bytes) -> None:
        self._is_reused = False
        if self._has_begun:
            return
        self._received = (self._received + data)[-MAX_ANSWER_HEAD_BYTES:]
        end = self._received.find(END_OF_HEAD)
        if end >= 0 and len(self._received) > end + len(END_OF_HEAD):
            self._has_begun = True
            self._received = b""
            self._on_orphaned()


def _ignore(data: bytes) -> None:
    """Take no notice."""
