"""vLLM's protocol over real sockets: one token of prefill, then decode with the KV cache's name."""

from __future__ import annotations

import json

import pytest

from router_core.api import Leg, OutcomeStatus
from router_core.testing.simulated_engine import Fault, SimulatedEngine

from .pd_support import (
    CONNECTORS,
    DECODE,
    NEVER_S,
    PREFILL,
    assert_nothing_is_left,
    running_pair_router,
    two_of_each,
    vllm_pair,
)
from .support import CHAT, RawClient, chat, until

SUCCESS, CANCELLED, ERROR = OutcomeStatus.SUCCESS, OutcomeStatus.CANCELLED, OutcomeStatus.ERROR


@pytest.mark.parametrize("connector", CONNECTORS)
@pytest.mark.parametrize("stream", [False, True])
async def test_decode_answers_what_an_engine_alone_would(connector, stream):
    async with vllm_pair(connector) as (prefill, decode, router):
        for number in range(3):  # an engine that pushes tells so in its first answer
            body = chat(f"Tell me of Köln {number}", stream=stream, max_completion_tokens=5, min_tokens=2)
            body |= {"stream_options": {"include_usage": False}} if stream else {}
            async with router.post(CHAT, body) as response:
                assert response.status == 200
                assert response.headers["x-simulated-engine"] == "decode"
                text = await response.text()
            if stream:
                assert text.endswith("data: [DONE]\n\n")
            else:
                assert json.loads(text)["choices"][0]["message"]["content"] == decode.expected_text(body)
        legs = await router.legs(3)
        assert {outcome.status for found in legs.values() for outcome in found} == {SUCCESS}
        assert (prefill.transfers, decode.transfers) == (3, 3)
        await assert_nothing_is_left(prefill, decode)


@pytest.mark.parametrize(
    ("connector", "path", "body"),
    [
        *((connector, "/v1/completions", {"prompt": "one two three", "max_tokens": 4}) for connector in CONNECTORS),
        *((connector, "/v1/responses", {"input": "one two", "max_output_tokens": 4}) for connector in CONNECTORS),
        *((connector, "/v1/messages", chat(max_tokens=4)) for connector in ("mooncake", "p2p")),
    ],
)
async def test_every_generating_path_has_its_two_legs(connector, path, body):
    async with vllm_pair(connector) as (prefill, decode, router):
        assert await router.ask(path, body) == "decode"
        assert await router.statuses() == (SUCCESS, SUCCESS)
        await assert_nothing_is_left(prefill, decode)


async def test_decode_gets_the_clients_bytes_and_prefill_all_it_does_not_replace():
    async with vllm_pair() as (prefill, decode, router):
        raw = b'{"x":1.50,"stream":false , "messages":[{"role":"user","content":"\\u00e9"}],"max_tokens":3}'
        async with router.session.post(router.url + CHAT, data=raw) as response:
            assert response.status == 200
        assert decode.requests[-1].body.startswith(raw[:-1] + b',"kv_transfer_params":{')
        first = prefill.requests[-1].body
        kept = b'{"x":1.50,"messages":[{"role":"user","content":"\\u00e9"}],"max_tokens":1,"stream":false,'
        assert first.startswith(kept)


async def test_usage_of_the_prompt_is_what_prefill_says_and_of_the_answer_what_decode_says():
    async with vllm_pair() as (_prefill, _decode, router):
        body = chat("word " * 200, max_tokens=5)
        streamed = body | {"stream": True, "stream_options": {"include_usage": True}}
        usages = []
        for _ in range(2):
            async with router.post(CHAT, body) as response:
                usages.append((await response.json())["usage"])
        async with router.post(CHAT, streamed) as response:
            events = [line[6:] for line in (await response.text()).splitlines() if line.startswith("data: {")]
            usages.append(json.loads(events[-1])["usage"])
        for usage in usages:
            assert usage["completion_tokens"] == 5
            assert usage["total_tokens"] == usage["prompt_tokens"] + 5
        # Decode has every prompt in its cache as soon as it has fetched it; prefill knows what was computed.
        assert usages[0]["prompt_tokens_details"]["cached_tokens"] == 0
        assert usages[1]["prompt_tokens_details"]["cached_tokens"] > 100
        assert usages[2] == usages[1]
        legs = await router.legs(3)
        assert [outcome.completion_tokens for outcome in legs[Leg.DECODE]] == [5, 5, 5]
        assert [outcome.completion_tokens for outcome in legs[Leg.PREFILL]] == [1, 1, 1]


