"""Streams pass event by event, and nobody sends faster than the other side reads."""

import asyncio
import socket

import pytest

from router_core.relay.parties import Ending
from router_core.testing.scripted_server import Close, Pause, Read, ScriptedServer, Send, answer

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"


def chunk(data):
    return b"%x\r\n%b\r\n" % (len(data), data)


@pytest.mark.parametrize("framing", ["chunked", "sized", "until close"])
async def test_each_event_reaches_the_client_before_the_next_is_sent(relay, framing):
    events = [b"data: %d\n\n" % number for number in range(5)]
    head = {
        "chunked": STREAM,
        "sized": b"HTTP/1.1 200 OK\r\nContent-Length: 45\r\n\r\n",
        "until close": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
    }[framing]
    signals = [asyncio.Event() for _ in events]
    script = [Read(), Send(head)]
    for event, signal in zip(events, signals, strict=True):
        script += [Pause(event=signal), Send(chunk(event) if framing == "chunked" else event)]
    script.append(Send(b"0\r\n\r\n") if framing == "chunked" else Close())

    async with ScriptedServer(script) as worker, relay(worker.url) as router:
        client = await router.connect()
        client.send(GET)
        assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
        for event, signal in zip(events, signals, strict=True):
            signal.set()
            expected = chunk(event) if framing == "chunked" else event
            assert await client.read(len(expected)) == expected
        if framing == "chunked":
            assert await client.read(5) == b"0\r\n\r\n"
        [follower] = router.followers
        assert len(follower.first_bytes) == 1


async def test_the_head_of_a_stream_reaches_the_client_before_its_first_event(relay):
    never = asyncio.Event()
    async with ScriptedServer([Read(), Send(STREAM), Pause(event=never)]) as worker, relay(worker.url) as router:
        client = await router.connect()
        client.send(GET)
        assert await client.read(len(STREAM)) == STREAM


class Fountain:
    """A script that sends 64 MB as fast as it may, and tells how much it could."""

    BLOCK = bytes(range(256)) * 256
    BLOCKS = 1024

    def __init__(self, head):
        self.head = head
        self.sent = 0

    def __call__(self, index):
        yield Read()
        yield Send(self.head)
        for _ in range(self.BLOCKS):
            yield Send(self.BLOCK)
            self.sent += 1


async def stalled(fountain):
    """Wait until the fountain no longer gets rid of anything."""
    before = -1
    while before != fountain.sent:
        before = fountain.sent
        for _ in range(2000):
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("head", "request_head"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n", GET),
        (b"HTTP/1.1 200 OK\r\n\r\n", GET),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"GET /x HTTP/1.0\r\n\r\n"),
    ],
)
async def test_a_client_that_does_not_read_stops_the_worker(relay, until, head, request_head):
    fountain = Fountain(head)
    async with ScriptedServer(fountain) as worker, relay(worker.url) as router:
        client = await router.connect()
        client.writer.transport.pause_reading()
        client.send(request_head)
        await worker.wait_requests()
        [connection] = router.server.connections
        await until(lambda: connection._is_clogged)
        await stalled(fountain)
        assert fountain.sent < fountain.BLOCKS  # the rest is the worker's: only socket buffers are full
        assert connection._transport.get_write_buffer_size() < 1_000_000

        client.writer.transport.resume_reading()
        await client.reader.readuntil(b"\r\n\r\n")
        for _ in range(fountain.BLOCKS):
            assert await client.read(len(fountain.BLOCK)) == fountain.BLOCK
        await until(lambda: router.endings == [Ending.COMPLETE])


async def test_a_client_that_hangs_up_while_the_worker_is_held_back_frees_the_worker(relay, until):
    fountain = Fountain(b"HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n")
    async with ScriptedServer(fountain) as worker, relay(worker.url) as router:
        client = await router.connect()
        client.writer.transport.pause_reading()
        client.send(GET)
        await until(lambda: any(connection._is_clogged for connection in router.server.connections))
        client.reset()
        await worker.wait_closed()
        assert router.endings == [Ending.CLIENT_GONE]


async def test_a_client_that_never_reads_its_stream_is_cut_off_when_the_request_is_out_of_time(relay, until):
    fountain = Fountain(b"HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n")
    async with ScriptedServer(fountain) as worker, relay(worker.url, request_timeout_s=100) as router:
        client = await router.connect()
        client.writer.transport.pause_reading()
        client.send(GET)
        await until(lambda: any(connection._is_clogged for connection in router.server.connections))
        router.pass_time(101)
        await worker.wait_closed()
        await until(lambda: not router.server.connections)
        assert router.endings == [Ending.TIMEOUT]


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"])
async def test_a_client_that_takes_nothing_of_its_stream_frees_its_worker_in_time(relay, until, head):
    fountain = Fountain(head)
    async with ScriptedServer(fountain) as worker, relay(worker.url, client_stall_timeout_s=100) as router:
        client = await router.connect()
        client.writer.transport.pause_reading()
        client.send(GET)
        await until(lambda: any(connection._is_clogged for connection in router.server.connections))
        await stalled(fountain)
        router.pass_time(1)  # it is seen to read slowly
        router.pass_time(99)
        assert (router.endings, len(router.server.connections)) == ([], 1)
        router.pass_time(1)
        await worker.wait_closed()
        await until(lambda: not router.server.connections)
        assert (router.endings, router.server.client_stalls) == ([Ending.CLIENT_GONE], 1)
        assert router.followers[0].exchange.error == "the client took nothing for 100 s"
        client.writer.transport.resume_reading()
        with pytest.raises(ConnectionResetError):  # what it has is not the whole
            await client.rest()


async def test_a_client_that_takes_a_little_now_and_then_keeps_its_stream(relay, until):
    fountain = Fountain(b"HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n")
    async with ScriptedServer(fountain) as worker, relay(worker.url, client_stall_timeout_s=100) as router:
        with socket.create_connection(router.address) as client:
            client.sendall(GET)
            await until(lambda: any(connection._is_clogged for connection in router.server.connections))
            await stalled(fountain)
            for _ in range(5):
                router.pass_time(90)
                client.recv(262_144, socket.MSG_WAITALL)
                await stalled(fountain)
            assert router.endings == []
            assert router.server.client_stalls == 0
        await worker.wait_closed()


async def test_what_a_client_pipelines_is_read_only_up_to_a_bound(relay, until):
    done = asyncio.Event()
    body = b"x" * 1_000_000
    later = [action for _ in range(20) for action in (Read(), answer())]
    script = [Read(), Pause(event=done), answer(), *later]
    async with ScriptedServer(script) as worker, relay(worker.url) as router:
        client = await router.connect()
        client.send(GET)
        await worker.wait_requests()
        for _ in range(20):
            client.send(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        [connection] = router.server.connections
        await until(lambda: not connection._is_reading)
        for _ in range(1000):
            await asyncio.sleep(0)
        assert len(connection._buffer) < 1_000_000
        assert client.writer.transport.get_write_buffer_size() > 0
        done.set()
        for _ in range(21):
            assert (await client.answer()).status == 200
        assert [len(request) > len(body) for request in worker.requests] == [False] + [True] * 20


async def test_a_large_upload_waits_for_a_worker_that_reads_slowly(relay, until):
    slow = asyncio.Event()
    body = bytes(range(256)) * 100_000
    script = [Pause(event=slow), Read(), answer(b"got it")]
    async with ScriptedServer(script) as worker, relay(worker.url) as router:
        client = await router.connect()
        client.send(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await worker.wait_connected()
        slow.set()
        assert (await client.answer()).body == b"got it"
        assert worker.requests[0].endswith(body)
