"""What of a client's request reaches a worker, and whose key."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from router_core.config import RouterConfig
from router_core.testing.scripted_server import Read, ScriptedServer, answer
from router_core.testing.simulated_engine import SimulatedEngine

from .support import CHAT, chat, running_router, until

SENT = {
    "Authorization": "Bearer clients",
    "X-API-Key": "clients-too",
    "Cookie": "session=1",
    "X-Request-Id": "r-1",
    "X-Request-Id-Parent": "r-0",
    "X-Correlation-Id": "c",
    "Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "Tracestate": "a=b",
    "X-SMG-Routing-Key": "k",
    "X-Custom": "mine",
    "User-Agent": "test",
    "Content-Encoding": "identity",
    "X-Named": "one hop",
    "Connection": "keep-alive, X-Named",
    "Keep-Alive": "timeout=5",
    "Proxy-Authorization": "Basic x",
    "Proxy-Connection": "keep-alive",
    "TE": "trailers",
    "Trailer": "x-sum",
    "Upgrade": "h2c",
    "HTTP2-Settings": "AAA",
    "Expect": "",
}
NEVER = {"connection", "keep-alive", "proxy-authorization", "proxy-connection", "te", "trailer", "upgrade",
         "http2-settings", "expect", "x-named", "transfer-encoding"}  # fmt: skip
SGLANG = {"authorization", "x-request-id", "x-request-id-parent", "x-correlation-id", "traceparent", "tracestate",
          "x-smg-routing-key"}  # fmt: skip
ALWAYS = {"host", "content-length", "content-type", "content-encoding"}


async def arrived(times: int = 2, path: str = CHAT, **settings: object) -> dict[str, str]:
    """Return the headers a worker gets of `SENT`, lower-case; the same for a head that comes again."""
    script = [Read(), answer(b"ok"), *[Read(), answer()] * times]
    async with ScriptedServer(script) as worker, running_router([worker], **settings) as router:
        for _ in range(times):
            async with router.post(path, headers=SENT) as response:
                assert response.status == 200
        requests = [r for r in worker.requests if r.startswith(b"POST")]
    assert len(requests) == times
    assert len({request.partition(b"\r\n\r\n")[0] for request in requests}) == 1
    lines = requests[0].partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    names = [line.partition(":")[0].lower() for line in lines]
    assert len(names) == len(set(names)), "a header is there twice"
    return {line.partition(":")[0].lower(): line.partition(": ")[2] for line in lines}


async def test_all_end_to_end_headers_but_cookies_are_forwarded():
    headers = await arrived()
    assert not NEVER & set(headers)
    assert "cookie" not in headers
    assert SGLANG | ALWAYS | {"x-custom", "user-agent", "x-api-key"} <= set(headers)
    assert headers["authorization"] == "Bearer clients"


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("sglang", SGLANG),
        (["X-Custom", "x-request-*"], {"x-custom", "x-request-id", "x-request-id-parent"}),
        ("sglang, user-agent", SGLANG | {"user-agent"}),
        (["cookie"], {"cookie"}),
        ([], set()),
    ],
)
async def test_only_chosen_headers_are_forwarded(choice: object, expected: set[str]):
    assert set(await arrived(forward_headers=choice)) - {"x-request-id"} == (expected | ALWAYS) - {"x-request-id"}


async def test_cookies_are_forwarded_on_wish_beside_all_others():
    assert {"cookie", "x-custom"} <= set(await arrived(forward_headers=["all", "cookie"]))


@pytest.mark.parametrize(
    ("choice", "sentence"),
    [(["connection"], "speaks of one connection"), (["TE"], "speaks of one connection"), (["a b"], "no header's name"),
     (["x-*-y"], "no header's name"), (["*"], "no header's name"), (["a\r\n"], "no header's name")],
)  # fmt: skip
def test_a_choice_that_cannot_be_is_refused(choice: list[str], sentence: str):
    with pytest.raises(ValueError, match=sentence):
        RouterConfig.model_validate({"forward_headers": choice})


async def test_the_control_plane_sees_what_workers_do_not():
    async with (
        SimulatedEngine(name="a") as engine,
        running_router([engine], forward_headers=[]) as router,
        router.post("/workers", {"url": "http://127.0.0.1:1"}, headers={"Connection": "close"}) as response,
    ):
        assert response.status == 202


# --- keys ---


async def test_a_workers_key_replaces_the_clients_credentials():
    headers = await arrived(worker_api_key="workers")
    assert headers["authorization"] == "Bearer workers"
    assert "x-api-key" not in headers
    assert headers["x-custom"] == "mine"


async def test_a_workers_key_is_sent_whatever_headers_are_forwarded():
    assert (await arrived(worker_api_key="workers", forward_headers=[]))["authorization"] == "Bearer workers"


async def test_each_worker_gets_its_own_key_everywhere(tmp_path: Path):
    listed = tmp_path / "workers.json"
    async with SimulatedEngine(name="a") as a, SimulatedEngine(name="b") as b, SimulatedEngine(name="c") as c:
        listed.write_text(json.dumps([{"url": b.url, "api_key": "for-b"}]))
        sources = [{"name": "file", "options": {"path": str(listed)}}]
        async with running_router([a], worker_api_key="for-all", membership=sources, expect_healthy=2) as router:
            async with router.post("/workers", {"url": c.url, "api_key": "for-c"}) as response:
                assert response.status == 202
                told = await response.text()
                location = response.headers["Location"]
            await until(lambda: len(router.server.pool.candidates()) == 3, "three workers")
            for _ in range(3):
                await router.ask()
            for engine, key in ((a, "for-all"), (b, "for-b"), (c, "for-c")):
                (request,) = engine.requests
                assert request.headers["authorization"] == f"Bearer {key}"
            async with router.get("/workers") as response:
                told += await response.text()
            async with router.get(location) as response:
                told += await response.text()
            assert "for-" not in told
            assert "api_key" not in told

            # It changes, and goes.
            for change, key in (
                ({"api_key": "new-c"}, "new-c"),
                ({"priority": 3}, "new-c"),
                ({"api_key": None}, "for-all"),
            ):
                async with router.session.patch(router.url + location, json=change) as response:
                    assert response.status == 202
                for _ in range(3):
                    await router.ask()
                assert c.requests[-1].headers["authorization"] == f"Bearer {key}"


async def test_an_added_workers_key_is_used_for_its_health_checks_and_forgotten_with_it():
    script = [Read(), answer(b"ok", headers="connection: close\r\n")]
    async with (
        SimulatedEngine(name="a") as engine,
        ScriptedServer(script) as worker,
        running_router([engine]) as router,
    ):
        async with router.post("/workers", {"url": worker.url, "api_key": "secret-key"}) as response:
            location = response.headers["Location"]
        await until(lambda: len(router.server.pool.candidates()) == 2, "the new worker")
        assert b"authorization: bearer secret-key\r\n" in worker.requests[0].lower()
        async with router.session.delete(router.url + location) as response:
            assert response.status == 202
        async with router.post("/workers", {"url": worker.url}) as response:
            assert response.status == 202
        await worker.wait_requests(len(worker.requests) + 1)
        assert b"authorization" not in worker.requests[-1].lower()


@pytest.mark.parametrize("key", ["", "a b", "a\r\nX: y", "ключ", 7])
async def test_a_key_that_fits_no_header_is_refused_and_not_shown(key: object):
    async with SimulatedEngine(name="a") as engine, running_router([engine]) as router:
        async with router.post("/workers", {"url": "http://127.0.0.1:1", "api_key": key}) as response:
            assert response.status == 400
            message = (await response.json())["error"]
        assert message.startswith("api_key: ")
        assert str(key) not in message or key == ""


async def test_prompts_and_keys_stay_out_of_the_log(caplog):
    caplog.set_level(logging.DEBUG)
    secrets = {"Authorization": "Bearer sesame-1", "X-API-Key": "sesame-2", "Cookie": "sesame-3"}
    async with (
        SimulatedEngine(name="a") as engine,
        running_router(
            [engine, "http://127.0.0.1:1"], policy="cache_aware", worker_api_key="sesame-4", expect_healthy=1
        ) as router,
    ):
        async with router.post("/workers", {"url": engine.url, "api_key": "sesame-5"}, headers=secrets) as response:
            assert response.status == 409
        for body in (chat("sesame-6"), chat("sesame-6", stream=True)):
            async with router.post(body=body, headers=secrets) as response:
                await response.read()
        engine.status = 500
        async with router.post(body=chat("sesame-6"), headers=secrets) as response:
            await response.read()
        await engine.stop()
        async with router.post(body=chat("sesame-6"), headers=secrets) as response:
            assert response.status >= 500
        async with router.get("/metrics") as response:
            told = await response.text()
        async with router.get("/health?verbose") as response:
            told += await response.text()
    assert "DEBUG" in caplog.text
    assert "sesame" not in caplog.text + told + repr(router.server.config)


async def test_a_workers_redirect_is_passed_on_and_followed_by_nobody():
    moved = answer(status=302, headers="location: http://127.0.0.1:1/elsewhere\r\n")

    def script(index: int) -> list[object]:
        return [Read(), answer(b"ok") if index == 0 else moved]  # only its health check is answered

    async with ScriptedServer(script) as worker, running_router([worker]) as router:
        await worker.wait_requests(2)  # it is asked for its models, too
        async with router.post(allow_redirects=False) as response:
            assert response.status == 302
            assert response.headers["location"] == "http://127.0.0.1:1/elsewhere"
        assert len(worker.requests) == 3
