"""Clients' requests, from their connections to the workers': relay, gate, routes and dispatchers, put together."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence

from aiohttp import web

from router_core.cli.administration import not_ready
from router_core.cli.certificates import Certificates
from router_core.cli.control_apps import control_origin, is_path_of
from router_core.cli.failure_handling import circuit_breakers, retries
from router_core.cli.followers import build_followers
from router_core.cli.gate import Gate
from router_core.cli.limits import downstream_limits, upstream_limits
from router_core.cli.served_pool import ServedPool
from router_core.config import RouterConfig
from router_core.contract.worker import Worker
from router_core.fleet.model_directory import ModelDirectory
from router_core.fleet.pool import WorkerPool
from router_core.fleet.registry import WorkerRegistry
from router_core.fleet.worker_keys import WorkerKeys
from router_core.observability.registry import MetricsRegistry
from router_core.observability.samplers import traffic_sampler
from router_core.relay.server import RelayServer
from router_core.traffic.cors import AllowedOrigins, Cors
from router_core.traffic.dead_workers import DeadWorkers
from router_core.traffic.forwarded_headers import header_choice
from router_core.traffic.pool_choice import PoolChoice
from router_core.traffic.ranks import RankPassing
from router_core.traffic.reception import Reception
from router_core.traffic.routes import Routes
from router_core.traffic.shared import SharedTraffic


class ClientTraffic:
    """What a router has between its clients and its workers. It is made in the loop in which it runs.

    Attributes:
        relay: Reads clients' requests and passes on workers' answers; nobody listens yet.

    Args:
        config: The settings.
        fleet: All workers.
        pools: Their pools, which are opened.
        models: Which models they serve.
        registrations: The addresses they have.
        keys: The keys they want.
        certificates: What they are shown.
        metrics: Where figures go.
        check_now: Checks a worker's health at once.
    """

    def __init__(
        self,
        config: RouterConfig,
        *,
        fleet: WorkerPool,
        pools: Sequence[ServedPool],
        models: ModelDirectory,
        registrations: WorkerRegistry,
        keys: WorkerKeys,
        certificates: Certificates,
        metrics: MetricsRegistry,
        check_now: Callable[[Worker], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        self._config = config
        self._pools = pools
        self._registrations = registrations
        self._metrics = metrics
        self.relay = RelayServer(
            not_ready,
            limits=downstream_limits(config),
            upstream_limits=upstream_limits(config),
            loop=loop,
            worker_tls=certificates.workers,
            key_of=keys.of,
            goes_on=header_choice(config.forward_headers),
            error_code_header=config.error_code_header,
        )
        self._shared = SharedTraffic(
            loop=loop,
            now=time.monotonic,
            origin=self.relay.origin,
            on_connect_failed=check_now,
            finish_draining=fleet.finish_draining,
            breakers=circuit_breakers(config, fleet, loop, metrics),
            retries=retries(config, fleet, loop, metrics),
            address=RankPassing(registrations.kind_of).address if config.dp_aware else None,
        )
        self._dead_workers = DeadWorkers(
            self.relay.exchanges, self._shared.breakers, retries=config.retries.dead_workers
        )
        keys.subscribe(self.relay.forget_origin)
        fleet.subscribe(on_removed=self._forget_origin)
        fleet.subscribe(on_removed=self._shared.stored_responses.forget)
        for pool in pools:
            pool.open(self._shared)
        self._choice = PoolChoice(models, {pool.name: pool.dispatcher for pool in pools})

    async def open(self, stack: contextlib.AsyncExitStack, app: web.Application, gate: Gate) -> None:
        """Make the way from the relay through the gate to the dispatchers, and to the control plane.

        Args:
            stack: Ends what has to be ended.
            app: The control plane.
            gate: Who may pass.

        Raises:
            StartupError: If a library is missing.
        """
        config, relay, shared = self._config, self.relay, self._shared
        stack.callback(shared.breakers.close)
        routes = Routes(
            self._choice.dispatch,
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
            gate.front = lambda handle: Cors(origins, handle).handle
        gate.open(relay, reception, routes, self._metrics)
        self._show(routes)

    def health_changed(self, worker: Worker, is_healthy: bool, reason: str | None) -> None:
        """A worker's health has changed: its requests may go elsewhere, or its circuit may be tried."""
        self._dead_workers.health_changed(worker, is_healthy, reason)

    def _show(self, routes: Routes) -> None:
        relay, choice = self.relay, self._choice
        self._metrics.add_sampler(
            traffic_sampler(
                connections=lambda: len(relay.connections),
                refusals=lambda: relay.refusals,
                buffered_bytes=lambda: relay.buffered_bytes,
                buffers_full=lambda: relay.buffers_full,
                client_stalls=lambda: relay.client_stalls,
                handshake_failures=lambda: relay.handshake_failures.counts,
                shortages=lambda: relay.shortages.counts,
                unrouted=lambda: {
                    "": choice.unrouted | routes.unrouted,
                    **{each.name: each.dispatcher.unrouted for each in self._pools},
                },
                proxied_unknown=lambda: routes.proxied_unknown,
            )
        )

    def _forget_origin(self, worker: Worker) -> None:
        """Close idle connections to a worker that left, unless another rank of the same engine is still there."""
        if self._registrations.at(worker.base_url) is None:
            self.relay.forget_origin(worker.base_url)
