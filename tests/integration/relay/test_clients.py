"""Clients that are slow, greedy or ambiguous get their answer on a real socket, and no worker hears of them."""

import asyncio

import pytest

from router_core.testing.scripted_server import Read, ScriptedServer, WaitForPeer, answer

GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /x HTTP/1.1\r\nHost: a\r\n"

REFUSED = {
    "two lengths": (400, POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
    "length and coding": (400, POST + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG"),
    "a bad chunk": (400, POST + b"Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n"),
    "a bare LF": (400, b"GET /x HTTP/1.1\nHost: a\n\n"),
    "no Host": (400, b"GET /x HTTP/1.1\r\n\r\n"),
    "HTTP/2": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "gzip": (501, POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    "CONNECT": (405, b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a long head": (431, b"GET /x HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 3000 + b"\r\n\r\n"),
    "a long body": (413, POST + b"Content-Length: 10001\r\n\r\n"),
    "a long chunked body": (
        413,
        POST + b"Transfer-Encoding: chunked\r\n\r\n2711\r\n" + b"x" * 10001 + b"\r\n0\r\n\r\n",
    ),
}


@pytest.mark.parametrize(("status", "sent"), REFUSED.values(), ids=REFUSED)
async def test_a_refused_client_reads_why_and_then_the_end(relay, until, status, sent):
    limits = {"max_head_bytes": 2000, "max_body_bytes": 10_000}
    async with ScriptedServer([WaitForPeer()]) as worker, relay(worker.url, **limits) as router:
        client = await router.connect()
        client.send(sent + GET)
        found = await client.answer()
        assert found.status == status
        assert b'"error"' in found.body
        assert await client.rest() == b""
        await client.close()
        await until(lambda: not router.server.connections)
        assert (router.followers, worker.connections) == ([], [])


async def test_a_client_that_goes_on_uploading_still_reads_why_it_was_refused(relay, until):
    async with relay("http://127.0.0.1:9", max_body_bytes=10_000) as router:
        client = await router.connect()
        client.send(POST + b"Content-Length: 20000000\r\n\r\n")
        client.send(b"x" * 20_000_000)
        await client.writer.drain()
        assert (await client.answer()).status == 413
        await client.close()
        await until(lambda: not router.server.connections)


async def test_a_refused_client_that_never_leaves_is_cut_off(relay, until):
    async with relay("http://127.0.0.1:9") as router:
        client = await router.connect()
        client.send(b"nonsense\r\n\r\n")
        assert (await client.answer()).status == 400
        router.pass_time(3)
        await until(lambda: not router.server.connections)


@pytest.mark.parametrize(
    ("sent", "seconds"),
    [
        (b"GET /x HT", 5),
        (GET[:-2], 5),
        (POST + b"Content-Length: 9\r\n\r\n", 7),
        (POST + b"Content-Length: 9\r\n\r\nhalf", 7),
    ],
)
async def test_a_slow_client_is_told_that_it_is(relay, until, sent, seconds):
    async with relay("http://127.0.0.1:9", head_timeout_s=5, body_timeout_s=7) as router:
        client = await router.connect()
        client.send(sent)
        await until(lambda: any(one._buffer or one._head for one in router.server.connections))
        router.pass_time(seconds - 0.5)
        router.pass_time(1)
        assert (await client.answer()).status == 408
        assert await client.rest() == b""
        assert router.followers == []


async def test_a_silent_client_is_closed_without_a_word(relay, until):
    async with relay("http://127.0.0.1:9", head_timeout_s=5) as router:
        client = await router.connect()
        await until(lambda: router.server.connections)
        router.pass_time(6)
        assert await client.rest() == b""


async def test_an_idle_client_is_closed_without_a_word(relay):
    async with ScriptedServer([Read(), answer()]) as worker, relay(worker.url, keep_alive_timeout_s=5) as router:
        client = await router.connect()
        await client.get()
        router.pass_time(6)
        assert await client.rest() == b""


async def test_a_fault_of_the_decider_ends_that_connection_alone(relay, until):
    loop = asyncio.get_running_loop()
    seen = []
    handler = loop.get_exception_handler()
    loop.set_exception_handler(lambda loop, context: seen.append(context.get("exception")))
    try:
        async with ScriptedServer([Read(), answer()]) as worker, relay(worker.url) as router:
            regular = router.server.handle

            def fail(exchange):
                raise RuntimeError("a bug of the decider")

            router.server.handle = fail
            client = await router.connect()
            client.send(GET)
            assert await client.rest() == b""
            router.server.handle = regular
            assert (await (await router.connect()).get()).status == 200
            await until(lambda: len(router.server.connections) == 1)
    finally:
        loop.set_exception_handler(handler)
    assert [str(error) for error in seen] == ["a bug of the decider"]


async def test_a_fault_in_the_sweep_does_not_end_sweeping(relay, until):
    async with ScriptedServer([Read(), WaitForPeer()]) as worker, relay(worker.url, request_timeout_s=5) as router:
        client = await router.connect()
        client.send(GET)
        await worker.wait_requests()

        def fail(ending):
            raise RuntimeError("a bug of the listener")

        router.followers[0].on_end = fail
        with pytest.raises(RuntimeError):
            router.pass_time(6)
        other = await router.connect()
        other.send(b"GET")
        await until(lambda: any(one._buffer for one in router.server.connections))
        router.pass_time(40)
        assert (await other.answer()).status == 408
