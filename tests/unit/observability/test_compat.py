from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from router_core.observability.exposition import Sample
from router_core.observability.families import MetricKind
from router_core.observability.registry import MetricsRegistry


async def exposed(registry: MetricsRegistry) -> dict[str, list]:
    body, _ = await registry.render()
    families = text_string_to_metric_families(body.decode())
    samples: dict[str, list] = {}
    for family in families:
        for sample in family.samples:
            samples.setdefault(sample.name, []).append((sample.labels, sample.value))
    return samples


def served(registry: MetricsRegistry, worker: str, status: str, times: int) -> None:
    labels = {"pool": "m", "plugin": "metrics", "worker": worker, "status": status, "leg": "single"}
    registry.count("requests_total", times, labels)


async def test_series_that_fall_together_are_added_up():
    registry = MetricsRegistry(compat=["vllm_router"])
    for worker in "ab":
        served(registry, worker, "success", 2)
        served(registry, worker, "error", 3)
    found = await exposed(registry)
    assert found["vllm_router_requests_total"] == [({}, 10)]
    assert found["vllm_router_request_errors_total"] == [({"error_type": "error"}, 6)]
    assert len(found["router_core_requests_total"]) == 4


async def test_histograms_stay_histograms():
    registry = MetricsRegistry(compat=["smg"])
    for leg in ("prefill", "decode"):
        registry.observe("time_to_first_token_seconds", 0.5, {"pool": "m", "plugin": "metrics", "leg": leg})
    found = await exposed(registry)
    http = {"model": "m", "router_type": "http", "backend_type": "regular", "connection_mode": "http"}
    assert found["smg_router_ttft_seconds_count"] == [(http, 2)]
    assert found["smg_router_ttft_seconds_sum"] == [(http, 1.0)]
    buckets = {labels["le"]: value for labels, value in found["smg_router_ttft_seconds_bucket"]}
    assert (buckets["0.4"], buckets["0.5"], buckets["+Inf"]) == (0, 2, 2)


async def test_both_kinds_of_tokens_are_one_metric_of_theirs():
    registry = MetricsRegistry(compat=["smg"])
    labels = {"pool": "m", "plugin": "metrics", "worker": "a"}
    registry.count("prompt_tokens_total", 7, labels)
    registry.count("completion_tokens_total", 5, labels)
    found = await exposed(registry)
    assert {sample["token_type"]: value for sample, value in found["smg_router_tokens_total"]} == {
        "input": 7,
        "output": 5,
    }


async def test_what_is_not_there_is_not_exposed_and_nothing_is_by_default():
    assert not [name for name in await exposed(MetricsRegistry(compat=["smg"])) if name.startswith("smg_")]
    registry = MetricsRegistry()
    served(registry, "a", "success", 1)
    assert not [name for name in await exposed(registry) if not name.startswith("router_core_")]


async def test_states_of_circuits_are_numbered_as_the_others_do():
    registry = MetricsRegistry(compat=["smg", "vllm_router"])
    ours = {"closed": 0, "half-open": 1, "open": 2}
    registry.add_sampler(
        lambda: [
            Sample("worker_circuit_state", MetricKind.GAUGE, "", {"pool": "m", "worker": name}, value)
            for name, value in ours.items()
        ]
    )
    found = await exposed(registry)
    for name in ("smg_worker_cb_state", "vllm_router_cb_state"):
        assert {labels["worker"]: value for labels, value in found[name]} == {"closed": 0, "open": 1, "half-open": 2}


async def test_only_requests_that_failed_for_good_exhausted_their_retries():
    registry = MetricsRegistry(compat=["smg", "vllm_router"])
    for result, times in (("served", 5), ("failed", 2), ("cancelled", 1)):
        registry.count("retried_requests_total", times, {"result": result})
    found = await exposed(registry)
    assert found["smg_worker_retries_exhausted_total"] == [({"worker_type": "regular"}, 2)]
    assert found["vllm_router_retries_exhausted_total"] == [({}, 2)]
