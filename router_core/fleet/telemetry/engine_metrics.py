"""Engines' load out of their `/metrics`, by the names each engine and release gives it. No I/O.

One figure may come as several series. Three cases:

1. They are parts: data-parallel ranks, models. Requests are added up; of cache shares the greatest counts.
2. They are copies: every tensor- or pipeline-parallel process tells the same. The greatest counts, once.
3. One of them is the sum of others: SGLang tells each priority apart and all together. The sum counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from router_core.fleet.telemetry.prometheus_text import Sample, samples
from router_core.fleet.telemetry.reading import Reading, count, share

_COPY_LABELS = frozenset(
    {"tp_rank", "pp_rank", "moe_ep_rank", "ep_rank", "attn_tp_rank", "attn_cp_rank", "pid", "priority"}
)
_RANK_LABELS = ("dp_rank", "engine", "dp", "data_parallel_rank")  # vLLM calls a rank an engine


class _Names(NamedTuple):
    """How one engine calls the figures, newest name first."""

    running: tuple[str, ...]
    waiting: tuple[str, ...]
    cache_usage: tuple[str, ...]


def _both(prefix: str, *names: str) -> tuple[str, ...]:
    """Return the names with both separators: exporters between engine and router turn colons into underscores."""
    return tuple(prefix + separator + name for name in names for separator in (":", "_"))


_ENGINES = (
    _Names(
        _both("vllm", "num_requests_running"),
        _both("vllm", "num_requests_waiting"),
        _both("vllm", "kv_cache_usage_perc", "gpu_cache_usage_perc"),
    ),
    _Names(_both("sglang", "num_running_reqs"), _both("sglang", "num_queue_reqs"), _both("sglang", "token_usage")),
    _Names(
        _both("trtllm", "num_requests_running"),
        _both("trtllm", "num_requests_waiting"),
        _both("trtllm", "kv_cache_utilization"),
    ),
    _Names(
        _both("llamacpp", "requests_processing"),
        _both("llamacpp", "requests_deferred"),
        _both("llamacpp", "kv_cache_usage_ratio"),
    ),
)


def parse_metrics(body: bytes, rank: int | None = None) -> Reading | None:
    """Read an engine's Prometheus exposition.

    Args:
        body: The answer of `/metrics`.
        rank: Which data-parallel rank to read; None for the engine as a whole.

    Returns:
        The reading, or None when no engine's names are in it, or not the rank's.
    """
    for names in _ENGINES:
        running = _figures(body, names.running, rank)
        waiting = _figures(body, names.waiting, rank)
        if not running and not waiting:
            continue
        usages = _figures(body, names.cache_usage, rank)
        reading = Reading(
            running_requests=count(sum(running)) if running else None,
            waiting_requests=count(sum(waiting)) if waiting else None,
            cache_usage=share(max(usages)) if usages else None,
        )
        if not reading.is_empty:
            return reading
    return None


def _figures(body: bytes, names: Iterable[str], rank: int | None) -> list[float]:
    """Return the parts of a figure, under the first of its names that is there; copies count once."""
    for name in names:
        found = list(samples(body, name))
        if rank is not None:
            found = [sample for sample in found if _is_of_rank(sample.labels, rank)]
        if found:
            parts: dict[frozenset[tuple[str, str]], float] = {}
            for part, value in _parts(found):
                parts[part] = max(parts.get(part, value), value)
            return list(parts.values())
    return []


def _parts(found: list[Sample]) -> Iterator[tuple[frozenset[tuple[str, str]], float]]:
    by_priority = [sample for sample in found if sample.labels.get("priority")]
    has_total = len(by_priority) < len(found)
    for labels, value in found:
        if labels.get("priority"):
            if has_total:
                continue
            labels = {**labels, "by_priority": labels["priority"]}
        yield frozenset((name, text) for name, text in labels.items() if name not in _COPY_LABELS), value


def _is_of_rank(labels: Mapping[str, str], rank: int) -> bool:
    return next((labels[name] == str(rank) for name in _RANK_LABELS if name in labels), False)
