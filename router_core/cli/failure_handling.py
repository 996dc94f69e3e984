"""From the settings to what handles workers' failures: circuit breakers and retries."""

from __future__ import annotations

import asyncio
import random
import time

from router_core.config import RouterConfig
from router_core.fleet.breaker import BreakerRules, CircuitBreakers
from router_core.fleet.pool import WorkerPool
from router_core.observability.failure_samplers import circuit_sampler, retry_sampler
from router_core.observability.registry import MetricsRegistry
from router_core.traffic.retry import Retries, RetryRules


def circuit_breakers(
    config: RouterConfig, pool: WorkerPool, loop: asyncio.AbstractEventLoop, registry: MetricsRegistry
) -> CircuitBreakers:
    """Return the circuit breakers of all workers; what they do is seen in the metrics."""
    breaker = config.breaker
    rules = BreakerRules(
        is_on=breaker.enabled,
        failure_threshold=breaker.failure_threshold,
        failure_share=breaker.failure_share,
        window_s=breaker.window_s,
        open_s=breaker.open_s,
        success_threshold=breaker.success_threshold,
    )
    breakers = CircuitBreakers(pool, rules, scheduler=loop, now=time.monotonic)
    registry.add_sampler(circuit_sampler(lambda: breakers.transitions))
    return breakers


def retries(
    config: RouterConfig, pool: WorkerPool, loop: asyncio.AbstractEventLoop, registry: MetricsRegistry
) -> Retries:
    """Return what grants further attempts, and is seen in the metrics to do so."""
    settings = config.retries
    rules = RetryRules(
        max_attempts=settings.max_attempts,
        initial_backoff_s=settings.initial_backoff_s,
        max_backoff_s=settings.max_backoff_s,
        multiplier=settings.multiplier,
        jitter=settings.jitter,
        statuses=frozenset(settings.statuses),
        budget_share=settings.budget_share,
        budget_floor=settings.budget_floor,
        deadline_s=settings.deadline_s,
    )
    granting = Retries(
        rules,
        in_flight=lambda: sum(worker.load for worker in pool.workers),
        scheduler=loop,
        random=random.Random(),  # noqa: S311  # spreads pauses
        paused=registry.histogram("retry_backoff_seconds", {}),
    )
    registry.add_sampler(retry_sampler(granting))
    return granting
