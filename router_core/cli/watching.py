"""What keeps an eye on the workers, by the settings: health checks, and telemetry where a policy needs it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

from router_core.cli.served_pool import ServedPool
from router_core.config import RouterConfig
from router_core.contract.worker import Worker
from router_core.fleet.engine_client import EngineClient
from router_core.fleet.health import HealthChecker
from router_core.fleet.pool import WorkerPool
from router_core.fleet.registration import Registrar
from router_core.fleet.registry import WorkerRegistry
from router_core.fleet.telemetry.poller import TelemetryPoller
from router_core.observability.registry import MetricsRegistry
from router_core.observability.samplers import telemetry_sampler
from router_core.observability.signals import SignalBoard, telemetry_check


def health_checker(
    config: RouterConfig,
    fleet: WorkerPool,
    registrations: WorkerRegistry,
    client: EngineClient,
    *,
    on_change: Callable[[Worker, bool, str | None], None],
) -> HealthChecker:
    """Return what checks all workers, and learns what they are; it has yet to be started."""
    health = config.health
    registrar = Registrar(
        registrations,
        client,
        timeout_s=health.timeout_s,
        splits=config.dp_aware,
        dp_size=config.dp_size or 1,
        learns_ports=config.pd.is_on and config.pd.protocol == "sglang",
    )
    return HealthChecker(
        fleet,
        client,
        endpoint=health.endpoint if health.enabled else None,
        interval_s=health.interval_s,
        timeout_s=health.timeout_s,
        failure_threshold=health.failure_threshold,
        success_threshold=health.success_threshold,
        random=random.Random(),  # noqa: S311  # spreads checks in time
        on_change=on_change,
        register=registrar.register,
        identify=registrar.identify,
    )


class Telemetry:
    """Asks engines for their load from the moment on that a pool's policy needs it."""

    def __init__(
        self, config: RouterConfig, fleet: WorkerPool, pools: Sequence[ServedPool], client: EngineClient
    ) -> None:
        self._pools = pools
        self._poller = TelemetryPoller(
            fleet,
            client,
            interval_s=config.telemetry.interval_s,
            timeout_s=config.telemetry.timeout_s,
            random=random.Random(),  # noqa: S311  # spreads polls in time
            now=time.monotonic,
        )

    def show(self, metrics: MetricsRegistry, signals: SignalBoard) -> None:
        """Have it seen how fresh it is."""
        for pool in self._pools:
            freshness = pool.members_only(self._poller.freshness)
            metrics.add_sampler(telemetry_sampler(pool.name, freshness))
            signals.add(telemetry_check(pool.name, freshness))

    def start_if_needed(self) -> None:
        """Ask from now on if any policy needs it."""
        if any("telemetry" in pool.policy.needs for pool in self._pools):
            self._poller.start()

    async def stop(self) -> None:
        """Ask no more."""
        await self._poller.stop()
