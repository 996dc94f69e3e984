from __future__ import annotations

import asyncio
import json
import socket
import struct

import aiohttp
import pytest
import yarl

from router_core.engine_model.timing import EngineConstants
from router_core.testing.simulated_engine import Fault, SimulatedEngine, simulated_engines

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Tell me of Köln and its rivers"}]}
LONG = "a prompt that repeats itself. " * 100


def events(text: str) -> list[dict]:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


async def post(session, engine, path, body, **options):
    async with session.post(engine.url + path, json=body, **options) as response:
        return response, await response.read()


async def test_a_chat_answer_is_the_expected_text_with_usage():
    async with SimulatedEngine(name="a") as engine, aiohttp.ClientSession() as session:
        response, body = await post(session, engine, "/v1/chat/completions", CHAT)
    answer = json.loads(body)
    assert response.status == 200
    assert response.headers["x-simulated-engine"] == answer["system_fingerprint"] == "a"
    text = answer["choices"][0]["message"]["content"]
    assert text == engine.expected_text(CHAT)
    assert text.startswith("You said: me of Köln and its rivers [")
    assert answer["usage"]["completion_tokens"] == 16
    assert engine.counters() | {"connections": 1} == engine.counters()
    assert (engine.accepted, engine.completed, engine.running, engine.peak_running) == (1, 1, 0, 1)


async def test_a_chat_stream_opens_with_the_role_and_ends_with_reason_usage_and_done():
    body = CHAT | {"stream": True, "stream_options": {"include_usage": True}, "max_tokens": 5}
    async with SimulatedEngine(name="a") as engine, aiohttp.ClientSession() as session:
        response, raw = await post(session, engine, "/v1/chat/completions", body)
    text = raw.decode()
    chunks = events(text)
    assert response.content_type == "text/event-stream"
    assert text.endswith("data: [DONE]\n\n")
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    deltas = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks[:-1]]
    assert "".join(deltas) == engine.expected_text(body)
    assert len(deltas) == 5 + 2
    assert chunks[-2]["choices"][0]["finish_reason"] == "length"
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 5
    assert {chunk["id"] for chunk in chunks} == {chunks[0]["id"]}


@pytest.mark.parametrize(
    ("path", "body", "read_whole", "read_delta"),
    [
        (
            "/v1/completions",
            {"prompt": "some words"},
            lambda answer: answer["choices"][0]["text"],
            lambda event: event["choices"][0]["text"],
        ),
        (
            "/v1/responses",
            {"input": "some words"},
            lambda answer: answer["output"][0]["content"][0]["text"],
            lambda event: event["delta"] if event["type"] == "response.output_text.delta" else "",
        ),
        (
            "/v1/messages",
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "some words"}]}], "max_tokens": 9},
            lambda answer: answer["content"][0]["text"],
            lambda event: event["delta"].get("text", "") if "delta" in event else "",
        ),
    ],
)
async def test_every_api_streams_what_it_answers_whole(path, body, read_whole, read_delta):
    async with SimulatedEngine() as engine, aiohttp.ClientSession() as session:
        _, whole = await post(session, engine, path, body)
        _, streamed = await post(session, engine, path, body | {"stream": True})
    expected = engine.expected_text(body, path=path)
    assert read_whole(json.loads(whole)) == expected
    assert "".join(map(read_delta, events(streamed.decode()))) == expected


async def test_generate_repeats_the_text_so_far_as_sglang_does():
    body = {"text": "some words", "sampling_params": {"max_new_tokens": 3}, "stream": True}
    async with SimulatedEngine() as engine, aiohttp.ClientSession() as session:
        _, raw = await post(session, engine, "/generate", body)
        _, batch = await post(session, engine, "/generate", {"text": ["one", "two"]})
    states = events(raw.decode())
    assert [state["meta_info"]["completion_tokens"] for state in states] == [1, 2, 3]
    assert states[-1]["text"] == engine.expected_text(body)
    assert states[-1]["meta_info"]["finish_reason"] == {"type": "length", "length": 3}
    assert [item["text"] for item in json.loads(batch)] == [
        engine.expected_text({"text": "one"}),
        engine.expected_text({"text": "two"}),
    ]


async def test_several_choices_differ_and_are_all_expected():
    body = CHAT | {"n": 2}
    async with SimulatedEngine() as engine, aiohttp.ClientSession() as session:
        _, raw = await post(session, engine, "/v1/chat/completions", body)
    texts = [choice["message"]["content"] for choice in json.loads(raw)["choices"]]
    assert texts == [engine.expected_text(body, choice=0), engine.expected_text(body, choice=1)]
    assert texts[0] != texts[1]


