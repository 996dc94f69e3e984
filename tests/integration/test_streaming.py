"""A stream's events come one by one, as the worker sends them."""

from __future__ import annotations

import asyncio

from router_core.testing.scripted_server import Close, Pause, Read, ScriptedServer, Send, answer

from .support import RawClient, chat, running_router

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENTS = tuple(b"data: event %d\n\n" % number for number in range(5))


def chunk(data):
    return b"%x\r\n%b\r\n" % (len(data), data)


def worker_script(actions, *, probes=2):
    """Return a script that passes the first health check, serves the model of `chat`, and then does `actions`."""
    models = b'{"data": [{"id": "simulated-model"}]}'
    return lambda index: [Read(), answer(models)] if index < probes else actions


async def test_each_event_arrives_before_the_next_is_sent():
    gates = [asyncio.Event() for _ in EVENTS]
    actions = [Read(), Send(HEAD)]
    for event, gate in zip(EVENTS, gates, strict=True):
        actions += [Send(chunk(event)), Pause(event=gate)]
    actions += [Send(chunk(b""))]
    async with ScriptedServer(worker_script(actions)) as worker, running_router([worker]) as router:
        async with await RawClient.connect(router.url) as client:
            client.send(chat(stream=True))
            await client.read_head()
            for event, gate in zip(EVENTS, gates, strict=True):
                assert await client.read_until(b"\n\n\r\n") == chunk(event)
                gate.set()
            assert await client.read_until(b"0\r\n\r\n") == chunk(b"")
        (outcome,) = await router.settled(1)
        assert outcome.status == "success"


async def test_a_head_alone_arrives_before_any_event():
    gate = asyncio.Event()
    actions = [Read(), Send(HEAD), Pause(event=gate), Send(chunk(EVENTS[0]) + chunk(b""))]
    async with ScriptedServer(worker_script(actions)) as worker, running_router([worker]) as router:
        async with await RawClient.connect(router.url) as client:
            client.send(chat(stream=True))
            status, headers = await client.read_head()
            assert (status, headers["content-type"]) == (200, "text/event-stream")
            worker_in_use = router.server.pool.workers[0]
            assert worker_in_use.pending_prompt_tokens > 0  # the head is no token
            assert router.record.first_tokens == []
            gate.set()
            await client.read_until(b"0\r\n\r\n")
        await router.settled(1)
        assert router.record.first_tokens == [worker.url]


async def test_interim_answers_pass_before_the_final_one(simulated_engine):
    async with simulated_engine(interim_status=103) as engine, running_router([engine]) as router:
        async with await RawClient.connect(router.url) as client:
            client.send()
            assert (await client.read_head())[0] == 103
            assert (await client.read_answer())[0] == 200
        await router.settled(1)


async def test_answer_that_ends_with_the_connection_is_a_success():
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
    actions = [Read(), Send(head + b"".join(EVENTS)), Close()]
    async with ScriptedServer(worker_script(actions)) as worker, running_router([worker]) as router:
        async with router.post(body=chat(stream=True)) as response:
            assert await response.read() == b"".join(EVENTS)
        (outcome,) = await router.settled(1)
        assert outcome.status == "success"
