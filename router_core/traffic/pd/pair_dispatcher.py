"""The traffic of a pool of prefill and decode workers: a pair is chosen whole before anything of a request is sent."""

from __future__ import annotations

import asyncio
import logging

from router_core.contract.request import Leg, RoutingRequest
from router_core.contract.worker import Worker, WorkerRole
from router_core.fleet.ledger import Lease
from router_core.fleet.pool import WorkerPool
from router_core.plugin_host.manager import PolicyManager
from router_core.plugin_host.pair import PairManager
from router_core.relay.exchange import Exchange
from router_core.traffic.body_prompt import BodyPrompt
from router_core.traffic.dispatcher import RESPONSES, Dispatcher, log_decision, untried
from router_core.traffic.pd.linger import Linger
from router_core.traffic.pd.pair_attempt import PairAttempt
from router_core.traffic.pd.protocol import PairProtocol
from router_core.traffic.retry import Trials
from router_core.traffic.shared import SharedTraffic

_log = logging.getLogger(__name__)

GENERATION_PATHS = frozenset(
    {b"/v1/chat/completions", b"/v1/completions", b"/v1/responses", b"/v1/messages", b"/generate"}
)
"""Paths whose requests have a decode part. All others go to one prefill worker."""


class PairDispatcher(Dispatcher):
    """Gives each request to the pair of workers that the pool's policy, or its two policies, pick.

    Attributes:
        protocol: How the two legs are worded.
    """

    def __init__(
        self,
        pool: WorkerPool,
        policy: PolicyManager | PairManager,
        shared: SharedTraffic,
        protocol: PairProtocol,
    ) -> None:
        self.protocol = protocol
        self._local = protocol.local_prefill
        super().__init__(pool, policy, shared)
        if self._local is not None:
            self._placed = self._local.placed
            pool.subscribe(on_removed=self._local.forget)
        self._loop = shared.loop
        self._lingering: set[Linger] = set()

    def set_policy(self, policy: PolicyManager | PairManager) -> None:
        """Have another policy decide from now on."""
        super().set_policy(policy)
        if self._local is not None:
            self._needs |= self._local.needs

    def dispatch(self, exchange: Exchange, prompt: BodyPrompt | None = None) -> None:
        """Pick a pair and send the request there, or answer why not."""
        exchange.fix_request_fields()  # both legs are sent by heads of their own
        prefills = self._pool.candidates(WorkerRole.PREFILL, exchange.model)
        decodes = self._pool.candidates(WorkerRole.DECODE, exchange.model)
        is_generation = exchange.head.path in GENERATION_PATHS
        if not prefills or (is_generation and not decodes):
            self._refuse(exchange, "no_available_workers", self._nobody_of(prefills))
            return
        request = self._routing_request(exchange, prompt)
        if exchange.head.path == RESPONSES:
            decodes = self._who_knows(exchange, decodes)
        if not is_generation:
            is_placed = self._place(exchange, request, prefills, None)
        elif alone := self._alone(request, decodes):
            request.leg = Leg.DECODE
            is_placed = self._place(exchange, request, alone, None)
        else:
            is_placed = self._place_pair(exchange, request, prefills, decodes, None)
        if not is_placed:
            self._refuse(exchange, "no_suitable_worker", "The policy found none of the workers suitable.")

    def _place_again(self, exchange: Exchange, request: RoutingRequest, trials: Trials) -> bool:
        """Pick again: a pair, or one worker for a request that one serves alone."""
        if request.leg is Leg.DECODE or exchange.head.path not in GENERATION_PATHS:
            return super()._place_again(exchange, request, trials)
        prefills = untried(self._pool.candidates(WorkerRole.PREFILL, exchange.model), trials)
        decodes = self._pool.candidates(WorkerRole.DECODE, exchange.model)
        if exchange.head.path == RESPONSES:
            decodes = self._who_knows(exchange, decodes)
        decodes = untried(decodes, trials)
        if not prefills or not decodes:
            return False
        return self._place_pair(exchange, self._again(exchange, request), prefills, decodes, trials)

    def place_decode(
        self, exchange: Exchange, request: RoutingRequest, prefill: Worker, trials: Trials
    ) -> tuple[RoutingRequest, Lease] | None:
        """Pick and reserve a decode worker, of those not tried yet, for what a prefill worker has computed.

        Args:
            exchange: The request.
            request: As it was placed before.
            prefill: Who has the KV cache.
            trials: What it has been through; the worker tried last was a decode worker.
        """
        candidates = self._candidates_like(exchange, request, trials.tried[-1])
        decodes = tuple(worker for worker in candidates if worker not in trials.tried)
        if not decodes:
            return None
        again = self._again(exchange, request)
        worker = self.policy.select_decode(prefill, decodes, again)
        if _log.isEnabledFor(logging.DEBUG):
            log_decision(worker, again)
        if worker is None:
            return None
        if exchange.follower is not None:
            self._tell_placed(exchange, worker, again)
        if self._local is not None:
            self._local.placed(worker, again)
        return again, self._ledger.reserve(worker, again, Leg.DECODE)

    def linger(self, linger: Linger) -> asyncio.TimerHandle:
        """Let the legs of a client that left go on for a while."""
        self._lingering.add(linger)
        return self._loop.call_later(self.protocol.linger_s, linger.give_up)

    def lingered(self, linger: Linger) -> None:
        """Its legs are over."""
        self._lingering.discard(linger)

    def close(self) -> None:
        """Cut what still runs for clients that have left."""
        for linger in tuple(self._lingering):
            linger.give_up()

    def _place_pair(
        self,
        exchange: Exchange,
        request: RoutingRequest,
        prefills: tuple[Worker, ...],
        decodes: tuple[Worker, ...],
        trials: Trials | None,
    ) -> bool:
        pair = self.policy.select_pair(prefills, decodes, request)
        if _log.isEnabledFor(logging.DEBUG):
            for worker in pair or (None,):
                log_decision(worker, request)
        if pair is None:
            return False
        if exchange.follower is not None:
            for worker in pair:
                self._tell_placed(exchange, worker, request)
        leases = (
            self._ledger.reserve(pair[0], request, Leg.PREFILL),
            self._ledger.reserve(pair[1], request, Leg.DECODE),
        )
        if self._local is not None:
            self._local.placed(pair[1], request)
        PairAttempt(self, exchange, request, leases, trials=trials).start()
        return True

    def _alone(self, request: RoutingRequest, decodes: tuple[Worker, ...]) -> tuple[Worker, ...]:
        """Return the decode workers that had better do all of a request, empty for a pair."""
        return () if self._local is None else self._local.candidates(request, decodes)

    def _nobody_of(self, prefills: tuple[Worker, ...]) -> str:
        missing = WorkerRole.DECODE if prefills else WorkerRole.PREFILL
        return f"No {missing} worker is available: none of those configured is healthy."
