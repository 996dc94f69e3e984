"""The router, put together: the only place where every part meets every other. One pool's parts are in `ServedPool`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from router_core.cli.addresses import listening, refuse_own_address, url_of
from router_core.cli.administration import Administration
from router_core.cli.certificates import Certificates
from router_core.cli.client_traffic import ClientTraffic
from router_core.cli.control_apps import listen_for_metrics
from router_core.cli.gate import Gate
from router_core.cli.membership import start_sources
from router_core.cli.plugins import build_sources
from router_core.cli.problems import Problems
from router_core.cli.reload import Reloading
from router_core.cli.served_pool import build_pools
from router_core.cli.static_workers import static_workers, worker_keys
from router_core.cli.watching import Telemetry, health_checker
from router_core.config import DEFAULT_POOL, RouterConfig
from router_core.contract.worker import Worker
from router_core.fleet.engine_client import EngineClient
from router_core.fleet.model_directory import ModelDirectory
from router_core.fleet.partition import Partition
from router_core.fleet.pool import WorkerPool
from router_core.fleet.registry import WorkerRegistry
from router_core.observability.logs import set_log_level
from router_core.observability.registry import MetricsRegistry
from router_core.observability.signals import SignalBoard, settings_check, watch_pools
from router_core.plugin_host.manager import PolicyManager
from router_core.plugin_host.pair import PairManager
from router_core.relay.server import RelayServer

_log = logging.getLogger(__name__)


class RouterServer:
    """A whole router in one event loop.

    Attributes:
        config: The settings it runs with.
        pool: All its workers.
        pools: Its pools, each with some of the workers and a policy.
        models: Which models they serve, under which names.
        registrations: The addresses the workers have.
        registry: Its metrics.
        reloading: Takes over new settings while the router runs.
        certificates: What it shows to clients and workers.
        gate: Who may ask, and how much.
    """

    def __init__(self, config: RouterConfig) -> None:
        """Load and check everything; nothing is opened yet.

        Raises:
            StartupError: With one sentence for each problem.
        """
        self.config = config
        self.registry = MetricsRegistry(compat=config.metrics_compat)
        self.pool = WorkerPool(DEFAULT_POOL)
        problems = Problems()
        with problems:
            self.certificates = Certificates(config)
        with problems:
            self.gate = Gate(config)
        with problems:
            self.pools = build_pools(config, self.pool, self.registry)
        with problems:
            self._sources = build_sources(config)
        problems.raise_any()
        self._keys = worker_keys(config)
        self.registrations = WorkerRegistry(self.pool, wall_clock=time.time, keys=self._keys)
        self.reloading = Reloading(config, self.pools, self.registry, on_replaced=self._policy_replaced)
        self.reloading.parts += [self.certificates.renewal, self.gate.renewal, _take_log_level]
        self.signals = SignalBoard()
        self.signals.add(settings_check(lambda: self.reloading.why_stale))
        parts = [pool.part for pool in self.pools]
        if len(parts) > 1:
            Partition(self.pool, parts)
        self.models = ModelDirectory(
            self.pool, parts, was_well=self.registrations.was_ready, passes_unknown=config.unknown_models == "pass"
        )
        self._started = contextlib.AsyncExitStack()
        self._address = ("", 0)
        self._metrics_address: tuple[str, int] | None = None
        self._traffic: ClientTraffic
        self._telemetry: Telemetry
        self._administration = Administration(
            config,
            fleet=self.pool,
            pools=self.pools,
            models=self.models,
            registrations=self.registrations,
            metrics=self.registry,
            signals=self.signals,
            reloading=self.reloading,
            # Sources report before the router listens.
            own_address=lambda: self._address if self._address[1] else (config.host, config.port),
        )

    @property
    def url(self) -> str:
        """Where the router listens."""
        return url_of(*self._address, scheme="http" if self.certificates.server is None else "https")

    @property
    def metrics_url(self) -> str:
        """Where Prometheus scrapes."""
        return f"{self.url if self._metrics_address is None else url_of(*self._metrics_address)}/metrics"

    @property
    def admin_url(self) -> str:
        """Where administrators ask."""
        address = self._administration.address
        if address is None:
            return self.url
        return url_of(*address, scheme="http" if self.certificates.server is None else "https")

    @property
    def relay(self) -> RelayServer:
        """What reads clients' requests; there once it has started."""
        return self._traffic.relay

    @property
    def policy(self) -> PolicyManager | PairManager:
        """The policy and the observers of the last pool, which the top level of the settings describes."""
        return self.pools[-1].policy

    async def start(self) -> None:
        """Start the plugins, the health checks and the listeners.

        Raises:
            StartupError: If a plugin does not start or an address cannot be had; whatever had begun is stopped.
        """
        async with contextlib.AsyncExitStack() as stack:
            await self._start(stack)
            self._started = stack.pop_all()

    async def stop(self) -> None:
        """Finish running requests within the grace period and stop everything; policies' `on_stop` run."""
        await self._started.aclose()

    def drain(self) -> None:
        """Tell everybody to go elsewhere: not ready any more, answers close their connections. Who comes is served."""
        self.relay.drain()

    def end_grace(self) -> None:
        """End the requests that still run; whoever waits in `stop` goes on with the rest of it."""
        self.relay.cut()

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        config, loop = self.config, asyncio.get_running_loop()
        certificates, keys = self.certificates, self._keys
        client = await stack.enter_async_context(EngineClient(key_of=keys.of, tls=certificates.workers))
        health = health_checker(config, self.pool, self.registrations, client, on_change=self._health_changed)
        for pool in self.pools:
            await pool.start(stack, loop)
        for worker in static_workers(config):
            self.pool.add(worker)

        self._traffic = ClientTraffic(
            config,
            fleet=self.pool,
            pools=self.pools,
            models=self.models,
            registrations=self.registrations,
            keys=keys,
            certificates=certificates,
            metrics=self.registry,
            check_now=health.check_now,
        )
        relay, administration = self.relay, self._administration
        await self._traffic.open(stack, administration.app(relay, client, health), self.gate)
        if config.admin_port is not None:
            await administration.listen(
                stack,
                relay,
                administration.app(relay, client, health, for_administrators=True),
                port=config.admin_port,
                gate=self.gate,
                certificates=certificates,
            )
        if config.prometheus_port is not None:
            host, port = config.prometheus_host or config.host, config.prometheus_port
            self._metrics_address = await listen_for_metrics(stack, self.registry.render, host, port)
        watch_pools(self.signals, self.registry, {pool.name: pool.current_policy for pool in self.pools})
        self._telemetry = Telemetry(config, self.pool, self.pools, client)
        self._telemetry.show(self.registry, self.signals)
        self._telemetry.start_if_needed()
        stack.push_async_callback(self._telemetry.stop)
        await start_sources(
            stack,
            self._sources,
            self.registrations,
            administration,
            metrics=self.registry,
            signals=self.signals,
        )
        self.signals.start(loop)
        stack.callback(self.signals.stop)
        with listening("", config.host, config.port):
            self._address = await relay.start(config.host, config.port, certificates.server)
        certificates.start()
        stack.push_async_callback(certificates.stop)
        for pool in self.pools:
            stack.callback(pool.close)  # after the relay: who left may still have a transfer to finish
        stack.push_async_callback(relay.stop, config.limits.shutdown_grace_s)
        refuse_own_address([worker.url for worker in self.pool.workers], self._address)
        health.start()
        stack.push_async_callback(health.stop)

    def _policy_replaced(self) -> None:
        self._telemetry.start_if_needed()

    def _health_changed(self, worker: Worker, is_healthy: bool, reason: str | None) -> None:
        self.registrations.note_health(worker, is_healthy, reason)
        self._traffic.health_changed(worker, is_healthy, reason)


def _take_log_level(config: RouterConfig) -> Callable[[], None]:
    return lambda: set_log_level(config.log_level)