async def test_limits_cut_the_answer_and_ignore_eos_fills_it():
    async with SimulatedEngine(tokens=8) as engine, aiohttp.ClientSession() as session:
        finishes = []
        for limits in ({}, {"max_tokens": 4}, {"max_tokens": 50}, {"max_tokens": 50, "ignore_eos": True}):
            _, raw = await post(session, engine, "/v1/completions", {"prompt": "x"} | limits)
            answer = json.loads(raw)
            finishes.append((answer["usage"]["completion_tokens"], answer["choices"][0]["finish_reason"]))
    assert finishes == [(8, "stop"), (4, "length"), (8, "stop"), (50, "length")]


async def test_a_repeated_prompt_is_cached_and_another_salt_is_not():
    async with SimulatedEngine() as engine, aiohttp.ClientSession() as session:
        cached = []
        for extra in ({}, {}, {"cache_salt": "other"}, {"prompt": LONG + "and goes on"}):
            _, raw = await post(session, engine, "/v1/completions", {"prompt": LONG} | extra)
            cached.append(json.loads(raw)["usage"]["prompt_tokens_details"]["cached_tokens"])
    assert cached == [0, 736, 0, 736]


async def test_a_full_cache_evicts_and_the_oldest_prompt_is_computed_anew():
    async with SimulatedEngine(cache_tokens=800) as engine, aiohttp.ClientSession() as session:
        cached = []
        for prompt in (LONG, "b" + LONG, LONG):
            _, raw = await post(session, engine, "/v1/completions", {"prompt": prompt})
            cached.append(json.loads(raw)["usage"]["prompt_tokens_details"]["cached_tokens"])
    assert cached[-1] < 100
    assert len(engine.requests) == 3


async def test_prefills_queue_by_the_constants_and_metrics_show_it():
    constants = EngineConstants(step_s=1000.0)
    async with SimulatedEngine(constants=constants) as engine, aiohttp.ClientSession() as session:
        tasks = [asyncio.ensure_future(post(session, engine, "/v1/completions", {"prompt": LONG})) for _ in range(3)]
        metrics = ""
        async with asyncio.timeout(30):
            while 'waiting{engine="0",model_name="simulated-model"} 2\n' not in metrics:
                async with session.get(engine.url + "/metrics") as response:
                    metrics = await response.text()
        async with session.get(engine.url + "/v1/loads") as response:
            loads = (await response.json())["loads"][0]
        assert 'vllm:num_requests_running{engine="0",model_name="simulated-model"} 1\n' in metrics
        assert (loads["num_running_reqs"], loads["num_waiting_reqs"]) == (1, 2)
        assert loads["num_waiting_uncached_tokens"] == 2 * (750 - 736)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await engine.wait_for_abort(3)
        assert (engine.app.steps.running, engine.app.steps.waiting, engine.app.cache.pinned_blocks) == (0, 0, 0)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_is_noticed_at_once_and_its_blocks_are_released(stream):
    async with SimulatedEngine(token_interval_s=1000.0) as engine, aiohttp.ClientSession() as session:
        body = {"prompt": LONG, "stream": stream}
        task = asyncio.ensure_future(post(session, engine, "/v1/completions", body))
        await engine.wait_running(1)
        task.cancel()
        await engine.wait_for_abort()
        assert (engine.running, engine.aborted, engine.completed) == (0, 1, 0)
        assert engine.app.cache.pinned_blocks == 0
        await asyncio.gather(task, return_exceptions=True)


async def test_requests_are_recorded_byte_for_byte():
    body = b'{"prompt":  "x", "unknown": {"deep": [1.0e2]}}'
    async with SimulatedEngine() as engine, aiohttp.ClientSession() as session:
        for _ in range(2):
            url = yarl.URL(engine.url + "/v1/completions?a=%7e%2F", encoded=True)
            async with session.post(url, data=body, headers={"X-Odd": "äh"}):
                pass
    first, second = engine.requests
    assert first.body == body
    assert first.target == "/v1/completions?a=%7e%2F"
    assert first.path == "/v1/completions"
    assert (b"X-Odd", "äh".encode()) in first.raw_headers
    assert first.peer == second.peer
    assert engine.connections == 1


async def test_a_request_id_names_the_answer_as_in_vllm():
    async with SimulatedEngine() as engine, aiohttp.ClientSession() as session:
        _, raw = await post(session, engine, "/v1/chat/completions", CHAT, headers={"x-request-id": "abc-1"})
    assert json.loads(raw)["id"] == "chatcmpl-abc-1"


