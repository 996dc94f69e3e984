"""One pool's traffic: select -> reserve -> forward -> complete, with nothing to await in between."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping

from router_core.contract.request import RoutingRequest
from router_core.contract.worker import Circuit, Worker, WorkerRole
from router_core.fleet.pool import WorkerPool, has_model
from router_core.plugin_host.manager import PolicyManager
from router_core.plugin_host.pair import PairManager
from router_core.relay.exchange import Exchange
from router_core.relay.parties import Ending
from router_core.relay.request_head import RequestHead
from router_core.traffic.attempt import Attempt
from router_core.traffic.body_prompt import BodyPrompt
from router_core.traffic.endings import ANSWER_TO_ENDING
from router_core.traffic.failure import Failure
from router_core.traffic.following import following
from router_core.traffic.paths import INFERENCE_PATHS
from router_core.traffic.retry import Trials
from router_core.traffic.shared import SharedTraffic

_log = logging.getLogger(__name__)
_CHECKED_AT_ONCE = frozenset({Ending.CONNECT_FAILED, Ending.CONNECTION_LOST, Ending.GONE, Ending.STALLED})
_SAFE_METHODS = frozenset({b"GET", b"HEAD", b"OPTIONS"})
_HEADER_NEED = "header:"
_REGULAR = WorkerRole.REGULAR  # looked up once: on Python 3.11 that costs as much as a call
RESPONSES = b"/v1/responses"


class Dispatcher:
    """Gives each request of a pool to the worker that the pool's policy picks.

    Attributes:
        policy: The pool's policy and observers.
        stored_responses: Which worker made which stored response.
        breakers: Keep requests from workers that fail them.
        retries: Grant further attempts at requests that failed.
        unrouted: Requests that no worker was picked for, by reason.
        now: Monotonic seconds.
        finish_draining: Lets a draining worker go if nothing runs on it any more; to be called after a completion.
        origin: From a worker's address to the way there.
    """

    def __init__(self, pool: WorkerPool, policy: PolicyManager | PairManager, shared: SharedTraffic) -> None:
        self.stored_responses = shared.stored_responses
        self.breakers = shared.breakers
        self.retries = shared.retries
        self.unrouted = dict.fromkeys(("no_available_workers", "no_suitable_worker"), 0)
        self.now = shared.now
        self.finish_draining = shared.finish_draining
        self.origin = shared.origin
        self._pool = pool
        self._ledger = shared.ledger
        self._on_connect_failed = shared.on_connect_failed
        self._address = shared.address
        self._placed: Callable[[Worker, RoutingRequest], None] | None = None  # told who was sent what
        self.set_policy(policy)

    def set_policy(self, policy: PolicyManager | PairManager) -> None:
        """Have another policy decide from now on; attempts under way stay with the one that placed them."""
        self.policy = policy
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
            candidates = self._who_knows(exchange, candidates)
        if not self._place(exchange, self._routing_request(exchange, prompt), candidates, None):
            self._refuse(exchange, "no_suitable_worker", "The policy found none of the workers suitable.")

    # --- for attempts that failed ---

    def worker_failed(self, worker: Worker, ending: Ending, error: str, request_id: str) -> None:
        """A worker did not answer a request as it should, unless it was the router that could not ask."""
        if ending is Ending.ROUTER_EXHAUSTED:
            return  # The relay says so, and not for each request.
        _log.warning("%s: %s (%s, request %r)", worker.url, error, ending.name.lower(), request_id)
        if ending in _CHECKED_AT_ONCE:
            self._on_connect_failed(worker)

    def grant(
        self,
        exchange: Exchange,
        request: RoutingRequest,
        trials: Trials,
        worker: Worker,
        failure: Failure,
        wish_s: float = 0.0,
    ) -> float | None:
        """Ask for another attempt at a request.

        Args:
            exchange: The request.
            request: Likewise.
            trials: What it has been through.
            worker: Who failed it.
            failure: How.
            wish_s: How long the worker wishes to be left alone.

        Returns:
            After how many seconds it may be made; None if it may not. Granted, it is made by `retry`.
        """
        trials.tried = (*trials.tried, worker)
        may_repeat = exchange.head.path in INFERENCE_PATHS or exchange.head.method in _SAFE_METHODS
        if failure is not Failure.NOT_CONNECTED and not may_repeat:
            return None
        candidates = self._candidates_like(exchange, request, worker)
        if not candidates:
            return None
        is_anyone_left = any(candidate not in trials.tried for candidate in candidates)
        return self.retries.grant(trials, failure, exchange, is_anyone_left=is_anyone_left, wish_s=wish_s)

    def retry(
        self, exchange: Exchange, request: RoutingRequest, trials: Trials, ending: Ending, delay_s: float
    ) -> None:
        """Make the attempt that was granted; if it cannot be made answer for the last one, which ended so."""

        def go_on(end: Ending | None) -> None:
            may_go = end is None and self.retries.pause_over(trials)
            if not may_go or not self._place_again(exchange, request, trials):
                self.give_up(exchange, ending if end is None else end, trials)

        if delay_s > 0:
            self.retries.wait(exchange, delay_s, go_on)
        else:
            go_on(None)

    def give_up(self, exchange: Exchange, ending: Ending, trials: Trials | None) -> None:
        """Answer a request that no worker served: with what a worker last said, else in our words."""
        if trials is not None:
            self.retries.over(trials, ending, None)
        if ending is Ending.CLIENT_GONE or exchange.respond_declined():
            return
        exchange.refuse(*ANSWER_TO_ENDING[ending])

    def _place_again(self, exchange: Exchange, request: RoutingRequest, trials: Trials) -> bool:
        """Pick again, of the workers not tried yet if there are any. False if there is nobody."""
        candidates = untried(self._candidates_like(exchange, request, trials.tried[-1]), trials)
        return bool(candidates) and self._place(exchange, self._again(exchange, request), candidates, trials)

    def _candidates_like(
        self,
        exchange: Exchange,
        request: RoutingRequest,  # noqa: ARG002  # for pools that serve requests in several ways
        worker: Worker,
    ) -> tuple[Worker, ...]:
        """Return who could serve a request in a worker's stead."""
        candidates = self._pool.candidates(worker.role, exchange.model)
        return self._who_knows(exchange, candidates) if exchange.head.path == RESPONSES else candidates

    # --- inside ---

    def _who_knows(self, exchange: Exchange, candidates: tuple[Worker, ...]) -> tuple[Worker, ...]:
        """Return the only one who knows the conversation that goes on; the same candidates if it begins."""
        maker = self.stored_responses.find_previous(exchange.body)
        return (maker,) if maker is not None and maker in candidates else candidates

    def _place(
        self, exchange: Exchange, request: RoutingRequest, candidates: tuple[Worker, ...], trials: Trials | None
    ) -> bool:
        started = self.now()
        worker = self.policy.select_single(candidates, request)
        if _log.isEnabledFor(logging.DEBUG):
            log_decision(worker, request)
        if worker is None:
            return False
        if exchange.follower is not None:
            self._tell_placed(exchange, worker, request)
        if self._placed is not None:
            self._placed(worker, request)
        lease = self._ledger.reserve(worker, request)
        attempt = Attempt(self, exchange, request, lease, started=started, trials=trials)
        if self.breakers.half_open:
            self.breakers.placed(worker, attempt)
        if self._address is not None:
            self._address(exchange, worker)
        exchange.forward(self.origin(worker.base_url), attempt)
        return True

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

    def _again(self, exchange: Exchange, request: RoutingRequest) -> RoutingRequest:
        """Return a request for another try, which another policy may place than the one before."""
        return request.next_attempt(needs=self._needs, headers=self._headers(exchange.head))

    def _headers(self, head: RequestHead) -> Mapping[str, str]:
        return {
            name: head.fields[field].decode("latin-1") for name, field in self._header_needs if field in head.fields
        }

    def _nobody(self, model: str | None) -> str:
        workers = [worker for worker in self._pool.workers if model is None or has_model(worker, model)]
        what = f" of model {model!r}" if model else ""
        if not workers:
            return f"No worker{what} is configured."
        counts = {
            "draining": sum(worker.is_draining for worker in workers),
            "with an open circuit": sum(worker.circuit is not Circuit.CLOSED for worker in workers),
        }
        known = "".join(f"{count} {state}, " for state, count in counts.items() if count)
        others = f"{known}{'no other' if known else 'none'} healthy"
        return f"No worker{what} is available: {len(workers)} configured, {others}."

    def _refuse(self, exchange: Exchange, code: str, message: str) -> None:
        self.unrouted[code] += 1
        wait_s = self.breakers.retry_after_s(self._pool.workers)
        headers = () if wait_s is None else (("Retry-After", str(math.ceil(wait_s))),)
        exchange.refuse(503, code, message, headers)


def untried(candidates: tuple[Worker, ...], trials: Trials) -> tuple[Worker, ...]:
    """Return the candidates that were not tried yet, all of them if all were."""
    return tuple(worker for worker in candidates if worker not in trials.tried) or candidates


def log_decision(worker: Worker | None, request: RoutingRequest) -> None:
    """Log who was picked and why; figures only, never a prompt."""
    parts = " ".join(f"{name}={value!r}" for name, value in request.reason_parts.items()) if request.reason else ""
    where = "no worker" if worker is None else worker.url
    _log.debug("%r attempt %d: %s, %s %s", request.id, request.attempt, where, request.reason or "unexplained", parts)
