"""A prefill/decode pool with a policy for each side: two managers that look like one."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from router_core.contract.pool import PoolContext
from router_core.contract.request import RequestOutcome, RoutingRequest
from router_core.contract.worker import Worker, WorkerRole
from router_core.plugin_host.decision_times import DecisionTimes
from router_core.plugin_host.legs import compose_decode, compose_pair
from router_core.plugin_host.manager import PolicyManager
from router_core.plugin_host.observers import Observers
from router_core.plugin_host.watchdog import Watchdog


class PairManager:
    """Gives the prefill leg to one policy and the decode leg to another; each hears of its own workers only.

    Has the methods of `PolicyManager` that a prefill/decode pool uses. The observers belong to the pool: give them
    here, not to the two managers.

    Attributes:
        prefill: The manager whose `select_single` places the prefill leg.
        decode: The manager whose `select_single` places the decode leg.
        needs: What both and the observers need of a request, together.
        wants_first_token: Whether anybody listens to `on_first_token`.
        in_flight: Attempts placed and not completed, each leg for itself; whoever places them counts them here.
        keeps_observers: Whether its observers are stopped with it.
        on_idle: Called when an attempt completes and none is left in flight.
    """

    def __init__(
        self,
        prefill: PolicyManager,
        decode: PolicyManager,
        *,
        observers: Sequence[tuple[str, object]] = (),
        watchdog: Watchdog | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Check the observers and make ready; no hook is called yet.

        Args:
            prefill: Made without observers.
            decode: Made without observers.
            observers: Name and instance of each.
            watchdog: The one the two managers share, if they do.
            clock: Seconds.
        """
        self.prefill = prefill
        self.decode = decode
        self.observers = Observers(observers, clock=clock)
        self.in_flight = 0
        self.on_idle: Callable[[], None] | None = None
        self.keeps_observers = True
        self._watchdog = Watchdog(clock=clock) if watchdog is None else watchdog
        self.needs = prefill.needs | decode.needs | self.observers.needs
        self.wants_first_token = (
            prefill.wants_first_token or decode.wants_first_token or self.observers.wants_first_token
        )

    @property
    def name(self) -> str:
        """Both policies' names."""
        return f"{self.prefill.name}+{self.decode.name}"

    @property
    def source(self) -> str:
        """Both policies' distributions."""
        return f"{self.prefill.source}+{self.decode.source}"

    @property
    def is_quarantined(self) -> bool:
        """Whether either policy is cut off."""
        return self.prefill.is_quarantined or self.decode.is_quarantined

    @property
    def decision_times(self) -> DecisionTimes:
        """Selections both answered, by what they took."""
        return self.prefill.decision_times + self.decode.decision_times

    @property
    def plugins(self) -> tuple[str, ...]:
        """The names of both policies, their wrappers and the observers."""
        return tuple(dict.fromkeys((*self.prefill.plugins, *self.decode.plugins, *self.observers.names)))

    @property
    def faults(self) -> Mapping[tuple[str, str], int]:
        """Faults by plugin and kind, of both and of the observers."""
        return Counter(self.prefill.faults) + Counter(self.decode.faults) + Counter(self.observers.faults)

    def succeed(self, other: PolicyManager | PairManager) -> None:
        """Take the place of another manager, as `PolicyManager.succeed`."""
        self.observers = other.observers
        other.keeps_observers = False
        self.needs |= self.observers.needs
        self.wants_first_token = self.wants_first_token or self.observers.wants_first_token
        self._watchdog.watch(self.observers.running)

    def select_pair(
        self, prefill_workers: tuple[Worker, ...], decode_workers: tuple[Worker, ...], request: RoutingRequest
    ) -> tuple[Worker, Worker] | None:
        """Return the prefill and the decode worker of a request; None means 503."""
        return compose_pair(
            self.prefill.select_single, self.decode.select_single, prefill_workers, decode_workers, request
        )

    def select_decode(
        self,
        prefill_worker: Worker,  # noqa: ARG002  # as `PolicyManager.select_decode`
        decode_workers: tuple[Worker, ...],
        request: RoutingRequest,
    ) -> Worker | None:
        """Return a decode worker for what a prefill worker has computed already; None when none is suitable."""
        return compose_decode(self.decode.select_single, decode_workers, request)

    def select_single(self, workers: tuple[Worker, ...], request: RoutingRequest) -> Worker | None:
        """Return the worker of a request that needs one side alone; None means 503."""
        return self._side(workers[0]).select_single(workers, request)

    def first_token(self, worker: Worker, request: RoutingRequest) -> None:
        """Tell the worker's side and the observers that prefill is over."""
        self._side(worker).first_token(worker, request)
        self.observers.first_token(worker, request)

    def request_complete(self, worker: Worker, request: RoutingRequest, outcome: RequestOutcome) -> None:
        """Tell the worker's side and the observers that a leg's attempt ended."""
        self._side(worker).request_complete(worker, request, outcome)
        self.observers.request_complete(worker, request, outcome)
        self.in_flight -= 1
        if self.on_idle is not None and self.in_flight <= 0:
            self.on_idle()

    def worker_added(self, worker: Worker) -> None:
        """Tell the worker's side and the observers that it joined."""
        self._side(worker).worker_added(worker)
        self.observers.worker_added(worker)

    def worker_removed(self, worker: Worker) -> None:
        """Tell the worker's side and the observers that it left."""
        self._side(worker).worker_removed(worker)
        self.observers.worker_removed(worker)

    async def start(self, make_context: Callable[[str], PoolContext]) -> None:
        """Start prefill, decode, then the observers.

        Raises:
            StartupError: A policy cannot start; what had started is stopped again.
        """
        await self.prefill.start(make_context)
        self._watchdog.watch(self.observers.running)
        try:
            await self.decode.start(make_context)
            await self.observers.start(make_context)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop what was started, in reverse."""
        if self.keeps_observers:
            await self.observers.stop()
        await self.decode.stop()
        await self.prefill.stop()
        self._watchdog.release(self.observers.running)

    def _side(self, worker: Worker) -> PolicyManager:
        return self.prefill if worker.role is WorkerRole.PREFILL else self.decode
