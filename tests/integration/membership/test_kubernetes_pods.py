from __future__ import annotations

from pathlib import Path

import pytest

from router_core.contract.errors import StartupError
from router_core.contract.worker import WorkerRole

from .fake_kubernetes import FakeKubernetes
from .following import following_cluster
from .objects import pod

pytestmark = pytest.mark.usefixtures("kubernetes_library")

A, B, C = "http://10.0.0.1:8000", "http://10.0.0.2:8000", "http://10.0.0.3:8000"


async def test_ready_pods_join_and_wait_for_their_first_health_check(tmp_path: Path):
    async with FakeKubernetes() as cluster:
        cluster.put("pods", pod("a", "10.0.0.1"))
        cluster.put("pods", pod("b", "10.0.0.2"))
        cluster.put("pods", pod("other", "10.0.0.9", labels={"app": "redis"}))
        async with following_cluster(cluster, tmp_path) as found:
            await found.until_urls(A, B)
            assert not any(worker.is_healthy for worker in found.pool.workers)
            assert found.pool.get(A).labels["k8s.pod.name"] == "a"


async def test_pods_come_and_go_while_the_watch_runs(tmp_path: Path):
    async with FakeKubernetes() as cluster:
        async with following_cluster(cluster, tmp_path) as found:
            await found.until(lambda: found.reports == [()])
            cluster.put("pods", pod("a", "10.0.0.1"))
            await found.until_urls(A)
            cluster.put("pods", pod("b", "10.0.0.2"))
            await found.until_urls(A, B)
            cluster.delete("pods", "a")
            await found.until_urls(B)
        assert cluster.count("list") == 1


async def test_a_pod_is_a_worker_only_while_it_is_ready(tmp_path: Path):
    async with FakeKubernetes() as cluster:
        cluster.put("pods", pod("a", None, is_ready=False, phase="Pending"))
        async with following_cluster(cluster, tmp_path) as found:
            await found.until(lambda: found.reports == [()])
            cluster.put("pods", pod("a", "10.0.0.1", is_ready=False))
            cluster.put("pods", pod("a", "10.0.0.1"))
            await found.until_urls(A)
            cluster.put("pods", pod("a", "10.0.0.1", is_ready=False))
            await found.until_urls()
            cluster.put("pods", pod("a", "10.0.0.1"))
            await found.until_urls(A)


async def test_a_pod_that_is_being_deleted_leaves_before_it_is_gone(tmp_path: Path):
    async with FakeKubernetes() as cluster:
        cluster.put("pods", pod("a", "10.0.0.1"))
        async with following_cluster(cluster, tmp_path) as found:
            await found.until_urls(A)
            cluster.put("pods", pod("a", "10.0.0.1", is_going=True))
            await found.until_urls()


async def test_a_pod_with_a_new_address_is_a_new_worker(tmp_path: Path):
    async with FakeKubernetes() as cluster:
        cluster.put("pods", pod("a", "10.0.0.1"))
        async with following_cluster(cluster, tmp_path) as found:
            await found.until_urls(A)
            cluster.put("pods", pod("a", "10.0.0.2"))
            await found.until_urls(B)


async def test_another_pod_at_the_same_address_is_another_worker(tmp_path: Path):
    async with FakeKubernetes() as cluster:
        cluster.put("pods", pod("a", "10.0.0.1", uid="first"))
        async with following_cluster(cluster, tmp_path) as found:
            await found.until_urls(A)
            before = found.pool.get(A)
            cluster.put("pods", pod("a", "10.0.0.1", uid="second"))
            await found.until(lambda: found.pool.get(A) is not before)
            assert found.pool.get(A).labels["k8s.pod.uid"] == "second"


async def test_news_that_change_nothing_keep_the_worker_and_are_not_reported(tmp_path: Path):
    async with FakeKubernetes() as cluster:
        cluster.put("pods", pod("a", "10.0.0.1"))
        async with following_cluster(cluster, tmp_path) as found:
            await found.until_urls(A)
            before = found.pool.get(A)
            cluster.put("pods", pod("a", "10.0.0.1", annotations={"touched": "yes"}))
            cluster.put("pods", pod("b", "10.0.0.2"))
            await found.until_urls(A, B)
            assert found.pool.get(A) is before
            assert len(found.reports) == 2


