"""What follows an attempt with a pair that failed before anything was answered: another one, or the client's error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from router_core.contract.request import RoutingRequest
from router_core.contract.worker import Worker
from router_core.fleet.ledger import Lease
from router_core.relay.exchange import Exchange
from router_core.relay.parties import Ending
from router_core.traffic.failure import Failure, failure_of_ending
from router_core.traffic.retry import Trials

if TYPE_CHECKING:
    from router_core.traffic.pd.pair_dispatcher import PairDispatcher


class NextAttempt:
    """Whether there is one, when it begins, and what it must know of those before it.

    Args:
        dispatcher: Grants and makes it.
        exchange: The client's.
        request: What it asks for.
        trials: What is known of the attempts so far; None during the first.
    """

    __slots__ = ("_delay_s", "_dispatcher", "_exchange", "_request", "_started", "_trials")

    def __init__(
        self, dispatcher: PairDispatcher, exchange: Exchange, request: RoutingRequest, trials: Trials | None
    ) -> None:
        self._dispatcher = dispatcher
        self._exchange = exchange
        self._request = request
        self._trials = trials
        self._delay_s: float | None = None  # until it begins, once it is granted
        self._started = dispatcher.now()

    @property
    def is_granted(self) -> bool:
        """Whether there will be one."""
        return self._delay_s is not None

    def grant(self, worker: Worker, failure: Failure, wish_s: float = 0.0) -> bool:
        """Return whether there may be one, by the rules of retries.

        Args:
            worker: Who failed.
            failure: How.
            wish_s: How long that worker wishes to be spared.
        """
        if self._delay_s is None:
            trials = self._known_trials()
            self._delay_s = self._dispatcher.grant(self._exchange, self._request, trials, worker, failure, wish_s)
        return self._delay_s is not None

    def avoid(self, worker: Worker) -> None:
        """Have it go elsewhere, though nobody says that this worker failed."""
        trials = self._known_trials()
        trials.tried = (*trials.tried, worker)

    def begin(self, ending: Ending) -> None:
        """Make the one that was granted."""
        if self._trials is not None and self._delay_s is not None:
            self._dispatcher.retry(self._exchange, self._request, self._trials, ending, self._delay_s)

    def may_follow(self, worker: Worker, ending: Ending) -> bool:
        """Return whether there may be one after an attempt without an answer, which a worker ended so."""
        failure = failure_of_ending(ending)
        return self.is_granted or (failure is not None and self.grant(worker, failure))

    def begin_or_give_up(self, worker: Worker, ending: Ending) -> None:
        """Make one if it may be, else tell the client how this one ended."""
        if self.may_follow(worker, ending):
            self.begin(ending)
        else:
            self._dispatcher.give_up(self._exchange, ending, self._trials)

    def place_decode(self, prefill: Worker) -> tuple[RoutingRequest, Lease] | None:
        """Choose and reserve a decode worker that was not tried yet, for what a prefill worker computes; None if none
        is left or suitable.
        """
        return self._dispatcher.place_decode(self._exchange, self._request, prefill, self._known_trials())

    def after(self, request: RoutingRequest) -> NextAttempt:
        """Return what follows the attempt that has begun with `request`."""
        return NextAttempt(self._dispatcher, self._exchange, request, self._trials)

    def answered(self) -> None:
        """There will be none: the client's answer begins."""
        if self._trials is not None:
            self._dispatcher.retries.answered(self._trials)

    def none(self, ending: Ending) -> None:
        """There will be none, for this one ended so."""
        if self._trials is not None:
            self._dispatcher.retries.over(self._trials, ending, self._exchange.status)

    def _known_trials(self) -> Trials:
        if self._trials is None:
            self._trials = Trials(self._dispatcher.retries.now() - (self._dispatcher.now() - self._started))
        return self._trials
