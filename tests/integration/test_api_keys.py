"""API keys: who gets in and where, what the others are told, and that a key goes nowhere it should not."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import re
import signal
from typing import get_args

import pytest

from router_core.api import PolicyConfig, hookimpl
from router_core.config import Setting, config_of
from router_core.config.auth import OpenPath
from router_core.contract.errors import StartupError
from router_core.testing.scripted_server import Read, ScriptedServer, answer
from router_core.testing.simulated_engine import SimulatedEngine

from .router_process import listening_router
from .support import CHAT, RawClient, chat, in_house, request_bytes, running_router
from .test_streaming import worker_script

INFERENCE, ADMIN, METRICS, BOTH = "sk-inference-1", "sk-admin-1", "sk-metrics-1", "sk-both-1"
KEYS = [
    {"name": "team-a", "key": INFERENCE},
    {"name": "ops", "sha256": hashlib.sha256(ADMIN.encode()).hexdigest(), "scopes": ["admin"]},
    {"name": "prometheus", "key": METRICS, "scopes": ["metrics"]},
    {"name": "root", "key": BOTH, "scopes": ["inference", "admin"]},
]


def bearer(key):
    return {"authorization": f"Bearer {key}"}


@contextlib.asynccontextmanager
async def closed_router():
    """Run a router that all of KEYS open."""
    async with SimulatedEngine() as engine, running_router([engine], auth={"keys": KEYS}) as router:
        yield router


async def status_of(router, method, path, headers=None):
    body = chat() if method == "POST" else None
    async with router.session.request(method, router.url + path, json=body, headers=headers) as response:
        await response.read()
        return response.status


INFERENCE_REQUESTS = [("POST", CHAT), ("POST", "/generate"), ("GET", "/v1/responses/resp_x"), ("GET", CHAT)]
ADMIN_REQUESTS = [
    ("GET", "/workers"),
    ("POST", "/workers"),
    ("GET", "/list_workers"),
    ("POST", "/add_worker?url=http://127.0.0.1:1"),
    ("POST", "/flush_cache"),
    ("GET", "/get_loads"),
    ("GET", "/engine_metrics"),
    ("GET", "/nowhere"),
    ("GET", "/health?verbose"),
    ("GET", "/%77orkers"),
    ("GET", "/v1/../workers"),
    ("GET", "//workers"),
    ("GET", "/workers/"),
]


ALL_REQUESTS = [*INFERENCE_REQUESTS, *ADMIN_REQUESTS, ("GET", "/v1/models"), ("GET", "/metrics")]
NO_KEYS = [
    {},
    bearer("sk-wrong"),
    bearer(INFERENCE[:-1]),
    bearer(INFERENCE + "x"),
    bearer(""),
    {"authorization": INFERENCE},
    {"authorization": f"Basic {INFERENCE}"},
    {"x-api-key": "sk-wrong"},
    bearer(hashlib.sha256(ADMIN.encode()).hexdigest()),
]


async def test_without_a_known_key_all_but_the_probes_is_closed():
    async with closed_router() as router:
        for method, path in ALL_REQUESTS:
            for headers in NO_KEYS:
                assert await status_of(router, method, path, headers) == 401, (method, path, headers)
        for path in ("/health", "/liveness", "/readiness"):
            assert await status_of(router, "GET", path) == 200


async def test_each_key_opens_what_its_scopes_say():
    async with closed_router() as router:
        for method, path in INFERENCE_REQUESTS:
            for key in (INFERENCE, BOTH):
                assert await status_of(router, method, path, bearer(key)) not in (401, 403), (path, key)
                assert await status_of(router, method, path, {"x-api-key": key}) not in (401, 403), (path, key)
            assert await status_of(router, method, path, bearer(ADMIN)) == 403
        for method, path in ADMIN_REQUESTS:
            for key in (INFERENCE, METRICS):
                assert await status_of(router, method, path, bearer(key)) == 403, (path, key)
            assert await status_of(router, method, path, bearer(ADMIN)) not in (401, 403), path


DISGUISES = ["/v1/models/../../workers", "/v1/models/%2e%2e/%2e%2e/workers", "/v1/responses/../../workers"]


@pytest.mark.parametrize("path", DISGUISES)
async def test_a_path_that_only_looks_harmless_does_not_lead_to_the_workers(path):
    async with closed_router() as router, await RawClient.connect(router.url) as client:
        client.writer.write(f"GET {path} HTTP/1.1\r\nhost: r\r\nx-api-key: {INFERENCE}\r\n\r\n".encode())
        status, body = await client.read_answer()
        assert (status, b"stats" in body) == (404, False)


async def test_the_level_of_the_log_is_an_administrators():
    async with running_router([], auth={"keys": KEYS}) as router:
        url = router.url + "/log_level"
        for key, status in ((INFERENCE, 403), (METRICS, 403), (ADMIN, 200)):
            async with router.get("/log_level", headers=bearer(key)) as response:
                assert response.status == status
                level = await response.json()
            async with router.session.put(url, json=level, headers=bearer(key)) as response:
                assert response.status == status
        async with router.session.put(url, json=level) as response:
            assert response.status == 401


async def test_metrics_need_their_scope_or_admin():
    async with closed_router() as router:
        assert await status_of(router, "GET", "/metrics", bearer(INFERENCE)) == 403
        assert await status_of(router, "GET", "/metrics", bearer(METRICS)) == 200
        assert await status_of(router, "GET", "/metrics", bearer(ADMIN)) == 200
        assert await status_of(router, "POST", CHAT, bearer(ADMIN)) == 403


async def test_every_path_of_the_openapi_document_wants_the_key_that_its_group_is_for():
    refused = {
        "administration": [401, 403, 403],
        "inference": [401, None, 403],
        "models": [401, None, None],
        "metrics": [401, 403, None],
        "probes": [None, None, None],
    }
    async with closed_router() as router:
        async with router.get("/openapi.json", headers=bearer(ADMIN)) as response:
            paths = (await response.json())["paths"]
        assert {"/workers", "/pools/{name}/policy", "/v1/responses/{response}", "/v1/messages", "/health"} <= set(paths)
        for path, item in paths.items():
            at = re.sub(r"\{\w+\}", "no-such", path)
            for method, operation in item.items():
                (group,) = operation["tags"]
                for key, status in zip(({}, bearer(INFERENCE), bearer(METRICS)), refused[group], strict=True):
                    found = await status_of(router, method.upper(), at, key)
                    assert found == status if status else found not in (401, 403), (method, path, group, key)


async def test_every_path_of_the_openapi_document_is_there():
    async with closed_router() as router:
        async with router.get("/openapi.json", headers=bearer(ADMIN)) as response:
            paths = (await response.json())["paths"]
        for path, item in paths.items():
            for method, operation in item.items():
                key = bearer(INFERENCE if operation["tags"] == ["inference"] else ADMIN)
                url = router.url + re.sub(r"\{\w+\}", "no-such", path)
                async with router.session.request(method, url, headers=key) as response:
                    assert response.status != 405, (method, path)
                    assert b'"code":"not_found"' not in await response.read(), (method, path)


async def test_pools_are_told_to_administrators():
    async with closed_router() as router:
        for path in ("/pools", "/pools/default"):
            assert await status_of(router, "GET", path, bearer(ADMIN)) == 200
        assert await status_of(router, "GET", "/pools/no-such/pool", bearer(ADMIN)) == 404


async def test_every_key_may_see_the_models():
    async with closed_router() as router:
        for key in (INFERENCE, ADMIN, METRICS):
            assert await status_of(router, "GET", "/v1/models", bearer(key)) == 200


OPEN_PATHS = get_args(OpenPath)


async def test_what_is_open_needs_no_key_for_reading_and_nothing_else_is(simulated_engine):
    async with (
        simulated_engine() as engine,
        running_router([engine], auth={"api_key": BOTH, "open_paths": OPEN_PATHS}) as router,
    ):
        for path in OPEN_PATHS:
            assert await status_of(router, "GET", path) == 200, path
            assert await status_of(router, "GET", f"{path}?x=1") == 200, path
            assert await status_of(router, "POST", path) == 401, path
        for method, path in [*INFERENCE_REQUESTS, *ADMIN_REQUESTS]:
            if path not in OPEN_PATHS:
                assert await status_of(router, method, path) == 401, path
        for path in (*DISGUISES, "/v1/models/", "/v1/models/simulated-model", "/metrics/..", "/get_loads"):
            async with await RawClient.connect(router.url) as client:
                client.writer.write(f"GET {path} HTTP/1.1\r\nhost: r\r\n\r\n".encode())
                assert (await client.read_answer())[0] == 401, path


async def test_what_is_not_said_to_be_open_is_closed():
    async with closed_router() as router:
        for path in OPEN_PATHS:
            assert await status_of(router, "GET", path) == 401


async def test_a_path_that_changes_something_cannot_be_opened():
    with pytest.raises(StartupError, match=r"auth.open_paths\[0\]: '/workers' does not fit; give one of /v1/models"):
        config_of([Setting(("auth", "open_paths"), ["/workers"], "test")])


async def test_the_separate_metrics_port_asks_for_no_key(simulated_engine):
    async with (
        simulated_engine() as engine,
        running_router([engine], auth={"api_key": BOTH}, prometheus_port=0, prometheus_host="127.0.0.1") as router,
    ):
        assert await router.metrics()


async def test_a_refusal_says_what_is_missing_as_clients_know_it():
    async with closed_router() as router:
        async with router.post() as response:
            assert response.status == 401
            assert response.headers["www-authenticate"] == 'Bearer realm="router-core"'
            error = (await response.json())["error"]
            assert (error["code"], error["type"]) == ("invalid_api_key", "Unauthorized")
            assert "Authorization: Bearer KEY" in error["message"]
        async with router.post(headers=bearer("sk-wrong")) as response:
            assert response.headers["www-authenticate"] == 'Bearer realm="router-core", error="invalid_token"'
            assert "sk-wrong" not in await response.text()
        async with router.get("/workers", headers=bearer(INFERENCE)) as response:
            assert response.status == 403
            assert 'error="insufficient_scope", scope="admin"' in response.headers["www-authenticate"]
            error = (await response.json())["error"]
            assert error == {
                "code": "insufficient_scope",
                "message": "The API key 'team-a' lacks the scope 'admin'.",
                "param": None,
                "type": "Forbidden",
            }
        metrics = await router_metrics(router)
        assert metrics == {"missing_key": 1, "invalid_key": 1, "missing_scope": 1}


async def router_metrics(router):
    async with router.get("/metrics", headers=bearer(METRICS)) as response:
        text = await response.text()
    assert not any(key in text for key in (INFERENCE, ADMIN, METRICS, BOTH))
    lines = [line for line in text.splitlines() if line.startswith("router_core_unauthorized_requests_total{")]
    return {line.split('"')[1]: float(line.split()[-1]) for line in lines}


async def test_without_an_admin_key_administration_is_closed_and_says_so(simulated_engine):
    async with (
        simulated_engine() as engine,
        running_router([engine], auth={"keys": KEYS[:1]}) as router,
        router.get("/workers", headers=bearer(INFERENCE)) as response,
    ):
        assert response.status == 403
        assert "No key of this router has it" in await response.text()


async def test_a_single_api_key_opens_everything(simulated_engine):
    async with simulated_engine() as engine, running_router([engine], auth={"api_key": BOTH}) as router:
        for method, path in (("POST", CHAT), ("GET", "/workers"), ("GET", "/metrics"), ("GET", "/v1/models")):
            assert await status_of(router, method, path, bearer(BOTH)) == 200
            assert await status_of(router, method, path) == 401


class HeaderReader:
    """A policy that would like to see the key."""

    needs = frozenset({"header:authorization"})
    seen: list[dict[str, str]]

    class Config(PolicyConfig):
        """It has no options."""

    def __init__(self, config: Config) -> None:
        self.seen = []

    @hookimpl
    def select_single(self, workers, request):
        request.explain("looked", headers=dict(request.headers))
        return workers[0]


@pytest.mark.parametrize("name", ["authorization", "Authorization", "x-api-key"])
async def test_the_routers_own_key_reaches_neither_worker_nor_policy_nor_log(name, caplog):
    caplog.set_level(logging.DEBUG)
    async with (
        ScriptedServer(worker_script([Read(), answer(), Read(), answer()])) as worker,
        running_router([worker], policy=in_house(HeaderReader), auth={"keys": KEYS}) as router,
    ):
        key = INFERENCE if name == "x-api-key" else f"Bearer {INFERENCE}"
        async with await RawClient.connect(router.url) as client:
            head, _, body = request_bytes().partition(b"\r\n\r\n")
            request = head + f"\r\n{name}: {key}\r\nX-Other: kept\r\n\r\n".encode() + body
            for _ in range(2):  # the second head is recalled, not parsed
                client.writer.write(request)
                assert (await client.read_answer())[0] == 200
        requests = [request for request in worker.requests if b"POST" in request]
        assert len(requests) == 2
        for request in requests:
            assert INFERENCE.encode() not in request
            assert b"X-Other: kept\r\n" in request
            assert request.endswith(body)
    assert INFERENCE not in caplog.text


async def test_a_foreign_credential_beside_the_key_passes(caplog):
    async with (
        ScriptedServer(worker_script([Read(), answer()])) as worker,
        running_router([worker], auth={"keys": KEYS}) as router,
    ):
        headers = {"x-api-key": INFERENCE, "authorization": "Bearer of-the-worker"}
        async with router.post(headers=headers) as response:
            assert response.status == 200
        [request] = [request for request in worker.requests if b"POST" in request]
        assert b"Bearer of-the-worker" in request
        assert INFERENCE.encode() not in request


async def test_keys_go_to_workers_where_that_is_wished():
    async with (
        ScriptedServer(worker_script([Read(), answer()])) as worker,
        running_router([worker], auth={"keys": KEYS, "forward_keys": True}) as router,
    ):
        async with router.post(headers=bearer(INFERENCE)) as response:
            assert response.status == 200
        [request] = [request for request in worker.requests if b"POST" in request]
        assert f"Bearer {INFERENCE}".encode() in request


async def test_without_keys_credentials_pass_untouched():
    async with ScriptedServer(worker_script([Read(), answer()])) as worker, running_router([worker]) as router:
        async with router.post(headers=bearer("of-the-worker")) as response:
            assert response.status == 200
        [request] = [request for request in worker.requests if b"POST" in request]
        assert b"Bearer of-the-worker" in request


CHUNKED = b"POST /generate HTTP/1.1\r\nhost: r\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"
LARGE = b"POST /generate HTTP/1.1\r\nhost: r\r\ncontent-length: 100000000\r\nexpect: 100-continue\r\n\r\n"


async def test_nobody_without_a_key_has_a_large_body_kept():
    async with closed_router() as router:
        async with await RawClient.connect(router.url) as client:
            client.writer.write(LARGE)
            status, headers = await client.read_head()
            assert (status, headers["connection"]) == (401, "close")
        async with await RawClient.connect(router.url) as client:
            client.writer.write(
                b"POST /generate HTTP/1.1\r\nhost: r\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"
            )
            status, _ = await client.read_head()
            assert status == 401


async def test_a_body_that_comes_in_pieces_is_checked_once_and_served():
    async with closed_router() as router:
        head, _, body = request_bytes().partition(b"\r\n\r\n")
        async with await RawClient.connect(router.url) as client:
            client.writer.write(head + f"\r\nx-api-key: {INFERENCE}\r\n\r\n".encode() + body[:5])
            await asyncio.sleep(0)
            client.writer.write(body[5:])
            assert (await client.read_head())[0] == 200
            assert [completion.request.attempt for completion in router.record.completed] in ([], [1])


# --- reload ---


async def test_reload_takes_new_keys_and_forgets_old_ones(simulated_engine, tmp_path):
    file = tmp_path / "keys.yaml"
    file.write_text("keys:\n  - {name: old, key: sk-old}\n  - {name: both, key: sk-stays}\n")
    async with (
        simulated_engine() as engine,
        running_router([engine], auth={"keys_file": file}) as router,
        await RawClient.connect(router.url) as client,
    ):

        async def ask(key):
            head, _, body = request_bytes().partition(b"\r\n\r\n")
            client.writer.write(head + f"\r\nauthorization: Bearer {key}\r\n\r\n".encode() + body)
            return (await client.read_answer())[0]

        assert [await ask("sk-old"), await ask("sk-new"), await ask("sk-stays")] == [200, 401, 200]
        file.write_text("keys: [new=sk-new, both=sk-stays]")
        router.server.gate.renewal(router.server.config)()
        # on the same connection, whose head is remembered
        assert [await ask("sk-stays"), await ask("sk-old"), await ask("sk-new")] == [200, 401, 200]
        file.write_text("keys: [{name: broken}]")
        with pytest.raises(StartupError, match="give either key or sha256"):
            router.server.gate.renewal(router.server.config)()
        file.write_text("keys: []")
        with pytest.raises(StartupError, match="holds no key"):
            router.server.gate.renewal(router.server.config)()
        assert [await ask("sk-new"), await ask("sk-old")] == [200, 401]  # as before


# --- as a process ---


async def test_on_sighup_the_file_is_read_again(simulated_engine, tmp_path):
    file = tmp_path / "keys.yaml"
    file.write_text("keys: [old=sk-old]")
    async with (
        simulated_engine() as engine,
        listening_router(engine.url, settings={"AUTH__KEYS_FILE": str(file)}) as router,
        await RawClient.connect(router.url) as client,
    ):

        async def ask(key):
            head, _, body = request_bytes().partition(b"\r\n\r\n")
            client.writer.write(head + f"\r\nx-api-key: {key}\r\n\r\n".encode() + body)
            return (await client.read_answer())[0]

        assert await ask("sk-old") == 200
        file.write_text("keys: [new=sk-new]")
        router.send_signal(signal.SIGHUP)
        await router.read_until("reloaded: 1 API keys")
        assert [await ask("sk-old"), await ask("sk-new")] == [401, 200]
        file.write_text("keys: [sk-slip]")
        router.send_signal(signal.SIGHUP)
        line = await router.read_until("not reloaded")
        assert "keys[0]: is not NAME=KEY" in line
        assert "sk-slip" not in line
        assert await ask("sk-new") == 200


async def test_a_key_from_the_environment_closes_the_router_and_ends_the_warning(simulated_engine):
    async with simulated_engine() as engine:
        settings = {"AUTH__API_KEY": "sk-secret"}
        async with listening_router(engine.url, settings=settings, host="0.0.0.0") as router:
            port = router.url.rpartition(":")[2]
            async with await RawClient.connect(f"http://127.0.0.1:{port}") as client:
                client.send()
                assert (await client.read_answer())[0] == 401
            router.kill()
            await router.ended()
        assert not any("may add and remove workers" in line or "sk-secret" in line for line in router.lines)
        async with listening_router(engine.url, host="0.0.0.0") as router:
            router.kill()
            await router.ended()
        assert any("may add and remove workers" in line for line in router.lines)
