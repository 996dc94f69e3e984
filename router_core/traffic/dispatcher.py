"""One pool's traffic: select -> reserve -> forward -> complete, with nothing to await in between."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from router_core.contract.request import RoutingRequest
from router_core.contract.worker import Worker, WorkerRole
from router_core.fleet.pool import WorkerPool, has_model
from router_core.plugin_host.manager import PolicyManager
from router_core.plugin_host.pair import PairManager
from router_core.relay.exchange import Exchange
from router_core.relay.head import RequestHead
from router_core.relay.local_answer import error_body
from router_core.relay.parties import Ending
from router_core.traffic.attempt import Attempt
from router_core.traffic.body_prompt import BodyPrompt
from router_core.traffic.following import following
from router_core.traffic.shared import SharedTraffic

_log = logging.getLogger(__name__)
_HEADER_NEED = "header:"
_REGULAR = WorkerRole.REGULAR  # looked up once: on Python 3.11 that costs as much as a call
RESPONSES = b"/v1/responses"


class Dispatcher:
    """Gives each request of a pool to the worker that the pool's policy picks.

    Attributes:
        policy: The pool's policy and observers.
        stored_responses: Which worker made which stored response.
        unrouted: Requests that no worker was picked for, by reason.
        now: Monotonic seconds.
        finish_draining: Lets a draining worker go if nothing runs on it any more; to be called after a completion.
        origin: From a worker's address to the way there.
    """

    def __init__(self, pool: WorkerPool, policy: PolicyManager | PairManager, shared: SharedTraffic) -> None:
        self.policy = policy
        self.stored_responses = shared.stored_responses
        self.unrouted: dict[str, int] = {}
        self.now = shared.now
        self.finish_draining = shared.finish_draining
        self.origin = shared.origin
        self._pool = pool
        self._ledger = shared.ledger
        self._on_connect_failed = shared.on_connect_failed
        self._address = shared.address
        self._needs = policy.needs
        self._header_needs = tuple(
            (need[len(_HEADER_NEED) :], need[len(_HEADER_NEED) :].encode())
            for need in sorted(policy.needs)
            if need.startswith(_HEADER_NEED)
        )

    def dispatch(self, exchange: Exchange, prompt: BodyPrompt | None = None) -> None:
        """Pick a worker and send the request there, or answer why not.

        Args:
            exchange: The request.
            prompt: What its body says, if somebody has read it already.
        """
        candidates = self._pool.candidates(_REGULAR, exchange.model)
        if not candidates:
            self._refuse(exchange, "no_available_workers", self._nobody(exchange.model))
            return
        if exchange.head.path == RESPONSES:
            maker = self.stored_responses.find_previous(exchange.body)
            if maker in candidates:
                candidates = (maker,)  # Nobody else knows the conversation that goes on.
        if not self._place(exchange, self._routing_request(exchange, prompt), candidates, ()):
            self._refuse(exchange, "no_suitable_worker", "The policy found none of the workers suitable.")

    def try_elsewhere(self, exchange: Exchange, request: RoutingRequest, tried: tuple[Worker, ...]) -> bool:
        """Pick again among the workers not tried yet: nothing of the request has been sent. False if none is left."""
        able = self._pool.candidates(_REGULAR, exchange.model)
        candidates = tuple(worker for worker in able if worker not in tried)
        return bool(candidates) and self._place(exchange, request.next_attempt(), candidates, tried)

    def _place(
        self, exchange: Exchange, request: RoutingRequest, candidates: tuple[Worker, ...], tried: tuple[Worker, ...]
    ) -> bool:
        started = self.now()
        worker = self.policy.select_single(candidates, request)
        if _log.isEnabledFor(logging.DEBUG):
            log_decision(worker, request)
        if worker is None:
            return False
        if exchange.follower is not None:
            self._tell_placed(exchange, worker, request)
        attempt = Attempt(self, exchange, request, self._ledger.reserve(worker, request), started=started, tried=tried)
        if self._address is not None:
            self._address(exchange, worker)
        exchange.forward(self.origin(worker.base_url), attempt)
        return True

    def worker_failed(self, worker: Worker, ending: Ending, exchange: Exchange) -> None:
        """A worker did not answer as it should."""
        _log.warning("%s: %s (%s)", worker.url, exchange.error, ending.name.lower())
        if ending is Ending.CONNECT_FAILED:
            self._on_connect_failed(worker)

    def _tell_placed(self, exchange: Exchange, worker: Worker, request: RoutingRequest) -> None:
        followers = following(exchange)
        if followers is not None:
            followers.placed(exchange, worker, request, self.policy.name)

    def _routing_request(self, exchange: Exchange, prompt: BodyPrompt | None) -> RoutingRequest:
        head = exchange.head
        if prompt is None:
            prompt = BodyPrompt(head, exchange.body)
        if not self._header_needs:
            return RoutingRequest(exchange.request_id, prompt, needs=self._needs)
        return RoutingRequest(exchange.request_id, prompt, needs=self._needs, headers=self._headers(head))

    def _headers(self, head: RequestHead) -> Mapping[str, str]:
        return {
            name: head.fields[field].decode("latin-1") for name, field in self._header_needs if field in head.fields
        }

    def _nobody(self, model: str | None) -> str:
        workers = [worker for worker in self._pool.workers if model is None or has_model(worker, model)]
        what = f" of model {model!r}" if model else ""
        if not workers:
            return f"No worker{what} is configured."
        draining = sum(worker.is_draining for worker in workers)
        others = f"{draining} draining, no other healthy" if draining else "none healthy"
        return f"No worker{what} is available: {len(workers)} configured, {others}."

    def _refuse(self, exchange: Exchange, code: str, message: str) -> None:
        self.unrouted[code] = self.unrouted.get(code, 0) + 1
        exchange.respond(503, error_body(503, code, message))


def log_decision(worker: Worker | None, request: RoutingRequest) -> None:
    """Log who was picked and why; figures only, never a prompt."""
    parts = " ".join(f"{name}={value!r}" for name, value in request.reason_parts.items()) if request.reason else ""
    where = "no worker" if worker is None else worker.url
    _log.debug("%r attempt %d: %s, %s %s", request.id, request.attempt, where, request.reason or "unexplained", parts)
