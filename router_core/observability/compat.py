"""The same figures under the names of other gateways, for dashboards that are there already.

Each entry is a renaming, worked out when somebody scrapes: labels of theirs are ours under another name, or fixed;
series that then fall together are added up. What has no meaning here is left out rather than exposed as 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.metrics_core import Metric

_FAILURES = ("error", "timeout", "backpressure")


@dataclass(frozen=True, slots=True)
class Alias:
    """One metric of another gateway.

    Attributes:
        name: Theirs; a counter's without `_total`.
        ours: Ours, likewise.
        labels: Their label -> ours.
        fixed: Their labels whose values never change.
        only: Our label -> the values that are counted; others are left out.
        values: Our value -> theirs, for those that they number otherwise.
    """

    name: str
    ours: str
    labels: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, str] = field(default_factory=dict)
    only: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    values: Mapping[float, float] = field(default_factory=dict)


_HTTP = {"router_type": "http", "backend_type": "regular", "connection_mode": "http"}
_BY_MODEL = {"model": "pool"}
_WORKER = {"worker": "worker"}
_WORKERS = {"worker_type": "regular", "connection_mode": "http"}
_TRANSITION = {**_WORKER, "from": "from", "to": "to"}


def _failure_handling(prefix: str, retries: str, fixed: Mapping[str, str]) -> tuple[Alias, ...]:
    """Return what two gateways call the same but for the beginning."""
    requests, outcomes = "router_core_requests", prefix + "_cb_outcomes"
    return (
        Alias(retries, "router_core_retries", fixed=fixed),
        Alias(f"{retries}_exhausted", "router_core_retried_requests", fixed=fixed, only={"result": ("failed",)}),
        # 0 closed, 1 open, 2 half open; ours grow with what is kept back.
        Alias(f"{prefix}_cb_state", "router_core_worker_circuit_state", _WORKER, values={1: 2, 2: 1}),
        Alias(outcomes, requests, _WORKER, {"outcome": "success"}, only={"status": ("success",)}),
        Alias(outcomes, requests, _WORKER, {"outcome": "failure"}, only={"status": ("error", "timeout")}),
    )


ALIASES: Mapping[str, tuple[Alias, ...]] = {
    "smg": (
        Alias("smg_http_connections_active", "router_core_client_connections_active"),
        Alias("smg_router_requests", "router_core_requests", _BY_MODEL, _HTTP),
        Alias("smg_router_request_duration_seconds", "router_core_request_duration_seconds", _BY_MODEL, _HTTP),
        Alias(
            "smg_router_request_errors",
            "router_core_requests",
            {**_BY_MODEL, "error_type": "status"},
            _HTTP,
            only={"status": _FAILURES},
        ),
        Alias("smg_router_ttft_seconds", "router_core_time_to_first_token_seconds", _BY_MODEL, _HTTP),
        Alias("smg_router_tpot_seconds", "router_core_time_per_output_token_seconds", _BY_MODEL, _HTTP),
        Alias("smg_router_tokens", "router_core_prompt_tokens", _BY_MODEL, {**_HTTP, "token_type": "input"}),
        Alias("smg_router_tokens", "router_core_completion_tokens", _BY_MODEL, {**_HTTP, "token_type": "output"}),
        Alias("smg_worker_health", "router_core_worker_health", _WORKER),
        Alias("smg_worker_requests_active", "router_core_worker_requests_active", _WORKER),
        Alias("smg_worker_selection", "router_core_policy_decisions", _BY_MODEL, _WORKERS),
        Alias(
            "smg_worker_errors",
            "router_core_requests",
            {"error_type": "status"},
            _WORKERS,
            only={"status": _FAILURES},
        ),
        *_failure_handling("smg_worker", "smg_worker_retries", {"worker_type": "regular"}),
        Alias("smg_worker_cb_transitions", "router_core_worker_circuit_transitions", _TRANSITION),
        Alias("smg_worker_retry_backoff_seconds", "router_core_retry_backoff_seconds"),
        Alias("smg_discovery_workers_discovered", "router_core_membership_workers", {"source": "source"}),
    ),
    "vllm_router": (
        Alias("vllm_router_requests", "router_core_requests"),
        Alias("vllm_router_request_duration_seconds", "router_core_request_duration_seconds"),
        Alias(
            "vllm_router_request_errors",
            "router_core_requests",
            {"error_type": "status"},
            only={"status": _FAILURES},
        ),
        Alias("vllm_router_active_workers", "router_core_worker_health"),
        Alias("vllm_router_worker_health", "router_core_worker_health", _WORKER),
        Alias("vllm_router_worker_load", "router_core_worker_requests_active", _WORKER),
        Alias("vllm_router_running_requests", "router_core_worker_requests_active", _WORKER),
        Alias("vllm_router_processed_requests", "router_core_worker_requests_processed", _WORKER),
        *_failure_handling("vllm_router", "vllm_router_retries", {}),
        Alias("vllm_router_cb_state_transitions", "router_core_worker_circuit_transitions", _TRANSITION),
        Alias("vllm_router_retry_backoff_duration_seconds", "router_core_retry_backoff_seconds"),
        Alias("vllm_router_cache_hits", "router_core_cache_hits"),
        Alias("vllm_router_cache_misses", "router_core_cache_misses"),
        Alias("vllm_router_tree_size", "router_core_cache_tree_chars", _WORKER),
        Alias("vllm_router_load_balancing_events", "router_core_load_balancing_events"),
        Alias("vllm_router_max_load", "router_core_max_load"),
        Alias("vllm_router_min_load", "router_core_min_load"),
    ),
}
"""By gateway."""


def renamed(metrics: Iterable[Metric], gateways: Iterable[str]) -> Iterator[Metric]:
    """Yield what is in `metrics` under the names of these gateways."""
    ours = {metric.name: metric for metric in metrics}
    for gateway in gateways:
        theirs: dict[str, Metric] = {}
        sums: dict[tuple[str, str, tuple[tuple[str, str], ...]], float] = {}
        for alias in ALIASES[gateway]:
            metric = ours.get(alias.ours)
            if metric is None or not metric.samples:
                continue
            text = f"See {alias.ours}."
            theirs.setdefault(alias.name, Metric(alias.name, text, metric.type))
            for sample in metric.samples:
                if any(sample.labels.get(label) not in values for label, values in alias.only.items()):
                    continue
                labels = {name: sample.labels.get(label, "") for name, label in alias.labels.items()}
                labels.update(alias.fixed)
                if "le" in sample.labels:
                    labels["le"] = sample.labels["le"]
                suffix = sample.name[len(alias.ours) :]
                key = alias.name, suffix, tuple(labels.items())
                sums[key] = sums.get(key, 0.0) + alias.values.get(sample.value, sample.value)
        for (name, suffix, labels_), value in sums.items():
            theirs[name].add_sample(name + suffix, dict(labels_), value)
        yield from (metric for metric in theirs.values() if metric.samples)
