from __future__ import annotations

from pathlib import Path

import pytest

from router_core.contract.worker import WorkerRole

from .fake_kubernetes import FakeKubernetes
from .following import following_cluster
from .objects import endpoint, endpoint_slice

pytestmark = pytest.mark.usefixtures("kubernetes_library")

A, B, C = "http://10.0.0.1:8000", "http://10.0.0.2:8000", "http://10.0.0.3:8000"
SERVICE = {"mode": "endpointslices", "selector": {"kubernetes.io/service-name": "vllm"}}


async def test_ready_endpoints_of_a_service_join_and_leave(tmp_path: Path):
    async with FakeKubernetes() as cluster:
        cluster.put("endpointslices", endpoint_slice("s1", endpoint("10.0.0.1", name="a")))
        cluster.put("endpointslices", endpoint_slice("s2", endpoint("10.0.0.3", name="c"), service="other"))
        async with following_cluster(cluster, tmp_path, **SERVICE) as found:
            await found.until_urls(A)
            both = (endpoint("10.0.0.1", name="a"), endpoint("10.0.0.2", name="b"))
            cluster.put("endpointslices", endpoint_slice("s1", *both))
            await found.until_urls(A, B)
            cluster.put("endpointslices", endpoint_slice("s1", endpoint("10.0.0.1", name="a", is_ready=False), both[1]))
            await found.until_urls(B)
            cluster.delete("endpointslices", "s1")
            await found.until_urls()


async def test_an_endpoint_that_is_terminating_leaves_even_if_it_is_published_as_ready(tmp_path: Path):
    async with FakeKubernetes() as cluster:
        cluster.put("endpointslices", endpoint_slice("s1", endpoint("10.0.0.1", name="a", is_ready=None)))
        async with following_cluster(cluster, tmp_path, **SERVICE) as found:
            await found.until_urls(A)
            going = endpoint("10.0.0.1", name="a", is_terminating=True)
            cluster.put("endpointslices", endpoint_slice("s1", going))
            await found.until_urls()


async def test_an_endpoint_that_moves_to_another_slice_stays_the_same_worker(tmp_path: Path):
    async with FakeKubernetes() as cluster:
        cluster.put("endpointslices", endpoint_slice("s1", endpoint("10.0.0.1", name="a")))
        async with following_cluster(cluster, tmp_path, **SERVICE) as found:
            await found.until_urls(A)
            before = found.pool.get(A)
            cluster.put("endpointslices", endpoint_slice("s2", endpoint("10.0.0.1", name="a")))
            cluster.put("endpointslices", endpoint_slice("s1"))
            cluster.put(
                "endpointslices",
                endpoint_slice("s2", endpoint("10.0.0.1", name="a"), endpoint("10.0.0.2", name="b")),
            )
            await found.until_urls(A, B)
            assert found.pool.get(A) is before


async def test_a_dual_stack_pod_is_one_worker_by_its_ipv4_address(tmp_path: Path):
    async with FakeKubernetes() as cluster:
        cluster.put("endpointslices", endpoint_slice("v6", endpoint("fd00::1", name="a"), address_type="IPv6"))
        async with following_cluster(cluster, tmp_path, **SERVICE) as found:
            await found.until_urls("http://[fd00::1]:8000")
            cluster.put("endpointslices", endpoint_slice("v4", endpoint("10.0.0.1", name="a")))
            await found.until_urls(A)


async def test_port_zone_models_and_bootstrap_port_are_told(tmp_path: Path):
    ports = [{"name": "metrics", "port": 9090}, {"name": "api", "port": 30000, "protocol": "TCP"}]
    options = {
        "mode": "endpointslices",
        "selector": None,
        "prefill_selector": "leg=prefill",
        "port": "api",
        "labels": ["topology.kubernetes.io/zone"],
        "bootstrap_port": 8998,
    }
    async with FakeKubernetes() as cluster:
        labels = {"leg": "prefill", "model_id": "tiny"}
        cluster.put(
            "endpointslices",
            endpoint_slice("s1", endpoint("10.0.0.1", name="a", zone="eu-1"), ports=ports, labels=labels),
        )
        cluster.put(
            "endpointslices",
            endpoint_slice(
                "s2",
                endpoint("10.0.0.2", name="b"),
                ports=ports,
                labels=labels,
                annotations={"sglang.ai/bootstrap-port": "9000"},
            ),
        )
        async with following_cluster(cluster, tmp_path, **options) as found:
            await found.until_urls("http://10.0.0.1:30000", "http://10.0.0.2:30000")
            first, second = found.reports[-1]
            assert (first.role, first.models, first.bootstrap_port) == (WorkerRole.PREFILL, {"tiny"}, 8998)
            assert first.labels["topology.kubernetes.io/zone"] == "eu-1"
            assert second.bootstrap_port == 9000


async def test_an_endpoint_removed_while_the_connection_is_broken_leaves(tmp_path: Path):
    async with FakeKubernetes() as cluster:
        both = (endpoint("10.0.0.1", name="a"), endpoint("10.0.0.2", name="b"))
        cluster.put("endpointslices", endpoint_slice("s1", *both))
        cluster.put("endpointslices", endpoint_slice("s2", endpoint("10.0.0.3", name="c")))
        async with following_cluster(cluster, tmp_path, **SERVICE) as found:
            await found.until_urls(A, B, C)
            await cluster.until(lambda: cluster.watching() == 1)
            cluster.drop_watches()
            cluster.put("endpointslices", endpoint_slice("s1", both[1]))
            cluster.delete("endpointslices", "s2")
            cluster.compact()
            await found.until_urls(B)
