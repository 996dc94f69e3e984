from __future__ import annotations

import asyncio
import json
import uuid

import aiohttp
import pytest

from router_core.testing.simulated_engine import SimulatedEngine

PROMPT = {"model": "m", "prompt": "a prompt that repeats itself. " * 20}
ASK = {
    "do_remote_decode": True,
    "do_remote_prefill": False,
    "remote_engine_id": None,
    "remote_block_ids": None,
    "remote_host": None,
    "remote_port": None,
}
PATH = "/v1/completions"


def engine(role: str, **knobs) -> SimulatedEngine:
    return SimulatedEngine(name=role, pd="vllm", role=role, **knobs)


async def post(session, target, body, request_id=None, path=PATH, **headers):
    headers |= {} if request_id is None else {"X-Request-Id": request_id}
    async with session.post(target.url + path, json=body, headers=headers) as response:
        return response.status, json.loads(await response.read())


def prefill_body(parameters=ASK, **fields) -> dict:
    return PROMPT | {"max_tokens": 1, "stream": False, "kv_transfer_params": parameters} | fields


def decode_body(parameters, **fields) -> dict:
    return PROMPT | {"kv_transfer_params": parameters} | fields


def mooncake_ask(transfer_id: str) -> dict:
    return {"do_remote_decode": True, "do_remote_prefill": False, "transfer_id": transfer_id}


async def test_prefill_names_its_blocks_and_decode_fetches_them_once():
    async with engine("prefill") as prefill, engine("decode") as decode, aiohttp.ClientSession() as session:
        status, first = await post(session, prefill, prefill_body())
        assert status == 200
        parameters = first["kv_transfer_params"]
        assert (parameters["remote_host"], parameters["remote_port"]) == ("127.0.0.1", prefill.bootstrap_port)
        assert parameters["do_remote_prefill"] is True
        assert len(parameters["remote_block_ids"]) == 150 // 16
        assert first["usage"]["completion_tokens"] == 1
        assert prefill.held == 1
        status, last = await post(session, decode, decode_body(parameters))
        assert status == 200
        assert last["choices"][0]["text"] == decode.expected_text(PROMPT)
        assert "kv_transfer_params" not in last
        assert (prefill.held, prefill.transfers, decode.transfers) == (0, 1, 1)
        status, answer = await post(session, decode, decode_body(parameters))
        assert status == 400
        assert "once" in answer["error"]["message"]
        async with engine("decode") as other:
            assert (await post(session, other, decode_body(parameters)))[0] == 400
        assert (prefill.stranded, decode.stranded, decode.refused) == (0, 0, 1)


async def test_usage_and_prompt_log_probabilities_have_to_be_merged():
    extra = {"prompt_logprobs": 1}
    async with engine("prefill") as prefill, engine("decode") as decode, aiohttp.ClientSession() as session:
        _, first = await post(session, prefill, prefill_body(**extra))
        _, last = await post(session, decode, decode_body(first["kv_transfer_params"], **extra))
        async with SimulatedEngine() as whole:
            _, alone = await post(session, whole, PROMPT | extra)
    assert first["choices"][0]["prompt_logprobs"] == alone["choices"][0]["prompt_logprobs"]
    assert first["choices"][0]["prompt_logprobs"][0] is None
    assert last["choices"][0]["prompt_logprobs"] is None
    cached = [answer["usage"]["prompt_tokens_details"]["cached_tokens"] for answer in (first, last, alone)]
    assert cached == [0, 149, 0]
    assert last["usage"]["completion_tokens"] == alone["usage"]["completion_tokens"]


async def test_chat_has_its_prompt_log_probabilities_at_the_top():
    chat = {"messages": [{"role": "user", "content": "x"}], "prompt_logprobs": 0}
    async with SimulatedEngine() as one, aiohttp.ClientSession() as session:
        _, answer = await post(session, one, chat, path="/v1/chat/completions")
    assert answer["prompt_logprobs"][0] is None
    assert len(answer["prompt_logprobs"]) == answer["usage"]["prompt_tokens"]


