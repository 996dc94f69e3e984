"""What is not an inference request: probes, models, metrics, and what nobody knows."""

from __future__ import annotations

import aiohttp
import pytest

from router_core.testing.simulated_engine import SimulatedEngine

from .support import CHAT, RawClient, running_router, until

GET = b"GET %b HTTP/1.1\r\nhost: router\r\n\r\n"
QUICK_CHECKS = {"interval_s": 0.05, "failure_threshold": 1}


async def status_of(router, path, method="GET"):
    async with router.session.request(method, router.url + path) as response:
        await response.read()
        return response.status


async def test_models_are_the_union_over_healthy_workers():
    async with (
        SimulatedEngine(name="a", models=("base", "adapter/one")) as first,
        SimulatedEngine(name="b", models=("base", "other")) as second,
        SimulatedEngine(name="c", models=("ill",), health_status=503) as third,
        running_router([first, second, third], expect_healthy=2) as router,
    ):
        async with router.get("/v1/models") as response:
            document = await response.json()
        assert document["object"] == "list"
        assert sorted(model["id"] for model in document["data"]) == ["adapter/one", "base", "other"]
        async with router.get("/v1/models/adapter/one") as response:
            assert (await response.json())["id"] == "adapter/one"
        async with router.get("/v1/models/ill") as response:
            assert response.status == 404
            assert (await response.json())["error"]["code"] == "model_not_found"
        assert {frozenset(worker.models) for worker in router.server.pool.candidates()} == {
            frozenset({"base", "adapter/one"}),
            frozenset({"base", "other"}),
        }


async def test_readiness_follows_the_workers_and_liveness_does_not(simulated_engine):
    engine = simulated_engine(health_status=503)
    async with engine, running_router([engine], expect_healthy=0, health=QUICK_CHECKS) as router:
        await engine.wait_probed(2)
        assert await status_of(router, "/readiness") == 503
        assert await status_of(router, "/health") == 200
        async with router.post() as response:
            assert response.status == 503
            error = (await response.json())["error"]
        assert error["code"] == "no_available_workers"
        assert error["message"] == "No worker is available: 1 configured, none healthy."

        engine.health_status = 200
        await until(router.server.pool.candidates, "a candidate")
        async with router.get("/readiness") as response:
            assert response.status == 200
            assert await response.json() == {"status": "ready", "healthy_workers": 1, "total_workers": 1}
        assert await router.ask() == "engine"

        await engine.stop()
        await until(lambda: not router.server.pool.candidates(), "no candidate")
        async with router.get("/readiness") as response:
            assert response.status == 503
            assert (await response.json())["reason"] == "no healthy workers"
        assert await status_of(router, "/liveness") == 200
        metrics = await router.metrics()
        (unrouted,) = (sample for sample in metrics["router_core_unrouted_requests_total"] if sample.value)
        assert (unrouted.labels, unrouted.value) == ({"pool": "default", "reason": "no_available_workers"}, 1)
        await router.settled(1)


async def test_metrics_tell_of_workers_requests_tokens_and_policy(simulated_engines):
    async with simulated_engines(2) as engines, running_router(engines) as router:
        for _ in range(4):
            await router.ask()
        await router.settled(4)
        metrics = await router.metrics()
        urls = {engine.url for engine in engines}
        for name in ("requests_active", "pending_prompt_tokens", "decode_tokens"):
            assert {(s.labels["worker"], s.value) for s in metrics[f"router_core_worker_{name}"]} == {
                (url, 0) for url in urls
            }
        assert {s.value for s in metrics["router_core_worker_health"]} == {1}
        assert {s.value for s in metrics["router_core_worker_requests_processed_total"]} == {2}
        ended = metrics["router_core_requests_total"]
        assert {(s.labels["worker"], s.labels["status"], s.labels["leg"], s.value) for s in ended} == {
            (url, "success", "single", 2) for url in urls
        }
        (decisions,) = metrics["router_core_policy_decision_seconds_count"]
        assert decisions.value == 4
        (info,) = metrics["router_core_policy_info"]
        assert info.labels["policy"] == "round_robin"
        assert info.labels["source"].startswith("router-policy-round-robin ")
        outcomes = router.record.outcomes
        tokens = sum(s.value for s in metrics["router_core_completion_tokens_total"])
        assert tokens == sum(outcome.completion_tokens for outcome in outcomes) > 0
        assert {sample.value for sample in metrics["router_core_policy_faults_total"]} == {0}


