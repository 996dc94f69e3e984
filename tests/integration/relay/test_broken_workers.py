"""Whatever a worker does, its client sees an answer, an error, or an answer that is plainly cut short."""

import asyncio

import pytest

from router_core.relay.parties import Ending
from router_core.testing.scripted_server import Close, Pause, Read, ReadBytes, Reset, ScriptedServer, Send, WaitForPeer
from router_core.testing.scripted_server import answer as correct_answer

GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

TRUNCATED = {
    "sized, too short": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
    "sized, nothing": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n",
    "in a chunk": CHUNKED + b"a\r\nhalf",
    "between chunks": CHUNKED + b"4\r\nhalf\r\n",
    "in a chunk's size": CHUNKED + b"4\r\nhalf\r\n4",
    "before the last line": CHUNKED + b"4\r\nhalf\r\n0\r\n",
}


@pytest.mark.parametrize("sent", TRUNCATED.values(), ids=TRUNCATED)
@pytest.mark.parametrize("end", [Close(), Reset()], ids=["closed", "reset"])
async def test_an_answer_cut_short_reaches_the_client_cut_short(relay, until, sent, end):
    seen = asyncio.Event()
    script = [Read(), Send(sent), Pause(event=seen), end]
    async with ScriptedServer(script) as worker, relay(worker.url) as router:
        client = await router.connect()
        client.send(GET + GET)
        assert await client.read(len(sent)) == sent
        seen.set()
        assert await client.rest() == b""  # nothing more, neither an end nor an answer to the pipelined request
        assert router.endings == [Ending.CONNECTION_LOST]
        assert len(worker.requests) == 1


@pytest.mark.parametrize("request_head", [GET, b"GET /x HTTP/1.0\r\n\r\n"])
@pytest.mark.parametrize(
    ("head", "end"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", Reset()),
        (b"HTTP/1.0 200 OK\r\n\r\n", Reset()),
        (CHUNKED, Close()),
        (CHUNKED, Reset()),
    ],
    ids=["until close, reset", "HTTP/1.0, reset", "chunked, closed", "chunked, reset"],
)
async def test_an_answer_that_would_end_by_close_is_not_closed_in_good_order_when_it_is_broken(
    relay, request_head, head, end
):
    seen = asyncio.Event()
    script = [Read(), Send(head + b"4\r\nhalf\r\n"), Pause(event=seen), end]
    async with ScriptedServer(script) as worker, relay(worker.url) as router:
        client = await router.connect()
        client.send(request_head)
        await client.reader.readuntil(b"half")
        seen.set()
        if head == CHUNKED and request_head == GET:
            assert not (await client.rest()).endswith(b"0\r\n\r\n")  # the missing last chunk says it
        else:
            with pytest.raises(ConnectionResetError):
                await client.rest()
        assert router.endings == [Ending.CONNECTION_LOST]


@pytest.mark.parametrize(
    "sent",
    [
        b"garbage\r\n\r\n",
        b"\x16\x03\x01\x00\x00\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"\r\n\r\n",
        b"220 mail.example ESMTP\r\n",
        b"\x15\x03\x01\x00\x02\x02F",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
    ],
    ids=[
        *("garbage", "TLS", "a bad header", "two lengths", "length and coding", "101", "nothing"),
        *("a greeting", "a TLS alert", "endless", "too long"),
    ],
)
async def test_a_head_that_cannot_be_relayed_is_answered_for_and_its_connection_dropped(relay, sent):
    async with ScriptedServer([Read(), Send(sent), WaitForPeer()]) as worker, relay(worker.url) as router:
        client = await router.connect()
        for _ in range(2):
            assert (await client.get()).status == 502
        await worker.wait_closed(2)
        assert router.endings == [Ending.BAD_ANSWER] * 2


@pytest.mark.parametrize("sent", [b"zz\r\n", b"-1\r\n", b"2\r\nabc\r\n", b"2\nab\r\n", b"11111111111111111\r\n"])
async def test_broken_chunks_end_the_stream_as_broken(relay, sent):
    script = [Read(), Send(CHUNKED + b"2\r\nok\r\n"), Send(sent), WaitForPeer()]
    async with ScriptedServer(script) as worker, relay(worker.url) as router:
        client = await router.connect()
        client.send(GET)
        assert not (await client.rest()).endswith(b"0\r\n\r\n")
        await worker.wait_closed()
        assert router.endings == [Ending.BAD_ANSWER]


