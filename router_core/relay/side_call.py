"""A request whose answer is read here: collected within a limit, or handed on piece by piece, without framing."""

from __future__ import annotations

from collections.abc import Callable

from router_core.relay.answer_heads import AnswerHead, BadAnswerError, body_framing, read_heads
from router_core.relay.call import Pieces
from router_core.relay.framing import Framing, FramingError, UntilCloseBody
from router_core.relay.parties import Ending
from router_core.relay.request_head import RequestHead
from router_core.relay.sent_call import SentCall


class SideCall(SentCall):
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
        "_interims",
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
        self._interims = 0
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
        """See `SentCall`."""
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

    def connect_failed(self, error: str, ending: Ending = Ending.CONNECT_FAILED) -> None:
        """No connection could be made."""
        self._fail(self._unconnected(ending), error)

    # --- inside ---

    def _feed_head(self, data: bytes) -> bytes | None:
        try:
            heads = read_heads(self._received + data, self._interims)
        except BadAnswerError as error:
            self._fail(Ending.BAD_ANSWER, str(error))
            return None
        answer = heads.final
        self._interims += len(heads.interim)
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
