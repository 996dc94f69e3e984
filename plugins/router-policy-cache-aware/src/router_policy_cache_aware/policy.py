"""The `cache_aware` policy: its options, its hooks, and what it tells the pool. The deciding is done elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from router_core.api import Leg, PolicyConfig, PoolContext, RequestOutcome, RoutingRequest, Worker, hookimpl
from router_policy_cache_aware.affinity import Affinity
from router_policy_cache_aware.compat import OriginalRules
from router_policy_cache_aware.decision import Decision, Gate, Limits, Rules

logger = logging.getLogger(__name__)


class CacheAwarePolicy:
    """Send a prompt where its longest known prefix was sent while loads are even, else to the shortest queue.

    What each worker has in its cache is not asked but remembered: one radix tree over the text of the prompts holds who
    was given what. With prefill/decode pairs the prefill worker is chosen so, the decode worker by load alone.
    """

    class Config(PolicyConfig):
        """Options of `cache_aware`."""

        cache_threshold: Annotated[float, Field(ge=0, le=1)] = 0.3
        """Follow a prefix if it is more than this share of the prompt's characters."""

        balance_abs_threshold: Annotated[int, Field(ge=0)] = 64
        """Loads are uneven only if the highest exceeds the lowest by more than this many requests."""

        balance_rel_threshold: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.5
        """Loads are uneven only if the highest is also more than this many times the lowest."""

        eviction_interval_secs: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 60
        """Make room in the tree ahead of need every so many seconds. 0: never evict, not even at `max_tree_size`."""

        max_tree_size: Annotated[int, Field(gt=0)] = 67_108_864
        """Characters to remember, over all workers and models together; what was not used for longest goes first."""

        gate: Gate = "fleet"
        """Whose load turns affinity off: the highest of the `fleet`, or that of the `worker` who knows the prompt."""

        compat: Literal["sglang-0.3.2", "tree_size"] | None = None
        """Decide exactly as an older router did, its defects included; only for comparisons."""

        @model_validator(mode="after")
        def _compat_has_one_gate(self) -> Self:
            if self.compat is not None and self.gate != "fleet":
                raise ValueError("gate 'worker' is no rule of an older router; leave out gate or compat")
            return self

    needs = frozenset({"text"})

    def __init__(self, config: Config) -> None:
        self._eviction_interval_secs = config.eviction_interval_secs
        limits = Limits(
            cache=config.cache_threshold,
            balance_abs=config.balance_abs_threshold,
            balance_rel=config.balance_rel_threshold,
            tree_chars=config.max_tree_size,
        )
        self._rules: Rules
        if config.compat is None:
            self._rules = Affinity(limits, evicts=config.eviction_interval_secs > 0, gate=config.gate)
        else:
            self._rules = OriginalRules(limits, misses_by_tree_size=config.compat == "tree_size")
        self._pool: PoolContext | None = None
        self._load_range: tuple[int, int] | None = None

    # --- choosing ---

    @hookimpl
    def select_single(self, workers: Sequence[Worker], request: RoutingRequest) -> Worker | None:
        """Return the worker for a request or its prefill by the tree, for its decode by load."""
        if request.leg is Leg.DECODE:
            request.explain("least_loaded")
            return self._rules.least_loaded(workers)
        decision = self._rules.choose(workers, request)
        if decision is None:
            return None
        self._report(decision, workers, request)
        return decision.worker

    @hookimpl
    def select_pair(
        self, prefill_workers: Sequence[Worker], decode_workers: Sequence[Worker], request: RoutingRequest
    ) -> tuple[Worker, Worker] | None:
        """Return the prefill worker by the tree and the decode worker by load."""
        decode = self._rules.least_loaded(decode_workers)
        decision = self._rules.choose(prefill_workers, request) if decode is not None else None
        if decode is None or decision is None:
            return None
        self._report(decision, prefill_workers, request)
        return decision.worker, decode

    # --- following ---

    @hookimpl
    def on_request_complete(self, request: RoutingRequest, outcome: RequestOutcome) -> None:
        """Keep or take back what the attempt taught."""
        if outcome.leg is not Leg.DECODE:
            self._rules.completed(request, outcome)

    @hookimpl
    def on_worker_added(self, worker: Worker) -> None:
        """Know the worker."""
        self._rules.added(worker.url)

    @hookimpl
    def on_worker_removed(self, worker: Worker) -> None:
        """Forget the worker."""
        self._rules.removed(worker.url)
        if self._pool is not None:
            self._pool.gauge("cache_tree_chars", 0, worker=worker.url)

    # --- life ---

    @hookimpl
    def on_start(self, pool: PoolContext) -> None:
        """Start the timers, which stop with the pool."""
        self._pool = pool
        self._count_hit = pool.counter("cache_hits_total")
        self._count_miss = pool.counter("cache_misses_total")
        self._observe_ratio = pool.histogram("cache_match_ratio")
        pool.every(_UPKEEP_S, self._upkeep)
        if self._eviction_interval_secs:
            pool.every(self._eviction_interval_secs, self._rules.evict)

    def _upkeep(self) -> None:
        self._rules.upkeep()
        pool = self._pool
        if pool is None:
            return
        for worker_url, chars in self._rules.tree_chars():
            pool.gauge("cache_tree_chars", chars, worker=worker_url)
        if self._load_range is not None:
            highest, lowest = self._load_range
            pool.gauge("max_load", highest)
            pool.gauge("min_load", lowest)

    def _report(self, decision: Decision, workers: Sequence[Worker], request: RoutingRequest) -> None:
        """Say why, to the request, the counters and the log."""
        _, reason, matched, chars, highest, lowest = decision
        ratio = matched / chars if chars else 0.0
        if reason == "cache_hit":
            request.explain(reason, matched=matched, ratio=ratio, cached_share=ratio)
        else:
            request.explain(reason, matched=matched, ratio=ratio)
        self._load_range = highest, lowest
        pool = self._pool
        if reason == "imbalanced":
            if pool is not None:
                pool.count("load_balancing_events_total")
            if logger.isEnabledFor(logging.DEBUG):
                loads = {worker.url: worker.load for worker in workers}
                logger.debug("loads are uneven: max %d, min %d, %s; taking the shortest queue", highest, lowest, loads)
        elif pool is not None:
            (self._count_hit if reason == "cache_hit" else self._count_miss)(1)
            self._observe_ratio(ratio)


_UPKEEP_S = 1.0
"""How often gauges are set and a slice of forgetting is done."""
