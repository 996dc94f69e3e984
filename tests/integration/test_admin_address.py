"""Administration on an address of its own, and pages of other origins."""

from __future__ import annotations

import pytest

from router_core.config import RouterConfig
from router_core.testing.scripted_server import Read, ScriptedServer, answer
from router_core.testing.simulated_engine import SimulatedEngine

from .certificates import Authority
from .support import CHAT, RawClient, chat, running_router

ADMIN = ("/workers", "/list_workers", "/get_loads", "/engine_metrics", "/get_server_info", "/openapi.json")
ORIGIN = "https://chat.example"


async def test_administration_is_served_on_its_own_address_alone():
    async with SimulatedEngine(name="a") as engine, running_router([engine], admin_port=0) as router:
        admin = router.server.admin_url
        assert admin != router.url
        for path in ADMIN:
            async with router.get(path) as response:
                assert response.status == 404, path
                assert "address of administration" in (await response.json())["error"]["message"]
            async with router.session.get(admin + path) as response:
                assert response.status == 200, path
        async with router.post("/workers", {"url": "http://127.0.0.1:1"}) as response:
            assert response.status == 404
        async with router.session.post(f"{admin}/workers", json={"url": admin}) as response:
            assert response.status == 400
            assert "is this router itself" in await response.text()
        async with router.session.post(f"{admin}/workers", json={"url": router.url}) as response:
            assert response.status == 400
        async with router.session.post(admin + CHAT, json=chat()) as response:
            assert response.status in (404, 405)
        assert await router.ask() == "a"
        assert len(engine.requests) == 1


async def test_a_path_of_administration_is_no_workers_even_where_unknown_paths_are_passed_on():
    async with (
        SimulatedEngine(name="a") as engine,
        running_router([engine], admin_port=0, proxy_unknown_paths=True) as router,
    ):
        async with router.post("/flush_cache") as response:
            assert response.status == 404
        async with router.get("/workers/x") as response:
            assert response.status == 404
        assert not engine.requests


async def test_keys_and_tls_hold_there_too(tmp_path):
    authority = Authority(tmp_path)
    async with (
        SimulatedEngine(name="a") as engine,
        running_router(
            [engine],
            admin_port=0,
            tls=authority.files("router"),
            client_tls=authority.client(),
            auth={"keys": ["op:admin=operator", "app=application"]},
        ) as router,
    ):
        workers = f"{router.server.admin_url}/workers"
        assert workers.startswith("https://")
        for key, status in ((None, 401), ("application", 403), ("operator", 200)):
            headers = {} if key is None else {"Authorization": f"Bearer {key}"}
            async with router.session.get(workers, headers=headers) as response:
                assert response.status == status
        router.server.gate.renewal(router.server.config)()
        async with router.session.get(workers) as response:
            assert response.status == 401


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"admin_host": "127.0.0.1"}, "is missing beside admin_host"),
        ({"port": 3000, "admin_port": 3000}, "3000 is port already"),
        ({"prometheus_port": 3000, "admin_port": 3000}, "3000 is prometheus_port already"),
        ({"cors_allowed_origins": ["chat.example"]}, "is no origin"),
        ({"cors_allowed_origins": ["https://chat.example/x"]}, "is no origin"),
        ({"cors_allowed_origins": ["null"]}, "is no origin"),
        ({"cors_allowed_origins": ["https://a\r\nX: y"]}, "is no origin"),
    ],
)
def test_addresses_and_origins_that_cannot_be_are_refused(settings, sentence: str):
    if sentence.startswith("is missing"):
        settings = {**settings, "admin_port": None}
    with pytest.raises(ValueError, match=sentence):
        RouterConfig.model_validate(settings)


def test_an_origin_has_one_spelling():
    given = ["HTTPS://Chat.Example/", "https://a:443", "http://b:80", "http://c:443", "*"]
    origins = RouterConfig.model_validate({"cors_allowed_origins": given}).cors_allowed_origins
    assert origins == ("https://chat.example", "https://a", "http://b", "http://c:443", "*")


# --- CORS ---


