"""A stream whose worker dies ends with an error its client understands; any other half answer is broken off."""

from __future__ import annotations

import asyncio
import gzip
import json

import aiohttp
import openai
import pytest

from router_core.testing.scripted_server import Close, Pause, Read, Reset, ScriptedServer, Send

from .support import CHAT, RawClient, chat, request_bytes, running_router
from .test_streaming import HEAD, chunk, worker_script

WHOLE = b'data: {"n": 1}\n\n'
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\r\n"

CUTS = {
    "between events": chunk(WHOLE),
    "before the first": b"",
    "in an event": chunk(WHOLE) + chunk(b'data: {"n": '),
    "in a line": chunk(WHOLE + b"da"),
    "in a chunk": chunk(WHOLE) + b"40\r\n" + b'data: {"n": ',
    "in a large chunk": chunk(WHOLE) + b"2000\r\n" + b'data: {"n": ',
    "before a chunk's last CRLF": chunk(WHOLE)[:-2],
    "in a chunk's last CRLF": chunk(WHOLE)[:-1],
}


def events_of(data):
    """Return the event type and the data of each event, as a browser reads them."""
    found = []
    for block in data.replace(b"\r\n", b"\n").split(b"\n\n"):
        kind, lines = b"message", []
        for line in block.split(b"\n"):
            name, _, value = line.partition(b":")
            if name == b"event":
                kind = value.strip()
            elif name == b"data":
                lines.append(value.strip())
        if lines:
            found.append((kind.decode(), b"\n".join(lines)))
    return found


async def dying(sent, *, path=CHAT, ending=None, request=None, **settings):
    """Have a worker send so much and die; return what the client got (aiohttp checks the framing) and the outcome."""
    gate = asyncio.Event()
    script = worker_script([Read(), Send(sent), Pause(event=gate), Reset() if ending is None else ending])
    async with ScriptedServer(script) as worker, running_router([worker], **settings) as router:
        async with router.post(path, chat(stream=True) if request is None else request) as response:
            assert response.status == 200
            gate.set()
            data = await response.read()
        (outcome,) = await router.settled(1)
        async with router.get("/liveness") as response:
            assert response.status == 200
        return data, outcome


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("ending", [Reset(), Close()], ids=["reset", "closed"])
async def test_a_stream_that_breaks_off_ends_with_an_error_and_done(cut, ending):
    data, outcome = await dying(HEAD + cut, ending=ending)
    events = events_of(data)
    assert events[-1] == ("message", b"[DONE]")
    error = json.loads(events[-2][1])["error"]
    assert error["code"] == "upstream_connection_lost"
    assert "127.0.0.1" not in error["message"]
    assert [event for event in events[:-2] if event == ("message", b'{"n": 1}')] == events[:1] * (b"1}" in cut)
    assert (outcome.status, outcome.http_status) == ("error", 200)


@pytest.mark.parametrize(
    ("cut", "why"),
    [
        (chunk(WHOLE) + b"4", "in a chunk's size"),
        (chunk(WHOLE) + b"0\r\n", "behind the last chunk"),
        (chunk(WHOLE) + b"1000000\r\nhalf", "in a huge chunk"),
    ],
)
async def test_a_stream_cut_where_nothing_can_follow_is_broken_off(cut, why):  # the id
    with pytest.raises(aiohttp.ClientError):
        await dying(HEAD + cut)


async def test_a_stream_that_ends_by_close_gets_its_error_too():
    data, outcome = await dying(UNTIL_CLOSE + WHOLE)
    assert [kind for kind, _ in events_of(data)] == ["message"] * 3
    assert data.startswith(WHOLE + b'data: {"error":')
    assert data.endswith(b"data: [DONE]\n\n")
    assert outcome.status == "error"


async def test_an_http_1_0_client_gets_the_error_without_chunks():
    gate = asyncio.Event()
    script = worker_script([Read(), Send(HEAD + chunk(WHOLE)), Pause(event=gate), Reset()])
    async with (
        ScriptedServer(script) as worker,
        running_router([worker]) as router,
        await RawClient.connect(router.url) as client,
    ):
        client.writer.write(request_bytes(chat(stream=True)).replace(b"HTTP/1.1", b"HTTP/1.0"))
        await client.read_until(WHOLE)
        gate.set()
        rest = await client.read_rest()
        assert rest.startswith(b'data: {"error":')
        assert rest.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("path", "kind", "last"),
    [
        (CHAT, "message", "message"),
        ("/v1/completions", "message", "message"),
        ("/generate", "message", "message"),
        ("/v1/messages", "error", "error"),
        ("/v1/responses", "error", "error"),
    ],
)
async def test_the_error_has_the_form_of_its_protocol(path, kind, last):
    data, _ = await dying(HEAD + chunk(WHOLE), path=path)
    events = events_of(data)
    assert events[1][0] == kind
    assert events[-1][0] == last
    document = json.loads(events[1][1])
    if path == "/v1/messages":
        assert (document["type"], document["error"]["type"], len(events)) == ("error", "api_error", 2)
    elif path == "/v1/responses":
        assert (document["type"], document["code"], len(events)) == ("error", "upstream_connection_lost", 2)
    else:
        assert document["error"]["code"] == "upstream_connection_lost"
        assert (len(events), events[-1][1]) == (3, b"[DONE]")


async def test_openais_own_client_raises_the_error():
    gate = asyncio.Event()
    piece = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": []}
    first = chunk(b"data: " + json.dumps(piece).encode() + b"\n\n")
    script = worker_script([Read(), Send(HEAD + first), Pause(event=gate), Reset()])
    async with (
        ScriptedServer(script) as worker,
        running_router([worker]) as router,
        openai.AsyncOpenAI(base_url=router.url + "/v1", api_key="none", max_retries=0) as client,
    ):
        stream = await client.chat.completions.create(model="simulated-model", messages=[], stream=True)
        gate.set()
        with pytest.raises(openai.APIError, match="lost in the middle of its answer"):
            async for _ in stream:
                pass


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n" + chunk(b'{"a": '),
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 1000\r\n\r\n" + WHOLE,
        HEAD.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n") + chunk(gzip.compress(WHOLE)),
        HEAD + chunk(WHOLE) + b"nonsense\r\n",
    ],
    ids=["no events", "a known length", "compressed", "broken chunks"],
)
async def test_what_cannot_carry_an_error_is_broken_off(sent):
    with pytest.raises(aiohttp.ClientError):
        await dying(sent)


async def test_the_clients_connection_goes_on_after_a_stream_that_broke_off():
    gate = asyncio.Event()
    script = worker_script([Read(), Send(HEAD + chunk(WHOLE)), Pause(event=gate), Reset()])
    async with (
        ScriptedServer(script) as worker,
        running_router([worker]) as router,
        await RawClient.connect(router.url) as client,
    ):
        client.send(chat(stream=True))
        await client.read_until(WHOLE)
        gate.set()
        await client.read_until(b"\r\n0\r\n\r\n")
        client.writer.write(b"GET /liveness HTTP/1.1\r\nhost: router\r\n\r\n")
        assert (await client.read_head())[0] == 200
