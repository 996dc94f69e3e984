from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest

from router_core.testing.simulated_engine import SimulatedEngine

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Tell me of Köln and its rivers"}]}
ROOM = 2**63 - 1
NEVER_S = 3600.0


def engine(role: str, **knobs) -> SimulatedEngine:
    return SimulatedEngine(name=role, pd="sglang", role=role, **knobs)


def bootstrap(prefill: SimulatedEngine, room: object = ROOM) -> dict:
    """The fields a router adds."""
    if isinstance(room, list):
        size = len(room)
        ports = [prefill.bootstrap_port] * size
        return {"bootstrap_host": ["127.0.0.1"] * size, "bootstrap_port": ports, "bootstrap_room": room}
    return {"bootstrap_host": "127.0.0.1", "bootstrap_port": prefill.bootstrap_port, "bootstrap_room": room}


async def post(session, target, body, path="/v1/chat/completions"):
    async with session.post(target.url + path, json=body) as response:
        return response.status, await response.text()


def begin(session, target, body, path="/v1/chat/completions"):
    return asyncio.ensure_future(post(session, target, body, path))


async def post_both(session, prefill, decode, body, path="/v1/chat/completions"):
    return await asyncio.gather(post(session, prefill, body, path), post(session, decode, body, path))


async def cancel(task):
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_both_legs_at_once_give_the_whole_answer_from_decode_and_one_token_from_prefill():
    async with engine("prefill") as prefill, engine("decode") as decode, aiohttp.ClientSession() as session:
        (_, first), (status, raw) = await post_both(session, prefill, decode, CHAT | bootstrap(prefill))
    assert status == 200
    assert json.loads(raw)["choices"][0]["message"]["content"] == decode.expected_text(CHAT)
    choice = json.loads(first)["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("You", "length")
    for one in (prefill, decode):
        counts = one.counters()
        assert (counts["transfers"], counts["stranded"], counts["held"], counts["refused"]) == (1, 0, 0, 0)


@pytest.mark.parametrize("first", ["prefill", "decode"])
async def test_either_leg_waits_for_the_other(first):
    async with engine("prefill") as prefill, engine("decode") as decode, aiohttp.ClientSession() as session:
        body = CHAT | bootstrap(prefill)
        early, late = (prefill, decode) if first == "prefill" else (decode, prefill)
        task = begin(session, early, body)
        if first == "prefill":
            await prefill.wait_until(lambda: prefill.held == 1)
        await early.wait_running()
        assert not task.done()
        assert (await post(session, late, body))[0] == 200
        assert (await task)[0] == 200


async def test_a_stream_comes_from_decode_and_prefill_streams_one_token():
    body = CHAT | {"stream": True}
    async with engine("prefill") as prefill, engine("decode") as decode, aiohttp.ClientSession() as session:
        (_, first), (_, raw) = await post_both(session, prefill, decode, body | bootstrap(prefill))
    texts = []
    for text in (first, raw):
        events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
        texts.append("".join(event["choices"][0]["delta"].get("content", "") for event in events))
    assert texts == ["You", decode.expected_text(CHAT)]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate", {"text": ["one", "two"]}),
        ("/generate", {"input_ids": [[1, 2], [3, 4]]}),
        ("/v1/completions", {"prompt": ["one", "two"]}),
        ("/v1/chat/completions", CHAT | {"n": 2}),
    ],
)
async def test_a_batch_has_a_room_for_each_item(path, body):
    async with engine("prefill") as prefill, engine("decode") as decode, aiohttp.ClientSession() as session:
        legs = await post_both(session, prefill, decode, body | bootstrap(prefill, [0, 1]), path)
        assert [status for status, _ in legs] == [200, 200]
        for wrong in (2, [3], [4, 5, 6], [7, 7], [8, None]):
            legs = await post_both(session, prefill, decode, body | bootstrap(prefill, wrong), path)
            assert [status for status, _ in legs] == [400, 400]
    assert (prefill.transfers, decode.transfers, prefill.refused, decode.refused) == (2, 2, 5, 5)


