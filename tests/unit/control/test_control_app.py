from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import ClientConnectionError, web
from aiohttp.test_utils import TestClient, TestServer

from router_core.contract.worker import Worker, WorkerRole
from router_core.control.app import create_control_app
from router_core.control.metrics import metrics_app
from router_core.fleet.engine_client import EngineClient
from router_core.fleet.pool import WorkerPool
from router_core.fleet.registry import WorkerRegistry

NOBODY = "http://127.0.0.1:9"  # the discard port: refused


@dataclass
class FakePolicy:
    name: str = "cache_aware"
    faults: Mapping[tuple[str, str], int] = field(default_factory=dict)
    is_quarantined: bool = False


async def render() -> tuple[bytes, str]:
    return b"up 1\n", "text/plain; version=0.0.4; charset=utf-8"


@asynccontextmanager
async def control(workers: Sequence[Worker] = (), **options: Any) -> AsyncIterator[TestClient[Any, Any]]:
    """The control plane of one pool, over real HTTP."""
    pairs = any(worker.role is not WorkerRole.REGULAR for worker in workers)
    pools = options.pop("pools", None) or [WorkerPool("default", workers, serves_pairs=pairs)]
    async with EngineClient() as engines:
        app = create_control_app(
            **{
                "pools": pools,
                "registry": WorkerRegistry(pools[0], wall_clock=lambda: 1700000000.0),
                "engines": engines,
                "fetch_models": engines.fetch_models,
                "render_metrics": render,
                "is_draining": lambda: False,
                "inference_paths": ["/v1/chat/completions"],
            }
            | options
        )
        async with TestClient(TestServer(app)) as client:
            yield client


class Engine:
    """A real server that tells its models; holds its answers back until `may_answer`."""

    def __init__(self, *models: str) -> None:
        self.models = [{"id": name, "object": "model", "owned_by": "vllm", "max_model_len": 4096} for name in models]
        self.asked = 0
        self.was_asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        self.was_asked.set()
        await self.may_answer.wait()
        return web.json_response({"object": "list", "data": self.models})


@asynccontextmanager
async def running(*engines: Engine) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for engine in engines:
            app = web.Application()
            app.router.add_get("/v1/models", engine.answer)
            server = await stack.enter_async_context(TestServer(app))
            engine.url = str(server.make_url("")).rstrip("/")
        yield


async def error_of(response: Any) -> dict[str, Any]:
    assert response.content_type == "application/json"
    body = await response.json()
    assert list(body) == ["error"]
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return body["error"]


# --- errors ---


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize(
    "path", ["/", "/nothing", "/health/", "/v1/models/", "/v2/models", "/%ff", "/workers/", "/workers/a/b"]
)
async def test_what_is_nowhere_is_a_404_in_json(method: str, path: str) -> None:
    async with control() as client:
        response = await client.request(method, path, data=b"x" * 100 if method == "POST" else None)
        assert response.status == 404
        assert (await error_of(response))["code"] == "not_found"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "HEAD"])
async def test_an_inference_path_takes_post_only(method: str) -> None:
    async with control() as client:
        response = await client.request(method, "/v1/chat/completions")
        assert response.status == 405
        assert response.headers["Allow"] == "POST"
        if method != "HEAD":
            error = await error_of(response)
            assert error["code"] == "method_not_allowed"
            assert error["message"] == f"/v1/chat/completions does not take {method}; use POST."


async def test_a_probe_does_not_take_post() -> None:
    async with control() as client:
        response = await client.post("/health")
        assert response.status == 405
        assert set(response.headers["Allow"].split(",")) == {"GET", "HEAD"}


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/nothing"), ("POST", "/health"), ("GET", "/v1/chat/completions")]
)
async def test_refused_requests_leave_no_work_to_the_garbage_collector(method: str, path: str) -> None:
    def left() -> int:
        return sum(type(each) is web.Request for each in gc.get_objects())

    async with control() as client:
        gc.collect()
        gc.disable()
        try:
            for _ in range(20):
                assert (await client.request(method, path)).status in (404, 405)
            assert left() <= 2  # of the connections that are still open
        finally:
            gc.enable()


async def test_an_unforeseen_failure_is_a_500_that_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def broken() -> tuple[bytes, str]:
        raise RuntimeError("secret detail")

    async with control(render_metrics=broken) as client:
        response = await client.get("/metrics")
        assert response.status == 500
        assert (await error_of(response))["code"] == "internal_error"
        assert "secret" not in await response.text()
    assert "secret detail" in caplog.text


async def test_an_answer_does_not_tell_what_software_gave_it() -> None:
    async with control() as client:
        for path in ("/health", "/nothing"):
            assert "Server" not in (await client.get(path)).headers


# --- probes ---


