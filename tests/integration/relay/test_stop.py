"""Stopping: what runs is finished, what waits is closed, and after the grace nothing is left."""

import asyncio
import contextlib

import pytest

from router_core.relay.parties import Ending
from router_core.testing.scripted_server import Pause, Read, ScriptedServer, Send, WaitForPeer, answer

GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
STREAM = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


async def stop(router, grace_s=30.0):
    """Begin to stop; returns the task."""
    task = asyncio.ensure_future(router.server.stop(grace_s))
    await asyncio.sleep(0)
    return task


async def test_idle_clients_are_closed_and_nobody_new_is_let_in(relay, until):
    async with relay("http://127.0.0.1:9") as router:
        client = await router.connect()
        await until(lambda: router.server.connections)
        await router.server.stop(30)
        assert await client.rest() == b""
        with pytest.raises(ConnectionRefusedError):
            await router.connect()


@pytest.mark.parametrize("sent", [b"", STREAM + b"2\r\nab\r\n"], ids=["not yet begun", "begun"])
async def test_a_running_answer_is_finished_within_the_grace(relay, sent):
    go = asyncio.Event()
    rest = b"2\r\ncd\r\n0\r\n\r\n" if sent else answer(b"abcd").data
    script = [Read(), Send(sent), Pause(event=go), Send(rest), WaitForPeer()]
    async with ScriptedServer(script) as worker, relay(worker.url) as router:
        client = await router.connect()
        client.send(GET)
        await worker.wait_requests()
        if sent:
            await client.read(len(sent))
        stopping = await stop(router)
        assert not stopping.done()
        go.set()
        await stopping  # though the client, promised a kept connection, does not close it
        found = await client.rest()
        assert found.endswith(rest if sent else b"abcd")
        assert sent or b"Connection: close\r\n" in found
        assert router.endings == [Ending.COMPLETE]
        await worker.wait_closed()


async def test_a_request_half_sent_is_served_within_the_grace(relay, until):
    async with ScriptedServer([Read(), answer(b"ok"), WaitForPeer()]) as worker, relay(worker.url) as router:
        client = await router.connect()
        client.send(GET[:10])
        await until(lambda: any(connection._buffer for connection in router.server.connections))
        stopping = await stop(router)
        client.send(GET[10:])
        found = await client.answer()
        assert (found.status, found.body) == (200, b"ok")
        assert b"Connection: close\r\n" in found.head
        await stopping


async def test_of_pipelined_requests_the_running_one_is_the_last(relay):
    go = asyncio.Event()
    script = [Read(), Pause(event=go), answer(b"1"), Read(), answer(b"2")]
    async with ScriptedServer(script) as worker, relay(worker.url) as router:
        client = await router.connect()
        client.send(GET + GET)
        await worker.wait_requests()
        stopping = await stop(router)
        go.set()
        assert b"Connection: close\r\n" in (await client.answer()).head
        await stopping
        assert await client.rest() == b""
        assert len(worker.requests) == 1


@pytest.mark.parametrize("sent", [STREAM + b"2\r\nab\r\n", b"HTTP/1.1 200 OK\r\n\r\nab"])
async def test_an_answer_that_is_not_finished_within_the_grace_is_aborted(relay, sent):
    async with ScriptedServer([Read(), Send(sent), WaitForPeer()]) as worker, relay(worker.url) as router:
        client = await router.connect()
        client.send(GET)
        await worker.wait_requests()
        await client.reader.readuntil(b"ab")
        await router.server.stop(0.01)
        assert not router.server.connections
        assert router.endings == [Ending.CLIENT_GONE]
        await worker.wait_closed()
        # Never a clean end: the last chunk is missing, or what ends by being closed is reset.
        if sent.startswith(STREAM):
            assert await client.rest() == b"\r\n"
        else:
            with pytest.raises(ConnectionResetError):
                await client.rest()