@pytest.mark.parametrize("name", ["bootstrap_host", "bootstrap_port", "bootstrap_room"])
@pytest.mark.parametrize("value", [None, True, "", "http://127.0.0.1", "::1", -1, 1.5, 2**63, {}])
async def test_a_missing_or_invalid_field_is_refused_on_both_legs(name, value):
    async with engine("prefill") as prefill, engine("decode") as decode, aiohttp.ClientSession() as session:
        body = CHAT | bootstrap(prefill) | {name: value}
        legs = await post_both(session, prefill, decode, body)
        del body[name]
        legs += await post_both(session, prefill, decode, body)
    assert [status for status, _ in legs] == [400] * 4
    assert all(name in text for _, text in legs)
    assert (prefill.refused, decode.refused) == (2, 2)


async def test_a_room_seen_before_is_refused_even_after_its_transfer():
    async with engine("prefill") as prefill, engine("decode") as decode, aiohttp.ClientSession() as session:
        body = CHAT | bootstrap(prefill)
        task = begin(session, prefill, body)
        await prefill.wait_until(lambda: prefill.held == 1)
        assert (await post(session, prefill, body))[0] == 400
        assert (await post(session, decode, body))[0] == 200
        assert (await task)[0] == 200
        legs = await post_both(session, prefill, decode, body)
        assert [status for status, _ in legs] == [400, 400]
        assert prefill.stranded == 0


async def test_another_engines_port_is_refused_by_prefill():
    async with engine("prefill") as prefill, engine("prefill") as other, aiohttp.ClientSession() as session:
        status, text = await post(session, prefill, CHAT | bootstrap(other))
    assert status == 400
    assert "another engine" in text


async def test_decode_gives_up_when_its_prefill_leg_never_comes():
    async with (
        engine("prefill") as prefill,
        engine("decode", transfer_timeout_s=0.01) as decode,
        aiohttp.ClientSession() as session,
    ):
        body = CHAT | bootstrap(prefill)
        status, text = await post(session, decode, body)
        assert status == 500
        assert "did not come" in text
        assert (decode.stranded, decode.transfers, prefill.stranded) == (1, 0, 0)
        nobody = bootstrap(prefill, 7) | {"bootstrap_port": 9}
        assert (await post(session, decode, CHAT | nobody))[0] == 500
        assert decode.stranded == 2


async def test_prefill_gives_up_when_nobody_fetches():
    async with engine("prefill", transfer_timeout_s=0.01) as prefill, aiohttp.ClientSession() as session:
        status, _ = await post(session, prefill, CHAT | bootstrap(prefill))
        assert status == 500
        assert (prefill.stranded, prefill.held) == (1, 0)


async def test_a_prefill_leg_that_is_aborted_strands_the_waiting_decode_leg():
    async with (
        engine("prefill", ttft_s=NEVER_S) as prefill,
        engine("decode") as decode,
        aiohttp.ClientSession() as session,
    ):
        body = CHAT | bootstrap(prefill)
        tasks = [begin(session, target, body) for target in (prefill, decode)]
        await asyncio.gather(prefill.wait_running(), decode.wait_running())
        await cancel(tasks[0])
        status, text = await tasks[1]
        assert status == 500
        assert "aborted" in text
        assert (prefill.stranded, decode.stranded) == (0, 1)


async def test_a_prefill_client_that_leaves_before_the_fetch_strands_its_blocks():
    async with engine("prefill") as prefill, aiohttp.ClientSession() as session:
        task = begin(session, prefill, CHAT | bootstrap(prefill))
        await prefill.wait_until(lambda: prefill.held == 1)
        await cancel(task)
        await prefill.wait_until(lambda: prefill.stranded == 1)
        assert prefill.held == 0


async def test_a_decode_client_that_leaves_frees_the_room_for_nobody():
    async with engine("prefill") as prefill, engine("decode") as decode, aiohttp.ClientSession() as session:
        task = begin(session, decode, CHAT | bootstrap(prefill))
        await decode.wait_running()
        await cancel(task)
        await decode.wait_for_abort()
        assert (decode.stranded, decode.transfers) == (0, 0)


async def test_prefill_knows_the_prompts_log_probabilities_and_decode_the_answers():
    body = {
        "text": "eight by",
        "return_logprob": True,
        "logprob_start_len": 0,
        "sampling_params": {"max_new_tokens": 3},
    }
    async with engine("prefill") as prefill, engine("decode") as decode, aiohttp.ClientSession() as session:
        legs = await post_both(session, prefill, decode, body | bootstrap(prefill), "/generate")
        async with SimulatedEngine() as whole:
            _, alone = await post(session, whole, body, "/generate")
    first, last, alone = (json.loads(text)["meta_info"] for text in (legs[0][1], legs[1][1], alone))
    assert [logprob is None for logprob, _, _ in first["input_token_logprobs"]] == [True, False]
    merged = first["input_token_logprobs"] + last["input_token_logprobs"]
    assert merged == alone["input_token_logprobs"]
    assert last["output_token_logprobs"] == alone["output_token_logprobs"]
    assert (len(first["output_token_logprobs"]), len(last["output_token_logprobs"])) == (1, 3)
    assert first["finish_reason"] == {"type": "length", "length": 1}


