"""The calls of one attempt with a pair of workers: what is on its way to either, and the way back to the client.

To the client's exchange they are destination and source in one, so that nothing about the client can cut a worker's
connection past whoever made them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from router_core.contract.worker import Worker
from router_core.relay.answer_heads import AnswerHead
from router_core.relay.call import Pieces
from router_core.relay.exchange import Exchange
from router_core.relay.head_memory import HeadMemory
from router_core.relay.origin import Origin
from router_core.relay.parties import Ending, Silence
from router_core.relay.passed_call import PassedCall
from router_core.relay.request_head import RequestHead
from router_core.relay.side_call import SideCall
from router_core.traffic.pd.merged_answer import MergedAnswer
from router_core.traffic.pd.protocol import Merge

_MAX_ANSWER_BYTES = 268_435_456
_MAX_FACT_BYTES = 1_048_576
_GET = RequestHead(b"GET / HTTP/1.1\r\nHost: worker\r\nAccept: application/json\r\n\r\n")


class CallsListener(Protocol):
    """Who made the calls and hears what becomes of them."""

    def begin(self) -> None:
        """The exchange is ready: the first call may be made."""

    def prefill_ended(self, call: SideCall, ending: Ending) -> None:
        """The prefill leg's answer is whole, or there will be none."""

    def decode_lost(self, ending: Ending, error: str) -> None:
        """There is no answer of decode's, and none has begun."""

    def merged_broke_off(self, call: SideCall, ending: Ending) -> None:
        """Decode's answer, which was to be merged, broke off."""

    def orphan_begun(self) -> None:
        """Decode's answer begins, and nobody is there to take it."""

    def orphan_ended(self, ending: Ending, error: str) -> None:
        """Decode's answer that nobody took is over, or there will be none."""


