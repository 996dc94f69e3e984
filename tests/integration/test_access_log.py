"""One line a request, if so wished: figures and names, never what a client said."""

from __future__ import annotations

import logging

import pytest

from router_core.testing.scripted_server import Read, ScriptedServer, Send, WaitForPeer
from router_core.testing.simulated_engine import SimulatedEngine

from .pd_support import running_pair_router
from .support import RawClient, chat, running_router, until

HEALTH = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
SECRET = "correct horse battery staple"


def lines(caplog) -> list[dict]:
    return [record.fields for record in caplog.records if record.name == "router_core.access"]


async def test_a_line_tells_who_served_a_request_and_how_it_went(caplog):
    async with SimulatedEngine() as engine, running_router([engine], access_log="all", log_level="error") as router:
        async with router.post(
            "/v1/chat/completions?key=" + SECRET.split()[0],
            chat(SECRET, user=SECRET),
            headers={"authorization": f"Bearer {SECRET}", "x-request-id": "mine"},
        ) as response:
            await response.read()
        (line,) = lines(caplog)
    assert {name: line[name] for name in ("request_id", "method", "path", "status", "outcome", "attempts")} == {
        "request_id": "mine",
        "method": "POST",
        "path": "/v1/chat/completions",
        "status": 200,
        "outcome": "success",
        "attempts": 1,
    }
    assert (line["worker"], line["policy"], line["ending"]) == (engine.url, "round_robin", "complete")
    assert line["duration_ms"] >= line["ttft_ms"] > 0
    assert line["prompt_tokens"] > 0
    assert line["completion_tokens"] > 0
    written = " ".join(record.getMessage() for record in caplog.records)
    assert not [word for word in SECRET.split() if word in written]


async def test_errors_alone(caplog):
    async with SimulatedEngine() as engine, running_router([engine], access_log="errors") as router:
        await router.ask()
        async with router.post(body={"messages": 7}) as response:
            assert response.status == 400
    assert [(line["status"], line["outcome"]) for line in lines(caplog)] == [(400, "client_error")]


async def test_sampling_leaves_no_error_out(caplog):
    settings = {"access_log": "all", "access_log_ratio": 0}
    async with SimulatedEngine() as engine, running_router([engine], **settings) as router:
        await router.ask()
        await engine.stop()
        async with router.post() as response:
            assert response.status == 502
    (line,) = lines(caplog)
    assert (line["status"], line["ending"], line["outcome"]) == (502, "answered", "error")
    assert line["code"] == "upstream_connection_failed"
    (warning,) = [record.getMessage() for record in caplog.records if "(connect_failed, " in record.getMessage()]
    assert line["request_id"] in warning


async def test_a_request_nobody_could_take_and_a_client_that_left_have_lines_too(caplog):
    async with running_router([], access_log="errors") as router, router.post() as response:
        assert response.status == 503
    silent = ScriptedServer(lambda index: [Read(), WaitForPeer()] if index else [Read(), Send(HEALTH)])
    async with silent, running_router([silent], access_log="errors") as router:
        async with await RawClient.connect(router.url) as client:
            client.send()
            await until(lambda: any(request.startswith(b"POST") for request in silent.requests))
            client.hang_up()
        await until(lambda: len(lines(caplog)) == 2)
    nobody, left = lines(caplog)
    assert (nobody["status"], nobody["attempts"], "worker" in nobody) == (503, 0, False)
    assert nobody["code"] == "no_available_workers"
    assert (left["ending"], left["outcome"], "status" in left) == ("client_gone", "cancelled", False)


async def test_a_pair_has_one_line_with_both_workers(caplog):
    async with (
        SimulatedEngine(name="p") as prefill,
        SimulatedEngine(name="d") as decode,
        running_pair_router([prefill], [decode], access_log="all") as router,
    ):
        await router.ask()
        await until(lambda: lines(caplog))
        (line,) = lines(caplog)
    assert line["worker"] == f"{prefill.url},{decode.url}"


