"""One pool, put together: its members, its policy and observers, its traffic, its figures."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

from router_core.cli.plugins import build_manager, build_pd_protocol
from router_core.cli.problems import Problems
from router_core.config import PoolSettings, RouterConfig, pools_of
from router_core.contract.worker import Worker
from router_core.fleet.background import BackgroundTasks
from router_core.fleet.partition import ModelPool
from router_core.fleet.pool import WorkerPool
from router_core.observability.departed import DepartedWorkers
from router_core.observability.registry import MetricsRegistry
from router_core.observability.samplers import policy_sampler, worker_sampler
from router_core.plugin_host.context import LivePoolContext, MetricSink
from router_core.plugin_host.manager import PolicyManager
from router_core.plugin_host.pair import PairManager
from router_core.traffic.dispatcher import Dispatcher
from router_core.traffic.pd.pair_dispatcher import PairDispatcher
from router_core.traffic.pd.protocol import PairProtocol
from router_core.traffic.shared import SharedTraffic

_log = logging.getLogger(__name__)
Figure = TypeVar("Figure")


class ServedPool:
    """What a router has once for each pool; what it has once for all of them is in `RouterServer`.

    Attributes:
        name: The pool's name, as in the config.
        members: Its workers.
        part: Which part of the fleet they are.
        policy: Its policy and observers.
        dispatcher: Its traffic; there once it is open.
    """

    dispatcher: Dispatcher
    _protocol: PairProtocol | None = None

    def __init__(self, settings: PoolSettings, members: WorkerPool, metrics: MetricsRegistry) -> None:
        """Load and check the plugins; no hook is called yet.

        Raises:
            StartupError: With one sentence for each problem.
        """
        self.name = settings.name
        self.members = members
        members.serves_pairs = settings.pd.is_on
        self.part = ModelPool(members, settings.model, settings.aliases)
        problems = Problems()
        with problems:
            self.policy = build_manager(settings)
        if settings.pd.is_on:
            with problems:
                self._protocol = build_pd_protocol(settings)
        problems.raise_any()
        self._settings = settings
        self._metrics = metrics
        self._departed = DepartedWorkers(metrics, self.name)
        self._contexts: Callable[[PoolSettings], Callable[[str], LivePoolContext]]
        self._sinks: dict[str, MetricSink] = {}
        self._retired: set[PolicyManager | PairManager] = set()
        self._stopping = BackgroundTasks(_log, "a policy that was replaced could not be stopped")

    async def start(self, stack: contextlib.AsyncExitStack, loop: asyncio.AbstractEventLoop) -> None:
        """Start the plugins; they hear of workers from now on.

        Raises:
            StartupError: If one of them does not start.
        """
        self._contexts = partial(self._make_context, loop)
        await self.policy.start(self._contexts(self._settings))
        stack.push_async_callback(self._stop)
        self.members.subscribe(self._worker_added, self._worker_removed)
        self._metrics.add_sampler(worker_sampler(self.name, lambda: self.members.workers))
        self._metrics.add_sampler(policy_sampler(self.name, self.current_policy))
        self._metrics.add_sampler(self._departed.sweep)

    def current_policy(self) -> PolicyManager | PairManager:
        """Return the policy and observers that decide now."""
        return self.policy

    def members_only(self, figures: Callable[[], Mapping[str, Figure]]) -> Callable[[], dict[str, Figure]]:
        """Return what reads figures by a worker's url, for this pool's workers alone."""
        return lambda: {url: figure for url, figure in figures().items() if self.members.get(url) is not None}

    def open(self, shared: SharedTraffic) -> None:
        """Make ready to place requests."""
        if self._protocol is None:
            self.dispatcher = Dispatcher(self.members, self.policy, shared)
        else:
            self.dispatcher = PairDispatcher(self.members, self.policy, shared, self._protocol)

    def close(self) -> None:
        """Cut what still runs for clients that have left."""
        if isinstance(self.dispatcher, PairDispatcher):
            self.dispatcher.close()

    def _worker_added(self, worker: Worker) -> None:
        self._departed.discard(worker)
        self.policy.worker_added(worker)

    def _worker_removed(self, worker: Worker) -> None:
        self.policy.worker_removed(worker)
        self._departed.add(worker)

    # --- replacing the policy ---

    @property
    def settings(self) -> PoolSettings:
        """What its plugins were built from."""
        return self._settings

    def build_successor(self, settings: PoolSettings) -> PolicyManager | PairManager:
        """Build what could take the policy's place; no hook is called yet.

        Raises:
            StartupError: With one sentence for each problem.
        """
        return build_manager(settings, replaced=self.policy)

    async def start_successor(self, manager: PolicyManager | PairManager, settings: PoolSettings) -> None:
        """Start what is to take the policy's place.

        Raises:
            StartupError: It does not start; what had started of it is stopped again.
        """
        await manager.start(self._contexts(settings))

    def succeed(self, manager: PolicyManager | PairManager, settings: PoolSettings) -> None:
        """Have other plugins, which have started, choose from now on; the observers go on.

        The new policy hears of the present workers before its first selection. Requests under way stay with the old
        one, which is stopped after the last of them.
        """
        old = self.policy
        for worker in self.members.workers:
            manager.worker_added(worker)
        manager.succeed(old)
        self.policy, self._settings = manager, settings
        self.dispatcher.set_policy(manager)
        self._retire(old)
        names = manager.name, manager.source, old.name, old.source
        _log.info("pool %s: policy %s (%s) has replaced %s (%s)", self.name, *names)

    def _retire(self, manager: PolicyManager | PairManager) -> None:
        self._retired.add(manager)

        def stop() -> None:
            manager.on_idle = None
            self._stopping.start(self._stop_retired(manager))

        if manager.in_flight <= 0:
            stop()
        else:
            manager.on_idle = stop

    async def _stop_retired(self, manager: PolicyManager | PairManager) -> None:
        if manager in self._retired:
            self._retired.discard(manager)
            await manager.stop()

    async def _stop(self) -> None:
        for manager in tuple(self._retired):
            await self._stop_retired(manager)
        await self._stopping.wait()
        await self.policy.stop()

    def _make_context(
        self, loop: asyncio.AbstractEventLoop, settings: PoolSettings
    ) -> Callable[[str], LivePoolContext]:
        name, seed = self.name, settings.policy.seed

        def make(plugin: str) -> LivePoolContext:
            sink = self._sinks.get(plugin)
            if sink is None:
                sink = self._sinks[plugin] = self._metrics.labelled({"pool": name, "plugin": plugin})
            return LivePoolContext(name, seed=seed, scheduler=loop, sink=sink)

        return make


def build_pools(config: RouterConfig, fleet: WorkerPool, metrics: MetricsRegistry) -> tuple[ServedPool, ...]:
    """Load and check the plugins of every pool; a router with one pool has the fleet itself as that.

    Raises:
        StartupError: With one sentence for each problem of any of them.
    """
    settings = pools_of(config)
    problems = Problems()
    pools = []
    for each in settings:
        with problems:
            pools.append(ServedPool(each, fleet if len(settings) == 1 else WorkerPool(each.name), metrics))
    problems.raise_any()
    return tuple(pools)
