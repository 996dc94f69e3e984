"""The control plane, put together: its application behind the clients' relay, and administration at an address of its
own where the settings give it one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from functools import partial

from aiohttp import web

from router_core.cli.addresses import ADMIN_HOST, is_own_address, listening
from router_core.cli.admin_listener import AdminListener
from router_core.cli.certificates import Certificates
from router_core.cli.control_apps import control_origin
from router_core.cli.gate import Gate
from router_core.cli.limits import downstream_limits, upstream_limits
from router_core.cli.reload import Reloading
from router_core.cli.served_pool import ServedPool
from router_core.config import RouterConfig
from router_core.control.app import create_control_app
from router_core.control.log_level import LogLevelHandlers
from router_core.fleet.engine_client import EngineClient
from router_core.fleet.health import HealthChecker
from router_core.fleet.model_directory import ModelDirectory
from router_core.fleet.model_learner import ModelLearner
from router_core.fleet.partition import why_unused
from router_core.fleet.pool import WorkerPool
from router_core.fleet.registry import WorkerRegistry
from router_core.observability.logs import log_level, set_log_level
from router_core.observability.registry import MetricsRegistry
from router_core.observability.signals import SignalBoard
from router_core.relay.exchange import Exchange
from router_core.relay.server import RelayServer
from router_core.traffic.paths import INFERENCE_PATHS


class Administration:
    """What answers for the router itself.

    Attributes:
        address: Where administrators have a port of their own, once it listens; None if they have none.
        why_unused: Returns why a worker would never get a request, or None.

    Args:
        config: The settings.
        fleet: All workers.
        pools: Their pools.
        models: Which models they serve.
        registrations: The addresses they have.
        metrics: What is exposed.
        signals: The state of what decisions rest on.
        reloading: Replaces policies.
        own_address: Returns where clients are listened for.
    """

    def __init__(
        self,
        config: RouterConfig,
        *,
        fleet: WorkerPool,
        pools: Sequence[ServedPool],
        models: ModelDirectory,
        registrations: WorkerRegistry,
        metrics: MetricsRegistry,
        signals: SignalBoard,
        reloading: Reloading,
        own_address: Callable[[], tuple[str, int]],
    ) -> None:
        self.address: tuple[str, int] | None = None
        self.why_unused = partial(why_unused, [pool.part for pool in pools])
        self._config = config
        self._fleet = fleet
        self._pools = pools
        self._models = models
        self._registrations = registrations
        self._metrics = metrics
        self._signals = signals
        self._reloading = reloading
        self._own_address = own_address

    def is_own_address(self, url: str) -> bool:
        """Return whether a URL leads to the router itself."""
        own = (self._own_address(), *(() if self.address is None else (self.address,)))
        return any(is_own_address(url, address) for address in own)

    def app(
        self, relay: RelayServer, client: EngineClient, health: HealthChecker, *, for_administrators: bool = False
    ) -> web.Application:
        """Return the application behind the clients' relay, or that behind the administrators' own.

        Args:
            relay: The clients'.
            client: Asks engines.
            health: Checks them.
            for_administrators: Whether it is the one at their own address.
        """
        return create_control_app(
            [pool.members for pool in self._pools],
            fetch_models=ModelLearner(self._fleet, client).fetch,
            listed_models=self._models.listed,
            render_metrics=self._metrics.render,
            is_draining=lambda: relay.is_draining,
            policies=lambda: {pool.name: pool.policy for pool in self._pools},
            replace_policy=self._reloading.replace_policy,
            inference_paths=[path.decode() for path in sorted(INFERENCE_PATHS)],
            registry=self._registrations,
            is_own_address=self.is_own_address,
            why_unused=self.why_unused,
            ask_models=health.learn_now,
            engines=client,
            health_endpoint=self._config.health.endpoint,
            signals=self._signals.look,
            log_level=LogLevelHandlers(log_level, set_log_level),
            error_code_header=self._config.error_code_header,
            on_unknown=relay.refused,
            administers=for_administrators or self._config.admin_port is None,
        )

    async def listen(
        self,
        stack: contextlib.AsyncExitStack,
        clients: RelayServer,
        app: web.Application,
        *,
        port: int,
        gate: Gate,
        certificates: Certificates,
    ) -> None:
        """Listen for administrators at an address of their own, where they are checked as clients are.

        Raises:
            StartupError: The address cannot be had.
        """
        config, loop = self._config, asyncio.get_running_loop()
        relay = RelayServer(
            not_ready,
            limits=downstream_limits(config),
            upstream_limits=upstream_limits(config),
            loop=loop,
            error_code_header=config.error_code_header,
        )
        relay.handshake_failures = clients.handshake_failures  # one figure for both
        listener = AdminListener(relay, await control_origin(stack, app))
        gate.guard(relay, listener.handle)
        host = config.admin_host or ADMIN_HOST
        with listening("admin_", host, port):
            await listener.start(host, port, certificates.server)
        self.address = listener.address
        stack.push_async_callback(listener.stop)


def not_ready(exchange: Exchange) -> None:
    """Stand in for whoever will handle requests."""
    raise RuntimeError(f"{exchange.head.path!r} was asked for before the routes were set")
