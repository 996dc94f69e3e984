"""What becomes of the requests on a worker that its health checks find dead."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable

from router_core.contract.worker import Worker
from router_core.fleet.breaker import CircuitBreakers
from router_core.relay.exchange import Exchange
from router_core.relay.parties import Listener


class PlacedListener(Listener):
    """A listener to a request that workers of a pool serve."""

    __slots__ = ()

    @abstractmethod
    def worker_down(self, worker: Worker, reason: str) -> None:
        """A worker, perhaps one of this request's, was found dead."""


class DeadWorkers:
    """Sends requests that have no answer yet elsewhere, and gives a worker that comes back another trial.

    A dead machine does not close its connections: without this its requests would wait for their time to run out. One
    whose answer has begun goes on as long as it can, and so does one that gets no other attempt: the checks may be
    wrong.
    """

    def __init__(
        self, exchanges: Callable[[], Iterable[Exchange]], breakers: CircuitBreakers, *, retries: bool
    ) -> None:
        self._exchanges = exchanges
        self._breakers = breakers
        self._retries = retries

    def health_changed(self, worker: Worker, is_healthy: bool, reason: str | None) -> None:
        """A worker's health has changed; the health checker tells."""
        if is_healthy:
            self._breakers.recovered(worker)
        elif self._retries:
            for exchange in self._exchanges():
                if isinstance(exchange.listener, PlacedListener):
                    exchange.listener.worker_down(worker, reason or "its health checks fail")