async def test_a_told_status_is_answered_as_often_as_told():
    async with (
        SimulatedEngine(status=503, faults_left=1, retry_after_s=7) as engine,
        aiohttp.ClientSession() as session,
    ):
        first, raw = await post(session, engine, "/v1/chat/completions", CHAT)
        second, _ = await post(session, engine, "/v1/chat/completions", CHAT)
    assert (first.status, second.status) == (503, 200)
    assert first.headers["retry-after"] == "7"
    assert json.loads(raw)["error"]["code"] == 503


async def test_a_bad_body_and_a_strange_model_are_the_clients_fault():
    async with SimulatedEngine(is_strict_about_models=True) as engine, aiohttp.ClientSession() as session:
        strange, _ = await post(session, engine, "/v1/chat/completions", CHAT)
        empty, _ = await post(session, engine, "/v1/chat/completions", {"model": "simulated-model"})
        async with session.post(engine.url + "/v1/completions", data=b"{") as broken:
            assert broken.status == 400
    assert (strange.status, empty.status) == (404, 400)


async def test_a_hanging_engine_never_answers_until_the_client_leaves():
    async with SimulatedEngine(fault=Fault.HANG) as engine, aiohttp.ClientSession() as session:
        task = asyncio.ensure_future(post(session, engine, "/v1/chat/completions", CHAT))
        await engine.wait_running()
        task.cancel()
        await engine.wait_for_abort()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    ("fault", "stream", "error"),
    [
        (Fault.CLOSE_BEFORE_HEAD, False, aiohttp.ServerDisconnectedError),
        (Fault.CLOSE_MID_STREAM, True, aiohttp.ClientPayloadError),
        (Fault.CLOSE_MID_STREAM, False, aiohttp.ClientPayloadError),
        (Fault.SHORT_BODY, False, aiohttp.ClientPayloadError),
    ],
)
async def test_a_broken_connection_counts_as_failed(fault, stream, error):
    async with SimulatedEngine(fault=fault) as engine, aiohttp.ClientSession() as session:
        with pytest.raises(error):
            await post(session, engine, "/v1/chat/completions", CHAT | {"stream": stream})
        await engine.wait_until(lambda: engine.failed == 1)
    assert (engine.aborted, engine.completed, engine.running) == (0, 0, 0)


async def test_a_stream_breaks_off_after_as_many_tokens_as_told():
    async with (
        SimulatedEngine(fault=Fault.CLOSE_MID_STREAM, close_after_tokens=3) as engine,
        aiohttp.ClientSession() as session,
        session.post(engine.url + "/v1/completions", json={"prompt": "x", "stream": True}) as response,
    ):
        received = b""
        try:
            async for data in response.content.iter_any():
                received += data
        except aiohttp.ClientPayloadError:
            pass
        else:
            pytest.fail("the stream ended in good order")
    assert len(events(received.decode())) == 3


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "knobs",
    [
        {"closes_connections": True},
        {"reads_until_close": True},
        {"drip_bytes": 7},
        {"interim_status": 103},
        {"token_interval_s": 0.0, "ttft_s": 0.0},
    ],
)
async def test_odd_but_correct_answers_arrive_whole(knobs, stream):
    async with SimulatedEngine(**knobs) as engine, aiohttp.ClientSession() as session:
        for _ in range(2):
            _, raw = await post(session, engine, "/v1/completions", {"prompt": "some words", "stream": stream})
            answers = events(raw.decode()) if stream else [json.loads(raw)]
            assert "".join(a["choices"][0]["text"] for a in answers) == engine.expected_text({"prompt": "some words"})
        await engine.wait_idle()
    assert engine.completed == 2
    closes = engine.closes_connections or engine.reads_until_close
    assert engine.connections == (2 if closes else 1)


async def test_health_follows_its_knob_and_is_counted():
    async with SimulatedEngine() as engine, aiohttp.ClientSession() as session:
        for status in (200, 503):
            engine.health_status = status
            async with session.get(engine.url + "/health") as response:
                assert response.status == status
        engine.health_hangs = True
        task = asyncio.ensure_future(session.get(engine.url + "/health"))
        await engine.wait_probed(3)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert engine.accepted == 0


async def test_responses_are_known_to_the_engine_that_made_them_only():
    async with simulated_engines(2) as (engine, other), aiohttp.ClientSession() as session:
        _, raw = await post(session, engine, "/v1/responses", {"input": "hello"})
        answer = json.loads(raw)
        place = f"/v1/responses/{answer['id']}"
        assert answer["id"].startswith("resp_")
        async with session.get(engine.url + place) as found, session.get(other.url + place) as missing:
            assert await found.json() == answer
            assert missing.status == 404
        async with session.post(engine.url + place + "/cancel") as response:
            assert response.status == 400
        async with session.delete(engine.url + place) as response:
            assert (await response.json())["deleted"] is True
        async with session.get(engine.url + place) as response:
            assert response.status == 404


