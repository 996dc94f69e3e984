"""Requests to workers that are not simply a client's: the router's own, and a client's that outlive it.

A `SideCall` has its answer read here: collected within a limit, or handed on piece by piece, without framing. A
`PassedCall` gives the worker's bytes to a client's exchange as they come, yet stays in the hands of whoever sent it:
when the client goes it is let go of, not cut.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from router_core.relay.answer_heads import MAX_ANSWER_HEAD_BYTES, body_framing, read_heads
from router_core.relay.call import Call, Pieces
from router_core.relay.exchange import Exchange
from router_core.relay.framing import Framing, FramingError, UntilCloseBody
from router_core.relay.head import END_OF_HEAD, AnswerHead, BadAnswerError, RequestHead
from router_core.relay.parties import Ending, Source


class Origin(Protocol):
    """A worker's address."""

    def send(self, exchange: Call, *, fresh: bool = False) -> Source:
        """Send a request, on a new connection if `fresh`."""


class _SentCall:
    """What both have in common: one sending, and a second one if a kept connection turns out to be dead."""

    __slots__ = ("head", "body", "_is_paused", "_is_reused", "_origin", "_source")
    request_fields = b""

    def __init__(self, head: RequestHead, body: bytes | Pieces) -> None:
        self.head = head
        self.body = body
        self._origin: Origin | None = None
        self._source: Source | None = None
        self._is_reused = False
        self._is_paused = False

    def begin(self, origin: Origin) -> None:
        """Send it."""
        self._origin = origin
        source = origin.send(self)  # type: ignore[arg-type]  # a subclass has the other half of a Call
        if self._source is None:
            self._source = source

    def sent(self, source: Source, *, is_reused: bool) -> None:
        """See `Call`."""
        self._source = source
        self._is_reused = is_reused
        if self._is_paused:
            source.pause_reading()

    def abort(self) -> None:
        """Give up at once: the worker sees its connection go, nobody hears anything more of the call."""
        self._origin = None
        source, self._source = self._source, None
        if source is not None:
            source.abort()

    def pause(self) -> None:
        """Hold the answer back."""
        self._is_paused = True
        if self._source is not None:
            self._source.pause_reading()

    def resume(self) -> None:
        """Let it go on."""
        self._is_paused = False
        if self._source is not None:
            self._source.resume_reading()

    def release(self, *, reusable: bool) -> None:
        """The answer is whole."""
        self._origin = None
        source, self._source = self._source, None
        if source is not None:
            source.release(reusable=reusable)

    def _sent_again(self) -> bool:
        """Send once more, on a new connection, what a dead one took; False if there is no reason to."""
        if not self._is_reused or self._origin is None:
            return False
        self._is_reused = False
        self._source = None
        source = self._origin.send(self, fresh=True)  # type: ignore[arg-type]  # as in `begin`
        if self._source is None:
            self._source = source
        return True


class SideCall(_SentCall):
    """A request whose answer is read here.

    Attributes:
        answer: The answer's head, None before it is there.
        error: What went wrong, for the log.
        is_whole: Whether the answer has come to its end.
    """

    __slots__ = (
        "answer",
        "error",
        "is_whole",
        "_framing",
        "_max_bytes",
        "_on_data",
        "_on_end",
        "_pieces",
        "_received",
        "_size",
    )

    def __init__(
        self,
        head: RequestHead,
        body: bytes | Pieces,
        *,
        max_bytes: int,
        on_end: Callable[[SideCall, Ending], None],
        on_data: Callable[[SideCall, bytes], None] | None = None,
    ) -> None:
        """Make ready.

        Args:
            head: What to send.
            body: What to send.
            max_bytes: The largest answer that is collected; a larger one counts as broken.
            on_end: Told once, unless the call is aborted.
            on_data: Takes the answer's body as it comes; nothing is collected then.
        """
        super().__init__(head, body)
        self.answer: AnswerHead | None = None
        self.error = ""
        self.is_whole = False
        self._framing: Framing | None = None
        self._max_bytes = max_bytes
        self._on_end: Callable[[SideCall, Ending], None] | None = on_end
        self._on_data = on_data
        self._pieces: list[bytes] = []
        self._size = 0
        self._received = b""

    @property
    def status(self) -> int | None:
        """The HTTP status, None before there is one."""
        return None if self.answer is None else self.answer.status

    @property
    def content(self) -> bytes:
        """The body collected so far."""
        if len(self._pieces) > 1:
            self._pieces = [b"".join(self._pieces)]
        return self._pieces[0] if self._pieces else b""

    def abort(self) -> None:
        """See `_SentCall`."""
        self._on_end = None
        super().abort()

    # --- Call ---

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the answer."""
        self._is_reused = False
        if self._framing is None:
            rest = self._feed_head(data)
            if rest is None:
                return
            data = rest
        framing = self._framing
        if framing is None:
            return
        sink: list[bytes] = []
        try:
            end = framing.feed(data, sink)
        except FramingError as error:
            self._fail(Ending.BAD_ANSWER, f"the worker's answer is broken: {error}")
            return
        for piece in sink:
            self._take(piece)
        if end >= 0 and self._on_end is not None:
            self._complete(reusable=end == len(data))

    def source_closed(self, error: str) -> None:
        """The connection is gone."""
        if not error and isinstance(self._framing, UntilCloseBody):
            self._complete(reusable=False)
        elif not self._sent_again():
            detail = error or "closed by the worker"
            self._fail(Ending.CONNECTION_LOST, f"the worker's connection was lost before its answer ended: {detail}")

    def connect_failed(self, error: str) -> None:
        """No connection could be made."""
        self._fail(Ending.CONNECT_FAILED, error)

    # --- inside ---

    def _feed_head(self, data: bytes) -> bytes | None:
        try:
            heads = read_heads(self._received + data)
        except BadAnswerError as error:
            self._fail(Ending.BAD_ANSWER, str(error))
            return None
        answer = heads.final
        if answer is None:
            self._received = heads.rest
            return None
        self._received = b""
        self.answer = answer
        self._framing = body_framing(answer, answer.content_length, is_head=False)
        return heads.rest

    def _take(self, piece: bytes) -> None:
        if self._on_end is None or not piece:
            return
        if self._on_data is not None:
            self._on_data(self, piece)
            return
        self._size += len(piece)
        if self._size > self._max_bytes:
            self._pieces = []
            self._fail(Ending.BAD_ANSWER, f"the worker's answer is over {self._max_bytes} bytes")
        else:
            self._pieces.append(piece)

    def _complete(self, *, reusable: bool) -> None:
        answer = self.answer
        self.is_whole = True
        super().release(reusable=reusable and answer is not None and answer.keep_alive)
        self._tell(Ending.COMPLETE)

    def _fail(self, ending: Ending, error: str) -> None:
        self.error = error
        super().abort()
        self._tell(ending)

    def _tell(self, ending: Ending) -> None:
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(self, ending)


class PassedCall(_SentCall):
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
        """See `_SentCall`."""
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

    def connect_failed(self, error: str) -> None:
        """No connection could be made."""
        self._on_loss(Ending.CONNECT_FAILED, error)

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