class PairCalls:
    """Makes the calls, at most one of each kind.

    Attributes:
        prefill: The prefill leg's, None before it is made.
        decode: The decode leg's, likewise.
        silence: How long the exchange may hear nothing.
    """

    __slots__ = (
        "decode",
        "prefill",
        "silence",
        "_exchange",
        "_fact",
        "_is_detached",
        "_is_paused",
        "_listener",
        "_merged",
        "_origin",
        "_own_heads",
        "_workers",
    )

    def __init__(
        self,
        listener: CallsListener,
        exchange: Exchange,
        origin: Callable[[str], Origin],
        workers: tuple[Worker, Worker],
    ) -> None:
        self.prefill: SideCall | None = None
        self.decode: SideCall | PassedCall | None = None
        self.silence: Silence | None = origin(workers[1].base_url).silence
        self._exchange = exchange
        self._fact: SideCall | None = None
        self._is_detached = False
        self._is_paused = False
        self._listener: CallsListener | None = listener
        self._merged: MergedAnswer | None = None
        self._origin = origin
        self._own_heads: HeadMemory[AnswerHead] = HeadMemory()
        self._workers = workers

    # --- Destination and Source, for the client's exchange ---

    @property
    def answer_heads(self) -> HeadMemory[AnswerHead]:
        """The head the decode worker answered with last, where its answers pass through."""
        if isinstance(self.decode, PassedCall):
            return self._origin(self._workers[1].base_url).answer_heads
        return self._own_heads

    def send(self, exchange: Exchange, *, fresh: bool = False) -> PairCalls:
        """Begin."""
        del fresh  # a dead connection is noticed, and replaced, by each call
        exchange.sent(self, is_reused=False)
        if self._listener is not None:
            self._listener.begin()
        return self

    def abort(self) -> None:
        """The exchange hears no more; its listener is told why, and decides what is cut."""
        if isinstance(self.decode, PassedCall):
            self.decode.detach()

    def release(self, *, reusable: bool) -> None:
        """Decode's answer is whole."""
        if isinstance(self.decode, PassedCall):
            self.decode.release(reusable=reusable)

    def pause_reading(self) -> None:
        """Hold decode back: the client reads too slowly."""
        self._is_paused = True
        if self.decode is not None:
            self.decode.pause()

    def resume_reading(self) -> None:
        """Let decode go on."""
        self._is_paused = False
        if self.decode is not None:
            self.decode.resume()

    # --- making calls ---

    def send_prefill(self, head: RequestHead, body: bytes | Pieces) -> None:
        """Send the prefill leg; nothing happens once all is over."""
        listener = self._listener
        if listener is None:
            return
        call = self.prefill = SideCall(
            _uncompressed(head), body, max_bytes=_MAX_ANSWER_BYTES, on_end=listener.prefill_ended
        )
        call.begin(self._origin(self._workers[0].base_url))

    def send_decode(self, head: RequestHead, body: bytes | Pieces, merge: Merge | None) -> None:
        """Send the decode leg; nothing happens once all is over."""
        listener = self._listener
        if listener is None:
            return
        call: SideCall | PassedCall
        # 1. Nobody waits for the answer.  2. It is changed on its way.  3. It passes through as it is.
        if self._is_detached:
            call = SideCall(
                head,
                body,
                max_bytes=0,
                on_end=lambda call, ending: listener.orphan_ended(ending, call.error),
                on_data=lambda *_: listener.orphan_begun(),
            )
        elif merge is not None:
            merged = self._merged = MergedAnswer(
                merge, self._exchange, on_end=listener.merged_broke_off, on_orphaned=listener.orphan_begun
            )
            if self.prefill is not None and self.prefill.is_whole:
                merged.prefilled(self.prefill.content)
            call = merged.call(_uncompressed(head), body, max_bytes=_MAX_ANSWER_BYTES)
        else:
            call = PassedCall(
                head, body, self._exchange, on_loss=listener.decode_lost, on_orphaned=listener.orphan_begun
            )
        self.decode = call
        if self._is_paused:
            call.pause()
        call.begin(self._origin(self._workers[1].base_url))

    @property
    def is_decode_sent(self) -> bool:
        """Whether anything of the decode leg was sent: its worker may have begun with it."""
        return self.decode is not None and self.decode.was_sent

    def replace_decode(self, worker: Worker) -> None:
        """Another worker is to get the decode leg, of which nothing was sent."""
        if self.decode is not None:
            self.decode.abort()
        self.decode = self._merged = None
        self._workers = (self._workers[0], worker)
        self.silence = self._origin(worker.base_url).silence

    def ask(self, base_url: str, path: bytes, on_answer: Callable[[bytes | None], None]) -> None:
        """Ask an address for a fact; `on_answer` is given the body of a 2xx answer, or None."""

        def ended(call: SideCall, ending: Ending) -> None:
            is_success = ending is Ending.COMPLETE and call.status is not None and call.status < 300
            on_answer(call.content if is_success else None)

        call = self._fact = SideCall(_GET.to(path), b"", max_bytes=_MAX_FACT_BYTES, on_end=ended)
        call.begin(self._origin(base_url))

    # --- what becomes of them ---

    def prefilled(self, content: bytes) -> None:
        """The prefill leg's answer is there: decode's may wait for it."""
        if self._merged is not None:
            self._merged.prefilled(content)

    def detach(self) -> None:
        """The client is gone: answers are read on and thrown away."""
        self._is_detached = True
        if self._merged is not None:
            self._merged.detach()

    def cut_prefill(self) -> None:
        """Cut the prefill leg."""
        if self.prefill is not None:
            self.prefill.abort()

    def cut(self) -> None:
        """Cut whatever still runs."""
        if self._merged is not None:
            self._merged.end()
        for call in (self.prefill, self.decode, self._fact):
            if call is not None:
                call.abort()

    def let_go(self) -> None:
        """Hold nothing: what a request leaves behind needs no garbage collector."""
        self.prefill = self.decode = self._fact = self._merged = self._listener = None


def _uncompressed(head: RequestHead) -> RequestHead:
    """Return the head for an answer that is read here."""
    return head.changed({b"accept-encoding": None}) if b"accept-encoding" in head.fields else head
