"""What an engine says of itself, read out of its answers: engines differ, and old ones say little. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

EngineKind = Literal["sglang", "vllm"]


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What an engine says of itself when it joins.

    Attributes:
        kind: Which engine it seems to be; None when nothing tells.
        models: Ids of the models it serves, in its order.
        adapters: The LoRA adapters it has loaded, by name, each with the model it belongs to.
        dp_size: How many data-parallel ranks it has; None when it does not say (vLLM never does).
        bootstrap_port: Where its bootstrap server listens; None when it does not say.
    """

    kind: EngineKind | None = None
    models: tuple[str, ...] = ()
    adapters: Mapping[str, str] = field(default_factory=dict)
    dp_size: int | None = None
    bootstrap_port: int | None = None


def facts_of(items: list[dict[str, Any]], server: dict[str, Any], model: dict[str, Any]) -> EngineFacts:
    """Put together what an engine told. `Any`: the words of engines we have not met.

    Args:
        items: Of its `/v1/models`, empty if it did not tell.
        server: Its `/server_info`, likewise.
        model: Its `/model_info`, likewise.
    """
    models, adapters = models_and_adapters(items)
    if not models and not adapters:
        told = (server.get("served_model_name"), model.get("served_model_name"), *_paths(server), *_paths(model))
        models = [next((name for name in told if isinstance(name, str) and name), "")]
    dp_size, bootstrap_port = _whole(server.get("dp_size")), _whole(server.get("disaggregation_bootstrap_port"))
    return EngineFacts(
        kind=_kind(items, server, model),
        models=tuple(dict.fromkeys(filter(None, models))),
        adapters=adapters,
        dp_size=dp_size,
        bootstrap_port=bootstrap_port if bootstrap_port is not None and bootstrap_port < 65536 else None,
    )


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def engine_kind(items: Iterable[Mapping[str, Any]]) -> EngineKind | None:
    """Return which engine lists these models; None when they do not tell.

    Args:
        items: What it answers on `/v1/models`. `Any`: an engine's own fields.
    """
    owners = {item.get("owned_by") for item in items if isinstance(item.get("owned_by"), str)}
    return "vllm" if "vllm" in owners else "sglang" if "sglang" in owners else None


def _kind(items: list[dict[str, Any]], server: dict[str, Any], model: dict[str, Any]) -> EngineKind | None:
    listed = engine_kind(items)
    if listed == "vllm" or "vllm_config" in server:  # vLLM in development mode has a /server_info of its own
        return "vllm"
    return "sglang" if listed is not None or _paths(server) or _paths(model) else None


def _paths(info: dict[str, Any]) -> list[Any]:
    return [info["model_path"]] if "model_path" in info else []


def models_and_adapters(items: Iterable[Mapping[str, Any]]) -> tuple[list[str], dict[str, str]]:
    """Return the ids of the models an engine lists, and its LoRA adapters with the model each belongs to.

    Args:
        items: What it answers on `/v1/models`. `Any`: an engine's own fields.
    """
    models, adapters = [], {}
    for item in items:
        parent = item.get("parent")  # `root` is where an adapter's files are; a base model has one, too
        if isinstance(parent, str) and parent not in ("", item["id"]):
            adapters[item["id"]] = parent
        else:
            models.append(item["id"])
    return models, adapters
