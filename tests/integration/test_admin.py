"""Workers are added, changed and removed over HTTP, and what runs on them comes to its end."""

from __future__ import annotations

import asyncio
import json
import uuid
from urllib.parse import quote

import pytest

from router_core.testing.scripted_server import Pause, Read, ScriptedServer, Send

from .support import CHAT, RawClient, chat, running_router, until
from .test_streaming import EVENTS, HEAD, chunk, worker_script

NOBODY = "http://127.0.0.1:9"  # the discard port: refused
EMPTY = {"workers": [], "total": 0, "stats": {"prefill_count": 0, "decode_count": 0, "regular_count": 0}}
INFO = {
    "id",
    "url",
    "model_id",
    "models",
    "adapters",
    "priority",
    "cost",
    "worker_type",
    "status",
    "is_healthy",
    "is_draining",
    "circuit",
    "load",
    "connection_mode",
    "labels",
    "metadata",
    "disable_health_check",
}


async def call(router, method, path, body=None, *, data=None):
    """Send JSON (or bytes) and return status, document and headers."""
    async with router.session.request(method, router.url + path, json=body, data=data) as response:
        is_json = response.content_type == "application/json"
        return response.status, await (response.json() if is_json else response.text()), response.headers


async def add(router, url, **fields):
    status, facts, _ = await call(router, "POST", "/workers", {"url": url, **fields})
    assert status == 202, facts
    return facts["worker_id"]


async def info_of(router, worker_id):
    status, facts, _ = await call(router, "GET", f"/workers/{worker_id}")
    return facts if status == 200 else status


def stream_until(gate):
    """Return a worker that sends one event, and another when the test says so."""
    return ScriptedServer(
        worker_script([Read(), Send(HEAD + chunk(EVENTS[0])), Pause(event=gate), Send(chunk(EVENTS[1]) + chunk(b""))])
    )


# --- what is refused ---


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("nonsense", 400, "BAD_REQUEST"),
        ("123", 400, "BAD_REQUEST"),
        ("00000000-0000-4000-8000-00000000000", 400, "BAD_REQUEST"),
        ("ftp%3A%2F%2Fa", 400, "BAD_REQUEST"),
        ("00000000-0000-4000-8000-000000000000", 404, "WORKER_NOT_FOUND"),
        ("http%3A%2F%2Fnobody%3A1", 404, "WORKER_NOT_FOUND"),
    ],
)
async def test_who_is_not_there_is_an_error_with_a_code(method, name, status, code):
    async with running_router([]) as router:
        answered, error, _ = await call(router, method, f"/workers/{name}", {} if method in ("PUT", "PATCH") else None)
        assert (answered, error["code"]) == (status, code)
        assert set(error) == {"error", "code"}
        assert isinstance(error["error"], str)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[]", "is not a JSON object"),
        (b'"http://a"', "is not a JSON object"),
        (b"{}", "url: is missing"),
        (b'{"url": null}', "url: is missing"),
        (b'{"url": 7}', "url: "),
        (b'{"url": "a:8000"}', "lacks http"),
        (b'{"url": "http://user:secret@a"}', "no user, password"),
        (b'{"url": "http://a/v1"}', "more than host and port"),
        (b'{"url": "http://a", "worker_type": "chief"}', "worker_type: "),
        (b'{"url": "http://a", "priority": "high"}', "priority: "),
        (b'{"url": "http://a", "priority": -1}', "priority: "),
        (b'{"url": "http://a", "cost": -0.5}', "cost: "),
        (b'{"url": "http://a", "cost": 1e999}', "JSON"),
        (b'{"url": "http://a", "labels": ["x"]}', "labels: "),
        (b'{"url": "http://a", "labels": {"x": 1}}', "labels.x: "),
        (b'{"url": "http://a", "bootstrap_port": 8998}', "only a prefill worker"),
        (b'{"url": "http://a", "worker_type": "prefill", "bootstrap_port": 0}', "bootstrap_port: "),
        (b'{"url": "http://a", "prio": 1}', "prio: unknown field"),
    ],
)
async def test_a_body_that_cannot_be_used_is_400_and_adds_nobody(body, says):
    async with running_router([]) as router:
        status, error, _ = await call(router, "POST", "/workers", data=body)
        assert (status, error["code"]) == (400, "BAD_REQUEST")
        assert says in error["error"]
        assert "secret" not in error["error"]
        assert router.server.pool.workers == ()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/workers/00000000-0000-4000-8000-000000000000"),
        ("DELETE", "/workers"),
        ("GET", "/add_worker?url=http://a"),
        ("GET", "/remove_worker?url=http://a"),
        ("POST", "/list_workers"),
        ("GET", "/flush_cache"),
    ],
)
async def test_another_method_is_405(method, path):
    async with running_router([]) as router:
        status, error, headers = await call(router, method, path)
        assert (status, error["error"]["code"]) == (405, "method_not_allowed")
        assert headers["Allow"]


