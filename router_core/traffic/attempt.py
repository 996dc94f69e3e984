"""One attempt at serving a request: from the reservation to its one completion."""

from __future__ import annotations

from typing import TYPE_CHECKING

from router_core.contract.request import OutcomeStatus, RequestOutcome, RoutingRequest
from router_core.contract.worker import Worker
from router_core.fleet.ledger import Lease
from router_core.relay.exchange import Exchange
from router_core.relay.local_answer import error_body
from router_core.relay.parties import Ending
from router_core.traffic.following import following
from router_core.traffic.usage import read_usage

if TYPE_CHECKING:
    from router_core.traffic.dispatcher import Dispatcher

# Members looked up once: on Python 3.11 each look-up costs as much as a call.
_COMPLETE, _CLIENT_GONE, _SUCCESS = Ending.COMPLETE, Ending.CLIENT_GONE, OutcomeStatus.SUCCESS
_BACKPRESSURE = frozenset({429, 503})
OUTCOME_OF_ENDING = {
    Ending.CONNECT_FAILED: OutcomeStatus.ERROR,
    Ending.CONNECTION_LOST: OutcomeStatus.ERROR,
    Ending.BAD_ANSWER: OutcomeStatus.ERROR,
    Ending.TIMEOUT: OutcomeStatus.TIMEOUT,
    Ending.CLIENT_GONE: OutcomeStatus.CANCELLED,
}
# Details, such as a worker's address, are for the log.
ANSWER_TO_ENDING = {
    Ending.CONNECT_FAILED: (502, "upstream_connection_failed", "No worker could be reached."),
    Ending.CONNECTION_LOST: (502, "upstream_connection_lost", "The worker's connection was lost before it answered."),
    Ending.BAD_ANSWER: (502, "upstream_bad_answer", "The worker's answer was not valid HTTP."),
    Ending.TIMEOUT: (504, "upstream_timeout", "The worker did not answer in time."),
}


class Attempt:
    """Follows one forwarded request; the relay's listener."""

    __slots__ = ("_awaits_id", "_dispatcher", "_exchange", "_lease", "_request", "_started", "_tried", "_ttft_s")

    def __init__(
        self,
        dispatcher: Dispatcher,
        exchange: Exchange,
        request: RoutingRequest,
        lease: Lease,
        *,
        started: float,
        tried: tuple[Worker, ...],
    ) -> None:
        self._dispatcher = dispatcher
        self._exchange = exchange
        self._request = request
        self._lease = lease
        self._started = started
        self._tried = tried
        self._ttft_s: float | None = None
        self._awaits_id = False  # a stored response's id has not come yet

    def on_first_byte(self, data: bytes) -> None:
        """The answer begins: prefill is over, unless it is an error that begins."""
        status = self._exchange.status
        if status is None or status >= 400:
            return
        dispatcher, worker = self._dispatcher, self._lease.worker
        self._ttft_s = dispatcher.now() - self._started
        self._lease.first_token()
        if dispatcher.policy.wants_first_token:
            dispatcher.policy.first_token(worker, self._request)
        if self._exchange.head.path == b"/v1/responses":
            self._awaits_id = not dispatcher.stored_responses.learn(data, worker)

    def on_end(self, ending: Ending) -> None:
        """Release and tell everybody, once; then answer the client if nobody did."""
        if not self._lease.release():
            return
        dispatcher, exchange, request, worker = self._dispatcher, self._exchange, self._request, self._lease.worker
        if self._awaits_id:
            dispatcher.stored_responses.learn(exchange.tail, worker)
        outcome = self._outcome(ending)
        dispatcher.policy.request_complete(worker, request, outcome)
        if exchange.follower is not None and (followers := following(exchange)) is not None:
            followers.attempt_ended(worker, request, outcome)
        if worker.is_draining:
            dispatcher.finish_draining(worker)
        if ending is _COMPLETE or ending is _CLIENT_GONE:
            return
        dispatcher.worker_failed(worker, ending, exchange)
        if exchange.status is not None:
            return
        if ending is Ending.CONNECT_FAILED and dispatcher.try_elsewhere(exchange, request, (*self._tried, worker)):
            return
        status, code, message = ANSWER_TO_ENDING[ending]
        exchange.respond(status, error_body(status, code, message))

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
        else:
            status = OUTCOME_OF_ENDING[ending]
        return RequestOutcome(status, http_status, duration_s, self._ttft_s, attempt=request.attempt, leg=request.leg)


def outcome_of_http(http_status: int) -> OutcomeStatus:
    """Return what an answer that is an error says of its worker."""
    if http_status in _BACKPRESSURE:
        return OutcomeStatus.BACKPRESSURE
    return OutcomeStatus.CLIENT_ERROR if http_status < 500 else OutcomeStatus.ERROR
