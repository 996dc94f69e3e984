"""The router, put together: the only place where every part meets every other. One pool's parts are in `ServedPool`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from router_core.cli.addresses import listening, refuse_own_address, url_of
from router_core.cli.administration import Administration, not_ready
from router_core.cli.certificates import Certificates
from router_core.cli.control_apps import control_origin, is_path_of, listen_for_metrics
from router_core.cli.failure_handling import circuit_breakers, retries
from router_core.cli.followers import build_followers
from router_core.cli.gate import Gate
from router_core.cli.limits import downstream_limits, upstream_limits
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
from router_core.observability.samplers import traffic_sampler
from router_core.observability.signals import SignalBoard, settings_check, watch_pools
from router_core.plugin_host.manager import PolicyManager
from router_core.plugin_host.pair import PairManager
from router_core.relay.server import RelayServer
from router_core.traffic.cors import AllowedOrigins, Cors
from router_core.traffic.dead_workers import DeadWorkers
from router_core.traffic.forwarded_headers import header_choice
from router_core.traffic.pool_choice import PoolChoice
from router_core.traffic.ranks import RankPassing
from router_core.traffic.reception import Reception
from router_core.traffic.routes import Routes
from router_core.traffic.shared import SharedTraffic

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
        self._relay: RelayServer
        self._dead_workers: DeadWorkers
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
        self._relay.drain()

    def end_grace(self) -> None:
        """End the requests that still run; whoever waits in `stop` goes on with the rest of it."""
        self._relay.cut()

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        config, loop = self.config, asyncio.get_running_loop()
        certificates, keys = self.certificates, self._keys
        client = await stack.enter_async_context(EngineClient(key_of=keys.of, tls=certificates.workers))
        health = health_checker(config, self.pool, self.registrations, client, on_change=self._health_changed)
        for pool in self.pools:
            await pool.start(stack, loop)
        for worker in static_workers(config):
            self.pool.add(worker)

        relay = self._relay = RelayServer(
            not_ready,
            limits=downstream_limits(config),
            upstream_limits=upstream_limits(config),
            loop=loop,
            worker_tls=certificates.workers,
            key_of=keys.of,
            goes_on=header_choice(config.forward_headers),
            error_code_header=config.error_code_header,
        )
        keys.subscribe(relay.forget_origin)
        shared = SharedTraffic(
            loop=loop,
            now=time.monotonic,
            origin=relay.origin,
            on_connect_failed=health.check_now,
            finish_draining=self.pool.finish_draining,
            breakers=circuit_breakers(config, self.pool, loop, self.registry),
            retries=retries(config, self.pool, loop, self.registry),
            address=RankPassing(self.registrations.kind_of).address if config.dp_aware else None,
        )
        self._dead_workers = DeadWorkers(relay.exchanges, shared.breakers, retries=config.retries.dead_workers)
        stack.callback(shared.breakers.close)
        self.pool.subscribe(on_removed=self._forget_origin)
        self.pool.subscribe(on_removed=shared.stored_responses.forget)
        for pool in self.pools:
            pool.open(shared)
        choice = PoolChoice(self.models, {pool.name: pool.dispatcher for pool in self.pools})
        app = self._administration.app(relay, client, health)
        routes = Routes(
            choice.dispatch,
            await control_origin(stack, app),
            stored_responses=shared.stored_responses,
            origin=shared.origin,
            is_control_path=is_path_of(app),
            proxy_unknown_paths=config.proxy_unknown_paths,
        )
        reception = Reception(
            routes.handle,
            id_headers=config.request_id_headers,
            follow=build_followers(config, stack, relay),
            is_followed=routes.is_for_workers,
        )
        relay.handle = reception.handle
        if config.cors_allowed_origins:
            origins = AllowedOrigins(config.cors_allowed_origins)
            relay.refusal_fields = origins.fields_for
            self.gate.front = lambda handle: Cors(origins, handle).handle
        self.gate.open(relay, reception, routes, self.registry)
        if config.admin_port is not None:
            await self._administration.listen(
                stack,
                relay,
                self._administration.app(relay, client, health, for_administrators=True),
                port=config.admin_port,
                gate=self.gate,
                certificates=certificates,
            )
        self.registry.add_sampler(
            traffic_sampler(
                connections=lambda: len(relay.connections),
                refusals=lambda: relay.refusals,
                buffered_bytes=lambda: relay.buffered_bytes,
                buffers_full=lambda: relay.buffers_full,
                client_stalls=lambda: relay.client_stalls,
                handshake_failures=lambda: relay.handshake_failures.counts,
                shortages=lambda: relay.shortages.counts,
                unrouted=lambda: {"": choice.unrouted, **{each.name: each.dispatcher.unrouted for each in self.pools}},
                proxied_unknown=lambda: routes.proxied_unknown,
            )
        )
        if config.prometheus_port is not None:
            host, port = config.prometheus_host or config.host, config.prometheus_port
            self._metrics_address = await listen_for_metrics(stack, self.registry.render, host, port)
        watch_pools(self.signals, self.registry, {pool.name: pool.current_policy for pool in self.pools})
        telemetry = self._telemetry = Telemetry(config, self.pool, self.pools, client)
        telemetry.show(self.registry, self.signals)
        telemetry.start_if_needed()
        stack.push_async_callback(telemetry.stop)
        await start_sources(
            stack,
            self._sources,
            self.registrations,
            self._administration,
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
        self._dead_workers.health_changed(worker, is_healthy, reason)

    def _forget_origin(self, worker: Worker) -> None:
        """Close idle connections to a worker that left, unless another rank of the same engine is still there."""
        if self.registrations.at(worker.base_url) is None:
            self._relay.forget_origin(worker.base_url)


def _take_log_level(config: RouterConfig) -> Callable[[], None]:
    return lambda: set_log_level(config.log_level)
