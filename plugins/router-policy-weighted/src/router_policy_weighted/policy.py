"""The `weighted` policy."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from router_core.api import PoolContext, RequestOutcome, RoutingRequest, Worker, hookimpl
from router_policy_weighted.options import WeightedConfig
from router_policy_weighted.picking import highest, weighted_random
from router_policy_weighted.scorers import Scorers


class WeightedPolicy:
    """Take the worker with the highest weighted sum of scores, each from 0 to 1.

    Which scorers there are, and their weights, is for the options to say.
    """

    Config = WeightedConfig

    def __init__(self, config: WeightedConfig) -> None:
        self._scorers = Scorers(config)
        self.needs = self._scorers.needs
        self._pick, self._reason = (
            (highest, "highest_score") if config.picker == "max" else (weighted_random, "drawn_by_score")
        )
        self._draw = random.Random().random  # noqa: S311  spreads load, guards nothing
        self._now: Callable[[], float] = float  # 0.0, until there is a pool

    @hookimpl
    def on_start(self, pool: PoolContext) -> None:
        """Draw from the pool's random source."""
        self._draw = pool.random.random
        self._now = pool.now

    @hookimpl
    def select_single(self, workers: Sequence[Worker], request: RoutingRequest) -> Worker:
        """Return the worker with the highest sum, or one drawn by the sums."""
        case = self._scorers.case(workers, request)
        sums, scores = self._scorers.sums(case)
        at = self._pick(sums, self._draw)
        request.explain(self._reason, **{name: given[at] for name, given in scores.items()}, **case.expectation(at))
        self._scorers.placed(workers[at], case, self._now())
        return workers[at]

    @hookimpl
    def on_first_token(self, worker: Worker, request: RoutingRequest) -> None:
        """A prefill is over."""
        self._scorers.first_token(worker, request)

    @hookimpl
    def on_request_complete(self, worker: Worker, request: RoutingRequest, outcome: RequestOutcome) -> None:
        """An attempt has ended."""
        self._scorers.completed(worker, request, outcome)

    @hookimpl
    def on_worker_removed(self, worker: Worker) -> None:
        """A worker left for good."""
        self._scorers.removed(worker)
