"""A worker's answer that is kept from the client: read to its end, and remembered in case no better one comes."""

from __future__ import annotations

from router_core.relay.answer_heads import AnswerHead, body_framing
from router_core.relay.framing import FramingError, UntilCloseBody

_MAX_BYTES = 65536


class DeclinedAnswer:
    """An answer that was not wanted.

    Attributes:
        head: Its head.
        content: Its body, without framing; None while it is not whole, and when it is too large to be kept.
        is_over: Whether nothing more is to be read of it.
        keeps_connection: Whether the worker's connection can be used again.
    """

    __slots__ = ("head", "content", "is_over", "keeps_connection", "_framing", "_pieces", "_bytes", "_was_seen")

    def __init__(self, head: AnswerHead, size: int | None, *, is_head: bool) -> None:
        self.head = head
        self.content: bytes | None = None
        self.is_over = size is not None and size > _MAX_BYTES and not is_head
        self.keeps_connection = False
        self._framing = body_framing(head, size, is_head=is_head)
        self._pieces: list[bytes] = []
        self._bytes = 0
        self._was_seen = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body."""
        if self.is_over:
            return
        self._bytes += len(data)
        try:
            end = self._framing.feed(data, self._pieces)
        except FramingError:
            self.is_over = True
            return
        if end >= 0:
            self._complete()
            self.keeps_connection = self.head.keep_alive and end == len(data)
        elif self._bytes > _MAX_BYTES:
            self.is_over = True

    def close(self, error: str) -> None:
        """Its connection is gone; `error` is empty when it was closed in good order."""
        self.is_over = True
        if not error and isinstance(self._framing, UntilCloseBody):
            self._complete()

    def is_late(self) -> bool:
        """Asked now and then: whether it has been asked before, so that the rest is not worth waiting for."""
        was_seen, self._was_seen = self._was_seen, True
        return was_seen

    def _complete(self) -> None:
        self.is_over = True
        self.content = b"".join(self._pieces)
