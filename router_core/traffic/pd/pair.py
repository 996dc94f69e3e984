"""Both legs of a request, as one thing: their places on their workers, the calls to them, what is said about them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from router_core.contract.request import Leg, RoutingRequest
from router_core.contract.worker import Worker
from router_core.fleet.ledger import Lease
from router_core.relay.exchange import Exchange
from router_core.relay.parties import Ending
from router_core.traffic.following import following
from router_core.traffic.pd.dialogue import Dialogue, DialogueListener
from router_core.traffic.pd.leg import PairLeg
from router_core.traffic.pd.pair_calls import CallsListener, PairCalls

if TYPE_CHECKING:
    from router_core.traffic.pd.pair_dispatcher import PairDispatcher

_SILENT = frozenset({Ending.TIMEOUT, Ending.STALLED})


class PairListener(CallsListener, DialogueListener, Protocol):
    """Who hears what becomes of the calls, and what the protocol wishes."""


class Pair:
    """The legs, until both have had their completions; it ends them, its owner decides when.

    Attributes:
        prefill: The prefill leg.
        decode: The decode leg; another one once its worker was replaced.
        calls: What is on its way to either.
        dialogue: With the protocol.
        has_decode_begun: Whether decode has begun to answer: it has all it needs of the prefill leg.
        on_over: Called, once, when both legs are over.
    """

    __slots__ = ("calls", "decode", "dialogue", "has_decode_begun", "on_over", "prefill", "_dispatcher", "_exchange")

    def __init__(
        self,
        listener: PairListener,
        dispatcher: PairDispatcher,
        exchange: Exchange,
        request: RoutingRequest,
        leases: tuple[Lease, Lease],
    ) -> None:
        self._dispatcher = dispatcher
        self._exchange = exchange
        self.prefill = self._leg(request, leases[0], Leg.PREFILL)
        self.decode = self._leg(request, leases[1], Leg.DECODE)
        workers = self.prefill.worker, self.decode.worker
        self.calls = PairCalls(listener, exchange, dispatcher.origin, workers)
        self.dialogue = Dialogue(listener, dispatcher.protocol, exchange, self.calls, workers)
        self.has_decode_begun = False
        self.on_over: Callable[[], None] | None = None

    @property
    def is_over(self) -> bool:
        """Whether both legs have had their completions."""
        return self.prefill.is_finished and self.decode.is_finished

    def running_on(self, worker: Worker) -> PairLeg | None:
        """Return the leg that still runs on a worker, if one does."""
        return next((leg for leg in (self.prefill, self.decode) if leg.worker is worker and not leg.is_finished), None)

    def replace_decode(self, request: RoutingRequest, lease: Lease) -> None:
        """Go on with another decode worker; the leg on the one before had its completion, and was not sent."""
        is_due = self.calls.decode is not None
        self.decode = self._leg(request, lease, Leg.DECODE)
        self.calls.replace_decode(lease.worker)
        self.dialogue.decode = lease.worker
        if is_due:
            self.dialogue.decode_again()

    # --- whose doing it was ---

    def failed(self, leg: PairLeg, ending: Ending, error: str) -> None:
        """Say that a leg's worker did not answer as it should."""
        self._dispatcher.worker_failed(leg.worker, ending, error, self._exchange.request_id)

    def end_early(self, ending: Ending, down: PairLeg | None) -> PairLeg | None:
        """The client's exchange ended before its answer did: count that against the leg whose doing it was.

        Args:
            ending: How.
            down: The leg whose worker was found dead, if that was it.

        Returns:
            That leg; None when nobody can tell which it was.
        """
        error, is_begun = self._exchange.error, self._exchange.status is not None
        is_decode_sent = self.calls.decode is not None
        if down is not None:
            leg = down
        elif is_decode_sent and (is_begun or self.prefill.is_finished or ending not in _SILENT):
            leg = self.decode
        elif not is_decode_sent or not self._dispatcher.protocol.prefill_waits_for_fetch:
            leg = self.prefill
        else:
            # Each leg waits for the other, and either may be the one that hangs: both are looked at, neither is blamed.
            for each in (self.prefill, self.decode):
                self.failed(each, ending, f"{error}, or the other leg's")
                each.ended(ending, None, is_blamed=False)
            return None
        if not leg.is_finished:
            self.failed(leg, ending, error)
            leg.ended(ending, self._exchange.status if leg is self.decode else None)
        return leg

    # --- ending ---

    def cancel_prefill(self) -> None:
        """The prefill leg is of no use any more."""
        if not self.prefill.is_finished:
            self.calls.cut_prefill()
            self.prefill.cancel()

    def drop(self) -> None:
        """Cut whatever still runs; a leg that has no completion yet was cancelled."""
        self.calls.cut()
        self.prefill.cancel()
        self.decode.cancel()
        self.let_go_if_over()

    def let_go_if_over(self) -> None:
        """Hold nothing once both legs are over."""
        if self.is_over:
            self.calls.let_go()
            self.dialogue.end()
            on_over, self.on_over = self.on_over, None
            if on_over is not None:
                on_over()

    def _leg(self, request: RoutingRequest, lease: Lease, leg: Leg) -> PairLeg:
        return PairLeg(self._dispatcher, request, lease, leg, followers=following(self._exchange))
