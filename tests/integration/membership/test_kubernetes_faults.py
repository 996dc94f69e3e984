"""What goes wrong between the router and an API server, and that no worker outlives its pod for it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from router_core.fleet.membership.watch import WatchTiming

from .fake_kubernetes import FakeKubernetes
from .following import following_cluster
from .objects import pod

pytestmark = pytest.mark.usefixtures("kubernetes_library")

A, B, C = "http://10.0.0.1:8000", "http://10.0.0.2:8000", "http://10.0.0.3:8000"


def two_pods(cluster: FakeKubernetes) -> None:
    cluster.put("pods", pod("a", "10.0.0.1"))
    cluster.put("pods", pod("b", "10.0.0.2"))


async def watching(cluster: FakeKubernetes) -> None:
    await cluster.until(lambda: cluster.watching() == 1)


async def test_a_pod_deleted_while_the_connection_is_broken_leaves(tmp_path: Path):
    async with FakeKubernetes() as cluster:
        two_pods(cluster)
        async with following_cluster(cluster, tmp_path) as found:
            await found.until_urls(A, B)
            await watching(cluster)
            cluster.drop_watches()
            cluster.delete("pods", "a")  # nobody is watching, and nobody will ever be told
            cluster.compact()
            await found.until_urls(B)
        assert cluster.count("list") == 2


async def test_a_pod_replaced_while_the_connection_is_broken_is_another_worker(tmp_path: Path):
    async with FakeKubernetes() as cluster:
        cluster.put("pods", pod("a", "10.0.0.1", uid="first"))
        async with following_cluster(cluster, tmp_path) as found:
            await found.until_urls(A)
            await watching(cluster)
            before = found.pool.get(A)
            cluster.drop_watches()
            cluster.delete("pods", "a")
            cluster.put("pods", pod("a", "10.0.0.1", uid="second"))
            await found.until(lambda: found.pool.get(A) is not before)
            assert found.urls == [A]


async def test_a_pod_deleted_while_the_api_server_is_away_leaves_and_the_others_stay_meanwhile(tmp_path: Path):
    async with FakeKubernetes() as cluster:
        two_pods(cluster)
        async with following_cluster(cluster, tmp_path) as found:
            await found.until_urls(A, B)
            await watching(cluster)
            before = found.pool.get(B)
            await cluster.stop()
            cluster.delete("pods", "a")
            cluster.compact()
            assert found.urls == [A, B]
            await cluster.start()
            await found.until_urls(B)
            assert found.pool.get(B) is before


async def test_an_api_server_that_is_away_at_start_is_waited_for(tmp_path: Path):
    async with FakeKubernetes() as cluster:
        two_pods(cluster)
        await cluster.stop()
        async with following_cluster(cluster, tmp_path) as found:
            await found.until(lambda: len(found.pauses) >= 3)
            await cluster.start()
            await found.until_urls(A, B)
            assert found.reports == [found.reports[0]]


async def test_pauses_grow_while_the_api_server_fails_and_are_spread(tmp_path: Path):
    async with FakeKubernetes() as cluster:
        two_pods(cluster)
        cluster.faults["list"] = [500, 503, 429, 504, 500, 500, 500, 500]
        async with following_cluster(cluster, tmp_path) as found:
            await found.until_urls(A, B)
            ceilings = [0.5, 1, 2, 4, 8, 16, 30, 30]
            assert len(found.pauses) == len(ceilings)
            for pause, ceiling in zip(found.pauses, ceilings, strict=True):
                assert ceiling / 2 <= pause < ceiling


@pytest.mark.parametrize("gone_as", ["status", "event"])
async def test_a_version_that_is_gone_when_the_watch_goes_on_leads_to_a_new_list(tmp_path: Path, gone_as: str):
    async with FakeKubernetes() as cluster:
        cluster.gone_as = gone_as
        two_pods(cluster)
        timing = WatchTiming(watch_s=1)  # the API server ends it after a second, as asked
        async with following_cluster(cluster, tmp_path, timing=timing) as found:
            await found.until_urls(A, B)
            await watching(cluster)
            cluster.compact()
            await cluster.until(lambda: cluster.count("list") == 2 and cluster.watching() == 1)
            cluster.delete("pods", "a")
            await found.until_urls(B)
            assert len(found.pauses) == 1


@pytest.mark.parametrize("gone_as", ["status", "event"])
async def test_a_version_that_goes_between_list_and_watch_leads_to_a_new_list(tmp_path: Path, gone_as: str):
    async with FakeKubernetes() as cluster:
        cluster.gone_as = gone_as
        cluster.page_items = 1
        two_pods(cluster)

        def compact_behind_its_back() -> None:
            cluster.before_next_page = None
            asyncio.get_running_loop().call_soon(cluster.delete, "pods", "a")
            asyncio.get_running_loop().call_soon(cluster.forget_history)

        cluster.before_next_page = compact_behind_its_back
        async with following_cluster(cluster, tmp_path) as found:
            await found.until_urls(B)
        assert cluster.count("list") > 2


async def test_gone_in_a_running_stream_leads_to_a_new_list(tmp_path: Path):
    async with FakeKubernetes() as cluster:
        two_pods(cluster)
        async with following_cluster(cluster, tmp_path) as found:
            await found.until_urls(A, B)
            await watching(cluster)
            cluster.send_gone()
            await cluster.until(lambda: cluster.count("list") == 2)
            await watching(cluster)
            cluster.delete("pods", "a")
            await found.until_urls(B)


async def test_a_continue_token_that_is_gone_begins_the_list_anew(tmp_path: Path):
    async with FakeKubernetes() as cluster:
        cluster.page_items = 1
        two_pods(cluster)

        def compact_behind_its_back() -> None:
            cluster.before_next_page = None
            asyncio.get_running_loop().call_soon(cluster.compact)

        cluster.before_next_page = compact_behind_its_back
        async with following_cluster(cluster, tmp_path) as found:
            await found.until_urls(A, B)
            assert len(found.reports) == 1
        assert [asked.query.get("continue") is None for asked in cluster.requests if asked.verb == "list"] == [
            True,
            False,
            True,
            False,
        ]


async def test_a_watch_that_ends_in_order_goes_on_from_the_last_bookmark_without_a_list(tmp_path: Path):
    async with FakeKubernetes() as cluster:
        two_pods(cluster)
        timing = WatchTiming(watch_s=1)  # the API server ends it after a second, as asked
        async with following_cluster(cluster, tmp_path, timing=timing) as found:
            await found.until_urls(A, B)
            await watching(cluster)
            cluster.put("pods", pod("unrelated", "10.0.0.9", labels={"app": "redis"}))
            cluster.compact()
            cluster.send_bookmarks()
            await cluster.until(lambda: cluster.count("watch") == 2)
            await watching(cluster)
            cluster.delete("pods", "a")
            await found.until_urls(B)
        assert cluster.count("list") == 1
        assert found.pauses == []


async def test_a_watch_that_ends_at_once_again_and_again_is_not_asked_without_pause(tmp_path: Path):
    async with FakeKubernetes() as cluster:
        two_pods(cluster)
        async with following_cluster(cluster, tmp_path) as found:
            await found.until_urls(A, B)
            for number in range(1, 4):
                await watching(cluster)
                cluster.end_watches()
                await cluster.until(lambda number=number: cluster.count("list") > number)
            assert len(found.pauses) == 3
            assert found.pauses == sorted(found.pauses)


@pytest.mark.parametrize(
    "line",
    [
        b'{"type":"MODIFIED"}\n',
        b'{"type":"RENAMED","object":{"metadata":{"name":"a","resourceVersion":"1"}}}\n',
        b'{"type":"DELETED","object":{"metadata":{"name":"a","namespace":"default"}}}\n',
        b'{"type":"ERROR","object":{"kind":"Status","code":500,"message":"etcd is gone"}}\n',
        b"<html>\n",
        b"[]\n",
        b"\xff\n",
    ],
)
async def test_an_event_nobody_understands_leads_to_a_new_list(tmp_path: Path, line: bytes):
    async with FakeKubernetes() as cluster:
        two_pods(cluster)
        async with following_cluster(cluster, tmp_path) as found:
            await found.until_urls(A, B)
            await watching(cluster)
            cluster.send_line(line)
            await cluster.until(lambda: cluster.count("list") == 2 and cluster.watching() == 1)
            cluster.delete("pods", "a")
            await found.until_urls(B)


async def test_half_an_event_is_no_event(tmp_path: Path):
    async with FakeKubernetes() as cluster:
        two_pods(cluster)
        async with following_cluster(cluster, tmp_path) as found:
            await found.until_urls(A, B)
            await watching(cluster)
            cluster.drop_watches(partial_line=b'{"type":"DELETED","object":{"meta')
            cluster.delete("pods", "b")
            await found.until_urls(A)


async def test_an_event_longer_than_a_read_buffer_is_read(tmp_path: Path):
    async with FakeKubernetes() as cluster, following_cluster(cluster, tmp_path) as found:
        await found.until(lambda: found.reports == [()])
        await watching(cluster)
        cluster.put("pods", pod("a", "10.0.0.1", annotations={"long": "x" * 1_000_000}))
        await found.until_urls(A)
        assert found.pauses == []


async def test_a_connection_that_died_silently_is_noticed(tmp_path: Path):
    async with FakeKubernetes() as cluster:
        two_pods(cluster)
        cluster.is_mute = True
        timing = WatchTiming(watch_s=0.5)
        async with following_cluster(cluster, tmp_path, timing=timing, silence_s=0.2) as found:
            await found.until_urls(A, B)
            await watching(cluster)
            cluster.delete("pods", "a")
            await found.until_urls(B)


async def test_everything_is_listed_anew_from_time_to_time(tmp_path: Path):
    async with FakeKubernetes() as cluster:
        two_pods(cluster)
        async with following_cluster(cluster, tmp_path, timing=WatchTiming(resync_s=0.05)) as found:
            await found.until_urls(A, B)
            await cluster.until(lambda: cluster.count("list") == 3)
            assert found.pauses == []
            assert len(found.reports) == 1


async def test_a_slow_list_holds_nothing_up_and_the_old_one_stays(tmp_path: Path):
    async with FakeKubernetes() as cluster:
        two_pods(cluster)
        async with following_cluster(cluster, tmp_path) as found:
            await found.until_urls(A, B)
            await watching(cluster)
            cluster.list_gate.clear()
            cluster.drop_watches()
            await cluster.until(lambda: cluster.count("list") == 2)
            assert found.urls == [A, B]
            cluster.delete("pods", "a")
            cluster.put("pods", pod("c", "10.0.0.3"))
            cluster.list_gate.set()
            await found.until_urls(B, C)


async def test_a_slow_list_can_be_cancelled(tmp_path: Path):
    async with FakeKubernetes() as cluster:
        cluster.list_gate.clear()
        async with following_cluster(cluster, tmp_path) as found:
            await cluster.until(lambda: cluster.count("list") == 1)
        assert found.task.cancelled()


async def test_a_missing_permission_is_named_once_and_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    async with FakeKubernetes() as cluster:
        two_pods(cluster)
        cluster.faults["list"] = [403, 403, 403]
        async with following_cluster(cluster, tmp_path) as found:
            await found.until_urls(A, B)
    assert caplog.text.count("allow the router's service account to list and watch pods") == 1


async def test_renewed_credentials_are_loaded(tmp_path: Path):
    async with FakeKubernetes() as cluster:
        two_pods(cluster)
        async with following_cluster(cluster, tmp_path) as found:
            await found.until_urls(A, B)
            await watching(cluster)
            cluster.token = "a-renewed-token"
            kubeconfig = tmp_path / "kubeconfig"
            kubeconfig.write_text(kubeconfig.read_text().replace("a-service-account-token", cluster.token))
            cluster.drop_watches()
            cluster.delete("pods", "a")
            await found.until_urls(B)


async def test_one_selectors_trouble_does_not_hold_up_the_other(tmp_path: Path):
    async with FakeKubernetes() as cluster:
        cluster.put("pods", pod("p", "10.0.0.1", labels={"leg": "prefill"}))
        cluster.put("pods", pod("d", "10.0.0.2", labels={"leg": "decode"}))
        selectors = {"selector": None, "prefill_selector": "leg=prefill", "decode_selector": "leg=decode"}
        async with following_cluster(cluster, tmp_path, **selectors) as found:
            await found.until_urls(A, B)
            await cluster.until(lambda: cluster.watching() == 2)
            cluster.drop_watches()
            cluster.faults["list"] = [500]
            cluster.delete("pods", "p")
            cluster.delete("pods", "d")
            await found.until_urls()
