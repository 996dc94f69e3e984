"""From the settings to the pools they make: what each of them needs, whatever part of the settings it stands in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from router_core.config.schema import PdConfig, PluginSelection, PolicySelection, RouterConfig

DEFAULT_POOL = "default"


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """One pool's settings.

    Attributes:
        name: The pool's name, in metrics too.
        place: Where its settings stand, for messages: empty, or such as `models[0].`.
        policy: Its policy, and how much is borne of its plugins.
        prefill_policy: A policy for prefill workers alone, or None.
        decode_policy: A policy for decode workers alone, or None.
        wrappers: Plugins around the policy, outermost first.
        observers: Plugins that are told of every request of the pool.
        pd: Prefill/decode disaggregation.
        app_dir: Folder in which `module:Class` names are looked up.
    """

    name: str
    place: str
    policy: PolicySelection
    prefill_policy: PluginSelection | None
    decode_policy: PluginSelection | None
    wrappers: tuple[PluginSelection, ...]
    observers: tuple[PluginSelection, ...]
    pd: PdConfig
    app_dir: Path | None


def pools_of(config: RouterConfig) -> tuple[PoolSettings, ...]:
    """Return the settings of each pool; the one of the top level is the last."""
    return (
        PoolSettings(
            name=DEFAULT_POOL,
            place="",
            policy=config.policy,
            prefill_policy=config.prefill_policy,
            decode_policy=config.decode_policy,
            wrappers=config.wrappers,
            observers=config.observers,
            pd=config.pd,
            app_dir=config.app_dir,
        ),
    )
