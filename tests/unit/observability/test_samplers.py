from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from prometheus_client.exposition import generate_latest

from router_core.contract.worker import Worker
from router_core.observability.registry import MetricsRegistry
from router_core.observability.samplers import policy_sampler, traffic_sampler, worker_sampler
from router_core.plugin_host.decision_times import DecisionTimes


@dataclass(frozen=True)
class FakePolicy:
    name: str = "cache_aware"
    source: str = "router-policy-cache-aware 0.1.0"
    plugins: tuple[str, ...] = ("cache_aware",)
    faults: Mapping[tuple[str, str], int] = field(default_factory=dict)
    is_quarantined: bool = False
    decision_times: DecisionTimes = field(default_factory=DecisionTimes)


def lines(registry: MetricsRegistry) -> set[str]:
    return {line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")}


def test_a_worker_that_left_is_not_in_the_next_scrape() -> None:
    registry = MetricsRegistry()
    workers = [Worker("http://a:1", load=3, requests_processed=9), Worker("http://b:1", is_healthy=False)]
    registry.add_sampler(worker_sampler("default", lambda: workers))
    assert {
        'router_core_worker_health{pool="default",worker="http://a:1"} 1.0',
        'router_core_worker_health{pool="default",worker="http://b:1"} 0.0',
        'router_core_worker_requests_active{pool="default",worker="http://a:1"} 3.0',
        'router_core_worker_requests_processed_total{pool="default",worker="http://a:1"} 9.0',
    } <= lines(registry)
    del workers[0]
    assert not any("http://a:1" in line for line in lines(registry))


def test_two_pools_may_share_a_worker() -> None:
    registry = MetricsRegistry()
    for pool in ("one", "two"):
        registry.add_sampler(worker_sampler(pool, lambda: [Worker("http://a:1")]))
    assert sum("worker_health" in line for line in lines(registry)) == 2


def test_a_policys_faults_and_quarantine_show() -> None:
    registry = MetricsRegistry()
    faulty = FakePolicy(faults={("cache_aware", "exception"): 3, ("audit", "late"): 1}, is_quarantined=True)
    registry.add_sampler(policy_sampler("default", lambda: faulty))
    assert {
        'router_core_policy_faults_total{kind="exception",plugin="cache_aware",pool="default"} 3.0',
        'router_core_policy_faults_total{kind="raised",plugin="cache_aware",pool="default"} 0.0',
        'router_core_policy_faults_total{kind="late",plugin="audit",pool="default"} 1.0',
        'router_core_policy_quarantined{policy="cache_aware",pool="default"} 1.0',
        'router_core_policy_info{policy="cache_aware",pool="default",source="router-policy-cache-aware 0.1.0"} 1.0',
    } <= lines(registry)


def test_a_policys_decisions_have_count_and_time() -> None:
    registry = MetricsRegistry()
    times = DecisionTimes()
    for took_s in (5e-6, 1e-5, 3e-5, 0.2):
        times.note(took_s)
    busy = FakePolicy(decision_times=times)
    registry.add_sampler(policy_sampler("default", lambda: busy))
    assert {
        'router_core_policy_decision_seconds_count{policy="cache_aware",pool="default"} 4.0',
        'router_core_policy_decision_seconds_sum{policy="cache_aware",pool="default"} 0.200045',
        'router_core_policy_decision_seconds_bucket{le="1e-05",policy="cache_aware",pool="default"} 2.0',
        'router_core_policy_decision_seconds_bucket{le="5e-05",policy="cache_aware",pool="default"} 3.0',
        'router_core_policy_decision_seconds_bucket{le="0.1",policy="cache_aware",pool="default"} 3.0',
        'router_core_policy_decision_seconds_bucket{le="+Inf",policy="cache_aware",pool="default"} 4.0',
    } <= lines(registry)


def test_what_happens_before_a_worker_is_picked_shows() -> None:
    registry = MetricsRegistry()
    unrouted: dict[str, int] = {}
    registry.add_sampler(
        traffic_sampler(
            connections=lambda: 12,
            refusals=lambda: {413: 2},
            buffered_bytes=lambda: 5,
            buffers_full=lambda: 6,
            client_stalls=lambda: 1,
            handshake_failures=lambda: {"no_tls": 3},
            shortages=lambda: {"files": 4},
            unrouted=lambda: {"default": unrouted},
            proxied_unknown=lambda: 0,
        )
    )
    assert not any("unrouted" in line for line in lines(registry))
    unrouted["no_available_workers"] = 4
    assert {
        "router_core_client_connections_active 12.0",
        'router_core_refused_requests_total{status="413"} 2.0',
        'router_core_tls_handshake_failures_total{reason="no_tls"} 3.0',
        'router_core_upstream_shortages_total{lacking="files"} 4.0',
        'router_core_unrouted_requests_total{pool="default",reason="no_available_workers"} 4.0',
    } <= lines(registry)