@pytest.mark.parametrize("request_", [GET, GET[:10], b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab"])
async def test_whoever_has_no_answer_when_the_grace_is_over_is_told_why(relay, until, request_):
    async with ScriptedServer([Read(), WaitForPeer()]) as worker, relay(worker.url) as router:
        client = await router.connect()
        client.send(request_)
        await until(lambda: any(c._exchange or c._head or c._buffer for c in router.server.connections))
        await router.server.stop(0.01)
        found = await client.answer()
        assert found.status == 503
        assert b'"code":"shutting_down"' in found.body
        assert b"Connection: close\r\n" in found.head
        assert await client.rest() == b""
        assert router.endings == ([Ending.CLIENT_GONE] if request_ == GET else [])
        assert not router.server.connections


async def test_while_it_drains_everybody_is_served_and_told_to_go(relay):
    async with ScriptedServer([Read(), answer(), Read(), answer()]) as worker, relay(worker.url) as router:
        kept = await router.connect()
        await kept.get()
        router.server.drain()
        for client in (kept, await router.connect()):
            found = await client.get()
            assert found.status == 200
            assert b"Connection: close\r\n" in found.head
            assert await client.rest() == b""


async def test_an_idle_client_is_not_closed_before_the_server_ceases_to_listen(relay, until):
    async with ScriptedServer([Read(), answer()]) as worker, relay(worker.url) as router:
        client = await router.connect()
        await until(lambda: router.server.connections)
        router.server.drain()
        assert (await client.get()).status == 200
        await router.server.stop(30)


async def test_cutting_ends_a_long_grace(relay):
    async with ScriptedServer([Read(), WaitForPeer()]) as worker, relay(worker.url) as router:
        client = await router.connect()
        client.send(GET)
        await worker.wait_requests()
        stopping = await stop(router, 3600)
        router.server.cut()
        await stopping
        assert (await client.answer()).status == 503


async def test_cutting_before_stopping_leaves_no_grace(relay):
    async with ScriptedServer([Read(), WaitForPeer()]) as worker, relay(worker.url) as router:
        first, second = await router.connect(), await router.connect()
        first.send(GET)
        await worker.wait_requests()
        router.server.drain()
        router.server.cut()
        assert (await first.answer()).status == 503
        second.send(GET[:10])
        await router.server.stop(3600)


async def test_a_connection_in_the_making_is_given_up_after_the_grace(relay, until, hole):
    async with relay(hole) as router:
        client = await router.connect()
        client.send(GET)
        await until(lambda: router.followers)
        await router.server.stop(0)
        await until(lambda: not router.origin._connecting)
        assert router.endings == [Ending.CLIENT_GONE]


async def test_idle_connections_to_workers_are_closed(relay):
    async with ScriptedServer([Read(), answer(), WaitForPeer()]) as worker, relay(worker.url) as router:
        await (await router.connect()).get()
        await router.server.stop(30)
        await worker.wait_closed()


async def test_a_client_that_does_not_read_its_last_answer_is_aborted_after_the_grace(relay, until):
    async with ScriptedServer([Read(), Send(answer(b"x" * 20_000_000).data)]) as worker, relay(worker.url) as router:
        client = await router.connect()
        client.writer.transport.pause_reading()
        client.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        await until(lambda: any(connection._is_clogged for connection in router.server.connections))
        await router.server.stop(0.01)
        assert not router.server.connections


async def test_clients_that_come_at_the_moment_of_stopping_are_not_left_open(relay, until):
    async with relay("http://127.0.0.1:9") as router:
        comers = [asyncio.ensure_future(asyncio.open_connection(*router.address)) for _ in range(20)]
        await until(lambda: any(comer.done() for comer in comers))
        await router.server.stop(30)
        for outcome in await asyncio.gather(*comers, return_exceptions=True):
            if not isinstance(outcome, OSError):
                reader, writer = outcome
                async with asyncio.timeout(10):
                    with contextlib.suppress(ConnectionResetError):
                        assert await reader.read() == b""
                writer.close()
        await until(lambda: not router.server.connections)
