"""The `manual` policy."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from router_core.api import Leg, PolicyConfig, PoolContext, RoutingRequest, Worker, hookimpl, least_loaded
from router_policy_consistent_hash.assignments import Assignments
from router_policy_consistent_hash.keys import KeyReader, KeySources


class ManualPolicy:
    """Give each new key a worker and remember it, however busy that one becomes.

    While a key's worker is unhealthy a second one stands in for it, and is remembered as such: when the first is back,
    so is the key.
    """

    class Config(PolicyConfig):
        """Options of `manual`."""

        keys: KeySources = ("header:x-smg-routing-key",)
        """What belongs together, the first that a request has: `header:NAME`, `session`, `user`, `prefix`."""

        assignment_mode: Literal["random", "min_load", "min_group"] = "random"
        """Who gets a new key: anybody, who has the fewest requests in flight, or who was given the fewest keys."""

        max_idle_secs: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 14_400
        """A key that no request named for so many seconds is forgotten."""

        max_keys: Annotated[int, Field(ge=1)] = 1_000_000
        """Keys to remember, about 300 bytes each; past it the one not used for longest is forgotten."""

        prefix_tokens: Annotated[int, Field(ge=1)] = 256
        """How much of a prompt is the key `prefix`; four characters are taken for a token."""

    def __init__(self, config: Config) -> None:
        self._reader = KeyReader(config.keys, config.prefix_tokens)
        self.needs = self._reader.needs
        self._mode = config.assignment_mode
        self._assignments = {leg: Assignments(config.max_idle_secs, config.max_keys) for leg in Leg}
        self._draw = random.Random().random  # noqa: S311  spreads load, guards nothing
        self._now = _stopped_clock

    @hookimpl
    def on_start(self, pool: PoolContext) -> None:
        """Take the pool's clock and random source."""
        self._draw = pool.random.random
        self._now = pool.now

    @hookimpl
    def select_single(self, workers: Sequence[Worker], request: RoutingRequest) -> Worker:
        """Return the worker of the request's key; a new key is given one."""
        assignments = self._assignments[request.leg]
        key = self._reader.read(request)
        # 1. Nothing to keep together.
        if key is None:
            request.explain("no_key")
            return self._assign(workers, assignments)
        # 2. It has a worker, or one that stands in for it.
        by_url = {worker.url: worker for worker in workers}
        now = self._now()
        home = assignments.find(key.digest, by_url, now)
        if home is not None:
            request.explain("sticky", key=key.source)
            return by_url[home]
        # 3. A new key, or nobody who had it is there.
        chosen = self._assign(workers, assignments)
        assignments.assign(key.digest, chosen.url, now)
        request.explain("assigned", key=key.source)
        return chosen

    @hookimpl
    def on_worker_removed(self, worker: Worker) -> None:
        """Take a worker's keys away from it when it left for good."""
        for assignments in self._assignments.values():
            assignments.remove(worker.url)

    def _assign(self, workers: Sequence[Worker], assignments: Assignments) -> Worker:
        if self._mode == "random":
            return workers[int(self._draw() * len(workers))]
        if self._mode == "min_load":
            return least_loaded(workers)
        return min(workers, key=lambda worker: (assignments.keys_of(worker.url), worker.load, worker.last_reserved))


def _stopped_clock() -> float:
    return 0.0