@pytest.mark.parametrize(("path", "prompt"), [(CHAT, chat("eight by")), ("/v1/completions", {"prompt": "eight by"})])
async def test_log_probabilities_of_the_prompt_come_from_prefill(path, prompt):
    body = prompt | {"prompt_logprobs": 0}
    async with vllm_pair() as (_prefill, _decode, router), SimulatedEngine(tokens=8) as alone:
        async with router.post(path, body) as response:
            merged = await response.json()
        async with router.session.post(alone.url + path, json=body) as response:
            expected = await response.json()
        for answer in (merged, expected):
            answer["known"] = answer.get("prompt_logprobs", answer["choices"][0].get("prompt_logprobs"))
        assert merged["known"] == expected["known"] is not None


async def test_an_engine_that_pushes_gets_both_legs_at_once_until_it_is_started_anew():
    async with vllm_pair("nixl-push") as (prefill, decode, router):
        await router.ask()
        prefill.ttft_s = 0.05
        await router.ask()
        assert json.loads(decode.requests[-1].body)["kv_transfer_params"].get("remote_block_ids") is None
        await prefill.stop()
        async with router.post() as response:
            assert response.status == 502
        await prefill.start()
        await router.ask()
        await decode.wait_idle()
        assert decode.refused == 0


async def test_several_sequences_are_decodes_alone():
    async with vllm_pair(decode={"recomputes": True}) as (prefill, _decode, router):
        assert await router.ask(body=chat(n=2)) == "decode"
        assert await router.ask("/v1/completions", {"prompt": ["a", "b"]}) == "decode"
        assert await router.ask("/v1/messages") == "decode"  # Anthropic's form has no place for a KV cache's name
        assert prefill.accepted == 0
        await router.legs(3)


async def test_a_client_of_decode_alone_ends_it_at_once():
    async with vllm_pair(decode={"recomputes": True, "ttft_s": NEVER_S}) as (prefill, decode, router):
        async with await RawClient.connect(router.url) as client:
            client.send(chat(n=2))
            await decode.wait_running()
            client.hang_up()
            await decode.wait_for_abort()
        assert await router.statuses() == (CANCELLED, CANCELLED)
        assert prefill.accepted == 0


async def test_a_short_prompt_is_decodes_alone():
    options = {"min_prefill_tokens": 100}
    async with vllm_pair(decode={"recomputes": True}, options=options) as (prefill, _decode, router):
        assert await router.ask() == "decode"
        await until(lambda: router.record.completed)
        worker, _, outcome = router.record.completed[0]
        assert (worker.role, outcome.leg, outcome.status) == (DECODE, Leg.DECODE, SUCCESS)
        assert prefill.accepted == 0
        await router.ask(body=chat("word " * 200))
        assert prefill.transfers == 1
        await until(lambda: len(router.record.completed) == 3)
        assert router.is_settled()


