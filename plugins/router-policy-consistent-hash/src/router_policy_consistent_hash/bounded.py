"""Rendezvous hashing with bounded loads: a key's workers in their order, the first that is not too busy takes it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from xxhash import xxh3_64_intdigest

from router_core.api import RoutingRequest, Worker, least_loaded
from router_policy_consistent_hash.keys import Key, KeyReader


class BoundedHash:
    """Chooses by key.

    Args:
        reader: Finds the key.
        load_factor: How many times its fair share of the requests in flight a worker takes; None for any number.
        min_capacity: Requests in flight that a worker takes in any case.
    """

    def __init__(self, reader: KeyReader, load_factor: float | None, min_capacity: int) -> None:
        self._reader = reader
        self._load_factor = load_factor
        self._min_capacity = min_capacity

    def choose(self, workers: Sequence[Worker], request: RoutingRequest) -> Worker:
        """Return the first worker of the request's key with room, the least loaded one if it has no key."""
        key = self._reader.read(request)
        if key is None:
            request.explain("no_key")
            return least_loaded(workers)
        home = max(workers, key=lambda worker: _weight(worker, key))
        if self._load_factor is None:
            request.explain("home", key=key.source, load=home.load)
            return home
        total = sum([worker.load for worker in workers])
        capacity = max(math.ceil(self._load_factor * (total + 1) / len(workers)), self._min_capacity)
        if home.load < capacity:
            request.explain("home", key=key.source, load=home.load, capacity=capacity)
            return home
        # Somebody has room: all workers together have room for more than `total`.
        ranking = sorted(workers, key=lambda worker: _weight(worker, key), reverse=True)
        rank, chosen = next((rank, worker) for rank, worker in enumerate(ranking) if worker.load < capacity)
        request.explain("overflow", key=key.source, rank=rank, load=chosen.load, home_load=home.load, capacity=capacity)
        return chosen


def _weight(worker: Worker, key: Key) -> int:
    return xxh3_64_intdigest(worker.url.encode(), key.digest)
