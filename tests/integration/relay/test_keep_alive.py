"""Connections to workers are kept and used again, but never one that might be wrong."""

import asyncio

import pytest

from router_core.relay.parties import Ending
from router_core.testing.scripted_server import Close, Pause, Read, Reset, ScriptedServer, Send, WaitForPeer, answer

GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"


async def test_one_connection_serves_many_clients_one_after_another(relay):
    script = [action for number in range(6) for action in (Read(), answer(b"%d" % number))]
    async with ScriptedServer([*script, WaitForPeer()]) as worker, relay(worker.url) as router:
        for number in range(6):
            client = await router.connect()
            assert (await client.get()).body == b"%d" % number
        assert len(worker.connections) == 1


async def test_pipelined_requests_are_answered_in_order_over_one_connection(relay):
    script = [action for number in range(9) for action in (Read(), answer(b"%d" % number))]
    async with ScriptedServer(script) as worker, relay(worker.url) as router:
        client = await router.connect()
        client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(9)))
        assert [(await client.answer()).body for _ in range(9)] == [b"%d" % number for number in range(9)]
        assert [request[5:6] for request in worker.requests] == [b"%d" % number for number in range(9)]
        assert len(worker.connections) == 1


async def test_the_newest_idle_connection_is_taken_first(relay, until):
    both = asyncio.Event()
    scripts = [[Read(), Pause(event=both), answer(b"%d" % i), Read(), answer(b"%d" % i), WaitForPeer()] for i in (0, 1)]
    async with ScriptedServer(scripts.__getitem__) as worker, relay(worker.url) as router:
        clients = [await router.connect(), await router.connect()]
        for client in clients:
            client.send(GET)
        await worker.wait_requests(2)
        both.set()
        for client in clients:
            await client.answer()
        await until(lambda: len(router.origin._idle) == 2)
        newest = router.origin._idle[-1]
        await clients[0].get()
        assert len(worker.connections) == 2
        assert router.origin._idle[-1] is newest


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n\r\n",
    ],
    ids=["it says close", "HTTP/1.0", "bytes after the answer", "an empty line after the answer"],
)
async def test_a_connection_that_is_not_to_be_kept_is_closed_and_the_client_notices_nothing(relay, sent):
    async with ScriptedServer([Read(), Send(sent), WaitForPeer()]) as worker, relay(worker.url) as router:
        client = await router.connect()
        for _ in range(3):
            assert (await client.get()).body == b"ok"
        assert len(worker.connections) == 3
        await worker.wait_closed(3)
        assert all(connection.was_closed_by_peer for connection in worker.connections)


async def test_an_answer_that_comes_unasked_is_never_given_to_anybody(relay, until):
    evil = asyncio.Event()
    script = [Read(), answer(b"ok"), Pause(event=evil), answer(b"evil"), WaitForPeer()]
    async with ScriptedServer(script) as worker, relay(worker.url) as router:
        client = await router.connect()
        await client.get()
        evil.set()
        await worker.wait_closed()
        await until(lambda: not router.origin._idle)
        evil.clear()
        assert (await client.get()).body == b"ok"
        assert len(worker.connections) == 2


async def test_a_connection_idle_too_long_is_not_used_again(relay):
    async with (
        ScriptedServer([Read(), answer(), WaitForPeer()]) as worker,
        relay(worker.url, idle_timeout_s=3) as router,
    ):
        client = await router.connect()
        await client.get()
        router._loop._now += 3.1  # before the sweep has seen it
        await client.get()
        await worker.wait_closed()
        assert len(worker.connections) == 2


async def test_a_connection_idle_too_long_is_closed_by_the_sweep_and_a_younger_one_kept(relay, until):
    second = asyncio.Event()
    scripts = [[Read(), answer(), WaitForPeer()], [Read(), Pause(event=second), answer(), Read(), answer()]]
    scripts[0].insert(1, Pause(event=second))
    async with ScriptedServer(scripts.__getitem__) as worker, relay(worker.url, idle_timeout_s=3) as router:
        clients = [await router.connect(), await router.connect()]
        for client in clients:
            client.send(GET)
        await worker.wait_requests(2)
        second.set()
        for client in clients:
            await client.answer()
        router.origin._idle[1].idle_since += 2
        router.pass_time(4)
        await worker.wait_closed()
        assert len(router.origin._idle) == 1


async def test_a_connection_the_worker_closed_while_idle_is_forgotten(relay, until):
    async with ScriptedServer([Read(), answer(), Close()]) as worker, relay(worker.url) as router:
        client = await router.connect()
        for count in (1, 2):
            await client.get()
            await worker.wait_closed(count)
            await until(lambda: not router.origin._idle)
        assert router.endings == [Ending.COMPLETE] * 2