async def test_a_prompt_that_decode_has_already_is_decodes_alone():
    options = {"min_prefill_tokens": 700}
    first = chat("word " * 1000)
    longer = {**first, "messages": [*first["messages"], {"role": "assistant", "content": "Yes."}, *first["messages"]]}
    longer["messages"][-1] = {"role": "user", "content": "And then?"}
    async with vllm_pair(decode={"recomputes": True}, options=options) as (prefill, decode, router):
        await router.ask(body=first)
        assert (prefill.transfers, prefill.accepted) == (1, 1)
        for _ in range(2):  # what was computed alone is remembered too
            assert await router.ask(body=longer) == "decode"
            longer["messages"].append({"role": "user", "content": "more " * 100})
        assert prefill.accepted == 1
        await router.ask(body=chat("other " * 1000))
        assert prefill.accepted == 2
        await until(lambda: len(router.record.completed) == 6)
        assert router.is_settled()
        await decode.wait_idle()


async def test_the_pair_is_reserved_before_anything_is_sent():
    async with (
        vllm_pair(prefill={"ttft_s": NEVER_S}) as (prefill, decode, router),
        await RawClient.connect(router.url) as client,
    ):
        client.send()
        await prefill.wait_running()
        assert (router.worker(PREFILL).load, router.worker(DECODE).load) == (1, 1)
        assert router.worker(DECODE).decode_tokens > 0
        assert decode.accepted == 0


async def test_a_conversation_goes_on_at_the_decode_worker_that_made_its_last_response():
    async with (
        two_of_each("vllm") as (prefills, decodes),
        running_pair_router(prefills, decodes, protocol="vllm") as router,
    ):
        async with router.post("/v1/responses", {"input": "x"}) as response:
            maker, made = response.headers["x-simulated-engine"], (await response.json())["id"]
        for _ in range(4):
            assert await router.ask("/v1/responses", {"input": "y", "previous_response_id": made}) == maker
        await router.legs(5)


# --- failures ---


@pytest.mark.parametrize(
    ("knobs", "status", "outcome"),
    [
        ({"status": 422}, 422, OutcomeStatus.CLIENT_ERROR),
        ({"status": 500}, 502, ERROR),
        ({"fault": Fault.CLOSE_BEFORE_HEAD}, 502, ERROR),
        ({"fault": Fault.SHORT_BODY}, 502, ERROR),
    ],
)
@pytest.mark.parametrize("connector", CONNECTORS)
async def test_a_prefill_that_fails_ends_the_request(connector, knobs, status, outcome):
    async with vllm_pair(connector, prefill=knobs) as (_prefill, decode, router):
        async with router.post() as response:
            assert response.status == status
            code = (await response.json())["error"]["code"]
        assert code == ("prefill_failed" if status == 502 else status)
        assert await router.statuses() == (outcome, CANCELLED)
        assert decode.accepted == 0


async def test_a_bootstrap_server_that_is_gone_is_the_prefill_workers_fault():
    async with vllm_pair("mooncake") as (_prefill, _decode, router):
        worker = router.worker(PREFILL)
        object.__setattr__(worker, "labels", {"bootstrap_port": "9"})
        async with router.post() as response:
            assert response.status == 502
        assert await router.statuses() == (ERROR, CANCELLED)


@pytest.mark.parametrize("fault", [Fault.CLOSE_BEFORE_HEAD, Fault.CLOSE_MID_STREAM])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_decode_that_dies_is_to_blame_alone(fault, stream):
    async with vllm_pair(decode={"fault": fault}) as (_prefill, _decode, router):
        async with await RawClient.connect(router.url) as client:
            client.send(chat(stream=stream))
            answer = await client.read_head()
            if fault is Fault.CLOSE_BEFORE_HEAD or not stream:
                assert answer[0] == 502
            else:
                assert answer[0] == 200
                assert b'"code":"upstream_connection_lost"' in await client.read_until(b"\r\n0\r\n\r\n")
        assert await router.statuses() == (SUCCESS, ERROR)


async def test_decodes_error_is_passed_on():
    async with vllm_pair(decode={"status": 429, "retry_after_s": 3}) as (_prefill, _decode, router):
        async with router.post() as response:
            assert (response.status, response.headers["retry-after"]) == (429, "3")
        assert await router.statuses() == (SUCCESS, OutcomeStatus.BACKPRESSURE)