@pytest.mark.parametrize("path", ["/health", "/liveness"])
async def test_the_router_is_alive_whatever_its_workers_are(path: str) -> None:
    async with control([Worker("http://a", is_healthy=False)], is_draining=lambda: True) as client:
        response = await client.get(path)
        assert (response.status, await response.text()) == (200, "OK")


def worker(role: WorkerRole, is_healthy: bool) -> Worker:
    return Worker(f"http://{role}-{is_healthy}", role=role, is_healthy=is_healthy)


REGULAR, PREFILL, DECODE = WorkerRole.REGULAR, WorkerRole.PREFILL, WorkerRole.DECODE


@pytest.mark.parametrize(
    ("workers", "reason"),
    [
        ([], "no workers"),
        ([worker(REGULAR, False)], "no healthy workers"),
        ([worker(PREFILL, False), worker(DECODE, False)], "no healthy workers"),
        ([worker(PREFILL, True), worker(DECODE, False)], "no healthy decode workers"),
        ([worker(PREFILL, False), worker(DECODE, True)], "no healthy prefill workers"),
        ([Worker("http://a", is_draining=True)], "no healthy workers"),
    ],
)
async def test_the_router_is_not_ready_until_a_request_would_find_a_worker(workers: list[Worker], reason: str) -> None:
    async with control(workers) as client:
        response = await client.get("/readiness")
        assert response.status == 503
        assert await response.json() == {"status": "not ready", "reason": reason}


@pytest.mark.parametrize(
    ("workers", "healthy", "total"),
    [
        ([worker(REGULAR, True)], 1, 1),
        ([worker(REGULAR, True), worker(REGULAR, False)], 1, 2),
        ([worker(REGULAR, True), Worker("http://a", is_draining=True)], 1, 2),
        ([worker(PREFILL, True), worker(DECODE, True), worker(DECODE, False)], 2, 3),
    ],
)
async def test_the_router_is_ready_when_one_would(workers: list[Worker], healthy: int, total: int) -> None:
    async with control(workers) as client:
        response = await client.get("/readiness")
        assert response.status == 200
        assert await response.json() == {"status": "ready", "healthy_workers": healthy, "total_workers": total}


async def test_a_draining_router_is_not_ready() -> None:
    async with control([worker(REGULAR, True)], is_draining=lambda: True) as client:
        response = await client.get("/readiness")
        assert response.status == 503
        assert (await response.json())["reason"] == "draining"


async def test_half_a_pair_where_none_are_served_is_no_regular_worker() -> None:
    async with control(pools=[WorkerPool("default", [worker(PREFILL, True)])]) as client:
        assert (await (await client.get("/readiness")).json())["reason"] == "no healthy regular workers"


async def test_one_usable_pool_of_two_is_enough() -> None:
    pools = [WorkerPool("dead"), WorkerPool("alive", [worker(REGULAR, True)])]
    async with control(pools=pools) as client:
        assert (await client.get("/readiness")).status == 200
    async with control(pools=pools[:1] * 2) as client:
        assert (await (await client.get("/readiness")).json())["reason"] == "no workers"


async def test_verbose_health_tells_of_workers_and_of_the_policys_faults() -> None:
    policy = FakePolicy(faults={("cache_aware", "raised"): 3}, is_quarantined=True)
    workers = [Worker("http://a", load=2, models=["m2", "m1"])]
    async with control(workers, policies=lambda: {"default": policy}) as client:
        response = await client.get("/health?verbose")
        assert response.status == 200
        assert await response.json() == {
            "status": "ok",
            "is_draining": False,
            "signals": [],
            "pools": [
                {
                    "name": "default",
                    "policy": {
                        "name": "cache_aware",
                        "is_quarantined": True,
                        "faults": [{"plugin": "cache_aware", "kind": "raised", "count": 3}],
                    },
                    "workers": [
                        {
                            "url": "http://a",
                            "role": "regular",
                            "is_healthy": True,
                            "is_draining": False,
                            "circuit": "closed",
                            "load": 2,
                            "models": ["m1", "m2"],
                            "adapters": {},
                        }
                    ],
                }
            ],
        }


@pytest.mark.parametrize("path", ["/health", "/liveness", "/readiness", "/v1/models", "/metrics", "/health?verbose"])
async def test_head_is_answered_as_get_without_a_body(path: str) -> None:
    async with control() as client:
        head, get = await client.head(path), await client.get(path)
        assert head.status == get.status
        assert head.headers["Content-Length"] == get.headers["Content-Length"]
        assert await head.read() == b""


# --- models ---


async def test_without_a_healthy_worker_there_are_no_models() -> None:
    async with control([Worker(NOBODY, is_healthy=False)]) as client:
        for path in ("/v1/models", "/v1/models/m"):
            response = await client.get(path)
            assert response.status == 503
            error = await error_of(response)
            assert error["code"] == "no_available_workers"
            assert "No models available" in error["message"]


