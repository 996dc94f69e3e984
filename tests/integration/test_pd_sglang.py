"""SGLang's protocol over real sockets: both legs at once, one answer, each leg ended once."""

from __future__ import annotations

import json

import pytest

from router_core.api import Leg, OutcomeStatus
from router_core.testing.simulated_engine import Fault, SimulatedEngine

from .pd_support import (
    DECODE,
    NEVER_S,
    PREFILL,
    JointPolicy,
    assert_nothing_is_left,
    pair,
    running_pair_router,
    two_of_each,
)
from .support import BUILT_IN, CHAT, RawClient, chat, in_house, until

SUCCESS, CANCELLED, ERROR = OutcomeStatus.SUCCESS, OutcomeStatus.CANCELLED, OutcomeStatus.ERROR


@pytest.mark.parametrize("stream", [False, True])
async def test_decode_answers_what_an_engine_alone_would(stream):
    async with pair() as (prefill, decode, router):
        body = chat("Tell me of Köln", stream=stream)
        async with router.post(CHAT, body) as response:
            assert response.status == 200
            assert response.headers["x-simulated-engine"] == "decode"
            text = await response.text()
        if stream:
            assert text.endswith("data: [DONE]\n\n")
        else:
            assert json.loads(text)["choices"][0]["message"]["content"] == decode.expected_text(body)
        assert await router.statuses() == (SUCCESS, SUCCESS)
        assert (prefill.transfers, decode.transfers) == (1, 1)
        await assert_nothing_is_left(prefill, decode)


async def test_the_body_reaches_both_legs_byte_for_byte_but_for_the_insertion():
    async with pair() as (prefill, decode, router):
        raw = b' {"x":1.50,"messages" : [{"role":"user","content":"\\u00e9 {}"}], "y":{"bootstrap_room":0}, "n":1\n} '
        async with router.session.post(router.url + CHAT, data=raw) as response:
            assert response.status == 200
        bodies = [engine.requests[-1].body for engine in (prefill, decode)]
        assert bodies[0] == bodies[1]
        end = raw.rindex(b"}")
        assert bodies[0].startswith(raw[:end] + b',"bootstrap_host":"127.0.0.1","bootstrap_port":')
        assert bodies[0].endswith(b"} ")
        assert json.loads(bodies[0])["bootstrap_port"] == prefill.bootstrap_port


async def test_a_bootstrap_port_that_nobody_said_is_learned_from_the_engine():
    async with (
        SimulatedEngine(name="prefill", pd="sglang", role="prefill") as prefill,
        SimulatedEngine(name="decode", pd="sglang", role="decode") as decode,
        running_pair_router([prefill], [decode], pd={"prefill": [prefill.url], "decode": [decode.url]}) as router,
    ):
        assert await router.ask()
        assert json.loads(prefill.requests[-1].body)["bootstrap_port"] == prefill.bootstrap_port
        await assert_nothing_is_left(prefill, decode)


async def test_a_client_cannot_name_a_bootstrap_server():
    async with pair() as (prefill, decode, router):
        theirs = {"bootstrap_host": "10.0.0.1", "bootstrap_port": 1, "bootstrap_room": 7}
        await router.ask(body=theirs | chat())
        assert json.loads(prefill.requests[-1].body)["bootstrap_host"] == "127.0.0.1"
        await assert_nothing_is_left(prefill, decode)


@pytest.mark.parametrize(
    ("path", "body", "rooms"),
    [
        ("/generate", {"text": ["one", "two"]}, 2),
        ("/generate", {"text": ["one"]}, 1),
        ("/generate", {"input_ids": [[1, 2], [3, 4], [5]]}, 3),
        ("/generate", {"input_ids": [1, 2, 3]}, None),
        ("/generate", {"text": "one", "sampling_params": {"n": 2}}, 2),
        ("/v1/completions", {"prompt": ["one", "two"], "n": 2}, 4),
        ("/v1/completions", {"prompt": [1, 2]}, None),
        (CHAT, chat(n=3), 3),
    ],
)
async def test_a_batch_has_a_fresh_room_for_each_item(path, body, rooms):
    async with pair() as (prefill, decode, router):
        for _ in range(2):
            assert await router.ask(path, body) == "decode"
        sent = [json.loads(request.body)["bootstrap_room"] for request in prefill.requests]
        numbers = [number for room in sent for number in (room if isinstance(room, list) else [room])]
        assert [len(room) if isinstance(room, list) else None for room in sent] == [rooms, rooms]
        assert len(set(numbers)) == len(numbers)
        assert all(0 <= number < 2**63 for number in numbers)
        await assert_nothing_is_left(prefill, decode)


