"""A router is restarted while it has traffic, behind a balancer that knows nothing of HTTP but the readiness probe."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal

import aiohttp

from .router_process import listening_router
from .support import STATE_TIMEOUT_S, chat, until


class Balancer:
    """A TCP balancer: new connections go in turn to the routers whose `/readiness` was 200 when last asked."""

    def __init__(self, *backends):
        self.backends = list(backends)
        self.ready = []
        self.url = ""
        self._turn = itertools.count()
        self._tasks = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self._poll = asyncio.ensure_future(self._watch())
        return self

    async def __aexit__(self, *_):
        self._poll.cancel()
        self._server.close()
        async with asyncio.timeout(STATE_TIMEOUT_S):  # clients have gone, so the connections end
            await asyncio.gather(self._poll, *self._tasks, return_exceptions=True)

    async def _watch(self):
        async with aiohttp.ClientSession() as session:
            while True:
                self.ready = [url for url in self.backends if await self._is_ready(session, url)]
                await asyncio.sleep(0.02)

    @staticmethod
    async def _is_ready(session, url):
        try:
            async with session.get(f"{url}/readiness") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

    async def _serve(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        host, _, port = self.ready[next(self._turn) % len(self.ready)].removeprefix("http://").rpartition(":")
        to_reader, to_writer = await asyncio.open_connection(host, int(port))
        await asyncio.gather(self._pipe(reader, to_writer), self._pipe(to_reader, writer), return_exceptions=True)

    @staticmethod
    async def _pipe(reader, writer):
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()


async def test_restarting_one_router_of_two_loses_no_request(simulated_engines):
    settings = {"LIMITS__SHUTDOWN_SETTLE_S": "0.5"}
    async with contextlib.AsyncExitStack() as stack:
        engines = await stack.enter_async_context(simulated_engines(2, ttft_s=0.02, token_interval_s=0.005, tokens=20))
        urls = [engine.url for engine in engines]
        first = await stack.enter_async_context(listening_router(*urls, settings=settings))
        second = await stack.enter_async_context(listening_router(*urls, settings=settings))
        balancer = await stack.enter_async_context(Balancer(first.url, second.url))
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        await until(lambda: len(balancer.ready) == 2)
        served = []
        is_over = asyncio.Event()

        async def client(stream):
            while not is_over.is_set():
                async with session.post(f"{balancer.url}/v1/chat/completions", json=chat(stream=stream)) as response:
                    assert response.status == 200, await response.text()
                    body = await response.read()
                    assert body.endswith(b"data: [DONE]\n\n") if stream else body.endswith(b"}")
                    served.append(response.headers.get("connection", ""))

        clients = [asyncio.ensure_future(client(stream)) for stream in [True, False] * 10]
        await until(lambda: len(served) > 100 or any(task.done() for task in clients))
        first.send_signal(signal.SIGTERM)
        assert await first.ended() == 0
        again = await stack.enter_async_context(
            listening_router(*urls, settings=settings, port=int(first.url.rpartition(":")[2]))
        )
        await until(lambda: len(balancer.ready) == 2)
        count = len(served)
        await until(lambda: len(served) > count + 100 or any(task.done() for task in clients))
        is_over.set()
        await asyncio.gather(*clients)  # each asserts that it lost nothing
        assert "close" in served
        assert again.is_running
