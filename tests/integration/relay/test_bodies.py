"""Bodies reach the other side byte for byte, whatever they hold and however they are framed."""

import pytest

from router_core.testing.scripted_server import Close, Read, ScriptedServer, Send, WaitForPeer, answer

BODIES = {
    "no byte": b"",
    "one byte": b"x",
    "unknown fields": b'{"model": "m", "zzz_unknown": {"a": [1, 2.50, 1e9]},  "model": "twice"}\r\n',
    "invalid UTF-8": b'{"prompt": "\xff\xfe\x00"}',
    "multipart": b"--b\r\nContent-Disposition: form-data; name=f\r\n\r\n\x00\xff\r\n\r\n0\r\n\r\n--b--\r\n",
    "a megabyte": bytes(range(256)) * 4096,
}


def chunked(body, size):
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_a_sized_request_reaches_the_worker_exactly(relay, body):
    async with ScriptedServer([Read(), answer()]) as worker, relay(worker.url) as router:
        client = await router.connect()
        assert (await client.post(body)).status == 200
        host = worker.url.removeprefix("http://").encode()
        assert worker.requests == [
            b"POST /x HTTP/1.1\r\nHost: %b\r\nContent-Length: %d\r\n\r\n" % (host, len(body)) + body
        ]


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("size", [7, 100_000])
async def test_a_chunked_request_reaches_the_worker_exactly_and_sized(relay, body, size):
    async with ScriptedServer([Read(), answer()]) as worker, relay(worker.url) as router:
        client = await router.connect()
        client.send(b"POST /x HTTP/1.1\r\nHost: router\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(body, size))
        assert (await client.answer()).status == 200
        [request] = worker.requests
        assert request.endswith(b"Content-Length: %d\r\n\r\n" % len(body) + body)


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("piece", [0, 50_000])
async def test_a_sized_answer_reaches_the_client_exactly(relay, body, piece):
    sending = Send(answer(body).data, piece)
    async with ScriptedServer([Read(), sending]) as worker, relay(worker.url) as router:
        client = await router.connect()
        assert (await client.get()).body == body


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_a_chunked_answer_reaches_the_client_with_its_chunks(relay, body):
    wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(body, 10_000)
    async with ScriptedServer([Read(), Send(wire)]) as worker, relay(worker.url) as router:
        client = await router.connect()
        client.send(b"GET /x HTTP/1.1\r\nHost: router\r\n\r\n")
        assert await client.read(len(wire)) == wire


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_an_answer_until_close_reaches_the_client_exactly_and_ends(relay, body, version):
    wire = b"HTTP/%b 200 OK\r\nX-A: 1\r\n\r\n" % version + body
    async with ScriptedServer([Read(), Send(wire), Close()]) as worker, relay(worker.url) as router:
        client = await router.connect()
        client.send(b"GET /x HTTP/1.1\r\nHost: router\r\n\r\n")
        assert await client.rest() == b"HTTP/1.1 200 OK\r\nX-A: 1\r\nConnection: close\r\n\r\n" + body


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_an_http_1_0_client_gets_a_chunked_answer_decoded(relay, body):
    wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(body, 1000)
    async with ScriptedServer([Read(), Send(wire), WaitForPeer()]) as worker, relay(worker.url) as router:
        client = await router.connect()
        client.send(b"GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert await client.rest() == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body


async def test_a_request_trickled_byte_by_byte_reaches_the_worker_once(relay):
    async with ScriptedServer([Read(), answer()]) as worker, relay(worker.url) as router:
        client = await router.connect()
        wire = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"hello", 2)
        for byte in wire:
            client.send(bytes([byte]))
            await client.writer.drain()
        assert (await client.answer()).status == 200
        assert len(worker.requests) == 1
        assert worker.requests[0].endswith(b"\r\n\r\nhello")


@pytest.mark.parametrize("interval_s", [0.0, 0.0001])
async def test_an_answer_trickled_byte_by_byte_reaches_the_client(relay, interval_s):
    wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"hello world", 3)
    async with ScriptedServer([Read(), Send(wire, 1, interval_s)]) as worker, relay(worker.url) as router:
        client = await router.connect()
        assert (await client.get()).body == b"hello world"
        assert router.endings[0].name == "COMPLETE"


async def test_a_client_that_expects_100_continue_is_served(relay):
    async with ScriptedServer([Read(), answer(b"ok")]) as worker, relay(worker.url) as router:
        client = await router.connect()
        client.send(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert (await client.answer()).status == 100
        client.send(b"ab")
        assert (await client.answer()).body == b"ok"
        assert b"xpect" not in worker.requests[0]


@pytest.mark.parametrize(
    ("status", "lines"),
    [(200, "content-length: 7\r\n"), (200, "transfer-encoding: chunked\r\n"), (204, ""), (304, "etag: x\r\n")],
)
async def test_after_an_answer_without_body_both_connections_go_on(relay, status, lines):
    bare = Send(f"HTTP/1.1 {status} Bare\r\n{lines}\r\n".encode())
    async with ScriptedServer([Read(), bare, Read(), answer(b"next")]) as worker, relay(worker.url) as router:
        client = await router.connect()
        assert (await client.get(method=b"HEAD")).status == status
        assert (await client.get()).body == b"next"
        assert len(worker.connections) == 1


async def test_interim_answers_come_before_the_answer(relay):
    script = [
        Read(),
        Send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
        answer(b"ok"),
    ]
    async with ScriptedServer(script) as worker, relay(worker.url) as router:
        client = await router.connect()
        client.send(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.answer()).head == b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        assert (await client.answer()).body == b"ok"