async def test_a_url_is_added_once_however_it_is_spelt():
    async with running_router([NOBODY], expect_healthy=0) as router:
        (known,) = router.server.registrations.registrations
        for method, path, body in [
            ("POST", "/workers", {"url": NOBODY + "/"}),
            ("POST", "/workers", {"url": NOBODY.replace("http", "HTTP")}),
            ("POST", f"/add_worker?url={NOBODY}", None),
        ]:
            status, error, headers = await call(router, method, path, body)
            assert (status, error["code"]) == (409, "WORKER_ALREADY_EXISTS")
            assert headers["Location"] == f"/workers/{known.id}"


async def test_an_ipv6_address_is_added_once_however_it_is_spelt():
    async with running_router([]) as router:
        await add(router, "http://[0:0:0:0:0:0:0:1]:9")
        assert (await call(router, "POST", "/workers", {"url": "http://[::1]:9"}))[0] == 409
        assert (await call(router, "GET", "/list_workers"))[1] == {"urls": ["http://[::1]:9"]}


async def test_the_router_is_not_its_own_worker():
    async with running_router([]) as router:
        for path, body in [("/workers", {"url": router.url}), (f"/add_worker?url={router.url}", None)]:
            status, error, _ = await call(router, "POST", path, body)
            assert (status, error["code"]) == (400, "BAD_REQUEST")
            assert "is this router itself" in error["error"]
        assert router.server.pool.workers == ()


@pytest.mark.parametrize("path", ["/add_worker", "/remove_worker", "/add_worker?url=", "/remove_worker?url=a:1"])
async def test_the_older_paths_want_a_url(path):
    async with running_router([]) as router:
        status, error, _ = await call(router, "POST", path)
        assert (status, error["code"]) == (400, "BAD_REQUEST")


async def test_the_older_path_removes_nobody_who_is_not_there():
    async with running_router([]) as router:
        status, error, _ = await call(router, "POST", f"/remove_worker?url={NOBODY}")
        assert (status, error["code"]) == (404, "WORKER_NOT_FOUND")


# --- joining ---


async def test_without_workers_the_list_is_empty():
    async with running_router([]) as router:
        assert (await call(router, "GET", "/workers"))[:2] == (200, EMPTY)
        assert (await call(router, "GET", "/list_workers"))[:2] == (200, {"urls": []})


