"""Which settings a running router takes over when it reads them again; all others wait for a restart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import BaseModel

from router_core.config.models import ModelConfig
from router_core.config.schema import RouterConfig

_LIVE = frozenset(
    {"policy", "prefill_policy", "decode_policy", "wrappers", "log_level", "auth", "admission", "tls", "worker_tls"}
)
LIVE_IN_POOL = frozenset({"policy", "prefill_policy", "decode_policy", "wrappers"})
"""What of a pool's settings is; a model's too."""


def is_live(path: str) -> bool:
    """Return whether a setting, such as `health.interval_s`, is taken over while the router runs."""
    return path.partition(".")[0] in _LIVE


def needing_restart(old: RouterConfig, new: RouterConfig) -> tuple[str, ...]:
    """Return the settings that differ and are not taken over, by their paths, in the order of the schema."""
    found = [path for path in _differing(old, new) if not is_live(path) and path != "models"]
    if [_fixed(model) for model in old.models] != [_fixed(model) for model in new.models]:
        found.append("models")
    if (old.tls.cert is None) != (new.tls.cert is None):
        found.append("tls")  # an open port cannot begin to speak it, nor cease to
    return tuple(found)


def _differing(old: BaseModel, new: BaseModel, prefix: str = "") -> Iterator[str]:
    for name in type(old).model_fields:
        before, after = getattr(old, name), getattr(new, name)
        if isinstance(before, BaseModel) and type(before) is type(after):
            yield from _differing(before, after, f"{prefix}{name}.")
        elif before != after:
            yield f"{prefix}{name}"


def _fixed(model: ModelConfig) -> Mapping[str, object]:
    return {name: getattr(model, name) for name in type(model).model_fields if name not in LIVE_IN_POOL}