@pytest.mark.parametrize("text", ["eight by", ["eight by", "one two three"]])
@pytest.mark.parametrize("stream", [False, True])
async def test_log_probabilities_of_the_prompt_come_with_decodes_answer(text, stream):
    body = {"text": text, "return_logprob": True, "logprob_start_len": 0, "stream": stream}
    async with pair() as (prefill, decode, router), SimulatedEngine(tokens=8) as alone:
        async with router.post("/generate", body) as response:
            assert response.status == 200
            merged = await response.text()
        async with router.session.post(alone.url + "/generate", json=body) as response:
            expected = await response.text()
        assert logprobs(merged) == logprobs(expected)
        assert await router.statuses() == (SUCCESS, SUCCESS)
        await assert_nothing_is_left(prefill, decode)


def logprobs(text):
    """Return the log probabilities of each item, event by event."""
    lines = [line[6:] for line in text.splitlines() if line.startswith("data: {")] or [text]
    found = [json.loads(line) for line in lines]
    items = [item for each in found for item in (each if isinstance(each, list) else [each])]
    return [
        (item.get("index"), item["meta_info"]["input_token_logprobs"], item["meta_info"]["output_token_logprobs"])
        for item in items
    ]


@pytest.mark.parametrize("name", BUILT_IN)
async def test_every_built_in_policy_places_pairs(name):
    async with (
        two_of_each() as ((p0, p1), (d0, d1)),
        running_pair_router([p0, p1], [d0, d1], policy={"name": name, "seed": 1}) as router,
    ):
        for number in range(8):
            await router.ask(body=chat(f"{number} is a number of its own"))
        legs = await router.legs(8)
        assert {outcome.status for found in legs.values() for outcome in found} == {SUCCESS}
        assert (p0.transfers + p1.transfers, d0.transfers + d1.transfers) == (8, 8)
        await assert_nothing_is_left(p0, p1, d0, d1)


async def test_a_policy_for_each_side_and_a_joint_one():
    async with two_of_each() as ((p0, p1), (d0, d1)):
        sides = {"prefill_policy": "cache_aware", "decode_policy": {"name": "power_of_two"}}
        async with running_pair_router([p0, p1], [d0, d1], **sides) as router:
            for _ in range(4):
                await router.ask(body=chat("the same words"))
            await router.legs(4)
            assert router.server.policy.name == "cache_aware+power_of_two"
            assert sorted([p0.transfers, p1.transfers]) == [0, 4]
        async with running_pair_router([p0, p1], [d0, d1], policy=in_house(JointPolicy)) as router:
            before = p1.transfers, d1.transfers
            for _ in range(3):
                assert await router.ask() == "decode-1"
            assert (p1.transfers - before[0], d1.transfers - before[1]) == (3, 3)


async def test_each_leg_is_counted_in_its_own_phase():
    async with (
        pair(prefill={"ttft_s": NEVER_S}) as (prefill, decode, router),
        await RawClient.connect(router.url) as client,
    ):
        client.send(chat("word " * 100))
        await prefill.wait_running()
        await decode.wait_running()
        first, last = router.worker(PREFILL), router.worker(DECODE)
        assert (first.load, last.load) == (1, 1)
        assert first.pending_prompt_tokens > 100 < last.decode_tokens
        assert (first.decode_tokens, last.pending_prompt_tokens) == (0, 0)


# --- failures ---


async def test_a_prefill_leg_that_is_refused_goes_to_the_client_as_it_is():
    async with pair(prefill={"status": 422}, decode={"ttft_s": NEVER_S}) as (_prefill, decode, router):
        async with router.post(body=chat(stream=True)) as response:
            assert response.status == 422
            assert response.headers["x-simulated-engine"] == "prefill"
            assert "was told to answer 422" in await response.text()
        assert await router.statuses() == (OutcomeStatus.CLIENT_ERROR, CANCELLED)
        await decode.wait_idle()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_prefill_leg_that_fails_cancels_decode_and_is_to_blame(stream):
    async with pair(prefill={"status": 500}, decode={"ttft_s": NEVER_S}) as (_prefill, decode, router):
        async with router.post(body=chat(stream=stream)) as response:
            assert response.status == 502
            assert (await response.json())["error"]["code"] == "prefill_failed"
        assert await router.statuses() == (ERROR, CANCELLED)
        await decode.wait_idle()


