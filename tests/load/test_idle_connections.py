"""Ten thousand connections that say nothing: what they take of the router, and what others notice of them."""

from __future__ import annotations

import asyncio
import contextlib
import resource

import aiohttp
import pytest

from .children import Router, engine_process, router_process

_ROUNDS = 50
_OTHER_FILES = 256
_HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
_BODY = b'{"prompt": "a"}'
_PATIENT = {"LIMITS__HEAD_TIMEOUT_S": "600", "LIMITS__KEEP_ALIVE_TIMEOUT_S": "600"}


class Idler(asyncio.Protocol):
    """A client that does nothing until it is told to."""

    def __init__(self) -> None:
        self.received = b""
        self.is_lost = False
        self.is_answered = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.received += data
        if b"\r\n\r\n{" in self.received:
            self.is_answered.set()

    def connection_lost(self, _error: Exception | None) -> None:
        self.is_lost = True


def allow_open_files(count: int) -> None:
    """Let this process, and those it starts, have that many connections; skip the test where they may not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + _OTHER_FILES
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"{count} connections need {wanted} open files, and only {hard} are allowed (ulimit -Hn)")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


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
        pytest.param(10_000, 16_384, id="full", marks=[pytest.mark.load, pytest.mark.async_timeout(300)]),
    ],
)
async def test_idle_connections_take_little_memory_and_nobodys_time(count: int, most_bytes_each: int | None):
    allow_open_files(count)
    loop = asyncio.get_running_loop()
    async with engine_process(1) as engines, router_process(engines.urls, "round_robin", _PATIENT) as router:
        alone_s = await slowest_s(router)
        before = router.rss_bytes()
        host, _, port = router.url.removeprefix("http://").rpartition(":")
        async with contextlib.AsyncExitStack() as stack:
            idlers = []
            for index in range(count):
                transport, idler = await loop.create_connection(Idler, host, int(port))
                stack.callback(transport.abort)
                idlers.append((transport, idler))
                if index % 2:
                    transport.write(_HEAD)  # and no end of it
            while (await router.metrics())["client_connections_active"][0].value < count:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            among_s = await slowest_s(router)
            each = (router.rss_bytes() - before) / count
            print(
                f"\n{count} idle connections: {each:.0f} bytes each; slowest request {alone_s:.4f} -> {among_s:.4f} s"
            )
            assert most_bytes_each is None or each < most_bytes_each
            # They are served as soon as they ask, too.
            for index, (transport, idler) in enumerate(idlers):
                if index % 100 < 2:
                    rest = b"Content-Length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
                    transport.write(rest if index % 2 else _HEAD + rest)
                    async with asyncio.timeout(30):
                        await idler.is_answered.wait()
                    assert idler.received.startswith(b"HTTP/1.1 200 ")
            assert not any(idler.is_lost for _, idler in idlers)
