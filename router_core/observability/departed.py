"""Series of workers that have left a pool: removed once nothing runs on them, lest a fleet whose addresses change fill
the metrics.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from router_core.contract.worker import Worker
from router_core.observability.exposition import Sample

_AT_ONCE = 256
"""So many may wait for the next scrape; to remove one takes as long as to remove many."""


class Forgetful(Protocol):
    """Removes series."""

    def forget(self, labels: Mapping[str, Collection[str]]) -> None:
        """Remove those whose labels have one of these values each."""


class DepartedWorkers:
    """Who has left one pool, and still has series.

    The series go with the next scrape after the worker's last request has ended, anywhere in the fleet, or when it
    returns: then they start afresh. One that returns while requests of its still run has never been away.

    Args:
        registry: Has the series.
        pool: The pool's name.
    """

    def __init__(self, registry: Forgetful, pool: str) -> None:
        self._registry = registry
        self._pool = pool
        self._workers: dict[str, Worker] = {}

    def add(self, worker: Worker) -> None:
        """A worker has left, and everybody has heard of it."""
        self._workers[worker.url] = worker
        if len(self._workers) > _AT_ONCE:
            self.sweep()

    def discard(self, worker: Worker) -> None:
        """A worker joins, and nobody has heard of it yet."""
        if worker.url in self._workers:
            self.sweep()
            self._workers.pop(worker.url, None)

    def sweep(self) -> tuple[Sample, ...]:
        """Remove the series of those on whom nothing runs any more; a sampler that has no samples."""
        idle = [url for url, worker in self._workers.items() if worker.load <= 0]
        for url in idle:
            del self._workers[url]
        if idle:
            self._registry.forget({"pool": (self._pool,), "worker": idle})
        return ()