async def test_a_prefill_worker_that_dies_cancels_decode_and_is_to_blame():
    async with pair(prefill={"ttft_s": NEVER_S}) as (prefill, decode, router):
        async with await RawClient.connect(router.url) as client:
            client.send(chat())
            await prefill.wait_running()
            await decode.wait_running()
            await prefill.stop()
            status, body = await client.read_answer()
        assert (status, json.loads(body)["error"]["code"]) == (502, "prefill_failed")
        assert await router.statuses() == (ERROR, CANCELLED)
        await decode.wait_idle()


@pytest.mark.parametrize("status", [400, 500, 503])
async def test_decodes_error_goes_to_the_client_and_cancels_the_prefill(status):
    async with pair(prefill={"ttft_s": NEVER_S}, decode={"status": status}) as (prefill, _decode, router):
        async with router.post() as response:
            assert response.status == status
            assert response.headers["x-simulated-engine"] == "decode"
        first, last = await router.statuses()
        assert first is CANCELLED
        assert last in (OutcomeStatus.CLIENT_ERROR, ERROR, OutcomeStatus.BACKPRESSURE)
        await assert_nothing_is_left(prefill)


@pytest.mark.parametrize("fault", [Fault.CLOSE_BEFORE_HEAD, Fault.HANG])
async def test_a_decode_worker_that_dies_before_its_head_cancels_the_prefill(fault):
    async with pair(prefill={"ttft_s": NEVER_S}, decode={"fault": fault}) as (prefill, decode, router):
        async with await RawClient.connect(router.url) as client:
            client.send(chat())
            await prefill.wait_running()
            if fault is Fault.HANG:
                await decode.wait_running()
                decode.cut_connections()
            status, body = await client.read_answer()
        assert (status, json.loads(body)["error"]["code"]) == (502, "upstream_connection_lost")
        assert await router.statuses() == (CANCELLED, ERROR)
        await assert_nothing_is_left(prefill)


async def test_a_stream_that_decode_breaks_off_ends_with_an_error():
    async with pair(decode={"fault": Fault.CLOSE_MID_STREAM, "close_after_tokens": 3}) as (prefill, decode, router):
        async with await RawClient.connect(router.url) as client:
            client.send(chat(stream=True))
            answer = await client.read_until(b"\r\n0\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b'"code":"upstream_connection_lost"' in answer
        assert (await router.statuses())[1] is ERROR
        await assert_nothing_is_left(prefill, decode)


@pytest.mark.parametrize("role", ["prefill", "decode"])
async def test_a_worker_that_refuses_connections_costs_another_attempt(role):
    async with (
        two_of_each() as ((p0, p1), (d0, d1)),
        running_pair_router([p0, p1], [d0, d1]) as router,
    ):
        await {"prefill": p0, "decode": d0}[role].stop()
        await router.ask()
        legs = await router.legs(2)
        other = Leg.DECODE if role == "prefill" else Leg.PREFILL
        assert [outcome.status for outcome in legs[Leg(role)]] == [ERROR, SUCCESS]
        assert [outcome.status for outcome in legs[other]] == [CANCELLED, SUCCESS]
        assert [outcome.attempt for outcome in legs[other]] == [1, 2]


async def test_no_pair_no_request():
    async with pair(decode={"health_status": 200}) as (prefill, _decode, router):
        async with router.get("/readiness") as response:
            assert response.status == 200
        router.server.pool.set_health(router.worker(DECODE), False)
        async with router.get("/readiness") as response:
            assert response.status == 503
            assert (await response.json())["reason"] == "no healthy decode workers"
        async with router.post() as response:
            assert response.status == 503
            assert (await response.json())["error"]["code"] == "no_available_workers"
        assert (prefill.accepted, router.record.completed) == (0, [])


async def test_a_body_that_is_no_object_is_refused_here():
    async with pair() as (prefill, decode, router):
        async with router.session.post(router.url + CHAT, data=b"[1]") as response:
            assert response.status == 400
            assert (await response.json())["error"]["code"] == "invalid_json"
        assert (prefill.accepted, decode.accepted) == (0, 0)
        assert await router.statuses() == (CANCELLED, CANCELLED)


async def test_other_inference_paths_go_to_one_prefill_worker():
    async with pair() as (_prefill, decode, router):
        assert await router.ask("/v1/embeddings", {"input": "x"}) == "prefill"
        await until(lambda: router.record.completed)
        assert [outcome.leg for _, _, outcome in router.record.completed] == [Leg.SINGLE]
        assert decode.accepted == 0
