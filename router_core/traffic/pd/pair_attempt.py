"""One attempt at serving a request with a pair of workers: both legs, from the reservation to their completions.

What ends an attempt, in six cases:

1. Decode's answer is whole. The prefill leg, if it still runs, ends by itself; after an error it is cancelled.
2. The prefill leg fails before decode has begun to answer: decode is cancelled. A 4xx goes to the client as it is.
3. Decode fails: the prefill leg is cancelled.
4. One of the workers is found dead before anything was answered: its leg failed, the other is cancelled.
5. The client leaves: both legs go on until the KV cache has changed hands or `linger_s` is over. A KV cache that
   nobody fetches would occupy the prefill worker until it gives up.
6. The time is over, for the whole request or for a worker to say something: both are cut.

As long as nothing of an answer has gone to the client, a failure may be followed by another attempt, by the rules of
`traffic.retry`:

1. Nothing of the decode leg was sent, because its worker could not be reached or was found dead before: the prefill leg
   goes on, or what it computed is kept, and another worker decodes, if the protocol can have that.
2. All others: another pair. The legs are then worded anew: a transfer is never used twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from router_core.contract.request import RoutingRequest
from router_core.contract.worker import Worker
from router_core.fleet.ledger import Lease
from router_core.relay.answer_heads import AnswerHead
from router_core.relay.exchange import Exchange
from router_core.relay.parties import Ending
from router_core.relay.side_call import SideCall
from router_core.traffic.dead_workers import PlacedListener
from router_core.traffic.endings import ANSWER_TO_ENDING, last_words
from router_core.traffic.failure import Failure, failure_of_ending, failure_of_status, retry_after_s
from router_core.traffic.pd.leg import PairLeg
from router_core.traffic.pd.linger import Linger
from router_core.traffic.pd.next_attempt import NextAttempt
from router_core.traffic.pd.pair import Pair
from router_core.traffic.retry import Trials

if TYPE_CHECKING:
    from router_core.traffic.pd.pair_dispatcher import PairDispatcher

_TAIL_BYTES = 8192


class PairAttempt(PlacedListener):
    """Runs both legs, and follows the client's exchange; decides what each event means for the other side."""

    def __init__(
        self,
        dispatcher: PairDispatcher,
        exchange: Exchange,
        request: RoutingRequest,
        leases: tuple[Lease, Lease],
        *,
        trials: Trials | None,
    ) -> None:
        self._dispatcher = dispatcher
        self._exchange = exchange
        self._next = NextAttempt(dispatcher, exchange, request, trials)
        self._pair = Pair(self, dispatcher, exchange, request, leases)
        self._down: PairLeg | None = None  # whose worker was found dead
        self._linger: Linger | None = None  # once the client is gone
        self._awaits_id = False

    def start(self) -> None:
        """Send the request on its way."""
        self._exchange.forward(self._pair.calls, self)

    def begin(self) -> None:
        """The exchange is ready for the first call."""
        self._pair.dialogue.begin()

    # --- Listener, for the client's exchange ---

    def declines(self, answer: AnswerHead) -> bool:
        """Keep decode's error from the client if the request may be sent again."""
        if self._pair.decode.is_finished or answer.status not in self._dispatcher.retries.rules.statuses:
            return False
        return self._next.grant(self._pair.decode.worker, failure_of_status(answer.status), retry_after_s(answer))

    def last_words(self, ending: Ending) -> bytes:
        """End a stream that broke off with an error in its own form."""
        return last_words(self._exchange.head.path, ending)

    def worker_down(self, worker: Worker, reason: str) -> None:
        """A worker was found dead: if it is needed here and there is no answer yet, go elsewhere, if it may."""
        leg = self._pair.running_on(worker)
        if leg is None or self._exchange.status is not None or self._linger is not None or self._next.is_granted:
            return
        if self._next.grant(worker, Failure.SILENT):
            error = f"the worker was found dead: {reason}"
            if leg is self._pair.decode and self._redirect(Ending.WORKER_DOWN, error):
                return
            self._down = leg
            self._exchange.give_up(error)

    def on_first_byte(self, data: bytes) -> None:
        """The client's answer begins."""
        self._next.answered()
        status = self._exchange.status
        if status is None or status >= 400 or self._pair.decode.is_finished:
            return
        self._pair.has_decode_begun = True
        self._pair.decode.begun()
        if self._exchange.head.path == b"/v1/responses":
            self._awaits_id = not self._dispatcher.stored_responses.learn(data, self._pair.decode.worker)

    def on_end(self, ending: Ending) -> None:
        """The client's answer is over, or will never be."""
        exchange, pair = self._exchange, self._pair
        if ending is Ending.CLIENT_GONE:
            self._next.none(ending)
            self._linger = Linger(self._dispatcher, pair)
            self._linger.begin()
            return
        if pair.decode.is_finished:
            return  # It was we who ended it.
        if self._awaits_id:
            self._dispatcher.stored_responses.learn(exchange.tail, pair.decode.worker)
        if ending is Ending.COMPLETE:
            pair.decode.ended(ending, exchange.status, exchange.tail)
            if exchange.status is not None and exchange.status >= 400:
                pair.dialogue.failed()
                pair.cancel_prefill()
            pair.let_go_if_over()
            self._next.none(ending)
            return
        failed = pair.decode.worker
        if ending is Ending.DECLINED and exchange.declined is not None:
            status = exchange.declined.head.status
            pair.failed(pair.decode, ending, f"answered {status}, not passed on")
            pair.decode.ended(Ending.COMPLETE, status)
        else:
            guilty = pair.end_early(ending, self._down)
            if guilty is None:
                self._next.avoid(pair.prefill.worker)
            else:
                failed = guilty.worker
        pair.dialogue.failed()
        pair.drop()
        if exchange.status is None:
            self._next.begin_or_give_up(failed, ending)
        else:
            self._next.none(ending)

    # --- what the protocol wishes ---

    def skip_prefill(self) -> None:
        """Let the decode worker do all of it."""
        self._pair.prefill.cancel()

    def refuse(self, status: int, code: str, message: str) -> None:
        """Answer with an error; it was nobody's fault but the client's."""
        self._pair.drop()
        self._answer(status, code, message)

    def fail_prefill(self, message: str) -> None:
        """The prefill worker's answer was of no use, or it did not say what has to be known of it to send its leg."""
        pair, call = self._pair, self._pair.calls.prefill
        ending = Ending.CONNECT_FAILED if call is None else Ending.BAD_ANSWER
        pair.failed(pair.prefill, ending, message)
        pair.prefill.blame(None if call is None else call.status)
        pair.drop()
        if call is None and self._linger is None and self._next.grant(pair.prefill.worker, Failure.LOST):
            self._next.begin(ending)
        else:
            self._answer(502, "prefill_failed", "The prefill worker's answer was of no use.")

    def protocol_failed(self) -> None:
        """It raised: that costs its request, and nothing else."""
        self._pair.drop()
        self._answer(500, "internal_error", "The request could not be sent to its workers.")

    # --- the prefill leg ---

    def prefill_ended(self, call: SideCall, ending: Ending) -> None:
        """The prefill leg's answer is whole, or there will be none."""
        status, pair = call.status, self._pair
        if ending is not Ending.COMPLETE or status is None or status >= 400:
            self._prefill_failed(call, ending)
            return
        # The protocol has its say first: an answer that is of no use is no success.
        pair.prefill.begun()
        if not pair.decode.is_finished or self._linger is not None:
            pair.dialogue.prefilled(call.content)
        pair.prefill.ended(ending, status, call.content[-_TAIL_BYTES:])
        if self._linger is None:
            pair.calls.prefilled(call.content)
        else:
            self._linger.settle()
        pair.let_go_if_over()

    def _prefill_failed(self, call: SideCall, ending: Ending) -> None:
        pair = self._pair
        pair.dialogue.failed()
        status = call.status if ending is Ending.COMPLETE else None
        pair.failed(pair.prefill, ending, call.error or f"the prefill leg was answered {status}")
        pair.prefill.ended(ending, status)
        if self._linger is not None:
            pair.drop()
            return
        if pair.has_decode_begun or pair.decode.is_finished:
            return  # Decode has what it needs, or the client its answer.
        pair.drop()
        if status is None or call.answer is None:
            failure, wish_s = failure_of_ending(ending), 0.0
        else:
            is_retried = status in self._dispatcher.retries.rules.statuses
            failure, wish_s = failure_of_status(status) if is_retried else None, retry_after_s(call.answer)
        if failure is not None and self._next.grant(pair.prefill.worker, failure, wish_s):
            self._next.begin(ending)
        elif status is not None and status < 500 and call.answer is not None:
            self._replay(call.answer, call.content)
        elif ending is Ending.COMPLETE:
            self._answer(502, "prefill_failed", f"The prefill worker answered {status}.")
        elif ending is Ending.ROUTER_EXHAUSTED:
            self._answer(*ANSWER_TO_ENDING[ending])
        elif ending is Ending.CONNECT_FAILED:
            self._answer(502, "upstream_connection_failed", "No prefill worker could be reached.")
        else:
            self._answer(502, "prefill_failed", "The prefill worker's connection was lost before it answered.")

    # --- the decode leg ---

    def decode_lost(self, ending: Ending, error: str) -> None:
        """There is no answer, and none has begun."""
        if self._linger is not None:
            self.orphan_ended(ending, error)
            return
        pair, failed = self._pair, self._pair.decode.worker
        if self._next.may_follow(failed, ending) and self._redirect(ending, error):
            return
        pair.failed(pair.decode, ending, error)
        pair.decode.ended(ending, None)
        pair.dialogue.failed()
        pair.drop()
        self._next.begin_or_give_up(failed, ending)

    def merged_broke_off(self, call: SideCall, ending: Ending) -> None:
        """Decode's answer, which was to be merged, broke off, or is over with nobody there."""
        pair = self._pair
        if self._exchange.status is None or self._linger is not None:
            self.decode_lost(ending, call.error)
            return
        pair.failed(pair.decode, ending, call.error)
        pair.decode.ended(ending, call.status)
        pair.drop()
        self._next.none(Ending.CONNECTION_LOST)
        self._exchange.source_closed(call.error)

    def orphan_begun(self) -> None:
        """Decode's answer begins, and nobody is there to take it."""
        self._pair.has_decode_begun = True
        if self._linger is not None:
            self._linger.settle()

    def orphan_ended(self, ending: Ending, error: str) -> None:
        """Decode's answer that nobody took is over, or there will be none."""
        if ending is not Ending.COMPLETE:
            self._next.avoid(self._pair.decode.worker)
            if self._redirect(ending, error):
                return
            self._pair.failed(self._pair.decode, ending, error)
            self._pair.decode.ended(ending, None)
        if self._linger is not None:
            self._linger.decode_ended()

    def _redirect(self, ending: Ending, error: str) -> bool:
        """Have another worker decode, one not tried yet, if nothing of the leg was sent; return whether it does."""
        pair = self._pair
        if pair.calls.is_decode_sent or not self._dispatcher.protocol.keeps_kv_cache:
            return False
        placed = self._next.place_decode(pair.prefill.worker)
        if placed is None:
            return False
        pair.failed(pair.decode, ending, error)
        pair.decode.ended(ending, None)
        request, lease = placed
        self._next = self._next.after(request)
        pair.replace_decode(request, lease)
        return True

    # --- an answer in decode's stead ---

    def _answer(self, status: int, code: str, message: str, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Answer in decode's stead; an answer that has begun is broken off."""
        self._next.none(Ending.BAD_ANSWER)
        if self._linger is not None:
            return
        if self._exchange.status is None:
            self._exchange.refuse(status, code, message, headers)
        else:
            self._exchange.source_closed("the other leg failed")

    def _replay(self, answer: AnswerHead, content: bytes) -> None:
        """Pass the prefill worker's answer on."""
        self._exchange.feed(answer.outgoing(b"Content-Length: %d\r\n" % len(content)) + content)
        self._next.none(Ending.COMPLETE)
