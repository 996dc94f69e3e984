"""The `lmetric` policy."""

from __future__ import annotations

from collections.abc import Sequence

from router_core.api import (
    BacklogPolicy,
    Leg,
    RoutingRequest,
    Worker,
    fewest_tokens,
    hookimpl,
    prefix_tokens,
)
from router_policy_lmetric.hot_spots import HotSpots


class LmetricPolicy(BacklogPolicy):
    """Take the worker where uncached prefill, the new prompt's included, times requests in flight is least.

    A beginning so frequent that its holders cannot serve it is given to others, too. A decode leg goes to who has the
    fewest tokens in flight.
    """

    class Config(BacklogPolicy.Config):
        """Options of `lmetric`."""

        hot_spot_guard: bool = True
        """Give a beginning that has outgrown the workers that hold it to another one."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._hot_spots = HotSpots(_WINDOW) if config.hot_spot_guard else None

    @hookimpl
    def select_single(self, workers: Sequence[Worker], request: RoutingRequest) -> Worker:
        """Return the worker with the least product."""
        if request.leg is Leg.DECODE:
            request.explain("decode")
            return fewest_tokens(workers)
        backlog, prompt = self.backlog, request.input_tokens
        cached = backlog.match(workers, request)
        pending = [backlog.pending_tokens(worker.url) for worker in workers]
        others = self._who_else(request, cached)
        best, least = -1, (0, 0, 0)
        for at in others or range(len(workers)):
            worker = workers[at]
            cost = max(prompt - cached[at] + pending[at], 1) * (worker.load + 1)
            rank = cost, worker.load, worker.last_reserved
            if best < 0 or rank < least:
                best, least = at, rank
        reason = "hot_prefix" if others else "least_product"
        request.explain(
            reason,
            cost=least[0],
            uncached=prompt - cached[best],
            pending=pending[best],
            cached_share=cached[best] / max(prompt, 1),
        )
        backlog.place(workers[best], request)
        return workers[best]

    def _who_else(self, request: RoutingRequest, cached: Sequence[int]) -> list[int]:
        """Return the places of those who do not hold a hot beginning; empty when it is not hot."""
        guard, prefix = self._hot_spots, request.prefix
        if guard is None or len(prefix) < _CLASS_BLOCKS:
            return []
        others = [at for at, tokens in enumerate(cached) if tokens < _CLASS_TOKENS]
        return others if guard.is_hot(prefix[_CLASS_BLOCKS - 1], len(cached) - len(others), len(others)) else []


_WINDOW = 1000
"""Requests over which shares are taken, as published."""

_CLASS_BLOCKS = 4
"""Blocks that make a class, as published."""

_CLASS_TOKENS = prefix_tokens(_CLASS_BLOCKS)
