"""Ten thousand connections that say nothing: what they take of the router, and what others notice of them."""

from __future__ import annotations

import asyncio
import contextlib

import aiohttp
import pytest

from .children import Router, engine_process, router_process

_ROUNDS = 50


async def slowest_s(router: Router) -> float:
    """Return how long the slowest of some requests, one after the other, took."""
    loop = asyncio.get_running_loop()
    slowest = 0.0
    async with aiohttp.ClientSession() as session:
        for _ in range(_ROUNDS):
            started = loop.time()
            async with session.post(f"{router.url}/v1/completions", json={"prompt": "a"}) as response:
                assert response.status == 200
                await response.read()
            slowest = max(slowest, loop.time() - started)
    return slowest


@pytest.mark.parametrize(
    ("count", "most_bytes_each"),
    [
        pytest.param(300, None, id="small"),
        pytest.param(9_000, 16_384, id="full", marks=[pytest.mark.load, pytest.mark.async_timeout(300)]),
    ],
)
async def test_idle_connections_take_little_memory_and_nobodys_time(count: int, most_bytes_each: int | None):
    loop = asyncio.get_running_loop()
    async with engine_process(1) as engines, router_process(engines.urls, "round_robin") as router:
        alone_s = await slowest_s(router)
        before = router.rss_bytes()
        host, _, port = router.url.removeprefix("http://").rpartition(":")
        async with contextlib.AsyncExitStack() as stack:
            for index in range(count):
                transport, _ = await loop.create_connection(asyncio.Protocol, host, int(port))
                stack.callback(transport.abort)
                if index % 2:
                    transport.write(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\n")
            while (await router.metrics())["client_connections_active"][0].value < count:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            among_s = await slowest_s(router)
            each = (router.rss_bytes() - before) / count
            print(
                f"\n{count} idle connections: {each:.0f} bytes each; slowest request {alone_s:.4f} -> {among_s:.4f} s"
            )
            assert most_bytes_each is None or each < most_bytes_each
