"""From the settings to the pools they make: what each of them needs, whatever part of the settings it stands in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from router_core.config.models import RESERVED, ModelConfig
from router_core.config.pd import PdConfig
from router_core.config.schema import RouterConfig
from router_core.config.selection import PluginSelection, PolicySelection

DEFAULT_POOL = RESERVED


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """One pool's settings.

    Attributes:
        name: The pool's name, in metrics too.
        model: The model it is for; None for the pool of all that have none of their own.
        aliases: Other names of the model.
        place: Where its own settings stand, for messages: empty, or such as `models[0].`.
        inherited: The settings it takes from the top level.
        policy: Its policy, and how much is borne of its plugins.
        prefill_policy: A policy for prefill workers alone, or None.
        decode_policy: A policy for decode workers alone, or None.
        wrappers: Plugins around the policy, outermost first.
        observers: Plugins that are told of every request of the pool.
        pd: Prefill/decode disaggregation.
        app_dir: Folder in which `module:Class` names are looked up.
    """

    name: str
    model: str | None
    aliases: tuple[str, ...]
    place: str
    inherited: frozenset[str]
    policy: PolicySelection
    prefill_policy: PluginSelection | None
    decode_policy: PluginSelection | None
    wrappers: tuple[PluginSelection, ...]
    observers: tuple[PluginSelection, ...]
    pd: PdConfig
    app_dir: Path | None

    def with_policy(self, policy: PolicySelection) -> PoolSettings:
        """Return the same with another policy, for both sides of pairs."""
        return replace(self, policy=policy, prefill_policy=None, decode_policy=None)

    def place_of(self, setting: str) -> str:
        """Return where one of its settings stands, for messages."""
        return setting if setting in self.inherited else f"{self.place}{setting}"


def pools_of(config: RouterConfig) -> tuple[PoolSettings, ...]:
    """Return the settings of each pool: one for each model that has its own, then that for all others."""
    rest = PoolSettings(
        name=DEFAULT_POOL,
        model=None,
        aliases=(),
        place="",
        inherited=frozenset(),
        policy=config.policy,
        prefill_policy=config.prefill_policy,
        decode_policy=config.decode_policy,
        wrappers=config.wrappers,
        observers=config.observers,
        pd=config.pd,
        app_dir=config.app_dir,
    )
    return (*(_pool_of(model, f"models[{index}].", config) for index, model in enumerate(config.models)), rest)


def _pool_of(model: ModelConfig, place: str, config: RouterConfig) -> PoolSettings:
    return PoolSettings(
        name=model.name,
        model=model.name,
        aliases=model.aliases,
        place=place,
        inherited=frozenset(name for name in ("policy", "wrappers") if getattr(model, name) is None),
        policy=model.policy or config.policy,
        prefill_policy=model.prefill_policy,
        decode_policy=model.decode_policy,
        wrappers=config.wrappers if model.wrappers is None else model.wrappers,
        observers=config.observers,
        pd=model.pd,
        app_dir=config.app_dir,
    )
