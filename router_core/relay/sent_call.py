"""A request that is sent to a worker other than by a client's exchange: written once, and once more if need be."""

from __future__ import annotations

from typing import Protocol

from router_core.relay.call import Call, Pieces
from router_core.relay.parties import Ending, Source
from router_core.relay.request_head import RequestHead


class Origin(Protocol):
    """A worker's address."""

    def send(self, exchange: Call, *, fresh: bool = False) -> Source:
        """Send a request, on a new connection if `fresh`."""


class SentCall:
    """What calls have in common: one sending, and a second one if a kept connection turns out to be dead.

    Attributes:
        was_sent: Whether it went out on any connection, be it one that was dead.
    """

    __slots__ = ("head", "body", "was_sent", "_is_paused", "_is_reused", "_origin", "_source")
    request_fields = b""

    def __init__(self, head: RequestHead, body: bytes | Pieces) -> None:
        self.head = head
        self.body = body
        self.was_sent = False
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
        self.was_sent = True
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

    def _unconnected(self, ending: Ending) -> Ending:
        """Return what it means that no connection could be made: unless one was lost before, nothing was sent."""
        return Ending.GONE if self.was_sent and ending is Ending.CONNECT_FAILED else ending

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