@pytest.mark.parametrize(
    "change",
    [
        {"max_tokens": 2},
        {"max_tokens": None},
        {"max_tokens": 1, "max_completion_tokens": 16},
        {"min_tokens": 4},
        {"stream": True},
        {"stream_options": None},
        {"kv_transfer_params": None},
        {"kv_transfer_params": "nixl"},
        {"kv_transfer_params": {}},
        {"kv_transfer_params": ASK | {"do_remote_decode": False}},
        {"kv_transfer_params": ASK | {"do_remote_prefill": True}},
        {"kv_transfer_params": ASK | {"remote_host": "127.0.0.1"}},
    ],
)
async def test_a_wrong_prefill_request_is_refused(change):
    async with engine("prefill") as prefill, aiohttp.ClientSession() as session:
        status, answer = await post(session, prefill, prefill_body() | change)
    assert (status, answer["error"]["code"]) == (400, 400)
    assert (prefill.refused, prefill.held) == (1, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"do_remote_prefill": False},
        {"do_remote_decode": True},
        {"remote_engine_id": "another"},
        {"remote_engine_id": None},
        {"remote_block_ids": [1]},
        {"remote_block_ids": []},
        {"remote_block_ids": None},
        {"remote_request_id": "another"},
        {"remote_request_id": None},
        {"remote_host": None},
        {"remote_port": "1"},
    ],
)
async def test_a_wrong_decode_request_is_refused_and_the_blocks_stay(change):
    async with engine("prefill") as prefill, engine("decode") as decode, aiohttp.ClientSession() as session:
        _, first = await post(session, prefill, prefill_body())
        status, _ = await post(session, decode, decode_body(first["kv_transfer_params"] | change))
        assert status == 400
        assert (decode.refused, decode.transfers, prefill.held) == (1, 0, 1)


@pytest.mark.parametrize("parameters", [None, "x", {}])
async def test_decode_without_a_transfer_is_refused_unless_it_recomputes(parameters):
    async with (
        engine("decode") as decode,
        engine("decode", recomputes=True) as lenient,
        aiohttp.ClientSession() as session,
    ):
        assert (await post(session, decode, decode_body(parameters)))[0] == 400
        assert (await post(session, lenient, decode_body(parameters)))[0] == (200 if parameters is None else 400)


async def test_blocks_nobody_fetches_are_stranded_and_then_gone():
    async with (
        engine("prefill", transfer_timeout_s=0.01) as prefill,
        engine("decode") as decode,
        aiohttp.ClientSession() as session,
    ):
        _, first = await post(session, prefill, prefill_body())
        await prefill.wait_until(lambda: prefill.stranded == 1)
        status, answer = await post(session, decode, decode_body(first["kv_transfer_params"]))
        assert status == 500
        assert "expired" in answer["error"]["message"]
        assert (prefill.held, decode.stranded) == (0, 1)


async def test_a_dead_prefill_engine_fails_the_decode_leg():
    async with engine("decode") as decode, aiohttp.ClientSession() as session:
        async with engine("prefill") as prefill:
            _, first = await post(session, prefill, prefill_body())
        assert prefill.held == 0
        status, _ = await post(session, decode, decode_body(first["kv_transfer_params"]))
    assert (status, decode.stranded) == (500, 1)


async def test_a_prefill_client_that_leaves_in_time_strands_nothing():
    async with engine("prefill", ttft_s=3600.0) as prefill, aiohttp.ClientSession() as session:
        task = asyncio.ensure_future(post(session, prefill, prefill_body()))
        await prefill.wait_running()
        task.cancel()
        await prefill.wait_for_abort()
        await asyncio.gather(task, return_exceptions=True)
        assert (prefill.stranded, prefill.held) == (0, 0)


async def test_a_rank_is_part_of_the_engines_id():
    async with engine("prefill", dp_size=2) as prefill, aiohttp.ClientSession() as session:
        _, first = await post(session, prefill, prefill_body(), **{"X-data-parallel-rank": "1"})
        assert first["kv_transfer_params"]["remote_engine_id"].endswith("_dp1")
        for rank in ("2", "-1", "x"):
            assert (await post(session, prefill, prefill_body(), **{"X-data-parallel-rank": rank}))[0] == 400


async def test_other_apis_carry_the_parameters_too():
    async with engine("prefill") as prefill, aiohttp.ClientSession() as session:
        bodies = {
            "/v1/chat/completions": {"messages": [{"role": "user", "content": "x"}], "max_completion_tokens": 1},
            "/v1/responses": {"input": "x", "max_output_tokens": 1},
        }
        for path, body in bodies.items():
            status, answer = await post(session, prefill, body | {"kv_transfer_params": ASK}, path=path)
            assert status == 200
            assert answer["kv_transfer_params"]["remote_port"] == prefill.bootstrap_port


# --- NIXL push ---