async def test_log_probabilities_of_the_prompt_come_only_when_asked_for():
    async with SimulatedEngine() as one, aiohttp.ClientSession() as session:
        _, plain = await post(session, one, {"text": "eight by"}, "/generate")
        _, last_only = await post(session, one, {"text": "eight by", "return_logprob": True}, "/generate")
        wrong, _ = await post(
            session, one, {"text": "x", "return_logprob": True, "logprob_start_len": "0"}, "/generate"
        )
    assert "input_token_logprobs" not in json.loads(plain)["meta_info"]
    assert len(json.loads(last_only)["meta_info"]["input_token_logprobs"]) == 1
    assert wrong == 400


@pytest.mark.parametrize(
    ("prefill_rank", "decode_rank", "status"),
    [(1, 1, 200), (1, 0, 400), (1, None, 200), (0, None, 400), (None, None, 200), (None, 1, 200)],
)
async def test_decode_has_to_know_the_prefill_rank_or_guess_it_from_the_room(prefill_rank, decode_rank, status):
    async with (
        engine("prefill", dp_size=2) as prefill,
        engine("decode") as decode,
        aiohttp.ClientSession() as session,
    ):
        body = CHAT | bootstrap(prefill, 5)  # 5 % 2 == 1
        first = begin(session, prefill, body | {"data_parallel_rank": prefill_rank})
        await prefill.wait_until(lambda: prefill.held == 1)
        assert (await post(session, decode, body | {"disagg_prefill_dp_rank": decode_rank}))[0] == status
        if status != 200:
            await cancel(first)
            await prefill.wait_idle()
        await asyncio.gather(first, return_exceptions=True)
        assert (await post(session, prefill, CHAT | bootstrap(prefill, 6) | {"data_parallel_rank": 2}))[0] == 400


async def test_an_engine_started_again_has_forgotten_rooms_and_kv_caches_and_keeps_its_port():
    async with engine("prefill") as prefill, aiohttp.ClientSession() as session:
        port = prefill.bootstrap_port
        task = begin(session, prefill, CHAT | bootstrap(prefill))
        await prefill.wait_until(lambda: prefill.held == 1)
        await prefill.stop()
        await asyncio.gather(task, return_exceptions=True)
        await prefill.start()
        assert prefill.bootstrap_port == port
        task = begin(session, prefill, CHAT | bootstrap(prefill))
        await prefill.wait_until(lambda: prefill.held == 1)
        await cancel(task)
        await prefill.wait_idle()


async def test_it_tells_what_it_is():
    async with engine("prefill", dp_size=2) as prefill, aiohttp.ClientSession() as session:
        async with session.get(prefill.url + "/server_info") as response:
            info = await response.json()
        async with session.get(prefill.url + "/metrics") as response:
            assert "\nsglang:num_running_reqs{" in await response.text()
        async with session.get(prefill.url + "/v1/loads") as response:
            assert [entry["dp_rank"] for entry in (await response.json())["loads"]] == [0, 1]
    assert (info["disaggregation_mode"], info["dp_size"]) == ("prefill", 2)
    assert info["disaggregation_bootstrap_port"] == prefill.bootstrap_port


async def test_ranks_are_counted_apart():
    async with SimulatedEngine(dp_size=3, ttft_s=NEVER_S) as one, aiohttp.ClientSession() as session:
        tasks = [begin(session, one, CHAT | {"data_parallel_rank": rank}) for rank in (2, 2, 1)]
        await one.wait_running(3)
        async with session.get(one.url + "/v1/loads") as response:
            loads = (await response.json())["loads"]
        assert [entry["num_running_reqs"] for entry in loads] == [0, 1, 2]
        for task in tasks:
            await cancel(task)
        await one.wait_idle()


def test_role_and_protocol_are_given_together():
    with pytest.raises(ValueError, match="both pd and role"):
        SimulatedEngine(role="prefill")