async def test_a_pod_whose_labels_cease_to_match_leaves(tmp_path: Path):
    async with FakeKubernetes() as cluster:
        cluster.put("pods", pod("a", "10.0.0.1"))
        async with following_cluster(cluster, tmp_path) as found:
            await found.until_urls(A)
            cluster.put("pods", pod("a", "10.0.0.1", labels={"app": "quarantined"}))
            await found.until_urls()


async def test_prefill_and_decode_workers_have_selectors_of_their_own(tmp_path: Path):
    async with FakeKubernetes() as cluster:
        annotations = {"sglang.ai/bootstrap-port": "8998"}
        cluster.put("pods", pod("p", "10.0.0.1", labels={"app": "sgl", "leg": "prefill"}, annotations=annotations))
        cluster.put("pods", pod("d", "10.0.0.2", labels={"app": "sgl", "leg": "decode"}, annotations=annotations))
        selectors = {
            "selector": None,
            "prefill_selector": {"app": "sgl", "leg": "prefill"},
            "decode_selector": "app=sgl,leg in (decode, both)",
        }
        async with following_cluster(cluster, tmp_path, **selectors) as found:
            await found.until_urls(A, B)
            specs = {spec.url: spec for spec in found.reports[-1]}
            assert (specs[A].role, specs[A].bootstrap_port) == (WorkerRole.PREFILL, 8998)
            assert (specs[B].role, specs[B].bootstrap_port) == (WorkerRole.DECODE, None)
            assert found.pool.get(A).labels["bootstrap_port"] == "8998"
            cluster.put("pods", pod("d", "10.0.0.2", labels={"app": "sgl", "leg": "prefill"}))
            await found.until(lambda: found.pool.get(B) and found.pool.get(B).role is WorkerRole.PREFILL)


async def test_nothing_is_reported_before_every_selector_was_listed(tmp_path: Path):
    async with FakeKubernetes() as cluster:
        cluster.put("pods", pod("p", "10.0.0.1", labels={"leg": "prefill"}))
        cluster.put("pods", pod("d", "10.0.0.2", labels={"leg": "decode"}))
        cluster.faults["list"] = [500]
        selectors = {"selector": None, "prefill_selector": "leg=prefill", "decode_selector": "leg=decode"}
        async with following_cluster(cluster, tmp_path, **selectors) as found:
            await found.until_urls(A, B)
            assert {spec.url for spec in found.reports[0]} == {A, B}


