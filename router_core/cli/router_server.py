"""The router, put together: the only place where every part meets every other. One pool's parts are in `ServedPool`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable
from functools import partial

from aiohttp import web

from router_core.cli.addresses import ADMIN_HOST, is_own_address, listening, refuse_own_address, url_of
from router_core.cli.admin_listener import AdminListener
from router_core.cli.certificates import Certificates
from router_core.cli.control_apps import control_origin, is_path_of, listen_for_metrics
from router_core.cli.failure_handling import circuit_breakers, retries
from router_core.cli.followers import build_followers
from router_core.cli.gate import Gate
from router_core.cli.limits import downstream_limits, upstream_limits
from router_core.cli.plugins import build_sources
from router_core.cli.problems import Problems
from router_core.cli.reload import Reloading
from router_core.cli.served_pool import build_pools
from router_core.cli.static_workers import static_workers, worker_keys
from router_core.config import DEFAULT_POOL, RouterConfig
from router_core.contract.worker import Worker
from router_core.control.app import create_control_app
from router_core.control.log_level import LogLevelHandlers
from router_core.fleet.engine_client import EngineClient
from router_core.fleet.health import HealthChecker
from router_core.fleet.membership.roster import Roster
from router_core.fleet.membership.supervisor import SourceSupervisor
from router_core.fleet.model_directory import ModelDirectory
from router_core.fleet.model_learner import ModelLearner
from router_core.fleet.partition import Partition, why_unused
from router_core.fleet.pool import WorkerPool
from router_core.fleet.registration import Registrar
from router_core.fleet.registry import WorkerRegistry
from router_core.fleet.telemetry.poller import TelemetryPoller
from router_core.observability.logs import log_level, set_log_level
from router_core.observability.registry import MetricsRegistry
from router_core.observability.samplers import membership_sampler, telemetry_sampler, traffic_sampler
from router_core.observability.signals import (
    SignalBoard,
    membership_check,
    settings_check,
    telemetry_check,
    watch_pools,
)
from router_core.plugin_host.manager import PolicyManager
from router_core.plugin_host.pair import PairManager
from router_core.relay.exchange import Exchange
from router_core.relay.server import RelayServer
from router_core.traffic.cors import AllowedOrigins, Cors
from router_core.traffic.dead_workers import DeadWorkers
from router_core.traffic.forwarded_headers import header_choice
from router_core.traffic.paths import INFERENCE_PATHS
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
        self.reloading = Reloading(config, self.pools, self.registry, on_replaced=self._poll_if_needed)
        self.reloading.parts += [self.certificates.renewal, self.gate.renewal, _take_log_level]
        self.signals = SignalBoard()
        self.signals.add(settings_check(lambda: self.reloading.needs_restart))
        parts = [pool.part for pool in self.pools]
        if len(parts) > 1:
            Partition(self.pool, parts)
        self.models = ModelDirectory(
            self.pool, parts, was_well=self._was_well, passes_unknown=config.unknown_models == "pass"
        )
        self._why_unused = partial(why_unused, parts)
        self._started = contextlib.AsyncExitStack()
        self._address = ("", 0)
        self._metrics_address: tuple[str, int] | None = None
        self._relay: RelayServer
        self._admin: AdminListener | None = None
        self._dead_workers: DeadWorkers
        self._health: HealthChecker
        self._poller: TelemetryPoller

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
        if self._admin is None or self._admin.address is None:
            return self.url
        return url_of(*self._admin.address, scheme="http" if self.certificates.server is None else "https")

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
        health = self._health = self._health_checker(client)
        for pool in self.pools:
            await pool.start(stack, loop)
        for worker in static_workers(config):
            self.pool.add(worker)

        relay = self._relay = RelayServer(
            _not_ready,
            limits=downstream_limits(config),
            upstream_limits=upstream_limits(config),
            loop=loop,
            worker_tls=certificates.workers,
            key_of=keys.of,
            goes_on=header_choice(config.forward_headers),
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
            address=RankPassing(self._kind_of).address if config.dp_aware else None,
        )
        self._dead_workers = DeadWorkers(relay.exchanges, shared.breakers, retries=config.retries.dead_workers)
        stack.callback(shared.breakers.close)
        self.pool.subscribe(on_removed=self._forget_origin)
        self.pool.subscribe(on_removed=shared.stored_responses.forget)
        for pool in self.pools:
            pool.open(shared)
        choice = PoolChoice(self.models, {pool.name: pool.dispatcher for pool in self.pools})
        routes = await self._routes(stack, shared, choice, client)
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
            await self._listen_for_administrators(stack, client, config.admin_port)
        self.registry.add_sampler(
            traffic_sampler(
                connections=lambda: len(relay.connections),
                refusals=lambda: relay.refusals,
                handshake_failures=lambda: relay.handshake_failures.counts,
                unrouted=lambda: {
                    "": choice.unrouted,
                    **{pool.name: pool.dispatcher.unrouted for pool in self.pools},
                },
                proxied_unknown=lambda: routes.proxied_unknown,
            )
        )
        if config.prometheus_port is not None:
            with listening("prometheus_", config.prometheus_host or config.host, config.prometheus_port):
                host = config.prometheus_host or config.host
                self._metrics_address = await listen_for_metrics(
                    stack, self.registry.render, host, config.prometheus_port
                )
        watch_pools(self.signals, self.registry, {pool.name: pool.current_policy for pool in self.pools})
        self._make_poller(stack, client)
        self._poll_if_needed()
        sources = SourceSupervisor(
            self._sources,
            Roster(self.registrations, keys=keys, is_own_address=self._is_own_address, why_unused=self._why_unused),
            random=random.Random(),  # noqa: S311  # spreads restarts in time
        )
        stack.push_async_callback(sources.stop)
        await sources.start()
        self.signals.add(membership_check(sources.states))
        self.registry.add_sampler(membership_sampler(sources.states))
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

    def _health_checker(self, client: EngineClient) -> HealthChecker:
        health = self.config.health
        registrar = Registrar(self.registrations, client, timeout_s=health.timeout_s)
        return HealthChecker(
            self.pool,
            client,
            endpoint=health.endpoint if health.enabled else None,
            interval_s=health.interval_s,
            timeout_s=health.timeout_s,
            failure_threshold=health.failure_threshold,
            success_threshold=health.success_threshold,
            random=random.Random(),  # noqa: S311  # spreads checks in time
            on_change=self._health_changed,
            register=registrar.register if self.config.dp_aware else None,
            identify=registrar.identify,
        )

    async def _routes(
        self, stack: contextlib.AsyncExitStack, shared: SharedTraffic, choice: PoolChoice, client: EngineClient
    ) -> Routes:
        app = self._control_app(client, administers=self.config.admin_port is None)
        return Routes(
            choice.dispatch,
            await control_origin(stack, app),
            stored_responses=shared.stored_responses,
            origin=shared.origin,
            is_control_path=is_path_of(app),
            proxy_unknown_paths=self.config.proxy_unknown_paths,
        )

    def _control_app(self, client: EngineClient, *, administers: bool) -> web.Application:
        return create_control_app(
            [pool.members for pool in self.pools],
            fetch_models=ModelLearner(self.pool, client).fetch,
            listed_models=self.models.listed,
            render_metrics=self.registry.render,
            is_draining=lambda: self._relay.is_draining,
            policies=lambda: {pool.name: pool.policy for pool in self.pools},
            replace_policy=self.reloading.replace_policy,
            inference_paths=[path.decode() for path in sorted(INFERENCE_PATHS)],
            registry=self.registrations,
            is_own_address=self._is_own_address,
            why_unused=self._why_unused,
            ask_models=self._health.learn_now,
            engines=client,
            health_endpoint=self.config.health.endpoint,
            signals=self.signals.look,
            log_level=LogLevelHandlers(log_level, set_log_level),
            administers=administers,
        )

    def _is_own_address(self, url: str) -> bool:
        admin = None if self._admin is None else self._admin.address
        # Sources report before the router listens.
        own = self._address if self._address[1] else (self.config.host, self.config.port)
        return is_own_address(url, own) or (admin is not None and is_own_address(url, admin))

    async def _listen_for_administrators(
        self, stack: contextlib.AsyncExitStack, client: EngineClient, port: int
    ) -> None:
        config, loop = self.config, asyncio.get_running_loop()
        relay = RelayServer(
            _not_ready, limits=downstream_limits(config), upstream_limits=upstream_limits(config), loop=loop
        )
        relay.handshake_failures = self._relay.handshake_failures  # one figure for both
        admin = self._admin = AdminListener(
            relay, await control_origin(stack, self._control_app(client, administers=True))
        )
        self.gate.guard(relay, admin.handle)
        host = config.admin_host or ADMIN_HOST
        with listening("admin_", host, port):
            await admin.start(host, port, self.certificates.server)
        stack.push_async_callback(admin.stop)

    def _poll_if_needed(self) -> None:
        if any("telemetry" in pool.policy.needs for pool in self.pools):
            self._poller.start()

    def _make_poller(self, stack: contextlib.AsyncExitStack, client: EngineClient) -> None:
        poller = self._poller = TelemetryPoller(
            self.pool,
            client,
            interval_s=self.config.telemetry.interval_s,
            timeout_s=self.config.telemetry.timeout_s,
            random=random.Random(),  # noqa: S311  # spreads polls in time
            now=time.monotonic,
        )
        for pool in self.pools:
            freshness = pool.members_only(poller.freshness)
            self.registry.add_sampler(telemetry_sampler(pool.name, freshness))
            self.signals.add(telemetry_check(pool.name, freshness))
        stack.push_async_callback(poller.stop)

    def _was_well(self, worker: Worker) -> bool:
        registration = self.registrations.at(worker.base_url)
        return registration is not None and registration.was_ready

    def _health_changed(self, worker: Worker, is_healthy: bool, reason: str | None) -> None:
        self.registrations.note_health(worker, is_healthy, reason)
        self._dead_workers.health_changed(worker, is_healthy, reason)

    def _kind_of(self, url: str) -> str | None:
        registration = self.registrations.at(url)
        return None if registration is None else registration.kind

    def _forget_origin(self, worker: Worker) -> None:
        """Close idle connections to a worker that left, unless another rank of the same engine is still there."""
        if self.registrations.at(worker.base_url) is None:
            self._relay.forget_origin(worker.base_url)


def _take_log_level(config: RouterConfig) -> Callable[[], None]:
    return lambda: set_log_level(config.log_level)


def _not_ready(exchange: Exchange) -> None:
    raise RuntimeError(f"{exchange.head.path!r} was asked for before the routes were set")