@pytest.mark.parametrize("end", [Reset(), Close()])
async def test_a_kept_connection_that_dies_before_the_first_byte_is_replaced_once_invisibly(relay, end):
    scripts = [[Read(), answer(b"1"), Read(), end], [Read(), answer(b"2"), WaitForPeer()]]
    async with ScriptedServer(scripts.__getitem__) as worker, relay(worker.url) as router:
        client = await router.connect()
        assert (await client.get()).body == b"1"
        assert (await client.post(b"exactly this")).body == b"2"
        assert worker.requests[1] == worker.requests[2]
        assert worker.requests[2].endswith(b"exactly this")
        assert router.endings == [Ending.COMPLETE] * 2


async def test_a_replay_is_not_replayed_again(relay):
    scripts = [[Read(), answer(), Read(), Reset()], [Read(), Reset()]]
    async with ScriptedServer(scripts.__getitem__) as worker, relay(worker.url) as router:
        client = await router.connect()
        await client.get()
        assert (await client.get()).status == 502
        assert len(worker.requests) == 3
        assert router.endings == [Ending.COMPLETE, Ending.CONNECTION_LOST]


async def test_a_replay_takes_no_other_idle_connection(relay, until):
    both = asyncio.Event()
    first = [Read(), Pause(event=both), answer(), Read(), Reset()]
    last = [Read(), answer(b"3"), WaitForPeer()]
    async with ScriptedServer(lambda index: first if index < 2 else last) as worker, relay(worker.url) as router:
        clients = [await router.connect(), await router.connect()]
        for client in clients:
            client.send(GET)
        await worker.wait_requests(2)
        both.set()
        for client in clients:
            await client.answer()
        assert (await clients[0].get()).body == b"3"
        assert len(worker.connections) == 3


@pytest.mark.parametrize("end", [Reset(), Close()])
async def test_a_fresh_connection_that_dies_is_not_replaced(relay, end):
    async with ScriptedServer([Read(), end]) as worker, relay(worker.url) as router:
        client = await router.connect()
        assert (await client.get()).status == 502
        assert len(worker.connections) == 1


@pytest.mark.parametrize("sent", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_after_any_byte_of_an_answer_nothing_is_sent_again(relay, until, sent):
    script = [Read(), answer(), Read(), Send(sent), Pause(event=(seen := asyncio.Event())), Close()]
    async with ScriptedServer(script) as worker, relay(worker.url) as router:
        client = await router.connect()
        await client.get()
        client.send(GET)
        await until(lambda: len(router.followers) == 2 and not router.followers[1].exchange._is_reused)
        seen.set()
        assert (await client.answer()).status == 502
        assert len(worker.connections) == 1


async def test_a_departed_worker_finishes_its_answer_and_its_connections_are_closed(relay, until):
    go = asyncio.Event()
    scripts = [[Read(), Pause(event=go), answer(b"late"), WaitForPeer()]]
    async with ScriptedServer(lambda index: scripts[0]) as worker, relay(worker.url) as router:
        client = await router.connect()
        client.send(GET)
        await worker.wait_requests()
        router.server.forget_origin(worker.url)
        go.set()
        assert (await client.answer()).body == b"late"
        await worker.wait_closed()


async def test_a_departed_workers_idle_connections_are_closed_at_once(relay):
    async with ScriptedServer([Read(), answer(), WaitForPeer()]) as worker, relay(worker.url) as router:
        client = await router.connect()
        await client.get()
        router.server.forget_origin(worker.url)
        await worker.wait_closed()


async def test_a_client_that_asks_to_close_is_closed_and_the_workers_connection_kept(relay, until):
    async with ScriptedServer([Read(), answer(), Read(), answer()]) as worker, relay(worker.url) as router:
        client = await router.connect()
        client.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + GET)
        assert b"Connection: close\r\n" in await client.rest()
        await (await router.connect()).get()
        assert len(worker.requests) == 2
        assert len(worker.connections) == 1


@pytest.mark.parametrize(("line", "count"), [(b"Connection: keep-alive\r\n", 2), (b"", 1)])
async def test_an_http_1_0_client_is_kept_if_it_asks(relay, line, count):
    async with ScriptedServer([Read(), answer(), Read(), answer()]) as worker, relay(worker.url) as router:
        client = await router.connect()
        client.send((b"GET /x HTTP/1.0\r\n%b\r\n" % line) * 2)
        for _ in range(count):
            assert (await client.answer()).status == 200
        client.writer.write_eof()
        assert await client.rest() == b""
        assert len(worker.requests) == count