async def test_a_worker_that_is_added_is_told_of_at_once_and_serves_once_it_is_well(simulated_engine):
    engine = simulated_engine(health_status=503)
    async with engine, running_router([], expect_healthy=0, health={"interval_s": 0.05}) as router:
        body = {"url": engine.url + "/", "labels": {"zone": "a"}, "priority": 80, "cost": 0.5, "runtime": "vllm"}
        status, facts, headers = await call(router, "POST", "/workers", body)
        worker_id = facts.pop("worker_id")
        assert status == 202
        assert headers["Location"] == facts.pop("location") == f"/workers/{worker_id}"
        assert str(uuid.UUID(worker_id)) == worker_id
        assert (facts["status"], facts["url"]) == ("accepted", engine.url)
        assert facts["message"].endswith("Without effect here: runtime.")

        # It registers still: 503, not 404.
        info = await info_of(router, worker_id)
        assert (info["status"], info["is_healthy"], info["model_id"]) == ("registering", False, "unknown")
        assert set(info["job_status"]) == {"job_type", "worker_url", "status", "message", "timestamp"}
        async with router.post() as response:
            assert response.status == 503
            assert (await response.json())["error"]["code"] == "no_available_workers"

        engine.health_status = 200
        await until(router.server.pool.candidates, "a candidate")
        assert await router.ask() == "engine"
        info = await info_of(router, worker_id)
        assert set(info) == INFO
        assert info == info | {
            "id": worker_id,
            "url": engine.url,
            "status": "ready",
            "is_healthy": True,
            "is_draining": False,
            "model_id": "simulated-model",
            "models": [{"id": "simulated-model"}],
            "priority": 80,
            "cost": 0.5,
            "worker_type": "regular",
            "load": 0,
            "labels": {"zone": "a"},
            "metadata": {"dp_size": "1"},
        }
        assert dict(router.server.pool.workers[0].labels) == {"zone": "a", "priority": "80", "cost": "0.5"}
        assert await info_of(router, quote(engine.url, safe="")) == info
        assert (await call(router, "GET", "/workers"))[1] == {
            "workers": [info],
            "total": 1,
            "stats": {"prefill_count": 0, "decode_count": 0, "regular_count": 1},
        }


async def test_roles_are_counted_and_a_prefill_worker_carries_its_bootstrap_port():
    async with running_router([], expect_healthy=0, pd={"enabled": True}) as router:
        prefill = await add(router, "http://127.0.0.1:1", worker_type="prefill", bootstrap_port=8998, model_id="m")
        await add(router, "http://127.0.0.1:2", role="decode")
        _, facts, _ = await call(router, "GET", "/workers")
        assert facts["stats"] == {"prefill_count": 1, "decode_count": 1, "regular_count": 0}
        info = await info_of(router, prefill)
        assert (info["worker_type"], info["bootstrap_port"], info["model_id"]) == ("prefill", 8998, "m")
        assert info["labels"] == {}


@pytest.mark.parametrize(
    ("settings", "role", "fitting"),
    [({}, "prefill", "regular"), ({}, "decode", "regular"), ({"pd": {"enabled": True}}, "regular", "prefill")],
)
async def test_a_worker_that_would_never_get_a_request_is_refused(settings, role, fitting, tmp_path, caplog):
    listed = tmp_path / "workers.json"
    listed.write_text(json.dumps([{"url": "http://127.0.0.1:1", "role": role}]))
    sources = {"membership": [{"name": "file", "options": {"path": str(listed)}}]}
    async with running_router([], expect_healthy=0, **sources, **settings) as router:
        for body in ({"worker_type": role}, {"worker_type": role, "models": ["m"]}):
            status, error, _ = await call(router, "POST", "/workers", {"url": "http://127.0.0.1:2"} | body)
            assert (status, error["code"]) == (400, "BAD_REQUEST")
            assert f"worker_type: a {role} worker would get no request" in error["error"]
        accepted = await add(router, "http://127.0.0.1:3", worker_type=fitting)
        assert (await call(router, "PATCH", f"/workers/{accepted}", {"worker_type": role}))[0] == 400
        assert [worker.url for worker in router.server.pool.workers] == ["http://127.0.0.1:3"]
    assert any("http://127.0.0.1:1 is skipped: " in record.getMessage() for record in caplog.records)


async def test_a_worker_whose_models_are_the_engines_to_tell_again_serves_on(simulated_engine):
    async with simulated_engine() as engine, running_router([engine]) as router:
        (worker,) = router.server.pool.workers
        told, path = worker.models, f"/workers/{router.server.registrations.registrations[0].id}"
        await call(router, "PATCH", path, {"models": ["declared"]})
        assert worker.models == {"declared"}
        await call(router, "PATCH", path, {"models": []})
        assert worker in router.server.pool.candidates(model="declared")  # until the engine has told
        await until(lambda: worker.models == told)