async def test_a_worker_that_does_not_answer_is_left_out() -> None:
    good = Engine("model-a")
    async with running(good), control([Worker(NOBODY), Worker(good.url)]) as client:
        response = await client.get("/v1/models")
        assert [model["id"] for model in (await response.json())["data"]] == ["model-a"]


async def test_a_worker_that_answers_rubbish_is_left_out() -> None:
    bad, good = Engine(), Engine("model-a")
    bad.models = {"id": "not a list"}  # type: ignore[assignment]
    async with running(bad, good), control([Worker(bad.url), Worker(good.url)]) as client:
        response = await client.get("/v1/models")
        assert [model["id"] for model in (await response.json())["data"]] == ["model-a"]


async def test_when_no_healthy_worker_tells_its_models_there_are_none() -> None:
    async with control([Worker(NOBODY)]) as client:
        assert (await client.get("/v1/models")).status == 503


async def test_the_models_are_the_union_over_all_healthy_workers_with_the_engines_own_fields() -> None:
    one, two, down = Engine("model-a", "model-b"), Engine("model-b", "model-c"), Engine("model-d")
    async with running(one, two, down):
        workers = [Worker(one.url), Worker(two.url), Worker(down.url, is_healthy=False)]
        async with control(workers) as client:
            body = await (await client.get("/v1/models")).json()
            assert body["object"] == "list"
            assert [model["id"] for model in body["data"]] == ["model-a", "model-b", "model-c"]
            assert body["data"][0]["max_model_len"] == 4096
            assert down.asked == 0


async def test_ranks_of_one_engine_are_asked_once() -> None:
    engine = Engine("model-a")
    async with running(engine):
        workers = [Worker(f"{engine.url}@{rank}", base_url=engine.url) for rank in range(4)]
        async with control(workers) as client:
            assert (await client.get("/v1/models")).status == 200
            assert engine.asked == 1


async def test_many_clients_at_once_and_soon_after_are_one_question() -> None:
    engine = Engine("model-a")
    engine.may_answer.clear()
    async with running(engine), control([Worker(engine.url)]) as client:
        asking = [asyncio.ensure_future(client.get("/v1/models")) for _ in range(20)]
        await engine.was_asked.wait()
        engine.may_answer.set()
        assert [response.status for response in await asyncio.gather(*asking)] == [200] * 20
        assert (await client.get("/v1/models/model-a")).status == 200
        assert engine.asked == 1


async def test_a_client_that_goes_away_does_not_take_the_answer_from_others() -> None:
    engine = Engine("model-a")
    engine.may_answer.clear()
    async with running(engine), control([Worker(engine.url)]) as client:
        impatient = asyncio.ensure_future(client.get("/v1/models"))
        await engine.was_asked.wait()
        patient = asyncio.ensure_future(client.get("/v1/models"))
        impatient.cancel()
        await asyncio.wait([impatient])
        engine.may_answer.set()
        assert (await patient).status == 200


async def test_the_end_does_not_wait_for_a_worker_that_is_being_asked() -> None:
    engine = Engine("model-a")
    engine.may_answer.clear()
    async with running(engine):
        async with control([Worker(engine.url)]) as client:
            asking = asyncio.ensure_future(client.get("/v1/models"))
            await engine.was_asked.wait()
        with pytest.raises((ClientConnectionError, asyncio.CancelledError)):
            await asking
        engine.may_answer.set()


async def test_a_worker_that_joins_shows_at_once() -> None:
    one, two = Engine("model-a"), Engine("model-b")
    async with running(one, two):
        pool = WorkerPool("default", [Worker(one.url)])
        async with control(pools=[pool]) as client:
            await client.get("/v1/models")
            pool.add(Worker(two.url))
            body = await (await client.get("/v1/models")).json()
            assert [model["id"] for model in body["data"]] == ["model-a", "model-b"]


async def test_a_model_is_found_by_an_id_with_slashes() -> None:
    engine = Engine("meta-llama/Llama-3.1-8B", "other")
    async with running(engine), control([Worker(engine.url)]) as client:
        for path in ("/v1/models/meta-llama/Llama-3.1-8B", "/v1/models/meta-llama%2FLlama-3.1-8B"):
            response = await client.get(path)
            assert response.status == 200
            assert (await response.json())["id"] == "meta-llama/Llama-3.1-8B"
        response = await client.get("/v1/models/meta-llama")
        assert response.status == 404
        assert (await error_of(response))["code"] == "model_not_found"


# --- metrics ---


async def test_metrics_are_on_the_routers_port_and_on_one_of_their_own() -> None:
    async with control() as shared, TestClient(TestServer(metrics_app(render))) as alone:
        for client in (shared, alone):
            response = await client.get("/metrics")
            assert (response.status, await response.read()) == (200, b"up 1\n")
            assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        response = await alone.get("/v1/models")
        assert response.status == 404
        assert (await error_of(response))["code"] == "not_found"