@pytest.mark.parametrize(
    ("path", "body", "check"),
    [
        (
            "/v1/embeddings",
            {"input": ["a", "b"]},
            lambda a: len(a["data"]) == 2 and len(a["data"][0]["embedding"]) == 8,
        ),
        ("/v1/classify", {"input": "a"}, lambda a: abs(sum(a["data"][0]["probs"]) - 1) < 1e-9),
        ("/v1/score", {"text_1": "a", "text_2": ["b", "c"]}, lambda a: len(a["data"]) == 2),
        ("/score", {"text_1": "a", "text_2": "b"}, lambda a: 0 <= a["data"][0]["score"] < 1),
        ("/v1/rerank", {"query": "q", "documents": ["a", "b", "c"], "top_n": 2}, lambda a: len(a["results"]) == 2),
        ("/rerank", {"query": "q", "documents": ["a", "b"]}, lambda a: {r["index"] for r in a["results"]} == {0, 1}),
        ("/v1/tokenize", {"prompt": "eight by"}, lambda a: a["count"] == 2),
    ],
)
async def test_other_inference_answers(path, body, check):
    async with SimulatedEngine() as engine, aiohttp.ClientSession() as session:
        response, raw = await post(session, engine, path, body)
    assert response.status == 200
    assert check(json.loads(raw))
    assert engine.completed == 1


async def test_detokenize_undoes_tokenize():
    async with SimulatedEngine() as engine, aiohttp.ClientSession() as session:
        _, raw = await post(session, engine, "/v1/tokenize", {"prompt": "Grüße, 世界\x00"})
        _, raw = await post(session, engine, "/v1/detokenize", {"tokens": json.loads(raw)["tokens"]})
    assert json.loads(raw) == {"prompt": "Grüße, 世界\x00"}


async def test_audio_comes_as_multipart_and_is_hashed():
    form = aiohttp.FormData()
    form.add_field("model", "whisper")
    form.add_field("file", bytes(range(256)) * 4, filename="a.wav", content_type="audio/wav")
    async with SimulatedEngine() as engine, aiohttp.ClientSession() as session:
        async with session.post(engine.url + "/v1/audio/transcriptions", data=form) as response:
            text = (await response.json())["text"]
        response, _ = await post(session, engine, "/v1/audio/transcriptions", {})
    assert text.startswith("You said: 1024 bytes [")
    assert response.status == 400


async def test_models_and_infos_are_there_and_other_paths_are_not():
    async with SimulatedEngine(models=("m1", "m2")) as engine, aiohttp.ClientSession() as session:
        async with session.get(engine.url + "/v1/models") as response:
            assert [model["id"] for model in (await response.json())["data"]] == ["m1", "m2"]
        for path, status in (("/server_info", 200), ("/version", 200), ("/load", 200), ("/nothing", 404)):
            async with session.get(engine.url + path) as response:
                assert response.status == status


async def test_a_stopped_engine_cuts_its_streams_and_comes_back_on_its_port():
    async with SimulatedEngine(token_interval_s=1000.0) as engine, aiohttp.ClientSession() as session:
        url = engine.url
        task = asyncio.ensure_future(post(session, engine, "/v1/completions", {"prompt": "x", "stream": True}))
        await engine.wait_running()
        await engine.stop()
        with pytest.raises(aiohttp.ClientError):
            await task
        assert (engine.failed, engine.aborted, engine.running) == (1, 0, 0)
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(url + "/health")
        await engine.start()
        async with session.get(url + "/health") as response:
            assert response.status == 200


async def test_waiting_in_vain_says_what_was_counted():
    async with SimulatedEngine(name="lonely") as engine:
        with pytest.raises(TimeoutError, match=r"'lonely': .*'accepted': 0.* after 0\.01 s"):
            await engine.wait_accepted(1, timeout_s=0.01)


def test_an_engine_has_no_url_before_it_is_started():
    with pytest.raises(RuntimeError, match="before it is started"):
        _ = SimulatedEngine().url


async def test_clients_that_reset_at_once_leave_no_error_in_the_log(caplog):
    body = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "a"}]}).encode()
    request = b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    async with SimulatedEngine() as engine:
        url = yarl.URL(engine.url)
        for turns in range(30):
            client = socket.create_connection((url.host, url.port))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, no farewell
            client.sendall(request)
            for _ in range(turns % 6):
                await asyncio.sleep(0)
            client.close()
        async with aiohttp.ClientSession() as session, session.get(url / "health") as response:
            assert response.status == 200
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    assert engine.running == 0