async def test_one_connection_serves_control_and_inference_in_turn(simulated_engine):
    async with simulated_engine() as engine, running_router([engine]) as router:
        async with await RawClient.connect(router.url) as client:
            for _ in range(3):
                client.writer.write(GET % b"/v1/models")
                assert (await client.read_answer())[0] == 200
                client.send()
                status, body = await client.read_answer()
                assert status == 200
                assert b"chat.completion" in body
                client.writer.write(GET % b"/nothing")
                assert (await client.read_answer())[0] == 404
        assert engine.accepted == 3
        await router.settled(3)


async def test_pipelined_requests_are_answered_in_order(simulated_engine):
    async with simulated_engine() as engine, running_router([engine]) as router:
        async with await RawClient.connect(router.url) as client:
            client.writer.write(GET % b"/health")
            client.send()
            client.writer.write(GET % b"/nothing")
            client.send({"prompt": "x"}, "/v1/completions")
            answers = [await client.read_answer() for _ in range(4)]
        assert [status for status, _ in answers] == [200, 200, 404, 200]
        assert b"text_completion" in answers[3][1]
        await router.settled(2)


@pytest.mark.parametrize("path", ["/v1/nothing", "/", "/v1/chat/completions/", "/v1/responses"])
async def test_what_is_not_there_is_404_and_reaches_no_worker(simulated_engine, path):
    async with simulated_engine() as engine, running_router([engine]) as router:
        method = "GET" if path == "/v1/responses" else "POST"
        async with router.session.request(method, router.url + path, data=b"{}") as response:
            assert response.status == (405 if method == "GET" else 404)
            error = (await response.json())["error"]
        assert error["code"] == ("method_not_allowed" if method == "GET" else "not_found")
        assert engine.accepted == 0
        assert router.record.selected == []


async def test_wrong_method_is_405_and_says_which_is_right(simulated_engine):
    async with simulated_engine() as engine, running_router([engine]) as router:
        async with router.get(CHAT) as response:
            assert response.status == 405
            assert response.headers["allow"] == "POST"
            assert (await response.json())["error"]["code"] == "method_not_allowed"
        async with router.session.post(router.url + "/health") as response:
            assert response.status == 405
            assert "GET" in response.headers["allow"]


async def test_unknown_paths_are_proxied_counted_and_load_tracked_on_wish(simulated_engine):
    async with simulated_engine() as engine, running_router([engine], proxy_unknown_paths=True) as router:
        async with router.get("/server_info?x=1") as response:
            assert response.status == 200
            assert (await response.json())["engine"] == "engine"
        async with router.session.post(router.url + "/nobody/knows", data=b"\x00\xff") as response:
            assert response.status == 404
            assert await response.json() == {"detail": "Not Found"}  # the engine's own words
        assert await status_of(router, "/readiness") == 200  # still the router's own
        outcomes = await router.settled(2)
        assert [outcome.status for outcome in outcomes] == ["success", "client_error"]
        (proxied,) = (await router.metrics())["router_core_proxied_unknown_requests_total"]
        assert proxied.value == 2


async def test_metrics_have_a_port_of_their_own_on_wish(simulated_engine):
    async with simulated_engine() as engine, running_router([engine], prometheus_port=0) as router:
        await router.ask()
        await router.settled(1)
        assert not router.server.metrics_url.startswith(router.url)
        (ended,) = (await router.metrics())["router_core_requests_total"]
        assert ended.value == 1
        base = router.server.metrics_url.removesuffix("/metrics")
        async with router.session.get(base + "/v1/models") as response:
            assert response.status == 404
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(base)


async def test_requests_that_the_router_knows_no_way_for_are_counted(simulated_engine):
    async with simulated_engine() as engine, running_router([engine], proxy_unknown_paths=False) as router:
        for _ in range(3):
            assert await status_of(router, "/made/up") == 404
        assert await status_of(router, "/v1/chat/completions") == 405
        assert await status_of(router, "/v1/responses/resp_made-up") == 404
        metrics = await router.metrics()
        refused = {s.labels["status"]: s.value for s in metrics["router_core_refused_requests_total"] if s.value}
        assert refused == {"404": 3, "405": 1}
        unrouted = [(s.labels, s.value) for s in metrics["router_core_unrouted_requests_total"] if s.value]
        assert unrouted == [({"pool": "", "reason": "response_not_found"}, 1)]
