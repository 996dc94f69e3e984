"""The `power_of_two` policy."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

from router_core.api import PolicyConfig, PoolContext, RoutingRequest, Worker, hookimpl


class PowerOfTwoPolicy:
    """Draw two candidates at random and take the less loaded one.

    Load is what the router itself has in flight on each: exact, current and known of every worker, so both sides of a
    comparison always hold the same figure. Of equals the one drawn first is taken, which is fair because the draw is.
    """

    class Config(PolicyConfig):
        """Options of `power_of_two`."""

        metric: Literal["requests", "tokens"] = "requests"
        """What load means: `requests` in flight, or estimated prompt `tokens` of the requests in flight."""

    def __init__(self, config: Config) -> None:
        self._load = _requests if config.metric == "requests" else _tokens
        self._draw = random.Random().random  # noqa: S311  spreads load, guards nothing

    @hookimpl
    def on_start(self, pool: PoolContext) -> None:
        """Draw from the pool's random source."""
        self._draw = pool.random.random

    @hookimpl
    def select_single(self, workers: Sequence[Worker], request: RoutingRequest) -> Worker:
        """Return the less loaded of two distinct candidates."""
        count = len(workers)
        if count == 1:
            return workers[0]
        first = int(self._draw() * count)
        second = int(self._draw() * (count - 1))
        if second >= first:  # the second is drawn among the others, so it steps over the first
            second += 1
        chosen, other = workers[first], workers[second]
        load, other_load = self._load(chosen), self._load(other)
        if other_load < load:
            chosen, other, load, other_load = other, chosen, other_load, load
        request.explain(
            "tie" if load == other_load else "less_loaded", load=load, other=other.url, other_load=other_load
        )
        return chosen


def _requests(worker: Worker) -> int:
    return worker.load


def _tokens(worker: Worker) -> int:
    return worker.pending_prompt_tokens + worker.decode_tokens
