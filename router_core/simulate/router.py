"""A simulated router: the real policy manager, pool and ledger, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

from router_core.contract.request import Leg, OutcomeStatus, RequestOutcome, RoutingRequest
from router_core.contract.worker import EngineTelemetry, Worker, WorkerRole, assign
from router_core.fleet.ledger import Lease, Ledger
from router_core.fleet.pool import WorkerPool
from router_core.plugin_host.context import LivePoolContext
from router_core.plugin_host.manager import PolicyManager
from router_core.plugin_host.pair import PairManager
from router_core.simulate.simulated_worker import SimulatedWorker
from router_core.simulate.virtual_time import VirtualTime

_HEADER_NEED = "header:"
_HTTP_STATUS: Mapping[OutcomeStatus, int] = MappingProxyType(
    {OutcomeStatus.SUCCESS: 200, OutcomeStatus.CLIENT_ERROR: 400}
)


class Placement:
    """A reservation on one worker; ends with exactly one `complete`."""

    __slots__ = ("is_over", "leg", "number", "worker", "_began_s", "_lease", "_request", "_router", "_ttft_s")

    def __init__(self, router: Router, lease: Lease, request: RoutingRequest, leg: Leg, number: int) -> None:
        self.is_over = False
        self.leg = leg
        self.number = number
        self.worker = lease.worker
        self._router = router
        self._lease = lease
        self._request = request
        self._began_s = router.time.now_s
        self._ttft_s: float | None = None

    def first_token(self) -> None:
        """Prefill is over."""
        router = self._router
        self._ttft_s = router.time.now_s - self._began_s
        self._lease.first_token()
        if router.manager.wants_first_token:
            router.manager.first_token(self.worker, self._request)

    def complete(
        self,
        status: OutcomeStatus,
        *,
        prompt_tokens: int | None = None,
        cached_tokens: int | None = None,
        completion_tokens: int | None = None,
    ) -> None:
        """The leg is over: release, then tell the policy."""
        self.is_over = True
        self._lease.release()
        request = self._request
        outcome = RequestOutcome(
            status,
            _HTTP_STATUS.get(status),
            self._router.time.now_s - self._began_s,
            self._ttft_s,
            prompt_tokens,
            cached_tokens,
            completion_tokens,
            request.attempt,
            self.leg,
        )
        self._router.manager.request_complete(self.worker, request, outcome)


class Router:
    """One router with plugins and a ledger of its own; several may stand before the same engines.

    Attributes:
        manager: Its policy, with what is around and beside it.
        needs: What they need of a request.
        needed_headers: The headers among that, by lower-case name.
        time: Its clock.
    """

    def __init__(
        self,
        manager: PolicyManager | PairManager,
        *,
        seed: int | str,
        time: VirtualTime,
        roles: Sequence[WorkerRole],
    ) -> None:
        """Start the plugins and let the workers join.

        Args:
            manager: Its policy, not started; no other router's.
            seed: Of the plugins' random sources.
            time: The virtual clock.
            roles: The role of each worker, in order.
        """
        self.time = time
        self.manager = manager
        self.needs = manager.needs
        self.needed_headers = tuple(
            need.removeprefix(_HEADER_NEED) for need in sorted(self.needs) if need.startswith(_HEADER_NEED)
        )
        self._ledger = Ledger()
        self._workers = tuple(Worker(f"http://worker-{number}", role=role) for number, role in enumerate(roles))
        self._numbers = {worker.url: number for number, worker in enumerate(self._workers)}
        self._pool = WorkerPool("default")
        self._pool.subscribe(self.manager.worker_added, self.manager.worker_removed)

        def make_context(plugin: str) -> LivePoolContext:
            return LivePoolContext("default", seed=f"{seed}/{plugin}", scheduler=time, sink=_NoSink(), now=time.now)

        _await(partial(self.manager.start, make_context))
        for worker in self._workers:
            self._pool.add(worker)

    def stop(self) -> None:
        """Stop the plugins."""
        _await(self.manager.stop)

    def place(self, request: RoutingRequest) -> Placement | None:
        """Choose a regular worker and reserve it; None when there is nobody."""
        candidates = self._pool.candidates()
        worker = self.manager.select_single(candidates, request) if candidates else None
        return None if worker is None else self._reserve(worker, request, Leg.SINGLE)

    def place_pair(self, request: RoutingRequest) -> tuple[Placement, Placement] | None:
        """Choose a prefill and a decode worker and reserve both; None when there is no pair."""
        prefills, decodes = self._pool.candidates(WorkerRole.PREFILL), self._pool.candidates(WorkerRole.DECODE)
        pair = self.manager.select_pair(prefills, decodes, request) if prefills and decodes else None
        if pair is None:
            return None
        return self._reserve(pair[0], request, Leg.PREFILL), self._reserve(pair[1], request, Leg.DECODE)

    def set_health(self, number: int, *, is_healthy: bool) -> None:
        """Say whether a worker is fit to be chosen."""
        self._pool.set_health(self._workers[number], is_healthy)

    def poll(self, workers: Iterable[SimulatedWorker]) -> None:
        """Take in the engines' telemetry."""
        for simulated in workers:
            engine = simulated.engine
            reading = None
            if simulated.is_up:
                cache = engine.cache
                capacity = cache.capacity_blocks * cache.block_tokens
                reading = EngineTelemetry(
                    self.time.now_s,
                    engine.running,
                    len(engine.waiting),
                    engine.waiting_tokens,
                    cache.pinned_tokens / capacity if capacity else None,
                )
            assign(self._workers[simulated.number], engine=reading)

    def _reserve(self, worker: Worker, request: RoutingRequest, leg: Leg) -> Placement:
        lease = self._ledger.reserve(worker, request, leg)
        self.manager.in_flight += 1
        return Placement(self, lease, request, leg, self._numbers[worker.url])


class _NoSink:
    """Forgets all metrics."""

    def count(self, name: str, value: float, labels: dict[str, str]) -> None:
        """Forget it."""

    def gauge(self, name: str, value: float, labels: dict[str, str]) -> None:
        """Forget it."""

    def observe(self, name: str, value: float, labels: dict[str, str]) -> None:
        """Forget it."""

    def counter(self, name: str, labels: dict[str, str]) -> Callable[[float], None]:  # noqa: ARG002
        """Return what forgets."""
        return _forget

    def histogram(self, name: str, labels: dict[str, str]) -> Callable[[float], None]:  # noqa: ARG002
        """Return what forgets."""
        return _forget


def _forget(value: float) -> None:
    """Forget it."""


def _await(life: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Start or stop plugins; in a thread with a running event loop only those that await nothing."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        with asyncio.Runner() as runner:
            runner.run(life())
        return
    coroutine = life()
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise RuntimeError("a plugin awaits in on_start or on_stop: simulate it in a thread without an event loop")
