"""The control plane is one more destination: its requests share the clients' connections with inference."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from router_core.relay.control_origin import ControlOrigin
from router_core.relay.parties import Ending
from router_core.testing.scripted_server import Pause, Read, ScriptedServer, answer

PIECE = b"x" * 65536


class Control:
    """A small control application; `started` and `ended` tell what became of its handlers."""

    def __init__(self):
        self.started, self.ended, self.may_go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.pieces = 0

    def application(self):
        application = web.Application(client_max_size=2**26)
        for name in ("hello", "echo", "unread", "stream", "flood", "fail", "close", "abort", "wait", "drop"):
            application.router.add_route("*", f"/control/{name}", getattr(self, name))
        return application

    async def hello(self, request):
        return web.json_response({"host": request.headers.get("Host"), "path": request.path_qs})

    async def echo(self, request):
        return web.Response(body=await request.read())

    async def unread(self, request):
        return web.Response(text="not looked at")

    async def stream(self, request):
        response = web.StreamResponse()
        await response.prepare(request)
        for number in range(3):
            await response.write(b"%d" % number)
        return response

    async def flood(self, request):
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            for _ in range(1024):
                await response.write(PIECE)
                self.pieces += 1
        finally:
            self.ended.set()
        return response

    async def fail(self, request):
        raise RuntimeError("a bug of the control plane")

    async def close(self, request):
        request.transport.close()
        return web.Response()

    async def abort(self, request):
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"half")
        request.transport.abort()
        return response

    async def wait(self, request):
        self.started.set()
        try:
            await self.may_go_on.wait()
        finally:
            self.ended.set()
        return web.Response(text="waited")

    async def drop(self, request):
        response = web.StreamResponse(headers={"Content-Length": "10"})
        await response.prepare(request)
        await response.write(b"half")
        request.transport.close()
        return response


@asynccontextmanager
async def running(relay, worker_url="http://127.0.0.1:9", **limits):
    control = Control()
    runner = web.AppRunner(control.application(), handler_cancellation=True, access_log=None)
    await runner.setup()
    try:
        async with relay(worker_url, ControlOrigin(runner.server), **limits) as router:
            yield router, control
    finally:
        await runner.cleanup()


async def test_the_control_plane_answers_with_the_clients_host(relay):
    async with running(relay) as (router, _):
        client = await router.connect()
        for _ in range(3):
            found = await client.get(b"/control/hello?a=b")
            assert found.body == b'{"host": "router", "path": "/control/hello?a=b"}'
        assert router.endings == [Ending.COMPLETE] * 3


async def test_control_and_inference_requests_share_a_connection_and_keep_their_order(relay):
    slow = asyncio.Event()
    script = [Read(), Pause(event=slow), answer(b"inference"), Read(), answer(b"more")]
    async with ScriptedServer(script) as worker, running(relay, worker.url) as (router, _):
        client = await router.connect()
        targets = [b"/x", b"/control/stream", b"/local", b"/x", b"/control/unread"]
        client.send(b"".join(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n" for target in targets))
        await worker.wait_requests()
        slow.set()
        bodies = [(await client.answer()).body for _ in targets]
        assert bodies == [b"inference", b"012", b'{"local": true}', b"more", b"not looked at"]
        assert len(worker.connections) == 1


@pytest.mark.parametrize("size", [0, 1, 1_000_000, 20_000_000])
async def test_a_body_reaches_the_control_plane_and_comes_back(relay, size):
    body = bytes(range(250)) * (size // 250) + b"x" * (size % 250)
    async with running(relay) as (router, _):
        client = await router.connect()
        assert (await client.post(body, b"/control/echo")).body == body


@pytest.mark.parametrize("size", [0, 1, 1_000_000, 20_000_000])
async def test_a_body_that_the_control_plane_does_not_read_holds_nothing_up(relay, size):
    async with running(relay) as (router, _):
        client = await router.connect()
        for _ in range(2):
            assert (await client.post(b"x" * size, b"/control/unread")).body == b"not looked at"


async def test_an_http_1_0_client_gets_a_streamed_answer_decoded(relay):
    async with running(relay) as (router, _):
        client = await router.connect()
        client.send(b"GET /control/stream HTTP/1.0\r\n\r\n")
        assert (await client.rest()).endswith(b"\r\n\r\n012")


async def test_head_is_answered_without_a_body(relay):
    async with running(relay) as (router, _):
        client = await router.connect()
        assert b"Content-Length: 13\r\n" in (await client.get(b"/control/unread", method=b"HEAD")).head
        assert (await client.get(b"/control/unread")).body == b"not looked at"


@pytest.mark.parametrize("path", [b"/control/none", b"/control/fail"])
async def test_an_error_of_the_control_plane_is_an_answer(relay, path, caplog):
    async with running(relay) as (router, _):
        client = await router.connect()
        assert (await client.get(path)).status in (404, 500)
        assert (await client.get(b"/control/unread")).status == 200


async def test_a_handler_that_closes_without_an_answer_is_answered_for(relay):
    async with running(relay) as (router, _):
        client = await router.connect()
        assert (await client.get(b"/control/close")).status == 502
        assert router.endings == [Ending.CONNECTION_LOST]
        assert (await client.get(b"/control/unread")).status == 200


@pytest.mark.parametrize("path", [b"/control/drop", b"/control/abort"])
async def test_a_handler_that_breaks_off_its_answer_breaks_off_the_clients(relay, path):
    async with running(relay) as (router, _):
        client = await router.connect()
        client.send(b"GET " + path + b" HTTP/1.1\r\nHost: a\r\n\r\n")
        seen = await client.rest()
        assert not seen.endswith(b"0\r\n\r\n")
        assert router.endings == [Ending.CONNECTION_LOST]


async def test_a_client_that_hangs_up_ends_its_handler(relay):
    async with running(relay) as (router, control):
        client = await router.connect()
        client.send(b"GET /control/wait HTTP/1.1\r\nHost: a\r\n\r\n")
        await control.started.wait()
        await client.close()
        await control.ended.wait()
        assert router.endings == [Ending.CLIENT_GONE]


async def test_a_handler_out_of_time_is_ended_and_answered_for(relay):
    async with running(relay, request_timeout_s=5) as (router, control):
        client = await router.connect()
        client.send(b"GET /control/wait HTTP/1.1\r\nHost: a\r\n\r\n")
        await control.started.wait()
        router.pass_time(6)
        assert (await client.answer()).status == 504
        await control.ended.wait()


async def test_a_client_that_does_not_read_holds_the_handler_back(relay, until):
    async with running(relay) as (router, control):
        client = await router.connect()
        client.writer.transport.pause_reading()
        client.send(b"GET /control/flood HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        await until(lambda: any(connection._is_clogged for connection in router.server.connections))
        for _ in range(2000):
            await asyncio.sleep(0)
        assert control.pieces < 1024
        client.writer.transport.resume_reading()
        assert (await client.rest()).count(b"x") == 1024 * len(PIECE)
        await control.ended.wait()


async def test_a_client_that_hangs_up_on_a_handler_held_back_ends_it(relay, until):
    async with running(relay) as (router, control):
        client = await router.connect()
        client.writer.transport.pause_reading()
        client.send(b"GET /control/flood HTTP/1.1\r\nHost: a\r\n\r\n")
        await until(lambda: any(connection._is_clogged for connection in router.server.connections))
        client.reset()
        await control.ended.wait()
        assert router.endings == [Ending.CLIENT_GONE]
