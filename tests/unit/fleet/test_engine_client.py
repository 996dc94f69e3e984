from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from router_core.fleet.engine_client import EngineClient, EngineReplyError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def engine(handler: Handler) -> AsyncIterator[str]:
    """An engine that answers everything by `handler`; yields its address."""
    app = web.Application()
    app.router.add_get("/{path:.*}", handler)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


@asynccontextmanager
async def raw_engine(reply: bytes) -> AsyncIterator[str]:
    """Something that answers every connection by the same bytes."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@asynccontextmanager
async def silent_engine() -> AsyncIterator[str]:
    """Something that accepts connections (the kernel does) and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def closed_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def answers(status: int = 200, body: bytes = b"", **headers: str) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=status, body=body, headers=headers)

    return handler


async def reason_of(url: str, timeout_s: float = 5.0) -> str | None:
    async with EngineClient() as client:
        return await client.check_health(url, "/health", timeout_s)


# --- health ---


async def test_a_refused_connection_is_a_reason() -> None:
    reason = await reason_of(closed_address())
    assert reason is not None
    assert "GET /health failed" in reason


async def test_a_worker_that_does_not_answer_in_time_is_unwell() -> None:
    async with silent_engine() as url:
        assert await reason_of(url, timeout_s=0.05) == "GET /health took longer than 0.05 s"


@pytest.mark.parametrize("status", [204, 200])
async def test_any_2xx_is_well(status: int) -> None:
    async with engine(answers(status)) as url:
        assert await reason_of(url) is None


@pytest.mark.parametrize("status", [302, 404, 500, 503])
async def test_any_other_status_is_a_reason(status: int) -> None:
    async with engine(answers(status, Location="/elsewhere")) as url:
        assert await reason_of(url) == f"GET /health answered {status}"


@pytest.mark.parametrize("reply", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\x00" * 100])
async def test_what_is_no_http_is_a_reason(reply: bytes) -> None:
    async with raw_engine(reply) as url:
        reason = await reason_of(url)
        assert reason is not None
        assert "GET /health failed" in reason


@pytest.mark.parametrize(
    "url", ["http://no-such-host.invalid", "http://[::1", "http://" + "a" * 70 + ".example", "nonsense"]
)
async def test_an_address_that_is_none_is_a_reason(url: str) -> None:
    assert await reason_of(url) is not None


async def test_a_hundred_hanging_workers_do_not_hold_up_a_healthy_one() -> None:
    async with silent_engine() as silent, engine(answers()) as url, EngineClient() as client:
        hanging = [asyncio.ensure_future(client.check_health(silent, "/health", 30)) for _ in range(101)]
        await asyncio.sleep(0)
        assert await client.check_health(url, "/health", 5) is None
        for probe in hanging:
            probe.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)


async def test_a_client_that_is_not_open_says_how_to_use_it() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        await EngineClient().check_health("http://127.0.0.1:1", "/health", 1)


# --- models ---


async def models_of(url: str, timeout_s: float = 5.0) -> list[str]:
    async with EngineClient() as client:
        return [item["id"] for item in await client.fetch_models(url, timeout_s)]


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b'{"data": 3}', b'{"object": "list"}', b"\xff\xfe"])
async def test_a_reply_without_a_list_of_models_is_an_error(body: bytes) -> None:
    async with engine(answers(body=body)) as url:
        with pytest.raises(EngineReplyError, match=r"GET http.*/v1/models answered"):
            await models_of(url)


@pytest.mark.parametrize("status", [301, 401, 404, 500])
async def test_another_status_than_200_is_an_error(status: int) -> None:
    async with engine(answers(status, b'{"data": [{"id": "m"}]}', Location="/v1/models")) as url:
        with pytest.raises(EngineReplyError, match=f"answered {status}"):
            await models_of(url)


async def test_nobody_there_is_an_error() -> None:
    with pytest.raises(EngineReplyError, match="failed"):
        await models_of(closed_address())
    async with silent_engine() as url:
        with pytest.raises(EngineReplyError, match="took longer"):
            await models_of(url, timeout_s=0.05)


async def test_a_reply_that_breaks_off_is_an_error() -> None:
    async with raw_engine(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"data"') as url:
        with pytest.raises(EngineReplyError, match="failed"):
            await models_of(url)


async def test_a_reply_without_end_is_cut_off() -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" " * 65536)

    async with engine(endless) as url:
        with pytest.raises(EngineReplyError, match="more than 4194304 bytes"):
            await models_of(url, timeout_s=30)


async def test_items_that_are_no_models_are_left_out() -> None:
    body = b'{"object": "list", "data": [{"id": "a", "max_model_len": 4096}, null, 3, {}, {"id": 7}, {"id": "b"}]}'
    async with engine(answers(body=body)) as url:
        assert await models_of(url + "/") == ["a", "b"]


async def test_a_workers_key_is_sent_with_every_probe() -> None:
    seen = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization"))
        return web.json_response({"data": []})

    async with engine(handler) as url, EngineClient(key_of=lambda _: "key") as client:
        await client.check_health(url, "/health", 5)
        await client.fetch_models(url, 5)
    assert seen == ["Bearer key", "Bearer key"]
