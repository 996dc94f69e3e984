"""One attempt at serving a request with a pair of workers: both legs, from the reservation to their completions.

What ends an attempt, in six cases:

1. Decode's answer is whole. The prefill leg, if it still runs, ends by itself; after an error it is cancelled.
2. The prefill leg fails before decode has begun to answer: decode is cancelled. A 4xx goes to the client as it is.
3. Decode fails: the prefill leg is cancelled.
4. One of the workers is found dead before anything was answered: its leg failed, the other is cancelled.
5. The client leaves: both legs go on until the KV cache has changed hands or `linger_s` is over. A KV cache that
   nobody fetches would occupy the prefill worker until it gives up.
6. The time is over, for the whole request or for a worker to say something: both are cut.

As long as nothing of an answer has gone to the client, a failure may be followed by another attempt with another pair,
by the rules of `traffic.retry`. The legs are then worded anew: a transfer is never used twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from router_core.contract.request import Leg, RoutingRequest
from router_core.contract.worker import Worker
from router_core.fleet.ledger import Lease
from router_core.relay.answer_heads import AnswerHead
from router_core.relay.call import Pieces
from router_core.relay.exchange import Exchange
from router_core.relay.parties import Ending
from router_core.relay.request_head import RequestHead
from router_core.relay.side_call import SideCall
from router_core.traffic.body_prompt import BodyPrompt
from router_core.traffic.dead_workers import PlacedListener
from router_core.traffic.endings import last_words
from router_core.traffic.following import following
from router_core.traffic.pd.leg import PairLeg
from router_core.traffic.pd.next_attempt import NextAttempt
from router_core.traffic.pd.pair_calls import PairCalls
from router_core.traffic.pd.protocol import Conversation, Merge
from router_core.traffic.retry import Failure, Trials, failure_of_ending, failure_of_status, retry_after_s

if TYPE_CHECKING:
    from router_core.traffic.pd.pair_dispatcher import PairDispatcher

_log = logging.getLogger(__name__)

_TAIL_BYTES = 8192
_SILENT = frozenset({Ending.TIMEOUT, Ending.STALLED})


class PairAttempt(PlacedListener):
    """Runs both legs; what a protocol knows as its `Legs`, and the client's exchange as its listener.

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
        trials: Trials | None,
    ) -> None:
        self.is_abandoned = False
        self._dispatcher = dispatcher
        self._exchange = exchange
        self._next = NextAttempt(dispatcher, exchange, request, trials)
        self._prompt = BodyPrompt(exchange.head, exchange.body)
        followers = following(exchange)
        self._prefill = PairLeg(dispatcher, request, leases[0], Leg.PREFILL, followers=followers)
        self._decode = PairLeg(dispatcher, request, leases[1], Leg.DECODE, followers=followers)
        self._calls = PairCalls(self, exchange, dispatcher.origin, (self.prefill, self.decode))
        self._down: PairLeg | None = None  # whose worker was found dead
        self._timer: asyncio.TimerHandle | None = None
        self._has_decode_begun = False
        self._awaits_id = False
        self._conversation: Conversation = _OVER

    def start(self) -> None:
        """Send the request on its way."""
        self._exchange.forward(self._calls, self)

    def begin(self) -> None:
        """The exchange is ready for the first call."""
        try:
            self._conversation = self._dispatcher.protocol.converse(self)
            self._conversation.begin()
        except Exception:  # noqa: BLE001  # plugin code: isolated, logged by name
            self._protocol_failed()

    # --- Listener, for the client's exchange ---

    def declines(self, answer: AnswerHead) -> bool:
        """Keep decode's error from the client if the request may be sent again."""
        if self._decode.is_finished or answer.status not in self._dispatcher.retries.rules.statuses:
            return False
        return self._next.grant(self.decode, failure_of_status(answer.status), retry_after_s(answer))

    def last_words(self, ending: Ending) -> bytes:
        """End a stream that broke off with an error in its own form."""
        return last_words(self._exchange.head.path, ending)

    def worker_down(self, worker: Worker, reason: str) -> None:
        """A worker was found dead: if it is needed here and there is no answer yet, go elsewhere, if it may."""
        leg = next((leg for leg in (self._prefill, self._decode) if leg.worker is worker and not leg.is_finished), None)
        if leg is None or self._exchange.status is not None or self.is_abandoned or self._next.is_granted:
            return
        if self._next.grant(worker, Failure.LOST):
            self._down = leg
            self._exchange.give_up(f"the worker was found dead: {reason}")

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
            self._next.none(ending)
            return
        if ending is Ending.DECLINED and exchange.declined is not None:
            status = exchange.declined.head.status
            self._failed(self.decode, ending, f"answered {status}, not passed on")
            self._decode.ended(Ending.COMPLETE, status)
            failed = self.decode
        else:
            failed = self._blame(ending)
        self._conversation.failed()
        self._drop()
        if exchange.status is None:
            self._next.begin_or_give_up(failed, ending)
        else:
            self._next.none(ending)

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
        self._calls.send_prefill(self.head if head is None else head, body)

    def send_decode(self, body: bytes | Pieces, head: RequestHead | None = None, *, merge: Merge | None = None) -> None:
        """Send the decode leg."""
        self._calls.send_decode(self.head if head is None else head, body, merge)

    def skip_prefill(self) -> None:
        """Let the decode worker do all of it."""
        self._prefill.cancel()

    def refuse(self, status: int, code: str, message: str) -> None:
        """Answer with an error; it was nobody's fault but the client's."""
        self._drop()
        self._answer(status, code, message)

    def fail_prefill(self, message: str) -> None:
        """The prefill worker's answer was of no use."""
        call = self._calls.prefill
        self._failed(self.prefill, Ending.BAD_ANSWER, message)
        self._prefill.blame(None if call is None else call.status)
        self._drop()
        self._answer(502, "prefill_failed", "The prefill worker's answer was of no use.")

    def ask(self, base_url: str, path: bytes, on_answer: Callable[[bytes | None], None]) -> None:
        """Ask an address of the prefill worker's for a fact."""
        self._calls.ask(base_url, path, on_answer)

    # --- the prefill leg ---

    def prefill_ended(self, call: SideCall, ending: Ending) -> None:
        """The prefill leg's answer is whole, or there will be none."""
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
        else:
            self._calls.prefilled(call.content)
        self._let_go_if_over()

    def _prefill_failed(self, call: SideCall, ending: Ending) -> None:
        self._conversation.failed()
        status = call.status if ending is Ending.COMPLETE else None
        self._failed(self.prefill, ending, call.error or f"the prefill leg was answered {status}")
        self._prefill.ended(ending, status)
        if self.is_abandoned:
            self._drop()
            return
        if self._has_decode_begun or self._decode.is_finished:
            return  # Decode has what it needs, or the client its answer.
        self._drop()
        if status is None or call.answer is None:
            failure, wish_s = failure_of_ending(ending), 0.0
        else:
            is_retried = status in self._dispatcher.retries.rules.statuses
            failure, wish_s = failure_of_status(status) if is_retried else None, retry_after_s(call.answer)
        if failure is not None and self._next.grant(self.prefill, failure, wish_s):
            self._next.begin(ending)
        elif status is not None and status < 500 and call.answer is not None:
            self._replay(call.answer, call.content)
        elif ending is Ending.COMPLETE:
            self._answer(502, "prefill_failed", f"The prefill worker answered {status}.")
        elif ending is Ending.CONNECT_FAILED:
            self._answer(502, "upstream_connection_failed", "No prefill worker could be reached.")
        else:
            self._answer(502, "prefill_failed", "The prefill worker's connection was lost before it answered.")

    def _protocol_failed(self) -> None:
        _log.exception("protocol %s raised", type(self._dispatcher.protocol).__qualname__)
        self._drop()
        self._answer(500, "internal_error", "The request could not be sent to its workers.")

    # --- the decode leg ---

    def decode_lost(self, ending: Ending, error: str) -> None:
        """There is no answer, and none has begun."""
        if self.is_abandoned:
            self.orphan_ended()
            return
        self._failed(self.decode, ending, error)
        self._conversation.failed()
        self._decode.ended(ending, None)
        self._drop()
        self._next.begin_or_give_up(self.decode, ending)

    def merged_broke_off(self, call: SideCall, ending: Ending) -> None:
        """Decode's answer, which was to be merged, broke off, or is over with nobody there."""
        if self._exchange.status is None or self.is_abandoned:
            self.decode_lost(ending, call.error)
            return
        self._failed(self.decode, ending, call.error)
        self._decode.ended(ending, call.status)
        self._drop()
        self._next.none(Ending.CONNECTION_LOST)
        self._exchange.source_closed(call.error)

    # --- who is to blame ---

    def _failed(self, worker: Worker, ending: Ending, error: str) -> None:
        self._dispatcher.worker_failed(worker, ending, error, self._exchange.request_id)

    def _blame(self, ending: Ending) -> Worker:
        """The exchange ended early: count that against the leg whose doing it was; return its worker."""
        error, is_begun = self._exchange.error, self._exchange.status is not None
        is_decode_sent, is_prefill_over = self._calls.decode is not None, self._prefill.is_finished
        if self._down is not None:
            leg = self._down
        elif is_decode_sent and (is_begun or is_prefill_over or ending not in _SILENT):
            leg = self._decode
        elif not is_decode_sent or not self._dispatcher.protocol.prefill_waits_for_fetch:
            leg = self._prefill
        else:
            # Each leg waits for the other, and either may be the one that hangs: both are looked at, neither is blamed.
            for leg in (self._prefill, self._decode):
                self._failed(leg.worker, ending, f"{error}, or the other leg's")
                leg.ended(ending, None, is_blamed=False)
            self._next.avoid(self.prefill)
            return self.decode
        if not leg.is_finished:
            self._failed(leg.worker, ending, error)
            leg.ended(ending, self._exchange.status if leg is self._decode else None)
        return leg.worker

    # --- a client that left ---

    def _abandon(self) -> None:
        self.is_abandoned = True
        self._next.none(Ending.CLIENT_GONE)
        self._calls.detach()
        self._settle()
        if not (self._prefill.is_finished and self._decode.is_finished):
            self._timer = self._dispatcher.linger(self)

    def give_up(self) -> None:
        """It lingered long enough."""
        self._drop()

    def _settle(self) -> None:
        """End an abandoned attempt as soon as the KV cache has changed hands, or never will."""
        calls = self._calls
        is_sent = calls.prefill is not None or calls.decode is not None
        if is_sent and not self._prefill.is_finished:
            return
        is_fetched = self._has_decode_begun or self._dispatcher.protocol.prefill_waits_for_fetch
        has_one_leg = calls.prefill is None or calls.decode is None
        if has_one_leg or is_fetched or self._decode.is_finished:
            self._drop()

    def orphan_begun(self) -> None:
        """Decode's answer begins, and nobody is there to take it."""
        self._has_decode_begun = True
        self._settle()

    def orphan_ended(self) -> None:
        """Decode's answer that nobody took is over."""
        self._decode.cancel()
        if self._prefill.is_finished or self._dispatcher.protocol.prefill_waits_for_fetch:
            self._drop()  # Nobody is left to fetch anything.

    # --- ending ---

    def _cancel_prefill(self) -> None:
        if not self._prefill.is_finished:
            self._calls.cut_prefill()
            self._prefill.cancel()

    def _drop(self) -> None:
        """Cut whatever still runs; a leg that has no completion yet was cancelled."""
        self._calls.cut()
        self._prefill.cancel()
        self._decode.cancel()
        if self._timer is not None:
            self._timer.cancel()
            self._dispatcher.lingered(self)
            self._timer = None
        self._let_go_if_over()

    def _let_go_if_over(self) -> None:
        if self._prefill.is_finished and self._decode.is_finished:
            self._calls.let_go()
            self._conversation = _OVER

    # --- an answer in decode's stead ---

    def _answer(self, status: int, code: str, message: str) -> None:
        """Answer in decode's stead; an answer that has begun is broken off."""
        self._next.none(Ending.BAD_ANSWER)
        if self.is_abandoned:
            return
        if self._exchange.status is None:
            self._exchange.refuse(status, code, message)
        else:
            self._exchange.source_closed("the other leg failed")

    def _replay(self, answer: AnswerHead, content: bytes) -> None:
        """Pass the prefill worker's answer on."""
        self._exchange.feed(answer.outgoing(b"Content-Length: %d\r\n" % len(content)) + content)
        self._next.none(Ending.COMPLETE)


class _Over:
    """The conversation of a request that is over."""

    def begin(self) -> None:
        """Nothing is to be sent."""

    def prefilled(self, answer: bytes) -> None:
        """Nothing is to be sent."""

    def failed(self) -> None:
        """Nobody is to be told."""


_OVER = _Over()
