from __future__ import annotations

import asyncio

import aiohttp
import pytest

from router_core.testing.scripted_server import (
    Close,
    HalfClose,
    Pause,
    Read,
    ReadBytes,
    Reset,
    ScriptedServer,
    Send,
    WaitForPeer,
    answer,
)

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n"


async def test_requests_are_recorded_exactly_and_a_connection_can_serve_several():
    async with ScriptedServer([Read(), answer(b"one"), Read(), answer(b"two")]) as server:
        async with aiohttp.ClientSession() as session:
            async with session.post(server.url + "/a", data=b"first") as response:
                assert await response.read() == b"one"
            async with session.post(server.url + "/b", data=b"second") as response:
                assert await response.read() == b"two"
        await server.wait_closed()
    assert len(server.connections) == 1
    assert server.requests[0].startswith(b"POST /a HTTP/1.1\r\n")
    assert server.requests[0].endswith(b"\r\n\r\nfirst")
    assert server.connections[0].received == b"".join(server.requests)


async def test_a_chunked_request_is_read_to_its_end():
    async with ScriptedServer([Read(), answer()]) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        request = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\n\r\n"
        writer.write(request)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()
        await writer.wait_closed()
    assert server.requests == [request]


@pytest.mark.parametrize("end", [Reset(), Close()])
async def test_a_half_answer_breaks_off(end):
    async with ScriptedServer([Read(), Send(HEAD + b"half"), end]) as server, aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError):
            await (await session.get(server.url)).read()
        await server.wait_closed()
    assert server.connections[0].was_closed_by_peer is False


async def test_each_connection_may_have_a_script_of_its_own():
    scripts = [[Read(), Close()], [Read(), answer(b"ok")]]
    async with ScriptedServer(lambda index: scripts[index]) as server, aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await session.post(server.url, data=b"not repeated")
        async with session.post(server.url, data=b"x") as response:
            assert await response.read() == b"ok"
    assert len(server.connections) == 2


async def test_a_pause_lasts_until_the_test_says_so():
    go = asyncio.Event()
    script = [Read(), Send(HEAD + b"01234"), Pause(event=go), Send(b"56789", piece=1)]
    async with (
        ScriptedServer(script) as server,
        aiohttp.ClientSession() as session,
        session.get(server.url) as response,
    ):
        assert await response.content.readexactly(5) == b"01234"
        go.set()
        assert await response.read() == b"56789"


async def test_it_sees_the_peer_leave_and_what_it_sent_before():
    async with ScriptedServer([ReadBytes(2), HalfClose(), WaitForPeer()]) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"abc")
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        await server.wait_closed()
    assert server.connections[0].received == b"abc"
    assert server.connections[0].was_closed_by_peer is True


async def test_a_peer_that_leaves_in_mid_request_is_an_error_of_the_connection():
    async with ScriptedServer([Read()]) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\nfour")
        await server.wait_connected()
        writer.close()
        await writer.wait_closed()
        await server.wait_closed()
    assert server.requests == []
    assert server.connections[0].received.endswith(b"four")
    assert isinstance(server.connections[0].error, asyncio.IncompleteReadError)


async def test_waiting_in_vain_says_for_what():
    async with ScriptedServer([Read()]) as server:
        with pytest.raises(TimeoutError, match="not yet 1 requests: "):
            await server.wait_requests(timeout_s=0.01)


async def test_leaving_ends_connections_that_still_wait():
    async with ScriptedServer([WaitForPeer()]) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        await server.wait_connected()
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