@pytest.mark.parametrize("protocol", ["sglang", "vllm"])
async def test_a_pair_that_failed_has_the_outcome_of_the_leg_that_failed(caplog, protocol):
    async with (
        SimulatedEngine(name="p", role="prefill", pd=protocol) as prefill,
        SimulatedEngine(name="d", role="decode", pd=protocol) as decode,
        running_pair_router([prefill], [decode], protocol=protocol, access_log="errors") as router,
    ):
        prefill.status = 500
        async with router.post(headers={"x-request-id": "mine"}) as response:
            assert response.status == 502
        await until(lambda: lines(caplog))
        (line,) = lines(caplog)
    assert (line["status"], line["code"], line["outcome"]) == (502, "prefill_failed", "error")
    assert any("'mine'" in record.getMessage() for record in caplog.records if record.name.endswith("dispatcher"))


async def test_what_the_router_cuts_when_it_stops_did_not_leave(caplog):
    settings = {"access_log": "errors", "limits": {"shutdown_grace_s": 3600}}
    async with SimulatedEngine(token_interval_s=0.02) as engine, running_router([engine], **settings) as router:
        async with await RawClient.connect(router.url) as streaming, await RawClient.connect(router.url) as waiting:
            streaming.send(chat(stream=True, max_tokens=100_000, ignore_eos=True))
            await streaming.read_until(b"content")
            waiting.send(chat(max_tokens=100_000, ignore_eos=True))
            await until(lambda: router.load()[0][0] == 2)
            router.server.drain()
            router.server.end_grace()
            await streaming.read_rest()
            await waiting.read_rest()
        await until(lambda: len(lines(caplog)) == 2)
    by_status = {line["status"]: line for line in lines(caplog)}
    assert (by_status[200]["ending"], by_status[200]["outcome"]) == ("shutting_down", "cancelled")
    assert (by_status[503]["ending"], by_status[503]["code"]) == ("answered", "shutting_down")


async def test_a_request_refused_for_its_form_has_a_line_without_its_bytes(caplog):
    limits = {"head_timeout_s": 0.2, "max_body_bytes": 1024}
    post = f"POST /{SECRET.split()[0]} HTTP/1.1\r\nhost: router\r\nkey: {SECRET}\r\n".encode()
    refused = {
        (400, "bad_request"): post + b"a b: c\r\n\r\n",
        (413, "payload_too_large"): post + b"content-length: 1025\r\n\r\n",
        (431, "request_header_fields_too_large"): post + b"x: y\r\n" * 1001 + b"\r\n",
        (408, "request_timeout"): post,
        (505, "http_version_not_supported"): b"GET / HTTP/1.9\r\nhost: router\r\n\r\n",
    }
    async with running_router([], access_log="errors", limits=limits) as router:
        peers = []
        for (status, _), wire in refused.items():
            async with await RawClient.connect(router.url) as client:
                client.writer.write(wire)
                assert (await client.read_answer())[0] == status
                peers.append("{}:{}".format(*client.writer.get_extra_info("sockname")))
        written = lines(caplog)
    assert [(line["status"], line["code"]) for line in written] == list(refused)
    assert [line["peer"] for line in written] == peers
    assert {line["ending"] for line in written} == {"refused"}
    assert written[1]["error"] == "the request's body is over 1024 bytes"
    assert not [word for word in SECRET.split() if word in caplog.text]


async def test_probes_have_no_lines(caplog):
    async with running_router([], access_log="all") as router:
        for path in ("/health", "/v1/models", "/metrics"):
            async with router.get(path):
                pass
    assert lines(caplog) == []


@pytest.fixture(autouse=True)
def _level_as_before():
    root, access = logging.getLogger(), logging.getLogger("router_core.access")
    levels = root.level, access.level
    yield
    root.setLevel(levels[0])
    access.setLevel(levels[1])


async def test_the_level_is_read_and_changed_over_http():
    async with running_router([]) as router:
        url = router.url + "/log_level"
        async with router.session.put(url, json={"level": "debug"}) as response:
            assert (response.status, await response.json()) == (200, {"level": "debug"})
        assert logging.getLogger().level == logging.DEBUG
        async with router.get("/log_level") as response:
            assert await response.json() == {"level": "debug"}
        for body in (b"{", b"[]", b'{"level": 3}', b'{"level": "loud"}'):
            async with router.session.put(url, data=body) as response:
                assert response.status == 400
                assert (await response.json())["code"] == "BAD_REQUEST"
        assert logging.getLogger().level == logging.DEBUG
