"""One attempt at serving a request: from the reservation to its one completion."""

from __future__ import annotations

from typing import TYPE_CHECKING

from router_core.contract.request import OutcomeStatus, RequestOutcome, RoutingRequest
from router_core.contract.worker import Worker
from router_core.fleet.ledger import Lease
from router_core.relay.answer_heads import AnswerHead
from router_core.relay.exchange import Exchange
from router_core.relay.parties import Ending
from router_core.traffic.dead_workers import PlacedListener
from router_core.traffic.endings import LOSSES, OUTCOME_OF_ENDING, last_words, outcome_of_http
from router_core.traffic.failure import Failure, failure_of_ending, failure_of_status, retry_after_s
from router_core.traffic.following import following
from router_core.traffic.retry import Trials
from router_core.traffic.usage import read_usage

if TYPE_CHECKING:
    from router_core.traffic.dispatcher import Dispatcher

# Members looked up once: on Python 3.11 each look-up costs as much as a call.
_COMPLETE, _CLIENT_GONE, _SUCCESS = Ending.COMPLETE, Ending.CLIENT_GONE, OutcomeStatus.SUCCESS


class Attempt(PlacedListener):
    """Follows one forwarded request; the relay's listener."""

    __slots__ = (
        "_awaits_id",
        "_delay_s",
        "_dispatcher",
        "_exchange",
        "_lease",
        "_policy",
        "_request",
        "_started",
        "_trials",
        "_ttft_s",
    )

    def __init__(
        self,
        dispatcher: Dispatcher,
        exchange: Exchange,
        request: RoutingRequest,
        lease: Lease,
        *,
        started: float,
        trials: Trials | None,
    ) -> None:
        self._dispatcher = dispatcher
        self._policy = dispatcher.policy  # whoever placed it hears of its end, even if another decides by then
        self._policy.in_flight += 1
        self._exchange = exchange
        self._request = request
        self._lease = lease
        self._started = started
        self._trials = trials  # None on the first attempt
        self._ttft_s: float | None = None
        self._delay_s: float | None = None  # until the next attempt, if that was granted before this one's end
        self._awaits_id = False  # a stored response's id has not come yet

    @property
    def worker(self) -> Worker:
        """Who was chosen."""
        return self._lease.worker

    def declines(self, answer: AnswerHead) -> bool:
        """Keep an error from the client if the request may be sent again."""
        if answer.status not in self._dispatcher.retries.rules.statuses:
            return False
        self._delay_s = self._ask_for_another(failure_of_status(answer.status), retry_after_s(answer))
        return self._delay_s is not None

    def worker_down(self, worker: Worker, reason: str) -> None:
        """A worker was found dead: if it is this one's and there is no answer yet, go elsewhere, if that is granted."""
        if worker is self.worker and self._exchange.status is None and self._delay_s is None:
            self._delay_s = self._ask_for_another(Failure.SILENT)
            if self._delay_s is not None:
                self._exchange.give_up(f"the worker was found dead: {reason}")

    def on_first_byte(self, data: bytes) -> None:
        """The answer begins: prefill is over, unless it is an error that begins."""
        if self._trials is not None:
            self._dispatcher.retries.answered(self._trials)
        status = self._exchange.status
        if status is None or status >= 400:
            return
        dispatcher, worker = self._dispatcher, self._lease.worker
        self._ttft_s = dispatcher.now() - self._started
        self._lease.first_token()
        policy = self._policy
        if policy.wants_first_token:
            policy.first_token(worker, self._request)
        if self._exchange.head.path == b"/v1/responses":
            self._awaits_id = not dispatcher.stored_responses.learn(data, worker)

    def on_end(self, ending: Ending) -> None:
        """Release and tell everybody, once; then answer the client, or try again, if nobody answered."""
        if not self._lease.release():
            return
        dispatcher, exchange, request, worker = self._dispatcher, self._exchange, self._request, self._lease.worker
        if self._awaits_id:
            dispatcher.stored_responses.learn(exchange.tail, worker)
        outcome = self._outcome(ending)
        self._policy.request_complete(worker, request, outcome)
        if exchange.follower is not None and (followers := following(exchange)) is not None:
            followers.attempt_ended(worker, request, outcome)
        breakers = dispatcher.breakers
        if outcome.status is not _SUCCESS or breakers.half_open:
            breakers.ended(worker, self, outcome.status, lost_since=self._started if ending in LOSSES else None)
        if worker.is_draining:
            dispatcher.finish_draining(worker)
        if ending is not _COMPLETE and ending is not _CLIENT_GONE:
            error = exchange.error or f"answered {outcome.http_status}, not passed on"
            dispatcher.worker_failed(worker, ending, error, exchange.request_id)
            if exchange.status is None:
                self._follow_up(ending)
                return
        if self._trials is not None:
            dispatcher.retries.over(self._trials, ending, exchange.status)

    def last_words(self, ending: Ending) -> bytes:
        """End a stream that broke off with an error in its own form."""
        return last_words(self._exchange.head.path, ending)

    def _follow_up(self, ending: Ending) -> None:
        failure = failure_of_ending(ending)
        if self._delay_s is None and failure is not None:
            self._delay_s = self._ask_for_another(failure)
        dispatcher, trials = self._dispatcher, self._trials
        if self._delay_s is None or trials is None:
            dispatcher.give_up(self._exchange, ending, trials)
        else:
            dispatcher.retry(self._exchange, self._request, trials, ending, self._delay_s)

    def _ask_for_another(self, failure: Failure, wish_s: float = 0.0) -> float | None:
        dispatcher, trials = self._dispatcher, self._trials
        if trials is None:
            trials = self._trials = Trials(dispatcher.retries.now() - (dispatcher.now() - self._started))
        return dispatcher.grant(self._exchange, self._request, trials, self.worker, failure, wish_s)

    def _outcome(self, ending: Ending) -> RequestOutcome:
        request, http_status = self._request, self._exchange.status
        duration_s = self._dispatcher.now() - self._started
        if ending is _COMPLETE and http_status is not None:
            if http_status < 400:
                usage = read_usage(self._exchange.tail)
                return RequestOutcome(
                    _SUCCESS,
                    http_status,
                    duration_s,
                    self._ttft_s,
                    usage.prompt_tokens,
                    usage.cached_tokens,
                    usage.completion_tokens,
                    request.attempt,
                    request.leg,
                )
            status = outcome_of_http(http_status)
        elif ending is Ending.DECLINED and self._exchange.declined is not None:
            http_status = self._exchange.declined.head.status
            status = outcome_of_http(http_status)
        else:
            status = OUTCOME_OF_ENDING[ending]
        return RequestOutcome(status, http_status, duration_s, self._ttft_s, attempt=request.attempt, leg=request.leg)
