"""A client that hangs up stops its worker at once, whenever it does."""

import asyncio

import pytest

from router_core.relay.parties import Ending
from router_core.testing.scripted_server import Pause, Read, Reset, ScriptedServer, Send, WaitForPeer, answer

GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

MOMENTS = {
    "before the head": b"",
    "in the head": b"HTTP/1.1 2",
    "after an interim answer": b"HTTP/1.1 103 Early Hints\r\n\r\n",
    "after the head": HEAD,
    "in the stream": HEAD + b"3\r\nabc\r\n",
    "in a chunk": HEAD + b"3\r\nab",
}


async def hang_up(client, how):
    if how == "reset":
        client.reset()
    else:
        await client.close()


@pytest.mark.parametrize("sent", MOMENTS.values(), ids=MOMENTS)
@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("pipelined", [b"", GET, GET[:9]], ids=["alone", "pipelined", "pipelined in part"])
async def test_a_client_that_hangs_up_ends_the_workers_connection_at_once(relay, until, sent, how, pipelined):
    script = [Read(), Send(sent), WaitForPeer()]
    async with ScriptedServer(script) as worker, relay(worker.url) as router:
        client = await router.connect()
        client.send(GET + pipelined)
        await worker.wait_requests()
        await hang_up(client, how)
        await worker.wait_closed()
        assert worker.connections[0].was_closed_by_peer
        await until(lambda: not router.server.connections)
        assert router.endings == [Ending.CLIENT_GONE]
        assert len(worker.requests) == 1


async def test_a_client_that_only_closes_its_sending_side_has_hung_up(relay):
    async with ScriptedServer([Read(), WaitForPeer()]) as worker, relay(worker.url) as router:
        client = await router.connect()
        client.send(GET)
        await worker.wait_requests()
        client.writer.write_eof()
        await worker.wait_closed()
        assert router.endings == [Ending.CLIENT_GONE]


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_client_that_hangs_up_while_connecting_ends_that(relay, until, hole, how):
    async with relay(hole) as router:
        client = await router.connect()
        client.send(GET)
        await until(lambda: router.followers)
        assert router.origin._connecting
        await hang_up(client, how)
        await until(lambda: not router.origin._connecting)
        assert router.endings == [Ending.CLIENT_GONE]


async def test_clients_that_hang_up_at_the_moment_of_connecting_leave_nothing(relay, until):
    async with ScriptedServer([WaitForPeer()]) as worker, relay(worker.url) as router:
        for turns in range(12):
            client = await router.connect()
            client.send(GET)
            await until(lambda turns=turns: len(router.followers) == turns + 1)
            for _ in range(turns):
                await asyncio.sleep(0)
            [connection] = router.server.connections
            connection.abort()
            await until(lambda: not router.server.connections)
        await until(lambda: not router.origin._connecting)
        assert router.endings == [Ending.CLIENT_GONE] * 12
        await worker.wait_closed(len(worker.connections))


async def test_a_client_that_hangs_up_during_a_replay_ends_the_replay(relay, until):
    scripts = [[Read(), answer(), Read(), Reset()], [Read(), WaitForPeer()]]
    async with ScriptedServer(scripts.__getitem__) as worker, relay(worker.url) as router:
        client = await router.connect()
        await client.get()
        client.send(GET)
        await worker.wait_requests(3)
        await client.close()
        await worker.wait_closed(2)
        assert router.endings == [Ending.COMPLETE, Ending.CLIENT_GONE]
        await until(lambda: not router.server.connections)
        assert len(worker.connections) == 2


async def test_a_client_that_hangs_up_while_it_sends_reaches_no_worker(relay, until):
    async with ScriptedServer([WaitForPeer()]) as worker, relay(worker.url) as router:
        for sent in (b"", GET[:5], b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n", GET[:-2]):
            client = await router.connect()
            client.send(sent)
            await client.close()
        await until(lambda: not router.server.connections)
        assert (router.followers, worker.connections) == ([], [])


async def test_another_clients_stream_goes_on(relay, until):
    go = asyncio.Event()
    script = [Read(), Send(HEAD), Pause(event=go), Send(b"2\r\nok\r\n0\r\n\r\n"), WaitForPeer()]
    async with ScriptedServer(script) as worker, relay(worker.url) as router:
        staying, leaving = await router.connect(), await router.connect()
        staying.send(GET)
        leaving.send(GET)
        await worker.wait_requests(2)
        leaving.reset()
        await until(lambda: router.endings == [Ending.CLIENT_GONE])
        go.set()
        assert (await staying.answer()).body == b"ok"