async def test_the_older_paths_add_list_and_remove(simulated_engine):
    async with simulated_engine() as engine, running_router([]) as router:
        status, text, _ = await call(router, "POST", f"/add_worker?url={engine.url}")
        assert status == 200
        assert engine.url in text
        assert (await call(router, "GET", "/list_workers"))[1] == {"urls": [engine.url]}
        await until(router.server.pool.candidates, "a candidate")
        assert await router.ask() == "engine"
        status, text, _ = await call(router, "POST", f"/remove_worker?url={engine.url}")
        assert (status, text) == (200, f"Worker {engine.url}: The worker has left.")
        assert (await call(router, "GET", "/list_workers"))[1] == {"urls": []}


# --- changing ---


async def test_patch_changes_what_it_names_and_put_replaces(simulated_engine):
    async with simulated_engine() as engine, running_router([engine]) as router:
        (worker,) = router.server.pool.workers
        path = f"/workers/{router.server.registrations.registrations[0].id}"

        status, facts, _ = await call(router, "PATCH", path, {"labels": {"zone": "a", "tier": "gold"}, "priority": 7})
        assert (status, facts["status"]) == (202, "accepted")
        await call(router, "PATCH", path, {"labels": {"tier": None}, "url": engine.url})
        assert dict(worker.labels) == {"zone": "a", "priority": "7"}

        await call(router, "PUT", path, {"cost": 2, "models": ["declared"]})
        assert dict(worker.labels) == {"cost": "2"}
        assert worker.models == {"declared"}
        info = await info_of(router, path.rpartition("/")[2])
        assert (info["priority"], info["cost"], info["model_id"]) == (50, 2.0, "declared")

        status, error, _ = await call(router, "PUT", path, {"url": NOBODY})
        assert (status, error["code"]) == (400, "BAD_REQUEST")
        assert engine.url in error["error"]
        assert router.server.pool.workers == (worker,)


async def test_a_role_changes_while_requests_run_and_their_load_stays_true(simulated_engine):
    gate = asyncio.Event()
    pairs = {"models": [{"name": "paired", "pd": {"enabled": True}}]}
    async with stream_until(gate) as worker, running_router([worker], **pairs) as router:
        path = f"/workers/{router.server.registrations.registrations[0].id}"
        async with await RawClient.connect(router.url) as client:
            client.send(chat(stream=True))
            await client.read_until(EVENTS[0])
            body = {"worker_type": "prefill", "bootstrap_port": 8998, "models": ["paired"]}
            assert (await call(router, "PATCH", path, body))[0] == 202
            info = await info_of(router, path.rpartition("/")[2])
            assert (info["worker_type"], info["bootstrap_port"], info["load"]) == ("prefill", 8998, 1)
            assert router.server.pool.candidates() == ()
            await call(router, "PATCH", path, {"worker_type": "regular", "models": []})
            assert "bootstrap_port" not in await info_of(router, path.rpartition("/")[2])
            gate.set()
            await client.read_until(EVENTS[1])
        await router.settled(1)


# --- leaving ---


async def test_a_worker_that_is_removed_finishes_its_requests_gets_no_new_ones_and_is_gone(simulated_engine):
    gate = asyncio.Event()
    async with stream_until(gate) as old, simulated_engine() as other, running_router([old]) as router:
        worker_id = router.server.registrations.registrations[0].id
        async with await RawClient.connect(router.url) as client:
            client.send(chat(stream=True))
            await client.read_until(EVENTS[0])
            for _ in range(2):  # again is no error
                status, facts, _ = await call(router, "DELETE", f"/workers/{worker_id}")
                assert (status, facts["status"], facts["worker_id"]) == (202, "accepted", worker_id)
            info = await info_of(router, worker_id)
            assert (info["status"], info["is_draining"], info["load"]) == ("draining", True, 1)
            assert info["job_status"]["job_type"] == "RemoveWorker"
            removal = router.server.registrations.find(worker_id).draining_since
            assert info["job_status"]["timestamp"] == int(removal), "when its removal began, not when it joined"
            assert (await call(router, "GET", "/list_workers"))[1] == {"urls": []}

            # It is seen to drain, and nobody is left to serve.
            assert (await call(router, "GET", "/readiness"))[1]["reason"] == "no healthy workers"
            (facts,) = (await call(router, "GET", "/health?verbose"))[1]["pools"][0]["workers"]
            assert (facts["is_draining"], facts["load"]) == (True, 1)
            (draining,) = (await router.metrics())["router_core_worker_draining"]
            assert draining.value == 1
            async with router.post() as response:
                assert response.status == 503
                message = (await response.json())["error"]["message"]
            assert message == "No worker is available: 1 configured, 1 draining, no other healthy."

            status, error, _ = await call(router, "PATCH", f"/workers/{worker_id}", {"priority": 1})
            assert (status, error["code"]) == (400, "BAD_REQUEST")

            await add(router, other.url)
            await until(router.server.pool.candidates, "a candidate")
            assert {await router.ask() for _ in range(3)} == {"engine"}

            gate.set()
            await client.read_until(EVENTS[1])
        await until(lambda: len(router.server.pool.workers) == 1, "the old one gone")
        assert await info_of(router, worker_id) == 404
        assert (await call(router, "DELETE", f"/workers/{worker_id}"))[1]["code"] == "WORKER_NOT_FOUND"
        await router.settled(4)


