"""Every inference path reaches an engine unchanged and its answer comes back unchanged, whatever the policy."""

from __future__ import annotations

import io
import json

import aiohttp
import orjson
import pytest

from router_core.testing.engine_request import GENERATION_PATHS

from .support import BUILT_IN, CHAT, chat, running_router

BODIES = {
    "/v1/chat/completions": chat("Grüße aus dem Test"),
    "/v1/completions": {"model": "simulated-model", "prompt": "Once upon a time"},
    "/v1/responses": {"model": "simulated-model", "input": "What is the matter?", "instructions": "Be brief."},
    "/v1/messages": {"model": "simulated-model", "max_tokens": 9, "system": "Be.", **chat("Good morning")},
    "/generate": {"text": "One, two, three", "sampling_params": {"max_new_tokens": 5}},
    "/v1/embeddings": {"model": "simulated-model", "input": ["a", "b"]},
    "/v1/classify": {"model": "simulated-model", "input": ["a", "b"]},
    "/v1/score": {"text_1": "a", "text_2": ["b", "c"]},
    "/score": {"text_1": "a", "text_2": ["b", "c"]},
    "/v1/rerank": {"query": "a", "documents": ["b", "c"]},
    "/rerank": {"query": "a", "documents": ["b", "c"]},
    "/v1/tokenize": {"prompt": "abcdefgh"},
    "/v1/detokenize": {"tokens": [5]},
}


def odd_json(body):
    """Write JSON as no serialiser would write it again, with fields nobody knows."""
    return (
        json.dumps(body, indent=3, ensure_ascii=False).encode()[:-2]
        + b',\n   "x_unknown" : {"a":1e2, "\\u00e9": [ ]},"x_unknown":null }  \n'
    )


def text_of(path, document):
    if path == "/generate":
        return document["text"]
    if path == "/v1/messages":
        return document["content"][0]["text"]
    if path == "/v1/responses":
        return document["output"][0]["content"][0]["text"]
    choice = document["choices"][0]
    return choice["text"] if "text" in choice else choice["message"]["content"]


def streamed_text(path, events):
    """Put the text of a stream together, in each API's own way."""
    data = [line[6:] for line in events.split(b"\n") if line.startswith(b"data: ") and line != b"data: [DONE]"]
    documents = [orjson.loads(line) for line in data]
    if path == "/generate":
        return documents[-1]["text"]
    if path == "/v1/messages":
        return "".join(d["delta"]["text"] for d in documents if d["type"] == "content_block_delta")
    if path == "/v1/responses":
        return "".join(d["delta"] for d in documents if d["type"] == "response.output_text.delta")
    choices = [d["choices"][0] for d in documents if d["choices"]]
    return "".join(c["text"] if "text" in c else c["delta"].get("content", "") for c in choices)


@pytest.mark.parametrize("policy", BUILT_IN)
async def test_every_path_reaches_an_engine_byte_for_byte(simulated_engines, policy):
    async with simulated_engines(2) as engines, running_router(engines, policy=policy) as router:
        for path, fields in BODIES.items():
            body = odd_json(fields)
            async with router.session.post(
                router.url + path + "?a=%20b&a", data=body, headers={"content-type": "application/json", "x-mine": "1"}
            ) as response:
                assert response.status == 200, (path, await response.text())
                document = await response.json()
            maker = next(engine for engine in engines if engine.name == response.headers["x-simulated-engine"])
            seen = maker.requests[-1]
            assert (seen.method, seen.target, seen.body) == ("POST", path + "?a=%20b&a", body)
            assert seen.headers["x-mine"] == "1"
            if path in GENERATION_PATHS:
                assert text_of(path, document) == maker.expected_text(fields, path=path)
        outcomes = await router.settled(len(BODIES))
        assert {outcome.status for outcome in outcomes} == {"success"}
        assert sum(engine.accepted for engine in engines) == len(BODIES)


@pytest.mark.parametrize("policy", BUILT_IN)
async def test_every_stream_arrives_with_the_expected_text(simulated_engines, policy):
    async with simulated_engines(2, tokens=40) as engines, running_router(engines, policy=policy) as router:
        for path in sorted(GENERATION_PATHS):
            fields = BODIES[path] | {"stream": True}
            async with router.post(path, fields) as response:
                assert response.status == 200
                assert response.headers["content-type"].startswith("text/event-stream")
                events = await response.read()
            assert streamed_text(path, events) == engines[0].expected_text(fields, path=path)
        outcomes = await router.settled(len(GENERATION_PATHS))
        assert {outcome.status for outcome in outcomes} == {"success"}
        assert len(router.record.first_tokens) == len(GENERATION_PATHS)


async def test_audio_is_routed_as_multipart(simulated_engine):
    audio = bytes(range(256)) * 300
    engine = simulated_engine(models=("whisper",))
    async with engine, running_router([engine], policy="cache_aware") as router:
        form = aiohttp.FormData()
        form.add_field("model", "whisper")
        form.add_field("file", audio, filename="a.wav", content_type="audio/wav")
        async with router.session.post(router.url + "/v1/audio/transcriptions", data=form) as response:
            assert response.status == 200
            text = (await response.json())["text"]
        assert text.startswith(f"You said: {len(audio)} bytes [")
        assert audio in engine.requests[-1].body
        await router.settled(1)


async def test_chunked_body_arrives_whole(simulated_engine):
    body = json.dumps(chat("x" * 100_000)).encode()

    async def pieces():
        for start in range(0, len(body), 777):
            yield body[start : start + 777]

    async with simulated_engine() as engine, running_router([engine]) as router:
        async with router.session.post(router.url + CHAT, data=pieces()) as response:
            assert response.status == 200
            await response.read()
        assert engine.requests[-1].body == body


async def test_large_prompt_and_large_answer_pass(simulated_engine):
    fields = chat("word " * 400_000, max_tokens=20_000, ignore_eos=True)
    async with simulated_engine(ttft_s=0.0, token_interval_s=0.0) as engine, running_router([engine]) as router:
        data = io.BytesIO(orjson.dumps(fields))
        async with router.session.post(router.url + CHAT, data=data) as response:
            document = await response.json()
        assert text_of(CHAT, document) == engine.expected_text(fields)
        assert orjson.loads(engine.requests[-1].body) == fields


@pytest.mark.parametrize("status", [400, 404, 422, 429, 500, 503])
async def test_an_engines_own_error_comes_back_unchanged(simulated_engine, status):
    async with simulated_engine(status=status, retry_after_s=7) as engine, running_router([engine]) as router:
        async with router.post() as response:
            assert response.status == status
            assert response.headers["retry-after"] == "7"
            assert (await response.json())["error"]["message"] == f"engine engine was told to answer {status}"
        assert engine.accepted == 1