async def test_a_worker_that_refuses_connections_is_answered_for(relay):
    async with ScriptedServer([]) as worker:
        url = worker.url
    async with relay(url) as router:
        client = await router.connect()
        for _ in range(2):
            answer = await client.get()
            assert (answer.status, answer.body) == (502, b'{"error": "CONNECT_FAILED"}')
        assert "refused" in router.followers[0].exchange.error


async def test_a_worker_that_does_not_take_connections_is_given_up(relay, hole):
    async with relay(hole, connect_timeout_s=0.01) as router:
        client = await router.connect()
        assert (await client.get()).body == b'{"error": "CONNECT_FAILED"}'
        assert "within 0.01 s" in router.followers[0].exchange.error


async def test_a_request_out_of_time_while_connecting_is_answered_for(relay, until, hole):
    async with relay(hole, request_timeout_s=5) as router:
        client = await router.connect()
        client.send(GET)
        await until(lambda: router.followers)
        router.pass_time(6)
        assert (await client.answer()).status == 504
        await until(lambda: not router.origin._connecting)
        assert router.endings == [Ending.TIMEOUT]


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 2", b"HTTP/1.1 103 Early Hints\r\n\r\n"])
async def test_a_worker_out_of_time_before_its_answer_is_answered_for(relay, sent):
    script = [Read(), Send(sent), WaitForPeer()]
    async with ScriptedServer(script) as worker, relay(worker.url, request_timeout_s=5) as router:
        client = await router.connect()
        client.send(GET)
        await worker.wait_requests()
        router.pass_time(6)
        assert (await client.final_answer()).status == 504
        await worker.wait_closed()


async def test_a_worker_out_of_time_in_its_answer_leaves_it_cut_short(relay):
    sent = CHUNKED + b"4\r\nhalf\r\n"
    script = [Read(), Send(sent), WaitForPeer()]
    async with ScriptedServer(script) as worker, relay(worker.url, request_timeout_s=5) as router:
        client = await router.connect()
        client.send(GET)
        assert await client.read(len(sent)) == sent
        router.pass_time(6)
        assert await client.rest() == b""
        await worker.wait_closed()
        assert router.endings == [Ending.TIMEOUT]


@pytest.mark.parametrize("end", [Close(), Reset()], ids=["closes", "resets"])
async def test_a_worker_that_closes_as_soon_as_it_accepts_is_answered_for(relay, end):
    async with ScriptedServer([end]) as worker, relay(worker.url) as router:
        client = await router.connect()
        for count in range(1, 21):
            assert (await client.get()).status == 502
            assert len(router.endings) == count
        assert set(router.endings) <= {Ending.CONNECT_FAILED, Ending.CONNECTION_LOST}


async def test_a_host_that_cannot_be_a_name_is_a_failed_connection(relay):
    async with relay(f"http://{'x' * 70}.invalid:1") as router:
        client = await router.connect()
        assert (await client.get()).body == b'{"error": "CONNECT_FAILED"}'


async def test_an_answer_before_the_request_was_read_is_relayed_and_the_connection_not_kept(relay):
    go = asyncio.Event()
    early = [ReadBytes(10), correct_answer(b"too much", status=413), Pause(event=go), WaitForPeer()]
    async with ScriptedServer(early) as worker, relay(worker.url) as router:
        client = await router.connect()
        answer = await client.post(b"x" * 50_000_000)
        assert (answer.status, answer.body) == (413, b"too much")
        assert not router.origin._idle
        go.set()
        await worker.wait_closed()
        assert worker.connections[0].was_closed_by_peer
        assert len(worker.connections[0].received) < 50_000_000


async def test_a_worker_that_closes_its_sending_side_after_its_answer_has_answered(relay):
    script = [Read(), correct_answer(b"ok"), Close()]
    async with ScriptedServer(script) as worker, relay(worker.url) as router:
        client = await router.connect()
        assert (await client.get()).body == b"ok"
