"""Settings that change while the router runs: read anew, checked as a whole, then applied; or refused, and nothing has
changed.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

from router_core.cli.served_pool import ServedPool
from router_core.config import ModelConfig, PolicySelection, RouterConfig, pools_of
from router_core.contract.errors import StartupError
from router_core.observability.registry import MetricsRegistry

_log = logging.getLogger(__name__)

ReloadPart = Callable[[RouterConfig], Awaitable[None]]
"""Takes over what it can of new settings; raises `StartupError` if it cannot, having changed nothing."""

_LIVE = frozenset({"policy", "prefill_policy", "decode_policy", "wrappers", "log_level", "auth"})
_LIVE_IN_MODEL = frozenset({"policy", "prefill_policy", "decode_policy", "wrappers"})


class Reloading:
    """Takes over new settings.

    Attributes:
        parts: Who else can take over settings while the router runs, in order; the pools' plugins come last.
        config: The settings that hold now.

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
        self.parts: list[ReloadPart] = []
        self._pools = {pool.name: pool for pool in pools}
        self._metrics = metrics
        self._on_replaced = on_replaced

    async def reload(self, config: RouterConfig) -> None:
        """Take over new settings; those that need a restart are named in the log.

        Raises:
            StartupError: With a sentence for each problem; the part that raised and those after it keep the old.
        """
        if needs_restart := _changed(self.config, config):
            _log.warning("changed, but needs a restart: %s", ", ".join(needs_restart))
        try:
            present = [settings for settings in pools_of(config) if settings.name in self._pools]
            for settings in present:  # all are checked before the first is replaced
                self._pools[settings.name].check(settings)
            for part in self.parts:
                await part(config)
            for settings in present:
                await self._pools[settings.name].replace_policy(settings)
        except StartupError as error:
            self._metrics.count("reloads_total", 1, {"result": "refused"})
            _log.error("not reloaded: %s", "; ".join(error.problems))
            raise
        self.config = config
        self._on_replaced()
        self._metrics.count("reloads_total", 1, {"result": "done"})
        _log.info("the settings are taken over")

    async def replace_policy(self, pool: str, selection: PolicySelection) -> None:
        """Replace the policy of one pool.

        Raises:
            KeyError: There is no such pool.
            StartupError: The policy cannot be; the old one stays.
        """
        served = self._pools[pool]
        try:
            await served.replace_policy(served.settings.with_policy(selection))
        except StartupError as error:
            self._metrics.count("reloads_total", 1, {"result": "refused"})
            _log.error("pool %s keeps its policy: %s", pool, "; ".join(error.problems))
            raise
        self._on_replaced()
        self._metrics.count("reloads_total", 1, {"result": "done"})


def _changed(old: RouterConfig, new: RouterConfig) -> list[str]:
    """Return the settings that differ and cannot change while the router runs."""
    names = [
        name
        for name in RouterConfig.model_fields
        if name not in _LIVE | {"models"} and getattr(old, name) != getattr(new, name)
    ]
    if [_fixed(model) for model in old.models] != [_fixed(model) for model in new.models]:
        names.append("models")
    return names


def _fixed(model: ModelConfig) -> dict[str, object]:
    return {name: getattr(model, name) for name in type(model).model_fields if name not in _LIVE_IN_MODEL}
