"""Settings that change while the router runs: read anew, checked as a whole, then applied; or refused, and nothing has
changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence

from router_core.cli.served_pool import ServedPool
from router_core.cli.settings_source import SettingsSource
from router_core.cli.succession import Succession
from router_core.config import PolicySelection, PoolSettings, RouterConfig, pools_of
from router_core.config.live import LIVE_IN_POOL, needing_restart
from router_core.contract.errors import StartupError
from router_core.observability.registry import MetricsRegistry

_log = logging.getLogger(__name__)

ReloadPart = Callable[[RouterConfig], Callable[[], None]]
"""Checks new settings and returns what takes them over; raises `StartupError` if they cannot be, changing nothing."""

_LOOK_S = 1.0


class Reloading:
    """Takes over new settings.

    Attributes:
        parts: Who else than the pools can take over settings while the router runs.
        config: The settings as they were read last; some may wait for a restart.
        why_stale: Why the settings that hold are not those that were read last; empty if they are.

    Args:
        config: The settings the router was started with.
        pools: Its pools.
        metrics: Where changes are counted.
        on_replaced: Called after a policy was replaced.
    """

    def __init__(
        self,
        config: RouterConfig,
        pools: Sequence[ServedPool],
        metrics: MetricsRegistry,
        *,
        on_replaced: Callable[[], None],
    ) -> None:
        self.config = config
        self.why_stale = ""
        self._at_start = config
        self.parts: list[ReloadPart] = []
        self._pools = {pool.name: pool for pool in pools}
        self._metrics = metrics
        self._on_replaced = on_replaced
        self._one_at_a_time = asyncio.Lock()

    async def reload(self, load: Callable[[], RouterConfig]) -> None:
        """Take over new settings, all or none; those that need a restart are named in the log.

        A pool whose settings are what they were keeps its policy, with all it has learned, unless it is quarantined.

        Args:
            load: Returns them.

        Raises:
            StartupError: With a sentence for each problem; nothing has changed then.
        """
        async with self._one_at_a_time:
            try:
                config = load()
                steps = [part(config) for part in self.parts]
                async with Succession(self._to_replace(config)) as succession:
                    for step in steps:
                        step()
                    succession.take_place()
            except StartupError as error:
                self._metrics.count("reloads_total", 1, {"result": "refused"})
                self.why_stale = f"not reloaded: {'; '.join(error.problems)}"
                _log.error("%s", self.why_stale)
                raise
            waiting = ", ".join(needing_restart(self._at_start, config))
            self.why_stale = f"changed, but needs a restart: {waiting}" if waiting else ""
            if waiting:
                _log.warning("%s", self.why_stale)
            self.config = config
            self._on_replaced()
            self._metrics.count("reloads_total", 1, {"result": "done"})
            _log.info("%s are taken over", "all other settings" if waiting else "the settings")

    async def replace_policy(self, pool: str, selection: PolicySelection) -> None:
        """Replace the policy of one pool.

        Raises:
            KeyError: There is no such pool.
            StartupError: The policy cannot be; the old one stays.
        """
        served = self._pools[pool]
        async with self._one_at_a_time:
            try:
                async with Succession([(served, served.settings.with_policy(selection))]) as succession:
                    succession.take_place()
            except StartupError as error:
                self._metrics.count("reloads_total", 1, {"result": "refused"})
                _log.error("pool %s keeps its policy: %s", pool, "; ".join(error.problems))
                raise
            self._on_replaced()
            self._metrics.count("reloads_total", 1, {"result": "done"})

    def _to_replace(self, config: RouterConfig) -> Iterator[tuple[ServedPool, PoolSettings]]:
        for settings in pools_of(config):
            pool = self._pools.get(settings.name)
            if pool is not None and (pool.policy.is_quarantined or _live(settings) != _live(pool.settings)):
                yield pool, settings


async def reload_settings(reloading: Reloading, source: SettingsSource) -> None:
    """Read the settings again and take them over; if they cannot be, the log says why."""
    with contextlib.suppress(StartupError):
        await reloading.reload(source.load)


async def follow_settings(
    reloading: Reloading, source: SettingsSource, *, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
) -> None:
    """Read the settings again whenever their files have changed; never returns.

    Args:
        reloading: Who takes them over.
        source: Where they stand.
        sleep: Waits between two looks.
    """
    while True:
        await sleep(_LOOK_S)
        if await asyncio.to_thread(source.has_changed):  # a file system may hang
            await reload_settings(reloading, source)


def _live(settings: PoolSettings) -> tuple[object, ...]:
    return tuple(getattr(settings, name) for name in sorted(LIVE_IN_POOL))
