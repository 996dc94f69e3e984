"""One attempt at serving a request with a pair of workers: both legs, from the reservation to their completions.

To the client's exchange it is the destination, the source and the listener in one, so that nothing about the client
can cut a worker's connection past it. What ends an attempt, in five cases:

1. Decode's answer is whole. The prefill leg, if it still runs, ends by itself; after an error it is cancelled.
2. The prefill leg fails before decode has begun to answer: decode is cancelled. A 4xx goes to the client as it is.
3. Decode fails: the prefill leg is cancelled.
4. The client leaves: both legs go on until the KV cache has changed hands or `linger_s` is over. A KV cache that
   nobody fetches would occupy the prefill worker until it gives up.
5. The time for the whole request is over: both are cut.

A worker that cannot be connected to costs another attempt, with another pair, as long as there is one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from router_core.contract.request import Leg, RoutingRequest
from router_core.contract.worker import Worker
from router_core.fleet.ledger import Lease
from router_core.relay.call import Pieces
from router_core.relay.exchange import Exchange
from router_core.relay.head import AnswerHead, RequestHead
from router_core.relay.head_memory import HeadMemory
from router_core.relay.local_answer import error_body, local_answer
from router_core.relay.parties import Ending
from router_core.relay.side_call import PassedCall, SideCall
from router_core.traffic.attempt import ANSWER_TO_ENDING
from router_core.traffic.body_prompt import BodyPrompt
from router_core.traffic.following import following
from router_core.traffic.pd.leg import PairLeg
from router_core.traffic.pd.merged_answer import MergedAnswer
from router_core.traffic.pd.protocol import Conversation, Merge

if TYPE_CHECKING:
    from router_core.traffic.pd.pair_dispatcher import PairDispatcher

_log = logging.getLogger(__name__)

_MAX_ANSWER_BYTES = 268_435_456
_MAX_FACT_BYTES = 1_048_576
_TAIL_BYTES = 8192
_GET = RequestHead(b"GET / HTTP/1.1\r\nHost: worker\r\nAccept: application/json\r\n\r\n")


class PairAttempt:
    """Runs both legs; what a protocol knows as its `Legs`.

    Attributes:
        is_abandoned: Whether the client is gone.
    """

    def __init__(
        self,
        dispatcher: PairDispatcher,
        exchange: Exchange,
        request: RoutingRequest,
        leases: tuple[Lease, Lease],
        *,
        tried: tuple[Worker, ...],
    ) -> None:
        self.is_abandoned = False
        self._dispatcher = dispatcher
        self._exchange = exchange
        self._request = request
        self._tried = tried
        self._prompt = BodyPrompt(exchange.head, exchange.body)
        now, followers = dispatcher.now, following(exchange)
        self._prefill = PairLeg(dispatcher, request, leases[0], Leg.PREFILL, now=now, followers=followers)
        self._decode = PairLeg(dispatcher, request, leases[1], Leg.DECODE, now=now, followers=followers)
        self._prefill_call: SideCall | None = None
        self._decode_call: SideCall | PassedCall | None = None
        self._fact_call: SideCall | None = None
        self._merged: MergedAnswer | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_paused = False
        self._has_decode_begun = False
        self._own_heads: HeadMemory[AnswerHead] = HeadMemory()
        self._awaits_id = False
        self._conversation: Conversation = _OVER

    # --- Destination and Source, for the client's exchange ---

    @property
    def answer_heads(self) -> HeadMemory[AnswerHead]:
        """The head the decode worker answered with last, where its answers pass through."""
        if isinstance(self._decode_call, PassedCall):
            return self._dispatcher.origin(self.decode.base_url).answer_heads
        return self._own_heads

    def send(self, exchange: Exchange, *, fresh: bool = False) -> PairAttempt:
        """Begin."""
        del fresh  # a dead connection is noticed, and replaced, below
        exchange.sent(self, is_reused=False)
        try:
            self._conversation = self._dispatcher.protocol.converse(self)
            self._conversation.begin()
        except Exception:  # noqa: BLE001  # plugin code: isolated, logged by name
            self._protocol_failed()
        return self

    def abort(self) -> None:
        """The exchange hears no more; `on_end` follows and says why."""
        if isinstance(self._decode_call, PassedCall):
            self._decode_call.detach()

    def release(self, *, reusable: bool) -> None:
        """Decode's answer is whole."""
        if isinstance(self._decode_call, PassedCall):
            self._decode_call.release(reusable=reusable)

    def pause_reading(self) -> None:
        """Hold decode back: the client reads too slowly."""
        self._is_paused = True
        if self._decode_call is not None:
            self._decode_call.pause()

    def resume_reading(self) -> None:
        """Let decode go on."""
        self._is_paused = False
        if self._decode_call is not None:
            self._decode_call.resume()

    # --- Listener, for the client's exchange ---

    def on_first_byte(self, data: bytes) -> None:
        """The client's answer begins."""
        status = self._exchange.status
        if status is None or status >= 400 or self._decode.is_finished:
            return
        self._has_decode_begun = True
        self._decode.begun()
        if self._exchange.head.path == b"/v1/responses":
            self._awaits_id = not self._dispatcher.stored_responses.learn(data, self.decode)

    def on_end(self, ending: Ending) -> None:
        """The client's answer is over, or will never be."""
        exchange = self._exchange
        if ending is Ending.CLIENT_GONE:
            self._abandon()
            return
        if self._decode.is_finished:
            return  # It was we who ended it.
        if self._awaits_id:
            self._dispatcher.stored_responses.learn(exchange.tail, self.decode)
        if ending is Ending.COMPLETE:
            self._decode.ended(ending, exchange.status, exchange.tail)
            if exchange.status is not None and exchange.status >= 400:
                self._conversation.failed()
                self._cancel_prefill()
            self._let_go_if_over()
            return
        is_sent = self._decode_call is not None
        if is_sent:
            self._dispatcher.leg_failed(self.decode, ending, exchange.error)
            self._decode.ended(ending, exchange.status)
        elif ending is Ending.TIMEOUT and not self._prefill.is_finished:
            self._dispatcher.leg_failed(self.prefill, ending, exchange.error)
            self._prefill.ended(ending, None)
        self._drop()
        if exchange.status is None:
            status, code, message = ANSWER_TO_ENDING[ending]
            exchange.respond(status, error_body(status, code, message))

    # --- Legs, for the protocol ---

    @property
    def head(self) -> RequestHead:
        """The client's head."""
        return self._exchange.head

    @property
    def body(self) -> bytes:
        """The client's body."""
        return self._exchange.body

    @property
    def fields(self) -> Mapping[str, Any]:
        """The client's body as JSON."""
        return self._prompt.fields

    @property
    def prefill(self) -> Worker:
        """Who computes the prompt."""
        return self._prefill.worker

    @property
    def decode(self) -> Worker:
        """Who generates."""
        return self._decode.worker

    def send_prefill(self, body: bytes | Pieces, head: RequestHead | None = None) -> None:
        """Send the prefill leg."""
        call = self._prefill_call = SideCall(
            _uncompressed(self.head if head is None else head),
            body,
            max_bytes=_MAX_ANSWER_BYTES,
            on_end=self._prefill_ended,
        )
        call.begin(self._dispatcher.origin(self.prefill.base_url))

    def send_decode(self, body: bytes | Pieces, head: RequestHead | None = None, *, merge: Merge | None = None) -> None:
        """Send the decode leg."""
        head = self.head if head is None else head
        call: SideCall | PassedCall
        # 1. Nobody waits for the answer.  2. It is changed on its way.  3. It passes through as it is.
        if self.is_abandoned:
            call = SideCall(head, body, max_bytes=0, on_end=self._orphan_ended, on_data=lambda *_: self._orphan_begun())
        elif merge is not None:
            merged = MergedAnswer(merge, self._exchange, on_end=self._merged_ended, on_orphaned=self._orphan_begun)
            self._merged = merged
            if self._prefill.is_finished and self._prefill_call is not None:
                merged.prefilled(self._prefill_call.content)
            call = merged.call(_uncompressed(head), body, max_bytes=_MAX_ANSWER_BYTES)
        else:
            call = PassedCall(head, body, self._exchange, on_loss=self._decode_lost, on_orphaned=self._orphan_begun)
        self._decode_call = call
        if self._is_paused:
            call.pause()
        call.begin(self._dispatcher.origin(self.decode.base_url))

    def skip_prefill(self) -> None:
        """Let the decode worker do all of it."""
        self._prefill.cancel()

    def refuse(self, status: int, code: str, message: str) -> None:
        """Answer with an error; it was nobody's fault but the client's."""
        self._drop()
        self._answer(status, code, message)

    def fail_prefill(self, message: str) -> None:
        """The prefill worker's answer was of no use."""
        call = self._prefill_call
        self._dispatcher.leg_failed(self.prefill, Ending.BAD_ANSWER, message)
        self._prefill.blame(None if call is None else call.status)
        self._drop()
        self._answer(502, "prefill_failed", "The prefill worker's answer was of no use.")

    def ask(self, base_url: str, path: bytes, on_answer: Callable[[bytes | None], None]) -> None:
        """Ask an address of the prefill worker's for a fact."""

        def ended(call: SideCall, ending: Ending) -> None:
            is_success = ending is Ending.COMPLETE and call.status is not None and call.status < 300
            on_answer(call.content if is_success else None)

        head = _GET.to(path)
        call = self._fact_call = SideCall(head, b"", max_bytes=_MAX_FACT_BYTES, on_end=ended)
        call.begin(self._dispatcher.origin(base_url))

    # --- the prefill leg ---

    def _prefill_ended(self, call: SideCall, ending: Ending) -> None:
        status = call.status
        if ending is not Ending.COMPLETE or status is None or status >= 400:
            self._prefill_failed(call, ending)
            return
        # The protocol has its say first: an answer that is of no use is no success.
        self._prefill.begun()
        if not self._decode.is_finished or self.is_abandoned:
            try:
                self._conversation.prefilled(call.content)
            except Exception:  # noqa: BLE001  # plugin code: isolated, logged by name
                self._protocol_failed()
        self._prefill.ended(ending, status, call.content[-_TAIL_BYTES:])
        if self.is_abandoned:
            self._settle()
        elif self._merged is not None:
            self._merged.prefilled(call.content)
        self._let_go_if_over()

    def _prefill_failed(self, call: SideCall, ending: Ending) -> None:
        self._conversation.failed()
        status = call.status if ending is Ending.COMPLETE else None
        self._dispatcher.leg_failed(self.prefill, ending, call.error or f"the prefill leg was answered {status}")
        self._prefill.ended(ending, status)
        if self.is_abandoned:
            self._drop()
            return
        if self._has_decode_begun or self._decode.is_finished:
            return  # Decode has what it needs, or the client its answer.
        self._drop()
        if ending is Ending.CONNECT_FAILED and self._try_elsewhere(self.prefill):
            return
        if status is not None and status < 500 and call.answer is not None:
            self._replay(call.answer, call.content)
        elif ending is Ending.COMPLETE:
            self._answer(502, "prefill_failed", f"The prefill worker answered {status}.")
        else:
            self._answer(502, "prefill_failed", "The prefill worker's connection was lost, or could not be made.")

    def _protocol_failed(self) -> None:
        _log.exception("protocol %s raised", type(self._dispatcher.protocol).__qualname__)
        self._drop()
        self._answer(500, "internal_error", "The request could not be sent to its workers.")

    # --- the decode leg ---

    def _decode_lost(self, ending: Ending, error: str) -> None:
        """There is no answer, and none has begun."""
        if self.is_abandoned:
            self._orphan_ended()
            return
        self._dispatcher.leg_failed(self.decode, ending, error)
        self._conversation.failed()
        self._decode.ended(ending, None)
        self._drop()
        if ending is Ending.CONNECT_FAILED and self._try_elsewhere(self.decode):
            return
        self._answer(*ANSWER_TO_ENDING[ending])

    def _merged_ended(self, call: SideCall, ending: Ending) -> None:
        """Decode's answer, which was to be merged, broke off, or is over with nobody there; else the exchange tells."""
        if self._exchange.status is None or self.is_abandoned:
            self._decode_lost(ending, call.error)
            return
        self._dispatcher.leg_failed(self.decode, ending, call.error)
        self._decode.ended(ending, call.status)
        self._drop()
        self._exchange.source_closed(call.error)

    # --- a client that left ---

    def _abandon(self) -> None:
        self.is_abandoned = True
        if self._merged is not None:
            self._merged.detach()
        self._settle()
        if not (self._prefill.is_finished and self._decode.is_finished):
            self._timer = self._dispatcher.linger(self)

    def give_up(self) -> None:
        """It lingered long enough."""
        self._drop()

    def _settle(self) -> None:
        """End an abandoned attempt as soon as the KV cache has changed hands, or never will."""
        is_sent = self._prefill_call is not None or self._decode_call is not None
        if is_sent and not self._prefill.is_finished:
            return
        is_fetched = self._has_decode_begun or self._dispatcher.protocol.prefill_waits_for_fetch
        has_one_leg = self._prefill_call is None or self._decode_call is None
        if has_one_leg or is_fetched or self._decode.is_finished:
            self._drop()

    def _orphan_begun(self) -> None:
        self._has_decode_begun = True
        self._settle()

    def _orphan_ended(self, *_: object) -> None:
        self._decode.cancel()
        if self._prefill.is_finished or self._dispatcher.protocol.prefill_waits_for_fetch:
            self._drop()  # Nobody is left to fetch anything.

    # --- ending ---

    def _cancel_prefill(self) -> None:
        if not self._prefill.is_finished:
            if self._prefill_call is not None:
                self._prefill_call.abort()
            self._prefill.cancel()

    def _drop(self) -> None:
        """Cut whatever still runs; a leg that has no completion yet was cancelled."""
        for call in (self._prefill_call, self._decode_call, self._fact_call):
            if call is not None:
                call.abort()
        self._prefill.cancel()
        self._decode.cancel()
        if self._timer is not None:
            self._timer.cancel()
            self._dispatcher.lingered(self)
            self._timer = None
        self._let_go_if_over()

    def _let_go_if_over(self) -> None:
        """Hold nothing that holds this: what a request leaves behind needs no garbage collector."""
        if self._prefill.is_finished and self._decode.is_finished:
            self._prefill_call = self._decode_call = self._fact_call = self._merged = None
            self._conversation = _OVER

    def _try_elsewhere(self, worker: Worker) -> bool:
        return self._dispatcher.try_another_pair(self._exchange, self._request, (*self._tried, worker))

    def _answer(self, status: int, code: str, message: str) -> None:
        body = error_body(status, code, message)
        if not self.is_abandoned:
            self._feed(local_answer(status, body, keep_alive=True))

    def _replay(self, answer: AnswerHead, content: bytes) -> None:
        self._feed(answer.outgoing(b"Content-Length: %d\r\n" % len(content)) + content)

    def _feed(self, message: bytes) -> None:
        """Answer in decode's stead; an answer that has begun is broken off."""
        self._decode_call = None
        if self._exchange.status is None:
            self._exchange.feed(message)
        else:
            self._exchange.source_closed("the other leg failed")


class _Over:
    """The conversation of a request that is over."""

    def begin(self) -> None:
        """Nothing is to be sent."""

    def prefilled(self, answer: bytes) -> None:
        """Nothing is to be sent."""

    def failed(self) -> None:
        """Nobody is to be told."""


_OVER = _Over()


def _uncompressed(head: RequestHead) -> RequestHead:
    """Return the head for an answer that is read here."""
    return head.changed({b"accept-encoding": None}) if b"accept-encoding" in head.fields else head
