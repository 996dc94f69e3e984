"""What clients upload in pieces is bounded over all of them; who sends little is not kept out by who sends much."""

import asyncio

import pytest

from router_core.testing.scripted_server import Pause, Read, ScriptedServer, answer

LIMIT = 100_000
HEAD = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 80000\r\n\r\n"
CHUNKED = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def worker():
    return ScriptedServer([action for _ in range(20) for action in (Read(), answer(b"served"))])


async def upload(router, until, count, head=HEAD):
    """Begin to upload; returns when the relay has taken all of it."""
    client = await router.connect()
    before = router.server.buffered_bytes
    client.send(head + b"x" * count)
    await until(lambda: router.server.buffered_bytes == before + count)
    return client


async def is_refused(client):
    found = await client.answer()
    return found.status == 503 and b'"code":"buffers_full"' in found.body and b"\r\nRetry-After: 1\r\n" in found.head


async def test_over_the_bound_the_largest_upload_is_refused_and_the_others_go_on(relay, until, worker):
    async with worker, relay(worker.url, max_buffered_bytes=LIMIT) as router:
        large = await upload(router, until, 60_000)
        small = await upload(router, until, 30_000)
        small.send(b"x" * 20_000)
        assert await is_refused(large)
        assert router.server.buffered_bytes == 50_000
        small.send(b"x" * 30_000)
        assert (await small.answer()).body == b"served"
        assert (router.server.buffered_bytes, router.server.buffers_full) == (0, 1)


async def test_the_one_that_sends_is_refused_if_it_is_the_largest(relay, until, worker):
    async with worker, relay(worker.url, max_buffered_bytes=LIMIT) as router:
        small = await upload(router, until, 40_000)
        client = await router.connect()
        client.send(CHUNKED + b"11170\r\n" + b"x" * 70_000)
        assert await is_refused(client)
        small.send(b"x" * 40_000)
        assert (await small.answer()).status == 200
        assert router.server.buffered_bytes == 0


async def test_a_body_counts_until_its_request_is_over(relay, until):
    may_answer = asyncio.Event()
    script = [Read(), Pause(event=may_answer), answer(b"served")]
    async with ScriptedServer(script) as worker, relay(worker.url, max_buffered_bytes=LIMIT) as router:
        running = await upload(router, until, 50_000)
        running.send(b"x" * 30_000)
        await worker.wait_requests()
        assert router.server.buffered_bytes == 80_000
        late = await router.connect()
        late.send(HEAD + b"x" * 50_000)
        assert await is_refused(late)
        may_answer.set()
        assert (await running.answer()).status == 200
        assert router.server.buffered_bytes == 0


@pytest.mark.parametrize("is_whole", [False, True])
async def test_who_hangs_up_holds_nothing(relay, until, is_whole):
    never = asyncio.Event()
    async with ScriptedServer([Read(), Pause(event=never)]) as worker, relay(worker.url) as router:
        client = await upload(router, until, 50_000)
        if is_whole:
            client.send(b"x" * 30_000)
            await worker.wait_requests()
        client.reset()
        await until(lambda: not router.server.connections)
        assert router.server.buffered_bytes == 0


async def test_a_body_that_is_refused_for_its_own_sake_holds_nothing(relay, until, worker):
    async with worker, relay(worker.url, body_timeout_s=10) as router:
        late = await upload(router, until, 50_000)
        router.pass_time(11)
        assert (await late.answer()).status == 408
        broken = await router.connect()
        broken.send(CHUNKED + b"10000\r\n" + b"x" * 0x8000)
        await until(lambda: router.server.buffered_bytes > 0)
        broken.send(b"x" * 0x8000 + b"no chunk")
        assert (await broken.answer()).status == 400
        assert router.server.buffered_bytes == 0


async def test_bodies_that_come_whole_are_none_of_its_business(relay, until, worker):
    async with worker, relay(worker.url, max_buffered_bytes=1024) as router:
        client = await router.connect()
        for _ in range(3):
            assert (await client.post(b"x" * 10_000)).body == b"served"
        assert router.server.buffered_bytes == 0
