"""Clients that mean harm, or might: refused clearly, in bounded memory, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest

from router_core.testing.scripted_server import Read, ScriptedServer, answer
from router_core.testing.simulated_engine import SimulatedEngine

from .support import CHAT, RawClient, Router, chat, request_bytes, running_router, until

POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: router\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: router\r\n\r\n"

REFUSED = {
    "length beside coding": (400, POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "two lengths": (400, POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
    "a folded header": (400, POST + b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n"),
    "a bare LF": (400, POST + b"X: a\nContent-Length: 0\r\n\r\n"),
    "a space before the colon": (400, POST + b"Content-Length : 5\r\n\r\nhello"),
    "another coding": (501, POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    "a coding that is almost chunked": (400, POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    "a chunk size of too many digits": (400, CHUNKED + b"0" * 40 + b"5\r\nhello\r\n0\r\n\r\n"),
    "a chunk size over all limits": (413, CHUNKED + b"ffffffffffffff\r\n"),
    "a chunk extension over all limits": (400, CHUNKED + b"5;" + b"x" * 100_000),
    "chunk extensions without end": (400, CHUNKED + b"1;a=b\r\nx\r\n" * 2000),
    "a trailer over all limits": (400, CHUNKED + b"0\r\n" + b"X: " + b"y" * 100_000),
    "trailers without end": (400, CHUNKED + b"0\r\n" + b"X: y\r\n" * 20_000),
    "a head over all limits": (431, POST + b"X: " + b"y" * 100_000),
    "headers over all limits": (431, POST + b"a:\r\n" * 2000 + b"\r\n"),
    "a target over all limits": (431, b"GET /" + b"x" * 100_000),
    "a body over all limits": (413, POST + b"Content-Length: 99999999999999\r\n\r\n"),
    "a tunnel": (405, b"CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: router\r\n\r\n"),
    "noise": (400, bytes(range(256)) * 10 + b"\r\n\r\n"),
}


@contextlib.asynccontextmanager
async def router_with_engine(**settings: object) -> AsyncIterator[tuple[Router, SimulatedEngine]]:
    async with SimulatedEngine(name="a") as engine, running_router([engine], **settings) as router:
        yield router, engine


async def test_malformed_traffic_is_refused_one_by_one_and_never_reaches_a_worker():
    async with router_with_engine() as (router, engine):
        for name, (status, wire) in REFUSED.items():
            async with await RawClient.connect(router.url) as client:
                client.writer.write(wire + SMUGGLED)
                head = await client.read_until(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 %d " % status), name
                assert b"connection: close" in head.lower(), name
                rest = await client.read_rest()
                assert json.loads(rest)["error"]["message"], name
        assert not engine.requests
        assert await router.ask() == "a"
        (sample,) = [
            s for s in (await router.metrics())["router_core_refused_requests_total"] if s.labels["status"] == "501"
        ]
        assert sample.value == 1


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"[" * 500_000, id="deep, never closed"),
        pytest.param(b'{"messages":' + b"[" * 200_000 + b"]" * 200_000 + b"}", id="deep"),
        pytest.param(b'{"a":' * 100_000 + b"1" + b"}" * 100_000, id="deep objects"),
        pytest.param(b'{"model": "\xff\xfe", "messages": [{"role": "user", "content": "\x80"}]}', id="invalid UTF-8"),
        pytest.param(b'{"messages": [{"role": "user", "content": "\\ud800"}]}', id="half a surrogate"),
        pytest.param(b'{"model": "a", "model": "b", "messages": [], "messages": [1]}', id="keys twice"),
        pytest.param(b'{"messages": 7, "model": {}, "user": [], "stream": "yes", "max_tokens": -1e999}', id="types"),
        pytest.param(b'{"max_tokens": ' + b"9" * 100_000 + b"}", id="an endless number"),
        pytest.param(b'\xef\xbb\xbf{"messages": []}', id="a byte order mark"),
        pytest.param(b"\x00" * 1000, id="zeros"),
        pytest.param(b"", id="nothing"),
    ],
)
@pytest.mark.parametrize("policy", ["cache_aware", "round_robin"])
async def test_whatever_a_body_holds_it_reaches_the_worker_as_it_is(body: bytes, policy: str):
    script = [Read(), answer(b"ok"), *[Read(), answer()] * 9]
    async with ScriptedServer(script) as worker, running_router([worker], policy=policy) as router:
        for path in (CHAT, "/v1/responses", "/v1/embeddings", "/generate"):
            async with router.session.post(router.url + path, data=body) as response:
                assert response.status == 200
            assert worker.requests[-1].partition(b"\r\n\r\n")[2] == body
        assert (await router.policy_facts())["faults"] == []


async def test_slow_senders_are_cut_off_and_nobody_waits_for_them():
    limits = {"head_timeout_s": 0.4, "body_timeout_s": 0.4}
    async with router_with_engine(limits=limits) as (router, engine), contextlib.AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(await RawClient.connect(router.url)) for _ in range(40)]
        for index, client in enumerate(slow):
            client.writer.write(POST if index % 2 else POST + b"Content-Length: 100\r\n\r\nx")
        for _ in range(10):
            assert await router.ask() == "a"
        for client in slow:
            assert (await client.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 408 ")
        await until(lambda: len(router.server.relay.connections) <= 1, "the slow ones to be gone")
        assert len(engine.requests) == 10


async def test_a_head_that_drips_is_timed_from_its_first_byte():
    async with (
        router_with_engine(limits={"head_timeout_s": 0.5}) as (router, _),
        await RawClient.connect(router.url) as client,
    ):
        client.writer.write(POST)
        for index in range(200):
            client.writer.write(b"X-%d: a\r\n" % index)
            await asyncio.sleep(0.02)
            if client.reader._buffer:  # what came meanwhile
                break
        assert (await client.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 408 ")


async def test_clients_over_the_limit_are_told_so_and_the_others_go_on():
    async with router_with_engine(limits={"max_connections": 20}) as (router, _), contextlib.AsyncExitStack() as stack:
        kept = [await stack.enter_async_context(await RawClient.connect(router.url)) for _ in range(20)]
        relay = router.server.relay
        await until(lambda: len(relay.connections) == 20, "twenty connections")
        for _ in range(3):
            client = await stack.enter_async_context(await RawClient.connect(router.url))
            status, body = await client.read_answer()
            assert (status, json.loads(body)["error"]["code"]) == (503, "too_many_connections")
            assert await client.read_rest() == b""
        for client in kept:
            client.send()
            assert (await client.read_answer())[0] == 200
        kept[0].hang_up()
        await until(lambda: len(relay.connections) < 20, "room")
        assert await router.ask() == "a"


async def test_far_too_many_clients_are_cut_without_a_word():
    async with router_with_engine(limits={"max_connections": 1}) as (router, _), contextlib.AsyncExitStack() as stack:
        relay = router.server.relay
        clients = [await stack.enter_async_context(await RawClient.connect(router.url)) for _ in range(400)]
        heard = [await client.read_rest() for client in clients[1:]]
        assert all(b" 503 " in text or not text for text in heard)
        assert any(not text for text in heard)
        await until(lambda: len(relay.connections) == 1, "only the first to be there")
        clients[0].send()
        assert (await clients[0].read_answer())[0] == 200


async def test_idle_connections_take_little_memory_and_harm_nobody():
    async with router_with_engine() as (router, _), contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(await RawClient.connect(router.url)) for _ in range(500)]
        await until(lambda: len(router.server.relay.connections) >= 500, "all to be connected")
        for index, client in enumerate(clients):
            client.writer.write(POST[: index % len(POST)])
        for _ in range(5):
            assert await router.ask() == "a"


async def test_pipelined_requests_without_end_are_kept_within_bounds():
    flood = request_bytes(chat("x" * 1000)) * 1000
    async with (
        SimulatedEngine(name="a", ttft_s=3600.0) as engine,
        running_router([engine], limits={"shutdown_grace_s": 0}) as router,
        await RawClient.connect(router.url) as client,
    ):
        client.send()
        await engine.wait_running()
        (connection,) = (c for c in router.server.relay.connections if c._exchange is not None)
        for _ in range(50):
            client.writer.write(flood)
        await until(lambda: not connection._is_reading, "the router to read no more")
        assert len(connection._buffer) < 1_000_000
        async with router.get("/health") as response:
            assert response.status == 200