async def test_push_legs_may_go_at_once_when_the_identity_is_known():
    knobs = {"connector": "nixl-push"}
    async with (
        engine("prefill", **knobs) as prefill,
        engine("decode", **knobs) as decode,
        aiohttp.ClientSession() as session,
    ):
        _, first = await post(session, prefill, prefill_body(), "first")
        identity = first["kv_transfer_params"]
        assert (identity["transfer_mode"], identity["remote_request_id"]) == ("push", "first")
        assert (await post(session, decode, decode_body(identity), "first"))[0] == 200
        early = {name: value for name, value in identity.items() if name != "remote_block_ids"}
        early["remote_request_id"] = "cmpl-second"
        waiting = asyncio.ensure_future(post(session, decode, decode_body(early), "second"))
        await decode.wait_running()
        assert (await post(session, prefill, prefill_body(), "second"))[0] == 200
        assert (await waiting)[0] == 200
        assert (prefill.transfers, prefill.held) == (2, 0)
        assert (await post(session, prefill, prefill_body(), "second"))[0] == 400


# --- Mooncake ---


async def test_mooncake_legs_meet_by_transfer_id():
    knobs = {"connector": "mooncake"}
    async with (
        engine("prefill", **knobs) as prefill,
        engine("decode", **knobs) as decode,
        aiohttp.ClientSession() as session,
    ):
        address = f"http://127.0.0.1:{prefill.bootstrap_port}"
        async with session.get(address + "/query") as response:
            engine_id = (await response.json(content_type=None))["0"]["engine_id"]
        told = {"do_remote_prefill": True, "do_remote_decode": False, "transfer_id": "xfer-1"}
        told |= {"remote_bootstrap_addr": address, "remote_engine_id": engine_id}
        waiting = asyncio.ensure_future(post(session, decode, decode_body(told)))
        await decode.wait_running()
        status, first = await post(session, prefill, prefill_body(mooncake_ask("xfer-1")))
        assert status == 200
        assert "kv_transfer_params" not in first
        assert (await waiting)[0] == 200
        assert (await post(session, prefill, prefill_body(mooncake_ask("xfer-1"))))[0] == 400
        assert (await post(session, prefill, prefill_body(ASK)))[0] == 400
        for wrong in ({}, {"remote_engine_id": "x"}, {"remote_bootstrap_addr": "127.0.0.1:1"}, {"transfer_id": ""}):
            await post(session, prefill, prefill_body(mooncake_ask(f"xfer-{wrong}")))
            body = decode_body(told | {"transfer_id": f"xfer-{wrong}"} | wrong)
            assert (await post(session, decode, body))[0] == (400 if wrong else 200)
        assert (prefill.transfers, decode.transfers) == (2, 2)


# --- P2P ---


def p2p_id(prefill: SimulatedEngine, decode: SimulatedEngine, of="port") -> str:
    addresses = (f"127.0.0.1:{getattr(one, of)}" for one in (prefill, decode))
    return "___prefill_addr_{}___decode_addr_{}_{}".format(*addresses, uuid.uuid4().hex)


@pytest.mark.parametrize("of", ["port", "bootstrap_port"])
async def test_p2p_legs_meet_by_request_id(of):
    async with (
        engine("prefill", connector="p2p") as prefill,
        engine("decode", connector="p2p") as decode,
        aiohttp.ClientSession() as session,
    ):
        request_id = p2p_id(prefill, decode, of)
        plain = {name: value for name, value in prefill_body().items() if name != "kv_transfer_params"}
        assert (await post(session, prefill, plain, request_id))[0] == 200
        assert (await post(session, decode, PROMPT, request_id))[0] == 200
        assert (prefill.transfers, decode.transfers, prefill.held) == (1, 1, 0)
        assert (await post(session, prefill, plain, request_id))[0] == 400
        assert (await post(session, decode, PROMPT, request_id))[0] == 400
        for wrong in (None, "abc", p2p_id(decode, prefill)):
            assert (await post(session, prefill, plain, wrong))[0] == 400
            assert (await post(session, decode, PROMPT, wrong))[0] == 400


async def test_p2p_legs_with_different_ids_never_meet():
    async with (
        engine("prefill", connector="p2p", transfer_timeout_s=0.01) as prefill,
        engine("decode", connector="p2p", transfer_timeout_s=0.01) as decode,
        aiohttp.ClientSession() as session,
    ):
        await post(session, prefill, prefill_body(), p2p_id(prefill, decode))
        assert (await post(session, decode, PROMPT, p2p_id(prefill, decode)))[0] == 500
        await prefill.wait_until(lambda: prefill.stranded == 1)
        assert decode.stranded == 1


async def test_vllm_has_no_sglang_paths():
    async with engine("decode") as decode, aiohttp.ClientSession() as session:
        for path in ("/server_info", "/v1/loads"):
            async with session.get(decode.url + path) as response:
                assert response.status == 404
