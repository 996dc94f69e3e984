"""The options of `weighted`."""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field

from router_core.api import PolicyConfig

ScorerName: TypeAlias = Literal[
    "queue", "running", "active", "kv", "load_aware", "token_load", "prefix", "no_hit_lru", "lora", "session"
]


def _parsed(value: object) -> object:
    """Return text such as `prefix=3,queue=2` as a mapping; anything else as it is."""
    if not isinstance(value, str):
        return value
    weights: dict[str, str | None] = {}
    for word in re.findall(r"[^\s,]+", value):
        name, _, weight = word.partition("=")
        if name in weights:
            raise ValueError(f"{name} stands twice; give each scorer one weight")
        weights[name] = weight or None
    return weights


def _checked(scorers: dict[ScorerName, float]) -> dict[ScorerName, float]:
    if not any(scorers.values()):
        raise ValueError("no scorer has a weight above 0; write for example prefix=3,kv=2,queue=2")
    return scorers


Weights = Annotated[
    dict[ScorerName, Annotated[float, Field(ge=0, allow_inf_nan=False)]],
    BeforeValidator(_parsed),
    AfterValidator(_checked),
]


class WeightedConfig(PolicyConfig):
    """Options of `weighted`."""

    scorers: Weights = Field(default={"prefix": 3, "kv": 2, "queue": 2})
    """Each scorer's weight; on a command line `prefix=3,kv=2,queue=2`."""

    picker: Literal["max", "weighted_random"] = "max"
    """Take the highest sum, or draw with the sums as weights."""

    queue_threshold: Annotated[int, Field(ge=1)] = 128
    """Waiting requests at which `load_aware` scores 0."""

    token_threshold: Annotated[int, Field(ge=1)] = 4_194_304
    """Tokens in flight at which `token_load` scores 0."""

    prefix_length_weight: Annotated[float, Field(ge=0, le=1)] = 0
    """How much `prefix` looks at the cached tokens' number, up to 8192, rather than at their share of the prompt."""

    lora_slots: Annotated[int, Field(ge=1)] = 4
    """Adapters a worker has room for at a time, for `lora`."""

    lora_models: tuple[str, ...] = ()
    """Models that are adapters, for `lora`: vLLM names an adapter by `model`; SGLang's `lora_path` is known anyway."""

    max_sessions: Annotated[int, Field(ge=1)] = 100_000
    """Sessions to remember, for `session`; past it the one not used for longest is forgotten."""

    cache_tokens: Annotated[int, Field(ge=0)] = 1_000_000
    """Tokens a worker's KV cache is taken to hold, for `prefix`. Too many does little harm, too few a lot."""

    max_blocks: Annotated[int, Field(ge=1)] = 1_000_000
    """Blocks of about 512 tokens to remember over all workers, about 200 bytes each, for `prefix`."""