async def test_no_page_may_read_anything_by_default():
    allows = "access-control-allow-origin: *\r\naccess-control-allow-credentials: true\r\n"
    script = [Read(), answer(b"ok"), Read(), answer(headers=allows)]
    async with ScriptedServer(script) as worker, running_router([worker]) as router:
        async with router.post(headers={"Origin": ORIGIN}) as response:
            assert response.status == 200
            assert not [name for name in response.headers if name.lower().startswith("access-control")]
        async with router.session.options(
            router.url + CHAT, headers={"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
        ) as response:
            assert response.status == 405


async def test_a_page_that_is_allowed_may_ask_and_read_even_refusals():
    async with (
        SimulatedEngine(name="a") as engine,
        running_router([engine], cors_allowed_origins=[ORIGIN], auth={"keys": ["app=application"]}) as router,
    ):
        asks = {
            "Origin": ORIGIN,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization, content-type",
        }
        async with router.session.options(router.url + CHAT, headers=asks) as response:
            assert response.status == 200
            assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
            assert response.headers["Access-Control-Allow-Headers"] == "authorization, content-type"
            assert "POST" in response.headers["Access-Control-Allow-Methods"]
            assert response.headers["Vary"] == "Origin"
        for key, status in (("application", 200), ("wrong", 401)):
            headers = {"Origin": ORIGIN, "Authorization": f"Bearer {key}"}
            async with router.post(headers=headers, body=chat(stream=True)) as response:
                assert response.status == status
                assert response.headers.getall("Access-Control-Allow-Origin") == [ORIGIN]
                assert "x-request-id" in response.headers["Access-Control-Expose-Headers"]
                await response.read()
        router.server.gate.renewal(router.server.config)()
        async with router.get("/v1/models", headers=headers) as response:
            assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
        async with router.session.options(
            router.url + CHAT, headers={**asks, "Origin": "https://evil.example"}
        ) as response:
            assert response.status == 401
            assert "Access-Control-Allow-Origin" not in response.headers
        assert len(engine.requests) == 1


PAGE = b"Origin: https://chat.example\r\n"
REFUSED = {
    413: b"POST /v1/chat/completions HTTP/1.1\r\nHost: r\r\nContent-Length: 5000\r\n" + PAGE + b"\r\n",
    400: b"POST /v1/chat/completions HTTP/1.1\r\nHost: r\r\nTransfer-Encoding: chunked\r\n" + PAGE + b"\r\nxyz\r\n",
    408: b"POST /v1/chat/completions HTTP/1.1\r\nHost: r\r\nContent-Length: 5\r\n" + PAGE + b"\r\nhe",
    431: b"GET / HTTP/1.1\r\nHost: r\r\n" + PAGE + b"x: " + b"y" * 9000,
}


@pytest.mark.parametrize("origins", [[ORIGIN], ["*"], ["https://other.example"], []])
@pytest.mark.parametrize("status", REFUSED)
async def test_a_page_that_is_allowed_may_read_why_its_request_was_refused_unread(status, origins):
    limits = {"max_head_bytes": 8192, "max_body_bytes": 4096, "body_timeout_s": 0.2}
    async with (
        running_router([], cors_allowed_origins=origins, limits=limits) as router,
        await RawClient.connect(router.url) as client,
    ):
        client.writer.write(REFUSED[status])
        found, headers = await client.read_head()
        allowed = origins[0] if origins and (origins == ["*"] or (origins == [ORIGIN] and status != 431)) else None
        assert (found, headers.get("access-control-allow-origin")) == (status, allowed)


async def test_all_pages_may_be_allowed_and_nothing_odd_is_echoed():
    async with (
        SimulatedEngine(name="a") as engine,
        running_router([engine], cors_allowed_origins="*") as router,
        await RawClient.connect(router.url) as client,
    ):
        asks = (
            b"Origin: https://any\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: a\x80(\r\n"
        )
        client.writer.write(b"OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: r\r\n" + asks + b"\r\n")
        status, headers = await client.read_head()
        assert status == 200
        assert headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-headers" not in headers
        assert "vary" not in headers
