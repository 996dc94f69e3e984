"""What is asked of the engines through the router, whatever state they are in."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from prometheus_client.parser import text_string_to_metric_families

from router_core.api import WorkerRole

from .support import chat, running_router, until
from .test_admin import NOBODY, call


class Engine:
    """A server that answers some paths and writes down what it was asked."""

    def __init__(self):
        self.answers = {"GET /health": 200}
        self.asked = []

    async def __aenter__(self):
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.answer)
        self.server = TestServer(app)
        await self.server.start_server()
        self.url = str(self.server.make_url("")).rstrip("/")
        return self

    async def __aexit__(self, *_):
        await self.server.close()

    async def answer(self, request):
        self.asked.append(f"{request.method} {request.path}")
        answer = self.answers.get(f"{request.method} {request.path}", 404)
        if isinstance(answer, int):
            return web.Response(status=answer, text="engine's words")
        return web.Response(body=answer) if isinstance(answer, bytes) else web.json_response(answer)


def answering(path, answer, method="GET"):
    made = Engine()
    made.answers[f"{method} {path}"] = answer
    return made


# --- /flush_cache ---


async def test_caches_of_an_empty_fleet_are_flushed():
    async with running_router([]) as router:
        status, facts, _ = await call(router, "POST", "/flush_cache")
        assert status == 200
        assert facts == {
            "status": "success",
            "message": "All 0 workers have flushed their caches.",
            "workers_flushed": 0,
            "total_http_workers": 0,
            "total_workers": 0,
        }


async def test_every_worker_flushes_its_cache(simulated_engines):
    async with simulated_engines(3) as engines, running_router(engines) as router:
        prompt = chat("Remember this. " * 100)
        for _ in range(3):
            await router.ask(body=prompt)
        assert all(len(each.app.cache) for each in engines)
        status, facts, _ = await call(router, "POST", "/flush_cache")
        assert (status, facts["status"], facts["workers_flushed"], facts["total_workers"]) == (200, "success", 3, 3)
        assert not any(len(each.app.cache) for each in engines)


async def test_who_did_not_flush_is_named():
    async with (
        answering("/flush_cache", {"ok": True}, "POST") as good,
        answering("/reset_prefix_cache", b"", "POST") as vllm,
        answering("/flush_cache", 400, "POST") as busy,
        Engine() as none,
        running_router([good, vllm, busy, none, NOBODY], expect_healthy=4) as router,
    ):
        status, facts, _ = await call(router, "POST", "/flush_cache")
        assert status == 206
        assert facts["status"] == "partial_success"
        assert facts["successful"] == [good.url, vllm.url]
        errors = {failure["worker"]: failure["error"] for failure in facts["failed"]}
        assert list(errors) == [busy.url, none.url, NOBODY]
        assert errors[busy.url] == "it answered 400: engine's words"
        assert errors[none.url].startswith("it answered 404")
        assert "failed" in errors[NOBODY]
        assert (facts["total_http_workers"], facts["total_workers"]) == (5, 5)


# --- /get_loads ---


async def test_loads_are_tokens_and_minus_one_where_nobody_tells():
    loads = [{"dp_rank": 0, "num_reqs": 1, "num_tokens": 30}, {"dp_rank": 1, "num_reqs": 1, "num_tokens": 12}]
    async with (
        answering("/get_load", loads) as old,
        answering("/v1/loads", {"loads": [{"dp_rank": 0, "num_used_tokens": 5}]}) as new,
        answering("/get_load", b"<html>") as broken,
        answering("/get_load", 500) as ill,
        Engine() as vllm,
        running_router([old, new, broken, ill, vllm, NOBODY], expect_healthy=5) as router,
    ):
        status, facts, _ = await call(router, "GET", "/get_loads")
        assert status == 200
        assert facts == {
            "workers": [
                {"worker": old.url, "load": 42},
                {"worker": new.url, "load": 5},
                {"worker": broken.url, "load": -1},
                {"worker": ill.url, "load": -1},
                {"worker": vllm.url, "load": -1},
                {"worker": NOBODY, "load": -1},
            ]
        }


# --- /get_server_info, /get_model_info ---


async def test_server_info_is_the_routers_own():
    async with running_router([NOBODY], expect_healthy=0) as router:
        status, facts, _ = await call(router, "GET", "/get_server_info")
        assert (status, facts) == (200, {"router_manager": True, "routers_count": 1, "workers_count": 1})


async def test_model_info_without_an_available_worker_is_503():
    async with running_router([NOBODY], expect_healthy=0) as router:
        status, facts, _ = await call(router, "GET", "/get_model_info")
        assert (status, facts["error"]["code"]) == (503, "no_workers")


@pytest.mark.parametrize("path", ["/get_model_info", "/model_info"])
async def test_model_info_is_what_the_first_available_worker_says(path):
    async with (
        answering(path, {"model_path": "org/model", "is_generation": True}) as first,
        Engine() as second,
        running_router([NOBODY, first, second], expect_healthy=2) as router,
    ):
        status, facts, _ = await call(router, "GET", "/get_model_info")
        assert (status, facts) == (200, {"model_path": "org/model", "is_generation": True})


async def test_model_info_that_no_engine_has_is_502():
    async with Engine() as worker, running_router([worker]) as router:
        status, facts, _ = await call(router, "GET", "/get_model_info")
        assert (status, facts["error"]["code"]) == (502, "upstream_bad_answer")
        await worker.server.close()
        status, facts, _ = await call(router, "GET", "/get_model_info")
        assert (status, facts["error"]["code"]) == (502, "upstream_connection_failed")


# --- /engine_metrics ---


@pytest.mark.parametrize("workers", [[], [NOBODY]])
async def test_metrics_that_nobody_tells_are_500(workers):
    async with running_router(workers, expect_healthy=0) as router:
        status, facts, _ = await call(router, "GET", "/engine_metrics")
        assert (status, facts["error"]["code"]) == (500, "all_workers_failed")
        assert facts["error"]["message"] == "All backend requests failed."


async def test_metrics_of_all_workers_are_one_exposition(simulated_engines):
    async with (
        simulated_engines(2) as engines,
        answering("/metrics", 500) as ill,
        answering("/metrics", b"x" * (5 << 20)) as endless,
        running_router([*engines, ill, endless, NOBODY], expect_healthy=4) as router,
    ):
        status, text, headers = await call(router, "GET", "/engine_metrics")
        assert status == 200
        assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        assert {sample.labels["worker_addr"] for sample in samples} == {each.url for each in engines}
        names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
        assert len(names) == len(set(names))


# --- /health_generate ---


async def test_nobody_available_cannot_generate():
    async with running_router([NOBODY], expect_healthy=0) as router:
        status, facts, _ = await call(router, "GET", "/health_generate")
        assert (status, facts["error"]["code"]) == (503, "no_available_workers")


async def test_one_worker_of_each_role_generates():
    async with (
        answering("/health_generate", 200) as first,
        answering("/health_generate", 200) as spare,
        answering("/health_generate", 200) as decode,
        running_router([first, spare], models=[{"name": "paired", "pd": {"enabled": True}}]) as router,
    ):
        status, facts, _ = await call(router, "GET", "/health_generate")
        assert status == 200
        assert facts == {"status": "ok", "workers": [{"worker": first.url, "worker_type": "regular"}]}
        assert "GET /health_generate" not in spare.asked

        for registration in router.server.registrations.registrations:
            await call(router, "PATCH", f"/workers/{registration.id}", {"worker_type": "prefill"})
        status, facts, _ = await call(router, "GET", "/health_generate")
        assert (status, facts["error"]["code"]) == (503, "no_available_workers")  # half a pair can do nothing

        await call(router, "POST", "/workers", {"url": decode.url, "worker_type": "decode"})
        await until(lambda: router.server.pool.candidates(WorkerRole.DECODE), "a decode worker")
        status, facts, _ = await call(router, "GET", "/health_generate")
        assert status == 200
        assert [worker["worker_type"] for worker in facts["workers"]] == ["prefill", "decode"]
        assert "GET /health_generate" in decode.asked


async def test_a_worker_that_cannot_generate_is_503():
    async with answering("/health_generate", 503) as worker, running_router([worker]) as router:
        status, facts, _ = await call(router, "GET", "/health_generate")
        assert (status, facts["error"]["code"]) == (503, "workers_unhealthy")
        assert facts["error"]["message"] == f"{worker.url} answered 503."


async def test_an_engine_without_that_path_is_asked_for_its_health():
    async with Engine() as worker, running_router([worker]) as router:
        assert (await call(router, "GET", "/health_generate"))[0] == 200
        assert worker.asked[-2:] == ["GET /health_generate", "GET /health"]


# --- which engine a worker is ---


@pytest.mark.parametrize(
    ("models", "kind"),
    [
        ({"data": [{"id": "m", "owned_by": "sglang"}]}, "sglang"),
        ({"data": [{"id": "m", "owned_by": "vllm"}]}, "vllm"),
        ({"data": [{"id": "m", "owned_by": "acme"}]}, None),
        (404, None),
    ],
)
async def test_a_worker_says_which_engine_it_is_without_being_asked_for_more(models, kind):
    async with answering("/v1/models", models) as engine, running_router([engine]) as router:
        (info,) = (await call(router, "GET", "/workers"))[1]["workers"]
        assert info.get("runtime_type") == kind
        assert set(engine.asked) == {"GET /health", "GET /v1/models"}