async def test_a_pod_that_two_selectors_match_is_one_worker(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    async with FakeKubernetes() as cluster:
        cluster.put("pods", pod("a", "10.0.0.1"))
        async with following_cluster(cluster, tmp_path, prefill_selector="app=vllm") as found:
            await found.until_urls(A)
            assert found.pool.get(A).role is WorkerRole.REGULAR
    assert "listed more than once" in caplog.text


async def test_only_the_chosen_namespace_is_watched(tmp_path: Path):
    async with FakeKubernetes() as cluster:
        cluster.put("pods", pod("a", "10.0.0.1", namespace="models"))
        cluster.put("pods", pod("b", "10.0.0.2", namespace="other"))
        async with following_cluster(cluster, tmp_path, namespace="models") as found:
            await found.until_urls(A)
            await cluster.until(lambda: cluster.watching() == 1)
            cluster.put("pods", pod("b", "10.0.0.3", namespace="other"))
            cluster.put("pods", pod("c", "10.0.0.3", namespace="models"))
            await found.until_urls(A, C)
            assert {asked.namespace for asked in cluster.requests} == {"models"}


async def test_the_port_is_found_by_name_among_several_containers(tmp_path: Path):
    sidecar = {"name": "proxy", "ports": [{"name": "metrics", "containerPort": 9090}]}
    engine = {"name": "engine", "ports": [{"name": "api", "containerPort": 30000}, {"containerPort": 8998}]}
    async with FakeKubernetes() as cluster:
        cluster.put("pods", pod("a", "10.0.0.1", containers=[sidecar, engine]))
        async with following_cluster(cluster, tmp_path, port="api") as found:
            await found.until_urls("http://10.0.0.1:30000")


async def test_a_pod_whose_port_cannot_be_told_is_skipped_and_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    two = [{"name": "engine", "ports": [{"containerPort": 8000}, {"containerPort": 9000}]}]
    async with FakeKubernetes() as cluster:
        cluster.put("pods", pod("a", "10.0.0.1", containers=two))
        cluster.put("pods", pod("b", "10.0.0.2"))
        async with following_cluster(cluster, tmp_path) as found:
            await found.until_urls(B)
            cluster.put("pods", pod("a", "10.0.0.1", containers=two, annotations={"touched": "yes"}))
            cluster.delete("pods", "b")
            await found.until_urls()
    assert caplog.text.count("default/a is not used: the only port cannot be told (it has 8000, 9000)") == 1


async def test_models_come_from_labels_and_annotations(tmp_path: Path):
    async with FakeKubernetes() as cluster:
        labels = {"app": "vllm", "model_id": "tiny", "tier": "gold", "pod-template-hash": "7f9"}
        cluster.put("pods", pod("a", "10.0.0.1", labels=labels, annotations={"models": "org/big, org/bigger"}))
        options = {"model_labels": ["model_id", "models"], "labels": ["tier"]}
        async with following_cluster(cluster, tmp_path, **options) as found:
            await found.until_urls(A)
            worker = found.pool.get(A)
            assert worker.models == {"tiny", "org/big", "org/bigger"}
            assert worker.labels["tier"] == "gold"
            assert "pod-template-hash" not in worker.labels


async def test_a_long_list_comes_in_pages(tmp_path: Path):
    async with FakeKubernetes() as cluster:
        cluster.page_items = 2
        for number in range(1, 6):
            cluster.put("pods", pod(f"pod-{number}", f"10.0.0.{number}"))
        async with following_cluster(cluster, tmp_path) as found:
            await found.until_urls(*(f"http://10.0.0.{number}:8000" for number in range(1, 6)))
        assert cluster.count("list") == 3


async def test_what_changes_between_two_pages_is_not_missed(tmp_path: Path):
    async with FakeKubernetes() as cluster:
        cluster.page_items = 1
        cluster.put("pods", pod("a", "10.0.0.1"))
        cluster.put("pods", pod("b", "10.0.0.2"))

        def delete_behind_its_back() -> None:
            cluster.before_next_page = None
            cluster.delete("pods", "a")

        cluster.before_next_page = delete_behind_its_back
        async with following_cluster(cluster, tmp_path) as found:
            await found.until_urls(B)


async def test_a_refused_selector_is_a_startup_error(tmp_path: Path):
    options = {"selector": "app vllm", "decode_selector": "a=b"}
    async with FakeKubernetes() as cluster, following_cluster(cluster, tmp_path, **options) as found:
        with pytest.raises(StartupError, match=r"unable to parse requirement.*correct the selector 'app vllm'"):
            await found.until_urls(A)


async def test_credentials_that_cannot_be_read_are_a_startup_error(tmp_path: Path):
    broken = tmp_path / "broken"
    broken.write_text("a: [")
    async with FakeKubernetes() as cluster:
        for path in (tmp_path / "missing", broken):
            async with following_cluster(cluster, tmp_path, kubeconfig=path) as found:
                with pytest.raises(StartupError, match=r"no usable credentials.*set kubeconfig"):
                    await found.until_urls(A)


async def test_workers_are_watched_by_the_routers_name_and_token(tmp_path: Path):
    async with FakeKubernetes() as cluster:
        cluster.put("pods", pod("a", "10.0.0.1"))
        async with following_cluster(cluster, tmp_path, token="wrong") as found:
            await cluster.until(lambda: cluster.count("list") == 2)
            assert found.reports == []
            cluster.token = "wrong"
            await found.until_urls(A)