async def test_a_client_that_hangs_up_ends_the_draining_too():
    async with stream_until(asyncio.Event()) as old, running_router([old]) as router:
        worker_id = router.server.registrations.registrations[0].id
        async with await RawClient.connect(router.url) as client:
            client.send(chat(stream=True))
            await client.read_until(EVENTS[0])
            await call(router, "DELETE", f"/workers/{worker_id}")
            client.hang_up()
            await until(lambda: not router.server.pool.workers, "the worker gone")
        await router.settled(1)


async def test_a_worker_without_requests_leaves_at_once(simulated_engine):
    async with simulated_engine() as engine, running_router([engine]) as router:
        worker_id = router.server.registrations.registrations[0].id
        status, facts, _ = await call(router, "DELETE", f"/workers/{worker_id}")
        assert (status, facts["message"]) == (202, "The worker has left.")
        assert await info_of(router, worker_id) == 404
        assert (await call(router, "GET", "/workers"))[1] == EMPTY


async def test_a_worker_added_again_while_it_drains_keeps_its_load_and_stays(simulated_engine):
    gate = asyncio.Event()
    async with stream_until(gate) as old, running_router([old]) as router:
        before = router.server.registrations.registrations[0].id
        async with await RawClient.connect(router.url) as client:
            client.send(chat(stream=True))
            await client.read_until(EVENTS[0])
            await call(router, "DELETE", f"/workers/{before}")
            after = await add(router, old.url)
            assert after != before
            assert await info_of(router, before) == 404
            info = await info_of(router, after)
            assert (info["is_draining"], info["load"]) == (False, 1)
            gate.set()
            await client.read_until(EVENTS[1])
        await router.settled(1)
        assert [worker.url for worker in router.server.pool.workers] == [old.url]


async def test_removing_and_adding_again_and_again_while_requests_come_loses_no_load(simulated_engines):
    async with simulated_engines(2, ttft_s=0.002) as engines, running_router(engines) as router:
        kept, changed = engines
        stop = asyncio.Event()
        asked = 0

        async def keep_asking():
            nonlocal asked
            while not stop.is_set():
                await router.ask()
                asked += 1

        clients = [asyncio.ensure_future(keep_asking()) for _ in range(8)]
        for _ in range(10):
            name = quote(changed.url, safe="")
            assert (await call(router, "DELETE", f"/workers/{name}"))[0] == 202
            await until(lambda: router.server.registrations.at(changed.url) is None, "the worker gone")
            await add(router, changed.url)
            await until(lambda: len(router.server.pool.candidates()) == 2, "both serve")
        stop.set()
        await asyncio.gather(*clients)
        await router.settled(asked)
        assert kept.accepted + changed.accepted == asked


async def test_admin_paths_are_the_routers_own_even_when_unknown_ones_are_proxied(simulated_engine):
    async with simulated_engine() as engine, running_router([engine], proxy_unknown_paths=True) as router:
        assert (await call(router, "GET", "/workers"))[1]["total"] == 1
        assert (await call(router, "GET", "/workers/nonsense"))[0] == 400
        assert engine.accepted == 0
        async with router.session.get(router.url + CHAT) as response:
            assert response.status == 405
