"""What metrics are called, what they mean and how their histograms are divided. Names and numbers only.

Every name gets the prefix `router_core_` and every counter ends in `_total`, once, whatever its reporter wrote.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum

PREFIX = "router_core_"


class MetricKind(StrEnum):
    """What a metric's value means."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


_UNFIT_FOR_A_NAME = re.compile(r"[^a-zA-Z0-9_]")
_LABEL_NAME = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*\Z")
_MAX_NAME_LENGTH = 200


def metric_name(kind: MetricKind, name: object) -> str | None:
    """Return the name under which a metric is exposed; characters Prometheus does not allow become `_`.

    Args:
        kind: What the metric is.
        name: As its reporter calls it, with or without prefix.

    Returns:
        The full name, or None when there is nothing in `name` to call it by.
    """
    if not isinstance(name, str):
        return None
    stem = _UNFIT_FOR_A_NAME.sub("_", name.removeprefix(PREFIX))
    if kind is MetricKind.COUNTER:
        stem = stem.removesuffix("_total")
    if not stem.strip("_") or len(stem) > _MAX_NAME_LENGTH:
        return None
    return PREFIX + stem + ("_total" if kind is MetricKind.COUNTER else "")


def is_label_name(kind: MetricKind, name: str) -> bool:
    """Tell whether Prometheus lets a metric of this kind have a label called `name`."""
    if kind is MetricKind.HISTOGRAM and name == "le":
        return False
    return _LABEL_NAME.match(name) is not None


def exposed_names(kind: MetricKind, full_name: str) -> tuple[str, ...]:
    """Return every name a metric takes up in an exposition; no two metrics may share one."""
    if kind is MetricKind.HISTOGRAM:
        return full_name, full_name + "_bucket", full_name + "_sum", full_name + "_count"
    return (full_name,)


_VLLM_TTFT = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
_SGLANG_TTFT = (*(0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 20.0, 40.0, 60.0, 80.0, 100.0, 200.0, 400.0),)
TTFT_BUCKETS = tuple(sorted({*_VLLM_TTFT, *_SGLANG_TTFT}))
"""Every edge of vLLM's and of SGLang's `time_to_first_token_seconds`: at each of them router minus engine is meant."""

_VLLM_TPOT = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
_SGLANG_TPOT = (
    *(0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04, 0.06, 0.08, 0.1, 0.2, 0.4, 0.6, 0.8),
    *(1.0, 2.0, 4.0, 6.0, 8.0),
)
TPOT_BUCKETS = tuple(sorted({*_VLLM_TPOT, *_SGLANG_TPOT}))
"""Every edge of vLLM's and of SGLang's `inter_token_latency_seconds`."""

DURATION_BUCKETS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0),
    *(60.0, 120.0, 240.0, 480.0, 960.0, 1920.0),
)
DECISION_BUCKETS = (1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1)
RATIO_BUCKETS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
QUANTITY_BUCKETS = (*(float(digit * 10**power) for power in range(6) for digit in (1, 2, 5)), 1e6)


def buckets_for(full_name: str) -> tuple[float, ...]:
    """Return the upper bounds of a histogram's buckets, told by its name; ascending, without infinity."""
    if full_name.endswith("_seconds"):
        if "time_to_first_token" in full_name or "ttft" in full_name:
            return TTFT_BUCKETS
        if "per_output_token" in full_name or "inter_token" in full_name:
            return TPOT_BUCKETS
        if "decision" in full_name:
            return DECISION_BUCKETS
        return DURATION_BUCKETS
    if full_name.endswith("_ratio"):
        return RATIO_BUCKETS
    return QUANTITY_BUCKETS


HELP: Mapping[str, str] = {
    PREFIX + stem: text
    for stem, text in {
        "reloads_total": "Settings and policies that were to be taken over while the router runs, by what came of it.",
        "requests_total": "Attempts that ended, by worker, outcome and leg.",
        "request_duration_seconds": "Seconds from reserving the worker to the end of its answer.",
        "time_to_first_token_seconds": "Seconds from reserving the worker to the first byte of its answer's body.",
        "prompt_tokens_total": "Prompt tokens, as the workers' replies report them.",
        "cached_tokens_total": "Prompt tokens served from the engine's cache, as the workers' replies report them.",
        "completion_tokens_total": "Generated tokens, as the workers' replies report them.",
        "time_per_output_token_seconds": "Mean seconds between two tokens of an answer, after its first one.",
        "cache_check_predicted_tokens_total": "Prompt tokens the policy expected in the chosen worker's cache, where "
        "the reply tells what was there.",
        "cache_check_reported_tokens_total": "Of the same requests: prompt tokens that the engine found in its cache.",
        "admission_wait_seconds": "Seconds that requests waited in the queue for their turn, let in or not.",
        "retry_backoff_seconds": "Pauses before further attempts; those that are made at once have none.",
        "policy_decisions_total": "Decisions of the policy whose request has ended, by worker and given reason.",
        "metrics_dropped_total": "Metric updates that were refused, by metric (empty if it never existed) and reason.",
    }.items()
}
"""What our own metrics mean, by full name. Anyone else's say who reports them."""
